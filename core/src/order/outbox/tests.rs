use super::*;

const WALL: u64 = 1_700_000_000_000;

fn keys() -> Keys {
    Keys::from_octets(&[1; 32], "").unwrap()
}

fn outbox() -> Outbox {
    Outbox::new(keys(), "VI_1".to_owned())
}

fn vip(last: u8) -> Vip {
    Vip::try_from(IpAddr::from([10, 9, 0, last])).unwrap()
}

const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 1]);

fn route(last: u8) -> Route {
    Route {
        to: [10, 9, 0, last].into(),
        from: Some([10, 9, 0, 1].into()),
        interface: InterfaceIndex(2),
    }
}

fn read(datagram: &Datagram) -> Order {
    Order::parse(keys().authenticate(&datagram.datagram).unwrap()).unwrap()
}

fn answer(order: &Order, outcome: Outcome) -> Answer {
    let mut answer = Answer::refusal(order, WALL, Reason::Failed);
    for done in &mut answer.done {
        done.outcome = outcome;
    }
    answer
}

/// Polls until the outbox waits for nothing or `end`; returns when it sent what.
fn play(outbox: &mut Outbox, start: Instant, end: Duration) -> Vec<(Duration, Datagram)> {
    let mut sent = Vec::new();
    let mut now = start;
    let mut number = 0;
    while now < start + end {
        while let Some(datagram) = outbox.poll(now, WALL, || {
            number += 1;
            [number; 16]
        }) {
            sent.push((now - start, datagram));
        }
        let Some(due) = outbox.next_due() else {
            break;
        };
        assert!(due > now, "asked to wake up in the past");
        now = due;
    }
    sent
}

#[test]
fn a_datagram_has_up_to_16_vips_of_one_peer_each_once() {
    let (mut outbox, now) = (outbox(), Instant::now());
    for last in (100..120).chain(100..110) {
        outbox.request(now, route(3), Retry::Briefly, (vip(last), MAC));
    }
    let sent = play(&mut outbox, now, Duration::from_millis(1));
    assert_eq!(read(&sent[0].1).vips.len(), MOST_VIPS);
    let all: Vec<_> = sent.iter().flat_map(|(_, sent)| read(sent).vips).collect();
    assert!((100..120).all(|last| all.contains(&(vip(last), MAC))));
    // A peer rejects an order that has a VIP twice.
    let mut twice = self::outbox();
    for _ in 0..2 {
        twice.request(now, route(3), Retry::Briefly, (vip(100), MAC));
    }
    let sent = play(&mut twice, now, Duration::from_millis(1));
    assert_eq!(read(&sent[0].1).vips, [(vip(100), MAC)]);
}

#[test]
fn a_brief_retry_ends_after_five_seconds() {
    let (mut outbox, now) = (outbox(), Instant::now());
    outbox.request(now, route(3), Retry::Briefly, (vip(100), MAC));
    let sent = play(&mut outbox, now, Duration::from_secs(60));
    let (last, _) = sent.last().unwrap();
    assert!(
        *last < BRIEFLY && *last > BRIEFLY - LONGEST_GAP * 2,
        "{last:?}"
    );
    assert!((20..30).contains(&sent.len()), "{}", sent.len());
    assert!(!outbox.is_waiting(now + BRIEFLY));
}

#[test]
fn a_retry_until_the_timeout_renews_the_order_and_accepts_answers_to_old_ids() {
    let (mut outbox, now) = (outbox(), Instant::now());
    outbox.request(now, route(3), Retry::UntilTimeout, (vip(100), MAC));
    let sent = play(&mut outbox, now, Duration::from_secs(60));
    assert!(outbox.is_waiting(now + Duration::from_secs(60)));
    assert!((70..90).contains(&sent.len()), "{}", sent.len());
    let ids: std::collections::BTreeSet<_> = sent.iter().map(|(_, sent)| read(sent).id).collect();
    assert!((9..=12).contains(&ids.len()), "{} orders", ids.len());
    let first = answer(&read(&sent[0].1), Outcome::Purged);
    let answers = outbox.on_answer(route(3).to, &first.to_bytes(&keys()));
    assert_eq!(answers[0].fate.word(), "purged");
    assert!(!outbox.is_waiting(now) && outbox.next_due().is_none());
}

#[test]
fn only_an_answer_to_an_order_of_this_run_is_accepted_and_only_once() {
    let (mut outbox, now) = (outbox(), Instant::now());
    outbox.request(now, route(3), Retry::UntilTimeout, (vip(100), MAC));
    let order = read(&play(&mut outbox, now, Duration::from_millis(1))[0].1);
    let good = answer(&order, Outcome::Purged);
    let other_id = Answer {
        id: [99; 16],
        ..good.clone()
    };
    let mut other_vip = good.clone();
    other_vip.done[0].vip = vip(101);
    let foreign = good.to_bytes(&Keys::from_octets(&[2; 32], "").unwrap());
    let wrong = [
        other_id.to_bytes(&keys()),
        other_vip.to_bytes(&keys()),
        foreign,
    ];
    for datagram in wrong.iter().map(Vec::as_slice).chain([b"junk".as_slice()]) {
        assert_eq!(outbox.on_answer(route(3).to, datagram), []);
    }
    let good = good.to_bytes(&keys());
    assert_eq!(outbox.on_answer(route(3).to, &good).len(), 1);
    assert_eq!(outbox.on_answer(route(3).to, &good), []);
}

#[test]
fn the_skew_of_a_peers_clock_is_in_milliseconds() {
    let (mut outbox, now) = (outbox(), Instant::now());
    outbox.request(now, route(3), Retry::UntilTimeout, (vip(100), MAC));
    let order = read(&play(&mut outbox, now, Duration::from_millis(1))[0].1);
    let refusal = Answer::refusal(&order, WALL - 95_300, Reason::Clock);
    let answers = outbox.on_answer(route(3).to, &refusal.to_bytes(&keys()));
    let Fate::Answered { skew, .. } = answers[0].fate else {
        panic!("{answers:?}");
    };
    assert_eq!(skew, Some(-95_300));
}

#[test]
fn four_port_unreachable_messages_end_the_retry_for_that_peer_alone() {
    let (mut outbox, now) = (outbox(), Instant::now());
    for last in [3, 4, 5] {
        outbox.request(now, route(last), Retry::UntilTimeout, (vip(100), MAC));
    }
    let sent = play(&mut outbox, now, Duration::from_millis(1));
    let [closed, unreachable, open] = [0, 1, 2].map(|at: usize| sent[at].1.outgoing);
    for _ in 1..REFUSALS {
        outbox.refused(closed);
        assert!(outbox.is_open(closed));
    }
    outbox.refused(closed);
    assert!(!outbox.is_open(closed) && outbox.is_open(unreachable));
    outbox.give_up(unreachable);
    assert!(!outbox.is_open(unreachable) && outbox.is_open(open));
    outbox.give_up(open);
    assert!(!outbox.is_waiting(now));
}

#[test]
fn a_broadcast_leaves_once_delays_no_run_and_accepts_any_number_of_answers() {
    let (mut outbox, now) = (outbox(), Instant::now());
    outbox.request(now, route(255), Retry::Never, (vip(100), MAC));
    let sent = play(&mut outbox, now, Duration::from_secs(60));
    assert_eq!(sent.len(), 1);
    assert!(sent[0].1.broadcast && !outbox.is_waiting(now));
    let answer = answer(&read(&sent[0].1), Outcome::Purged).to_bytes(&keys());
    for last in [3, 4] {
        let from = IpAddr::from([10, 9, 0, last]);
        assert_eq!(outbox.on_answer(from, &answer)[0].peer, from);
    }
}

#[test]
fn a_vip_that_left_ends_its_order() {
    let (mut outbox, now) = (outbox(), Instant::now());
    outbox.request(now, route(3), Retry::UntilTimeout, (vip(100), MAC));
    outbox.request(now, route(4), Retry::UntilTimeout, (vip(101), MAC));
    outbox.retain(|_, held, _| held == vip(101));
    let sent = play(&mut outbox, now, Duration::from_millis(1));
    assert_eq!(sent.len(), 1);
    assert!(!sent[0].1.broadcast);
    assert_eq!(read(&sent[0].1).vips, [(vip(101), MAC)]);
}
