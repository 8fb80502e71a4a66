use super::super::message::{Answer, ORDER_LENGTH, Order, TAG};
use super::*;
use crate::address::InterfaceIndex;

fn keys() -> Keys {
    Keys::from_octets(&[b'k'; 32], "").unwrap()
}

fn straggler(last: u8) -> (IpAddr, Mac) {
    ([192, 0, 2, last].into(), Mac::new([2, 0, 0, 0, 0, last]))
}

fn report() -> Report {
    Report {
        time: 1_700_000_000_000,
        id: *b"0123456789abcdef",
        to: "192.0.2.3".parse().unwrap(),
        vip: "192.0.2.10".parse().unwrap(),
        stragglers: vec![straggler(7), straggler(8)],
    }
}

fn signed(report: &Report) -> Vec<u8> {
    let mut datagram = report.to_bytes(&keys());
    datagram.truncate(datagram.len() - TAG);
    datagram
}

#[test]
fn a_report_is_read_as_it_was_written_and_is_no_order() {
    let datagram = report().to_bytes(&keys());
    assert!(Report::is_begun_by(&datagram) && !Order::is_begun_by(&datagram));
    assert_eq!(Answer::read(&datagram, &keys()), None);
    assert_eq!(Report::parse(&signed(&report())), Some(report()));
    let many = Report {
        stragglers: (1..=20).map(straggler).collect(),
        ..report()
    };
    let read = Report::parse(&signed(&many)).unwrap();
    assert_eq!(read.stragglers, many.stragglers[..MOST_IN_REPORT]);
    for report in [many, report()] {
        let length = report.to_bytes(&keys()).len();
        assert!((ORDER_LENGTH.0..=ORDER_LENGTH.1).contains(&length));
    }
}

#[test]
fn a_malformed_report_is_rejected_even_if_it_is_signed() {
    let good = signed(&report());
    for (at, value) in [
        (0, b'X'), // magic
        (4, 1),    // version
        (5, 1),    // kind
        (6, 1),    // flags
        (7, 0),    // count
        (7, 3),
        (60, 224), // VIP: a multicast address
        (76, 224), // straggler: a multicast address
        (80, 3),   // a multicast MAC
    ] {
        let mut changed = good.clone();
        changed[at] = value;
        assert_eq!(Report::parse(&changed), None, "{at}: {value}");
    }
    for cut in 0..good.len() {
        assert_eq!(Report::parse(&good[..cut]), None, "{cut}");
    }
    assert_eq!(Report::parse(&[&good[..], &[0]].concat()), None);
    let twice = Report {
        stragglers: vec![straggler(7); 2],
        ..report()
    };
    assert_eq!(Report::parse(&signed(&twice)), None);
}

#[test]
fn a_report_is_sent_again_until_it_is_acknowledged_or_for_three_seconds() {
    let route = Route {
        to: report().to,
        from: None,
        interface: InterfaceIndex(1),
    };
    let mut now = Instant::now();
    let mut reports = Reports::new(keys());
    reports.send(now, route, &report());
    let (_, datagram) = reports.poll(now).unwrap();
    assert_eq!(datagram, report().to_bytes(&keys()));
    assert_eq!(reports.poll(now), None);
    let other = Keys::from_octets(&[b'o'; 32], "").unwrap();
    reports.received(&acknowledgement(1, report().id, &other));
    reports.received(&acknowledgement(1, [0; 16], &keys()));
    now = reports.next_due().unwrap();
    assert!(reports.poll(now).is_some());
    reports.received(&acknowledgement(1, report().id, &keys()));
    assert_eq!(reports.next_due(), None);
    reports.send(now, route, &report());
    let began = now;
    let mut tries = 0;
    while let Some(due) = reports.next_due() {
        now = due;
        tries += u32::from(reports.poll(now).is_some());
    }
    assert_eq!((tries, (now - began).as_secs()), (TRIES, 3));
}
