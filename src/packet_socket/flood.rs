//! Which share of the frames to read that anybody can send: as much as costs a host little.

use std::time::Instant;

use nix::libc;

/// Frames of each class to read per second in the long run. One costs 4 µs.
const RATE: f64 = 5_000.0;
/// The most to read at once: the answers of a large link.
const DEPTH: f64 = 10_000.0;
/// Answers to expect for each frame that was sent.
const ANSWERS: f64 = 2.0;
/// The smallest share is one in 2 to the power of this.
const MOST_HALVINGS: u8 = 16;

/// Frames that cannot be told from forged ones. A flood in one class takes nothing from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Claims and requests of ARP and neighbour discovery, to all hosts.
    ToAll,
    /// What is sent to one host, such as answers by ARP.
    ToUs,
    /// Echo replies.
    Echo,
    /// VRRP advertisements.
    Advert,
}

/// The IP protocol of VRRP (RFC 9568 §5.1.1.4).
pub(super) const VRRP: u8 = 112;

impl Class {
    const ALL: [Self; 4] = [Self::ToAll, Self::ToUs, Self::Echo, Self::Advert];

    /// What one costs, in other frames: an advertisement has up to 255 addresses.
    fn cost(self) -> f64 {
        if self == Self::Advert { 4.0 } else { 1.0 }
    }

    fn of(frame: &[u8]) -> Self {
        let half = |at| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
        let octet = |at: usize| frame.get(at).copied().map(i32::from);
        let protocol = match half(12).map(i32::from) {
            Some(libc::ETH_P_IP) => octet(23),
            Some(libc::ETH_P_IPV6) => octet(20),
            _ => None,
        };
        match (protocol, frame.first()) {
            (Some(libc::IPPROTO_ICMP), _) => Self::Echo,
            (Some(libc::IPPROTO_ICMPV6), _) if octet(54) == Some(129) => Self::Echo,
            (Some(protocol), _) if protocol == i32::from(VRRP) => Self::Advert,
            (_, Some(first)) if first & 1 == 0 => Self::ToUs,
            _ => Self::ToAll,
        }
    }
}

/// Of which class to read one frame in how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shares([u8; Class::ALL.len()]);

impl Shares {
    /// The bits of a random number that are zero for this share of frames.
    pub(super) fn mask(&self, class: Class) -> u32 {
        (1 << self.0[class as usize]) - 1
    }

    /// Whether any frame is dropped.
    pub(super) fn are_small(&self) -> bool {
        self.0.iter().any(|halvings| *halvings > 0)
    }
}

/// What was read, against what may be.
#[derive(Debug)]
pub(super) struct Budgets {
    left: [f64; Class::ALL.len()],
    filled: Option<Instant>,
    shares: Shares,
    /// About how many frames the kernel dropped: it does not count those that a filter drops.
    unread: u64,
}

impl Budgets {
    pub(super) fn new() -> Self {
        Self {
            left: [DEPTH; Class::ALL.len()],
            filled: None,
            shares: Shares::default(),
            unread: 0,
        }
    }

    /// About how many frames were dropped.
    pub(super) fn unread(&self) -> u64 {
        self.unread
    }

    pub(super) fn shares(&self) -> &Shares {
        &self.shares
    }

    /// A frame was read.
    pub(super) fn read(&mut self, frame: &[u8]) {
        let class = Class::of(frame);
        self.left[class as usize] -= class.cost();
        // If one in eight is read, seven were dropped for each.
        self.unread += u64::from(self.shares.mask(class));
    }

    /// `sent` frames left since the last call, and those that came since then are read. Returns whether
    /// the shares change: halved for a class that spent more than it may, doubled for one that saved.
    pub(super) fn settle(&mut self, now: Instant, sent: u32) -> bool {
        let before = self.shares;
        let filled = self.filled.replace(now).unwrap_or(now);
        let gained = now.saturating_duration_since(filled).as_secs_f64() * RATE;
        for class in Class::ALL {
            let (left, halvings) = (
                &mut self.left[class as usize],
                &mut self.shares.0[class as usize],
            );
            *left += gained;
            if matches!(class, Class::ToUs | Class::Echo) {
                *left += f64::from(sent) * ANSWERS;
            }
            if *left < 0.0 {
                *halvings = (*halvings + 1).min(MOST_HALVINGS);
                // What waits was admitted by the larger share.
                *left = DEPTH / 4.0;
            } else if *left >= DEPTH {
                *left = DEPTH;
                if *halvings > 0 {
                    *halvings -= 1;
                    *left = DEPTH / 2.0;
                }
            }
        }
        self.shares != before
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BROADCAST: [u8; 14] = [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 6];
    const TO_US: [u8; 14] = [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 8, 6];

    /// A flood of `per_second` frames a second, read once a millisecond: how many are read in each second.
    fn flood(budgets: &mut Budgets, began: Instant, per_second: u32, seconds: u32) -> Vec<u32> {
        let mut read = vec![0; seconds as usize];
        for millis in 0..seconds * 1000 {
            let admitted = (per_second / 1000) / (budgets.shares().mask(Class::ToAll) + 1);
            for _ in 0..admitted {
                budgets.read(&BROADCAST);
            }
            read[millis as usize / 1000] += admitted;
            budgets.settle(began + Duration::from_millis(millis.into()), 0);
        }
        read
    }

    #[test]
    fn a_flood_is_read_as_fast_as_costs_little_and_takes_nothing_from_answers() {
        let (mut budgets, began) = (Budgets::new(), Instant::now());
        let read = flood(&mut budgets, began, 500_000, 10);
        assert!(read[0] <= 35_000, "{read:?}");
        let later = &read[1..];
        assert!(later.iter().all(|read| *read <= 10_000), "{read:?}");
        assert!(later.iter().all(|read| *read > 500), "{read:?}");
        assert_eq!(budgets.shares().mask(Class::ToUs), 0);
        assert_eq!(budgets.shares().mask(Class::Echo), 0);
        // This flood rounds what is admitted down to whole frames a millisecond.
        let all = budgets.unread() + u64::from(read.iter().sum::<u32>());
        assert!((4_000_000..5_500_000).contains(&all), "{all}");
    }

    #[test]
    fn after_a_flood_everything_is_read_again() {
        let (mut budgets, began) = (Budgets::new(), Instant::now());
        flood(&mut budgets, began, 500_000, 2);
        assert!(budgets.shares().are_small());
        let later = began + Duration::from_secs(2);
        flood(&mut budgets, later, 1_000, 20);
        assert!(!budgets.shares().are_small());
    }

    #[test]
    fn answers_are_as_many_as_the_questions_and_never_a_flood() {
        let (mut budgets, began) = (Budgets::new(), Instant::now());
        for millis in 0..2000 {
            for _ in 0..100 {
                budgets.read(&TO_US);
            }
            assert!(!budgets.settle(began + Duration::from_millis(millis), 100));
        }
    }

    #[test]
    fn echo_replies_and_adverts_are_classes_of_their_own() {
        let mut v4 = [0; 60];
        v4[12..14].copy_from_slice(&[8, 0]);
        v4[23] = 1;
        let mut v6 = [0; 80];
        v6[12..14].copy_from_slice(&[0x86, 0xdd]);
        (v6[20], v6[54]) = (58, 129);
        let mut advertisement = v6;
        (advertisement[0], advertisement[54]) = (0x33, 136);
        let (mut advert4, mut advert6) = (v4, v6);
        (advert4[23], advert6[20]) = (VRRP, VRRP);
        let classes = [&v4[..], &v6, &advertisement, &BROADCAST, &TO_US, &[]].map(Class::of);
        use Class::{Advert, Echo, ToAll, ToUs};
        assert_eq!(classes, [Echo, Echo, ToAll, ToAll, ToUs, ToAll]);
        assert_eq!([&advert4[..], &advert6].map(Class::of), [Advert; 2]);
    }
}
