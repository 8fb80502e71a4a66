//! What the reader of keepalived.conf says, against what the installed keepalived says.
//!
//! Every file and folder of `tests/keepalived/corpus`, and every example, is given to a real
//! keepalived in a network namespace of its own; what it answers must be what we read. Needs root,
//! keepalived, iproute2 and util-linux, and fails without them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeSet, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use vipherald::keepalived_conf;
use vipherald_core::keepalived::{Configuration, Options, VirtualAddress};

/// Interfaces that there are whether or not the configuration names them.
const INTERFACES: [&str; 8] = [
    "eth0",
    "eth1",
    "eth2",
    "eth3",
    "bond0",
    "bond0.169",
    "bond0.170",
    "br0",
];
const PATIENCE: Duration = Duration::from_secs(60);

fn tests_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keepalived")
}

/// The main files of a folder of configurations: `NAME.conf`, or `NAME/keepalived.conf`.
fn configurations(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            if path.is_dir() {
                path.join("keepalived.conf")
            } else {
                path
            }
        })
        .collect();
    found.sort();
    found
}

/// All `.conf` files below the examples, if there are examples.
fn examples(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            examples(&path, found);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "conf")
        {
            found.push(path);
        }
    }
}

/// The value of a `# key: value` line at the top of a file.
fn header(path: &Path, key: &str) -> Option<String> {
    let text = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    let start = format!("# {key}: ");
    text.lines()
        .take_while(|line| line.starts_with('#'))
        .find_map(|line| line.strip_prefix(&start))
        .map(str::to_owned)
}

/// The installed keepalived's version, such as (2, 2): some differ in what they take.
fn version() -> (u32, u32) {
    static VERSION: LazyLock<(u32, u32)> = LazyLock::new(|| {
        let told = Command::new("keepalived").arg("--version").output();
        let told = told.expect("keepalived starts (install keepalived)");
        // It writes to stderr: Keepalived v2.2.7 (01/16,2022)
        let told = String::from_utf8(told.stderr).unwrap();
        let (_, number) = told.lines().next().unwrap().split_once(" v").unwrap();
        two_numbers(number)
    });
    *VERSION
}

/// Whether a file means what we read only to newer versions, by its line `# from: 2.2`.
fn is_newer(path: &Path) -> bool {
    header(path, "from").is_some_and(|from| version() < two_numbers(&from))
}

/// The first two numbers of a version.
fn two_numbers(text: &str) -> (u32, u32) {
    let mut numbers = text.split(['.', ' ']).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

fn options(path: &Path) -> Options {
    Options {
        config_id: header(path, "config-id"),
        assumed_id: None,
    }
}

/// What both sides are boiled down to, so that a difference is easy to see.
#[derive(Default)]
struct Summary(String);

impl Summary {
    fn ours(configuration: &Configuration, path: &Path) -> Self {
        let mut summary = Self::default();
        for instance in configuration.instances() {
            // From 2.3 on the first entry of an address counts, whatever the others' interfaces.
            let mut seen = HashSet::new();
            let mut is_first =
                |list: &str, ip: IpAddr| version() < (2, 3) || seen.insert((list.to_owned(), ip));
            let address = |address: &VirtualAddress| {
                let VirtualAddress {
                    address,
                    prefix_len,
                    dev,
                } = address;
                format!(
                    "{address}/{prefix_len} dev {}",
                    dev.as_deref().unwrap_or("?")
                )
            };
            let vips: Vec<_> = instance
                .vips
                .iter()
                .filter(|vip| is_first("virtual", vip.address))
                .map(address)
                .collect();
            let excluded: Vec<_> = instance
                .excluded
                .iter()
                .filter(|vip| is_first("virtual", vip.address))
                .map(address)
                .collect();
            let peers: Vec<_> = instance
                .peers
                .iter()
                .filter(|peer| is_first("peer", **peer))
                .map(ToString::to_string)
                .collect();
            summary.instance(
                &instance.name,
                instance.interface.as_deref().unwrap_or("?"),
                instance.vmac.as_deref().unwrap_or(""),
                u64::from(instance.virtual_router_id.unwrap_or(0)),
                &vips,
                &excluded,
                &peers,
            );
        }
        for group in configuration.groups() {
            // 2.1 drops a group of one member, and 2.3 one that a second block has ended.
            let dropped = version() < (2, 2) && group.instances.len() == 1
                || version() >= (2, 3) && path.ends_with("second_group_block.conf");
            if !dropped {
                summary.group(&group.name, &group.instances);
            }
        }
        summary
    }

    fn theirs(json: &Value, data: &str) -> Self {
        let mut summary = Self::default();
        for instance in json.as_array().unwrap() {
            let instance = &instance["data"];
            let text = |key: &str| instance[key].as_str().unwrap().to_owned();
            let addresses = |key: &str| -> Vec<String> {
                let all = instance[key].as_array().into_iter().flatten();
                all.map(|address| keepalived_address(address.as_str().unwrap()))
                    .collect()
            };
            let section = section(data, &format!(" VRRP Instance = {}", text("iname")));
            let interface = section
                .iter()
                .find_map(|line| line.strip_prefix("   Interface = "));
            let interface = interface.expect("keepalived.data names the interface");
            let interface = interface
                .split(" on ")
                .last()
                .unwrap()
                .split(',')
                .next()
                .unwrap();
            let peers = sub_section(&section, "   Unicast Peer :");
            let peers: Vec<String> = peers
                .iter()
                .map(|peer| peer.split_whitespace().next().unwrap().to_owned())
                .collect();
            summary.instance(
                &text("iname"),
                interface,
                &text("vmac_ifname"),
                instance["vrid"].as_u64().unwrap(),
                &addresses("vips"),
                &addresses("evips"),
                &peers,
            );
        }
        for line in data.lines() {
            if let Some(group) = line.strip_prefix(" VRRP Sync Group = ") {
                let members = sub_section(&section(data, line), "   VRRP member instances :");
                summary.group(group.rsplit_once(", ").unwrap().0, &members);
            }
        }
        summary
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one place that writes all there is to compare"
    )]
    fn instance(
        &mut self,
        name: &str,
        interface: &str,
        vmac: &str,
        id: u64,
        vips: &[String],
        excluded: &[String],
        peers: &[String],
    ) {
        writeln!(self.0, "{name}: {interface} vmac={vmac} id={id}").unwrap();
        for (kind, all) in [("vip", vips), ("excluded", excluded), ("peer", peers)] {
            for one in all {
                writeln!(self.0, "  {kind} {one}").unwrap();
            }
        }
    }

    fn group(&mut self, name: &str, members: &[String]) {
        writeln!(self.0, "group {name}: {}", members.join(" ")).unwrap();
    }
}

/// `10.0.0.1/24 brd … dev eth0@eth1 …` as `10.0.0.1/24 dev eth0`.
fn keepalived_address(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let full_length = if words[0].contains(':') { 128 } else { 32 };
    let dev = words.iter().position(|&word| word == "dev").unwrap() + 1;
    let dev = words[dev].split('@').next().unwrap();
    if words[0].contains('/') {
        format!("{} dev {dev}", words[0])
    } else {
        format!("{}/{full_length} dev {dev}", words[0])
    }
}

/// The lines of keepalived.data after `start` that are indented more deeply.
fn section(data: &str, start: &str) -> Vec<String> {
    let lines = data.lines().skip_while(|&line| line != start).skip(1);
    lines
        .take_while(|line| line.starts_with("  "))
        .map(str::to_owned)
        .collect()
}

fn sub_section(section: &[String], start: &str) -> Vec<String> {
    let lines = section.iter().skip_while(|&line| line != start).skip(1);
    lines
        .take_while(|line| line.starts_with("     "))
        .map(|line| line.trim().to_owned())
        .collect()
}

/// A keepalived in a network namespace of its own.
struct Keepalived {
    child: Child,
    folder: PathBuf,
}

impl Keepalived {
    fn start(configuration: &Path, folder: &Path) -> Self {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).unwrap();
        let mut interfaces: BTreeSet<String> = INTERFACES.map(str::to_owned).into();
        named_interfaces(configuration.parent().unwrap(), &mut interfaces);
        named_in(configuration, &mut interfaces);
        let mut script = "set -e\nip -batch - <<END\nlink set lo up\n".to_owned();
        for (number, interface) in interfaces.iter().enumerate() {
            writeln!(
                script,
                "link add {interface} type veth peer name peer{number}\n\
                 link set {interface} up\nlink set peer{number} up"
            )
            .unwrap();
        }
        script += "END\nexec keepalived \"$@\"\n";
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["--net", "sh", "-c", &script, "sh"])
            .args(["--dont-fork", "--log-console", "--vrrp", "--use-file"])
            .arg(configuration)
            .arg("--pid")
            .arg(folder.join("parent.pid"))
            .arg("--vrrp_pid")
            .arg(folder.join("vrrp.pid"))
            .arg("--checkers_pid")
            .arg(folder.join("checkers.pid"))
            .env("TMPDIR", folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if let Some(id) = header(configuration, "config-id") {
            command.args(["--config-id", &id]);
        }
        let child = command
            .spawn()
            .expect("unshare starts (install util-linux)");
        Self {
            child,
            folder: folder.to_owned(),
        }
    }

    /// What it says about its configuration, or its log if it stops.
    fn ask(&mut self) -> Result<Summary, String> {
        let log = self.folder.join("log");
        // Before 2.2 it does not say when it is ready: this is the last thing it does before.
        let ready = if version() < (2, 2) {
            "Registering gratuitous "
        } else {
            "Startup complete"
        };
        self.wait(|| fs::read_to_string(&log).is_ok_and(|log| log.contains(ready)))?;
        let data = self.folder.join("keepalived.data");
        self.signal("DATA");
        let mut text = String::new();
        self.wait(|| {
            text = String::from_utf8_lossy(&fs::read(&data).unwrap_or_default()).into_owned();
            text.contains("------< Interfaces >------")
        })?;
        let json = self.folder.join("keepalived.json");
        let mut value = Value::Array(Vec::new());
        if text.contains("VRRP Instance = ") {
            self.signal("JSON");
            self.wait(|| {
                let bytes = fs::read(&json).unwrap_or_default();
                serde_json::from_slice(&bytes)
                    .map(|parsed| value = parsed)
                    .is_ok()
            })?;
        }
        Ok(Summary::theirs(&value, &text))
    }

    fn signal(&self, name: &str) {
        let number = Command::new("keepalived")
            .arg(format!("--signum={name}"))
            .output()
            .unwrap();
        let number = String::from_utf8(number.stdout).unwrap();
        let pid = self.child.id().to_string();
        let killed = Command::new("kill")
            .args(["-s", number.trim(), &pid])
            .status()
            .unwrap();
        assert!(killed.success());
    }

    fn wait(&mut self, mut done: impl FnMut() -> bool) -> Result<(), String> {
        let start = Instant::now();
        while !done() {
            let stopped = self.child.try_wait().unwrap().is_some();
            if stopped || start.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                let what = if stopped { "stops" } else { "does not answer" };
                return Err(format!("keepalived {what}:\n{log}"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let pid = self.child.id().to_string();
            let _ = Command::new("kill").arg(pid).status();
            let _ = self.child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What the files of a folder name behind `interface` or `dev`.
fn named_interfaces(folder: &Path, interfaces: &mut BTreeSet<String>) {
    if folder.join("keepalived.conf").exists() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                for entry in fs::read_dir(path).unwrap() {
                    named_in(&entry.unwrap().path(), interfaces);
                }
            } else {
                named_in(&path, interfaces);
            }
        }
    }
}

fn named_in(file: &Path, interfaces: &mut BTreeSet<String>) {
    let text = String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned();
    for line in text.lines() {
        let words: Vec<&str> = line
            .split([' ', '\t', '"'])
            .filter(|word| !word.is_empty())
            .collect();
        for pair in words.windows(2) {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            let made_by_keepalived = pair[1].starts_with("vrrp");
            if matches!(pair[0], "interface" | "dev")
                && pair[1].chars().all(plain)
                && pair[1].len() < 16
                && pair[1] != "lo"
                && !made_by_keepalived
            {
                interfaces.insert(pair[1].to_owned());
            }
        }
    }
}

/// A line of the example for LVS.
const SYNC_DAEMON: &str = "lvs_sync_daemon eth0 VI_1";

/// Ours against theirs, for one configuration.
fn compare(path: &Path, folder: &Path) -> Result<(), String> {
    let configuration =
        keepalived_conf::read(path, &options(path)).map_err(|error| error.to_string())?;
    let theirs = match fs::read_to_string(path)
        .ok()
        .filter(|text| text.contains(SYNC_DAEMON))
    {
        // It would want ip_vs, which not every kernel has, and says nothing of virtual IPs.
        Some(text) => {
            fs::create_dir_all(folder).unwrap();
            let without = folder.join("without.conf");
            fs::write(&without, text.replace(SYNC_DAEMON, "")).unwrap();
            Keepalived::start(&without, &folder.join("keepalived")).ask()?
        }
        None => Keepalived::start(path, folder).ask()?,
    };
    let ours = Summary::ours(&configuration, path);
    if ours.0 == theirs.0 {
        return Ok(());
    }
    let mut text = format!("--- ours\n{}--- keepalived's\n{}", ours.0, theirs.0);
    for warning in configuration.warnings().iter().take(5) {
        writeln!(text, "({warning})").unwrap();
    }
    Err(text)
}

/// Works on many configurations at once: keepalived takes a second to stop, which costs nothing.
fn side_by_side(all: &[PathBuf], work: impl Fn(usize, &Path) + Sync) {
    let queue = Mutex::new(all.iter().enumerate());
    let next = || queue.lock().unwrap().next();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some((number, path)) = next() {
                    work(number, path);
                }
            });
        }
    });
}

#[test]
fn every_configuration_means_what_keepalived_says() {
    for (program, package) in [
        ("keepalived", "keepalived"),
        ("ip", "iproute2"),
        ("unshare", "util-linux"),
    ] {
        let version = Command::new(program).arg("--version").output();
        assert!(
            version.is_ok(),
            "{program} is missing: install the package {package}"
        );
    }
    let root = Command::new("unshare")
        .args(["--net", "true"])
        .status()
        .unwrap();
    assert!(
        root.success(),
        "network namespaces can't be made here: run this test as root"
    );

    let mut todo = configurations(&tests_folder().join("corpus"));
    assert!(
        todo.len() >= 40,
        "the corpus is incomplete: {} files",
        todo.len()
    );
    examples(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/keepalived"),
        &mut todo,
    );
    // To look at one of them alone.
    let only = std::env::var("ONLY").unwrap_or_default();
    todo.retain(|path| path.to_string_lossy().contains(&only));
    assert!(
        !todo.is_empty(),
        "ONLY={only}: there is no such configuration"
    );
    let scratch =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("keepalived-{}", std::process::id()));

    let failures = Mutex::new(Vec::new());
    side_by_side(&todo, |number, path| {
        let compared = compare(path, &scratch.join(number.to_string()));
        let failure = match (compared, is_newer(path)) {
            (Err(failure), false) => failure,
            (Ok(()), true) => "this keepalived takes it like newer ones".to_owned(),
            _ => return,
        };
        let failure = format!("{}\n{failure}", path.display());
        failures.lock().unwrap().push(failure);
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn a_file_that_keepalived_stops_for_gets_a_warning() {
    let all = configurations(&tests_folder().join("stops"));
    assert!(!all.is_empty());
    let scratch =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("stops-{}", std::process::id()));
    side_by_side(&all, |number, path| {
        let name = path.display();
        let expected = header(path, "stops").unwrap_or_else(|| panic!("{name}: no `# stops:`"));
        let configuration = keepalived_conf::read(path, &options(path)).unwrap();
        let told = configuration.warnings().iter();
        let told = told.chain(configuration.refused());
        let told: Vec<_> = told
            .filter(|problem| problem.stops)
            .map(ToString::to_string)
            .collect();
        assert!(
            told.iter().any(|problem| problem.contains(&expected)),
            "{name}: {told:?} lacks {expected:?}"
        );
        // And it does, from the version on that knows the keyword.
        let answer = Keepalived::start(path, &scratch.join(number.to_string())).ask();
        if is_newer(path) {
            answer.unwrap_or_else(|log| panic!("{name}: {log}"));
            return;
        }
        let log = answer
            .map(|summary| summary.0)
            .expect_err(&name.to_string());
        assert!(log.starts_with("keepalived stops"), "{name}: {log}");
        // A hook of the keepalived that runs still finds what the file says.
        if let Some(address) = header(path, "address") {
            let instance = configuration.instance("VI_1").unwrap();
            assert_eq!(instance.vips[0].address.to_string(), address, "{name}");
        }
    });
}

#[test]
fn without_its_configuration_id_an_instance_is_refused_and_the_option_named() {
    let path = tests_folder().join("foreign_ids.conf");
    let unaware = keepalived_conf::read(&path, &Options::default()).unwrap();
    for name in ["VI_1", "VI_2", "VI_3", "VI_4"] {
        let error = unaware.instance(name).unwrap_err().to_string();
        assert!(error.contains("@node1, @node2"), "{error}");
        assert!(error.contains("--config-id"), "{error}");
    }
    assert_eq!(unaware.instance("VI_5").unwrap().vips.len(), 1);
    let aware = Options {
        config_id: Some("node1".to_owned()),
        assumed_id: None,
    };
    let aware = keepalived_conf::read(&path, &aware).unwrap();
    for name in ["VI_1", "VI_2", "VI_3", "VI_4", "VI_5"] {
        assert_eq!(aware.instance(name).unwrap().vips.len(), 1, "{name}");
    }
}

#[test]
fn where_keepalived_goes_on_a_warning_names_instance_file_and_line() {
    let corpus = tests_folder().join("corpus");
    for (name, expected) in [
        (
            "unicast_peer_without_braces.conf",
            ":8: vrrp_instance VI_1: unicast_peer is a block: keepalived passes over 10.10.10.11",
        ),
        (
            "unicast_peer_nested.conf",
            ":7: vrrp_instance VI_1: a '{' inside a block of values",
        ),
        (
            "misspelt_block.conf",
            ":4: vrrp_instance VI_1: a block that keepalived doesn't know here",
        ),
        (
            "undefined_elsewhere.conf",
            ":13: vrrp_instance VI_1: $SOURCE is not defined here: keepalived passes it over",
        ),
        (
            "undefined.conf",
            ":6: vrrp_instance VI_1: $VIP is not defined here",
        ),
        (
            "unclosed_quotes.conf",
            ":4: vrrp_instance VI_1: a double quote that is never closed",
        ),
        (
            "misspelt_block.conf",
            ":1: vrrp_instance VI_1: has no virtual IP",
        ),
    ] {
        let configuration = keepalived_conf::read(&corpus.join(name), &Options::default()).unwrap();
        let warnings = configuration.warnings_about("VI_1");
        let warnings: Vec<_> = warnings.map(ToString::to_string).collect();
        assert!(
            warnings.iter().any(|warning| warning.contains(expected)),
            "{name}: {warnings:#?}"
        );
    }
}

#[test]
fn an_unreliable_instance_is_refused_with_file_and_line() {
    let all = configurations(&tests_folder().join("refused"));
    assert!(!all.is_empty());
    for path in all {
        let name = path.display();
        let expected =
            header(&path, "refused").unwrap_or_else(|| panic!("{name}: no `# refused:`"));
        let configuration = keepalived_conf::read(&path, &options(&path)).unwrap();
        let result = match header(&path, "group") {
            Some(group) => configuration.group(&group).map(|_| ()),
            None => configuration.instance("VI_1").map(|_| ()),
        };
        let error = result
            .expect_err(&format!("{name} must be refused"))
            .to_string();
        for part in [expected.as_str(), ".conf:"] {
            assert!(error.contains(part), "{name}: {error:?} lacks {part:?}");
        }
        // What is beside it can still be read.
        if let Some(other) = header(&path, "still-read") {
            assert!(configuration.instance(&other).is_ok(), "{name}: {other}");
        }
    }
}
