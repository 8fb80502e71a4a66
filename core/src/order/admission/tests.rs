use proptest::prelude::*;

use super::*;
use crate::address::{InterfaceIndex, Mac};
use crate::host::{Address, Link, Usability};

const NOW: u64 = 1_700_000_000_000;
const WINDOW: Duration = Duration::from_secs(30);

fn keys(with: u8) -> Keys {
    Keys::from_octets(&[with; 32], "").unwrap()
}

fn admission() -> Admission {
    Admission::new(keys(1), WINDOW)
}

fn sender() -> SocketAddr {
    "192.0.2.2:4000".parse().unwrap()
}

fn elsewhere() -> SocketAddr {
    "192.0.2.9:4000".parse().unwrap()
}

fn order(number: u64, time: u64) -> Order {
    let mut id = Id::default();
    id[..8].copy_from_slice(&number.to_be_bytes());
    Order {
        time,
        id,
        to: "192.0.2.3".parse().unwrap(),
        instance: "VI_1".to_owned(),
        vips: vec![("192.0.2.10".parse().unwrap(), Mac::new([2, 0, 0, 0, 0, 2]))],
    }
}

#[test]
fn an_order_is_executed_once_and_only_its_sender_gets_the_answer_again() {
    let mut admission = admission();
    let order = order(1, NOW);
    let datagram = order.to_bytes(&keys(1));
    let first = admission.decide(NOW, sender(), &datagram);
    assert_eq!(first, Decision::New(order.clone()));
    let in_progress = admission.decide(NOW, sender(), &datagram);
    assert_eq!(in_progress, Decision::Dropped(Dropped::Replayed));
    admission.answered(&order.id, vec![7]);
    let again = admission.decide(NOW + 30_000, sender(), &datagram);
    assert_eq!(again, Decision::Again(order.to, vec![7]));
    let replayed = admission.decide(NOW, elsewhere(), &datagram);
    assert_eq!(replayed, Decision::Dropped(Dropped::Replayed));
}

#[test]
fn a_repeated_order_is_answered_twice_a_second_and_sender() {
    let mut admission = admission();
    let other: SocketAddr = "192.0.2.4:4000".parse().unwrap();
    for (number, from) in [(1, sender()), (2, sender()), (3, other)] {
        let order = order(number, NOW);
        admission.decide(NOW, from, &order.to_bytes(&keys(1)));
        admission.answered(&order.id, vec![7]);
    }
    let mut answers = |now, number, from| {
        let datagram = order(number, NOW).to_bytes(&keys(1));
        let all = (0..1000).map(|_| admission.decide(now, from, &datagram));
        all.filter(|decision| matches!(decision, Decision::Again(..)))
            .count()
    };
    assert_eq!(answers(NOW, 1, sender()), 2);
    assert_eq!(answers(NOW + 999, 2, sender()), 0, "the same sender");
    assert_eq!(answers(NOW + 999, 3, other), 2);
    assert_eq!(answers(NOW + 1000, 2, sender()), 2);
}

#[test]
fn an_order_outside_the_window_is_refused_with_the_skew() {
    let datagram = |time| order(1, time).to_bytes(&keys(1));
    for (time, skew) in [
        (NOW - 30_001, Some(-30_001)),
        (NOW - 30_000, None),
        (NOW + 30_000, None),
        (NOW + 30_001, Some(30_001)),
        (0, Some(-1_700_000_000_000)),
        (u64::MAX, Some(i64::MAX)),
    ] {
        match (admission().decide(NOW, sender(), &datagram(time)), skew) {
            (Decision::New(_), None) => {}
            (Decision::OutOfTime(_, found), Some(skew)) => assert_eq!(found, skew),
            (other, _) => panic!("{time}: {other:?}"),
        }
    }
}

#[test]
fn the_cheapest_check_comes_first() {
    let good = order(1, NOW).to_bytes(&keys(1));
    let mut version = good.clone();
    version[4] = 3;
    let mut old = good.clone();
    old[4] = 1;
    let mut flipped = good.clone();
    flipped[20] ^= 1;
    let foreign = order(1, 0).to_bytes(&keys(2));
    for (datagram, why) in [
        (&good[..102], Dropped::Size),
        (&[good.clone(), vec![0; 400]].concat(), Dropped::Size),
        (&version, Dropped::Version),
        (&old, Dropped::Old),
        (&flipped, Dropped::Unauthenticated),
        (&foreign, Dropped::Unauthenticated),
        (&good[..good.len() - 1], Dropped::Unauthenticated),
    ] {
        let decision = admission().decide(NOW, sender(), datagram);
        assert_eq!(decision, Decision::Dropped(why));
    }
}

#[test]
fn memory_is_bounded_and_comes_back_with_time() {
    let mut admission = admission();
    let mut accepted = 0;
    for number in 0..5000 {
        let datagram = order(number, NOW).to_bytes(&keys(1));
        match admission.decide(NOW, sender(), &datagram) {
            Decision::New(_) => accepted += 1,
            Decision::Crowded(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(accepted, MOST_REMEMBERED);
    assert!(admission.forget(NOW + 30_000), "they could be replayed");
    let later = order(9999, NOW + 30_001).to_bytes(&keys(1));
    let decision = admission.decide(NOW + 30_001, sender(), &later);
    assert!(matches!(decision, Decision::New(_)));
    assert!(admission.forget(NOW + 60_001));
    assert!(!admission.forget(NOW + 60_002));
}

fn own(text: &str) -> Address {
    let (ip, prefix_len) = text.split_once('/').unwrap();
    Address {
        ip: ip.parse().unwrap(),
        interface: InterfaceIndex(2),
        prefix_len: prefix_len.parse().unwrap(),
        usability: Usability::Usable,
    }
}

fn link() -> Link {
    Link::ethernet(2, "eth0", Mac::new([2, 0, 0, 0, 0, 3]))
}

fn facts() -> HostFacts {
    let addresses = ["127.0.0.1/8", "10.9.0.3/24", "10.8.0.3/32", "fd09::3/64"];
    HostFacts {
        host: HostSnapshot {
            links: vec![link()],
            addresses: addresses.map(own).to_vec(),
        },
        gateways: ["10.9.0.254", "10.9.0.253"]
            .map(|ip| ip.parse().unwrap())
            .into(),
        configured: ["172.16.0.1", "10.9.0.253"]
            .map(|ip| PlacedVip::anywhere(ip.parse().unwrap()))
            .into(),
    }
}

#[test]
fn orders_are_accepted_for_configured_and_allowed_vips_and_named_gateways() {
    use Allowed::Links;
    let prefix = |text: &str| Allowed::Prefix(text.parse().unwrap());
    let links: &[Allowed] = &[Links];
    let by_prefix: &[Allowed] = &[prefix("10.0.0.0/8")];
    let by_name: &[Allowed] = &[Links, prefix("10.9.0.254")];
    let (gateway, not_allowed) = (Err(Reason::Gateway), Err(Reason::NotAllowed));
    for (vip, allow, decision) in [
        ("10.9.0.100", links, Ok(())),
        ("fd09::100", links, Ok(())),
        ("10.9.1.100", links, not_allowed),
        ("10.8.0.4", links, not_allowed),
        ("fd0a::1", links, not_allowed),
        ("10.9.0.254", links, gateway),
        ("10.9.0.254", by_prefix, gateway),
        ("10.9.0.254", by_name, Ok(())),
        // A gateway that is a VIP of this host's keepalived.conf.
        ("10.9.0.253", &[], Ok(())),
        ("172.16.0.1", &[], Ok(())),
        ("10.9.0.100", &[], not_allowed),
        ("10.9.1.100", by_prefix, Ok(())),
        ("192.0.2.1", by_prefix, not_allowed),
    ] {
        let vip = vip.parse().unwrap();
        assert_eq!(facts().permit(vip, allow), decision, "{vip} {allow:?}");
    }
    assert!(facts().holds("10.9.0.3".parse().unwrap()));
}

#[test]
fn this_host_is_meant_by_its_addresses_on_the_link_and_by_their_broadcast_addresses() {
    for (to, meant) in [
        ("10.9.0.3", true),
        ("10.9.0.255", true),
        ("fd09::3", true),
        ("127.0.0.1", false),
        ("10.9.0.4", false),
        ("10.8.0.255", false),
        ("255.255.255.255", false),
        ("fd09::4", false),
    ] {
        let to = to.parse().unwrap();
        assert_eq!(facts().is_meant(to, InterfaceIndex(2)), meant, "{to}");
        assert!(!facts().is_meant(to, InterfaceIndex(1)), "{to}");
    }
}

proptest! {
    #[test]
    fn an_order_without_a_valid_tag_is_dropped_and_not_remembered(
        octets in prop::collection::vec(any::<u8>(), 0..600),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..4),
    ) {
        let mut admission = admission();
        prop_assert!(matches!(admission.decide(NOW, sender(), &octets), Decision::Dropped(_)));
        let good = order(1, NOW).to_bytes(&keys(1));
        let mut changed = good.clone();
        for (at, by) in flips {
            changed[at.index(good.len())] ^= by;
        }
        if changed != good {
            prop_assert!(matches!(admission.decide(NOW, sender(), &changed), Decision::Dropped(_)));
        }
        prop_assert!(!admission.forget(NOW));
    }
}

#[test]
fn a_report_is_passed_on_once_and_only_in_time() {
    let report = |number: u8, time| Report {
        time,
        id: [number; 16],
        to: "192.0.2.3".parse().unwrap(),
        vip: "192.0.2.10".parse().unwrap(),
        stragglers: vec![([192, 0, 2, 7].into(), Mac::new([2, 0, 0, 0, 0, 7]))],
    };
    let mut admission = admission();
    let first = report(1, NOW);
    let datagram = first.to_bytes(&keys(1));
    let decision = admission.decide(NOW, sender(), &datagram);
    assert_eq!(decision, Decision::Report(first.clone()));
    // There was too much to do.
    admission.not_taken(&first.id);
    let decision = admission.decide(NOW, sender(), &datagram);
    assert_eq!(decision, Decision::Report(first.clone()));
    admission.answered(&first.id, vec![7]);
    let again = admission.decide(NOW, sender(), &datagram);
    assert_eq!(again, Decision::Again(first.to, vec![7]));
    for (from, datagram, why) in [
        (elsewhere(), datagram, Dropped::Replayed),
        (
            sender(),
            report(2, NOW - 30_001).to_bytes(&keys(1)),
            Dropped::Unwelcome,
        ),
        (
            sender(),
            report(3, NOW).to_bytes(&keys(2)),
            Dropped::Unauthenticated,
        ),
    ] {
        let decision = admission.decide(NOW, from, &datagram);
        assert_eq!(decision, Decision::Dropped(why));
    }
}
