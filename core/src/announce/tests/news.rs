//! What the user learns, and when.

use super::*;

/// The old owner, which is dead.
const DEAD: &str = "10.0.0.9";

/// The news of a run to its end or for this time, and when each came. `answer` plays the other hosts.
fn told(
    bench: &mut Bench,
    seconds: u64,
    mut answer: impl FnMut(Duration, &Frame) -> Option<Frame>,
) -> Vec<(Duration, News)> {
    let (began, mut all) = (bench.core.started(), Vec::new());
    let end = bench.now + Duration::from_secs(seconds);
    while bench.now <= end && !bench.is_over() {
        let at = bench.now - began;
        for frame in bench.sends() {
            if let Some(answer) = answer(at, &frame) {
                bench.receive(&answer);
            }
        }
        let news = bench.core.take_news(bench.now).into_iter();
        all.extend(news.map(|news| (at, news)));
        let next = bench.core.next_deadline(bench.now);
        bench.now = next.max(bench.now + Duration::from_micros(1));
    }
    all
}

/// A run for a VIP with 10.0.0.2 and .3 as neighbours, and these configured peers.
fn bench_with_peers(configured: &[&str]) -> Bench {
    let mut bench = Bench::holding(&["10.0.0.10"]);
    let state = NeighbourState::Reachable;
    let view = LinkView {
        addresses: vec![Address {
            prefix_len: 24,
            ..address("10.0.0.1", Usability::Usable)
        }],
        neighbours: vec![
            neighbour("10.0.0.2", OTHER, state),
            neighbour("10.0.0.3", THIRD, state),
        ],
        ..LinkView::of(link(Some(MAC), true))
    };
    let host = HostSnapshot {
        links: vec![view.link.clone()],
        addresses: Vec::new(),
    };
    let configured: Vec<IpAddr> = configured.iter().map(|ip| ip.parse().unwrap()).collect();
    let core = &mut bench.core;
    core.links_are(vec![view], &host, &configured, Confirm::All);
    while core.find_peers(bench.now) {}
    bench
}

/// Whoever exists and follows answers. Nobody else has the VIP.
fn followers(_: Duration, frame: &Frame) -> Option<Frame> {
    let asks_host = match frame.payload {
        Payload::Echo(echo) => echo.destination != IpAddr::from([10, 0, 0, 10]),
        Payload::Arp(_) => true,
        Payload::Ndp(_) | Payload::Mld(_) => false,
    };
    let by = frame.destination;
    (asks_host && [OTHER, THIRD].contains(&by)).then(|| reply(frame, by))
}

fn peer(bench: &Bench, ip: &str) -> usize {
    bench.claim().find_peer(ip.parse().unwrap()).unwrap()
}

fn is_within(at: Duration, millis: std::ops::Range<u64>) -> bool {
    (millis.start..millis.end).contains(&u64::try_from(at.as_millis()).unwrap())
}

#[test]
fn that_all_follow_is_told_at_once_and_nothing_later() {
    let mut bench = bench_with_peers(&[]);
    let told = told(&mut bench, 60, followers);
    assert_eq!(told, [(told[0].0, News::Announced(vec![0]))]);
    assert!(is_within(told[0].0, 0..5), "{told:?}");
    assert!(bench.now - bench.core.started() > Claim::planned_time());
}

#[test]
fn a_required_peer_that_is_silent_delays_nobody_and_is_told_when_chance_is_ruled_out() {
    let mut bench = bench_with_peers(&[DEAD]);
    let told = told(&mut bench, 60, followers);
    let dead = peer(&bench, DEAD);
    let [(first, News::Announced(_)), (second, news)] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(is_within(*first, 0..1500), "{first:?}");
    assert_eq!(*news, News::NotFollowing(0, dead));
    assert!(is_within(*second, 2500..2600), "{second:?}");
    assert!(
        bench
            .claim()
            .is_peer_told(&bench.claim().confirmations()[dead])
    );
}

#[test]
fn a_stale_peer_is_told_within_three_seconds_and_again_once_it_follows() {
    let mut bench = bench_with_peers(&[]);
    let stale = peer(&bench, "10.0.0.3");
    let told = told(&mut bench, 60, |at, frame| {
        let from_vip = match frame.payload {
            Payload::Echo(echo) => echo.source == IpAddr::from([10, 0, 0, 10]),
            _ => true,
        };
        let follows = frame.destination == OTHER || !from_vip || at > Duration::from_secs(4);
        followers(at, frame).filter(|_| follows)
    });
    let [first, second, third] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(first.1, News::Announced(vec![0]));
    assert_eq!(second.1, News::NotFollowing(0, stale));
    assert!(is_within(second.0, 2500..2600), "{told:?}");
    assert_eq!(third.1, News::Follows(0, stale));
    assert!(is_within(third.0, 4000..6500), "{told:?}");
}

#[test]
fn another_owner_is_told_once_it_answers_after_the_handover_and_not_for_its_last_frames() {
    for (until, is_told) in [(900, false), (60_000, true)] {
        let mut bench = bench_with_peers(&[]);
        let told = told(&mut bench, 5, |at, frame| {
            let is_claimed = at <= Duration::from_millis(until);
            if *frame == Arp::gratuitous_request([10, 0, 0, 10].into(), MAC)
                && at.as_millis() == 200
            {
                return Some(Arp::gratuitous_request([10, 0, 0, 10].into(), THIRD));
            }
            let probes = *frame == Arp::probe([10, 0, 0, 10].into(), MAC);
            match probes && is_claimed {
                true => Some(reply(frame, THIRD)),
                false => followers(at, frame),
            }
        });
        let conflicts: Vec<_> = told
            .iter()
            .filter(|(_, news)| matches!(news, News::Conflict(..)))
            .collect();
        assert_eq!(!conflicts.is_empty(), is_told, "{told:?}");
        if let [(at, news)] = conflicts[..] {
            assert_eq!(*news, News::Conflict(0, vec![THIRD]));
            assert!(is_within(*at, 1000..1500), "{at:?}");
        }
    }
}

#[test]
fn a_silent_path_is_told_after_the_ramp_and_that_all_follow_once_it_is_alive() {
    let mut bench = bench_with_peers(&[]);
    let told = told(&mut bench, 60, |at, frame| {
        followers(at, frame).filter(|_| at > Duration::from_secs(8))
    });
    let [first, second] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(first.1, News::PathSilent(vec![0]));
    assert!(is_within(first.0, 2500..2600), "{told:?}");
    assert_eq!(second.1, News::Announced(vec![0]));
    assert!(is_within(second.0, 8000..8600), "{told:?}");
}

#[test]
fn blocked_frames_are_told() {
    let mut bench = bench_with_peers(&[]);
    let told = told(&mut bench, 5, |_, frame| {
        answer_to_others_than_the_vip(frame)
    });
    let blocked = told.iter().find(|(_, news)| *news == News::Blocked(0));
    assert!(is_within(blocked.unwrap().0, 2500..2600), "{told:?}");
    assert!(
        !told
            .iter()
            .any(|(_, news)| matches!(news, News::NotFollowing(..)))
    );
}

#[test]
fn the_vips_of_an_interface_are_told_together() {
    let mut bench = bench_with_a_neighbour(&["10.0.0.10", "10.0.0.11", "10.0.0.12"]);
    let told = told(&mut bench, 60, followers);
    assert_eq!(told, [(told[0].0, News::Announced(vec![0, 1, 2]))]);
}

#[test]
fn without_anybody_to_ask_the_announcement_is_told_soon() {
    let mut bench = Bench::holding(&["10.0.0.10"]);
    bench.view(vec![on(ETH, "10.0.0.1")], &[]);
    bench.hear(THIRD);
    let told = told(&mut bench, 60, |_, _| None);
    assert_eq!(
        told,
        [(Duration::from_millis(100), News::Announced(vec![0]))]
    );
}

#[test]
fn a_vip_on_another_card_is_told_again() {
    let mut bench = bench_with_peers(&[]);
    assert_eq!(told(&mut bench, 3, followers).len(), 1);
    bench.link(&link(Some(mac(7)), true));
    let told = told(&mut bench, 60, followers);
    assert!(matches!(told[..], [(_, News::Announced(_))]), "{told:?}");
}
