//! The keys that sign and verify orders and answers.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac as _};
use sha2::Sha256;

use super::message::TAG;

/// The least octets of a key: the length of the hash (RFC 2104 §3).
const SHORTEST: usize = 32;

/// This host's keys: the first one signs, all of them verify.
#[derive(Clone)]
pub struct Keys(Vec<Hmac<Sha256>>);

impl Keys {
    /// The key that a secret of at least 32 octets gives for a site, which may be empty. Networks
    /// that share a secret tell their orders apart by it.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn from_octets(octets: &[u8], site: &str) -> Result<Self, String> {
        if octets.len() < SHORTEST {
            return Err(format!(
                "has {} octets, and a key has at least {SHORTEST}: `vipherald keygen` writes one",
                octets.len()
            ));
        }
        let hmac = |key: &[u8]| -> Result<Hmac<Sha256>, String> {
            Hmac::new_from_slice(key).map_err(|error| error.to_string())
        };
        let of_site = hmac(octets)?.chain_update(site).finalize().into_bytes();
        Ok(Self(vec![hmac(&of_site)?]))
    }

    /// Appends the tag of the first key.
    pub fn sign(&self, datagram: &mut Vec<u8>) {
        if let Some(key) = self.0.first() {
            let tag = key.clone().chain_update(&*datagram).finalize();
            datagram.extend_from_slice(&tag.into_bytes());
        }
    }

    /// The octets before the tag, if one of the keys made the tag. It computes one hash per key,
    /// and compares in constant time.
    #[must_use]
    pub fn authenticate<'a>(&self, datagram: &'a [u8]) -> Option<&'a [u8]> {
        let (signed, tag) = datagram.split_at_checked(datagram.len().checked_sub(TAG)?)?;
        let made = |key: &Hmac<Sha256>| {
            let tagged = key.clone().chain_update(signed);
            tagged.verify_slice(tag).is_ok()
        };
        self.0.iter().any(made).then_some(signed)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl FromIterator<Self> for Keys {
    /// All keys, in the same sequence.
    fn from_iter<I: IntoIterator<Item = Self>>(all: I) -> Self {
        Self(all.into_iter().flat_map(|keys| keys.0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test case 6 of RFC 4231 (§4.7): its key has 131 octets.
    #[test]
    fn the_tag_is_that_of_rfc_4231() {
        let keys = Keys(vec![Hmac::new_from_slice(&[0xaa; 131]).unwrap()]);
        let mut text = b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec();
        let signed = text.len();
        keys.sign(&mut text);
        let tag: String = text[signed..].iter().map(|o| format!("{o:02x}")).collect();
        assert_eq!(
            tag,
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
        assert_eq!(keys.authenticate(&text), Some(&text[..signed]));
        for at in 0..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 1;
            assert_eq!(keys.authenticate(&changed), None);
            assert_eq!(keys.authenticate(&text[..at]), None);
        }
    }

    #[test]
    fn what_one_site_signs_no_other_accepts() {
        let sites = ["", "a", "b", "ab"].map(|site| Keys::from_octets(&[7; 32], site).unwrap());
        for (at, signer) in sites.iter().enumerate() {
            let mut text = b"text".to_vec();
            signer.sign(&mut text);
            for (other, verifier) in sites.iter().enumerate() {
                assert_eq!(verifier.authenticate(&text).is_some(), at == other);
            }
        }
    }
}
