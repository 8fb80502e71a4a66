//! Announces a virtual IP (VIP) that keepalived moved, and purges what other hosts remember of its old
//! owner. The `vipherald` command is the product; this library is its parts around `vipherald_core`:
//!
//! - [`cli`], [`settings`]: what the user asks for; [`exit`], [`error`]: what the caller learns
//! - [`commands`]: what each command does; [`announce`], [`check`], [`purge`], [`release`],
//!   [`order`], [`listen`], `fifo`, `watch`: how
//! - [`keepalived_conf`]: keepalived.conf on disk; [`loaded`]: when keepalived read it; [`wiring`]:
//!   which of its scripts run vipherald
//! - [`kernel`]: netlink; [`packet_socket`]: frames; [`answering`]: whether the kernel answers for a
//!   VIP; [`supersede`]: newer runs for the same VIPs; `signals`, `readable`, `descriptors`,
//!   `service`
//! - [`report`], [`logging`], [`journal`]: text, JSON and log lines; [`printable`]: text from elsewhere in one line
//! - `history`: receipts of what the commands did; `moment`: the wall clock
//! - [`privileges`]: what is missing if something is denied; [`regular_file`]: what may be read
//!   without waiting

pub mod announce;
pub mod answering;
mod arp_budget;
pub mod check;
pub mod cli;
pub mod commands;
mod descriptors;
mod driver;
pub mod error;
pub mod exit;
mod fifo;
mod history;
pub mod journal;
pub mod keepalived_conf;
pub mod kernel;
pub mod key_file;
pub mod listen;
pub mod loaded;
pub mod logging;
mod memory;
mod moment;
pub mod order;
pub mod packet_socket;
pub mod printable;
pub mod privileges;
pub mod purge;
mod readable;
pub mod regular_file;
pub mod release;
pub mod report;
mod service;
pub mod settings;
mod signals;
mod stragglers;
pub mod supersede;
mod watch;
pub mod wiring;
