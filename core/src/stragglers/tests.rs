use super::*;
use crate::ask::testing::{address, mac};
use crate::wire::Arp;

const ETH: InterfaceIndex = InterfaceIndex(2);
const VIP: [u8; 4] = [10, 0, 0, 10];

fn own() -> Mac {
    mac(1)
}

fn placed() -> PlacedVip {
    PlacedVip::anywhere(Vip::try_from(IpAddr::from(VIP)).unwrap())
}

fn host() -> HostSnapshot {
    HostSnapshot {
        links: vec![Link::ethernet(2, "eth0", own())],
        addresses: vec![address("10.0.0.1/24", ETH)],
    }
}

/// A VIP left at this moment.
fn left() -> (Stragglers, Instant) {
    let (mut core, now) = (Stragglers::default(), Instant::now());
    let until = now + Duration::from_secs(60);
    core.left(now, until, &[placed()], &host());
    (core, now)
}

/// Host `last` sends to the VIP, by the MAC of `by`.
fn send(core: &mut Stragglers, now: Instant, last: u8, by: u8) {
    let header = Header {
        destination: own(),
        source: mac(by),
        wanted: Some(VIP.into()),
        sender: Some(([10, 0, 0, last].into(), 64)),
    };
    core.heard(now, ETH, &header);
}

/// The new owner announces the VIP.
fn claim(core: &mut Stragglers, now: Instant) {
    let frame = Arp::gratuitous_request(VIP.into(), mac(2));
    core.received(now, ETH, &frame);
}

fn take(core: &mut Stragglers) -> Vec<u8> {
    let found = core.take().into_iter();
    found
        .map(|one| match one.ip {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(_) => 0,
        })
        .collect()
}

#[test]
fn who_still_sends_once_another_host_has_the_vip_is_named_once() {
    let (mut core, start) = left();
    claim(&mut core, start);
    send(&mut core, start + Duration::from_millis(900), 7, 7);
    assert!(take(&mut core).is_empty());
    let later = start + Duration::from_secs(3);
    for _ in 0..2 {
        send(&mut core, later, 7, 7);
        // The new owner asks who has the VIP.
        send(&mut core, later, 2, 2);
    }
    let found = core.take();
    assert_eq!(found.len(), 1);
    let expected = (IpAddr::from([10, 0, 0, 7]), mac(7), Duration::from_secs(3));
    assert_eq!((found[0].ip, found[0].mac, found[0].after), expected);
}

#[test]
fn without_another_owner_all_may_still_send_for_a_while() {
    let (mut core, start) = left();
    send(&mut core, start + Duration::from_secs(4), 7, 7);
    assert!(take(&mut core).is_empty());
    send(&mut core, start + Duration::from_secs(5), 7, 7);
    assert_eq!(take(&mut core), [7]);
}

#[test]
fn frames_for_others_and_probes_do_not_count() {
    let (mut core, start) = left();
    let later = start + Duration::from_secs(10);
    let good = Header {
        destination: own(),
        source: mac(7),
        wanted: Some(VIP.into()),
        sender: Some(([10, 0, 0, 7].into(), 64)),
    };
    for header in [
        Header {
            destination: mac(3),
            ..good
        },
        Header {
            destination: Mac::BROADCAST,
            ..good
        },
        Header {
            source: Mac::BROADCAST,
            ..good
        },
        Header {
            wanted: Some([10, 0, 0, 1].into()),
            ..good
        },
        Header {
            sender: None,
            ..good
        },
        Header {
            sender: Some(([10, 0, 0, 7].into(), 1)),
            ..good
        },
        Header {
            sender: Some(([0, 0, 0, 0].into(), 64)),
            ..good
        },
    ] {
        core.heard(later, ETH, &header);
    }
    core.heard(later, InterfaceIndex(9), &good);
    assert!(take(&mut core).is_empty());
    core.heard(later, ETH, &good);
    assert_eq!(take(&mut core), [7]);
}

#[test]
fn a_flood_of_forged_senders_is_named_in_part_and_then_not_even_received() {
    let (mut core, start) = left();
    let later = start + Duration::from_secs(10);
    let listening = core.listening_changed(start, ETH).unwrap();
    assert_eq!(listening.to, [VIP.into()].into());
    assert_eq!(listening.from_all_but, Some(BTreeSet::new()));
    // One MAC with many addresses.
    (1..=250).for_each(|last| send(&mut core, later, last, 7));
    assert_eq!(take(&mut core).len(), MOST_ADDRESSES);
    let listening = core.listening_changed(later, ETH).unwrap();
    assert_eq!(listening.from_all_but, Some([mac(7)].into()));
    // One host with many frames.
    (0..ENOUGH_FRAMES).for_each(|_| send(&mut core, later, 8, 8));
    let listening = core.listening_changed(later, ETH).unwrap();
    assert_eq!(listening.from_all_but, Some([mac(7), mac(8)].into()));
    // Many MACs.
    (9..=250).for_each(|last| send(&mut core, later, last, last));
    assert_eq!(take(&mut core).len(), MOST_STRAGGLERS - MOST_ADDRESSES);
    let listening = core.listening_changed(later, ETH).unwrap();
    assert_eq!(listening, Listening::default());
}

#[test]
fn it_ends_in_time_and_once_the_vip_is_back_or_another_run_has_it() {
    let (mut core, start) = left();
    assert!(!core.is_over(start));
    assert!(core.is_over(start + Duration::from_secs(60)));
    core.address_changed(start, &address("10.0.0.10/32", ETH));
    assert!(core.is_over(start));
    let (mut core, start) = left();
    core.forget(placed().vip);
    assert!(core.is_over(start));
    let (mut core, start) = left();
    core.link_gone(start, ETH);
    assert!(core.is_over(start));
    // It came back before.
    let mut host = host();
    host.addresses.push(address("10.0.0.10/32", ETH));
    let mut core = Stragglers::default();
    core.left(start, start + Duration::from_secs(60), &[placed()], &host);
    assert!(core.is_over(start));
}

#[test]
fn a_kernel_that_solicits_from_its_link_local_address_is_no_other_host() {
    let vip: IpAddr = "fd00::10".parse().unwrap();
    let (mut core, now) = (Stragglers::default(), Instant::now());
    let placed = PlacedVip::anywhere(Vip::try_from(vip).unwrap());
    let host = HostSnapshot {
        addresses: vec![address("fd00::1/64", ETH)],
        ..host()
    };
    core.left(now, now + Duration::from_secs(60), &[placed], &host);
    let later = now + UNCLAIMED;
    for from in ["fe80::7", "fd00::7"] {
        let header = Header {
            destination: own(),
            source: mac(7),
            wanted: Some(vip),
            sender: Some((from.parse().unwrap(), 255)),
        };
        core.heard(later, ETH, &header);
    }
    let found: Vec<_> = core.take().into_iter().map(|one| one.ip).collect();
    assert_eq!(found, ["fd00::7".parse::<IpAddr>().unwrap()]);
}
