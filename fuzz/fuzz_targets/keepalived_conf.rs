//! Any bytes as keepalived.conf: no panic, no endless loop, and answers that hold together.
//!
//! A line `----` starts another file; the first is `/k`, the others are `/a`, `/b` and so on, so
//! that `include a` reaches them.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use vipherald_core::keepalived::{Memory, Options, read};

fuzz_target!(|input: &[u8]| {
    let mut files = Memory::default();
    let mut rest = input;
    for name in "kabcdef".chars() {
        let separator = rest.windows(6).position(|window| window == b"\n----\n");
        let (contents, after) = match separator {
            Some(at) => (&rest[..=at], &rest[at + 6..]),
            None => (rest, &rest[rest.len()..]),
        };
        files = files.with(format!("/{name}"), contents);
        rest = after;
    }
    for config_id in [None, Some("a".to_owned())] {
        let options = Options {
            config_id,
            assumed_id: None,
        };
        let read = read(&files, Path::new("/k"), &options).expect("/k is there");
        for instance in read.instances() {
            let found = read.instance(&instance.name).expect("it is in the list");
            assert_eq!(found, instance, "names are unique");
            for address in instance.addresses() {
                let longest = if address.address.is_ipv4() { 32 } else { 128 };
                assert!(address.prefix_len <= longest);
            }
        }
        for group in read.groups() {
            assert!(!group.instances.is_empty());
            assert_eq!(read.group(&group.name).expect("it is in the list"), group);
        }
        for warning in read.warnings() {
            assert!(!warning.to_string().contains('\0'));
        }
    }
});
