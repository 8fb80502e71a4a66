//! Prints models in keepalived's many spellings and reads them back.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// `count` consecutive addresses from `first`.
#[derive(Clone, Debug)]
struct Run {
    first: IpAddr,
    count: u8,
    prefix_len: Option<u8>,
    dev: Option<&'static str>,
}

impl Run {
    fn address(&self, index: u8) -> IpAddr {
        match self.first {
            IpAddr::V4(first) => {
                let [a, b, c, d] = first.octets();
                Ipv4Addr::from([a, b, c, d + index]).into()
            }
            IpAddr::V6(first) => {
                let mut octets = first.octets();
                octets[15] += index;
                Ipv6Addr::from(octets).into()
            }
        }
    }

    fn read_back(&self, interface: &str) -> Vec<VirtualAddress> {
        let one = |index| VirtualAddress {
            address: self.address(index),
            prefix_len: self
                .prefix_len
                .unwrap_or(crate::address::full_length(self.first)),
            dev: Some(self.dev.unwrap_or(interface).to_owned()),
        };
        (0..self.count).map(one).collect()
    }
}

#[derive(Clone, Debug)]
struct ModelInstance {
    interface: &'static str,
    id: u8,
    vmac: bool,
    vips: Vec<Run>,
    excluded: Vec<Run>,
    peers: Vec<Ipv4Addr>,
}

#[derive(Clone, Debug)]
struct Model {
    instances: Vec<ModelInstance>,
    /// How many of the instances, from the first, each group has.
    groups: Vec<usize>,
}

impl Model {
    fn read_back(&self) -> Configuration {
        let mut configuration = Configuration::default();
        for (number, model) in self.instances.iter().enumerate() {
            let own = model.vmac.then(|| format!("vip{number}"));
            let dev = own.as_deref().unwrap_or(model.interface);
            let addresses = |runs: &[Run]| {
                let read_back = runs.iter().flat_map(|run| run.read_back(model.interface));
                let mut all: Vec<_> = read_back.collect();
                for address in &mut all {
                    // IPv4 addresses on the instance's interface are on its VMAC.
                    if address.address.is_ipv4() && address.dev.as_deref() == Some(model.interface)
                    {
                        address.dev = Some(dev.to_owned());
                    }
                }
                all
            };
            configuration.instances.push(Instance {
                name: format!("VI_{number}"),
                interface: Some(model.interface.to_owned()),
                vmac: own.clone(),
                virtual_router_id: Some(model.id),
                vips: addresses(&model.vips),
                excluded: addresses(&model.excluded),
                peers: model.peers.iter().copied().map(IpAddr::V4).collect(),
                hooks: Vec::new(),
            });
        }
        let mut first = 0;
        for (number, &count) in self.groups.iter().enumerate() {
            let members = first..(first + count).min(self.instances.len());
            first = members.end;
            if !members.is_empty() {
                configuration.groups.push(Group {
                    name: format!("G{number}"),
                    instances: members.map(|member| format!("VI_{member}")).collect(),
                    hooks: Vec::new(),
                });
            }
        }
        configuration
    }
}

/// Prints a model. `choices` selects the spellings.
struct Printer<'a> {
    choices: std::iter::Cycle<std::slice::Iter<'a, u8>>,
    files: Memory,
    text: String,
    directory: String,
    /// Inside a multi-line definition, without further spellings.
    plain: bool,
    names: usize,
}

impl Printer<'_> {
    /// One of `count` spellings.
    fn choose(&mut self, count: u8) -> u8 {
        self.choices.next().unwrap() % count
    }

    fn name(&mut self) -> usize {
        self.names += 1;
        self.names
    }

    fn line(&mut self, line: &str) {
        if self.plain {
            writeln!(self.text, "{line}").unwrap();
            return;
        }
        let before = [
            "",
            "  ",
            "\t",
            "# { \"\n",
            "\n! }\n",
            "@other interface lo\n",
            "@me ",
            "@^other  ",
        ];
        let after = ["", " ", " # }", "\t!{ \"", "\r", "\n\n"];
        let before = before[usize::from(self.choose(8))];
        let after = after[usize::from(self.choose(6))];
        // keepalived reads a conditional include twice.
        let conditional = before.contains("me") || before.contains('^');
        let (before, after) = match (line.starts_with("include"), conditional) {
            (true, true) => ("", ""),
            (true, false) => (before, ""),
            (false, _) => (before, after),
        };
        writeln!(self.text, "{before}{line}{after}").unwrap();
    }

    /// A word, plain, quoted or as a definition.
    fn word(&mut self, word: &str) -> String {
        match self.choose(5) {
            0 => format!("\"{word}\""),
            1 | 2 => {
                let name = format!("D{}", self.name());
                self.line(&format!("${name}={word}"));
                if self.choose(2) == 0 {
                    format!("${{{name}}}")
                } else {
                    format!("${name} ")
                }
            }
            3 if word.len() > 1 => {
                // One definition inside another.
                let (outer, inner) = (self.name(), self.name());
                let (first, second) = word.split_at(1);
                self.line(&format!("$D{outer}={first}${{D{inner}}}"));
                self.line(&format!("$D{inner}={second}"));
                format!("${{D{outer}}}")
            }
            _ => word.to_owned(),
        }
    }

    fn keyword(&mut self, keyword: &str, parameter: &str) {
        let parameter = self.word(parameter);
        self.line(&format!("{keyword} {parameter}"));
    }

    /// A block, whose contents may be in another file or in a multi-line definition.
    fn block(&mut self, header: &str, inside: impl FnOnce(&mut Self)) {
        match self.choose(3) {
            0 => self.line(&format!("{header} {{")),
            1 => self.line(&format!("{header}{{")),
            _ => {
                self.line(header);
                self.line("{");
            }
        }
        self.somewhere(inside);
        self.line("}");
    }

    fn somewhere(&mut self, write: impl FnOnce(&mut Self)) {
        match self.choose(4) {
            0 if !self.plain => self.included(write),
            1 if !self.plain => self.defined(write),
            _ => write(self),
        }
    }

    fn included(&mut self, write: impl FnOnce(&mut Self)) {
        let number = self.name();
        let outside = std::mem::take(&mut self.text);
        let directory = self.directory.clone();
        let beside = format!("{directory}/f{number}.inc");
        let elsewhere = format!("/abs/f{number}.inc");
        let below = format!("{directory}/d{number}/f.inc");
        let (pattern, path) = match self.choose(4) {
            0 => (format!("f{number}.inc"), beside),
            1 => (elsewhere.clone(), elsewhere),
            2 => (format!("d{number}/?.i[mn]c"), below),
            _ => (format!("{{none,f{number}}}.*"), beside),
        };
        let (parent, _) = path.rsplit_once('/').unwrap();
        parent.clone_into(&mut self.directory);
        write(self);
        self.directory = directory;
        let inside = std::mem::replace(&mut self.text, outside);
        self.files = std::mem::take(&mut self.files).with(path, inside);
        self.line(&format!("include {pattern}"));
    }

    fn defined(&mut self, write: impl FnOnce(&mut Self)) {
        let number = self.name();
        let outside = std::mem::take(&mut self.text);
        self.plain = true;
        write(self);
        self.plain = false;
        let inside = std::mem::replace(&mut self.text, outside);
        let lines: Vec<&str> = inside.lines().collect();
        writeln!(self.text, "$M{number}= \\\n{}\n", lines.join(" \\\n")).unwrap();
        self.line(&format!("$M{number}"));
    }

    fn run(&mut self, run: &Run) {
        let mut options = run
            .prefix_len
            .map_or(String::new(), |length| format!("/{length}"));
        if let Some(dev) = run.dev {
            let dev = self.word(dev);
            write!(options, " dev {dev}").unwrap();
        }
        options += ["", " scope link", " home no_track"][usize::from(self.choose(3))];
        let IpAddr::V4(first) = run.first else {
            for index in 0..run.count {
                self.line(&format!("{}{options}", run.address(index)));
            }
            return;
        };
        let [a, b, c, d] = first.octets();
        let last = d + run.count - 1;
        match self.choose(4) {
            0 => self.line(&format!("~SEQ(i, {d}, {last}) {a}.{b}.{c}.${{i}}{options}")),
            1 => {
                let all: Vec<String> = (d..=last).map(|d| d.to_string()).collect();
                let all = all.join(", ");
                self.line(&format!("~LST(i, {all}) {a}.{b}.{c}.${{i}}{options}"));
            }
            _ => {
                for d in d..=last {
                    let address = format!("{a}.{b}.{c}.{d}");
                    let address = if options.starts_with('/') {
                        address
                    } else {
                        self.word(&address)
                    };
                    self.line(&format!("{address}{options}"));
                }
            }
        }
    }

    fn runs(&mut self, keyword: &str, runs: &[Run]) {
        // A single address may stand on the line of its braces.
        if let [run] = runs
            && run.count == 1
            && run.prefix_len.is_none()
            && run.dev.is_none()
            && self.choose(2) == 0
        {
            self.line(&format!("{keyword} {{ {} }}", run.first));
        } else if !runs.is_empty() {
            self.block(keyword, |this| runs.iter().for_each(|run| this.run(run)));
        }
    }

    fn instance(&mut self, number: usize, instance: &ModelInstance) {
        let name = self.word(&format!("VI_{number}"));
        self.block(&format!("vrrp_instance {name}"), |this| {
            this.keyword("interface", instance.interface);
            this.keyword("virtual_router_id", &instance.id.to_string());
            if instance.vmac {
                this.keyword("use_vmac", &format!("vip{number}"));
                this.line("future_keyword $UNKNOWN_ONE");
            }
            this.runs("virtual_ipaddress", &instance.vips);
            this.runs("virtual_ipaddress_excluded", &instance.excluded);
            if !instance.peers.is_empty() {
                this.block("unicast_peer", |this| {
                    for peer in &instance.peers {
                        this.line(&format!("{peer} min_ttl 1"));
                    }
                });
            }
            this.block("track_interface", |this| this.line("eth9 weight 1"));
        });
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in self.names(Path::new("/etc")).unwrap_or_default() {
            let path = Path::new("/etc").join(name);
            let text = self.read(&path, usize::MAX).unwrap_or_default();
            writeln!(
                f,
                "--- {}\n{}",
                path.display(),
                String::from_utf8_lossy(&text)
            )?;
        }
        Ok(())
    }
}

fn print(model: &Model, choices: &[u8]) -> Memory {
    let mut printer = Printer {
        choices: choices.iter().cycle(),
        files: Memory::default(),
        text: String::new(),
        directory: "/etc".to_owned(),
        plain: false,
        names: 0,
    };
    for (number, instance) in model.instances.iter().enumerate() {
        printer.somewhere(|printer| printer.instance(number, instance));
    }
    let mut first = 0;
    for (number, &count) in model.groups.iter().enumerate() {
        printer.block(&format!("vrrp_sync_group G{number}"), |printer| {
            printer.block("group", |printer| {
                for member in first..first + count {
                    // A member beyond the last instance does not exist.
                    printer.line(&format!("VI_{member}"));
                }
            });
        });
        first += count;
    }
    let Printer { files, text, .. } = printer;
    files.with("/etc/keepalived.conf", text)
}

fn interface() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["eth0", "bond0.169", "br-lan"])
}

fn run(ipv6: bool) -> impl Strategy<Value = Run> {
    let options = (
        1..5_u8,
        prop::option::of(1..32_u8),
        prop::option::of(interface()),
    );
    (any::<[u8; 2]>(), 1..200_u8, options).prop_map(move |(net, host, (count, prefix_len, dev))| {
        let first = if ipv6 {
            let [c, d] = net.map(u16::from);
            Ipv6Addr::from([0xfd00, c, d, 0, 0, 0, 0, u16::from(host)]).into()
        } else {
            Ipv4Addr::from([10, net[0], net[1], host]).into()
        };
        Run {
            first,
            count,
            prefix_len,
            dev,
        }
    })
}

fn instance() -> impl Strategy<Value = ModelInstance> {
    let excluded = prop::collection::vec(any::<bool>().prop_flat_map(run), 0..3);
    (
        (interface(), 1..250_u8, any::<bool>()),
        prop::collection::vec(run(false), 1..4),
        excluded,
        prop::collection::vec(any::<[u8; 2]>(), 0..4),
    )
        .prop_map(
            |((interface, id, vmac), vips, excluded, peers)| ModelInstance {
                interface,
                id,
                vmac,
                vips,
                excluded,
                peers: peers
                    .into_iter()
                    .map(|[c, d]| Ipv4Addr::from([192, 168, c, d]))
                    .collect(),
            },
        )
}

fn model() -> impl Strategy<Value = Model> {
    (
        prop::collection::vec(instance(), 1..5),
        prop::collection::vec(1..4_usize, 0..3),
    )
        .prop_map(|(mut instances, groups)| {
            // keepalived does not start if two instances on an interface have the same id.
            for (number, instance) in (0_u8..).zip(&mut instances) {
                instance.id = instance.id / 5 * 5 + 1 + number;
            }
            Model { instances, groups }
        })
}

fn me() -> Options {
    Options {
        config_id: Some("me".to_owned()),
        assumed_id: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_spelling_does_not_change_the_meaning(
        model in model(),
        choices in prop::collection::vec(any::<u8>(), 1..200),
    ) {
        let files = print(&model, &choices);
        let read = read(&files, Path::new("/etc/keepalived.conf"), &me()).unwrap();
        let expected = model.read_back();
        prop_assert_eq!(&read.refused.first(), &None, "{}", files);
        prop_assert_eq!(&read.instances, &expected.instances, "{}", files);
        prop_assert_eq!(&read.groups, &expected.groups, "{}", files);
    }

    #[test]
    fn reading_never_panics(text in "[ -~\n]{0,40}", pieces in prop::collection::vec(
        prop::sample::select(vec![
            "vrrp_instance VI_1 {", "virtual_ipaddress {", "}", "{", "\"", "\n", " ", "\\\n", "$A=", "$A",
            "${A}", "@me ", "@x ", "~SEQ(i,3)", "~LST(", "include /k", "#", "10.0.0.1", "group", "\0",
            "vrrp_sync_group G", "virtual_server x {", "é", "$_RANDOM", "use_vmac", "interface eth0",
        ]), 0..60)
    ) {
        let text = pieces.concat() + &text;
        let files = Memory::default().with("/k", &text).with("/m", &text);
        let _ = read(&files, Path::new("/k"), &me());
        let _ = read(&files, Path::new("/m"), &Options::default());
    }
}

/// Reads a single file, within 20 s.
fn read_text(text: &str) -> Configuration {
    let files = Memory::default().with("/k", text);
    let start = std::time::Instant::now();
    let read = read(&files, Path::new("/k"), &me()).unwrap();
    let took = start.elapsed();
    assert!(took.as_secs() < 20, "{} bytes took {took:?}", text.len());
    read
}

#[test]
fn hostile_files_are_read_in_bounded_time() {
    // Unoptimized code is slower.
    const SIZE: usize = if cfg!(debug_assertions) {
        1 << 19
    } else {
        8 << 20
    };
    let fill = |unit: &str| unit.repeat(SIZE / unit.len());
    for unit in [
        "{",
        "}",
        "\"",
        "a ",
        "\\\n",
        "\n",
        "$A=$A\n$A\n",
        "$A=x\n${A}${A}\n",
        "@y }\n",
        "@$A\n",
        "a\\#",
        "~SEQ(i,60000) x\n",
        "~LST(i,1,2) ~LST(j,1,2) x\n",
        "include /none/*\n",
        "include /k\n",
        "vrrp_instance {\n",
        "vrrp_sync_group G { group { a } }\n",
        "$_RANDOM\n",
        "\0\n",
        "é",
    ] {
        read_text(&fill(unit));
    }
    let mut many = String::new();
    let mut number = 0;
    while many.len() < SIZE {
        number += 1;
        write!(many, "vrrp_instance V{number} {{\nuse_vmac\nvirtual_router_id 9\nvirtual_ipaddress {{\n10.0.0.1 use_vmac\n}}\n}}\n").unwrap();
    }
    assert!(read_text(&many).instances().len() == number);
    read_text(&format!("$A={}\n{}", "x\\\n".repeat(1000), fill("$A\n")));
    read_text(&format!(
        "$A=\n$B={}\n$C={}\n{}",
        "${A}".repeat(100),
        "${B}".repeat(90),
        fill("$C\n")
    ));
}

#[test]
fn a_problem_names_its_line() {
    for (before, line) in [("", 4), ("\n# a comment\n", 6)] {
        let text = format!(
            "{before}vrrp_instance VI_1 {{\n interface eth0\n virtual_ipaddress {{\n  $_RANDOM\n }}\n}}\n"
        );
        let problem = read_text(&text).instance("VI_1").unwrap_err().to_string();
        assert!(problem.starts_with(&format!("/k:{line}: ")), "{problem}");
    }
}

#[test]
fn includes_that_multiply_are_bounded() {
    let mut files = Memory::default();
    for number in 0..60 {
        let next = number + 1;
        files = files.with(
            format!("/f{number}"),
            format!("include /f{next}\ninclude /f{next}\n"),
        );
    }
    let read = read(&files, Path::new("/f0"), &me()).unwrap();
    assert!(
        read.warnings()
            .iter()
            .any(|warning| warning.message.contains("4,096 files"))
    );
}

#[test]
fn hooks_are_the_scripts_that_keepalived_runs() {
    let read = read_text(
        "global_defs {\nenable_script_security\nscript_user root\nvrrp_notify_fifo /run/f\n\
         vrrp_notify_fifo_script \"/v fifo\"\nnotify_fifo_script /without/fifo\nlvs_notify_fifo_script /lvs\n}\n\
         vrrp_instance VI_1 {\ninterface eth0\nvirtual_router_id 51\n\
         notify \"/mine --state\" nobody\nnotify_master '/v announce \\\"10.0.0.1\\\"'\n notify /v\n\
         virtual_ipaddress { 10.0.0.1 }\n}\n\
         vrrp_sync_group G {\ngroup { VI_1 }\nnotify_stop /v\nnotify_stop /w\n}\n",
    );
    let commands = |hooks: &[Hook]| {
        let command = |hook: &Hook| format!("{}: {}", hook.keyword, hook.command.join("|"));
        hooks.iter().map(command).collect::<Vec<_>>()
    };
    let instance = read.instance("VI_1").unwrap();
    let hooks = commands(&instance.hooks);
    assert_eq!(
        hooks,
        [
            "notify: /mine|--state",
            "notify_master: /v|announce|10.0.0.1"
        ]
    );
    assert_eq!(instance.hooks[0].user.as_deref(), Some("nobody"));
    assert_eq!(instance.hooks[1].line, 13);
    let of_group = commands(&read.group("G").unwrap().hooks);
    assert_eq!(of_group, ["notify_stop: /v"]);
    let scripts = read.scripts();
    assert!(scripts.security);
    assert_eq!(scripts.user.as_deref(), Some("root"));
    let fifos = commands(&scripts.fifos);
    assert_eq!(fifos, ["vrrp_notify_fifo_script: /v|fifo"]);
    let warnings: Vec<_> = read.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "/k:14: vrrp_instance VI_1: a second notify: keepalived ignores it, and runs that of line 12",
            "/k:20: vrrp_sync_group G: a second notify_stop: keepalived ignores it, and runs that of line 19",
        ]
    );
    assert_eq!(read.files(), [Path::new("/k")]);
}

#[test]
fn real_servers_are_those_with_direct_routing_or_a_tunnel() {
    let read = read_text(
        "virtual_server 10.0.0.1 80 {\n delay_loop 6\n real_server 10.0.0.2 80 {\n weight 1\n }\n\
         lb_kind DR\n real_server 10.0.0.3 80 { TCP_CHECK { connect_port 80 } lvs_method NAT }\n\
         real_server 10.0.0.4 80\n {\n HTTP_GET {\n url { path / }\n }\n }\n\
         real_server nonsense 80 {\n lvs_method NAT\n }\n sorry_server 10.0.0.5 80 }\n\
         virtual_server group G {\n $M=TUN\n lvs_method $M type gue port 6080\n\
         real_server fd00::6 80 {\n }\n lvs_method NAT\n real_server 10.0.0.7-9 80 {\n lvs_method DR\n } }\n\
         virtual_server_group G {\n 10.0.0.1 80\n real_server 10.0.0.8 80\n }\n\
         vrrp_instance VI_1 {\n interface eth0\n virtual_router_id 51\n virtual_ipaddress { 10.0.0.1 }\n }\n",
    );
    let addresses: Vec<_> = read.real_servers().map(|it| it.to_string()).collect();
    assert_eq!(addresses, ["10.0.0.4", "fd00::6", "10.0.0.7"]);
    assert_eq!(read.instance("VI_1").unwrap().vips.len(), 1);
    let unfinished = read_text("virtual_server x {\nlb_kind TUN\nreal_server 10.0.0.2 80 {\n");
    assert_eq!(unfinished.real_servers().count(), 1);
}

#[test]
fn an_error_names_the_file_that_can_not_be_read() {
    let files = Memory::default().with("/etc/keepalived.conf", "");
    for path in ["/none/keepalived.conf", "/"] {
        let error = read(&files, Path::new(path), &me())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(&format!("can't read {path}: ")),
            "{error}"
        );
    }
}
