//! Runs without a network: which frames leave when.

mod news;

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::ask::testing::{OWN as MAC, answered as order_answer, mac, neighbour, reply};
use crate::ask::{Confirm, LinkView, Observed, PeerVerdict, Proof, Source};
use crate::host::{HostSnapshot, NeighbourState, Place};
use crate::order::{Fate, Outcome};
use crate::wire::{ALL_NODES, Arp, Echo, EchoKind, Header, Ndp, Payload, Report};

const ETH: InterfaceIndex = InterfaceIndex(2);
const ELSEWHERE: InterfaceIndex = InterfaceIndex(3);
const OTHER: Mac = mac(2);
const THIRD: Mac = mac(3);

/// A core, and its present time.
struct Bench {
    core: Announcement,
    now: Instant,
}

impl Bench {
    fn with(vips: &[&str]) -> Self {
        let placed = |vip: &&str| PlacedVip::anywhere(vip.parse().unwrap());
        Self::placed(&vips.iter().map(placed).collect::<Vec<_>>(), Duration::ZERO)
    }

    /// A run for 10.0.0.10 at a certain place.
    fn at(place: Place) -> Self {
        let vip = vip(10);
        Self::placed(&[PlacedVip { vip, place }], Duration::ZERO)
    }

    fn placed(vips: &[PlacedVip], conflict_watch: Duration) -> Self {
        let pace = Pace {
            rate: NonZeroU32::new(2000).unwrap(),
            wait: Duration::from_secs(1),
            timeout: Duration::from_secs(60),
            arp_rate: None,
            census: true,
            repeats: true,
            conflict_watch,
        };
        let now = Instant::now();
        let mut core = Announcement::new(vips, pace, 7, now);
        core.link_changed(now, &link(Some(MAC), true));
        Self { core, now }
    }

    /// A run whose VIPs are usable here.
    fn holding(vips: &[&str]) -> Self {
        let mut bench = Self::with(vips);
        for vip in vips {
            bench.address(vip, Usability::Usable);
        }
        bench
    }

    /// The same for 10.0.0.10, with this many seconds to watch other owners.
    fn watching(seconds: u64) -> Self {
        let placed = PlacedVip::anywhere(vip(10));
        let mut bench = Self::placed(&[placed], Duration::from_secs(seconds));
        bench.address("10.0.0.10", Usability::Usable);
        bench.hear(THIRD);
        bench
    }

    /// A frame of another host that is for neither us nor all.
    fn hear(&mut self, source: Mac) {
        let header = Header {
            destination: mac(0x77),
            source,
            wanted: None,
            sender: None,
        };
        self.core.heard(self.now, ETH, &header);
    }

    fn address(&mut self, ip: &str, usability: Usability) {
        self.core.address_changed(self.now, &address(ip, usability));
    }

    fn lose(&mut self, ip: &str) {
        let address = address(ip, Usability::Usable);
        self.core.address_gone(self.now, &address);
    }

    fn link(&mut self, link: &Link) {
        self.core.link_changed(self.now, link);
    }

    fn receive(&mut self, frame: &Frame) {
        let header = Header::parse(&frame.to_bytes()).unwrap();
        self.core.heard(self.now, ETH, &header);
        self.core.received(self.now, ETH, frame);
    }

    /// Finds peers and source addresses in this view.
    fn view(&mut self, addresses: Vec<Address>, neighbours: &[(&str, Mac)]) {
        self.view_in(NeighbourState::Reachable, addresses, neighbours);
    }

    /// The same, with neighbours in this state.
    fn view_in(
        &mut self,
        state: NeighbourState,
        addresses: Vec<Address>,
        neighbours: &[(impl AsRef<str>, Mac)],
    ) {
        let entry = |(ip, mac): &(_, Mac)| neighbour(AsRef::<str>::as_ref(ip), *mac, state);
        let view = LinkView {
            addresses,
            neighbours: neighbours.iter().map(entry).collect(),
            ..LinkView::of(link(Some(MAC), true))
        };
        let host = HostSnapshot {
            links: vec![view.link.clone()],
            addresses: Vec::new(),
        };
        self.core.links_are(vec![view], &host, &[], Confirm::All);
        while self.core.find_peers(self.now) {}
    }

    fn is_over(&self) -> bool {
        self.core.is_over(self.now)
    }

    fn claim(&self) -> &Claim {
        &self.core.claims()[0]
    }

    fn conflicts(&self) -> Vec<Mac> {
        self.claim().conflicts().collect()
    }

    /// The verdict on the first peer.
    fn verdict(&self) -> PeerVerdict {
        self.claim().verdict_of(&self.claim().confirmations()[0])
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

/// A usable address on an interface.
fn on(interface: InterfaceIndex, ip: &str) -> Address {
    Address {
        interface,
        ..address(ip, Usability::Usable)
    }
}

fn vip(last: u8) -> Vip {
    format!("10.0.0.{last}").parse().unwrap()
}

fn address(ip: &str, usability: Usability) -> Address {
    Address {
        ip: ip.parse().unwrap(),
        interface: ETH,
        prefix_len: 32,
        usability,
    }
}

/// The first round for 10.0.0.`last`, which is in no subnet.
fn round(last: u8, mac: Mac) -> [Frame; 3] {
    let vip = [10, 0, 0, last].into();
    [
        Arp::gratuitous_request(vip, mac),
        Arp::oblique_request(vip, mac, Ipv4Addr::BROADCAST),
        Arp::gratuitous_reply(vip, mac),
    ]
}

#[test]
fn every_vip_gets_one_frame_before_any_gets_two() {
    let mut bench = Bench::holding(&["10.0.0.10", "10.0.0.11", "10.0.0.12"]);
    let rounds = [10, 11, 12].map(|host| round(host, MAC));
    let expected: Vec<_> = (0..3)
        .flat_map(|frame| rounds.iter().map(move |round| round[frame].clone()))
        .collect();
    assert_eq!(bench.sends(), expected);
}

#[test]
fn the_run_listens_from_the_first_frame_on_that_shows_who_is_there() {
    for (vip, answered) in [
        ("10.0.0.10", vec![false, true, false]),
        ("fd00::10", vec![false, true, false, false]),
    ] {
        let mut bench = Bench::holding(&[vip]);
        let mut questions = Vec::new();
        while let Some(transmit) = bench.core.poll_transmit(bench.now) {
            bench.core.sent(bench.now, &transmit);
            questions.push(transmit.is_question);
        }
        assert_eq!(questions, answered);
    }
}

#[test]
fn a_run_waits_for_a_tentative_address_without_announcing_it() {
    let mut bench = Bench::with(&["fd00::10"]);
    bench.address("fd00::10", Usability::Tentative);
    assert_eq!(bench.after(1500).sends(), []);
    assert!(!bench.is_over());
    bench.address("fd00::10", Usability::Usable);
    assert_eq!(bench.sends().len(), 4);
}

#[test]
fn a_run_never_announces_an_address_that_failed_dad() {
    let mut bench = Bench::with(&["fd00::10"]);
    bench.address("fd00::10", Usability::Tentative);
    bench.address("fd00::10", Usability::DadFailed);
    assert_eq!(bench.sends(), []);
    assert!(bench.is_over());
    assert_eq!(bench.claim().state(), State::DadFailed);
}

#[test]
fn a_run_announces_an_address_again_if_it_comes_back_in_time() {
    for (millis, comes_back) in [(50, true), (900, true), (1100, false)] {
        let mut bench = Bench::holding(&["10.0.0.10"]);
        assert_eq!(bench.sends().len(), 3);
        bench.lose("10.0.0.10");
        assert_eq!(bench.after(millis).sends(), []);
        assert_eq!(bench.is_over(), !comes_back);
        bench.address("10.0.0.10", Usability::Usable);
        let frames = if comes_back { 3 } else { 0 };
        assert_eq!(bench.sends().len(), frames, "{millis}");
    }
}

#[test]
fn a_vip_leaves_with_its_last_entry() {
    let mut bench = Bench::with(&["10.0.0.10"]);
    let host = address("10.0.0.10", Usability::Usable);
    let subnet = Address {
        prefix_len: 24,
        ..host
    };
    bench.core.addresses_are(bench.now, &[host, subnet]);
    assert_eq!(bench.sends().len(), 3);
    bench.core.address_gone(bench.now, &host);
    assert_eq!(bench.claim().state(), State::Ready);
    assert_eq!(bench.after(50).sends().len(), 3, "the next round");
    bench.core.address_gone(bench.now, &subnet);
    assert_eq!(bench.claim().state(), State::Left);
    assert_eq!(bench.after(200).sends(), []);
}

#[test]
fn runs_yield_each_place_by_itself() {
    for (taken, yields) in [
        ((vip(10), Some(ETH)), true),
        ((vip(10), None), true),
        ((vip(10), Some(ELSEWHERE)), false),
        ((vip(11), None), false),
    ] {
        let mut bench = Bench::holding(&["10.0.0.10"]);
        assert_eq!(bench.core.places(), [(vip(10), Some(ETH))]);
        bench.core.superseded(&[taken]);
        let superseded = bench.claim().state() == State::Superseded;
        assert_eq!(superseded, yields, "{taken:?}");
    }
    let vip = vip(10);
    let mut waits = Bench::at(Place::On("eth0".to_owned()));
    assert_eq!(waits.core.places(), []);
    waits.core.interface_is("eth0", ETH);
    assert_eq!(waits.core.places(), [(vip, Some(ETH))]);
    waits.core.superseded(&[(vip, Some(ELSEWHERE))]);
    assert_eq!(waits.core.yielded().count(), 0);
    waits.core.superseded(&[(vip, Some(ETH))]);
    assert_eq!(waits.core.yielded().count(), 1);
}

/// Plays for some time; another owner answers every probe while it `is_there`. Returns the number of
/// announcements.
fn play(bench: &mut Bench, time: Duration, is_there: bool) -> usize {
    let end = bench.now + time;
    let mut announced = 0;
    while bench.now < end && !bench.is_over() {
        for frame in bench.sends() {
            if frame == Arp::probe([10, 0, 0, 10].into(), MAC) {
                if is_there {
                    bench.receive(&reply(&frame, OTHER));
                }
            } else {
                announced += 1;
            }
        }
        let next = bench.core.next_deadline(bench.now);
        bench.now = next.max(bench.now + Duration::from_micros(1));
    }
    announced
}

#[test]
fn a_run_waits_for_another_owner_to_go_and_then_announces_again() {
    let mut bench = Bench::watching(600);
    assert_eq!(play(&mut bench, Duration::from_secs(20), true), 22);
    assert!(!bench.is_over());
    let news = |bench: &mut Bench| {
        let mut news = bench.core.take_news(bench.now);
        news.retain(|one| !matches!(one, News::Announced(_)));
        news
    };
    assert_eq!(
        news(&mut bench),
        [
            News::ConflictWatched(0, vec![OTHER]),
            News::Conflict(0, vec![OTHER])
        ]
    );
    assert_eq!(play(&mut bench, Duration::from_secs(100), true), 0);
    assert_eq!(news(&mut bench), []);
    let ramp = play(&mut bench, Duration::from_secs(4), false);
    // Up to two seconds pass before the next look.
    assert!((9..=13).contains(&ramp), "{ramp}");
    assert_eq!(news(&mut bench), [News::ConflictOver(0, vec![OTHER])]);
    let rest = play(&mut bench, Duration::from_secs(600), false);
    assert_eq!(ramp + rest, 22, "all rounds");
    assert!(bench.is_over());
    assert_eq!(bench.conflicts(), []);
    assert_eq!(bench.claim().past_conflicts().count(), 1);
}

#[test]
fn a_run_watches_another_owner_for_a_bounded_time_and_probes_again_before_the_end() {
    for (seconds, ends_within) in [(600, 10..=612), (0, 10..=12)] {
        let mut bench = Bench::watching(seconds);
        let began = bench.now;
        play(&mut bench, Duration::from_secs(10_000), true);
        let lasted = (bench.now - began).as_secs();
        let in_time = ends_within.contains(&lasted) && lasted >= seconds;
        assert!(in_time, "{lasted} s");
        assert_eq!(bench.conflicts(), [OTHER]);
    }
    let mut healed = Bench::watching(0);
    play(&mut healed, Duration::from_secs(5), true);
    play(&mut healed, Duration::from_secs(100), false);
    assert_eq!(healed.conflicts(), []);
    assert_eq!(healed.claim().past_conflicts().count(), 1);
}

#[test]
fn an_address_that_returns_before_the_next_frame_starts_new_rounds() {
    let mut bench = Bench::holding(&["10.0.0.10"]);
    bench.sends();
    bench.lose("10.0.0.10");
    bench.address("10.0.0.10", Usability::Usable);
    assert_eq!(bench.sends(), round(10, MAC));
}

#[test]
fn a_vip_counts_only_on_the_named_interface() {
    let [here, elsewhere] = [ETH, ELSEWHERE].map(|interface| on(interface, "10.0.0.10"));
    let other = on(ELSEWHERE, "10.0.0.11");
    for (place, claims) in [(Place::Anywhere, 2), (Place::On("eth0".to_owned()), 1)] {
        let mut bench = Bench::at(place);
        assert_eq!(bench.core.unknown_link_of(&here), None, "a known link");
        assert_eq!(bench.core.unknown_link_of(&elsewhere), Some(ELSEWHERE));
        assert_eq!(bench.core.unknown_link_of(&other), None, "no VIP");
        let link = Link {
            index: ELSEWHERE,
            name: "eth1".to_owned(),
            ..link(Some(OTHER), true)
        };
        bench.link(&link);
        let addresses = [here, elsewhere, other];
        bench.core.addresses_are(bench.now, &addresses);
        assert_eq!(bench.core.claims().len(), claims);
    }
}

#[test]
fn a_vip_on_lo_is_absent_until_another_interface_has_it_too() {
    let mut bench = Bench::with(&["10.0.0.10"]);
    let lo = Link {
        index: InterfaceIndex(1),
        name: "lo".to_owned(),
        unlike_ethernet: Some("is a loopback interface"),
        ..link(None, true)
    };
    bench.link(&lo);
    let on_lo = on(lo.index, "10.0.0.10");
    bench.core.address_changed(bench.now, &on_lo);
    assert_eq!(bench.sends(), []);
    assert_eq!(bench.core.absent().count(), 1);
    let passed_over: Vec<_> = bench.core.passed_over(vip(10)).collect();
    assert_eq!(passed_over, [&lo]);
    assert!(!bench.after(500).is_over());
    bench.address("10.0.0.10", Usability::Usable);
    assert_eq!(bench.sends(), round(10, MAC));
    assert_eq!(bench.core.claims().len(), 1);
}

#[test]
fn a_run_announces_a_vip_when_its_interface_comes_up() {
    let mut bench = Bench::with(&["10.0.0.10"]);
    let down = Link {
        up: false,
        ..link(Some(MAC), false)
    };
    bench.link(&down);
    bench.address("10.0.0.10", Usability::Usable);
    assert_eq!(bench.core.absent().count(), 1);
    bench.after(500).link(&link(Some(MAC), true));
    assert_eq!(bench.sends(), round(10, MAC));
}

#[test]
fn the_lower_interface_identifies_a_vmac_of_another_name() {
    let mut bench = Bench::at(Place::Vmac {
        name: "vrrp.51".to_owned(),
        above: "eth0".to_owned(),
    });
    bench.core.link_gone(bench.now, ETH);
    let vmac = Link {
        index: InterfaceIndex(3),
        name: "vrrp1.51".to_owned(),
        lower: Some(ETH),
        ..link(Some(OTHER), true)
    };
    let on_vmac = on(vmac.index, "10.0.0.10");
    assert_eq!(bench.core.unknown_link_of(&on_vmac), Some(vmac.index));
    bench.link(&vmac);
    assert_eq!(bench.core.unknown_link_of(&on_vmac), Some(ETH));
    bench.link(&link(Some(MAC), true));
    assert_eq!(bench.core.unknown_link_of(&on_vmac), None);
    bench.core.address_changed(bench.now, &on_vmac);
    assert_eq!(bench.sends(), round(10, OTHER));
}

#[test]
fn a_run_leaves_an_absent_vip_to_a_newer_run() {
    let mut bench = Bench::with(&["10.0.0.10", "10.0.0.11"]);
    bench.core.superseded(&[(vip(10), None)]);
    bench.address("10.0.0.10", Usability::Usable);
    bench.address("10.0.0.11", Usability::Usable);
    assert_eq!(bench.sends(), round(11, MAC));
    let yielded: Vec<_> = bench.core.yielded().collect();
    assert_eq!(yielded, [vip(10)]);
}

#[test]
fn after_lost_changes_missing_addresses_count_as_gone() {
    let (elsewhere, here) = (on(ELSEWHERE, "10.0.0.10"), on(ETH, "10.0.0.11"));
    for addresses in [&[here][..], &[elsewhere, here]] {
        let mut bench = Bench::holding(&["10.0.0.10", "10.0.0.11"]);
        bench.sends();
        bench.core.addresses_are(bench.now, addresses);
        assert_eq!(bench.after(50).sends(), round(11, MAC));
        assert_eq!(bench.claim().state(), State::Left);
    }
}

#[test]
fn a_run_leaves_a_vip_to_a_newer_run_at_once() {
    let mut bench = Bench::holding(&["10.0.0.10", "10.0.0.11"]);
    bench.sends();
    bench.core.superseded(&[(vip(10), None)]);
    assert_eq!(bench.after(50).sends(), round(11, MAC));
    let states = bench.core.claims().iter().map(Claim::state);
    assert!(states.eq([State::Superseded, State::Ready]));
    let sent = bench.core.claims().iter().map(|claim| claim.frames_sent);
    assert!(sent.eq([3, 6]));
}

#[test]
fn a_postponed_frame_leaves_in_its_turn() {
    let mut bench = Bench::holding(&["10.0.0.10"]);
    let transmit = bench.core.poll_transmit(bench.now).unwrap();
    bench.core.put_off(bench.now, &transmit);
    assert_eq!(bench.sends(), round(10, MAC));
}

#[test]
fn the_rounds_start_over_when_the_carrier_is_back_or_the_mac_changed() {
    let mut bench = Bench::holding(&["10.0.0.10"]);
    bench.sends();
    bench.link(&link(Some(MAC), false));
    assert_eq!(bench.after(5000).sends(), []);
    bench.link(&link(Some(MAC), true));
    assert_eq!(bench.sends(), round(10, MAC));
    bench.link(&link(Some(OTHER), true));
    assert_eq!(bench.sends(), round(10, OTHER));
    let frames = bench.after(50).sends();
    assert_eq!(frames, round(10, OTHER), "the old rounds are void");
}

#[test]
fn events_without_a_change_start_nothing() {
    let mut bench = Bench::holding(&["10.0.0.10"]);
    bench.sends();
    bench.link(&link(Some(MAC), true));
    bench.address("10.0.0.10", Usability::Usable);
    assert_eq!(bench.sends(), []);
}

#[test]
fn a_run_retries_a_refused_frame_less_and_less_often() {
    let mut bench = Bench::holding(&["10.0.0.10"]);
    let mut gaps = Vec::new();
    for _ in 0..10 {
        let transmit = bench.core.poll_transmit(bench.now).unwrap();
        assert_eq!(transmit.frame, round(10, MAC)[0]);
        let why = Refusal::Other("ENOBUFS".to_owned());
        bench.core.refused(bench.now, &transmit, why);
        assert!(bench.core.poll_transmit(bench.now).is_none());
        let next = bench.core.next_deadline(bench.now);
        gaps.push(next.duration_since(bench.now).as_millis());
        bench.now = next;
    }
    assert_eq!(gaps, [1, 2, 4, 8, 16, 32, 64, 128, 128, 128]);
    assert_eq!(bench.claim().frames_sent, 0);
    let why = Some(Refusal::Other("ENOBUFS".to_owned()));
    assert_eq!(bench.claim().last_refusal, why);
    assert_eq!(bench.sends(), round(10, MAC));
}

#[test]
fn a_run_waits_for_an_absent_vip_for_the_given_time() {
    let mut bench = Bench::with(&["10.0.0.10"]);
    bench.after(999);
    assert!(!bench.is_over());
    let wakes = bench.core.next_deadline(bench.now);
    assert_eq!(wakes, bench.now + Duration::from_millis(1));
    bench.after(1);
    assert!(bench.is_over());
}

#[test]
fn an_old_owners_last_frames_are_no_conflict_but_later_ones_are() {
    let mut bench = Bench::holding(&["10.0.0.10"]);
    bench.sends();
    let claim = Arp::gratuitous_request([10, 0, 0, 10].into(), OTHER);
    bench.after(99);
    bench.receive(&claim);
    assert_eq!(bench.conflicts(), []);
    bench.after(1);
    bench.receive(&claim);
    let own = Arp::gratuitous_request([10, 0, 0, 10].into(), MAC);
    bench.receive(&own);
    assert_eq!(bench.conflicts(), [OTHER]);
}

/// keepalived's new master announces the VIP some milliseconds before the old one lets go.
#[test]
fn who_takes_the_vip_over_from_here_is_no_conflict_and_who_shares_it_is() {
    for (leaves_after, is_conflict) in [(4, false), (900, false), (1001, true)] {
        let mut bench = Bench::holding(&["10.0.0.10"]);
        let claim = Arp::gratuitous_request([10, 0, 0, 10].into(), OTHER);
        in_silence(&mut bench, 2000);
        bench.receive(&claim);
        assert_eq!(bench.conflicts(), [OTHER]);
        let told = |bench: &mut Bench| {
            let news = bench.core.take_news(bench.now);
            news.iter().any(|one| matches!(one, News::Conflict(..)))
        };
        assert!(!told(&mut bench), "it may take it over");
        bench.after(leaves_after);
        assert_eq!(told(&mut bench), leaves_after > 300);
        bench.lose("10.0.0.10");
        bench.receive(&claim);
        assert_eq!(!bench.conflicts().is_empty(), is_conflict);
        assert!(!told(&mut bench));
    }
}

#[test]
fn the_last_round_has_no_probe_that_other_owners_answer_to_all_nodes() {
    let mut bench = Bench::holding(&["fd00::10"]);
    bench.hear(OTHER);
    let mut all = Vec::new();
    while !bench.is_over() {
        all.extend(bench.sends());
        bench.now = bench.core.next_deadline(bench.now);
    }
    let vip = "fd00::10".parse().unwrap();
    assert_eq!(all.len(), 21);
    assert!(all[..20].contains(&Ndp::probe(vip, MAC, None)));
    assert_eq!(all[20], Ndp::unsolicited_advertisement(vip, MAC, false));
}

/// The answer of a host that follows.
fn answer_of_a_follower(frame: &Frame) -> Option<Frame> {
    let asks = match frame.payload {
        Payload::Arp(arp) => arp.sender_ip != arp.target_ip,
        Payload::Echo(_) => true,
        Payload::Ndp(_) | Payload::Mld(_) => false,
    };
    (asks && frame.destination == OTHER).then(|| reply(frame, OTHER))
}

/// A run whose VIPs are here, with one neighbour: 10.0.0.2 at [`OTHER`].
fn bench_with_a_neighbour(vips: &[&str]) -> Bench {
    let mut bench = Bench::holding(vips);
    let own = Address {
        prefix_len: 24,
        ..address("10.0.0.1", Usability::Usable)
    };
    bench.view(vec![own], &[("10.0.0.2", OTHER)]);
    bench
}

/// The neighbour receives the frames that leave now. Returns how many it answers.
fn answered(bench: &mut Bench, answer: impl Fn(&Frame) -> Option<Frame>) -> usize {
    let answers: Vec<_> = bench.sends().iter().filter_map(answer).collect();
    for answer in &answers {
        bench.receive(answer);
    }
    answers.len()
}

#[test]
fn a_proven_peer_proves_again_when_the_carrier_is_back() {
    let mut bench = bench_with_a_neighbour(&["10.0.0.10"]);
    let answered = |bench: &mut Bench| answered(bench, answer_of_a_follower);
    assert_eq!(answered(&mut bench), 1, "an echo");
    assert_eq!(bench.verdict(), PeerVerdict::Proven);

    bench.link(&link(Some(MAC), false));
    bench.after(100);
    bench.link(&link(Some(MAC), true));
    assert_eq!(bench.verdict(), PeerVerdict::Unasked);
    assert_eq!(answered(&mut bench) + answered(&mut bench), 1);
    assert_eq!(bench.verdict(), PeerVerdict::Proven);
}

#[test]
fn a_peers_first_answer_shows_the_loss() {
    let mut bench = bench_with_a_neighbour(&["10.0.0.10"]);
    let to_arp = |frame: &Frame| match frame.payload {
        Payload::Arp(_) => answer_of_a_follower(frame),
        _ => None,
    };
    for gap in [0, 5] {
        bench.after(gap).sends();
    }
    assert_eq!(bench.core.questions_to_rule_out_chance(ETH), None);
    assert_eq!(answered(bench.after(10), to_arp), 1);
    // One of two directed requests: (1/2)^17 is less than 1 in 100,000.
    assert_eq!(bench.core.questions_to_rule_out_chance(ETH), Some(17));
    assert_eq!(answered(&mut bench, answer_of_a_follower), 1, "an echo");
    assert_eq!(bench.verdict(), PeerVerdict::Proven);
    assert_eq!(bench.core.questions_to_rule_out_chance(ETH), Some(17));
}

#[test]
fn an_echo_from_one_vip_proves_nothing_for_another() {
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
        bench.receive(answer);
    }
    let claims = bench.core.claims().iter();
    let verdicts: Vec<_> = claims.map(|c| c.confirmations()[0].verdict()).collect();
    assert_eq!(verdicts, [PeerVerdict::Silent, PeerVerdict::Proven]);
}

/// The neighbour answers an order.
fn order_answered(bench: &mut Bench, vip: Vip, outcome: Outcome) {
    let (peer, fate) = ([10, 0, 0, 2].into(), order_answer(vip, outcome));
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
fn announces_matches_interface_vip_and_mac() {
    let mut bench = Bench::holding(&["10.0.0.10"]);
    let (vip, other) = (bench.core.vips()[0], vip(11));
    assert!(bench.core.announces(ETH, vip, MAC));
    assert!(!bench.core.announces(InterfaceIndex(3), vip, MAC));
    assert!(!bench.core.announces(ETH, other, MAC));
    assert!(!bench.core.announces(ETH, vip, OTHER));
    bench.lose("10.0.0.10");
    assert!(!bench.core.announces(ETH, vip, MAC));
}

#[test]
fn a_stale_peer_that_claims_the_vip_is_an_owner_until_it_releases_it() {
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
    assert_eq!(bench.verdict(), PeerVerdict::Stale);
    for mac in [OTHER, THIRD] {
        let claim = Arp::gratuitous_request(vip, mac);
        bench.receive(&claim);
    }
    assert_eq!(bench.verdict(), PeerVerdict::Silent);

    let vip = bench.core.vips()[0];
    order_answered(&mut bench, vip, Outcome::Released);
    assert_eq!(bench.verdict(), PeerVerdict::Stale);
    assert_eq!(bench.conflicts(), [THIRD], "the third host still has it");
}

#[test]
fn who_followed_an_owner_that_let_go_during_the_rounds_proves_again_that_it_follows() {
    let vip = vip(10);
    let mut bench = bench_with(
        &["10.0.0.10"],
        NeighbourState::Reachable,
        &[
            ("10.0.0.2".to_owned(), OTHER),
            ("10.0.0.3".to_owned(), THIRD),
        ],
    );
    for _ in 0..20 {
        answered(bench.after(10), answer_of_a_follower);
    }
    assert_eq!(bench.verdict(), PeerVerdict::Proven);
    let IpAddr::V4(ip) = vip.ip() else {
        panic!("{vip}")
    };
    bench.receive(&Arp::gratuitous_request(ip, THIRD));
    assert_eq!(bench.conflicts(), [THIRD]);
    let (owner, fate) = ([10, 0, 0, 3].into(), order_answer(vip, Outcome::Released));
    bench.core.order_answered(bench.now, ETH, vip, owner, &fate);
    assert_eq!(bench.conflicts(), []);
    assert!(!bench.claim().rounds_over);
    assert_ne!(bench.verdict(), PeerVerdict::Proven);
    for _ in 0..20 {
        answered(bench.after(10), answer_of_a_follower);
    }
    assert_eq!(bench.verdict(), PeerVerdict::Proven);
}

#[test]
fn the_first_frame_about_a_vip_that_comes_later_goes_before_other_frames() {
    let mut bench = Bench::with(&["10.0.0.10", "10.0.0.11", "10.0.0.12"]);
    let about = |frame: Frame| match frame.payload {
        Payload::Arp(arp) => arp.sender_ip.octets()[3],
        _ => panic!("{frame:?}"),
    };
    bench.address("10.0.0.10", Usability::Usable);
    bench.address("10.0.0.11", Usability::Usable);
    let mut frames = Vec::new();
    while let Some(transmit) = bench.core.poll_transmit(bench.now) {
        bench.core.sent(bench.now, &transmit);
        frames.push(about(transmit.frame));
        if frames.len() == 3 {
            bench.address("10.0.0.12", Usability::Usable);
        }
    }
    assert_eq!(frames, [10, 11, 10, 12, 11, 10, 12, 11, 12]);
}

#[test]
fn a_mac_gets_its_hosts_first_address_that_is_not_a_vip() {
    let mut bench = Bench::holding(&["10.0.0.1"]);
    let addresses = ["fd00::2", "10.0.0.2", "10.0.0.1", "10.0.0.3"];
    bench.view(Vec::new(), &addresses.map(|ip| (ip, OTHER)));
    assert_eq!(bench.core.host_of(OTHER), Some([10, 0, 0, 2].into()));
    assert_eq!(bench.core.host_of(MAC), None);
}

/// A check without peers, before its first probe.
fn check(vip: &str, addresses: &[&str]) -> Bench {
    let mut bench = Bench::with(&[vip]);
    bench.core = bench.core.in_mode(Mode::Check);
    for ip in addresses {
        bench.address(ip, Usability::Usable);
    }
    bench.address(vip, Usability::Usable);
    let own = addresses.iter().map(|ip| address(ip, Usability::Usable));
    bench.view(own.collect(), &[]);
    bench
}

/// Plays a check to its end; `answer` plays the other hosts.
fn checked(
    vip: &str,
    addresses: &[&str],
    mut answer: impl FnMut(&Frame) -> Option<Frame>,
) -> Bench {
    let mut bench = check(vip, addresses);
    while !bench.is_over() {
        for frame in bench.sends() {
            if let Some(answer) = answer(&frame) {
                bench.receive(&answer);
            }
        }
        bench.now = bench.core.next_deadline(bench.now).max(bench.now);
    }
    bench
}

#[test]
fn a_check_sends_only_probes_until_chance_cannot_hide_an_owner() {
    let (v6, own_v6) = ("fd00::10".parse().unwrap(), "fd00::1".parse().unwrap());
    let v4 = [10, 0, 0, 10].into();
    // A switch that suppresses ARP drops the first form.
    let probes_v4 = [
        Arp::probe(v4, MAC),
        Arp::directed_request([10, 0, 0, 1].into(), MAC, v4, None),
    ];
    let probe_v6 = Ndp::probe(v6, MAC, Some(own_v6));
    for (vip, own, probes) in [
        ("10.0.0.10", "10.0.0.1", probes_v4),
        ("fd00::10", "fd00::1", [probe_v6.clone(), probe_v6]),
    ] {
        let mut sent = 0;
        let bench = checked(vip, &[own], |frame| {
            assert_eq!(*frame, probes[sent % 2]);
            sent += 1;
            None
        });
        assert_eq!(sent, 48);
        let claim = bench.claim();
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
    assert!(!bench.is_over());
    let end = bench.core.next_deadline(bench.now);
    assert_eq!(end, bench.now + LAST_ANSWER);
    assert!(bench.core.is_over(end));
}

#[test]
fn a_check_finds_another_owner_at_once() {
    let bench = checked("10.0.0.10", &["10.0.0.1"], |probe| {
        Some(reply(probe, OTHER))
    });
    assert_eq!(bench.conflicts(), [OTHER]);
}

#[test]
fn a_check_stops_asking_from_a_lost_address() {
    let (vip, own) = ("fd00::10".parse().unwrap(), "fd00::1".parse().unwrap());
    let mut bench = check("fd00::10", &["fd00::1"]);
    let gone = |bench: &mut Bench, ip| {
        bench.lose(ip);
        bench.after(15).sends()
    };
    assert_eq!(bench.sends(), [Ndp::probe(vip, MAC, Some(own))]);
    assert_eq!(
        gone(&mut bench, "fd00::2"),
        [Ndp::probe(vip, MAC, Some(own))]
    );
    assert_eq!(gone(&mut bench, "fd00::1"), [Ndp::probe(vip, MAC, None)]);
    assert!(
        !bench.claim().is_certain_of_owners(),
        "not after three probes"
    );
}

/// The frames of some time, and when each leaves. `answer` plays the other hosts.
fn record(
    bench: &mut Bench,
    time: Duration,
    mut answer: impl FnMut(&Frame) -> Option<Frame>,
) -> Vec<(Duration, Frame)> {
    let (began, mut record) = (bench.now, Vec::new());
    while bench.now <= began + time && !bench.is_over() {
        for frame in bench.sends() {
            if let Some(answer) = answer(&frame) {
                bench.receive(&answer);
            }
            record.push((bench.now - began, frame));
        }
        let next = bench.core.next_deadline(bench.now);
        bench.now = next.max(bench.now + Duration::from_micros(1));
    }
    record
}

/// What happens if no other host says anything.
fn in_silence(bench: &mut Bench, millis: u64) -> Vec<(Duration, Frame)> {
    record(bench, Duration::from_millis(millis), |_| None)
}

/// A bench with 10.0.0.1/16, and neighbours in one state.
fn bench_with(vips: &[&str], state: NeighbourState, neighbours: &[(String, Mac)]) -> Bench {
    let mut bench = Bench::holding(vips);
    let own = Address {
        prefix_len: 16,
        ..address("10.0.0.1", Usability::Usable)
    };
    bench.view_in(state, vec![own], neighbours);
    bench
}

fn is_question_to(ip: IpAddr) -> impl Fn(&Frame) -> bool {
    move |frame| match frame.payload {
        Payload::Arp(arp) => IpAddr::from(arp.target_ip) == ip,
        Payload::Echo(echo) => echo.destination == ip,
        Payload::Ndp(_) | Payload::Mld(_) => false,
    }
}

#[test]
fn rounds_ask_for_an_address_of_the_vips_subnet_that_nobody_has() {
    let mut bench = Bench::with(&["10.0.0.10"]);
    let own = Address {
        prefix_len: 24,
        ..address("10.0.0.1", Usability::Usable)
    };
    bench.core.address_changed(bench.now, &own);
    bench.address("10.0.0.10", Usability::Usable);
    let oblique = Arp::oblique_request([10, 0, 0, 10].into(), MAC, [10, 0, 0, 255].into());
    assert_eq!(bench.sends()[1], oblique);
    bench.hear(OTHER);
    let later = in_silence(&mut bench, 11_000);
    let oblique_at: Vec<_> = later
        .iter()
        .filter(|(_, frame)| *frame == oblique)
        .map(|(at, _)| at.as_millis())
        .collect();
    assert_eq!(oblique_at, [50, 200, 1050, 2000, 4000, 7000, 10_000]);
    assert!(bench.is_over());
}

#[test]
fn while_nobody_is_heard_the_rounds_go_on_until_the_timeout() {
    let mut bench = Bench::holding(&["10.0.0.10"]);
    let frames = in_silence(&mut bench, 70_000);
    assert!(bench.is_over());
    assert_eq!(bench.now - bench.core.started(), Duration::from_secs(60));
    let oblique = &round(10, MAC)[1];
    let times = frames.iter().filter(|(_, frame)| frame == oblique);
    let times: Vec<_> = times.map(|(at, _)| *at).collect();
    let after_the_ramp = &times[3..];
    let apart = after_the_ramp.windows(2).map(|two| two[1] - two[0]);
    assert_eq!(apart.max(), Some(Duration::from_millis(250)));
    assert_eq!(times.len(), 4 + 235);
    assert!(!bench.core.is_path_alive(ETH));
}

#[test]
fn the_first_frame_after_a_second_of_silence_starts_the_rounds_over() {
    // Late beats leave room for two of nine frames a second.
    for (millis, again) in [(999, 0), (1000, 3), (31_300, 2)] {
        let mut bench = Bench::holding(&["10.0.0.10"]);
        in_silence(&mut bench, millis - 1);
        bench.now = bench.core.started() + Duration::from_millis(millis);
        bench.sends();
        bench.hear(OTHER);
        assert!(bench.core.is_path_alive(ETH));
        assert_eq!(bench.sends(), round(10, MAC)[..again], "{millis}");
        bench.hear(OTHER);
        assert_eq!(bench.sends(), [], "only the first one");
        let later = in_silence(&mut bench, 11_000);
        let reply = later.iter().find(|(_, frame)| *frame == round(10, MAC)[2]);
        let soon = Duration::from_millis(millis + 1000);
        assert!(again == 3 || again == 0 || reply.unwrap().0 < soon);
        assert!(bench.is_over(), "the rounds last ten seconds");
    }
}

#[test]
fn own_frames_and_groups_do_not_show_that_the_path_is_alive() {
    let mut bench = Bench::holding(&["10.0.0.10"]);
    for source in [MAC, ALL_NODES.1, Mac::BROADCAST, Mac::ZERO] {
        bench.hear(source);
        assert!(!bench.core.is_path_alive(ETH), "{source}");
    }
    bench.hear(OTHER);
    assert!(bench.core.is_path_alive(ETH));
}

#[test]
fn broadcasts_leave_at_their_times_although_thousands_of_questions_are_due() {
    let neighbours: Vec<_> = (0..2000_u16)
        .map(|host| {
            let [high, low] = host.to_be_bytes();
            (
                format!("10.0.{}.{low}", 100 + high),
                Mac::new([2, 0, 0, 1, high, low]),
            )
        })
        .collect();
    let vips: Vec<_> = (10..20).map(|last| format!("10.0.0.{last}")).collect();
    let vips: Vec<_> = vips.iter().map(String::as_str).collect();
    for state in [NeighbourState::Reachable, NeighbourState::Stale] {
        let mut bench = bench_with(&vips, state, &neighbours);
        bench.hear(THIRD);
        let frames = in_silence(&mut bench, 10_500);
        for last in 10..20 {
            let request = &round(last, MAC)[0];
            let times = frames.iter().filter(|(_, frame)| frame == request);
            let times: Vec<_> = times.map(|(at, _)| at.as_millis()).collect();
            let planned = [0, 50, 200, 600, 2000, 4000, 7000, 10_000];
            assert_eq!(times.len(), planned.len(), "10.0.0.{last}");
            for (at, planned) in times.iter().zip(planned) {
                let in_time = planned..=planned + 20;
                assert!(in_time.contains(at), "10.0.0.{last}: {at}, not {planned}");
            }
        }
    }
}

#[test]
fn one_vip_asks_a_doubtful_host_at_most_three_times() {
    let vips = ["10.0.0.10", "10.0.0.11", "10.0.0.12"];
    let hosts = [("10.0.0.2".to_owned(), OTHER)];
    let mut bench = bench_with(&vips, NeighbourState::Stale, &hosts);
    bench.hear(THIRD);
    let frames = in_silence(&mut bench, 60_000);
    assert!(bench.is_over());
    let asks = is_question_to([10, 0, 0, 2].into());
    let asked: Vec<_> = frames.iter().filter(|(_, frame)| asks(frame)).collect();
    assert_eq!(asked.len(), 3);
    let first_vip = IpAddr::from([10, 0, 0, 10]);
    for (_, frame) in asked {
        let from = match frame.payload {
            Payload::Arp(arp) => arp.sender_ip.into(),
            Payload::Echo(echo) => echo.source,
            _ => unreachable!("no question"),
        };
        assert_eq!(from, first_vip);
    }
    let peers: Vec<_> = bench
        .core
        .claims()
        .iter()
        .map(Claim::confirmations)
        .collect();
    assert_eq!(peers[0][0].verdict(), PeerVerdict::Silent);
    assert!(peers[1].is_empty() && peers[2].is_empty());
}

/// Hosts that only an owner of the VIP asked for, who asks for dead ones, too. Anybody can do that in its
/// name.
#[test]
fn hosts_that_were_only_mentioned_cost_few_broadcasts_and_are_told_of_if_they_answer() {
    let mentioned = |number: u16| {
        let [a, b] = number.to_be_bytes();
        Observed {
            ip: [10, 0, a, b].into(),
            mac: None,
            asks: true,
            is_recent: true,
        }
    };
    let answers = IpAddr::from([10, 0, 1, 1]);
    let own = Address {
        prefix_len: 16,
        ..address("10.0.0.1", Usability::Usable)
    };
    let view = LinkView {
        addresses: vec![own],
        // The last is the subnet's broadcast address.
        observed: (256..2000).chain([u16::MAX]).map(mentioned).collect(),
        ..LinkView::of(link(Some(MAC), true))
    };
    let mut bench = Bench::holding(&["10.0.0.10"]);
    let host = HostSnapshot {
        links: vec![view.link.clone()],
        addresses: Vec::new(),
    };
    bench.core.links_are(vec![view], &host, &[], Confirm::All);
    while bench.core.find_peers(bench.now) {}
    bench.hear(THIRD);
    let began = bench.now;
    let frames = record(&mut bench, Duration::from_secs(60), |frame| {
        let asks = is_question_to(answers);
        asks(frame).then(|| reply(frame, OTHER))
    });
    assert!(bench.is_over() && bench.now < began + Duration::from_secs(11));
    let is_broadcast = |frame: &Frame| frame.destination == Mac::BROADCAST;
    let broadcasts: Vec<_> = frames.iter().filter(|(_, one)| is_broadcast(one)).collect();
    // keepalived's own are five.
    for (at, _) in &broadcasts {
        let within = |other: Duration| (*at..*at + Duration::from_secs(1)).contains(&other);
        let count = broadcasts
            .iter()
            .filter(|(other, _)| within(*other))
            .count();
        assert!(count <= 10, "{count} from {at:?} on");
    }
    let told: Vec<_> = bench.core.claims()[0]
        .peers()
        .map(|one| (one.peer.ip, one.verdict()))
        .collect();
    assert_eq!(told, [(answers, PeerVerdict::Proven)]);
}

#[test]
fn a_doubtful_host_that_is_heard_is_asked_about_every_vip() {
    let vips = ["10.0.0.10", "10.0.0.11", "10.0.0.12"];
    let hosts = [("10.0.0.2".to_owned(), OTHER)];
    let mut bench = bench_with(&vips, NeighbourState::Stale, &hosts);
    bench.hear(THIRD);
    let frames = record(&mut bench, Duration::from_millis(10), answer_of_a_follower);
    let asks = is_question_to([10, 0, 0, 2].into());
    assert_eq!(frames.iter().filter(|(_, frame)| asks(frame)).count(), 3);
    for claim in bench.core.claims() {
        let one = &claim.confirmations()[0];
        assert_eq!(one.verdict(), PeerVerdict::Proven);
        assert!(!one.peer.doubtful);
    }
}

#[test]
fn a_vip_that_comes_later_asks_the_doubtful_hosts_that_were_heard_by_then() {
    let hosts = [
        ("10.0.0.2".to_owned(), OTHER),
        ("10.0.0.3".to_owned(), THIRD),
    ];
    let mut bench = Bench::with(&["10.0.0.10", "10.0.0.11"]);
    bench.address("10.0.0.10", Usability::Usable);
    let own = Address {
        prefix_len: 16,
        ..address("10.0.0.1", Usability::Usable)
    };
    bench.view_in(NeighbourState::Stale, vec![own], &hosts);
    let answers = |frame: &Frame| answer_of_a_follower(frame).filter(|it| it.source == OTHER);
    record(&mut bench, Duration::from_millis(10), answers);
    bench.address("10.0.0.11", Usability::Usable);
    bench.view_in(NeighbourState::Stale, vec![own], &hosts);
    record(&mut bench, Duration::from_millis(10), answers);
    let [_, later] = bench.core.claims() else {
        panic!("{:?}", bench.core.claims());
    };
    let [one] = later.confirmations() else {
        panic!("{:?}", later.confirmations());
    };
    assert_eq!(one.verdict(), PeerVerdict::Proven);
}

#[test]
fn if_the_vip_that_asks_doubtful_hosts_leaves_another_one_does() {
    let vips = ["10.0.0.10", "10.0.0.11"];
    let hosts = [("10.0.0.2".to_owned(), OTHER)];
    let mut bench = bench_with(&vips, NeighbourState::Stale, &hosts);
    bench.lose("10.0.0.10");
    record(&mut bench, Duration::from_millis(10), answer_of_a_follower);
    let [_, heir] = bench.core.claims() else {
        panic!("{:?}", bench.core.claims());
    };
    assert_eq!(heir.confirmations()[0].verdict(), PeerVerdict::Proven);
}

#[test]
fn a_doubtful_host_that_claims_the_vip_exists() {
    let hosts = [
        ("10.0.0.2".to_owned(), OTHER),
        ("10.0.0.3".to_owned(), THIRD),
    ];
    let mut bench = bench_with(&["10.0.0.10"], NeighbourState::Stale, &hosts);
    bench.hear(THIRD);
    in_silence(&mut bench, 5000);
    bench.receive(&Arp::gratuitous_request([10, 0, 0, 10].into(), OTHER));
    let asked = in_silence(&mut bench, 1000);
    let questions = |host| {
        let asks = is_question_to([10, 0, 0, host].into());
        asked.iter().filter(|(_, frame)| asks(frame)).count()
    };
    assert!(questions(2) > 5);
    assert_eq!(questions(3), 0);
}

#[test]
fn doubtful_hosts_get_at_most_200_questions_a_second_and_nobody_waits_for_the_rest() {
    let hosts: Vec<_> = (0..2000_u16)
        .map(|host| {
            let [high, low] = host.to_be_bytes();
            (format!("10.0.0.{low}"), Mac::new([2, 0, 0, 1, high, low]))
        })
        .filter(|(_, mac)| mac.octets()[4] == 0 && mac.octets()[5] > 10)
        .collect();
    let mut bench = bench_with(&["10.0.0.10"], NeighbourState::Stale, &hosts);
    bench.hear(THIRD);
    let frames = in_silence(&mut bench, 60_000);
    let of_round = |frame: &Frame| {
        let vip: Ipv4Addr = [10, 0, 0, 10].into();
        let oblique = Arp::oblique_request(vip, MAC, Ipv4Addr::BROADCAST);
        *frame == oblique || is_question_to(vip.into())(frame)
    };
    let asked: Vec<_> = frames
        .iter()
        .filter(|(_, frame)| !of_round(frame))
        .map(|(at, _)| *at)
        .collect();
    let second = Duration::from_secs(1);
    let within = |from: &Duration| {
        let of_second = |at: &&Duration| (*from..*from + second).contains(at);
        asked.iter().filter(of_second).count()
    };
    assert!(asked.iter().all(|from| within(from) <= 200));
    assert_eq!(asked.len(), 3 * hosts.len());
    assert!(bench.now - bench.core.started() < Duration::from_secs(11));
}

#[test]
fn hosts_that_nobody_asked_are_unasked() {
    let hosts: Vec<_> = (20..250_u8)
        .map(|host| (format!("10.0.0.{host}"), mac(host)))
        .collect();
    let mut bench = bench_with(&["10.0.0.10"], NeighbourState::Stale, &hosts);
    in_silence(&mut bench, 500);
    let verdicts = bench
        .claim()
        .confirmations()
        .iter()
        .map(Confirmation::verdict);
    let unasked = verdicts.filter(|one| *one == PeerVerdict::Unasked).count();
    assert!((50..200).contains(&unasked), "{unasked}");
}

/// Frames leave, and signals are looked at, between two calls.
#[test]
fn thousands_of_peers_are_found_some_at_a_time() {
    const HOSTS: u32 = 5_000;
    const AT_ONCE: usize = 128;
    let mut bench = Bench::holding(&["10.1.0.10", "10.1.0.11"]);
    let own = Address {
        prefix_len: 16,
        ..address("10.1.0.1", Usability::Usable)
    };
    let ip = |host: u32| Ipv4Addr::from_bits(0x0a01_0100 + host).to_string();
    let state = NeighbourState::Reachable;
    let view = LinkView {
        addresses: vec![own],
        neighbours: (0..HOSTS)
            .map(|host| neighbour(&ip(host), OTHER, state))
            .collect(),
        ..LinkView::of(link(Some(MAC), true))
    };
    let host = HostSnapshot::default();
    bench.core.links_are(vec![view], &host, &[], Confirm::All);
    let found = |core: &Announcement| {
        let claims = core.claims().iter();
        claims
            .map(|claim| claim.confirmations().len())
            .sum::<usize>()
    };
    let (mut calls, mut before) = (0, 0);
    while bench.core.find_peers(bench.now) {
        let now = found(&bench.core);
        assert!(now - before <= AT_ONCE, "{before}, {now}");
        assert!(!bench.core.awaits_links());
        (calls, before) = (calls + 1, now);
    }
    assert!(!bench.core.awaits_peers());
    assert_eq!(before, 2 * HOSTS as usize);
    // The table is read once for all VIPs.
    let most = before / AT_ONCE + 4 * HOSTS as usize / AT_ONCE;
    assert!(calls < most, "{calls}");
}

/// Questions leave from addresses that this host still has, whether the kernel told that one left, or all
/// were read again. Peers are found before or after that.
#[test]
fn no_peer_is_asked_from_an_own_address_that_left() {
    for (is_told, was_found) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut bench = Bench::holding(&["10.0.0.10"]);
        let own = Address {
            prefix_len: 24,
            ..address("10.0.0.1", Usability::Usable)
        };
        bench.core.address_changed(bench.now, &own);
        let view = LinkView {
            addresses: vec![own],
            neighbours: vec![neighbour("10.0.0.2", OTHER, NeighbourState::Reachable)],
            ..LinkView::of(link(Some(MAC), true))
        };
        let host = HostSnapshot::default();
        bench.core.links_are(vec![view], &host, &[], Confirm::All);
        while was_found && bench.core.find_peers(bench.now) {}
        if was_found {
            let [one] = bench.claim().confirmations() else {
                panic!("{:?}", bench.claim());
            };
            assert!(one.peer.control.is_some());
        }
        if is_told {
            bench.core.address_gone(bench.now, &own);
        } else {
            let left = [address("10.0.0.10", Usability::Usable)];
            bench.core.addresses_are(bench.now, &left);
        }
        while bench.core.find_peers(bench.now) {}
        let [one] = bench.claim().confirmations() else {
            panic!("{:?}", bench.claim());
        };
        assert_eq!(one.peer.control, None, "{is_told} {was_found}");
        assert_eq!(bench.claim().state(), State::Ready);
    }
}

/// Answers of hosts that the frames from the VIP don't reach.
fn answer_to_others_than_the_vip(frame: &Frame) -> Option<Frame> {
    let vip = IpAddr::from([10, 0, 0, 10]);
    match frame.payload {
        Payload::Echo(echo) if ![echo.source, echo.destination].contains(&vip) => {
            Some(reply(frame, frame.destination))
        }
        _ => None,
    }
}

#[test]
fn several_hosts_that_answer_only_another_address_mean_that_the_vip_is_blocked() {
    for (hosts, blocked) in [(1, false), (2, true), (3, true)] {
        let hosts: Vec<_> = (0..hosts)
            .map(|host| (format!("10.0.0.{}", 2 + host), mac(0x20 + host)))
            .collect();
        let mut bench = bench_with(&["10.0.0.10"], NeighbourState::Reachable, &hosts);
        let time = Duration::from_secs(5);
        record(&mut bench, time, answer_to_others_than_the_vip);
        bench.core.take_due_orders();
        let claim = bench.claim();
        assert_eq!(claim.is_blocked(), blocked);
        let verdict = if blocked {
            PeerVerdict::Silent
        } else {
            PeerVerdict::Stale
        };
        let mut all = claim.confirmations().iter();
        assert!(all.all(|one| claim.verdict_of(one) == verdict));
        // One host that takes in a frame from the VIP is enough.
        record(&mut bench, time, answer_of_anyone);
        bench.core.take_due_orders();
        assert!(!bench.claim().is_blocked());
        assert_eq!(bench.verdict(), PeerVerdict::Proven);
    }
}

/// Every host answers.
fn answer_of_anyone(frame: &Frame) -> Option<Frame> {
    match frame.payload {
        Payload::Echo(_) if frame.destination.is_unicast() => Some(reply(frame, frame.destination)),
        _ => None,
    }
}

#[test]
fn traffic_proves_who_answers_no_echo() {
    let traffic = |bench: &mut Bench, source, destination, to: [u8; 4]| {
        let header = Header {
            destination,
            source,
            wanted: Some(to.into()),
            sender: None,
        };
        bench.core.heard(bench.now, ETH, &header);
    };
    let vip = [10, 0, 0, 10];
    let mut bench = bench_with_a_neighbour(&["10.0.0.10"]);
    traffic(&mut bench, OTHER, MAC, vip);
    assert_eq!(
        bench.verdict(),
        PeerVerdict::Unasked,
        "not before it is asked"
    );
    in_silence(&mut bench, 1000);
    assert_eq!(bench.verdict(), PeerVerdict::Silent);
    let listening = bench.core.listening_changed(bench.now, ETH).unwrap();
    assert_eq!(listening.from, [OTHER].into());
    assert_eq!(listening.to, [IpAddr::from(vip)].into());
    for (source, destination, to) in [
        (THIRD, MAC, vip),
        (OTHER, THIRD, vip),
        (OTHER, Mac::BROADCAST, vip),
        (OTHER, MAC, [10, 0, 0, 1]),
    ] {
        traffic(&mut bench, source, destination, to);
        assert_eq!(bench.verdict(), PeerVerdict::Silent);
    }
    traffic(&mut bench, OTHER, MAC, vip);
    assert_eq!(bench.verdict(), PeerVerdict::Proven);
    let proven = bench.claim().confirmations()[0].proven;
    assert_eq!(proven, Some((bench.now, Proof::Traffic)));
    let listening = bench.core.listening_changed(bench.now, ETH).unwrap();
    assert!(listening.from.is_empty());
}

#[test]
fn traffic_proves_nothing_about_a_host_that_answers_echoes() {
    let mut bench = bench_with_a_neighbour(&["10.0.0.10"]);
    let time = Duration::from_secs(2);
    record(&mut bench, time, answer_to_others_than_the_vip);
    assert_eq!(bench.verdict(), PeerVerdict::Stale);
    let header = Header {
        destination: MAC,
        source: OTHER,
        wanted: Some([10, 0, 0, 10].into()),
        sender: None,
    };
    bench.core.heard(bench.now, ETH, &header);
    assert_eq!(bench.verdict(), PeerVerdict::Stale);
}

#[test]
fn a_used_up_budget_puts_arp_off_but_no_echoes() {
    let mut bench = bench_with_a_neighbour(&["10.0.0.10"]);
    let frees = bench.now + Duration::from_millis(300);
    let transmit = bench.core.poll_transmit(bench.now).unwrap();
    assert_eq!(
        transmit.frame,
        Arp::gratuitous_request([10, 0, 0, 10].into(), MAC)
    );
    bench.core.over_budget(bench.now, &transmit, frees);
    let sent = bench.sends();
    assert!(
        sent.iter()
            .all(|frame| matches!(frame.payload, Payload::Echo(_)))
    );
    assert_eq!(sent.len(), 1);
    let meanwhile = in_silence(&mut bench, 299);
    let is_arp = |(_, frame): &&(_, Frame)| matches!(frame.payload, Payload::Arp(_));
    assert_eq!(meanwhile.iter().filter(is_arp).count(), 0);
    bench.now = frees;
    assert_eq!(bench.sends()[0], transmit.frame);
}

#[test]
fn questions_take_a_third_of_the_arp_rate_while_rounds_last() {
    let hosts: Vec<_> = (20..220_u8)
        .map(|host| (format!("10.0.0.{host}"), mac(host)))
        .collect();
    let mut bench = bench_with(&["10.0.0.10"], NeighbourState::Reachable, &hosts);
    bench.core.pace.arp_rate = NonZeroU32::new(15);
    bench.hear(THIRD);
    let frames = in_silence(&mut bench, 2500);
    let directed = |frame: &Frame| {
        let Payload::Arp(arp) = frame.payload else {
            return false;
        };
        (20..220).contains(&arp.target_ip.octets()[3])
    };
    let directed = frames.iter().filter(|(_, frame)| directed(frame)).count();
    assert!((10..=5 + 13).contains(&directed), "{directed}");
}

#[test]
fn if_many_hosts_ask_for_the_vip_the_rest_gets_directed_requests_first() {
    let hosts: Vec<_> = (20..220_u8)
        .map(|host| (format!("10.0.0.{host}"), mac(host)))
        .collect();
    let mut bench = bench_with(&["10.0.0.10"], NeighbourState::Reachable, &hosts);
    let mut first = BTreeMap::new();
    let note = |first: &mut BTreeMap<_, _>, frames: Vec<Frame>| {
        for frame in frames {
            let (ip, is_echo) = match frame.payload {
                Payload::Arp(arp) => (arp.target_ip.octets()[3], false),
                Payload::Echo(echo) => match echo.destination {
                    IpAddr::V4(ip) => (ip.octets()[3], true),
                    IpAddr::V6(_) => continue,
                },
                _ => continue,
            };
            if (20..220).contains(&ip) {
                first.entry(ip).or_insert(is_echo);
            }
        }
    };
    note(&mut first, bench.sends());
    let wave = first.len();
    assert!(
        first.values().all(|is_echo| *is_echo) && wave == WAVE,
        "{wave}"
    );
    // Each has to ask for the VIP to answer its echo.
    for host in 20..28_u8 {
        let who_has = Arp::directed_request(
            [10, 0, 0, host].into(),
            mac(host),
            [10, 0, 0, 10].into(),
            None,
        );
        bench.receive(&who_has);
    }
    for _ in 0..4 {
        note(&mut first, bench.after(1).sends());
    }
    assert_eq!(first.len(), hosts.len());
    let echoes = first.values().filter(|is_echo| **is_echo).count();
    assert_eq!(echoes, WAVE, "no more of them");
}

const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// A run for fd00::10 on an interface with fe80::1.
fn bench_with_a_link_local_address(census: bool) -> Bench {
    let mut bench = Bench::with(&["fd00::10", "fd00::11"]);
    bench.core.pace.census = census;
    bench.address("fe80::1", Usability::Usable);
    for vip in ["fd00::10", "fd00::11"] {
        bench.address(vip, Usability::Usable);
    }
    bench
}

fn is_census(frame: &Frame) -> bool {
    frame.destination == ALL_NODES.1 && matches!(frame.payload, Payload::Echo(_))
}

/// The reply of a host to a census.
fn census_reply(census: &Frame, ip: &str, mac: Mac) -> Frame {
    let mut frame = reply(census, mac);
    if let Payload::Echo(echo) = &mut frame.payload {
        echo.source = ip.parse().unwrap();
    }
    frame
}

#[test]
fn each_round_of_an_ipv6_vip_reports_its_group_and_one_of_a_link_has_a_census() {
    for census in [true, false] {
        let mut bench = bench_with_a_link_local_address(census);
        let frames = bench.sends();
        let reports: Vec<_> = ["fd00::10", "fd00::11"]
            .map(|vip| {
                let address = vip.parse().unwrap();
                Report {
                    source: LINK_LOCAL,
                    address,
                }
                .frame(MAC)
            })
            .into();
        let sent = frames
            .iter()
            .filter(|frame| matches!(frame.payload, Payload::Mld(_)));
        assert!(sent.eq(&reports));
        let sent = frames.iter().filter(|frame| is_census(frame)).count();
        assert_eq!(sent, usize::from(census));
        let again = bench.after(50).sends();
        assert!(reports.iter().all(|report| again.contains(report)));
    }
}

#[test]
fn hosts_that_answer_a_census_become_peers_and_are_asked_at_once() {
    let mut bench = bench_with_a_link_local_address(true);
    let census = bench.sends().into_iter().find(is_census).unwrap();
    // One before the kernel's neighbours are known, one after.
    bench.receive(&census_reply(&census, "fe80::2", OTHER));
    bench.view(vec![address("fe80::1", Usability::Usable)], &[]);
    bench.receive(&census_reply(&census, "fe80::3", THIRD));
    bench.receive(&census_reply(&census, "fe80::3", THIRD));
    let asked = bench.sends();
    for claim in bench.core.claims() {
        let peers: Vec<_> = claim.confirmations().iter().map(|one| &one.peer).collect();
        let found: Vec<_> = peers
            .iter()
            .map(|peer| (peer.ip.to_string(), peer.mac))
            .collect();
        let expected = [("fe80::2", OTHER), ("fe80::3", THIRD)];
        assert_eq!(found, expected.map(|(ip, mac)| (ip.to_owned(), Some(mac))));
        assert!(peers.iter().all(|peer| peer.source == Source::Census));
        for (ip, mac) in expected {
            let ip: IpAddr = ip.parse().unwrap();
            let echo = |frame: &Frame| {
                matches!(frame.payload, Payload::Echo(echo)
                if echo.source == claim.vip.ip() && echo.destination == ip && frame.destination == mac)
            };
            assert_eq!(asked.iter().filter(|frame| echo(frame)).count(), 1);
        }
    }
}

/// Anybody can answer a census in anybody's name.
#[test]
fn of_thousands_that_answer_a_census_256_are_asked_as_if_they_existed() {
    let mut bench = bench_with_a_link_local_address(true);
    let census = bench.sends().into_iter().find(is_census).unwrap();
    bench.view(vec![address("fe80::1", Usability::Usable)], &[]);
    for number in 0x100..0x1000_u16 {
        let [high, low] = number.to_be_bytes();
        let mac = Mac::new([2, 0, 0, 0, high, low]);
        bench.receive(&census_reply(&census, &format!("fe80::{number:x}"), mac));
    }
    let [first, second] = bench.core.claims() else {
        panic!("{:?}", bench.core.claims());
    };
    let sure = |claim: &Claim| {
        let peers = claim.confirmations().iter();
        peers.filter(|one| !one.peer.doubtful).count()
    };
    assert_eq!((first.confirmations().len(), sure(first)), (0xf00, 256));
    assert_eq!((second.confirmations().len(), sure(second)), (256, 256));
}

#[test]
fn a_census_reply_counts_only_if_it_repeats_the_token_and_comes_from_another_host() {
    let mut bench = bench_with_a_link_local_address(true);
    bench.view(vec![address("fe80::1", Usability::Usable)], &[]);
    let census = bench.sends().into_iter().find(is_census).unwrap();
    let good = census_reply(&census, "fe80::2", OTHER);
    let wrong: [fn(&mut Echo); 5] = [
        |echo| echo.token.nonce ^= 1,
        |echo| echo.token.sequence ^= 1,
        |echo| echo.token.identifier ^= 1,
        |echo| echo.kind = EchoKind::Request,
        |echo| echo.source = ALL_NODES.0.into(),
    ];
    for change in wrong {
        let mut frame = good.clone();
        if let Payload::Echo(echo) = &mut frame.payload {
            change(echo);
        }
        bench.receive(&frame);
        assert_eq!(bench.claim().confirmations().len(), 0);
    }
    bench.receive(&Frame {
        source: MAC,
        ..good.clone()
    });
    assert_eq!(bench.claim().confirmations().len(), 0);
    bench.receive(&good);
    assert_eq!(bench.claim().confirmations().len(), 1);
}

#[test]
fn an_answer_to_another_mac_counts_for_nothing() {
    let mut bench = bench_with_a_neighbour(&["10.0.0.10"]);
    bench.sends();
    let directed = |frame: &Frame| matches!(frame.payload, Payload::Arp(arp) if arp.target_ip == Ipv4Addr::from([10, 0, 0, 2]));
    let asked = bench.after(5).sends().into_iter().find(directed).unwrap();
    let answer = reply(&asked, OTHER);
    bench.receive(&Frame {
        destination: THIRD,
        ..answer.clone()
    });
    assert_eq!(bench.verdict(), PeerVerdict::Silent);
    // RFC 5227 §2.6: it may go to all.
    bench.receive(&Frame {
        destination: Mac::BROADCAST,
        ..answer
    });
    assert_eq!(bench.verdict(), PeerVerdict::Acknowledged);
}
