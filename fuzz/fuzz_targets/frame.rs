//! Any octets as a frame: no panic, and what can be read is written and read again as the same. What is
//! no frame of ours may be an advert.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vipherald_core::wire::{Advert, Frame};

fuzz_target!(|octets: &[u8]| {
    if let Some(frame) = Frame::parse(octets) {
        assert_eq!(Frame::parse(&frame.to_bytes()), Some(frame));
        assert_eq!(Advert::parse(octets), None);
    }
});
