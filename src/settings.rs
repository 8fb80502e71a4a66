//! The settings: `/etc/vipherald/vipherald.toml`, overridden by the command line.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use vipherald_core::address::Vip;
use vipherald_core::ask::Confirm;
use vipherald_core::order::admission::Allowed;
use vipherald_core::order::message::PORT;

use crate::logging::LogTo;
use crate::privileges::advice_on_file;
use crate::regular_file;

/// Where the settings are, unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/vipherald/vipherald.toml";
/// Where receipts are, unless the settings or systemd say otherwise.
pub(crate) const DEFAULT_HISTORY_DIR: &str = "/var/lib/vipherald";
/// The highest rate that makes sense: one frame per microsecond.
pub const MAX_RATE: u32 = 1_000_000;
/// The file may have this many octets.
const LONGEST: u64 = 1 << 20;
/// No run lasts longer than a day.
pub const MAX_SECONDS: f64 = 86_400.0;

/// What can be set.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Frames per second, for all VIPs of a run.
    #[serde(deserialize_with = "rate")]
    pub rate: NonZeroU32,
    /// ARP frames per second and link, for all runs on this host.
    #[serde(deserialize_with = "some_rate")]
    pub arp_rate: Option<NonZeroU32>,
    /// Peers that must follow, if they are on a VIP's link.
    #[serde(deserialize_with = "addresses")]
    pub peers: Vec<IpAddr>,
    /// Who else is asked.
    pub confirm: Confirm,
    /// Whether to look for IPv6 hosts with an echo to all nodes.
    pub census: bool,
    /// The longest an announcement may last.
    #[serde(deserialize_with = "seconds")]
    pub timeout: Duration,
    /// How long to probe again and again while an instance's VIP has another owner.
    #[serde(deserialize_with = "seconds_or_none")]
    pub conflict_watch: Duration,
    /// How long to look for hosts that still send to a VIP which has left.
    #[serde(deserialize_with = "seconds_or_none")]
    pub straggler_watch: Duration,
    /// How long to wait for a VIP that is not here yet.
    #[serde(deserialize_with = "seconds_or_none")]
    pub wait: Duration,
    /// What `watch` watches if the command line names nothing; empty: the VIPs of keepalived.conf.
    #[serde(deserialize_with = "vips")]
    pub watch: Vec<Vip>,
    /// Where to log, unless the command line says it.
    #[serde(deserialize_with = "place")]
    pub log: LogTo,
    /// Whether to keep receipts.
    pub history: bool,
    /// Where receipts are.
    pub history_dir: PathBuf,
    /// The file for node_exporter; empty: none.
    metrics_file: PathBuf,
    /// Sending and obeying orders.
    pub orders: Orders,
}

/// The table `[orders]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Orders {
    /// The key files; the first one signs. None: no orders.
    #[serde(rename = "key_file", deserialize_with = "one_or_more")]
    pub key_files: Vec<PathBuf>,
    /// The network's name, which is mixed into the keys.
    pub site: String,
    /// The UDP port that orders go to.
    pub port: NonZeroU16,
    /// How far the clock of an order's sender may be from this host's.
    #[serde(deserialize_with = "seconds")]
    pub window: Duration,
    /// Which addresses orders may be about, besides the VIPs of keepalived.conf.
    pub allow: Vec<Allowed>,
    /// Whether to purge PERMANENT entries, too.
    pub permanent: bool,
    /// Whether an announcement also broadcasts one order to everyone on the link.
    pub broadcast: bool,
    /// Whether this host releases a VIP that a dead keepalived left on it.
    pub release_orphan: bool,
    /// More PID files by which a living keepalived is recognised.
    pub pid_files: Vec<PathBuf>,
    /// How long `listen` stays after the last order.
    #[serde(deserialize_with = "seconds")]
    pub idle: Duration,
}

impl Orders {
    /// Whether there is a key; without one, this host neither sends nor obeys orders.
    #[must_use]
    pub fn has_key(&self) -> bool {
        !self.key_files.is_empty()
    }
}

impl Default for Orders {
    fn default() -> Self {
        Self {
            key_files: Vec::new(),
            site: String::new(),
            port: NonZeroU16::MIN.saturating_add(PORT - 1),
            window: Duration::from_secs(30),
            allow: vec![Allowed::Links],
            permanent: false,
            broadcast: false,
            release_orphan: false,
            pid_files: Vec::new(),
            idle: Duration::from_secs(30),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rate: NonZeroU32::MIN.saturating_add(1999),
            arp_rate: None,
            peers: Vec::new(),
            confirm: Confirm::All,
            census: true,
            timeout: Duration::from_secs(60),
            wait: Duration::from_secs(1),
            conflict_watch: Duration::from_secs(600),
            straggler_watch: Duration::from_secs(60),
            watch: Vec::new(),
            log: LogTo::Auto,
            history: true,
            history_dir: DEFAULT_HISTORY_DIR.into(),
            metrics_file: PathBuf::new(),
            orders: Orders::default(),
        }
    }
}

/// Why the settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is there, or was named, but can't be read.
    #[error("cannot read the settings {}: {source}{}", path.display(), advice_on_file(.source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{}:{line}: {reason}, in `{text}`", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// That line's text.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Settings {
    /// Reads the file named, or else the default one, which may be missing.
    ///
    /// # Errors
    /// If the file can't be read, has a key that is not known, or a value of the wrong type.
    pub fn read(named: Option<&Path>) -> Result<Self, Error> {
        let path = named.unwrap_or(Path::new(DEFAULT_PATH));
        match regular_file::read_to_string(path, LONGEST) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(source) => Err(Error::Unreadable {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// What is usable of a file for which [`Settings::read`] returned `error`. The warnings say what is
    /// not, and what is used instead.
    #[must_use]
    pub fn read_leniently(named: Option<&Path>, error: &Error) -> (Self, Vec<String>) {
        let path = named.unwrap_or(Path::new(DEFAULT_PATH));
        match regular_file::read_to_string(path, LONGEST) {
            Ok(text) => Self::parse_leniently(&text, path),
            Err(_) => {
                let told = format!("{error}; the defaults are used");
                (Self::default(), vec![told])
            }
        }
    }

    /// Where the metrics go, if anywhere.
    #[must_use]
    pub fn metrics_file(&self) -> Option<&Path> {
        (!self.metrics_file.as_os_str().is_empty()).then_some(&self.metrics_file)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        toml::from_str(text).map_err(|error| wrong(&error, text, path))
    }

    /// Drops each wrong key and keeps the others. What is no TOML has no keys: of such a file, only what
    /// precedes that line counts.
    fn parse_leniently(text: &str, path: &Path) -> (Self, Vec<String>) {
        let mut told = Vec::new();
        let (mut keys, lost) = beginning(text);
        if let Some(error) = lost {
            let error = wrong(&error, text, path);
            told.push(format!("{error}; the defaults are used for what follows"));
        }
        let mut dropped = BTreeMap::new();
        let mut settings = loop {
            let error = match Self::deserialize(toml::Deserializer::from(keys.clone())) {
                Ok(settings) => break settings,
                Err(error) => error,
            };
            let instead = match drop_key(keys.get_mut(), start(&error)) {
                Some(key) => default_of(&key).map_or("ignored".to_owned(), |default| {
                    format!("the default is used: {default}")
                }),
                // Every error is about a key. If one is not, rely on nothing.
                None => {
                    keys.get_mut().clear();
                    "the defaults are used".to_owned()
                }
            };
            dropped.insert(
                start(&error),
                format!("{}; {instead}", wrong(&error, text, path)),
            );
        };
        // In the order of the file.
        told.splice(0..0, dropped.into_values());
        // A dropped key may have said how else to recognise a living keepalived.
        if settings.orders.release_orphan && !told.is_empty() {
            settings.orders.release_orphan = false;
            told.push(format!(
                "{}: until that is corrected, no VIP is released: orders.release_orphan = false",
                path.display()
            ));
        }
        (settings, told)
    }
}

/// The lines of a file before the one where it stops being TOML, and what is wrong there.
fn beginning(text: &str) -> (Spanned<DeTable<'_>>, Option<toml::de::Error>) {
    /// An unclosed list or string may begin this many lines before the parser notices.
    const MOST_LINES: usize = 100;
    let mut first = None;
    let mut end = text.len();
    for _ in 0..MOST_LINES {
        match DeTable::parse(&text[..end]) {
            Ok(keys) => return (keys, first),
            Err(error) => {
                let at = start(&error).min(end.saturating_sub(1));
                let before = text.get(..at).unwrap_or_default();
                end = before.rfind('\n').map_or(0, |newline| newline + 1);
                first.get_or_insert(error);
            }
        }
    }
    (Spanned::new(0..0, DeTable::new()), first)
}

/// Removes the key that covers the octet `at`, itself or with its value. Returns its name.
fn drop_key(keys: &mut DeTable<'_>, at: usize) -> Option<String> {
    for value in keys.iter_mut().map(|(_, value)| value.get_mut()) {
        if let DeValue::Table(table) = value
            && let Some(dropped) = drop_key(table, at)
        {
            return Some(dropped);
        }
    }
    let spans = |(key, value): &(&Spanned<_>, &Spanned<_>)| {
        key.span().contains(&at) || value.span().contains(&at)
    };
    let name = keys.iter().find(spans)?.0.get_ref().to_string();
    keys.remove(name.as_str());
    Some(name)
}

/// The line that sets a key to its default.
fn default_of(key: &str) -> Option<&'static str> {
    // Every key is in there, with its default (`the_example_settings_are_all_there_are_at_their_defaults`).
    const EXAMPLE: &str = include_str!("../examples/vipherald.toml");
    EXAMPLE
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .find(|line| {
            line.strip_prefix(key)
                .is_some_and(|rest| rest.starts_with(" = "))
        })
}

fn start(error: &toml::de::Error) -> usize {
    error.span().map_or(0, |span| span.start)
}

fn wrong(error: &toml::de::Error, text: &str, path: &Path) -> Error {
    let at = start(error).min(text.len());
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count();
    Error::Wrong {
        path: path.to_owned(),
        line: line + 1,
        text: text.lines().nth(line).unwrap_or_default().trim().to_owned(),
        reason: error.message().replace('\n', " "),
    }
}

/// Checks a rate, from the command line or the settings.
///
/// # Errors
/// Says what a rate must be.
pub fn checked_rate(rate: u32) -> Result<NonZeroU32, String> {
    NonZeroU32::new(rate)
        .filter(|rate| rate.get() <= MAX_RATE)
        .ok_or_else(|| format!("a rate is from 1 to {MAX_RATE} frames a second"))
}

/// Checks a number of seconds, which may have a fraction.
///
/// # Errors
/// Says what a number of seconds must be.
pub fn checked_seconds(seconds: f64) -> Result<Duration, String> {
    if (0.0..=MAX_SECONDS).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(format!("seconds are from 0 to {MAX_SECONDS}"))
    }
}

/// Checks a number of seconds that must not be 0.
///
/// # Errors
/// Says what it must be.
pub fn checked_some_seconds(seconds: f64) -> Result<Duration, String> {
    match checked_seconds(seconds)? {
        Duration::ZERO => Err("it must be more than 0 seconds".to_owned()),
        duration => Ok(duration),
    }
}

/// Parses the address of a peer.
///
/// # Errors
/// If it is none, such as a name.
pub fn checked_peer(text: &str) -> Result<IpAddr, &'static str> {
    let why = "not an IPv4 or IPv6 address: give a peer by its address, not by a name";
    text.parse().map_err(|_| why)
}

fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    struct Peer(IpAddr);
    struct Text;
    impl<'de> Deserialize<'de> for Peer {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_str(Text)
        }
    }
    // The error of a visitor gets the place of the text that is wrong.
    impl Visitor<'_> for Text {
        type Value = Peer;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an IP address as a string")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Peer, E> {
            checked_peer(text).map(Peer).map_err(E::custom)
        }
    }
    let peers = Vec::<Peer>::deserialize(deserializer)?;
    Ok(peers.into_iter().map(|Peer(ip)| ip).collect())
}

fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroU32, D::Error> {
    checked_rate(u32::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// Zero: no limit.
fn some_rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU32>, D::Error> {
    let rate = u32::deserialize(deserializer)?;
    let limit = (rate > 0).then(|| checked_rate(rate));
    limit.transpose().map_err(de::Error::custom)
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    checked_some_seconds(f64::deserialize(deserializer)?).map_err(de::Error::custom)
}

fn seconds_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    checked_seconds(f64::deserialize(deserializer)?).map_err(de::Error::custom)
}

fn vips<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vip>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let parsed = texts.iter().map(|text| text.parse());
    parsed.collect::<Result<_, _>>().map_err(de::Error::custom)
}

fn place<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LogTo, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(de::Error::custom)
}

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "expected the path of a file, or a list of paths"
    )]
    enum Paths {
        One(PathBuf),
        More(Vec<PathBuf>),
    }
    Ok(match Paths::deserialize(deserializer)? {
        Paths::One(path) => vec![path],
        Paths::More(paths) => paths,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        Settings::parse(text, Path::new("v.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(parse("# nothing\n"), Ok(Settings::default()));
        assert_eq!(Settings::default().rate.get(), 2000);
    }

    #[test]
    fn every_key_is_read() {
        let settings = parse(
            "rate = 10\narp_rate = 15\ncensus = false\ntimeout = 2.5\nwait = 0\nconflict_watch = 3\nstraggler_watch = 4\nconfirm = \"peers\"\n\
             peers = [\"10.0.0.1\"]\nwatch = [\"10.0.0.9\"]\nlog = \"file:/l\"\n\
             history = false\nhistory_dir = \"/h\"\nmetrics_file = \"/m\"\n",
        )
        .unwrap();
        assert_eq!(settings.rate.get(), 10);
        assert_eq!(settings.arp_rate.map(NonZeroU32::get), Some(15));
        assert!(!settings.census);
        assert_eq!(settings.timeout, Duration::from_millis(2500));
        assert_eq!(settings.wait, Duration::ZERO);
        assert_eq!(settings.conflict_watch, Duration::from_secs(3));
        assert_eq!(settings.straggler_watch, Duration::from_secs(4));
        assert_eq!(settings.confirm, Confirm::Peers);
        assert_eq!(settings.peers, [IpAddr::from([10, 0, 0, 1])]);
        assert_eq!(settings.watch, ["10.0.0.9".parse().unwrap()]);
        assert_eq!(settings.log, LogTo::File("/l".into()));
        assert_eq!(
            (settings.history, settings.history_dir),
            (false, "/h".into())
        );
        assert_eq!(settings.metrics_file, PathBuf::from("/m"));
        assert_eq!(Settings::default().metrics_file(), None);
    }

    #[test]
    fn every_key_of_orders_is_read() {
        let settings = parse(
            "[orders]\nkey_file = \"/k\"\nsite = \"s\"\nport = 1\nwindow = 5\nallow = [\"10.0.0.0/8\", \"links\"]\n\
             permanent = true\nbroadcast = true\nrelease_orphan = true\npid_files = [\"/p\"]\n\
             idle = 2\n",
        );
        let orders = settings.unwrap().orders;
        let expected = Orders {
            key_files: vec!["/k".into()],
            site: "s".to_owned(),
            port: NonZeroU16::MIN,
            window: Duration::from_secs(5),
            allow: vec![
                Allowed::Prefix("10.0.0.0/8".parse().unwrap()),
                Allowed::Links,
            ],
            permanent: true,
            broadcast: true,
            release_orphan: true,
            pid_files: vec!["/p".into()],
            idle: Duration::from_secs(2),
        };
        assert_eq!(orders, expected);
        let several = parse("[orders]\nkey_file = [\"/new\", \"/old\"]\n").unwrap();
        let files = [PathBuf::from("/new"), "/old".into()];
        assert_eq!(several.orders.key_files, files);
        assert_eq!(Orders::default().port.get(), 11120);
    }

    #[test]
    fn what_is_wrong_is_told_with_file_line_and_key() {
        for (text, told) in [
            ("wait = 1\nrat = 5\n", ["v.toml:2: ", "unknown field `rat`"]),
            ("rate = \"x\"\n", ["v.toml:1: ", "`rate = \"x\"`"]),
            ("rate = 0\n", ["v.toml:1: ", "from 1 to 1000000"]),
            ("rate = -1\n", ["v.toml:1: ", "`rate = -1`"]),
            ("timeout = 0\n", ["v.toml:1: ", "more than 0"]),
            ("timeout = nan\n", ["v.toml:1: ", "seconds are from 0"]),
            ("wait = 1e300\n", ["v.toml:1: ", "seconds are from 0"]),
            (
                "peers = [\"x\"]\n",
                ["v.toml:1: ", "by its address, not by a name"],
            ),
            ("log = \"file\"\n", ["v.toml:1: ", "file:PATH"]),
            ("confirm = \"some\"\n", ["v.toml:1: ", "unknown variant"]),
            ("[orders]\nkey = 1\n", ["v.toml:2: ", "unknown field `key`"]),
            ("[orders]\nport = 0\n", ["v.toml:2: ", "`port = 0`"]),
            ("[orders]\nport = 65536\n", ["v.toml:2: ", "`port = 65536`"]),
            ("[orders]\nwindow = 0\n", ["v.toml:2: ", "more than 0"]),
            (
                "[orders]\nkey_file = 1\n",
                ["v.toml:2: ", "the path of a file"],
            ),
            (
                "[orders]\nallow = [\"10.0.0.0/33\"]\n",
                ["v.toml:2: ", "192.0.2.0/24"],
            ),
            ("\n\n[", ["v.toml:3: ", ""]),
            ("rate = 1\nrate = 2\n", ["v.toml:2: ", "duplicate key"]),
        ] {
            let error = parse(text).unwrap_err();
            assert!(told.iter().all(|part| error.contains(part)), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    fn leniently(text: &str) -> (Settings, Vec<String>) {
        Settings::parse_leniently(text, Path::new("v.toml"))
    }

    #[test]
    fn what_is_wrong_is_dropped_and_told_and_the_rest_keeps() {
        let (settings, told) = leniently(
            "rates = 10\nwait = 3\nrate = \"x\"\npeers = [\"10.0.0.1\",\n \"x\"]\ntimeout = 5\n\
             [orders]\nport = 0\nidle = 7\nrat = { a = [1, 2] }\n[order]\nidle = 1\n",
        );
        let mut expected = Settings {
            wait: Duration::from_secs(3),
            timeout: Duration::from_secs(5),
            ..Settings::default()
        };
        expected.orders.idle = Duration::from_secs(7);
        assert_eq!(settings, expected);
        for part in [
            "v.toml:1: unknown field `rates`",
            "ignored",
            "v.toml:3: ",
            "the default is used: rate = 2000",
            "v.toml:5: ",
            "the default is used: peers = []",
            "v.toml:8: ",
            "the default is used: port = 11120",
            "v.toml:10: unknown field `rat`",
            "v.toml:11: unknown field `order`",
        ] {
            assert!(
                told.iter().any(|line| line.contains(part)),
                "{part}: {told:?}"
            );
        }
        assert_eq!(told.len(), 6, "{told:?}");
    }

    #[test]
    fn of_what_is_no_toml_the_beginning_is_read() {
        let rest = "timeout = 5\n";
        for (broken, line) in [
            ("wait 3\n", 2),
            ("[orders\n", 2),
            ("rate = 10\n", 2),
            ("\u{1}\n", 2),
        ] {
            let (settings, told) = leniently(&format!("rate = 5\n{broken}{rest}"));
            assert_eq!(settings.rate.get(), 5, "{broken:?}");
            assert_eq!(settings.timeout, Settings::default().timeout, "{broken:?}");
            assert_eq!(told.len(), 1, "{told:?}");
            let at = format!("v.toml:{line}: ");
            assert!(told[0].starts_with(&at), "{told:?}");
            assert!(
                told[0].contains("the defaults are used for what follows"),
                "{told:?}"
            );
        }
        for unclosed in ["peers = [\n", "confirm = \"\"\"\n"] {
            let (settings, told) = leniently(&format!("rate = 5\n{unclosed}{rest}"));
            assert_eq!((settings.rate.get(), told.len()), (5, 1), "{told:?}");
            assert_eq!(settings.timeout, Settings::default().timeout);
        }
        let long = "peers = [\n".to_owned() + &"# a line\n".repeat(100_000);
        assert_eq!(leniently(&long).0, Settings::default());
    }

    #[test]
    fn in_doubt_no_vip_is_released() {
        let whole = "[orders]\nrelease_orphan = true\n";
        assert!(parse(whole).unwrap().orders.release_orphan);
        for wrong in ["pid_file = [\"/p\"]\n", "pid_files = 1\n", "pid_files [\n"] {
            let (settings, told) = leniently(&format!("{whole}{wrong}"));
            assert!(!settings.orders.release_orphan, "{wrong}");
            assert!(told[1].contains("release_orphan = false"), "{told:?}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        for path in ["/dev/zero", "/dev/null", "/"] {
            let error = Settings::read(Some(Path::new(path))).unwrap_err();
            assert!(error.to_string().contains(path), "{error}");
            let (settings, told) = Settings::read_leniently(Some(Path::new(path)), &error);
            assert_eq!((settings, told.len()), (Settings::default(), 1));
        }
    }

    proptest::proptest! {
        #[test]
        fn anything_is_survived(text in "(rate|wait|peers|\\[orders\\]|port|x| |=|\"|\\[|\\]|\\{|\\}|,|1|\\.|#|\n|\u{e9}){0,40}") {
            let (_, told) = leniently(&text);
            proptest::prop_assert_eq!(parse(&text).is_ok(), told.is_empty());
        }
    }
}
