//! What tells this run's echoes from others', and a real reply from a forged one.

use std::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac as _};
use sha2::Sha256;

use crate::wire::Token;

/// Identifies the echoes of a run.
///
/// The nonce of each is a keyed hash of what it asks whom: who sees some of them cannot guess others.
#[derive(Clone)]
pub(crate) struct EchoId {
    secret: [u8; 8],
    pub(crate) identifier: u16,
    first_sequence: u16,
}

impl std::fmt::Debug for EchoId {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EchoId({:#x})", self.identifier)
    }
}

impl EchoId {
    /// `seed` must be secret and differ from run to run.
    pub(crate) fn new(seed: u64) -> Self {
        let mut run = Self {
            secret: seed.to_be_bytes(),
            identifier: 0,
            first_sequence: 0,
        };
        let [a, b, c, d, ..] = run.hash(&[b"run"]);
        run.identifier = u16::from_be_bytes([a, b]);
        run.first_sequence = u16::from_be_bytes([c, d]);
        run
    }

    fn hash(&self, of: &[&[u8]]) -> [u8; 8] {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.secret) else {
            return self.secret;
        };
        for part in of {
            mac.update(part);
        }
        let mut hash = [0; 8];
        hash.copy_from_slice(&mac.finalize().into_bytes()[..8]);
        hash
    }

    /// The token of the echo after `count` earlier ones, about what it asks (a kind, and two addresses).
    pub(crate) fn token(&self, (kind, one, other): (u8, IpAddr, IpAddr), count: u32) -> Token {
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        let hash = self.hash(&[&[kind], &octets(one), &octets(other), &count.to_be_bytes()]);
        // The field wraps at 2^16.
        let [.., high, low] = count.to_be_bytes();
        Token {
            identifier: self.identifier,
            sequence: self
                .first_sequence
                .wrapping_add(u16::from_be_bytes([high, low])),
            nonce: u64::from_be_bytes(hash),
        }
    }

    /// The number of the echo that has such a token, of the first 2^16.
    pub(crate) fn number(&self, token: Token) -> Option<u32> {
        let is_ours = token.identifier == self.identifier;
        is_ours.then(|| token.sequence.wrapping_sub(self.first_sequence).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_its_number_and_what_it_is_about() {
        let run = EchoId::new(7);
        let (vip, peer) = (IpAddr::from([10, 0, 0, 10]), IpAddr::from([10, 0, 0, 2]));
        for count in [0, 1, 65_535] {
            let token = run.token((1, vip, peer), count);
            assert_eq!(run.number(token), Some(count));
            for (other, about) in [
                (&run, (2, vip, peer)),
                (&run, (1, vip, vip)),
                (&run, (1, peer, peer)),
                (&EchoId::new(8), (1, vip, peer)),
            ] {
                assert_ne!(other.token(about, count).nonce, token.nonce);
            }
        }
        let wraps = run.token((1, vip, peer), 65_536);
        assert_eq!(run.number(wraps), Some(0));
        assert_ne!(wraps, run.token((1, vip, peer), 0));
        assert!(!format!("{run:?}").contains('7'));
    }
}
