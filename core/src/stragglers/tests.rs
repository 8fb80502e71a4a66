use super::*;
use crate::ask::testing::{address, mac};
use crate::wire::{Arp, Ndp};

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

/// The same twice, early enough to make it certain.
fn send_twice(core: &mut Stragglers, now: Instant, last: u8, by: u8) {
    send(core, now, last, by);
    send(core, now + SENDS_AGAIN, last, by);
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
fn who_sends_again_once_another_host_has_the_vip_is_named_once() {
    let (mut core, start) = left();
    claim(&mut core, start);
    for millis in [900, 1500] {
        send(&mut core, start + Duration::from_millis(millis), 7, 7);
    }
    assert!(take(&mut core).is_empty(), "the first came too early");
    let later = start + Duration::from_secs(3);
    for _ in 0..2 {
        send(&mut core, later, 7, 7);
        // The new owner asks who has the VIP, and one frame may be the last.
        send(&mut core, later, 2, 2);
        send(&mut core, later, 8, 8);
    }
    let found = core.take();
    assert_eq!(found.len(), 1);
    let expected = (IpAddr::from([10, 0, 0, 7]), mac(7), Duration::from_secs(3));
    assert_eq!((found[0].ip, found[0].mac, found[0].after), expected);
}

#[test]
fn without_another_owner_nobody_is_named() {
    let (mut core, start) = left();
    send_twice(&mut core, start + Duration::from_secs(30), 7, 7);
    assert!(take(&mut core).is_empty());
    claim(&mut core, start + Duration::from_secs(40));
    send_twice(&mut core, start + Duration::from_secs(50), 7, 7);
    assert_eq!(take(&mut core), [7]);
}

#[test]
fn clients_may_take_a_moment_to_follow_each_new_owner() {
    let (mut core, start) = left();
    claim(&mut core, start);
    let second = start + Duration::from_secs(20);
    let frame = Arp::gratuitous_request(VIP.into(), mac(3));
    core.received(second, ETH, &frame);
    send(&mut core, second + Duration::from_millis(100), 7, 7);
    send(&mut core, second + Duration::from_millis(900), 7, 7);
    assert!(take(&mut core).is_empty());
    // Both owners may send to this host.
    send_twice(&mut core, second + Duration::from_secs(3), 3, 3);
    assert!(take(&mut core).is_empty());
}

#[test]
fn once_the_vip_is_back_nobody_is_named() {
    let (mut core, start) = left();
    claim(&mut core, start);
    send_twice(&mut core, start + Duration::from_secs(3), 7, 7);
    core.address_changed(start, &address("10.0.0.10/32", ETH));
    assert!(take(&mut core).is_empty());
}

#[test]
fn frames_for_others_and_probes_do_not_count() {
    let (mut core, start) = left();
    claim(&mut core, start);
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
        core.heard(later + SENDS_AGAIN, ETH, &header);
    }
    core.heard(later, InterfaceIndex(9), &good);
    core.heard(later + SENDS_AGAIN, InterfaceIndex(9), &good);
    assert!(take(&mut core).is_empty());
    core.heard(later, ETH, &good);
    core.heard(later + SENDS_AGAIN, ETH, &good);
    assert_eq!(take(&mut core), [7]);
}

/// Who of these is named once a VIP left a host with these addresses.
fn named(vip: &str, own: &[&str], senders: &[&str]) -> Vec<String> {
    let (mut core, now) = (Stragglers::default(), Instant::now());
    let vip: Vip = vip.parse().unwrap();
    let host = HostSnapshot {
        addresses: own.iter().map(|own| address(own, ETH)).collect(),
        ..host()
    };
    let placed = PlacedVip::anywhere(vip).only_on(Some("eth0"));
    core.left(now, now + Duration::from_secs(60), &[placed], &host);
    let frame = match vip.ip() {
        IpAddr::V4(vip) => Arp::gratuitous_request(vip, mac(2)),
        IpAddr::V6(vip) => Ndp::unsolicited_advertisement(vip, mac(2), false),
    };
    core.received(now, ETH, &frame);
    let later = now + Duration::from_secs(10);
    for at in [later, later + SENDS_AGAIN] {
        for (sender, by) in senders.iter().zip(7..) {
            let header = Header {
                destination: self::own(),
                source: mac(by),
                wanted: Some(vip.ip()),
                sender: Some((sender.parse().unwrap(), 64)),
            };
            core.heard(at, ETH, &header);
        }
    }
    let found = core.take().into_iter();
    found.map(|one| one.ip.to_string()).collect()
}

#[test]
fn who_may_use_this_host_as_its_router_is_not_named() {
    let two = ["10.0.0.1/24", "10.1.0.1/24"];
    for (what, vip, own, senders, expected) in [
        (
            "a host of the other subnet, one of the VIP's, and one behind a router",
            "10.0.0.10",
            two.as_slice(),
            ["10.1.0.5", "10.0.0.5", "172.16.0.5"].as_slice(),
            ["10.0.0.5", "172.16.0.5"].as_slice(),
        ),
        (
            "the VIP's own address has no subnet, but it is in one of this host's",
            "10.0.0.10",
            &["10.0.0.1/24", "10.0.0.11/32", "10.1.0.1/24"],
            &["10.1.0.5", "10.0.0.5"],
            &["10.0.0.5"],
        ),
        (
            "the VIP is in no subnet: whoever is in one may use this host to get there",
            "192.0.2.10",
            &two,
            &["10.0.0.5", "192.0.2.5"],
            &["192.0.2.5"],
        ),
        (
            "a subnet within the VIP's",
            "10.0.0.10",
            &["10.0.0.1/8", "10.1.0.1/24"],
            &["10.1.0.5"],
            &["10.1.0.5"],
        ),
        (
            "IPv6",
            "fd00::10",
            &["fd00::1/64", "fd01::1/64", "fe80::1/64"],
            &["fd01::5", "fd00::5"],
            &["fd00::5"],
        ),
    ] {
        assert_eq!(named(vip, own, senders), expected, "{what}");
    }
}

#[test]
fn of_a_host_that_uses_this_one_as_its_router_only_some_frames_are_received() {
    let (mut core, start) = (Stragglers::default(), Instant::now());
    let mut host = host();
    host.addresses.push(address("10.1.0.1/24", ETH));
    core.left(start, start + Duration::from_secs(60), &[placed()], &host);
    claim(&mut core, start);
    let later = start + Duration::from_secs(10);
    let header = Header {
        destination: own(),
        source: mac(7),
        wanted: Some(VIP.into()),
        sender: Some(([10, 1, 0, 5].into(), 64)),
    };
    (0..ENOUGH_FRAMES).for_each(|_| core.heard(later, ETH, &header));
    let listening = core.listening_changed(later + SENDS_AGAIN, ETH).unwrap();
    assert_eq!(listening.from_all_but, Some([mac(2), mac(7)].into()));
    assert!(take(&mut core).is_empty());
}

#[test]
fn only_what_tells_something_is_received() {
    let (mut core, start) = left();
    assert_eq!(
        core.listening_changed(start, ETH),
        Some(Listening::default()),
        "nobody claims the VIP"
    );
    claim(&mut core, start);
    let certain = start + FOLLOWS_WITHIN;
    assert_eq!(core.next_deadline(start), certain);
    let received = |core: &mut Stragglers, now| {
        let listening = core.listening_changed(now, ETH).unwrap();
        assert_eq!(listening.to, [VIP.into()].into());
        listening.from_all_but.unwrap()
    };
    assert_eq!(received(&mut core, certain), [mac(2)].into(), "the owner");
    // A host with many frames, until the one that makes it certain.
    (0..ENOUGH_FRAMES).for_each(|_| send(&mut core, certain, 8, 8));
    assert_eq!(received(&mut core, certain), [mac(2), mac(8)].into());
    let again = certain + SENDS_AGAIN;
    assert_eq!(core.next_deadline(certain), again);
    assert_eq!(received(&mut core, again), [mac(2)].into());
    send(&mut core, again, 8, 8);
    assert_eq!(take(&mut core), [8]);
    assert_eq!(received(&mut core, again), [mac(2), mac(8)].into());
    // A router, for many hosts.
    (1..=250).for_each(|last| send_twice(&mut core, again, last, 7));
    assert_eq!(take(&mut core).len(), MOST_ADDRESSES);
    assert_eq!(
        received(&mut core, again + SENDS_AGAIN),
        [mac(2), mac(7), mac(8)].into()
    );
}

#[test]
fn a_flood_of_forged_senders_is_named_in_part_and_then_not_even_received() {
    let (mut core, start) = left();
    claim(&mut core, start);
    let later = start + Duration::from_secs(10);
    (9..=250).for_each(|last| send_twice(&mut core, later, last, last));
    assert_eq!(take(&mut core).len(), MOST_STRAGGLERS);
    let listening = core.listening_changed(later, ETH).unwrap();
    assert_eq!(listening, Listening::default());
    // Or each has another MAC.
    let (mut core, start) = left();
    claim(&mut core, start);
    let later = start + Duration::from_secs(10);
    for number in 0..=u16::MAX {
        forge(&mut core, later, placed().vip, number);
    }
    assert!(take(&mut core).is_empty());
    let listening = core.listening_changed(later, ETH).unwrap();
    assert_eq!(listening, Listening::default());
}

/// VIPs that left at this moment and that another host claims, and when frames to them count.
fn many_left(count: u8) -> (Stragglers, Vec<Vip>, Instant) {
    let (mut core, now) = (Stragglers::default(), Instant::now());
    let ips: Vec<_> = (0..count).map(|last| [10, 0, 1, last]).collect();
    let vips = ips.iter().map(|ip| Vip::try_from(IpAddr::from(*ip)));
    let vips: Vec<Vip> = vips.map(Result::unwrap).collect();
    let placed: Vec<_> = vips.iter().map(|vip| PlacedVip::anywhere(*vip)).collect();
    let host = HostSnapshot {
        addresses: vec![address("10.0.0.1/16", ETH)],
        ..host()
    };
    core.left(now, now + Duration::from_secs(60), &placed, &host);
    for ip in ips {
        core.received(now, ETH, &Arp::gratuitous_request(ip.into(), mac(2)));
    }
    (core, vips, now + FOLLOWS_WITHIN)
}

/// A forged sender sends to a VIP.
fn forge(core: &mut Stragglers, now: Instant, vip: Vip, number: u16) {
    let [high, low] = number.to_be_bytes();
    let header = Header {
        destination: own(),
        source: Mac::new([2, 9, 9, 9, high, low]),
        wanted: Some(vip.ip()),
        sender: Some(([10, 9, high, low].into(), 64)),
    };
    core.heard(now, ETH, &header);
}

/// What is counted frame by frame is what a count of all senders finds.
fn assert_totals(core: &Stragglers) {
    let all = core.left.values().flat_map(|left| &left.frames);
    let (mut senders, mut frames) = (0, 0);
    for (_, sent) in all {
        senders += 1;
        frames += sent.frames;
    }
    let of_macs = || core.totals.of_mac.values();
    assert_eq!(core.totals.senders, senders);
    assert_eq!(of_macs().map(|of| of.senders).sum::<usize>(), senders);
    assert_eq!(of_macs().map(|of| of.frames).sum::<u64>(), frames);
    for left in core.left.values() {
        let named = left.frames.values();
        let named = named.filter(|sent| sent.known == Known::Named);
        assert_eq!(left.named, named.count());
    }
}

#[test]
fn the_senders_to_all_vips_are_bounded_and_a_flood_of_more_is_not_received() {
    let (mut core, vips, now) = many_left(250);
    for number in 0..200 {
        vips.iter()
            .for_each(|vip| forge(&mut core, now, *vip, number));
    }
    assert_totals(&core);
    assert_eq!(core.totals.senders, MOST_SENDERS_OF_ALL);
    assert!(core.totals.of_mac.len() <= 200);
    let listening = core.listening_changed(now, ETH);
    assert_eq!(listening, Some(Listening::default()));
    // With fewer VIPs there is room again.
    vips[1..].iter().for_each(|vip| core.forget(*vip));
    assert_totals(&core);
    let listening = core.listening_changed(now, ETH).unwrap();
    assert_eq!(listening.to, [vips[0].ip()].into());
    let _ = core.poll_transmit(now + Duration::from_secs(60));
    assert!(core.is_over(now));
    assert_totals(&core);
    assert!(core.totals.of_mac.is_empty());
}

#[test]
fn a_flood_has_what_to_receive_worked_out_only_when_that_may_change() {
    let (mut core, vips, now) = many_left(100);
    let all = core.listening_changed(now, ETH).unwrap();
    let mut anew = 0;
    for _ in 0..ENOUGH_FRAMES {
        for number in 0..10 {
            for vip in &vips {
                forge(&mut core, now, *vip, number);
                anew += usize::from(!core.wanted[&ETH].holds(now));
                let _ = core.listening_changed(now, ETH);
            }
        }
    }
    assert_totals(&core);
    // Of 64000 frames, the last of each sender to each VIP.
    assert_eq!(anew, 10 * vips.len());
    let muted = core.listening(now, ETH).from_all_but.unwrap();
    assert_eq!(muted.len(), 1 + 10, "the owner, and the senders");
    // When one more frame of each names it, they are received again.
    let again = now + SENDS_AGAIN;
    assert_eq!(core.next_deadline(now), again);
    assert_eq!(core.listening_changed(again, ETH), Some(all));
    for number in 0..10 {
        vips.iter()
            .for_each(|vip| forge(&mut core, again, *vip, number));
    }
    assert_totals(&core);
    assert_eq!(core.take().len(), 10 * vips.len());
    let muted = core.listening_changed(again, ETH).unwrap();
    assert_eq!(muted.from_all_but.unwrap().len(), 1 + 10);
    assert_eq!(core.totals.too_much.len(), 10);
    vips.iter().for_each(|vip| core.forget(*vip));
    assert!(core.totals.too_much.is_empty());
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
    let IpAddr::V6(claimed) = vip else {
        unreachable!("it is IPv6");
    };
    core.received(
        now,
        ETH,
        &Ndp::unsolicited_advertisement(claimed, mac(2), false),
    );
    let later = now + Duration::from_secs(10);
    for (from, at) in ["fe80::7", "fd00::7"]
        .into_iter()
        .flat_map(|from| [(from, later), (from, later + SENDS_AGAIN)])
    {
        let header = Header {
            destination: own(),
            source: mac(7),
            wanted: Some(vip),
            sender: Some((from.parse().unwrap(), 255)),
        };
        core.heard(at, ETH, &header);
    }
    let found: Vec<_> = core.take().into_iter().map(|one| one.ip).collect();
    assert_eq!(found, ["fd00::7".parse::<IpAddr>().unwrap()]);
}
