//! A peer in a report.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::Instant;

use serde::Serialize;
use vipherald_core::address::Mac;
use vipherald_core::ask::{Confirmation, PeerVerdict, Proof, Source};
use vipherald_core::order::Fate;

#[derive(Debug, Serialize)]
pub(super) struct AskedPeer {
    pub(super) address: IpAddr,
    pub(super) mac: Option<Mac>,
    pub(super) source: Source,
    pub(super) required: bool,
    pub(super) verdict: PeerVerdict,
    pub(super) after_ms: Option<f64>,
    pub(super) proof: Option<Proof>,
    pub(super) answered_by: Option<Mac>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) forwarded_by: Option<Mac>,
    pub(super) order: Option<&'static str>,
}

impl AskedPeer {
    /// The peers to list, and the number of the others: those whose turn did not come or that may not even
    /// exist, unless they are required; and those beyond `room`, which this takes from. What needs
    /// attention is listed first.
    pub(super) fn listed<'a>(
        started: Instant,
        peers: impl Iterator<Item = (&'a Confirmation, PeerVerdict)>,
        room: &mut usize,
    ) -> (Vec<Self>, Option<NonZeroUsize>) {
        let (mut listed, others): (Vec<_>, Vec<_>) = peers.partition(|(one, verdict)| {
            let is_told = match verdict {
                PeerVerdict::Unasked => false,
                PeerVerdict::Silent => !one.peer.doubtful,
                _ => true,
            };
            one.peer.required || is_told
        });
        let all = listed.len() + others.len();
        if listed.len() > *room {
            listed.sort_by_key(|(one, verdict)| {
                (!one.peer.required, *verdict == PeerVerdict::Proven)
            });
            listed.truncate(*room);
        }
        *room -= listed.len();
        let more = NonZeroUsize::new(all - listed.len());
        let listed = listed.into_iter();
        let listed = listed.map(|(one, verdict)| Self::of(started, verdict, one));
        (listed.collect(), more)
    }

    fn of(started: Instant, verdict: PeerVerdict, confirmation: &Confirmation) -> Self {
        // To the microsecond: the rest is noise.
        let after_ms = |at: Instant| {
            let after = at.duration_since(started);
            (after.as_secs_f64() * 1e6).round() / 1e3
        };
        Self {
            address: confirmation.peer.ip,
            mac: confirmation.peer.mac,
            source: confirmation.peer.source,
            required: confirmation.peer.required,
            verdict,
            after_ms: confirmation.settled().map(after_ms),
            proof: confirmation.proven.map(|(_, proof)| proof),
            forwarded_by: confirmation.forwarded_by,
            answered_by: confirmation.answered_by,
            order: confirmation.order.as_ref().map(Fate::word),
        }
    }
}
