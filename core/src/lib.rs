//! What vipherald decides, and nothing that it does: no socket, no clock, no file, no randomness. The
//! shell hands over the time, the frames and the kernel's word, and carries out the result.
//!
//! - [`event`]: what keepalived says happened; [`keepalived`]: what keepalived.conf means
//! - [`address`], [`host`]: what this host has, as plain data, and where a VIP counts as held
//! - [`wire`]: the frames, octet by octet
//! - [`ask`]: who is asked what, and what answers prove
//! - [`announce`]: when what is sent for a VIP that is here
//! - [`watch`]: what a resident does when VIPs come and go
//! - [`order`]: authenticated requests that other hosts purge
//! - [`stragglers`]: who still sends to a VIP that has left
//! - [`log_limit`]: how often something is logged that anybody can trigger
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests tell the time")
)]

pub mod address;
pub mod announce;
pub mod ask;
pub mod event;
pub mod host;
pub mod keepalived;
pub mod log_limit;
pub mod order;
pub mod stragglers;
pub mod watch;
pub mod wire;
