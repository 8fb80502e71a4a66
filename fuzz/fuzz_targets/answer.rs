//! Any octets as an answer: no panic, none counts that no key signed, and what can be read is
//! written and read again as the same.

#![no_main]

use std::net::IpAddr;
use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use vipherald_core::address::{InterfaceIndex, Mac};
use vipherald_core::order::Keys;
use vipherald_core::order::message::{Answer, TAG};
use vipherald_core::order::outbox::{Outbox, Retry, Route};

const ID: [u8; 16] = *b"0123456789abcdef";

fuzz_target!(|octets: &[u8]| {
    let keys = Keys::from_octets(&[b'k'; 32], "").expect("it is long enough");
    let mut signed = octets.to_vec();
    keys.sign(&mut signed);
    let answer = Answer::parse(octets);
    if let Some(answer) = &answer {
        let written = answer.to_bytes(&keys);
        assert_eq!(&written[..written.len() - TAG], octets);
        assert_eq!(Answer::read(&written, &keys).as_ref(), Some(answer));
    }
    // To a outbox that has one order out.
    let now = Instant::now();
    let mut outbox = Outbox::new(keys, String::new());
    let peer = IpAddr::from([192, 0, 2, 3]);
    let route = Route {
        to: peer,
        from: None,
        interface: InterfaceIndex(2),
    };
    let vip = "192.0.2.10".parse().expect("a VIP");
    let mac = Mac::new([2, 0, 0, 0, 0, 2]);
    outbox.request(now, route, Retry::UntilTimeout, (vip, mac));
    let _ = outbox
        .poll(now, 1_700_000_000_000, || ID)
        .expect("it is due");
    assert!(
        outbox.on_answer(peer, octets).is_empty(),
        "nobody signed it"
    );
    let heard = outbox.on_answer(peer, &signed);
    let fits = |answer: &Answer| answer.id == ID && answer.done.iter().map(|d| d.vip).eq([vip]);
    assert!(heard.is_empty() || answer.as_ref().is_some_and(fits));
    assert!(heard.len() <= 1);
});
