//! Announces a virtual IP that keepalived moved, and purges what other hosts remember of its
//! old owner. The `vipherald` command is the product; this library is its rooms:
//!
//! - [`cli`], [`settings`], [`event`]: what the user or keepalived asked for; [`exit`], [`error`]: what the caller learns
//! - [`commands`]: what each command does; [`announce`], [`purge`], [`check`], [`order`],
//!   [`orphan`]: how
//! - [`keepalived`]: what keepalived.conf says; [`wiring`]: whether keepalived's scripts run
//!   vipherald; [`loaded`]: when keepalived read its files
//! - [`host`]: where a VIP counts as held; [`answering`]: whether the kernel answers for it there
//! - [`kernel`]: what the kernel says; [`wire`]: frames; [`port`]: where frames leave
//! - [`report`], [`logging`]: what happened, as text, JSON and log lines; [`printable`]: as one line
//! - [`privileges`]: what is missing where something is refused; [`regular_file`]: what may be read
//!   without waiting

pub mod announce;
pub mod answering;
pub mod check;
pub mod cli;
pub mod commands;
mod descriptors;
mod driver;
pub mod error;
pub mod exit;
mod fifo;
pub mod keepalived_conf;
pub mod kernel;
pub mod key_file;
pub mod loaded;
pub mod logging;
pub mod order;
pub mod packet_socket;
pub mod printable;
pub mod privileges;
pub mod purge;
mod readable;
pub mod regular_file;
pub mod release;
pub mod report;
pub mod settings;
mod signals;
pub mod supersede;
pub mod wiring;
