//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::address::{Mac, Vip};
use crate::announce::Confirm;
use crate::event::Subject;
use crate::settings::{checked_rate, checked_seconds, checked_some_seconds};

/// Announces a keepalived virtual IP when it moves, and purges what hosts remember of its old
/// owner
#[derive(Debug, Parser)]
#[command(name = "vipherald", version, max_term_width = 100)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
    /// What every command takes
    #[command(flatten)]
    pub global: Global,
}

/// What every command takes
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Settings file [default: /etc/vipherald/vipherald.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// keepalived's configuration, for instances and groups
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "/etc/keepalived/keepalived.conf"
    )]
    pub keepalived_conf: PathBuf,
    /// The ID that keepalived's `@ID` lines are compared with, as its own option -i [default: the
    /// short host name]
    #[arg(long, global = true, value_name = "ID")]
    pub config_id: Option<String>,
    /// Print one JSON object on stdout when done
    #[arg(long, global = true)]
    pub json: bool,
    /// Where messages go: `auto` is stderr on a terminal or in a systemd unit, else syslog
    #[arg(
        long,
        global = true,
        value_name = "WHERE",
        value_enum,
        default_value = "auto"
    )]
    pub log: LogTo,
    /// Say more; twice: every frame
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Say only what is wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say what would be sent or deleted, and do nothing
    #[arg(long, global = true)]
    pub dry_run: bool,
}

/// Where messages go
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogTo {
    /// stderr when it is a terminal or the journal, else syslog
    Auto,
    /// stderr
    Stderr,
    /// The local syslog daemon
    Syslog,
}

/// What to do
///
/// The options of a command are put together only when it is the one asked for: those of ten take
/// forty pages of memory, which the first frame would wait for.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum Command {
    /// As their new owner, announce VIPs to every host of their link
    Announce(Announce),
    /// Delete this host's neighbour entries for VIPs that other hosts hold
    Purge(Purge),
    /// Find out who answers for VIPs, and whether everyone follows
    Check(Check),
    /// Do what an event of keepalived calls for: its `notify` appends the arguments
    Notify(Notify),
    /// Do what keepalived's events call for, in order: for `notify_fifo_script`
    Fifo(Fifo),
    /// Show what keepalived.conf means: instances, groups, VIPs, interfaces, peers
    Show(Show),
    /// Carry out the orders of a new owner: purge what contradicts it, and answer
    Listen(Listen),
    /// Order peers to purge what they have for VIPs other than their owner's MAC
    Order(Order),
    /// Let go of VIPs that a dead keepalived has left on this host
    Release(Release),
    /// Write a key for orders
    Keygen(Keygen),
}

/// As their new owner, announce VIPs to every host of their link
#[derive(Args, Debug)]
pub struct Announce {
    /// Whose VIPs
    #[command(flatten)]
    pub whose: Whose,
    /// Only on this interface [default: wherever the VIP is]
    #[arg(short, long, value_name = "IF")]
    pub interface: Option<String>,
    /// A peer that must follow; may be given several times
    #[arg(short, long = "peer", value_name = "PEER")]
    pub peers: Vec<IpAddr>,
    /// Who is asked to prove that they follow: `peers` are those named and the gateways, `all`
    /// every neighbour the kernel knows, too [default: all]
    #[arg(long, value_name = "WHO", value_enum)]
    pub confirm: Option<Confirm>,
    /// End after this time at the latest [default: 60]
    #[arg(long, value_name = "SEC", value_parser = parse_some_seconds)]
    pub timeout: Option<Duration>,
    /// Send at most this many frames a second, over all VIPs [default: 2000]
    #[arg(long, value_name = "FPS", value_parser = parse_rate)]
    pub rate: Option<NonZeroU32>,
    /// Wait this long for a VIP that is not here yet [default: 1]
    #[arg(long, value_name = "SEC", value_parser = parse_seconds)]
    pub wait: Option<Duration>,
}

/// Delete this host's neighbour entries for VIPs that other hosts hold
#[derive(Args, Debug)]
pub struct Purge {
    /// Whose VIPs
    #[command(flatten)]
    pub whose: Whose,
    /// Only on this interface [default: on every interface]
    #[arg(short, long, value_name = "IF")]
    pub interface: Option<String>,
    /// Delete PERMANENT entries, too
    #[arg(long)]
    pub permanent: bool,
}

/// Find out who answers for VIPs, and whether everyone follows
#[derive(Args, Debug)]
pub struct Check {
    /// Which VIPs
    #[command(flatten)]
    pub which: Which,
    /// Ask for VIPs of other hosts on this interface [default: where the route to the VIP leads]
    #[arg(short, long, value_name = "IF")]
    pub interface: Option<String>,
    /// Mend what is stale: resolve this host's entry anew or, where the VIP is here, announce it
    ///
    /// Then check again. In a conflict nothing is mended.
    #[arg(long)]
    pub fix: bool,
    /// Mend PERMANENT entries, too
    #[arg(long, requires = "fix")]
    pub permanent: bool,
    /// Ask for this long at most, and for twice as long where the VIP is here [default: 1]
    #[arg(long, value_name = "SEC", value_parser = parse_some_seconds)]
    pub wait: Option<Duration>,
    /// Print one line and exit as a monitoring plugin does
    ///
    /// 0 (OK) for ok, 1 (WARNING) for unproven, 2 (CRITICAL) for stale, conflict and unowned, 3
    /// (UNKNOWN) for what could not be asked.
    #[arg(long, conflicts_with = "json")]
    pub nagios: bool,
}

/// Which VIPs
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// Virtual IPs, IPv4 or IPv6
    #[arg(value_name = "VIP")]
    pub vips: Vec<Vip>,
    /// The VIPs of this vrrp_instance in keepalived.conf
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// The VIPs of every vrrp_instance in keepalived.conf
    #[arg(long)]
    pub all: bool,
}

/// Whose VIPs
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct Whose {
    /// Virtual IPs, IPv4 or IPv6
    #[arg(value_name = "VIP")]
    pub vips: Vec<Vip>,
    /// The VIPs of this vrrp_instance in keepalived.conf; its unicast peers are peers that must
    /// follow
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
}

/// Do what an event of keepalived calls for: its `notify` appends the arguments
#[derive(Args, Debug)]
pub struct Notify {
    /// Whether an instance or a sync group changed
    #[arg(value_name = "INSTANCE|GROUP")]
    pub of: Subject,
    /// Its name in keepalived.conf
    pub name: String,
    /// What it is now, such as MASTER
    pub state: String,
    /// Its VRRP priority, which is not used
    pub priority: Option<String>,
}

/// Do what keepalived's events call for, in order: for `notify_fifo_script`
#[derive(Args, Debug)]
pub struct Fifo {
    /// The FIFO, which keepalived appends to the command
    pub path: PathBuf,
}

/// Show what keepalived.conf means: instances, groups, VIPs, interfaces, peers
#[derive(Args, Debug)]
pub struct Show {
    /// Only this vrrp_instance
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
}

/// Carry out the orders of a new owner: purge what contradicts it, and answer
#[derive(Args, Debug)]
pub struct Listen {
    /// Listen here, for good [default: at the sockets that systemd hands over]
    #[arg(long, value_name = "ADDR:PORT")]
    pub bind: Option<SocketAddr>,
    /// End after this time without a datagram [default: 30; with --bind: stay]
    #[arg(long, value_name = "SEC", value_parser = parse_some_seconds)]
    pub idle: Option<Duration>,
}

/// Order peers to purge what they have for VIPs other than their owner's MAC
#[derive(Args, Debug)]
pub struct Order {
    /// Whose VIPs
    #[command(flatten)]
    pub whose: Whose,
    /// A peer to order; may be given several times [default: the instance's unicast peers]
    #[arg(short, long = "peer", value_name = "PEER")]
    pub peers: Vec<IpAddr>,
    /// The MAC that the VIPs have [default: that of the interface that holds each here]
    #[arg(long, value_name = "MAC")]
    pub mac: Option<Mac>,
    /// Ask for an answer for this long [default: 5]
    #[arg(long, value_name = "SEC", value_parser = parse_some_seconds)]
    pub timeout: Option<Duration>,
}

/// Let go of VIPs that a dead keepalived has left on this host
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct Release {
    /// VIPs of keepalived.conf
    #[arg(value_name = "VIP")]
    pub vips: Vec<Vip>,
    /// All VIPs of keepalived.conf
    #[arg(long)]
    pub all: bool,
}

/// Write a key for orders
#[derive(Args, Debug)]
pub struct Keygen {
    /// The file, which must not exist
    #[arg(value_name = "FILE", default_value = "/etc/vipherald/orders.key")]
    pub file: PathBuf,
}

fn parse_rate(text: &str) -> Result<NonZeroU32, String> {
    checked_rate(text.parse().map_err(|_| "not a whole number".to_owned())?)
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    checked_seconds(text.parse().map_err(|_| "not a number".to_owned())?)
}

fn parse_some_seconds(text: &str) -> Result<Duration, String> {
    checked_some_seconds(text.parse().map_err(|_| "not a number".to_owned())?)
}
