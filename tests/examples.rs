//! The examples do what they say: the real keepalived takes each one, and runs its hooks.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use clap::error::ErrorKind;
use vipherald::cli::{Cli, Command, Notify, With};
use vipherald::settings::Settings;
use vipherald_core::event::{Call, Event};
use vipherald_lab::{Direction, Frame, Host, Keepalived, Lab, eventually};

use common::arp::{Arp, IPV6, is_request_for, is_sent};
use common::docs::{doc, fenced};
use common::{OLD_MAC, VIPHERALD, run};

/// Where the examples expect the program.
const INSTALLED: &str = "/usr/libexec/keepalived/vipherald";
/// An instance waits for three advertisements of 1 s, on a machine busy with other tests.
const SOON: Duration = Duration::from_secs(40);
/// What shows users what to write and run.
const DOCS: [&str; 9] = [
    "README.md",
    "README.zh-CN.md",
    "docs/json.md",
    "docs/keepalived-conf.md",
    "docs/orders.md",
    "docs/robustness.md",
    "docs/systemd.md",
    "docs/troubleshooting.md",
    "docs/troubleshooting.zh-CN.md",
];
/// Where the FIFO example has its FIFO.
const FIFO: &str = "/run/vipherald.fifo";

#[test]
fn keepalived_takes_every_example_and_runs_its_hooks() {
    thread::scope(|scope| {
        for path in configurations() {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            // A failure names its thread.
            let thread = thread::Builder::new().name(name.clone());
            thread
                .spawn_scoped(scope, move || keepalived_runs_the_hooks_of(&name))
                .unwrap();
        }
    });
}

#[test]
fn a_master_that_another_one_yields_to_announces_again() {
    a_master_announces_again_with("multicast.conf");
}

#[test]
fn a_master_that_another_one_yields_to_announces_again_by_fifo() {
    a_master_announces_again_with("fifo.conf");
}

#[test]
fn what_the_readmes_say_that_show_prints_it_prints() {
    let lab = Lab::new();
    let host = lab.host("a");
    for name in ["README.md", "README.zh-CN.md"] {
        let blocks = fenced(&doc(name));
        let with = |word: &str| {
            let mut blocks = blocks.iter().filter(|block| block.contains(word));
            blocks.next().unwrap_or_else(|| panic!("{name}: {word}"))
        };
        // The line of the next block goes to the end of the instance.
        let instance =
            with("vrrp_instance VI_1 {").replace("# …", "interface eth0\nvirtual_router_id 51");
        let instance = instance.trim_end().trim_end_matches('}').to_owned()
            + with("notify_master_rx_lower_pri")
            + "}\n";
        // The program is elsewhere here, where others may write.
        let text = instance
            .replace(INSTALLED, VIPHERALD)
            .replace("enable_script_security", "");
        let conf = lab.directory().join(name);
        fs::write(&conf, text).unwrap();
        let shown = run(&host, &format!("show --keepalived-conf {}", conf.display())).exits(0);
        let expected = with("$ vipherald show\n").replace("$ vipherald show\n", "");
        assert_eq!(shown.stdout, expected, "{name}");
    }
}

#[test]
fn the_log_line_of_the_readmes_is_that_of_a_failover_that_all_follow() {
    let lab = Lab::new();
    let (owner, peers) = (lab.host("owner"), lab.hosts("peer", 3));
    common::give(&owner, common::VIP, "eth0");
    common::meet(&owner, &peers);
    let conf = lab.directory().join("keepalived.conf");
    let instance = format!(
        "vrrp_instance VI_1 {{\ninterface eth0\nvirtual_router_id 51\n\
         virtual_ipaddress {{\n{}/24\n}}\n}}\n",
        common::VIP
    );
    fs::write(&conf, instance).unwrap();
    let settings = lab.directory().join("vipherald.toml");
    fs::write(&settings, "timeout = 2\n").unwrap();
    let notify = format!(
        "--config {} --keepalived-conf {} notify INSTANCE VI_1 MASTER 100",
        settings.display(),
        conf.display()
    );
    let logged = run(&owner, &notify).exits(0).stderr;
    for name in ["README.md", "README.zh-CN.md"] {
        let blocks = fenced(&doc(name));
        let block = blocks.iter().find(|block| block.contains("announced on"));
        // journald puts the time, the host and the process in front.
        let (_, line) = block
            .and_then(|block| block.trim_end().split_once("]: "))
            .unwrap();
        assert_eq!(
            without_values(line),
            without_values(logged.trim_end()),
            "{name}"
        );
    }
}

/// The READMEs' FIFO, with the instance of their hooks: the real keepalived takes both, and `show` finds
/// that the FIFO wires the instance.
#[test]
fn the_fifo_of_the_readmes_is_wired() {
    let lab = Lab::new();
    let host = lab.host("a");
    let program = lab.install_hook(VIPHERALD);
    for name in ["README.md", "README.zh-CN.md"] {
        let blocks = fenced(&doc(name));
        let fifo = blocks
            .iter()
            .find(|block| block.contains("vrrp_notify_fifo"));
        let text = fifo.unwrap().replace(INSTALLED, program.to_str().unwrap())
            + "vrrp_instance VI_1 {\ninterface eth0\nvirtual_router_id 51\n\
               virtual_ipaddress {\n192.0.2.10/24\n}\n}\n";
        let conf = lab.directory().join(name);
        fs::write(&conf, text).unwrap();
        let shown = run(&host, &format!("show --keepalived-conf {}", conf.display())).exits(0);
        assert!(shown.stdout.contains("wired by FIFO"), "{}", shown.stdout);
        let keepalived = host
            .command("keepalived")
            .arg("--config-test")
            .arg("--use-file")
            .arg(&conf)
            .output()
            .unwrap();
        assert!(keepalived.status.success(), "{name}: {keepalived:?}");
    }
}

/// A line without its addresses, and the time at its end.
fn without_values(line: &str) -> String {
    let (line, time) = line.rsplit_once(" after ").unwrap();
    assert!(time.ends_with(" ms") || time.ends_with(" s"), "{time}");
    let words = line.split_whitespace().map(|word| {
        let mac = word.trim_end_matches(':').matches(':').count() == 5;
        if mac || word.parse::<IpAddr>().is_ok() {
            "*"
        } else {
            word
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn every_command_of_the_docs_is_one_that_vipherald_takes() {
    let mut count = 0;
    for name in DOCS {
        for command in commands(&doc(name)) {
            let words = command.split_whitespace();
            let refused = Cli::read(words).err().map(|error| error.kind());
            // `vipherald release` may name the command; help is for people.
            let may_be = [
                ErrorKind::MissingRequiredArgument,
                ErrorKind::DisplayHelp,
                ErrorKind::DisplayVersion,
            ];
            let is_right = refused.is_none_or(|kind| may_be.contains(&kind));
            assert!(is_right, "{name}: {command}: {refused:?}");
            count += 1;
        }
    }
    assert!(count > 50, "only {count} commands found");
}

/// The commands of vipherald in a document's code, with values in place of the placeholders.
fn commands(text: &str) -> Vec<String> {
    let inline = text.split('`').skip(1).step_by(2);
    let blocks = text.lines().filter_map(|line| {
        let code = line.strip_prefix("    ").or(line.strip_prefix("$ "));
        code.map(|code| code.trim().trim_start_matches("sudo "))
    });
    let all = inline.filter(|code| !code.contains("\n\n")).chain(blocks);
    let all = all.filter(|code| code.starts_with("vipherald ") && !code.contains(" …"));
    all.map(|code| {
        let code = code.split([';', '#', '|', '&', '>']).next().unwrap();
        let mut words = code.split_whitespace().map(|word| match word {
            "[VIP…]" | "VIP…" | "VIP" => "192.0.2.10",
            "PEER" => "192.0.2.2",
            _ => word,
        });
        let first = words.next().unwrap().to_owned();
        words.fold(first, |command, word| command + " " + word)
    })
    .collect()
}

#[test]
fn each_hook_of_the_examples_is_a_command_that_its_state_calls_for() {
    for path in configurations() {
        let example = Example::read(&path);
        for instance in &example.instances {
            let hooks = example.hooks(instance);
            // The four changes of state, and the event that another master yielded.
            for (state, command) in hooks.commands() {
                let words = command.split_whitespace();
                let cli = Cli::read(["vipherald"].into_iter().chain(words))
                    .unwrap_or_else(|error| panic!("{}: {command}: {error}", path.display()));
                let announces = match cli.command {
                    Command::Announce(_) => true,
                    Command::Purge(_) => false,
                    Command::Notify(With { own, .. }) => {
                        let Notify {
                            of, name, state, ..
                        } = own;
                        let call = Event { of, name, state }.calls_for();
                        call.unwrap()
                            .unwrap_or_else(|| panic!("{}: {command}", path.display()))
                            == Call::Announce
                    }
                    Command::Fifo(_) => continue,
                    _ => panic!("{}: {command}", path.display()),
                };
                let owner = state.starts_with("MASTER");
                assert_eq!(announces, owner, "{}: {command}", path.display());
            }
        }
    }
}

#[test]
fn the_example_settings_list_every_setting_at_its_default() {
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
    let known = |table: &str| {
        let refusal = settings(&format!("{table}\nunknown = 1")).unwrap_err();
        let (_, known) = refusal.split_once("expected one of ").unwrap();
        let (known, _) = known.split_once(", in `").unwrap();
        let keys = known
            .split(", ")
            .map(|key| key.trim_matches('`').to_owned());
        keys.collect::<BTreeSet<_>>()
    };
    let (general, orders) = uncommented.split_once("[orders]\n").unwrap();
    let shown = |lines: &str| {
        let keys = lines.lines().filter_map(|line| line.split(' ').next());
        keys.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let mut all = shown(general);
    all.insert("orders".to_owned());
    assert_eq!(all, known(""), "{uncommented}");
    assert_eq!(shown(orders), known("[orders]"), "{uncommented}");
}

/// The documentation's blocks of hooks beside the user's own scripts, run by the real keepalived.
#[test]
fn the_users_own_scripts_run_beside_vipherald_as_documented() {
    const OWN: &str = "/etc/keepalived/";
    let document = fs::read_to_string("docs/keepalived-conf.md").unwrap();
    let (_, section) = document.split_once("## Beside your own scripts").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let blocks: Vec<_> = section.split("```\n").skip(1).step_by(2).collect();
    assert_eq!(blocks.len(), 2);
    let calls = [
        ["on-backup.sh ", "on-master.sh "],
        [
            "on-change.sh --fast INSTANCE VI_1 BACKUP 100",
            "on-change.sh --fast INSTANCE VI_1 MASTER 100",
        ],
    ];
    for (block, calls) in blocks.into_iter().zip(calls) {
        let lab = Lab::new();
        let (a, b) = (lab.host("a"), lab.host("b"));
        let told = lab.directory().join("told");
        for script in ["on-master.sh", "on-backup.sh", "on-change.sh"] {
            lab.write_hook(
                script,
                &format!("echo {script} \"$@\" >> {}", told.display()),
            );
        }
        let conf = lab.directory().join("conf");
        let program = lab.install_hook(VIPHERALD);
        let program = format!("{} --keepalived-conf {}", program.display(), conf.display());
        let own = format!("{}/", lab.directory().display());
        let hooks = block.replace(INSTALLED, &program).replace(OWN, &own);
        let text = format!(
            "vrrp_instance VI_1 {{\n state BACKUP\n interface eth0\n virtual_router_id 51\n \
             priority 100\n advert_int 0.3\n version 3\n virtual_ipaddress {{\n 10.9.0.100/24\n }}\n\
             {hooks}}}\n"
        );
        fs::write(&conf, &text).unwrap();
        let show = format!("--keepalived-conf {} show --json", conf.display());
        let shown = run(&a, &show).exits(0).report();
        assert_eq!(shown["warnings"], serde_json::json!([]));
        // keepalived's own announcement does not reach it.
        b.sysctl("net/ipv4/conf/eth0/drop_gratuitous_arp", "1");
        b.remember("10.9.0.100", OLD_MAC);
        a.remember(b.ipv4(), b.mac());
        let _keepalived = a.keepalived(&text);
        for call in calls {
            eventually(call, SOON, || {
                let told = fs::read_to_string(&told).ok()?;
                told.lines()
                    .any(|line| line == call.trim_end() || line == call)
                    .then_some(())
            });
        }
        eventually("vipherald has announced the VIP", SOON, || {
            (b.cached("10.9.0.100") == Some(a.mac())).then_some(())
        });
    }
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
    own_address: Option<String>,
    instances: Vec<Instance>,
}

struct Instance {
    name: String,
    text: String,
    interface: String,
    vip: IpAddr,
}

/// How vipherald hears of an instance.
enum Hooks<'a> {
    /// By the `notify` of the instance, or of the sync group of this name.
    Notify {
        group: Option<&'a str>,
        of: &'a Instance,
        yielded: &'a str,
    },
    /// By a hook for each state.
    Explicit(&'a Instance),
    Fifo(&'a str),
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
                interface: value(text, "interface").unwrap().to_owned(),
                vip: first_in(text, "virtual_ipaddress").parse().unwrap(),
            })
            .collect();
        assert!(!instances.is_empty(), "{}", path.display());
        // In keepalived 2.2.7 this turns duplicate address detection on, which delays a VIP.
        assert!(!text.contains("-nodad"), "{}", path.display());
        Self {
            own_address: value(&text, "unicast_src_ip").map(str::to_owned),
            text,
            instances,
        }
    }

    fn hooks<'a>(&'a self, instance: &'a Instance) -> Hooks<'a> {
        if let Some(script) = value(&self.text, "vrrp_notify_fifo_script") {
            assert_eq!(value(&self.text, "vrrp_notify_fifo"), Some(FIFO));
            assert!(!instance.text.contains("notify"), "{}", instance.name);
            return Hooks::Fifo(arguments(script));
        }
        let group = self
            .text
            .split("\nvrrp_sync_group ")
            .nth(1)
            .and_then(|text| text.split_once("\n}").map(|(group, _)| group))
            .filter(|group| value(group, "notify").is_some());
        let told = group.or(Some(instance.text.as_str()));
        match told.and_then(|text| value(text, "notify")) {
            Some(hook) => {
                assert_eq!(arguments(hook), "notify");
                assert_eq!(group.is_some(), value(&instance.text, "notify").is_none());
                Hooks::Notify {
                    group: group.and_then(|group| group.split_whitespace().next()),
                    of: instance,
                    yielded: arguments(instance.hook("notify_master_rx_lower_pri")),
                }
            }
            None => Hooks::Explicit(instance),
        }
    }

    /// Gives the host the interfaces and the address that the example speaks of.
    fn prepare(&self, host: &Host) {
        for interface in self.interfaces() {
            if interface != "eth0" {
                host.ip(&format!(
                    "link add {interface} type veth peer name far-{interface}\n\
                     link set far-{interface} up\n\
                     link set {interface} up\n"
                ));
            }
        }
        for instance in &self.instances {
            // keepalived speaks from an address of the interface. The lab gives eth0 one.
            let address = match (&self.own_address, instance.vip) {
                (Some(address), _) => address.clone(),
                (None, IpAddr::V4(vip)) if instance.interface != "eth0" => {
                    let [network @ .., _] = vip.octets();
                    network.map(|octet| octet.to_string()).join(".") + ".1"
                }
                _ => continue,
            };
            let interface = &instance.interface;
            host.run(&format!("ip addr add {address}/24 dev {interface}"));
        }
        // A real server of LVS has the VIP, and keeps that to itself.
        if self.text.contains("\nvirtual_server ") {
            host.sysctl("net/ipv4/conf/all/arp_ignore", "1");
            host.sysctl("net/ipv4/conf/all/arp_announce", "2");
            for instance in &self.instances {
                host.run(&format!("ip addr add {}/32 dev lo", instance.vip));
            }
        }
    }

    fn interfaces(&self) -> BTreeSet<&str> {
        let interfaces = self.instances.iter();
        interfaces
            .map(|instance| instance.interface.as_str())
            .collect()
    }

    /// Whom keepalived speaks to, and whom vipherald therefore asks.
    fn unicast_peers(&self) -> Vec<Ipv4Addr> {
        let block = self.text.split_once("unicast_peer {");
        let block = block.and_then(|(_, rest)| rest.split_once('}'));
        let peers = block.map_or("", |(peers, _)| peers).split_whitespace();
        peers.map(|peer| peer.parse().unwrap()).collect()
    }

    /// The example with another program for hooks, for where this test runs.
    fn with_hook(&self, hook: &Path, fifo: &Path) -> String {
        let text = self.text.replace(INSTALLED, hook.to_str().unwrap());
        let text = text.replace(FIFO, fifo.to_str().unwrap());
        // The lab runs VRRP alone. This would want ip_vs, which not every kernel has.
        let text = text.replace("lvs_sync_daemon eth0 VI_1", "");
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
}

impl Hooks<'_> {
    /// What vipherald is called with for a state: all of it, but for an instance's priority.
    fn told(&self, state: &str) -> String {
        match self {
            Self::Notify { yielded, .. } if state == "MASTER_RX_LOWER_PRI" => (*yielded).to_owned(),
            Self::Notify {
                group: Some(name), ..
            } => format!("notify GROUP {name} {state} 0"),
            Self::Notify { of, .. } => format!("notify INSTANCE {} {state} ", of.name),
            Self::Explicit(instance) => {
                let notification = format!("notify_{}", state.to_lowercase());
                arguments(instance.hook(&notification)).to_owned()
            }
            Self::Fifo(script) => format!("{script} "),
        }
    }

    /// The command line of each state, whole.
    fn commands(&self) -> impl Iterator<Item = (&'static str, String)> {
        let states = ["MASTER", "MASTER_RX_LOWER_PRI", "BACKUP", "FAULT", "STOP"];
        states.into_iter().map(move |state| {
            let mut told = self.told(state);
            if told.ends_with(' ') {
                told += match self {
                    Self::Fifo(_) => FIFO,
                    _ => "100",
                };
            }
            (state, told)
        })
    }
}

/// What follows a keyword on its line, without quotes.
fn value<'a>(text: &'a str, keyword: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let value = line.trim().strip_prefix(keyword)?.strip_prefix(' ')?;
        Some(value.trim_matches('"'))
    })
}

/// The first address of a block, without its prefix length.
fn first_in<'a>(text: &'a str, block: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("{block} {{")).unwrap();
    rest.split(['/', '}']).next().unwrap().trim()
}

/// What a hook gives to the program.
fn arguments(hook: &str) -> &str {
    let arguments = hook
        .strip_prefix(INSTALLED)
        .and_then(|rest| rest.strip_prefix(' '));
    arguments.unwrap_or_else(|| panic!("{hook}"))
}

/// An example on a host of its own, where its hooks run vipherald, and what they are called with
/// is written down.
struct Node {
    example: Example,
    host: Host,
    text: String,
    /// The arguments of each call, a line each.
    told: PathBuf,
    /// What vipherald logged.
    log: PathBuf,
}

impl Node {
    fn new(lab: &Lab, name: &str, host: &str, priority: Option<u8>) -> Self {
        let mut example = Example::read(&Path::new("examples/keepalived").join(name));
        if let Some(priority) = priority {
            let own = format!("priority {}\n", value(&example.text, "priority").unwrap());
            let other = format!("priority {priority}\n");
            example.text = example.text.replace(&own, &other);
        }
        let host_name = host;
        let host = lab.host(host_name);
        example.prepare(&host);
        let program = lab.install_hook(VIPHERALD);
        let of_host = |suffix: &str| lab.directory().join(format!("{host_name}.{suffix}"));
        let (file, told, log) = (of_host("conf"), of_host("told"), of_host("log"));
        let hook = lab.write_hook(
            &format!("{host_name}.hook"),
            &format!(
                "echo \"$@\" >> {}\nexec {} --keepalived-conf {} --log stderr \"$@\" 2>> {}",
                told.display(),
                program.display(),
                file.display(),
                log.display(),
            ),
        );
        let text = example.with_hook(&hook, &of_host("fifo"));
        fs::write(&file, &text).unwrap();
        let verdict = host.try_run(&format!(
            "keepalived --config-test --use-file {}",
            file.display()
        ));
        assert!(verdict.status.success(), "{verdict:?}");
        assert!(verdict.stderr.is_empty(), "{verdict:?}");
        let show = format!("--keepalived-conf {} show --json", file.display());
        let shown = run(&host, &show).exits(0).report();
        assert_eq!(shown["warnings"], serde_json::json!([]));
        for instance in shown["instances"].as_array().unwrap() {
            assert_ne!(instance["wired"], serde_json::json!([]), "{instance}");
        }
        Self {
            example,
            host,
            text,
            told,
            log,
        }
    }

    fn start(&self) -> Keepalived {
        self.host.keepalived(&self.text)
    }

    /// How often vipherald was called so.
    fn times_told(&self, call: &str) -> usize {
        let calls = fs::read_to_string(&self.told).unwrap_or_default();
        let is_it = |line: &&str| match call.strip_suffix(' ') {
            Some(_) => line.starts_with(call),
            None => *line == call,
        };
        calls.lines().filter(is_it).count()
    }

    fn wait_until_told(&self, call: &str) {
        eventually(&format!("vipherald {call}"), SOON, || {
            (self.times_told(call) > 0).then_some(())
        });
    }

    /// Has the kernel remember a former owner of every VIP.
    fn remember_former_owner(&self) {
        for instance in &self.example.instances {
            let (vip, interface) = (instance.vip, &instance.interface);
            let entry = format!("{vip} lladdr {OLD_MAC} dev {interface} nud stale");
            self.host.run(&format!("ip neigh replace {entry}"));
        }
    }

    fn wait_until_forgotten(&self, vip: IpAddr) {
        eventually("the former owner's MAC is purged", SOON, || {
            self.host.neighbour(vip).is_none().then_some(())
        });
    }

    fn vipherald_log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Runs an example on a host of its own: BACKUP, MASTER, stopped.
fn keepalived_runs_the_hooks_of(name: &str) {
    let lab = Lab::new();
    let node = Node::new(&lab, name, "node", None);
    let example = &node.example;
    node.remember_former_owner();
    let captures: BTreeMap<_, _> = example
        .interfaces()
        .into_iter()
        .map(|interface| (interface, node.host.capture_on(interface)))
        .collect();
    let mut keepalived = node.start();
    for instance in &example.instances {
        let (vip, hooks) = (instance.vip, example.hooks(instance));
        let capture = &captures[instance.interface.as_str()];
        node.wait_until_told(&hooks.told("BACKUP"));
        node.wait_until_forgotten(vip);
        keepalived.wait_for_state(&instance.name, "MASTER", SOON);
        node.wait_until_told(&hooks.told("MASTER"));
        let announced = capture.wait_for(SOON, |frame| is_vipheralds(frame, vip));
        assert!(announced.is_some(), "{vip}: {}", node.vipherald_log());
        // keepalived and the kernel ask from the node's own address.
        for peer in example.unicast_peers() {
            let asked = capture.wait_for(SOON, |frame| is_question(frame, vip, peer));
            assert!(asked.is_some(), "{vip}, {peer}: {}", node.vipherald_log());
        }
    }
    let log = keepalived.log();
    for complaint in [
        "WARN", "nknown", "SECURITY", "isabl", "nable to", "nvalid", "gnoring",
    ] {
        assert!(!log.contains(complaint), "{complaint}: {log}");
    }
    let log = node.vipherald_log();
    for complaint in [
        "cannot",
        "could not",
        "no CAP",
        "keepalived.conf",
        "ignored",
    ] {
        assert!(!log.contains(complaint), "{complaint}: {log}");
    }

    fs::write(&node.told, "").unwrap();
    assert!(keepalived.stop().success());
    for instance in &example.instances {
        match example.hooks(instance) {
            // keepalived ends what follows the FIFO just before it writes STOP.
            Hooks::Fifo(_) => {}
            hooks => node.wait_until_told(&hooks.told("STOP")),
        }
    }
}

/// Two nodes with an example: both are master while their link is cut, and one yields.
fn a_master_announces_again_with(name: &str) {
    let lab = Lab::new();
    let node = Node::new(&lab, name, "node", Some(200));
    let other = Node::new(&lab, name, "other", Some(150));
    let instance = &node.example.instances[0];
    let hooks = node.example.hooks(instance);
    let mut ours = node.start();
    let mut others = other.start();
    ours.wait_for_state(&instance.name, "MASTER", SOON);
    others.wait_for_state(&instance.name, "BACKUP", SOON);
    lab.blackout(&other.host);
    others.wait_for_state(&instance.name, "MASTER", SOON);
    let capture = node.host.capture();
    let is_new = |frame: &Frame| is_vipheralds(frame, instance.vip);
    // The rounds of the first announcement are over.
    eventually("silence", SOON, || {
        drop(capture.frames());
        capture
            .wait_for(Duration::from_secs(4), is_new)
            .is_none()
            .then_some(())
    });
    let before = node.times_told("notify ");
    // The other one, if it heard first, would yield without having been heard.
    lab.loss([&other.host], Direction::ToHost, 100.0);
    lab.restore(&other.host);
    assert!(
        capture.wait_for(SOON, is_new).is_some(),
        "{}",
        node.vipherald_log()
    );
    lab.loss([&other.host], Direction::ToHost, 0.0);
    others.wait_for_state(&instance.name, "BACKUP", SOON);
    let yielded = hooks.told("MASTER_RX_LOWER_PRI");
    node.wait_until_told(&yielded);
    // `notify` gets no such event, and so the example needs the line beside it.
    if let Hooks::Notify { .. } = hooks {
        let told = node.times_told("notify ") - before;
        assert_eq!(told, node.times_told(&yielded));
    }
    assert_eq!(ours.state(&instance.name).as_deref(), Some("MASTER"));
}

/// Whether the frame speaks for the VIP and comes neither from keepalived, which sends no ARP
/// replies, nor from the kernel, which does not probe for the addresses that keepalived adds.
fn is_vipheralds(frame: &Frame, vip: IpAddr) -> bool {
    let payload = frame.payload();
    is_sent(frame)
        && match vip {
            IpAddr::V4(vip) => {
                Arp::read(frame).is_some_and(|arp| arp.operation == 2 && arp.sender.1 == vip)
            }
            IpAddr::V6(vip) => {
                // A neighbour solicitation for the VIP.
                frame.ether_type() == IPV6
                    && payload[6] == 58
                    && payload[40] == 135
                    && payload[48..64] == vip.octets()
            }
        }
}

/// Whether the frame asks the peer from the VIP.
fn is_question(frame: &Frame, vip: IpAddr, peer: Ipv4Addr) -> bool {
    is_sent(frame)
        && is_request_for(frame, peer)
        && Arp::read(frame).is_some_and(|arp| arp.sender.1 == vip)
}
