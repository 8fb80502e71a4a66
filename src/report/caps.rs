//! What a report has at most, whatever the link carried.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use log::Level;
use vipherald_core::ask::PeerVerdict;

use super::Line;
use super::announce::AskedPeer;

/// Peers that the JSON of one report lists.
pub(super) const MOST_PEERS: usize = 4_096;
/// VIPs and peers of one receipt.
const MOST_KEPT: usize = 500;
/// Peers of one VIP if a receipt has more.
const MOST_WRONG: usize = 100;
/// Lines of one kind.
const MOST_LINES: usize = 16;

/// Leaves to a receipt the peers that somebody should look after, if the VIPs have many. Counts the others.
pub(super) fn shorten<'a>(
    vips: impl Iterator<Item = (&'a mut Vec<AskedPeer>, &'a mut Option<NonZeroUsize>)>,
) {
    let vips: Vec<_> = vips.collect();
    if vips.iter().map(|(peers, _)| 1 + peers.len()).sum::<usize>() <= MOST_KEPT {
        return;
    }
    for (peers, not_kept) in vips {
        let all = peers.len();
        // Neighbours come and go, so that one that is merely silent is no sign of anything.
        peers.retain(|peer| match peer.verdict {
            PeerVerdict::Stale => true,
            verdict => verdict == PeerVerdict::Silent && peer.required,
        });
        peers.truncate(MOST_WRONG);
        *not_kept = NonZeroUsize::new(all - peers.len());
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
            after_ms: None,
            proof: None,
            answered_by: None,
            forwarded_by: None,
            order: None,
        };
        (0..count).map(peer).collect()
    }

    #[test]
    fn a_receipt_of_many_peers_keeps_who_has_to_follow_and_does_not() {
        let (mut few, mut many, mut kept) = (peers(400), peers(5_000), [None; 2]);
        let [first, second] = &mut kept;
        shorten([(&mut few, first)].into_iter());
        assert_eq!(few.len(), 400);
        shorten([(&mut many, second)].into_iter());
        let verdicts: Vec<_> = many.iter().map(|peer| peer.verdict).collect();
        assert_eq!(verdicts, [PeerVerdict::Stale, PeerVerdict::Silent]);
        assert_eq!(kept, [None, NonZeroUsize::new(4_998)]);
    }
}
