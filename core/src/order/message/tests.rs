use proptest::prelude::*;

use super::*;

/// As in docs/orders.md: 32 octets of `k`.
fn keys() -> Keys {
    Keys::from_octets(&[b'k'; 32]).unwrap()
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

/// The block of docs/orders.md that begins with these words.
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
fn an_order_is_written_and_read_as_documented() {
    let datagram = order().to_bytes(&keys());
    assert_eq!(hexadecimal(&datagram), documented("order"));
    let keys = keys();
    let signed = keys.authenticate(&datagram).unwrap();
    assert_eq!(Order::parse(signed), Some(order()));
}

#[test]
fn an_answer_is_written_and_read_as_documented() {
    let datagram = answer().to_bytes(&keys());
    assert_eq!(hexadecimal(&datagram), documented("answer"));
    assert_eq!(Answer::read(&datagram, &keys()), Some(answer()));
}

#[test]
fn an_order_is_no_answer_and_an_answer_no_order() {
    let (keys, other) = (keys(), Keys::from_octets(&[b'o'; 32]).unwrap());
    let (order, answer) = (order().to_bytes(&keys), answer().to_bytes(&keys));
    assert_eq!(Answer::read(&order, &keys), None);
    assert!(!Order::is_begun_by(&answer));
    assert_eq!(Order::parse(keys.authenticate(&answer).unwrap()), None);
    assert_eq!(Answer::read(&answer, &other), None);
}

#[test]
fn the_longest_are_as_long_as_is_said_and_fit_a_datagram_of_any_link() {
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
    // IPv6's least MTU (RFC 8200 §5), without its header and UDP's.
    assert!(ANSWER_LENGTH.1 <= 1280 - 48);
    let short = Order {
        instance: String::new(),
        ..order()
    };
    assert_eq!(short.to_bytes(&keys).len(), ORDER_LENGTH.0);
    assert_eq!(answer().to_bytes(&keys).len(), ANSWER_LENGTH.0);
}

#[test]
fn every_outcome_is_told() {
    let simple = [
        Outcome::Purged,
        Outcome::Right,
        Outcome::Absent,
        Outcome::Released,
    ];
    let kept = REASONS.map(Outcome::Kept);
    let refused = REASONS.map(Outcome::Refused);
    for outcome in simple.into_iter().chain(kept).chain(refused) {
        let mut told = answer();
        told.done[0].outcome = outcome;
        let read = Answer::read(&told.to_bytes(&keys()), &keys());
        assert_eq!(read, Some(told));
    }
}

#[test]
fn an_answer_tells_of_a_vip_once_and_names_an_interface_of_the_kernels() {
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
fn a_long_name_is_cut_between_characters() {
    let long = Order {
        instance: format!("a{}", "é".repeat(40)),
        ..order()
    };
    let datagram = long.to_bytes(&keys());
    let read = Order::parse(keys().authenticate(&datagram).unwrap()).unwrap();
    assert_eq!(read.instance, format!("a{}", "é".repeat(31)));
}

#[test]
fn what_an_order_can_not_mean_is_refused_though_it_is_signed() {
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
        (4, 2),    // version
        (5, 3),    // kind
        (6, 1),    // flags
        (7, 0),    // count
        (7, 2),
        (7, 17),
        (48, 65), // length of the name
        (48, 3),
        (49, 0xff), // not UTF-8
        (49, b'\n'),
        (65, 224), // a VIP that is none
        (69, 3),   // the MAC of a group
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
    fn any_octets_are_read_without_a_panic(octets in prop::collection::vec(any::<u8>(), 0..900)) {
        let _ = Order::parse(&octets);
        let _ = Answer::parse(&octets);
        let _ = Answer::read(&octets, &keys());
    }

    #[test]
    fn what_is_read_is_written_as_it_was(
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
