//! The command line.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, StringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use vipherald_core::address::{Mac, WrittenVip};
use vipherald_core::ask::Confirm;
use vipherald_core::event::Subject;

use crate::logging::LogTo;
use crate::moment;
use crate::settings::{checked_peer, checked_rate, checked_seconds, checked_some_seconds};

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

impl Cli {
    /// Reads a command line, whose first word is the program's name.
    ///
    /// Global options may stand before or after the command; the later one wins. clap could do that,
    /// too, with a copy of them for each of the eleven commands: a fifth of the time to the first frame.
    ///
    /// # Errors
    /// If it is wrong, or asks for help.
    pub fn read<Word: Into<OsString> + Clone>(
        words: impl IntoIterator<Item = Word>,
    ) -> Result<Self, clap::Error> {
        let words = event_first(words.into_iter().map(Into::into).collect());
        let mut cli = match Self::of_hook(&words) {
            Some(cli) => cli,
            None => Self::try_parse_from(words)?,
        };
        cli.global.add(cli.command.global());
        let contradiction = |why| Self::command().error(ErrorKind::ArgumentConflict, why);
        cli.command.take_zones().map_err(contradiction)?;
        if let (Command::Check(With { own, .. }), true) = (&cli.command, cli.global.dry_run)
            && own.nagios
        {
            return Err(contradiction(
                "--nagios prints what a check found, and --dry-run does not check".to_owned(),
            ));
        }
        Ok(cli)
    }
}

impl Cli {
    /// The same for hooks that begin with their command, without building the other commands and the
    /// options before it: a twentieth of the time to the first frame. `None` if that is not enough, as
    /// for help and for what is wrong.
    fn of_hook(words: &[OsString]) -> Option<Self> {
        let command = match words.get(1)?.to_str()? {
            "announce" => Command::Announce(alone(words)?),
            "purge" => Command::Purge(alone(words)?),
            "notify" => Command::Notify(alone(words)?),
            _ => return None,
        };
        let global = Global::default();
        Some(Self { command, global })
    }
}

/// Reads the arguments of the command that is the second word.
fn alone<Own: Args>(words: &[OsString]) -> Option<With<Own>> {
    let command = With::<Own>::augment_args(clap::Command::new("vipherald"));
    let mut matches = command.try_get_matches_from(words.get(1..)?).ok()?;
    With::from_arg_matches_mut(&mut matches).ok()
}

/// Moves the event that keepalived appends in front of `--then`, to whose script all words behind it
/// belong: keepalived always appends four.
fn event_first(mut words: Vec<OsString>) -> Vec<OsString> {
    const APPENDED: usize = 4;
    let is_subject = |word: &OsString| {
        let word = word.to_str();
        word.is_some_and(|word| word.parse::<Subject>().is_ok())
    };
    if let Some(then) = words.iter().position(|word| word == "--then")
        && let Some(event) = words.len().checked_sub(APPENDED)
        && event > then + 1
        && is_subject(&words[event])
        && !words[..then].iter().any(is_subject)
    {
        words[then..].rotate_right(APPENDED);
    }
    words
}

// The global options.
#[allow(missing_docs, reason = "clap would print it for each command")]
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// Settings file [default: /etc/vipherald/vipherald.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// keepalived's configuration, for instances and groups [default:
    /// /etc/keepalived/keepalived.conf]
    #[arg(long, value_name = "FILE")]
    keepalived_conf: Option<PathBuf>,
    /// The ID that selects keepalived's `@ID` lines, as keepalived's own option -i [default: the short
    /// host name]
    #[arg(long, value_name = "ID")]
    pub config_id: Option<String>,
    /// Print one JSON object on stdout when done
    #[arg(long)]
    pub json: bool,
    /// Where to log: `stderr`, `syslog` or `file:PATH`; `auto` is syslog if stderr is /dev/null or
    /// closed, as in keepalived's hooks, else stderr [default: auto]
    #[arg(long, value_name = "WHERE", value_parser = LogToParser, hide_possible_values = true)]
    log: Option<LogTo>,
    /// Log more details; given twice, every frame
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Log only warnings and errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print what would be sent or deleted, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Ignore wrong settings with a warning, as `notify`, `fifo`, `watch` and `listen` always do; for
    /// hooks and units
    #[arg(long)]
    pub lenient: bool,
}

impl Global {
    /// keepalived's configuration.
    #[must_use]
    pub fn keepalived_conf(&self) -> &Path {
        let default = || Path::new("/etc/keepalived/keepalived.conf");
        self.keepalived_conf.as_deref().unwrap_or_else(default)
    }

    /// Where messages go, if the command line says so.
    #[must_use]
    pub fn log(&self) -> Option<&LogTo> {
        self.log.as_ref()
    }

    /// Adds the options after the command, which win.
    fn add(&mut self, behind: &Self) {
        let Self {
            config,
            keepalived_conf,
            config_id,
            json,
            log,
            verbose,
            quiet,
            dry_run,
            lenient,
        } = behind.clone();
        self.config = config.or(self.config.take());
        self.keepalived_conf = keepalived_conf.or(self.keepalived_conf.take());
        self.config_id = config_id.or(self.config_id.take());
        self.json |= json;
        self.log = log.or(self.log.take());
        if quiet || verbose > 0 {
            (self.quiet, self.verbose) = (quiet, verbose);
        }
        self.dry_run |= dry_run;
        self.lenient |= lenient;
    }
}

/// Reads `--log`, and lists its values for completions.
#[derive(Clone)]
struct LogToParser;

impl TypedValueParser for LogToParser {
    type Value = LogTo;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<LogTo, clap::Error> {
        let parser = StringValueParser::new().try_map(|text| text.parse());
        parser.parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let all = ["auto", "stderr", "syslog", "file:"];
        Some(Box::new(all.into_iter().map(PossibleValue::new)))
    }
}

/// What to do
///
/// clap builds the options of the given command only: those of all eleven take forty pages of memory, and
/// the first frame would wait for that.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum Command {
    /// Announce VIPs, as their new owner, to every host on their link
    Announce(With<Announce>),
    /// Delete this host's neighbour entries for VIPs that other hosts hold
    Purge(With<Purge>),
    /// Find out who answers for VIPs, and whether everyone follows
    Check(With<Check>),
    /// Do what an event of keepalived calls for: its `notify` appends the arguments
    Notify(With<Notify>),
    /// Do what keepalived's events call for, in order: for `notify_fifo_script`
    Fifo(With<Fifo>),
    /// Announce VIPs when they come to this host and purge them when they leave, whoever moves them
    Watch(With<Watch>),
    /// Show what keepalived.conf means: instances, groups, VIPs, interfaces, peers
    Show(With<Show>),
    /// Obey the orders of a new owner: purge wrong entries, and answer
    Listen(With<Listen>),
    /// Order peers to purge entries for VIPs with another MAC than their owner's
    Order(With<Order>),
    /// Remove VIPs that a dead keepalived left on this host
    Release(With<Release>),
    /// Show what vipherald did on this host: when VIPs moved, who followed when, who did not
    History(With<History>),
    /// Write a key for orders
    Keygen(With<Keygen>),
    /// Copy this program into a directory
    Copy(With<Copy>),
}

impl Command {
    /// Its name on the command line.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Announce(_) => "announce",
            Self::Purge(_) => "purge",
            Self::Check(_) => "check",
            Self::Notify(_) => "notify",
            Self::Fifo(_) => "fifo",
            Self::Watch(_) => "watch",
            Self::Show(_) => "show",
            Self::Listen(_) => "listen",
            Self::Order(_) => "order",
            Self::Release(_) => "release",
            Self::History(_) => "history",
            Self::Keygen(_) => "keygen",
            Self::Copy(_) => "copy",
        }
    }

    /// Takes the interface in a VIP such as `fe80::10%eth0` as `-i`.
    fn take_zones(&mut self) -> Result<(), String> {
        let name = self.name();
        let (vips, interface) = match self {
            Self::Announce(With { own, .. }) => (&own.whose.vips, Some(&mut own.interface)),
            Self::Purge(With { own, .. }) => (&own.whose.vips, Some(&mut own.interface)),
            Self::Check(With { own, .. }) => (&own.which.vips, Some(&mut own.interface)),
            Self::Watch(With { own, .. }) => (&own.vips, Some(&mut own.interface)),
            Self::Order(With { own, .. }) => (&own.whose.vips, None),
            Self::Release(With { own, .. }) => (&own.vips, None),
            Self::History(With { own, .. }) => (&own.vips, None),
            _ => return Ok(()),
        };
        let mut zones = vips.iter().filter_map(|written| {
            let zone = written.zone.as_deref()?;
            Some((written.vip, zone))
        });
        let Some((vip, zone)) = zones.next() else {
            return Ok(());
        };
        if let Some((other, elsewhere)) = zones.find(|(_, other)| *other != zone) {
            return Err(format!(
                "{vip} on {zone} and {other} on {elsewhere}: run the command once for each interface"
            ));
        }
        match interface {
            None => Err(format!(
                "{name} takes no interface: write {vip} instead of {vip}%{zone}"
            )),
            Some(Some(named)) if *named != zone => {
                Err(format!("{vip}%{zone} contradicts -i {named}"))
            }
            Some(interface) => {
                *interface = Some(zone.to_owned());
                Ok(())
            }
        }
    }

    /// The global options after the command.
    fn global(&self) -> &Global {
        match self {
            Self::Announce(With { global, .. })
            | Self::Purge(With { global, .. })
            | Self::Check(With { global, .. })
            | Self::Notify(With { global, .. })
            | Self::Fifo(With { global, .. })
            | Self::Watch(With { global, .. })
            | Self::Show(With { global, .. })
            | Self::Listen(With { global, .. })
            | Self::Order(With { global, .. })
            | Self::Release(With { global, .. })
            | Self::History(With { global, .. })
            | Self::Keygen(With { global, .. })
            | Self::Copy(With { global, .. }) => global,
        }
    }
}

// A command's own arguments, and the global options.
#[allow(missing_docs, reason = "clap would print it for each command")]
#[derive(Args, Debug)]
pub struct With<Own: Args> {
    #[command(flatten)]
    pub own: Own,
    #[command(flatten)]
    global: Global,
}

/// Announce VIPs, as their new owner, to every host on their link
#[derive(Args, Debug)]
pub struct Announce {
    /// Whose VIPs
    #[command(flatten)]
    pub whose: Whose,
    /// Only on this interface [default: every interface that has the VIP]
    #[arg(short, long, value_name = "IF")]
    pub interface: Option<String>,
    /// A peer that must follow, besides the instance's unicast peers; may be repeated
    #[arg(short, long = "peer", value_name = "PEER", value_parser = checked_peer)]
    pub peers: Vec<IpAddr>,
    /// Who must prove that they follow: `peers` are the named ones and the gateways, `all` adds every
    /// neighbour that the kernel knows or a census of IPv6 hosts finds, `subnet` asks every address of
    /// the VIP's IPv4 subnet, at most 1024, besides [default: all]
    #[arg(long, value_name = "WHO", value_parser = confirm())]
    pub confirm: Option<Confirm>,
    /// End after this time at the latest [default: 60]
    #[arg(long, value_name = "SEC", value_parser = parse_some_seconds)]
    pub timeout: Option<Duration>,
    /// Send at most this many frames a second, over all VIPs [default: 2000]
    #[arg(long, value_name = "FPS", value_parser = parse_rate)]
    pub rate: Option<NonZeroU32>,
    /// Send at most this many ARP frames a second on a link; all runs on this host share that
    /// [default: no limit]
    #[arg(long, value_name = "FPS", value_parser = parse_rate)]
    pub arp_rate: Option<NonZeroU32>,
    /// Wait this long for a VIP that is not here yet [default: 1]
    #[arg(long, value_name = "SEC", value_parser = parse_seconds)]
    pub wait: Option<Duration>,
    /// If another host has the VIP, too, probe it every 2 s for this long, and announce again once it
    /// is gone; 0: exit at once with the conflict [default: 600 with --instance and without --timeout,
    /// else 0]
    #[arg(long, value_name = "SEC", value_parser = parse_seconds)]
    pub conflict_watch: Option<Duration>,
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
    /// Repair what is stale: delete and resolve this host's entry or, if the VIP is here, announce it
    ///
    /// Then check again. During a conflict, repair nothing.
    #[arg(long)]
    pub fix: bool,
    /// Repair PERMANENT entries, too
    #[arg(long, requires = "fix")]
    pub permanent: bool,
    /// Ask for at most this long, or twice as long if the VIP is here [default: 1]
    #[arg(long, value_name = "SEC", value_parser = parse_some_seconds)]
    pub wait: Option<Duration>,
    /// Print one line and exit as a monitoring plugin does
    ///
    /// 0 (OK) for ok, 1 (WARNING) for unproven, 2 (CRITICAL) for stale, conflict and unowned, 3
    /// (UNKNOWN) if the check failed.
    #[arg(long, conflicts_with = "json")]
    pub nagios: bool,
}

/// Which VIPs
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// Virtual IPs, IPv4 or IPv6; a prefix length is ignored, and fe80::10%eth0 is fe80::10 with -i eth0
    #[arg(value_name = "VIP")]
    pub vips: Vec<WrittenVip>,
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
    /// Virtual IPs, IPv4 or IPv6; a prefix length is ignored, and fe80::10%eth0 is fe80::10 with -i eth0
    #[arg(value_name = "VIP")]
    pub vips: Vec<WrittenVip>,
    /// The VIPs of this vrrp_instance in keepalived.conf
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
    /// Its VRRP priority, which is ignored
    pub priority: Option<String>,
    /// After BACKUP, name the hosts that still send to the VIPs here, for this long [default: 60 if
    /// keepalived itself runs it, else 0]
    #[arg(long, value_name = "SEC", value_parser = parse_seconds)]
    pub straggler_watch: Option<Duration>,
    /// When the first round is out, also run this script, with these arguments and then keepalived's
    ///
    /// All words that follow belong to the script, except those that keepalived appends. It runs as
    /// keepalived would run it. Nothing waits for it, and its exit status does not matter.
    #[arg(long, value_name = "SCRIPT", num_args = 1.., allow_hyphen_values = true)]
    pub then: Vec<OsString>,
}

/// Do what keepalived's events call for, in order: for `notify_fifo_script`
#[derive(Args, Debug)]
pub struct Fifo {
    /// The FIFO, which keepalived appends to the command
    pub path: PathBuf,
}

/// Announce VIPs when they come to this host and purge them when they leave, whoever moves them
///
/// It runs until SIGTERM. The VIPs that are here when it starts are announced, too.
#[derive(Args, Debug)]
pub struct Watch {
    /// Virtual IPs, IPv4 or IPv6 [default: those of the setting `watch`, and without it --all]
    #[arg(value_name = "VIP", conflicts_with = "all")]
    pub vips: Vec<WrittenVip>,
    /// The VIPs of every vrrp_instance in keepalived.conf, which is read again when it changes, and at
    /// SIGHUP
    #[arg(long)]
    pub all: bool,
    /// Only on this interface [default: on every interface]
    #[arg(short, long, value_name = "IF")]
    pub interface: Option<String>,
}

/// Show what keepalived.conf means: instances, groups, VIPs, interfaces, peers
#[derive(Args, Debug)]
pub struct Show {
    /// Only this vrrp_instance
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
}

/// Obey the orders of a new owner: purge wrong entries, and answer
#[derive(Args, Debug)]
pub struct Listen {
    /// Listen at this address until killed [default: on the sockets that systemd passes]
    #[arg(long, value_name = "ADDR:PORT")]
    pub bind: Option<SocketAddr>,
    /// Exit after this time without a datagram [default: 30; with --bind: never]
    #[arg(long, value_name = "SEC", value_parser = parse_some_seconds)]
    pub idle: Option<Duration>,
}

/// Order peers to purge entries for VIPs with another MAC than their owner's
#[derive(Args, Debug)]
pub struct Order {
    /// Whose VIPs
    #[command(flatten)]
    pub whose: Whose,
    /// A peer to order; may be repeated [default: the instance's unicast peers]
    #[arg(short, long = "peer", value_name = "PEER", value_parser = checked_peer)]
    pub peers: Vec<IpAddr>,
    /// The MAC that the VIPs have [default: that of the interface here that has the VIP]
    #[arg(long, value_name = "MAC")]
    pub mac: Option<Mac>,
    /// Wait for answers for this long [default: 5]
    #[arg(long, value_name = "SEC", value_parser = parse_some_seconds)]
    pub timeout: Option<Duration>,
}

/// Remove VIPs that a dead keepalived left on this host
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct Release {
    /// VIPs of keepalived.conf
    #[arg(value_name = "VIP")]
    pub vips: Vec<WrittenVip>,
    /// All VIPs of keepalived.conf
    #[arg(long)]
    pub all: bool,
}

/// Show what vipherald did on this host: when VIPs moved, who followed when, who did not
#[derive(Args, Debug)]
pub struct History {
    /// Only what is about these VIPs
    #[arg(value_name = "VIP")]
    pub vips: Vec<WrittenVip>,
    /// Only what is about this vrrp_instance or vrrp_sync_group
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// Only what began at this time or later: `2026-11-26`, `2026-11-26 11:17` (UTC), or an age such as
    /// `90s`, `15m`, `2h` or `7d`
    #[arg(long, value_name = "WHEN", value_parser = parse_when, allow_hyphen_values = true)]
    pub since: Option<Duration>,
    /// Only this many receipts, the last ones; with --plot or --svg, announcements [default there: 1]
    #[arg(long, value_name = "N", value_parser = parse_some)]
    pub last: Option<usize>,
    /// List each peer, and when it followed
    #[arg(long, conflicts_with = "plot")]
    pub peers: bool,
    /// Plot the share of peers that follow, over time
    #[arg(long, conflicts_with = "json")]
    pub plot: bool,
    /// Write this plot to a file, as SVG
    #[arg(long, value_name = "FILE", conflicts_with_all = ["plot", "peers"])]
    pub svg: Option<PathBuf>,
}

/// Copy this program into a directory, for keepalived in another container to run
#[derive(Args, Debug)]
pub struct Copy {
    /// The directory, such as a volume that both containers mount
    #[arg(value_name = "DIRECTORY")]
    pub directory: PathBuf,
}

/// Write a key for orders
#[derive(Args, Debug)]
pub struct Keygen {
    /// The file, which must not exist
    #[arg(value_name = "FILE", default_value = "/etc/vipherald/orders.key")]
    pub file: PathBuf,
}

/// The values of `--confirm`, as help and completions list them.
fn confirm() -> impl TypedValueParser<Value = Confirm> {
    let all = PossibleValue::new("all")
        .help("The named peers, gateways, and every neighbour that the kernel knows");
    let peers = PossibleValue::new("peers").help("The named peers, and gateways");
    let subnet = PossibleValue::new("subnet")
        .help("All of these, and every address of the VIP's IPv4 subnet, at most 1024");
    let none = PossibleValue::new("none").help("Nobody");
    PossibleValuesParser::new([all, peers, subnet, none]).map(|chosen| match chosen.as_str() {
        "peers" => Confirm::Peers,
        "subnet" => Confirm::Subnet,
        "none" => Confirm::None,
        _ => Confirm::All,
    })
}

fn parse_rate(text: &str) -> Result<NonZeroU32, String> {
    checked_rate(text.parse().map_err(|_| "not a whole number".to_owned())?)
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    checked_seconds(text.parse().map_err(|_| "not a number".to_owned())?)
}

/// A moment, or an age, as the time since 1970. Ages such as `-15min` are those of journalctl(1).
fn parse_when(text: &str) -> Result<Duration, &'static str> {
    let age = || {
        let age = text.strip_prefix('-').unwrap_or(text);
        let (number, unit) = age.split_at(age.find(|digit: char| !digit.is_ascii_digit())?);
        let seconds = match unit {
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return None,
        };
        let age = number.parse::<u64>().ok()?.checked_mul(seconds)?;
        Some(moment::now().saturating_sub(Duration::from_secs(age)))
    };
    let why = "write 2026-11-26, 2026-11-26 11:17 (UTC), or an age: 90s, 15m, 2h, 7d";
    moment::read(text).or_else(age).ok_or(why)
}

fn parse_some(text: &str) -> Result<usize, &'static str> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or("not a whole number above 0")
}

fn parse_some_seconds(text: &str) -> Result<Duration, String> {
    checked_some_seconds(text.parse().map_err(|_| "not a number".to_owned())?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_command_read_alone_is_read_as_among_the_others() {
        for (line, is_read) in [
            ("notify INSTANCE VI_1 MASTER 100", true),
            ("notify GROUP VG -v BACKUP 0 --lenient --config x", true),
            ("notify INSTANCE VI_1 MASTER 100 --then /s -x", true),
            (
                "announce 192.0.2.10 fe80::10%eth0 -p 192.0.2.1 --timeout 3 --json",
                true,
            ),
            ("announce --instance VI_1 --dry-run -q", true),
            ("purge 192.0.2.10/24 -i eth0 --permanent", true),
            ("purge -- 192.0.2.10", true),
            ("announce", false),
            ("announce 192.0.2.10 --instance VI_1", false),
            ("announce 192.0.2.10 --nonsense", false),
            ("announce 192.0.2.10 -q -v", false),
            ("notify --help", false),
            ("notify --version", false),
            ("purge help", false),
            ("notify INSTANCE", false),
            ("--json purge 192.0.2.10", false),
            ("show", false),
        ] {
            let line = format!("vipherald {line}");
            let words: Vec<_> = line.split_whitespace().map(OsString::from).collect();
            let words = event_first(words);
            let alone = Cli::of_hook(&words).map(|cli| format!("{cli:?}"));
            assert_eq!(alone.is_some(), is_read, "{line}");
            if let Some(alone) = alone {
                let among_others = Cli::try_parse_from(words).unwrap();
                assert_eq!(alone, format!("{among_others:?}"));
            }
        }
    }

    #[test]
    fn a_vips_zone_is_its_interface() {
        let read = |line: &str| {
            let words = format!("vipherald {line}");
            Cli::read(words.split_whitespace()).map_err(|error| error.to_string())
        };
        for line in [
            "check fe80::10%eth0",
            "check fe80::10%eth0/64 fe80::11%eth0 -i eth0",
            "check 192.0.2.10/24 fe80::10%eth0",
            "check -i eth0 192.0.2.10",
        ] {
            let Command::Check(With { own, .. }) = read(line).unwrap().command else {
                panic!("{line}");
            };
            assert_eq!(own.interface.as_deref(), Some("eth0"), "{line}");
        }
        for (line, why) in [
            (
                "purge fe80::10%eth0 -i eth1",
                "fe80::10%eth0 contradicts -i eth1",
            ),
            (
                "announce fe80::10%eth0 fe80::11%eth1",
                "fe80::10 on eth0 and fe80::11 on eth1",
            ),
            ("release fe80::10%eth0", "release takes no interface"),
            (
                "order fe80::10%eth0 -p 192.0.2.1",
                "order takes no interface",
            ),
        ] {
            let told = read(line).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn all_words_behind_then_are_the_scripts_but_those_that_keepalived_appends() {
        let read = |line: &str| {
            let words = format!("vipherald {line}");
            let cli = Cli::read(words.split_whitespace()).unwrap();
            let Command::Notify(With { own, .. }) = cli.command else {
                panic!("{line}");
            };
            let event = format!("{} {} {:?}", own.name, own.state, own.priority);
            let then: Vec<_> = own.then.iter().map(|word| word.to_string_lossy()).collect();
            (event, then.join(" "), cli.global.json)
        };
        let master = r#"V MASTER Some("100")"#.to_owned();
        for (line, expected) in [
            (
                "notify --then /s INSTANCE V MASTER 100",
                (master.clone(), "/s", false),
            ),
            (
                "notify --json --then /s -x --json INSTANCE V MASTER 100",
                (master.clone(), "/s -x --json", true),
            ),
            (
                "notify --then /s INSTANCE GROUP V MASTER 100",
                (master.clone(), "/s INSTANCE", false),
            ),
            (
                "notify INSTANCE V MASTER 100 --then /s a b c d",
                (master.clone(), "/s a b c d", false),
            ),
            (
                "notify INSTANCE V MASTER_RX_LOWER_PRI --then /s",
                ("V MASTER_RX_LOWER_PRI None".to_owned(), "/s", false),
            ),
            ("notify INSTANCE V MASTER 100", (master.clone(), "", false)),
        ] {
            let (event, then, json) = expected;
            assert_eq!(read(line), (event, then.to_owned(), json), "{line}");
        }
        for wrong in ["notify --then /s", "notify --then INSTANCE V MASTER 100"] {
            let words = format!("vipherald {wrong}");
            assert!(Cli::read(words.split_whitespace()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn global_options_may_stand_before_or_after_the_command_and_the_later_one_wins() {
        let global = |line: &str| {
            let words = format!("vipherald {line}");
            Cli::read(words.split_whitespace()).unwrap().global
        };
        for line in [
            "--json --config a --keepalived-conf b --config-id c --log stderr --dry-run -v show",
            "show --json --config a --keepalived-conf b --config-id c --log stderr --dry-run -v",
            "--config x --keepalived-conf x --config-id x --log auto -q show --json --config a \
             --keepalived-conf b --config-id c --log stderr --dry-run -v",
        ] {
            let global = global(line);
            assert_eq!(global.config.as_deref(), Some(Path::new("a")), "{line}");
            assert_eq!(global.keepalived_conf(), Path::new("b"), "{line}");
            assert_eq!(global.config_id.as_deref(), Some("c"), "{line}");
            assert_eq!(global.log(), Some(&LogTo::Stderr), "{line}");
            assert!(global.json && global.dry_run, "{line}");
            assert_eq!((global.quiet, global.verbose), (false, 1), "{line}");
        }
        assert!(global("-vv show --quiet").quiet);
        assert_eq!(global("-vv show").verbose, 2);
        assert_eq!(global("show").log(), None);
    }
}
