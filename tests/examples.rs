//! The examples do what they say: the real keepalived takes each one, and runs its hooks.

#![expect(clippy::unwrap_used, reason = "what a test cannot do fails it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use vipherald::cli::Cli;
use vipherald::settings::Settings;
use vipherald_lab::{Direction, Frame, Host, Lab, eventually};

/// Where the examples expect the program.
const INSTALLED: &str = "/usr/libexec/keepalived/vipherald";
/// An instance waits for three advertisements of 1 s, on a machine busy with other tests.
const SOON: Duration = Duration::from_secs(20);
const NOTIFICATIONS: [&str; 5] = [
    "notify_master",
    "notify_master_rx_lower_pri",
    "notify_backup",
    "notify_fault",
    "notify_stop",
];

#[test]
fn multicast_works() {
    keepalived_runs_the_hooks_of("multicast.conf");
}

#[test]
fn unicast_works() {
    keepalived_runs_the_hooks_of("unicast.conf");
}

#[test]
fn vmac_works() {
    keepalived_runs_the_hooks_of("vmac.conf");
}

#[test]
fn dual_stack_works() {
    keepalived_runs_the_hooks_of("dual-stack.conf");
}

#[test]
fn kubernetes_works() {
    keepalived_runs_the_hooks_of("kubernetes.conf");
}

#[test]
fn every_example_for_keepalived_is_tested() {
    let source = fs::read_to_string(file!()).unwrap();
    for path in configurations() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let call = format!("keepalived_runs_the_hooks_of(\"{name}\")");
        assert!(source.contains(&call), "no test runs {name}");
    }
}

#[test]
fn every_instance_has_all_hooks_and_each_is_a_command_that_vipherald_takes() {
    for path in configurations() {
        let example = Example::read(&path);
        for instance in &example.instances {
            for notification in NOTIFICATIONS {
                let hook = instance.hook(notification);
                let words = hook.strip_prefix(INSTALLED).map(str::split_whitespace);
                let words = words.unwrap_or_else(|| panic!("{}: {hook}", path.display()));
                Cli::try_parse_from(["vipherald"].into_iter().chain(words))
                    .unwrap_or_else(|error| panic!("{}: {hook}: {error}", path.display()));
            }
        }
    }
}

#[test]
fn the_example_settings_are_all_there_are_at_their_defaults() {
    let text = fs::read_to_string("examples/vipherald.toml").unwrap();
    let uncommented: String = text
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| !line.is_empty() && !line.starts_with(' '))
        .flat_map(|line| [line, "\n"])
        .collect();
    for text in [&text, &uncommented] {
        assert_eq!(settings(text).unwrap(), Settings::default());
    }
    // The refusal of a key that is not known names those that are.
    let refusal = settings("unknown = 1").unwrap_err();
    let (_, known) = refusal.split_once("expected one of ").unwrap();
    let (known, _) = known.split_once(", in `").unwrap();
    let known = known.split(", ").map(|key| key.trim_matches('`'));
    let shown = uncommented.lines().map(|line| line.split(' ').next());
    assert!(known.map(Some).eq(shown), "{refusal}\n{uncommented}");
}

fn settings(text: &str) -> Result<Settings, String> {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("settings.toml");
    fs::write(&file, text).unwrap();
    Settings::read(Some(&file)).map_err(|error| error.to_string())
}

fn configurations() -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir("examples/keepalived")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

/// What a test has to know of an example. The examples keep one statement a line.
struct Example {
    text: String,
    interface: String,
    own_address: Option<String>,
    instances: Vec<Instance>,
}

struct Instance {
    name: String,
    text: String,
}

impl Example {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let instances: Vec<_> = text
            .split("\nvrrp_instance ")
            .skip(1)
            .map(|text| Instance {
                name: text.split_whitespace().next().unwrap().to_owned(),
                text: text.to_owned(),
            })
            .collect();
        assert!(!instances.is_empty(), "{}", path.display());
        Self {
            interface: value(&text, "interface").unwrap().to_owned(),
            own_address: value(&text, "unicast_src_ip").map(str::to_owned),
            text,
            instances,
        }
    }

    /// Gives the host the interface and the address that the example speaks of.
    fn prepare(&self, host: &Host) {
        let interface = &self.interface;
        if interface != "eth0" {
            host.run(&format!("ip link add {interface} type veth peer name far"));
            host.run("ip link set far up");
            host.run(&format!("ip link set {interface} up"));
        }
        if let Some(address) = &self.own_address {
            host.run(&format!("ip addr add {address}/24 dev {interface}"));
        }
    }

    /// The example with another program for hooks, for where this test runs.
    fn with_hook(&self, hook: &Path) -> String {
        let text = self.text.replace(INSTALLED, hook.to_str().unwrap());
        // In a user namespace the root directory belongs to nobody, which keepalived distrusts.
        let map = fs::read_to_string("/proc/self/uid_map").unwrap();
        if map.split_whitespace().eq(["0", "0", "4294967295"]) {
            text
        } else {
            text.replace("enable_script_security", "")
        }
    }
}

impl Instance {
    fn hook(&self, notification: &str) -> &str {
        value(&self.text, notification)
            .unwrap_or_else(|| panic!("{} has no {notification}", self.name))
    }

    /// The arguments that a notification gives to the program.
    fn arguments(&self, notification: &str) -> &str {
        self.hook(notification).split_once(' ').unwrap().1
    }

    fn vip(&self) -> &str {
        self.arguments("notify_master").rsplit(' ').next().unwrap()
    }
}

/// What follows a keyword on its line, without quotes.
fn value<'a>(text: &'a str, keyword: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let value = line.trim().strip_prefix(keyword)?.strip_prefix(' ')?;
        Some(value.trim_matches('"'))
    })
}

/// Runs an example on a host of its own: BACKUP, MASTER, stopped.
fn keepalived_runs_the_hooks_of(name: &str) {
    let example = Example::read(&Path::new("examples/keepalived").join(name));
    let lab = Lab::new();
    let host = lab.host("node");
    example.prepare(&host);
    let program = lab.install_hook(env!("CARGO_BIN_EXE_vipherald"));
    let told = lab.directory().join("told");
    let hook = lab.write_hook(
        "hook",
        &format!(
            "echo \"$@\" >> {}\nexec {} \"$@\"",
            told.display(),
            program.display()
        ),
    );
    let text = example.with_hook(&hook);

    let file = lab.directory().join(name);
    fs::write(&file, &text).unwrap();
    let verdict = host.try_run(&format!(
        "keepalived --config-test --use-file {}",
        file.display()
    ));
    assert!(verdict.status.success(), "{verdict:?}");
    assert!(verdict.stderr.is_empty(), "{verdict:?}");

    for vip in example.instances.iter().map(Instance::vip) {
        let entry = format!("{vip} lladdr 02:00:00:00:00:99 dev {}", example.interface);
        host.run(&format!("ip neigh replace {entry} nud stale"));
    }
    let capture = host.capture_on(&example.interface);
    let mut keepalived = host.keepalived(&text);
    for instance in &example.instances {
        let vip = instance.vip();
        eventually("the former owner's MAC is purged", SOON, || {
            let purged = || host.neighbour(vip).is_none();
            (is_told(&told, instance.arguments("notify_backup")) && purged()).then_some(())
        });
        keepalived.wait_for_state(&instance.name, "MASTER", SOON);
        eventually("the announcement begins", SOON, || {
            is_told(&told, instance.arguments("notify_master")).then_some(())
        });
        // keepalived itself sends no ARP replies.
        if !vip.contains(':') {
            capture
                .wait_for(SOON, is_arp_reply)
                .expect("vipherald announces");
        }
    }
    let log = keepalived.log();
    for complaint in [
        "WARN", "nknown", "SECURITY", "isabl", "nable to", "nvalid", "gnoring",
    ] {
        assert!(!log.contains(complaint), "{complaint}: {log}");
    }

    fs::write(&told, "").unwrap();
    assert!(keepalived.stop().success());
    for instance in &example.instances {
        eventually("notify_stop runs", SOON, || {
            is_told(&told, instance.arguments("notify_stop")).then_some(())
        });
    }
}

/// Whether the hook was called with these arguments.
fn is_told(told: &Path, arguments: &str) -> bool {
    let calls = fs::read_to_string(told).unwrap_or_default();
    calls.lines().any(|call| call == arguments)
}

fn is_arp_reply(frame: &Frame) -> bool {
    frame.direction == Direction::FromHost
        && frame.ether_type() == 0x0806
        && frame.payload()[6..8] == [0, 2]
}
