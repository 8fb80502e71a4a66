//! What a report has at most, whatever the link carried.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use log::Level;
use serde::Serialize;
use vipherald_core::ask::PeerVerdict;

use super::Line;
use super::asked_peer::AskedPeer;

/// Peers that the JSON of one report lists.
pub(super) const MOST_PEERS: usize = 4_096;
/// VIPs and peers of one receipt.
const MOST_KEPT: usize = 500;
/// Peers of one receipt that has more, and of one of its VIPs.
const MOST_WRONG: usize = 400;
const MOST_WRONG_OF_VIP: usize = 100;
/// Times of one receipt at which those followed that it leaves out.
const MOST_TIMES: usize = 2_000;
/// Lines of one kind.
const MOST_LINES: usize = 16;

/// The peers of a VIP that a receipt leaves out: what they did in all.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct NotKept {
    #[serde(rename = "peers_not_kept", skip_serializing_if = "Option::is_none")]
    count: Option<NonZeroUsize>,
    #[serde(
        rename = "verdicts_not_kept",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    verdicts: BTreeMap<PeerVerdict, usize>,
    #[serde(
        rename = "peer_orders_not_kept",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    orders: BTreeMap<&'static str, usize>,
    /// When they followed, in milliseconds; if they are many, quantiles, of which the last is the
    /// greatest.
    #[serde(rename = "after_ms_not_kept", skip_serializing_if = "Vec::is_empty")]
    followed: Vec<f64>,
}

impl NotKept {
    fn of(peers: &[AskedPeer], most_times: usize) -> Self {
        let mut all = Self {
            count: NonZeroUsize::new(peers.len()),
            ..Self::default()
        };
        for peer in peers {
            *all.verdicts.entry(peer.verdict).or_default() += 1;
            if let Some(order) = peer.order {
                *all.orders.entry(order).or_default() += 1;
            }
            let follows = matches!(
                peer.verdict,
                PeerVerdict::Proven | PeerVerdict::Acknowledged
            );
            all.followed.extend(peer.after_ms.filter(|_| follows));
        }
        all.followed.sort_by(f64::total_cmp);
        let (count, most) = (all.followed.len(), most_times);
        if count > most {
            let quantiles = (1..=most).map(|part| all.followed[count * part / most - 1]);
            all.followed = quantiles.collect();
        }
        all
    }
}

/// Leaves to a receipt the peers that somebody should look after, if the VIPs have many. Adds up the
/// others.
pub(super) fn shorten<'a>(vips: impl Iterator<Item = (&'a mut Vec<AskedPeer>, &'a mut NotKept)>) {
    let vips: Vec<_> = vips.collect();
    if vips.iter().map(|(peers, _)| 1 + peers.len()).sum::<usize>() <= MOST_KEPT {
        return;
    }
    let share = |of: usize| (of / vips.len()).max(1);
    let (most_wrong, most_times) = (share(MOST_WRONG).min(MOST_WRONG_OF_VIP), share(MOST_TIMES));
    for (peers, not_kept) in vips {
        // Neighbours come and go, so that one that is merely silent is no sign of anything.
        let is_wrong = |peer: &AskedPeer| match peer.verdict {
            PeerVerdict::Stale => true,
            verdict => verdict == PeerVerdict::Silent && peer.required,
        };
        let (mut wrong, mut others): (Vec<_>, Vec<_>) =
            std::mem::take(peers).into_iter().partition(is_wrong);
        others.extend(wrong.drain(most_wrong.min(wrong.len())..));
        *not_kept = NotKept::of(&others, most_times);
        *peers = wrong;
    }
}

/// Lines for people: the first ones of each kind, and the number of the others.
#[derive(Debug, Default)]
pub(super) struct Similar {
    lines: Vec<Line>,
    kinds: BTreeMap<&'static str, (Level, usize)>,
}

impl Similar {
    /// Adds a line. `kind`: what it is about.
    pub(super) fn add(&mut self, level: Level, kind: &'static str, line: impl FnOnce() -> Line) {
        let (_, count) = self.kinds.entry(kind).or_insert((level, 0));
        *count += 1;
        if *count <= MOST_LINES {
            self.lines.push(line());
        }
    }

    /// Those so far; what is added later counts with them.
    pub(super) fn take(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.lines)
    }

    pub(super) fn into_lines(self) -> impl Iterator<Item = Line> {
        let more = self.kinds.into_iter().filter_map(|(kind, (level, count))| {
            let more = count.checked_sub(MOST_LINES).filter(|more| *more > 0)?;
            let text = format!("{more} more lines like these, about {kind}");
            Some(Line::new(level, text))
        });
        self.lines.into_iter().chain(more)
    }
}

#[cfg(test)]
mod tests {
    use vipherald_core::ask::Source;

    use super::*;

    #[test]
    fn of_a_thousand_lines_of_a_kind_sixteen_and_their_number_remain() {
        let mut lines = Similar::default();
        lines.add(Level::Warn, "stale peers", || Line::new(Level::Warn, "one"));
        for _ in 0..1000 {
            lines.add(Level::Error, "conflicts", || Line::new(Level::Error, "two"));
        }
        let lines: Vec<_> = lines.into_lines().collect();
        assert_eq!(lines.len(), 1 + 16 + 1);
        let last = Line::new(Level::Error, "984 more lines like these, about conflicts");
        assert_eq!(lines.last(), Some(&last));
    }

    fn peers(count: usize) -> Vec<AskedPeer> {
        let peer = |number: usize| AskedPeer {
            address: [10, 0, 0, 1].into(),
            mac: None,
            source: Source::Learned,
            required: number == 8,
            verdict: match number {
                7 => PeerVerdict::Stale,
                8 | 9 => PeerVerdict::Silent,
                _ => PeerVerdict::Proven,
            },
            after_ms: (number > 9).then_some(1.0),
            proof: None,
            answered_by: None,
            forwarded_by: None,
            order: None,
        };
        (0..count).map(peer).collect()
    }

    #[test]
    fn a_receipt_of_many_peers_keeps_who_has_to_follow_and_does_not() {
        let (mut few, mut many, mut not_kept) = (peers(400), peers(5_000), NotKept::default());
        shorten([(&mut few, &mut not_kept)].into_iter());
        assert_eq!((few.len(), &not_kept), (400, &NotKept::default()));
        shorten([(&mut many, &mut not_kept)].into_iter());
        let verdicts: Vec<_> = many.iter().map(|peer| peer.verdict).collect();
        assert_eq!(verdicts, [PeerVerdict::Stale, PeerVerdict::Silent]);
        assert_eq!(not_kept.count, NonZeroUsize::new(4_998));
        let verdicts = [(PeerVerdict::Proven, 4_997), (PeerVerdict::Silent, 1)];
        assert_eq!(not_kept.verdicts, verdicts.into());
    }

    #[test]
    fn of_many_times_quantiles_and_the_last_one_are_kept() {
        let mut all = peers(1_010);
        for (peer, after) in all.iter_mut().skip(10).zip((1..=1_000).rev()) {
            peer.after_ms = Some(f64::from(after));
        }
        let of_four = NotKept::of(&all, 4);
        assert_eq!(of_four.followed, [250.0, 500.0, 750.0, 1_000.0]);
        assert_eq!(NotKept::of(&all, 1).followed, [1_000.0]);
        assert_eq!(NotKept::of(&all, 2_000).followed.len(), 1_000);
    }
}
