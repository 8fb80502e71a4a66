use super::*;
use crate::ask::testing::{A, B, OWN, address, mac, reply};
use crate::wire::Arp;

const ETH: InterfaceIndex = InterfaceIndex(2);

/// A host with `eth0`, and units with VIPs.
struct Played {
    watch: Watch,
    now: Instant,
}

fn placed(vip: &str) -> PlacedVip {
    PlacedVip {
        vip: vip.parse().unwrap(),
        place: Place::On("eth0".to_owned()),
    }
}

fn units(given: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<PlacedVip>> {
    let unit = |(name, vips): &(&str, &[&str])| {
        let vips = vips.iter().map(|vip| placed(vip)).collect();
        ((*name).to_owned(), vips)
    };
    given.iter().map(unit).collect()
}

fn host(addresses: &[&str]) -> HostSnapshot {
    HostSnapshot {
        links: vec![Link::ethernet(ETH.0, "eth0", OWN)],
        addresses: addresses.iter().map(|text| address(text, ETH)).collect(),
    }
}

fn event(line: &str) -> Event {
    Event::from_line(line).unwrap()
}

impl Played {
    fn new(given: &[(&str, &[&str])], addresses: &[&str], at_start: AtStart) -> Self {
        let (mut watch, now) = (Watch::new(units(given)), Instant::now());
        watch.begin(now, &host(addresses), at_start);
        Self { watch, now }
    }

    fn add(&mut self, vip: &str) {
        let address = address(&format!("{vip}/32"), ETH);
        self.watch.address_changed(self.now, &address);
    }

    fn remove(&mut self, vip: &str) {
        let address = address(&format!("{vip}/32"), ETH);
        self.watch.address_gone(self.now, &address);
    }

    fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    /// The moves, such as `VI_1 came 10.0.0.10`.
    fn moves(&mut self) -> Vec<String> {
        let moves = self.watch.take_moves(self.now).into_iter();
        moves
            .map(|moved| {
                let how = match moved.how {
                    Move::AreAskedFor => "asked for",
                    Move::Came => "came",
                    Move::Left => "left",
                };
                let vips: Vec<_> = moved.vips.iter().map(|one| one.vip.to_string()).collect();
                format!("{} {how} {}", moved.unit, vips.join(" "))
            })
            .collect()
    }

    fn progress(&mut self, line: &str, members: &[&str]) -> Progress {
        let event = event(line);
        let call = event.calls_for().unwrap().unwrap();
        let members: Vec<_> = members.iter().map(|name| (*name).to_owned()).collect();
        self.watch.progress(self.now, &event, call, &members)
    }

    fn has_done(&mut self, line: &str, members: &[&str]) -> bool {
        self.progress(line, members) == Progress::Done
    }
}

#[test]
fn a_vip_that_comes_is_announced_and_one_that_leaves_is_purged() {
    let mut played = Played::new(&[("A", &["10.0.0.10"])], &["10.0.0.1/24"], AtStart::Came);
    assert_eq!(played.moves(), [""; 0]);
    played.add("10.0.0.10");
    assert_eq!(played.moves(), ["A came 10.0.0.10"]);
    // The kernel reports it again when its lifetime changes, and other addresses.
    played.add("10.0.0.10");
    played.add("10.0.0.11");
    assert_eq!(played.moves(), [""; 0]);
    played.remove("10.0.0.10");
    assert_eq!(played.moves(), ["A left 10.0.0.10"]);
    // What leaves and comes back was elsewhere meanwhile.
    played.add("10.0.0.10");
    assert_eq!(played.moves(), ["A came 10.0.0.10"]);
    played.remove("10.0.0.10");
    played.add("10.0.0.10");
    assert_eq!(played.moves(), ["A came 10.0.0.10"]);
}

#[test]
fn vips_that_come_one_by_one_are_one_announcement() {
    let mut played = Played::new(
        &[("A", &["10.0.0.10", "10.0.0.11"]), ("B", &["10.0.0.12"])],
        &["10.0.0.1/24"],
        AtStart::Came,
    );
    played.add("10.0.0.10");
    assert_eq!(played.moves(), ["A came 10.0.0.10 10.0.0.11"]);
    played.pass(5);
    played.add("10.0.0.11");
    played.add("10.0.0.12");
    assert_eq!(played.moves(), ["B came 10.0.0.12"]);
    // A reload adds one: the others were announced before.
    let more = units(&[("A", &["10.0.0.10", "10.0.0.11", "10.0.0.13"])]);
    let here = host(&[
        "10.0.0.1/24",
        "10.0.0.10/32",
        "10.0.0.11/32",
        "10.0.0.12/32",
    ]);
    played.pass(60_000);
    played.watch.units_are(played.now, more, &here);
    assert_eq!(played.moves(), [""; 0]);
    played.add("10.0.0.13");
    assert_eq!(played.moves(), ["A came 10.0.0.13"]);
    assert!(!played.watch.holds(&placed("10.0.0.14")));
    assert_eq!(played.watch.names().collect::<Vec<_>>(), ["A"]);
}

#[test]
fn what_is_here_at_the_start_came_only_if_nobody_else_says_so() {
    let given: &[(&str, &[&str])] = &[("A", &["10.0.0.10"])];
    let here = &["10.0.0.1/24", "10.0.0.10/32"];
    let mut played = Played::new(given, here, AtStart::Came);
    assert_eq!(played.moves(), ["A came 10.0.0.10"]);
    assert_eq!(played.watch.here_before("A"), []);
    let mut played = Played::new(given, here, AtStart::Here);
    assert_eq!(played.moves(), [""; 0]);
    assert_eq!(played.watch.here_before("A"), [placed("10.0.0.10")]);
    // keepalived reports what it does with them.
    assert!(!played.has_done("INSTANCE \"A\" MASTER 100", &["A"]));
}

#[test]
fn an_event_for_a_move_that_the_kernel_reported_calls_for_nothing_more() {
    let given: &[(&str, &[&str])] = &[("A", &["10.0.0.10"]), ("B", &["10.0.0.11"])];
    let mut played = Played::new(given, &["10.0.0.1/24"], AtStart::Here);
    // At the start nothing has moved.
    assert!(!played.has_done("INSTANCE \"A\" BACKUP 100", &["A"]));
    played.add("10.0.0.10");
    assert!(!played.has_done("GROUP \"G\" MASTER 0", &["A", "B"]));
    played.add("10.0.0.11");
    for (line, members) in [
        ("INSTANCE \"A\" MASTER 100", &["A"][..]),
        ("INSTANCE \"B\" MASTER 100", &["B"]),
    ] {
        assert!(played.has_done(line, members), "{line}");
        // The next one is about something else.
        assert!(!played.has_done(line, members), "{line}");
    }
    assert!(!played.has_done("INSTANCE \"A\" MASTER_RX_LOWER_PRI 100", &["A"]));
    played.remove("10.0.0.10");
    assert!(played.has_done("INSTANCE \"A\" BACKUP 100", &["A"]));
    // It was back before the event that it had left was read.
    played.add("10.0.0.10");
    played.remove("10.0.0.10");
    played.add("10.0.0.10");
    assert!(played.has_done("INSTANCE \"A\" BACKUP 100", &["A"]));
    assert!(played.has_done("INSTANCE \"A\" MASTER 100", &["A"]));
    assert!(!played.has_done("INSTANCE \"A\" BACKUP 100", &["A"]));
    // One that stays, and one that is not watched.
    assert!(!played.has_done("INSTANCE \"B\" BACKUP 100", &["B"]));
    assert!(!played.has_done("INSTANCE \"C\" BACKUP 100", &["C"]));
    played.add("10.0.0.10");
    played.pass(60_000);
    assert!(
        !played.has_done("INSTANCE \"A\" MASTER 100", &["A"]),
        "too late"
    );
}

#[test]
fn an_event_joins_the_announcement_of_vips_that_the_kernel_has_yet_to_report() {
    let given: &[(&str, &[&str])] = &[("A", &["10.0.0.10", "10.0.0.11"]), ("B", &["10.0.0.12"])];
    let mut played = Played::new(given, &["10.0.0.1/24"], AtStart::Here);
    let master = "INSTANCE \"A\" MASTER 100";
    // None of them is here yet, then one, then both.
    assert_eq!(played.progress(master, &["A"]), Progress::Begun);
    played.add("10.0.0.10");
    assert_eq!(played.moves(), ["A came 10.0.0.10 10.0.0.11"]);
    assert_eq!(played.progress(master, &["A"]), Progress::Begun);
    let of_both = "GROUP \"G\" MASTER 0";
    assert_eq!(played.progress(of_both, &["A", "B"]), Progress::Begun);
    played.pass(5);
    played.add("10.0.0.11");
    assert_eq!(played.moves(), [""; 0]);
    assert_eq!(played.progress(master, &["A"]), Progress::Done);
    // Now it is news, as is an event about a VIP that has been here for long.
    assert_eq!(played.progress(master, &["A"]), Progress::New);
    played.remove("10.0.0.11");
    assert_eq!(played.progress(master, &["A"]), Progress::New);
    // What else is announced waits for nothing.
    let again = "INSTANCE \"B\" MASTER_RX_LOWER_PRI 100";
    assert_eq!(played.progress(again, &["B"]), Progress::New);
    assert_eq!(
        played.progress("INSTANCE \"C\" MASTER 100", &["C"]),
        Progress::New
    );
}

#[test]
fn a_vip_counts_once_it_can_be_announced() {
    let mut played = Played::new(&[("A", &["fd00::10"])], &["fd00::1/64"], AtStart::Came);
    let mut found = address("fd00::10/128", ETH);
    found.usability = Usability::Tentative;
    played.watch.address_changed(played.now, &found);
    assert_eq!(played.moves(), [""; 0]);
    found.usability = Usability::Usable;
    played.watch.address_changed(played.now, &found);
    assert_eq!(played.moves(), ["A came fd00::10"]);
    // Without a carrier it stays here.
    let link = Link::ethernet(ETH.0, "eth0", OWN);
    let down = Link {
        carrier: false,
        ..link.clone()
    };
    played.pass(60_000);
    played.watch.link_changed(played.now, &down);
    assert_eq!(played.moves(), [""; 0]);
    played.watch.link_changed(played.now, &link);
    assert_eq!(played.moves(), ["A came fd00::10"]);
    // Its hosts have to learn another MAC.
    let mac = Some(mac(9));
    played.pass(60_000);
    played.watch.link_changed(played.now, &Link { mac, ..link });
    assert_eq!(played.moves(), ["A came fd00::10"]);
    played.watch.link_gone(played.now, ETH);
    assert_eq!(played.moves(), ["A left fd00::10"]);
}

#[test]
fn only_where_it_counts_does_a_vip_come() {
    let mut played = Played::new(&[("A", &["10.0.0.10"])], &["10.0.0.1/24"], AtStart::Came);
    let other = InterfaceIndex(3);
    let elsewhere = address("10.0.0.10/32", other);
    assert_eq!(played.watch.unknown_link_of(&elsewhere), Some(other));
    assert_eq!(
        played
            .watch
            .unknown_link_of(&address("10.0.0.99/32", other)),
        None
    );
    played
        .watch
        .link_changed(played.now, &Link::ethernet(3, "eth1", mac(3)));
    played.watch.address_changed(played.now, &elsewhere);
    assert_eq!(played.moves(), [""; 0]);
}

#[test]
fn an_announcement_gets_what_is_known_of_its_links() {
    let mut played = Played::new(&[("A", &["10.0.0.10"])], &["10.0.0.1/24"], AtStart::Came);
    played.add("10.0.0.10");
    played.add("10.0.0.11");
    played.remove("10.0.0.11");
    let host = played.watch.host_of(&[placed("10.0.0.10")]).unwrap();
    let addresses: Vec<_> = host
        .addresses
        .iter()
        .map(|own| own.ip.to_string())
        .collect();
    assert_eq!(addresses, ["10.0.0.1", "10.0.0.10"]);
    assert_eq!(host.links.len(), 1);
    // Of an interface that came later, not all addresses are known.
    played.watch.link_gone(played.now, ETH);
    let again = Link::ethernet(3, "eth0", OWN);
    played.watch.link_changed(played.now, &again);
    played
        .watch
        .address_changed(played.now, &address("10.0.0.10/32", again.index));
    assert!(played.watch.holds(&placed("10.0.0.10")));
    assert!(played.watch.host_of(&[placed("10.0.0.10")]).is_none());
}

#[test]
fn after_lost_changes_what_holds_now_counts() {
    let given: &[(&str, &[&str])] = &[("A", &["10.0.0.10", "10.0.0.11"])];
    let mut played = Played::new(given, &["10.0.0.1/24", "10.0.0.10/32"], AtStart::Came);
    played.moves();
    played.pass(60_000);
    let now = [address("10.0.0.1/24", ETH), address("10.0.0.11/32", ETH)];
    played.watch.addresses_are(played.now, &now);
    assert_eq!(
        played.moves(),
        ["A left 10.0.0.10", "A came 10.0.0.11 10.0.0.10"]
    );
}

/// Of VIPs that an announcement has just picked up, none is forgotten when all have left meanwhile.
#[test]
fn an_announcement_that_was_stopped_picks_up_nothing() {
    let given: &[(&str, &[&str])] = &[("A", &["10.0.0.10", "10.0.0.11"])];
    let mut played = Played::new(given, &["10.0.0.1/24"], AtStart::Came);
    played.add("10.0.0.10");
    played.moves();
    played.remove("10.0.0.10");
    assert_eq!(played.moves(), ["A left 10.0.0.10"]);
    played.add("10.0.0.11");
    assert_eq!(played.moves(), ["A came 10.0.0.11 10.0.0.10"]);
}

const VIP: &str = "10.0.0.10";

/// A gratuitous request of a host with this MAC.
fn claim(mac: Mac) -> Frame {
    let IpAddr::V4(vip) = VIP.parse().unwrap() else {
        panic!("{VIP}");
    };
    Arp::directed_request(vip, mac, vip, None)
}

/// A master with this MAC advertises the VIP and another address.
fn advert(mac: Mac) -> Advert {
    Advert {
        source: mac,
        addresses: ["10.0.0.99", VIP].map(|ip| ip.parse().unwrap()).to_vec(),
    }
}

impl Played {
    /// Without the VIP.
    fn elsewhere() -> Self {
        Self::new(&[("A", &[VIP])], &["10.0.0.1/24"], AtStart::Came)
    }

    /// `mac` claims the VIP while this kernel's entry has `cached`. Answers of `owners` to each question
    /// come at once. Gives the questions, and what is found within the time that a search takes.
    fn claimed(&mut self, mac: Mac, cached: Mac, owners: &[Mac]) -> (usize, Vec<Vec<Mac>>) {
        self.watch.received(self.now, ETH, &claim(mac));
        self.searched(cached, owners)
    }

    /// The same if `mac` advertises it.
    fn advertised(&mut self, mac: Mac, cached: Mac, owners: &[Mac]) -> (usize, Vec<Vec<Mac>>) {
        self.watch.advertised(self.now, ETH, &advert(mac));
        self.searched(cached, owners)
    }

    fn searched(&mut self, cached: Mac, owners: &[Mac]) -> (usize, Vec<Vec<Mac>>) {
        let (mut questions, mut found) = (0, Vec::new());
        for _ in 0..900 {
            for claimed in self.watch.take_claims(self.now) {
                self.watch.entry_is(self.now, &claimed, Some(cached));
            }
            while let Some(transmit) = self.watch.poll_transmit(self.now) {
                questions += 1;
                self.watch.sent(self.now, &transmit);
                for owner in owners {
                    let answer = reply(&transmit.frame, *owner);
                    self.watch.received(self.now, ETH, &answer);
                }
            }
            let all = self.watch.take_found(self.now).into_iter();
            found.extend(all.map(|one| one.owners));
            self.pass(1);
        }
        (questions, found)
    }
}

#[test]
fn a_claim_leads_to_questions_and_only_answers_count() {
    // The VIP has moved.
    let mut played = Played::elsewhere();
    assert_eq!(played.claimed(B, A, &[B]), (3, vec![vec![B]]));
    // The entry is right.
    assert_eq!(Played::elsewhere().claimed(A, A, &[A]), (0, vec![]));
    // The claim is forged: the owner answers once, or nobody does.
    assert_eq!(Played::elsewhere().claimed(B, A, &[A]), (1, vec![]));
    assert_eq!(Played::elsewhere().claimed(B, A, &[]), (1, vec![]));
    // Both have it.
    let (questions, found) = Played::elsewhere().claimed(B, A, &[A, B]);
    assert_eq!((questions, found), (1, vec![vec![A, B]]));
    // This host has it, or the claim is its own.
    let mut played = Played::elsewhere();
    played.add(VIP);
    assert_eq!(played.claimed(B, A, &[B]), (0, vec![]));
    assert_eq!(Played::elsewhere().claimed(OWN, A, &[B]), (0, vec![]));
}

#[test]
fn several_owners_are_told_once_while_that_lasts() {
    let c = mac(0xc);
    let mut played = Played::elsewhere();
    let told = |played: &mut Played, owners: &[Mac], millis| {
        played.pass(millis);
        played.claimed(B, A, owners).1
    };
    // An hour, in which one host answers on three interfaces; which of them comes first is chance.
    assert_eq!(told(&mut played, &[A, B], 0), [vec![A, B]]);
    assert_eq!(told(&mut played, &[B, c], 70_000), [vec![B, c]]);
    for owners in [[A, B], [B, c], [A, c]].iter().cycle().take(50) {
        assert_eq!(told(&mut played, owners, 70_000), [[]; 0]);
    }
    // That the others were not heard in time does not end it.
    assert_eq!(told(&mut played, &[B], 70_000), [vec![B]]);
    assert_eq!(told(&mut played, &[A, B], 70_000), [[]; 0]);
    // It is over, and comes again: after another one had the VIP, or after a long time.
    let d = mac(0xd);
    assert_eq!(told(&mut played, &[d], 70_000), [vec![d]]);
    assert_eq!(told(&mut played, &[A, B], 70_000), [vec![A, B]]);
    assert_eq!(told(&mut played, &[A, B], 3_000_000), [[]; 0]);
    assert_eq!(told(&mut played, &[A, B], 3_700_000), [vec![A, B]]);
}

#[test]
fn an_advert_of_a_new_master_is_a_claim() {
    let mut played = Played::elsewhere();
    assert_eq!(played.advertised(B, A, &[B]), (3, vec![vec![B]]));
    // Now the entry is right.
    assert_eq!(played.advertised(B, B, &[B]), (0, vec![]));
    assert_eq!(Played::elsewhere().advertised(B, A, &[A]), (1, vec![]));
    assert_eq!(Played::elsewhere().advertised(B, A, &[]), (1, vec![]));
    let both = Played::elsewhere().advertised(B, A, &[A, B]);
    assert_eq!(both, (1, vec![vec![A, B]]));
    // This host has it, or the virtual router's MAC is here, too.
    let mut played = Played::elsewhere();
    played.add(VIP);
    assert_eq!(played.advertised(B, A, &[B]), (0, vec![]));
    assert_eq!(Played::elsewhere().advertised(OWN, A, &[B]), (0, vec![]));
}

#[test]
fn while_the_kernel_follows_the_announcement_behind_an_advert_nobody_is_asked() {
    let mut played = Played::elsewhere();
    played.watch.advertised(played.now, ETH, &advert(B));
    played.pass(9);
    assert_eq!(played.watch.take_claims(played.now), []);
    // The gratuitous ARP that the kernel has seen, too, leads to a look at its entry at once.
    played.watch.received(played.now, ETH, &claim(B));
    let claims = played.watch.take_claims(played.now);
    assert_eq!(claims.len(), 1);
    played.watch.entry_is(played.now, &claims[0], Some(B));
    assert_eq!(played.advertised(B, B, &[B]), (0, vec![]));
}

#[test]
fn adverts_of_one_master_lead_to_fewer_and_fewer_looks() {
    let mut played = Played::elsewhere();
    let mut looks = Vec::new();
    for second in 0..300 {
        played.watch.advertised(played.now, ETH, &advert(A));
        played.pass(500);
        for claimed in played.watch.take_claims(played.now) {
            looks.push(second);
            played.watch.entry_is(played.now, &claimed, Some(A));
        }
        played.pass(500);
    }
    assert_eq!(looks, [0, 1, 3, 7, 15, 31, 63, 127, 191, 255]);
    // Another one is new.
    assert_eq!(played.advertised(B, A, &[B]), (3, vec![vec![B]]));
    // The first one, too.
    assert_eq!(played.advertised(A, B, &[A]), (3, vec![vec![A]]));
}

#[test]
fn forged_claims_and_adverts_cost_one_question_a_second() {
    let mut played = Played::elsewhere();
    let mut questions = 0;
    for turn in 0..5000_u32 {
        let forged = if turn % 2 == 0 { B } else { mac(0x77) };
        if turn % 3 == 0 {
            played.watch.advertised(played.now, ETH, &advert(forged));
        } else {
            played.watch.received(played.now, ETH, &claim(forged));
        }
        for claimed in played.watch.take_claims(played.now) {
            played.watch.entry_is(played.now, &claimed, Some(A));
        }
        if let Some(transmit) = played.watch.poll_transmit(played.now) {
            questions += 1;
            played.watch.sent(played.now, &transmit);
        }
        assert_eq!(played.watch.take_found(played.now), []);
        played.pass(1);
    }
    assert_eq!(questions, 5);
}

#[test]
fn an_entry_that_stays_wrong_is_asked_about_less_and_less() {
    let mut played = Played::elsewhere();
    let mut found = 0;
    for _ in 0..100 {
        found += played.claimed(B, A, &[B]).1.len();
    }
    assert!((6..=9).contains(&found), "{found}");
}

#[test]
fn who_asks_for_a_vip_and_whom_its_owner_asks_is_remembered_first() {
    let hosts = Rc::new(RefCell::new(Hosts::default()));
    let mut watch = Watch::new(units(&[("A", &[VIP])])).adding_to(Rc::clone(&hosts));
    let now = Instant::now();
    watch.begin(now, &host(&["10.0.0.1/24"]), AtStart::Came);
    let request = |from: &str, mac, to: &str| {
        Arp::directed_request(from.parse().unwrap(), mac, to.parse().unwrap(), None)
    };
    for frame in [
        request("10.0.0.5", mac(5), "10.0.0.6"),
        request("10.0.0.7", mac(7), VIP),
        request(VIP, mac(9), "10.0.0.8"),
        // Not a host: a probe, a claim, and this host itself.
        request("0.0.0.0", mac(4), VIP),
        claim(mac(9)),
        request("10.0.0.1", OWN, VIP),
    ] {
        watch.received(now, ETH, &frame);
    }
    let mut known: Vec<_> = hosts.borrow().on(ETH, now);
    known.sort_by_key(|one| one.ip);
    let known: Vec<_> = known
        .iter()
        .map(|one| (one.ip.to_string(), one.mac, one.asks))
        .collect();
    let expected = [
        ("10.0.0.5".to_owned(), Some(mac(5)), false),
        ("10.0.0.7".to_owned(), Some(mac(7)), true),
        ("10.0.0.8".to_owned(), None, true),
    ];
    assert_eq!(known, expected);
}

#[test]
fn a_host_that_an_announcement_did_not_reach_is_asked_when_it_is_heard() {
    let hosts = Rc::new(RefCell::new(Hosts::default()));
    let given: &[(&str, &[&str])] = &[("A", &[VIP, "10.0.0.11"])];
    let mut played = Played::new(given, &["10.0.0.1/24"], AtStart::Came);
    played.watch = std::mem::take(&mut played.watch).adding_to(Rc::clone(&hosts));
    played.add(VIP);
    played.moves();
    let late: IpAddr = "10.0.0.5".parse().unwrap();
    let vip: Vip = VIP.parse().unwrap();
    let hear = |played: &mut Played, outcome: Outcome| {
        hosts
            .borrow_mut()
            .answered(played.now, ETH, (&Rc::from([vip]), late), outcome);
        let to = "10.0.0.6".parse().unwrap();
        let frame = Arp::directed_request("10.0.0.5".parse().unwrap(), B, to, None);
        played.watch.received(played.now, ETH, &frame);
        played.watch.take_moves(played.now)
    };
    assert_eq!(hear(&mut played, Outcome::Reached), []);
    let asked = hear(&mut played, Outcome::Silent);
    let expected = Moved {
        unit: "A".to_owned(),
        how: Move::AreAskedFor,
        peers: [(late, None)].into(),
        vips: vec![placed(VIP)],
    };
    assert_eq!(asked, [expected]);
    // It did not answer, and speaks again: not at each of its frames.
    for (pass, asks) in [(100, 0), (60_000, 1), (60_000, 0), (60_000, 1)] {
        played.pass(pass);
        let moves = hear(&mut played, Outcome::SilentAgain);
        assert_eq!(moves.len(), asks, "{pass}");
    }
    // Another one is heard while that is asked.
    played
        .watch
        .are_late(&[placed(VIP)], &[(late, None)].into());
    let due = played.watch.next_deadline(played.now);
    played.now = due;
    assert_eq!(played.watch.take_moves(due).len(), 1);
    // The VIP has left.
    played.remove(VIP);
    played.moves();
    played.pass(600_000);
    assert_eq!(hear(&mut played, Outcome::SilentAgain), []);
    // It is back: the hour begins again for who is silent then.
    played.add(VIP);
    played.moves();
    played.pass(60_000);
    assert_eq!(hear(&mut played, Outcome::SilentAgain), []);
    assert_eq!(hear(&mut played, Outcome::Silent).len(), 1);
}
