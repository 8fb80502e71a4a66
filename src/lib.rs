//! Announces a virtual IP that keepalived moved, and purges what other hosts remember of its
//! old owner. The command line in `main.rs` is the product; this library is its rooms.

pub mod address;
pub mod keepalived;
