//! Any octets as an order or a report: no panic, nothing is obeyed that no key signed, and what can be
//! read is written and read again as the same.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use vipherald_core::order::Keys;
use vipherald_core::order::admission::{Admission, Decision};
use vipherald_core::order::message::{ORDER_LENGTH, Order, TAG};
use vipherald_core::order::report::Report;

const NOW: u64 = 1_700_000_000_000;

fuzz_target!(|octets: &[u8]| {
    let keys = Keys::from_octets(&[b'k'; 32], "").expect("it is long enough");
    let from = "192.0.2.2:4000".parse().expect("an address");
    let mut admission = Admission::new(keys.clone(), Duration::from_secs(30));
    // As it came in: nobody signed it.
    assert!(matches!(
        admission.decide(NOW, from, octets),
        Decision::Dropped(_)
    ));
    // And as if who holds the key had.
    let mut signed = octets.to_vec();
    keys.sign(&mut signed);
    let (order, report) = (Order::parse(octets), Report::parse(octets));
    match admission.decide(NOW, from, &signed) {
        Decision::New(ruled) => {
            assert!(ruled.time.abs_diff(NOW) <= 30_000);
            assert_eq!(Some(ruled), order);
        }
        Decision::OutOfTime(ruled, skew) => {
            assert!(skew.unsigned_abs() > 30_000);
            assert_eq!(Some(ruled), order);
        }
        Decision::Report(ruled) => {
            assert!(ruled.time.abs_diff(NOW) <= 30_000);
            assert_eq!(Some(ruled), report);
        }
        Decision::Dropped(_) => assert!(order.is_none() || signed.len() > ORDER_LENGTH.1),
        other => panic!("{other:?}"),
    }
    if let Some(order) = order {
        let written = order.to_bytes(&keys);
        assert_eq!(&written[..written.len() - TAG], octets);
    }
    if let Some(report) = Report::parse(octets) {
        let written = report.to_bytes(&keys);
        assert_eq!(&written[..written.len() - TAG], octets);
    }
});
