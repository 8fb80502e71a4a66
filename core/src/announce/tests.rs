//! What a run sends when, without a network.

use super::*;
use crate::ask::PeerVerdict;
use crate::host::{Neighbour, NeighbourState, Usability};
use crate::order::{Done, Fate, Outcome};
use crate::wire::{Arp, ArpOperation, Echo, EchoKind, Ndp, Payload};

const ETH: InterfaceIndex = InterfaceIndex(2);
const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
const OTHER: Mac = Mac::new([2, 0, 0, 0, 0, 2]);

/// A core, and the moment it is in.
struct Bench {
    core: Announcement,
    now: Instant,
}

impl Bench {
    fn with(vips: &[&str]) -> Self {
        let placed = |vip: &&str| PlacedVip::anywhere(vip.parse().unwrap());
        Self::placed(&vips.iter().map(placed).collect::<Vec<_>>(), Duration::ZERO)
    }

    fn placed(vips: &[PlacedVip], conflict_watch: Duration) -> Self {
        let pace = Pace {
            rate: NonZeroU32::new(2000).unwrap(),
            wait: Duration::from_secs(1),
            timeout: Duration::from_secs(60),
            conflict_watch,
        };
        let now = Instant::now();
        let mut core = Announcement::new(vips, pace, 7, now);
        core.link_changed(now, &link(Some(MAC), true));
        Self { core, now }
    }

    fn address(&mut self, ip: &str, usability: Usability) {
        self.core.address_changed(self.now, &address(ip, usability));
    }

    fn after(&mut self, millis: u64) -> &mut Self {
        self.now += Duration::from_millis(millis);
        self
    }

    /// The frames that leave now.
    fn sends(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(transmit) = self.core.poll_transmit(self.now) {
            self.core.sent(self.now, &transmit);
            frames.push(transmit.frame);
        }
        frames
    }
}

fn link(mac: Option<Mac>, carrier: bool) -> Link {
    Link {
        mac,
        carrier,
        ..Link::ethernet(ETH.0, "eth0", MAC)
    }
}

fn host() -> HostSnapshot {
    HostSnapshot {
        links: vec![link(Some(MAC), true)],
        addresses: Vec::new(),
    }
}

fn address(ip: &str, usability: Usability) -> Address {
    Address {
        ip: ip.parse().unwrap(),
        interface: ETH,
        prefix_len: 32,
        usability,
    }
}

fn first_round_v4(vip: [u8; 4], mac: Mac) -> [Frame; 3] {
    [
        Arp::gratuitous_request(vip.into(), mac),
        Arp::gratuitous_reply(vip.into(), mac),
        Arp::probe(vip.into(), mac),
    ]
}

#[test]
fn every_vip_gets_one_frame_before_any_gets_two() {
    let mut bench = Bench::with(&["10.0.0.10", "10.0.0.11", "10.0.0.12"]);
    for ip in ["10.0.0.10", "10.0.0.11", "10.0.0.12"] {
        bench.address(ip, Usability::Usable);
    }
    let rounds = [10, 11, 12].map(|host| first_round_v4([10, 0, 0, host], MAC));
    let expected: Vec<_> = (0..3)
        .flat_map(|frame| rounds.iter().map(move |round| round[frame].clone()))
        .collect();
    assert_eq!(bench.sends(), expected);
}

#[test]
fn of_a_round_the_probe_alone_is_answered() {
    for (vip, answered) in [
        ("10.0.0.10", vec![false, false, true]),
        ("fd00::10", vec![false, true]),
    ] {
        let mut bench = Bench::with(&[vip]);
        bench.address(vip, Usability::Usable);
        let mut questions = Vec::new();
        while let Some(transmit) = bench.core.poll_transmit(bench.now) {
            bench.core.sent(bench.now, &transmit);
            questions.push(transmit.is_question);
        }
        assert_eq!(questions, answered);
    }
}

#[test]
fn a_tentative_address_is_waited_for_and_not_claimed() {
    let mut bench = Bench::with(&["fd00::10"]);
    bench.address("fd00::10", Usability::Tentative);
    assert_eq!(bench.after(1500).sends(), []);
    assert!(!bench.core.is_over(bench.now));
    bench.address("fd00::10", Usability::Usable);
    assert_eq!(bench.sends().len(), 2);
}

#[test]
fn an_address_that_another_host_defends_is_never_claimed() {
    let mut bench = Bench::with(&["fd00::10"]);
    bench.address("fd00::10", Usability::Tentative);
    bench.address("fd00::10", Usability::DadFailed);
    assert_eq!(bench.sends(), []);
    assert!(bench.core.is_over(bench.now));
    assert_eq!(bench.core.claims()[0].state(), State::DadFailed);
}

#[test]
fn an_address_that_comes_back_in_time_is_announced_anew_and_one_that_comes_later_is_not() {
    for (millis, comes_back) in [(50, true), (900, true), (1100, false)] {
        let mut bench = Bench::with(&["10.0.0.10"]);
        bench.address("10.0.0.10", Usability::Usable);
        assert_eq!(bench.sends().len(), 3);
        let address = address("10.0.0.10", Usability::Usable);
        bench.core.address_gone(bench.now, &address);
        assert_eq!(bench.after(millis).sends(), []);
        assert_eq!(bench.core.is_over(bench.now), !comes_back);
        bench.core.address_changed(bench.now, &address);
        assert_eq!(
            bench.sends().len(),
            if comes_back { 3 } else { 0 },
            "{millis}"
        );
    }
}

#[test]
fn a_vip_has_left_when_no_entry_of_it_is_left() {
    let mut bench = Bench::with(&["10.0.0.10"]);
    let host = address("10.0.0.10", Usability::Usable);
    let subnet = Address {
        prefix_len: 24,
        ..host
    };
    bench.core.addresses_are(bench.now, &[host, subnet]);
    assert_eq!(bench.sends().len(), 3);
    bench.core.address_gone(bench.now, &host);
    assert_eq!(bench.core.claims()[0].state(), State::Ready);
    assert_eq!(bench.after(50).sends().len(), 3, "the next round");
    bench.core.address_gone(bench.now, &subnet);
    assert_eq!(bench.core.claims()[0].state(), State::Left);
    assert_eq!(bench.after(200).sends(), []);
}

#[test]
fn runs_yield_each_place_by_itself() {
    const ELSEWHERE: InterfaceIndex = InterfaceIndex(3);
    let vip: Vip = "10.0.0.10".parse().unwrap();
    for (taken, yields) in [
        ((vip, Some(ETH)), true),
        ((vip, None), true),
        ((vip, Some(ELSEWHERE)), false),
        (("10.0.0.11".parse().unwrap(), None), false),
    ] {
        let mut bench = Bench::with(&["10.0.0.10"]);
        bench.address("10.0.0.10", Usability::Usable);
        assert_eq!(bench.core.places(), [(vip, Some(ETH))]);
        bench.core.superseded(&[taken]);
        let superseded = bench.core.claims()[0].state() == State::Superseded;
        assert_eq!(superseded, yields, "{taken:?}");
    }
    let place = Place::On("eth0".to_owned());
    let mut waits = Bench::placed(&[PlacedVip { vip, place }], Duration::ZERO);
    assert_eq!(waits.core.places(), []);
    waits.core.interface_is("eth0", ETH);
    assert_eq!(waits.core.places(), [(vip, Some(ETH))]);
    waits.core.superseded(&[(vip, Some(ELSEWHERE))]);
    assert_eq!(waits.core.yielded().count(), 0);
    waits.core.superseded(&[(vip, Some(ETH))]);
    assert_eq!(waits.core.yielded().count(), 1);
}

/// Another host's answer to an ARP probe.
fn claims_v4(vip: [u8; 4], mac: Mac) -> Frame {
    Frame {
        destination: MAC,
        source: mac,
        payload: Payload::Arp(Arp {
            operation: ArpOperation::Reply,
            sender_mac: mac,
            sender_ip: vip.into(),
            target_mac: MAC,
            target_ip: [0; 4].into(),
        }),
    }
}

/// Plays for some time; the rival answers every probe while it `is_there`.
fn play(bench: &mut Bench, time: Duration, is_there: bool) -> usize {
    let end = bench.now + time;
    let mut announced = 0;
    while bench.now < end && !bench.core.is_over(bench.now) {
        for frame in bench.sends() {
            if frame == Arp::probe([10, 0, 0, 10].into(), MAC) {
                if is_there {
                    let claim = claims_v4([10, 0, 0, 10], OTHER);
                    bench.core.received(bench.now, ETH, &claim);
                }
            } else {
                announced += 1;
            }
        }
        bench.now = bench
            .core
            .next_deadline(bench.now)
            .max(bench.now + Duration::from_micros(1));
    }
    announced
}

#[test]
fn while_another_owner_is_there_the_run_stays_and_once_it_is_gone_announces_anew() {
    const WATCH: Duration = Duration::from_secs(600);
    let placed = [PlacedVip::anywhere("10.0.0.10".parse().unwrap())];
    let mut bench = Bench::placed(&placed, WATCH);
    bench.address("10.0.0.10", Usability::Usable);
    assert_eq!(play(&mut bench, Duration::from_secs(20), true), 16);
    assert!(!bench.core.is_over(bench.now));
    let news = bench.core.take_news();
    assert!(
        matches!(news[..], [News { is_over: false, .. }]),
        "{news:?}"
    );
    assert_eq!(play(&mut bench, Duration::from_secs(100), true), 0);
    assert_eq!(bench.core.take_news(), []);
    let ramp = play(&mut bench, Duration::from_secs(4), false);
    // Up to two seconds pass before the next look.
    assert!((8..=10).contains(&ramp), "{ramp}");
    let news = bench.core.take_news();
    assert!(matches!(news[..], [News { is_over: true, .. }]), "{news:?}");
    assert_eq!(
        ramp + play(&mut bench, WATCH, false),
        16,
        "and the rest of the rounds"
    );
    assert!(bench.core.is_over(bench.now));
    let claim = &bench.core.claims()[0];
    assert_eq!(
        (claim.conflicts().count(), claim.past_conflicts().count()),
        (0, 1)
    );
}

#[test]
fn another_owner_is_watched_for_a_bounded_time_or_not_at_all_but_asked_again_before_the_end() {
    for (seconds, ends_within) in [(600, 10..=612), (0, 10..=12)] {
        let placed = [PlacedVip::anywhere("10.0.0.10".parse().unwrap())];
        let mut bench = Bench::placed(&placed, Duration::from_secs(seconds));
        bench.address("10.0.0.10", Usability::Usable);
        let began = bench.now;
        play(&mut bench, Duration::from_secs(10_000), true);
        let lasted = (bench.now - began).as_secs();
        assert!(
            ends_within.contains(&lasted) && lasted >= seconds,
            "{lasted} s"
        );
        assert_eq!(bench.core.claims()[0].conflicts().count(), 1);
    }
    let mut healed = Bench::with(&["10.0.0.10"]);
    healed.address("10.0.0.10", Usability::Usable);
    play(&mut healed, Duration::from_secs(5), true);
    play(&mut healed, Duration::from_secs(100), false);
    let claim = &healed.core.claims()[0];
    assert_eq!(
        (claim.conflicts().count(), claim.past_conflicts().count()),
        (0, 1)
    );
}

#[test]
fn an_address_that_was_replaced_before_a_frame_could_leave_did_not_leave() {
    let mut bench = Bench::with(&["10.0.0.10"]);
    bench.address("10.0.0.10", Usability::Usable);
    bench.sends();
    bench
        .core
        .address_gone(bench.now, &address("10.0.0.10", Usability::Usable));
    bench.address("10.0.0.10", Usability::Usable);
    assert_eq!(bench.sends(), first_round_v4([10, 0, 0, 10], MAC));
}

#[test]
fn a_vip_counts_only_on_the_interface_that_was_named() {
    const ELSEWHERE: InterfaceIndex = InterfaceIndex(3);
    let here = address("10.0.0.10", Usability::Usable);
    let elsewhere = Address {
        interface: ELSEWHERE,
        ..here
    };
    let other = Address {
        interface: ELSEWHERE,
        ..address("10.0.0.11", Usability::Usable)
    };
    for (place, claims) in [(Place::Anywhere, 2), (Place::On("eth0".to_owned()), 1)] {
        let vip = "10.0.0.10".parse().unwrap();
        let mut bench = Bench::placed(&[PlacedVip { vip, place }], Duration::ZERO);
        assert_eq!(bench.core.unknown_link_of(&here), None, "it was told of");
        assert_eq!(bench.core.unknown_link_of(&elsewhere), Some(ELSEWHERE));
        assert_eq!(bench.core.unknown_link_of(&other), None, "no VIP");
        let link = Link {
            index: ELSEWHERE,
            name: "eth1".to_owned(),
            ..link(Some(OTHER), true)
        };
        bench.core.link_changed(bench.now, &link);
        bench
            .core
            .addresses_are(bench.now, &[here, elsewhere, other]);
        assert_eq!(bench.core.claims().len(), claims);
    }
}

#[test]
fn where_nobody_can_ask_for_it_a_vip_is_absent_until_it_is_elsewhere_too() {
    let mut bench = Bench::with(&["10.0.0.10"]);
    let vip = "10.0.0.10".parse().unwrap();
    let lo = Link {
        index: InterfaceIndex(1),
        name: "lo".to_owned(),
        unlike_ethernet: Some("is a loopback interface"),
        ..link(None, true)
    };
    bench.core.link_changed(bench.now, &lo);
    let on_lo = Address {
        interface: lo.index,
        ..address("10.0.0.10", Usability::Usable)
    };
    bench.core.address_changed(bench.now, &on_lo);
    assert_eq!(bench.sends(), []);
    assert_eq!(bench.core.absent().count(), 1);
    let passed_over: Vec<_> = bench.core.passed_over(vip).map(|link| link.index).collect();
    assert_eq!(passed_over, [lo.index]);
    let now = bench.after(500).now;
    assert!(!bench.core.is_over(now));
    bench.address("10.0.0.10", Usability::Usable);
    assert_eq!(bench.sends(), first_round_v4([10, 0, 0, 10], MAC));
    assert_eq!(bench.core.claims().len(), 1);
}

#[test]
fn a_vip_on_an_interface_that_is_down_is_claimed_when_that_comes_up() {
    let mut bench = Bench::with(&["10.0.0.10"]);
    let down = Link {
        up: false,
        ..link(Some(MAC), false)
    };
    bench.core.link_changed(bench.now, &down);
    bench.address("10.0.0.10", Usability::Usable);
    assert_eq!(bench.core.absent().count(), 1);
    let now = bench.after(500).now;
    bench.core.link_changed(now, &link(Some(MAC), true));
    assert_eq!(bench.sends(), first_round_v4([10, 0, 0, 10], MAC));
}

#[test]
fn a_vmac_of_another_name_is_known_by_what_it_is_above() {
    let vip = "10.0.0.10".parse().unwrap();
    let place = Place::Vmac {
        name: "vrrp.51".to_owned(),
        above: "eth0".to_owned(),
    };
    let mut bench = Bench::placed(&[PlacedVip { vip, place }], Duration::ZERO);
    bench.core.link_gone(bench.now, ETH);
    let vmac = Link {
        index: InterfaceIndex(3),
        name: "vrrp1.51".to_owned(),
        lower: Some(ETH),
        ..link(Some(OTHER), true)
    };
    let on_vmac = Address {
        interface: vmac.index,
        ..address("10.0.0.10", Usability::Usable)
    };
    assert_eq!(bench.core.unknown_link_of(&on_vmac), Some(vmac.index));
    bench.core.link_changed(bench.now, &vmac);
    assert_eq!(bench.core.unknown_link_of(&on_vmac), Some(ETH));
    bench.core.link_changed(bench.now, &link(Some(MAC), true));
    assert_eq!(bench.core.unknown_link_of(&on_vmac), None);
    bench.core.address_changed(bench.now, &on_vmac);
    assert_eq!(bench.sends(), first_round_v4([10, 0, 0, 10], OTHER));
}

#[test]
fn a_vip_that_a_newer_run_took_before_it_came_is_left_to_that_run() {
    let mut bench = Bench::with(&["10.0.0.10", "10.0.0.11"]);
    bench
        .core
        .superseded(&[("10.0.0.10".parse().unwrap(), None)]);
    bench.address("10.0.0.10", Usability::Usable);
    bench.address("10.0.0.11", Usability::Usable);
    assert_eq!(bench.sends(), first_round_v4([10, 0, 0, 11], MAC));
    let yielded: Vec<_> = bench.core.yielded().collect();
    assert_eq!(yielded, ["10.0.0.10".parse().unwrap()]);
}

#[test]
fn what_was_lost_with_the_changes_counts_as_gone() {
    let mut bench = Bench::with(&["10.0.0.10", "10.0.0.11"]);
    bench.address("10.0.0.10", Usability::Usable);
    bench.address("10.0.0.11", Usability::Usable);
    bench.sends();
    let here = [address("10.0.0.11", Usability::Usable)];
    bench.core.addresses_are(bench.now, &here);
    assert_eq!(bench.after(50).sends(), first_round_v4([10, 0, 0, 11], MAC));
}

#[test]
fn what_moved_to_another_interface_among_lost_changes_counts_as_gone_from_the_first() {
    let mut bench = Bench::with(&["10.0.0.10"]);
    bench.address("10.0.0.10", Usability::Usable);
    bench.sends();
    let mut there = address("10.0.0.10", Usability::Usable);
    there.interface = InterfaceIndex(3);
    bench.core.addresses_are(bench.now, &[there]);
    assert_eq!(bench.after(50).sends(), []);
    assert_eq!(bench.core.claims()[0].state(), State::Left);
}

#[test]
fn a_vip_is_left_to_a_newer_run_at_once() {
    let mut bench = Bench::with(&["10.0.0.10", "10.0.0.11"]);
    bench.address("10.0.0.10", Usability::Usable);
    bench.address("10.0.0.11", Usability::Usable);
    bench.sends();
    bench
        .core
        .superseded(&[("10.0.0.10".parse().unwrap(), None)]);
    assert_eq!(bench.after(50).sends(), first_round_v4([10, 0, 0, 11], MAC));
    let states = bench.core.claims().iter().map(Claim::state);
    assert!(states.eq([State::Superseded, State::Ready]));
    let sent = bench.core.claims().iter().map(|claim| claim.frames_sent);
    assert!(sent.eq([3, 6]));
}

#[test]
fn a_frame_that_was_put_off_leaves_in_its_turn() {
    let mut bench = Bench::with(&["10.0.0.10"]);
    bench.address("10.0.0.10", Usability::Usable);
    let transmit = bench.core.poll_transmit(bench.now).unwrap();
    bench.core.put_off(bench.now, &transmit);
    assert_eq!(bench.sends(), first_round_v4([10, 0, 0, 10], MAC));
}

#[test]
fn the_rounds_start_over_when_the_carrier_is_back_or_the_mac_changed() {
    let mut bench = Bench::with(&["10.0.0.10"]);
    bench.address("10.0.0.10", Usability::Usable);
    bench.sends();
    bench.core.link_changed(bench.now, &link(Some(MAC), false));
    assert_eq!(bench.after(5000).sends(), []);
    bench.core.link_changed(bench.now, &link(Some(MAC), true));
    assert_eq!(bench.sends(), first_round_v4([10, 0, 0, 10], MAC));
    bench.core.link_changed(bench.now, &link(Some(OTHER), true));
    assert_eq!(bench.sends(), first_round_v4([10, 0, 0, 10], OTHER));
    let round = bench.after(50).sends();
    assert_eq!(
        round,
        first_round_v4([10, 0, 0, 10], OTHER),
        "the old rounds are void"
    );
}

#[test]
fn news_that_change_nothing_start_nothing() {
    let mut bench = Bench::with(&["10.0.0.10"]);
    bench.address("10.0.0.10", Usability::Usable);
    bench.sends();
    bench.core.link_changed(bench.now, &link(Some(MAC), true));
    bench.address("10.0.0.10", Usability::Usable);
    assert_eq!(bench.sends(), []);
}

#[test]
fn a_refused_frame_is_tried_again_less_and_less_often() {
    let mut bench = Bench::with(&["10.0.0.10"]);
    bench.address("10.0.0.10", Usability::Usable);
    let mut gaps = Vec::new();
    for _ in 0..10 {
        let transmit = bench.core.poll_transmit(bench.now).unwrap();
        assert_eq!(transmit.frame, first_round_v4([10, 0, 0, 10], MAC)[0]);
        bench
            .core
            .refused(bench.now, &transmit, Refusal::Other("ENOBUFS".to_owned()));
        assert!(bench.core.poll_transmit(bench.now).is_none());
        let next = bench.core.next_deadline(bench.now);
        gaps.push(next.duration_since(bench.now).as_millis());
        bench.now = next;
    }
    assert_eq!(gaps, [1, 2, 4, 8, 16, 32, 64, 128, 128, 128]);
    assert_eq!(bench.core.claims()[0].frames_sent, 0);
    assert_eq!(
        bench.core.claims()[0].last_refusal,
        Some(Refusal::Other("ENOBUFS".to_owned()))
    );
    assert_eq!(bench.sends(), first_round_v4([10, 0, 0, 10], MAC));
}

#[test]
fn an_absent_vip_is_waited_for_as_long_as_was_said() {
    let mut bench = Bench::with(&["10.0.0.10"]);
    bench.after(999);
    assert!(!bench.core.is_over(bench.now));
    let wakes = bench.core.next_deadline(bench.now);
    assert_eq!(wakes, bench.now + Duration::from_millis(1));
    bench.after(1);
    assert!(bench.core.is_over(bench.now));
}

#[test]
fn an_old_owners_last_frames_are_no_conflict_but_later_ones_are() {
    let mut bench = Bench::with(&["10.0.0.10"]);
    bench.address("10.0.0.10", Usability::Usable);
    bench.sends();
    let claim = Arp::gratuitous_request([10, 0, 0, 10].into(), OTHER);
    bench.after(99);
    bench.core.received(bench.now, ETH, &claim);
    assert_eq!(bench.core.claims()[0].conflicts().count(), 0);
    bench.after(1);
    bench.core.received(bench.now, ETH, &claim);
    let own = Arp::gratuitous_request([10, 0, 0, 10].into(), MAC);
    bench.core.received(bench.now, ETH, &own);
    assert_eq!(
        bench.core.claims()[0].conflicts().collect::<Vec<_>>(),
        [OTHER]
    );
}

#[test]
fn the_last_round_misleads_nobody() {
    let mut bench = Bench::with(&["fd00::10"]);
    bench.address("fd00::10", Usability::Usable);
    let mut all = Vec::new();
    while !bench.core.is_over(bench.now) {
        all.extend(bench.sends());
        bench.now = bench.core.next_deadline(bench.now);
    }
    let vip = "fd00::10".parse().unwrap();
    assert_eq!(all.len(), 15);
    assert!(all[..14].contains(&Ndp::probe(vip, MAC, None)));
    assert_eq!(all[14], Ndp::unsolicited_advertisement(vip, MAC, false));
}

/// What a host that follows answers.
fn answer_of_a_follower(frame: &Frame) -> Option<Frame> {
    let payload = match frame.payload {
        Payload::Arp(arp) if arp.sender_ip != arp.target_ip => Payload::Arp(Arp {
            operation: ArpOperation::Reply,
            sender_mac: OTHER,
            sender_ip: arp.target_ip,
            target_mac: arp.sender_mac,
            target_ip: arp.sender_ip,
        }),
        Payload::Echo(echo) => Payload::Echo(Echo {
            source: echo.destination,
            destination: echo.source,
            kind: EchoKind::Reply,
            ..echo
        }),
        _ => return None,
    };
    (frame.destination == OTHER).then_some(Frame {
        destination: frame.source,
        source: OTHER,
        payload,
    })
}

/// A run whose VIPs are here, and which knows one neighbour: 10.0.0.2 at [`OTHER`].
fn bench_with_a_neighbour(vips: &[&str]) -> Bench {
    let mut bench = Bench::with(vips);
    for vip in vips {
        bench.address(vip, Usability::Usable);
    }
    let mut around = LinkView::of(link(Some(MAC), true));
    around.addresses = vec![Address {
        prefix_len: 24,
        ..address("10.0.0.1", Usability::Usable)
    }];
    around.neighbours = vec![Neighbour {
        ip: [10, 0, 0, 2].into(),
        mac: Some(OTHER),
        state: NeighbourState::Reachable,
        externally_learned: false,
    }];
    bench
        .core
        .links_are(bench.now, &[around], &host(), &[], Confirm::All);
    bench
}

/// Gives the frames that leave now to the neighbour. Returns how many it answers.
fn answered(bench: &mut Bench, answer: impl Fn(&Frame) -> Option<Frame>) -> usize {
    let answers: Vec<_> = bench.sends().iter().filter_map(answer).collect();
    for answer in &answers {
        bench.core.received(bench.now, ETH, answer);
    }
    answers.len()
}

#[test]
fn who_has_proven_proves_again_when_the_carrier_is_back() {
    let mut bench = bench_with_a_neighbour(&["10.0.0.10"]);
    let answered = |bench: &mut Bench| answered(bench, answer_of_a_follower);
    let verdict = |bench: &Bench| bench.core.claims()[0].confirmations()[0].verdict();
    assert_eq!(answered(&mut bench), 1, "a directed request");
    assert_eq!(answered(&mut bench), 1, "an echo");
    assert_eq!(verdict(&bench), PeerVerdict::Proven);

    bench.core.link_changed(bench.now, &link(Some(MAC), false));
    bench.after(100);
    bench.core.link_changed(bench.now, &link(Some(MAC), true));
    assert_eq!(verdict(&bench), PeerVerdict::Silent);
    assert_eq!(answered(&mut bench) + answered(&mut bench), 2);
    assert_eq!(verdict(&bench), PeerVerdict::Proven);
}

#[test]
fn how_much_is_lost_is_told_by_a_peers_first_answer() {
    let mut bench = bench_with_a_neighbour(&["10.0.0.10"]);
    let to_arp = |frame: &Frame| match frame.payload {
        Payload::Arp(_) => answer_of_a_follower(frame),
        _ => None,
    };
    bench.sends();
    bench.after(5).sends();
    assert_eq!(bench.core.questions_to_rule_out_chance(ETH), None);
    assert_eq!(answered(bench.after(10), to_arp), 1);
    // One of three: (2/3)^29 is less than 1 in 100,000.
    assert_eq!(bench.core.questions_to_rule_out_chance(ETH), Some(29));
    assert_eq!(answered(&mut bench, answer_of_a_follower), 1, "an echo");
    let verdict = bench.core.claims()[0].confirmations()[0].verdict();
    assert_eq!(verdict, PeerVerdict::Proven);
    assert_eq!(bench.core.questions_to_rule_out_chance(ETH), Some(29));
}

#[test]
fn an_echo_from_one_vip_says_nothing_of_another() {
    let mut bench = bench_with_a_neighbour(&["10.0.0.10", "10.0.0.11"]);
    let second_vip = IpAddr::from([10, 0, 0, 11]);
    let for_the_second = |frame: &Frame| match frame.payload {
        Payload::Echo(echo) if echo.source == second_vip => answer_of_a_follower(frame),
        _ => None,
    };
    // They come late, when the first VIP's control echoes have the same sequence numbers.
    let mut answers = Vec::new();
    for _ in 0..100 {
        answers.extend(bench.after(10).sends().iter().filter_map(for_the_second));
    }
    for answer in &answers {
        bench.core.received(bench.now, ETH, answer);
    }
    let claims = bench.core.claims().iter();
    let verdicts: Vec<_> = claims.map(|c| c.confirmations()[0].verdict()).collect();
    assert_eq!(verdicts, [PeerVerdict::Silent, PeerVerdict::Proven]);
}

/// The neighbour did what it was ordered to do about a VIP.
fn order_answered(bench: &mut Bench, vip: Vip, outcome: Outcome) {
    let done = Done {
        vip,
        outcome,
        was: None,
        now: None,
        interface: String::new(),
    };
    let fate = Fate::Answered { done, skew: None };
    let peer = [10, 0, 0, 2].into();
    bench.core.order_answered(bench.now, ETH, vip, peer, &fate);
}

#[test]
fn the_answer_to_an_order_counts_for_its_own_vip() {
    let mut bench = bench_with_a_neighbour(&["10.0.0.10", "10.0.0.11"]);
    let second = bench.core.vips()[1];
    order_answered(&mut bench, second, Outcome::Purged);
    let claims = bench.core.claims().iter();
    let orders: Vec<_> = claims
        .map(|claim| claim.confirmations()[0].order.as_ref().map(Fate::word))
        .collect();
    assert_eq!(orders, [None, Some("purged")]);
}

#[test]
fn what_is_announced_is_known_by_interface_vip_and_mac() {
    let mut bench = Bench::with(&["10.0.0.10"]);
    bench.address("10.0.0.10", Usability::Usable);
    let (vip, other) = (bench.core.vips()[0], "10.0.0.11".parse().unwrap());
    assert!(bench.core.announces(ETH, vip, MAC));
    assert!(!bench.core.announces(InterfaceIndex(3), vip, MAC));
    assert!(!bench.core.announces(ETH, other, MAC));
    assert!(!bench.core.announces(ETH, vip, OTHER));
    bench
        .core
        .address_gone(bench.now, &address("10.0.0.10", Usability::Usable));
    assert!(!bench.core.announces(ETH, vip, MAC));
}

#[test]
fn a_stale_peer_is_told_as_an_owner_once_it_claims_the_vip_until_it_lets_go() {
    const THIRD: Mac = Mac::new([2, 0, 0, 0, 0, 3]);
    let vip = [10, 0, 0, 10].into();
    let mut bench = bench_with_a_neighbour(&["10.0.0.10"]);
    let but_for_the_vip = |frame: &Frame| match frame.payload {
        Payload::Echo(echo) if ![echo.source, echo.destination].contains(&IpAddr::V4(vip)) => {
            answer_of_a_follower(frame)
        }
        _ => None,
    };
    for _ in 0..100 {
        answered(bench.after(10), but_for_the_vip);
    }
    let verdict = |bench: &Bench| {
        let claim = &bench.core.claims()[0];
        claim.verdict_of(&claim.confirmations()[0])
    };
    assert_eq!(verdict(&bench), PeerVerdict::Stale);
    for mac in [OTHER, THIRD] {
        let claim = Arp::gratuitous_request(vip, mac);
        bench.core.received(bench.now, ETH, &claim);
    }
    assert_eq!(verdict(&bench), PeerVerdict::Silent);

    let vip = bench.core.vips()[0];
    order_answered(&mut bench, vip, Outcome::Released);
    assert_eq!(verdict(&bench), PeerVerdict::Stale);
    let conflicts: Vec<_> = bench.core.claims()[0].conflicts().collect();
    assert_eq!(conflicts, [THIRD], "the other one still has it");
}

#[test]
fn a_mac_is_named_by_its_hosts_first_address_that_is_no_vip() {
    let mut bench = Bench::with(&["10.0.0.1"]);
    bench.address("10.0.0.1", Usability::Usable);
    let mut around = LinkView::of(link(Some(MAC), true));
    around.neighbours = ["fd00::2", "10.0.0.2", "10.0.0.1", "10.0.0.3"]
        .map(|ip| Neighbour {
            ip: ip.parse().unwrap(),
            mac: Some(OTHER),
            state: NeighbourState::Reachable,
            externally_learned: false,
        })
        .to_vec();
    bench
        .core
        .links_are(bench.now, &[around], &host(), &[], Confirm::All);
    assert_eq!(bench.core.host_of(OTHER), Some([10, 0, 0, 2].into()));
    assert_eq!(bench.core.host_of(MAC), None);
}

/// A check of a VIP that no peer is asked about, about to ask.
fn check(vip: &str, addresses: &[&str]) -> Bench {
    let mut bench = Bench::with(&[vip]);
    bench.core = bench.core.in_mode(Mode::Check);
    bench.address(vip, Usability::Usable);
    assert_eq!(bench.sends(), [], "it does not know yet where to ask from");
    let mut around = LinkView::of(link(Some(MAC), true));
    let own = addresses.iter().map(|ip| address(ip, Usability::Usable));
    around.addresses = own.collect();
    bench
        .core
        .links_are(bench.now, &[around], &host(), &[], Confirm::All);
    bench
}

/// Plays a check to its end, while `answer` is given the probes.
fn checked(
    vip: &str,
    addresses: &[&str],
    mut answer: impl FnMut(&Frame) -> Option<Frame>,
) -> Bench {
    let mut bench = check(vip, addresses);
    while !bench.core.is_over(bench.now) {
        for frame in bench.sends() {
            if let Some(answer) = answer(&frame) {
                bench.core.received(bench.now, ETH, &answer);
            }
        }
        bench.now = bench.core.next_deadline(bench.now).max(bench.now);
    }
    bench
}

#[test]
fn a_check_sends_probes_alone_and_ends_when_nobody_can_have_been_missed() {
    for (vip, own, probe) in [
        (
            "10.0.0.10",
            "10.0.0.1",
            Arp::probe([10, 0, 0, 10].into(), MAC),
        ),
        (
            "fd00::10",
            "fd00::1",
            Ndp::probe(
                "fd00::10".parse().unwrap(),
                MAC,
                Some("fd00::1".parse().unwrap()),
            ),
        ),
    ] {
        let mut sent = 0;
        let bench = checked(vip, &[own], |frame| {
            assert_eq!(*frame, probe);
            sent += 1;
            None
        });
        assert_eq!(sent, 48);
        let claim = &bench.core.claims()[0];
        assert!(claim.is_certain_of_owners() && claim.conflicts().next().is_none());
        assert!(bench.now - bench.core.started() < Duration::from_millis(1100));
    }
}

#[test]
fn a_check_waits_for_the_answer_to_its_last_probe() {
    let mut bench = check("10.0.0.10", &["10.0.0.1"]);
    for _ in 1..48 {
        assert_eq!(bench.sends().len(), 1);
        bench.now += PROBE_GAP;
    }
    assert_eq!(bench.sends().len(), 1);
    assert!(!bench.core.is_over(bench.now));
    let end = bench.core.next_deadline(bench.now);
    assert_eq!(end, bench.now + LAST_ANSWER);
    assert!(bench.core.is_over(end));
}

#[test]
fn a_check_hears_another_owner_at_once() {
    let vip = [10, 0, 0, 10].into();
    let bench = checked("10.0.0.10", &["10.0.0.1"], |_| {
        Some(Frame {
            destination: MAC,
            source: OTHER,
            payload: Payload::Arp(Arp {
                operation: ArpOperation::Reply,
                sender_mac: OTHER,
                sender_ip: vip,
                target_mac: MAC,
                target_ip: [0, 0, 0, 0].into(),
            }),
        })
    });
    let conflicts: Vec<_> = bench.core.claims()[0].conflicts().collect();
    assert_eq!(conflicts, [OTHER]);
}

#[test]
fn a_check_asks_no_more_from_an_address_that_left() {
    let (vip, own) = ("fd00::10".parse().unwrap(), "fd00::1".parse().unwrap());
    let mut bench = check("fd00::10", &["fd00::1"]);
    let gone = |bench: &mut Bench, ip| {
        let address = address(ip, Usability::Usable);
        bench.core.address_gone(bench.now, &address);
        bench.after(15).sends()
    };
    assert_eq!(bench.sends(), [Ndp::probe(vip, MAC, Some(own))]);
    assert_eq!(
        gone(&mut bench, "fd00::2"),
        [Ndp::probe(vip, MAC, Some(own))]
    );
    assert_eq!(gone(&mut bench, "fd00::1"), [Ndp::probe(vip, MAC, None)]);
    assert!(
        !bench.core.claims()[0].is_certain_of_owners(),
        "not after three probes"
    );
}
