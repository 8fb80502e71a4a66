//! The verdicts on the peers of a VIP. A report looks at them several times, and hosts can have tens of
//! thousands: each is found once.

use vipherald_core::announce::Claim;
use vipherald_core::ask::{Confirmation, PeerVerdict};

/// A VIP, and the verdicts on its peers.
#[derive(Debug)]
pub(super) struct Judged<'a> {
    pub(super) claim: &'a Claim,
    pub(super) peers: Vec<(&'a Confirmation, PeerVerdict)>,
}

impl<'a> Judged<'a> {
    pub(super) fn of(claim: &'a Claim) -> Self {
        let peers = claim.peers();
        Self {
            peers: peers.map(|one| (one, claim.verdict_of(one))).collect(),
            claim,
        }
    }
}
