//! Hosts, their neighbour tables, captures, and what the switch lets through.

use std::time::{Duration, SystemTime};

use vipherald_lab::{Direction, Frame, Host, Lab, NeighbourWatch, State, eventually, write_pcap};

const VIP: &str = "10.9.0.100";
const OLD_MAC: &str = "02:00:00:00:00:99";
const SECOND: Duration = Duration::from_secs(1);
/// Long enough for whatever is to happen on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(30);
const ARP: u16 = 0x0806;

#[test]
fn two_hosts_reach_each_other_over_ipv4_and_ipv6_at_once() {
    let lab = Lab::silent();
    let (a, b) = (lab.host("a"), lab.host("b"));
    a.run(&format!("ping -c 1 -W 5 {}", b.ipv4()));
    a.run(&format!("ping -c 1 -W 5 {}", b.ipv6()));
    a.run("ping -c 1 -W 5 fe80::2%eth0");
    assert_eq!(a.cached(b.ipv4()), Some(b.mac()));
    assert_eq!(a.cached(b.ipv6()), Some(b.mac()));
}

#[test]
fn a_gratuitous_arp_updates_a_reachable_entry_and_shows_in_the_capture() {
    let lab = Lab::silent();
    let (a, b) = (lab.host("a"), lab.host("b"));
    b.remember(VIP, OLD_MAC);
    let before = b.neighbour(VIP).expect("an entry was given");
    assert_eq!(
        (before.mac, before.state),
        (Some(OLD_MAC.parse().unwrap()), State::Reachable)
    );
    assert_eq!(before.interface, b.interface_index("eth0"));

    let (watch, sent, received) = (b.watch_neighbours(), a.capture(), b.capture());
    let start = SystemTime::now();
    a.run(&format!("ip addr add {VIP}/24 dev eth0"));
    a.run(&format!("arping -U -c 1 -w 1 -I eth0 {VIP}"));

    let change = watch
        .wait_for(SOON, |e| e.neighbour.mac == Some(a.mac()))
        .expect("a change");
    assert!(change.time >= start && !change.gone);
    assert_eq!(b.cached(VIP), Some(a.mac()));

    let out = sent
        .wait_for(SOON, |f| f.ether_type() == ARP)
        .expect("a frame was sent");
    let frame = received
        .wait_for(SOON, |f| f.ether_type() == ARP)
        .expect("a frame came");
    assert_eq!(
        (out.direction, frame.direction),
        (Direction::FromHost, Direction::ToHost)
    );
    assert_eq!(
        (frame.source(), frame.destination().0),
        (a.mac(), [0xff; 6])
    );
    assert!(
        frame.time >= start && frame.time <= change.time,
        "{:?}",
        frame.time
    );

    let file = lab.directory().join("b.pcap");
    let frames = received.frames();
    write_pcap(&file, &frames).unwrap();
    let dissect = b
        .command("tshark")
        .arg("-r")
        .arg(&file)
        .args(["-Y", "arp"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&dissect.stdout).into_owned();
    assert!(text.contains(VIP), "{text} {dissect:?}");
    let later = received.frames();
    assert!(
        later.iter().all(|frame| !frames.contains(frame)),
        "frames are given once"
    );
}

#[test]
fn frames_that_wait_in_the_socket_are_not_missed() {
    let lab = Lab::silent();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let capture = b.capture();
    for count in 1..=20 {
        a.run(&format!("ping -c 1 -W 5 {}", b.ipv4()));
        let requests = |f: &Frame| f.direction == Direction::ToHost && f.bytes.len() == 98;
        assert_eq!(
            capture.frames().into_iter().filter(requests).count(),
            1,
            "ping {count}"
        );
    }
}

#[test]
fn a_filtered_host_learns_nothing_from_arp() {
    let lab = Lab::silent();
    let (a, b) = (lab.host("a"), lab.host("b"));
    b.remember(VIP, OLD_MAC);
    b.filter_arp_input();
    let capture = b.capture();
    a.run(&format!("ip addr add {VIP}/24 dev eth0"));
    a.run(&format!("arping -U -c 1 -w 1 -I eth0 {VIP}"));
    capture
        .wait_for(SOON, |f| f.ether_type() == ARP)
        .expect("the frame came");
    assert_eq!(b.cached(VIP), OLD_MAC.parse().ok());
}

#[test]
fn a_permanent_entry_and_a_sysctl_hold() {
    let lab = Lab::silent();
    let (a, b, c) = (lab.host("a"), lab.host("b"), lab.host("c"));
    b.remember_as(VIP, OLD_MAC, State::Permanent);
    c.remember_as(VIP, OLD_MAC, State::Stale);
    c.sysctl("net/ipv4/conf/all/drop_gratuitous_arp", "1");
    let captures = [b.capture(), c.capture()];
    a.run(&format!("ip addr add {VIP}/24 dev eth0"));
    a.run(&format!("arping -U -c 1 -w 1 -I eth0 {VIP}"));
    for capture in &captures {
        capture
            .wait_for(SOON, |f| f.ether_type() == ARP)
            .expect("the frame came");
    }
    assert_eq!(
        b.neighbour(VIP).map(|entry| entry.state),
        Some(State::Permanent)
    );
    assert_eq!(c.cached(VIP), OLD_MAC.parse().ok());
}

#[test]
fn loss_is_one_way_and_a_blackout_both_ways() {
    let lab = Lab::silent();
    let (a, b) = (lab.host("a"), lab.host("b"));
    a.remember_as(b.ipv4(), b.mac(), State::Permanent);
    b.remember_as(a.ipv4(), a.mac(), State::Permanent);
    let (at_a, at_b) = (a.capture(), b.capture());
    let ping = || {
        a.try_run(&format!("ping -c 1 -W 1 {}", b.ipv4()))
            .status
            .success()
    };
    // Requests that reach b, answers that reach a.
    let seen = || {
        let came = |f: &Frame| f.direction == Direction::ToHost && f.ether_type() == 0x0800;
        let count = |frames: Vec<_>| frames.into_iter().filter(came).count();
        (count(at_b.frames()), count(at_a.frames()))
    };
    assert_eq!((ping(), seen()), (true, (1, 1)));

    lab.loss([&a], Direction::ToHost, 100.0);
    assert_eq!((ping(), seen()), (false, (1, 0)));
    lab.loss([&a], Direction::ToHost, 0.0);
    lab.loss([&a], Direction::FromHost, 100.0);
    assert_eq!((ping(), seen()), (false, (0, 0)));
    lab.loss([&a], Direction::FromHost, 0.0);
    assert!(ping());

    lab.blackout(&b);
    assert!(!ping());
    assert!(
        b.run("ip link show eth0").contains("LOWER_UP"),
        "the carrier stays up"
    );
    lab.restore(&b);
    assert!(ping());

    b.remember(VIP, OLD_MAC);
    lab.unplug(&b);
    assert!(b.run("ip link show eth0").contains("NO-CARRIER"));
    eventually("b forgets its neighbours", SOON, || {
        b.neighbour(VIP).is_none().then_some(())
    });
    lab.plug(&b);
    eventually("b is reached again", SOON, || ping().then_some(()));
}

#[test]
fn loss_takes_its_share_of_each_host_by_chance() {
    let lab = Lab::silent();
    let (a, peers) = (lab.host("a"), lab.hosts("peer", 2));
    lab.loss(&peers, Direction::ToHost, 50.0);
    let captures: Vec<_> = peers.iter().map(Host::capture).collect();
    a.try_run("ping -b -c 200 -i 0.002 -W 0.1 10.9.0.255");
    let came: Vec<_> = captures
        .iter()
        .map(|c| {
            c.frames()
                .into_iter()
                .filter(|f| f.direction == Direction::ToHost)
                .count()
        })
        .collect();
    for count in &came {
        assert!((50..150).contains(count), "{came:?} of 200");
    }
}

#[test]
fn a_vmac_answers_with_its_own_mac() {
    let lab = Lab::silent();
    let (a, b) = (lab.host("a"), lab.host("b"));
    a.vmac("vrrp.51", "00:00:5e:00:01:33");
    a.run(&format!("ip addr add {VIP}/32 dev vrrp.51"));
    let capture = a.capture_on("vrrp.51");
    let answer = b.run(&format!("arping -c 1 -w 5 -I eth0 {VIP}"));
    assert!(answer.contains("[00:00:5E:00:01:33]"), "{answer}");
    assert!(
        answer.contains("Received 1 response"),
        "eth0 keeps silent: {answer}"
    );
    assert!(!capture.frames().is_empty());
}

#[test]
fn thirty_hosts_are_watched_from_one_thread() {
    let lab = Lab::silent();
    let (owner, peers) = (lab.host("owner"), lab.hosts("peer", 30));
    for peer in &peers {
        peer.remember(VIP, OLD_MAC);
    }
    let watches: Vec<_> = peers.iter().map(Host::watch_neighbours).collect();
    owner.run(&format!("ip addr add {VIP}/24 dev eth0"));
    owner.run(&format!("arping -U -c 1 -w 1 -I eth0 {VIP}"));
    let mut following = vec![false; peers.len()];
    eventually("every peer follows", SOON, || {
        for (peer, event) in NeighbourWatch::wait_any(&watches, SECOND) {
            following[peer] |= event.neighbour.mac == Some(owner.mac());
        }
        following.iter().all(|follows| *follows).then_some(())
    });
}
