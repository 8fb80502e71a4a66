use proptest::prelude::*;

use super::*;

/// The key of docs/orders.md: 32 octets of `k`.
fn keys() -> Keys {
    Keys::from_octets(&[b'k'; 32], "").unwrap()
}

fn order() -> Order {
    Order {
        time: 1_700_000_000_000,
        id: *b"0123456789abcdef",
        to: "192.0.2.3".parse().unwrap(),
        instance: "VI_1".to_owned(),
        vips: vec![("192.0.2.10".parse().unwrap(), Mac::new([2, 0, 0, 0, 0, 2]))],
    }
}

fn answer() -> Answer {
    Answer {
        time: 1_700_000_000_123,
        id: *b"0123456789abcdef",
        done: vec![Done {
            vip: "192.0.2.10".parse().unwrap(),
            outcome: Outcome::Purged,
            was: Some(Mac::new([2, 0, 0, 0, 0, 1])),
            now: Some(Mac::new([2, 0, 0, 0, 0, 2])),
            interface: "eth0".to_owned(),
        }],
    }
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The octets of a code block in docs/orders.md.
fn documented(what: &str) -> String {
    let document = include_str!("../../../../docs/orders.md");
    let (_, rest) = document.split_once(&format!("```{what}\n")).unwrap();
    let (block, _) = rest.split_once("```").unwrap();
    let hexadecimal = block
        .lines()
        .map(|line| line.split("  ").next().unwrap_or_default());
    hexadecimal.flat_map(str::split_whitespace).collect()
}

#[test]
fn order_and_answer_match_the_documentation() {
    let keys = keys();
    let datagram = order().to_bytes(&keys);
    assert_eq!(hexadecimal(&datagram), documented("order"));
    let signed = keys.authenticate(&datagram).unwrap();
    assert_eq!(Order::parse(signed), Some(order()));
    let datagram = answer().to_bytes(&keys);
    assert_eq!(hexadecimal(&datagram), documented("answer"));
    assert_eq!(Answer::read(&datagram, &keys), Some(answer()));
}

#[test]
fn an_order_is_no_answer_and_an_answer_no_order() {
    let (keys, other) = (keys(), Keys::from_octets(&[b'o'; 32], "").unwrap());
    let (order, answer) = (order().to_bytes(&keys), answer().to_bytes(&keys));
    assert_eq!(Answer::read(&order, &keys), None);
    assert!(!Order::is_begun_by(&answer));
    assert_eq!(Order::parse(keys.authenticate(&answer).unwrap()), None);
    assert_eq!(Answer::read(&answer, &other), None);
}

#[test]
fn lengths_are_those_stated_and_fit_any_link() {
    let keys = keys();
    let vip = |n: u8| Vip::try_from(IpAddr::from([192, 0, 2, n])).unwrap();
    let long = Order {
        instance: "é".repeat(40),
        vips: (1..=20)
            .map(|n| (vip(n), Mac::new([2, 0, 0, 0, 0, n])))
            .collect(),
        ..order()
    };
    let datagram = long.to_bytes(&keys);
    assert_eq!(datagram.len(), ORDER_LENGTH.1);
    let read = Order::parse(keys.authenticate(&datagram).unwrap()).unwrap();
    assert_eq!(read.instance, "é".repeat(32));
    assert_eq!(read.vips, long.vips[..MOST_VIPS]);
    let refusal = Answer::refusal(&read, 1, Reason::Busy).to_bytes(&keys);
    assert_eq!(refusal.len(), ANSWER_LENGTH.1);
    // The minimum MTU of IPv6 (RFC 8200 §5), less the IPv6 and UDP headers.
    assert!(ANSWER_LENGTH.1 <= 1280 - 48);
    let short = Order {
        instance: String::new(),
        ..order()
    };
    assert_eq!(short.to_bytes(&keys).len(), ORDER_LENGTH.0);
    assert_eq!(answer().to_bytes(&keys).len(), ANSWER_LENGTH.0);
    // A name is cut between characters.
    let odd = Order {
        instance: format!("a{}", "é".repeat(40)),
        ..order()
    };
    let read = Order::parse(keys.authenticate(&odd.to_bytes(&keys)).unwrap()).unwrap();
    assert_eq!(read.instance, format!("a{}", "é".repeat(31)));
}

#[test]
fn every_outcome_survives_the_round_trip() {
    let simple = [
        Outcome::Purged,
        Outcome::Right,
        Outcome::Absent,
        Outcome::Released,
    ];
    let kept = REASONS.map(Outcome::Kept);
    let refused = REASONS.map(Outcome::Refused);
    for outcome in simple.into_iter().chain(kept).chain(refused) {
        let mut answer = answer();
        answer.done[0].outcome = outcome;
        let read = Answer::read(&answer.to_bytes(&keys()), &keys());
        assert_eq!(read, Some(answer));
    }
}

#[test]
fn an_answer_has_each_vip_once_and_interface_names_of_at_most_15_octets() {
    let read = |answer: &Answer| Answer::read(&answer.to_bytes(&keys()), &keys());
    let mut two = answer();
    two.done.push(Done {
        vip: "192.0.2.11".parse().unwrap(),
        ..two.done[0].clone()
    });
    assert_eq!(read(&two), Some(two.clone()));
    two.done[1].vip = two.done[0].vip;
    assert_eq!(read(&two), None);
    let mut long = answer();
    long.done[0].interface = "sixteen-octets-x".to_owned();
    assert_eq!(read(&long).unwrap().done[0].interface, "sixteen-octets-");
}

#[test]
fn a_malformed_order_is_rejected_even_if_it_is_signed() {
    let keys = keys();
    let signed = |order: &Order| {
        let mut datagram = order.to_bytes(&keys);
        datagram.truncate(datagram.len() - TAG);
        datagram
    };
    let good = signed(&order());
    assert!(Order::parse(&good).is_some());
    for (at, value) in [
        (0, b'X'), // magic
        (4, 1),    // version
        (5, 3),    // kind
        (6, 1),    // flags
        (7, 0),    // count
        (7, 2),
        (7, 17),
        (48, 65), // length of the name
        (48, 3),
        (49, 0xff), // not UTF-8
        (49, b'\n'),
        (65, 224), // a multicast address
        (69, 3),   // a multicast MAC
    ] {
        let mut changed = good.clone();
        changed[at] = value;
        assert_eq!(Order::parse(&changed), None, "{at}: {value}");
    }
    for cut in 0..good.len() {
        assert_eq!(Order::parse(&good[..cut]), None, "{cut}");
    }
    assert_eq!(Order::parse(&[&good[..], &[0]].concat()), None);
    let twice = Order {
        vips: [order().vips, order().vips].concat(),
        ..order()
    };
    assert_eq!(Order::parse(&signed(&twice)), None);
}

proptest! {
    #[test]
    fn parsing_never_panics(octets in prop::collection::vec(any::<u8>(), 0..900)) {
        let _ = Order::parse(&octets);
        let _ = Answer::parse(&octets);
        let _ = Answer::read(&octets, &keys());
    }

    #[test]
    fn a_parsed_datagram_is_written_unchanged(
        flips in prop::collection::vec((32..150_usize, any::<u8>()), 0..4),
        order_or_answer in any::<bool>(),
    ) {
        let keys = keys();
        let mut datagram = if order_or_answer {
            order().to_bytes(&keys)
        } else {
            answer().to_bytes(&keys)
        };
        datagram.truncate(datagram.len() - TAG);
        for (at, value) in flips {
            if let Some(octet) = datagram.get_mut(at) {
                *octet = value;
            }
        }
        let written = if order_or_answer {
            Order::parse(&datagram).map(|order| order.to_bytes(&keys))
        } else {
            Answer::parse(&datagram).map(|answer| answer.to_bytes(&keys))
        };
        if let Some(written) = written {
            prop_assert_eq!(&written[..written.len() - TAG], &datagram[..]);
        }
    }
}
