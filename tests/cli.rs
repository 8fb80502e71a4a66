//! The command line: bad input gets a clear error and its exit status, and nothing happens.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, pipe};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use vipherald_lab::{Capture, Host, Lab};

use common::{
    BEFORE_THE_ROUNDS_END, Ended, OLD_MAC, Run, SUSPENDED, VIP, VIP6, fill, give, ip_batch, run,
    second_interface, signal, taken, vipherald, wait_for_announcement, watch_for,
    what_gives_privilege, with_own_directory, without_privilege,
};

/// A host that holds `VIP`, remembers the other VIPs of these tests, and is watched.
struct Watched {
    lab: Lab,
    host: Host,
    capture: Capture,
}

/// A VIP of another host.
const OTHER: &str = "10.9.0.101";

impl Watched {
    fn new() -> Self {
        let lab = Lab::new();
        let host = lab.host("a");
        give(&host, VIP, "eth0");
        host.remember_as(OTHER, OLD_MAC, vipherald_lab::State::Stale);
        let capture = host.capture();
        Self { lab, host, capture }
    }

    /// `arguments` are refused with this status and with words; nothing is sent or deleted.
    fn refuses(&self, arguments: &str, status: i32, words: &[&str]) {
        self.refused(&run(&self.host, arguments), arguments, status, words);
    }

    fn refused(&self, ended: &Ended, what: &str, status: i32, words: &[&str]) {
        assert_eq!(ended.status, status, "{what}: {ended:?}");
        assert!(ended.stderr.starts_with("error: "), "{what}: {ended:?}");
        assert!(
            !ended.stderr.starts_with("error: error"),
            "{what}: {ended:?}"
        );
        for word in words {
            assert!(ended.stderr.contains(word), "{what}: {word}: {ended:?}");
        }
        assert_eq!(ended.stderr.lines().count(), 1, "{what}: {ended:?}");
        assert_eq!(ended.stdout, "", "{what}");
        assert_eq!(taken(&self.capture), [], "{what}");
        let kept = self.host.neighbour(OTHER).and_then(|entry| entry.mac);
        assert_eq!(kept, OLD_MAC.parse().ok(), "{what}");
    }

    /// The test can fail: what is not refused does send and delete.
    fn would_act(&self) {
        assert_eq!(
            run(&self.host, &format!("announce {VIP} --timeout 2")).status,
            0
        );
        assert_eq!(run(&self.host, &format!("purge {OTHER}")).status, 0);
        assert!(!taken(&self.capture).is_empty());
        assert!(self.host.neighbour(OTHER).is_none());
    }
}

#[test]
fn what_is_no_virtual_ip_is_refused_and_nothing_is_sent_or_deleted() {
    let watched = Watched::new();
    for (bad, why) in [
        ("vip", "not an IPv4 or IPv6 address"),
        ("10.9.0.300", "not an IPv4 or IPv6 address"),
        ("10.9.0.100/24", "without prefix length"),
        ("fe80::1%eth0", "zone"),
        ("224.0.0.18", "multicast"),
        ("ff02::12", "multicast"),
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("255.255.255.255", "broadcast"),
        ("::ffff:10.9.0.100", "IPv4-mapped"),
    ] {
        // Beside a good one, too: all or nothing.
        watched.refuses(&format!("announce {VIP} {bad}"), 2, &[bad, why]);
        watched.refuses(&format!("purge {OTHER} {bad}"), 2, &[bad, why]);
    }
    watched.would_act();
}

#[test]
fn numbers_out_of_bounds_are_refused() {
    let watched = Watched::new();
    for (option, words) in [
        ("--rate 0", ["--rate", "from 1 to 1000000"]),
        ("--rate 1000001", ["--rate", "from 1 to 1000000"]),
        ("--rate 1.5", ["--rate", "not a whole number"]),
        ("--rate=-1", ["--rate", "not a whole number"]),
        ("--timeout 0", ["--timeout", "more than 0"]),
        ("--timeout x", ["--timeout", "not a number"]),
        ("--timeout 1e9", ["--timeout", "86400"]),
        ("--wait=-1", ["--wait", "from 0"]),
        ("--wait nan", ["--wait", "from 0"]),
    ] {
        watched.refuses(&format!("announce {VIP} {option}"), 2, &words);
    }
    watched.would_act();
}

#[test]
fn a_command_line_that_makes_no_sense_is_refused() {
    let watched = Watched::new();
    for (arguments, words) in [
        ("", ["subcommand", "announce"]),
        ("anounce 10.9.0.100", ["anounce", "unrecognized"]),
        ("announce", ["required", "<VIP"]),
        ("purge", ["required", "<VIP"]),
        ("announce 10.9.0.100 --loud", ["--loud", "unexpected"]),
        ("purge 10.9.0.101 --rate 5", ["--rate", "unexpected"]),
        ("-q -v announce 10.9.0.100", ["--quiet", "--verbose"]),
    ] {
        watched.refuses(arguments, 2, &words);
    }
    let host = &watched.host;
    let nothing_at_all = host.command(common::VIPHERALD);
    let ended = Run::start(with_own_directory(host, "/dev", "true", &nothing_at_all)).end();
    watched.refused(&ended, "nothing at all", 2, &["no command", "--help"]);
    watched.would_act();
}

#[test]
fn an_interface_that_is_not_there_or_down_is_told() {
    let watched = Watched::new();
    let host = &watched.host;
    for name in ["eth7", "a-name-that-is-too-long"] {
        watched.refuses(
            &format!("announce {VIP} -i {name}"),
            1,
            &["no interface", name],
        );
        watched.refuses(
            &format!("purge {OTHER} -i {name}"),
            1,
            &["no interface", name],
        );
    }
    second_interface(host);
    ip_batch(host, "link set v0 down\n");
    give(host, VIP6, "v0");
    // The IPv4 VIP stays on an interface that is set down; an IPv6 one leaves it.
    give(host, "10.8.0.100", "v0");
    for arguments in [
        "announce 10.8.0.100",
        "announce 10.8.0.100 -i v0",
        &format!("announce {VIP} -i v0"),
        &format!("announce {VIP} 10.8.0.100"),
    ] {
        watched.refuses(arguments, 1, &["v0", "down", "ip link set v0 up"]);
    }
    watched.would_act();
}

#[test]
fn an_interface_without_arp_is_told() {
    let watched = Watched::new();
    let host = &watched.host;
    second_interface(host);
    ip_batch(host, "link set v0 arp off\n");
    for (vip, interface, why) in [
        ("10.8.0.1", "lo", "loopback"),
        ("fd08::1", "lo", "loopback"),
        ("10.8.0.3", "v0", "NOARP"),
    ] {
        give(host, vip, interface);
        let words = ["cannot announce", interface, why];
        watched.refuses(&format!("announce {vip}"), 1, &words);
        watched.refuses(&format!("announce {vip} -i {interface}"), 1, &words);
        watched.refuses(&format!("announce {VIP} {vip}"), 1, &words);
    }
    watched.would_act();
}

#[test]
fn a_tunnel_is_told() {
    let watched = Watched::new();
    let host = &watched.host;
    let made = host.try_run("ip tuntap add dev tun0 mode tun");
    assert!(
        made.status.success(),
        "needs a /dev/net/tun that may be opened: `modprobe tun`, or run as root: {made:?}"
    );
    ip_batch(host, "link set tun0 up\n");
    for vip in ["10.8.0.2", "fd08::2"] {
        give(host, vip, "tun0");
        let words = ["cannot announce", "tun0"];
        watched.refuses(&format!("announce {vip}"), 1, &words);
        watched.refuses(&format!("announce {vip} -i tun0"), 1, &words);
    }
    watched.would_act();
}

#[test]
fn without_privilege_it_names_the_capability_and_keepaliveds_setting() {
    let watched = Watched::new();
    let command = without_privilege(&watched.lab, &watched.host, &format!("announce {VIP}"));
    let ended = Run::start(command).end();
    let words = ["CAP_NET_RAW", what_gives_privilege(), "eth0"];
    watched.refused(&ended, "no privilege", 1, &words);
    watched.would_act();
}

#[test]
fn a_settings_file_that_is_wrong_is_told_with_line_and_key() {
    let watched = Watched::new();
    let file = watched.lab.directory().join("settings.toml");
    let path = file.display().to_string();
    for (text, line, words) in [
        ("wait = 1\nratte = 5\n", 2, ["unknown field", "ratte"]),
        (
            "\n\nrate = \"fast\"\n",
            3,
            ["rate = \"fast\"", "invalid type"],
        ),
        ("rate = 0\n", 1, ["rate = 0", "from 1 to 1000000"]),
        ("timeout = -1\n", 1, ["timeout = -1", "seconds"]),
        ("[announce]\nrate = 5\n", 1, ["unknown field", "announce"]),
        ("rate 5\n", 1, ["rate 5", ""]),
    ] {
        fs::write(&file, text).unwrap();
        let place = format!("{path}:{line}: ");
        let words = [&place, words[0], words[1]];
        watched.refuses(&format!("announce {VIP} --config {path}"), 2, &words);
        watched.refuses(&format!("purge {OTHER} --config {path}"), 2, &words);
    }
    // One that is named has to be there, and a file.
    for path in ["/nonexistent/v.toml", "/"] {
        let words = ["cannot read the settings", path];
        watched.refuses(&format!("announce {VIP} --config {path}"), 2, &words);
    }
    fs::write(&file, [0xff, 0xfe]).unwrap();
    watched.refuses(
        &format!("announce {VIP} --config {path}"),
        2,
        &[&path, "UTF-8"],
    );
    watched.would_act();
}

#[test]
fn a_settings_file_that_may_not_be_read_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let watched = Watched::new();
    let file = watched.lab.directory().join("settings.toml");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    let arguments = format!("announce {VIP} --config {}", file.display());
    let command = without_privilege(&watched.lab, &watched.host, &arguments);
    let words = [
        "cannot read the settings",
        "settings.toml",
        "ermission denied",
    ];
    watched.refused(&Run::start(command).end(), "unreadable", 2, &words);
}

#[test]
fn the_default_settings_file_may_be_missing_and_is_read_where_it_is() {
    let watched = Watched::new();
    let host = &watched.host;
    let announce = vipherald(host, &format!("announce {VIP} --timeout 3"));
    let missing = Run::start(with_own_directory(host, "/etc", "true", &announce)).end();
    assert_eq!(
        (missing.status, missing.stderr.lines().count()),
        (0, 1),
        "{missing:?}"
    );
    let announced = taken(&watched.capture).len();
    assert!(announced >= 6, "{announced}: three rounds take 0.2 s");

    let write = "mkdir /etc/vipherald && echo 'rate = 1' > /etc/vipherald/vipherald.toml";
    let slow = Run::start(with_own_directory(host, "/etc", write, &announce)).end();
    let announced = taken(&watched.capture).len();
    assert!(
        slow.status == 0 && announced <= 4,
        "{announced} at one a second: {slow:?}"
    );

    let write = "mkdir /etc/vipherald && echo 'rat = 1' > /etc/vipherald/vipherald.toml";
    let wrong = Run::start(with_own_directory(host, "/etc", write, &announce)).end();
    let words = ["/etc/vipherald/vipherald.toml:1: ", "rat"];
    watched.refused(&wrong, "wrong default", 2, &words);
}

#[test]
fn the_command_line_overrides_the_settings() {
    let watched = Watched::new();
    let file = watched.lab.directory().join("settings.toml");
    fs::write(&file, "rate = 1\ntimeout = 30\nwait = 30\n").unwrap();
    let settings = format!("--config {}", file.display());
    let overridden = "--rate 2000 --timeout 3 --wait 0";
    let announce = |vip| {
        let arguments = format!("announce {vip} {settings} {overridden}");
        let ended = run(&watched.host, &arguments);
        assert!(ended.lasted < BEFORE_THE_ROUNDS_END, "{ended:?}");
        (ended.status, taken(&watched.capture).len())
    };
    let (status, announced) = announce(VIP);
    assert!(status == 0 && announced >= 6, "{announced}");
    assert_eq!(announce(OTHER), (5, 0));
}

#[test]
fn help_and_version_go_to_stdout() {
    let say = |arguments: &[&str]| {
        let output = Command::new(common::VIPHERALD)
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
        String::from_utf8(output.stdout).unwrap()
    };
    let version = concat!("vipherald ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(say(&["--version"]), version);
    assert_eq!(say(&["-V"]), version);
    let help = say(&["--help"]);
    for word in [
        "announce",
        "purge",
        "--config",
        "--json",
        "--log",
        "--dry-run",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
    for word in ["--rate", "--wait", "--timeout", "--interface", "[VIP]"] {
        assert!(say(&["announce", "--help"]).contains(word), "{word}");
    }
    assert!(say(&["help", "purge"]).contains("--permanent"));
}

#[test]
fn without_descriptors_it_says_so_and_does_nothing() {
    let watched = Watched::new();
    // Standard input, output and error are three; and somewhere here there are enough.
    for limit in 3..20 {
        for arguments in [
            format!("announce {VIP} --timeout 0.1"),
            format!("purge {OTHER}"),
        ] {
            let mut limited = watched.host.command("sh");
            let script = format!("ulimit -n {limit} && exec \"$@\"");
            limited
                .args(["-c", &script, "sh", common::VIPHERALD, "--log", "stderr"])
                .args(arguments.split_whitespace())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let ended = Run::start(limited).end();
            // 127: it is the loader of libraries that has too few.
            if ![0, 127].contains(&ended.status) {
                let told =
                    ended.stderr.starts_with("error: ") && ended.stderr.contains("os error 24");
                assert!([1, 2].contains(&ended.status) && told, "{limit}: {ended:?}");
            }
        }
    }
    watched.would_act();
}

#[test]
fn every_exit_status_means_what_the_manual_says() {
    let lab = Lab::new();
    let (a, owner) = (lab.host("a"), lab.host("owner"));
    let [conflicting, absent] = ["fd09::102", OTHER];
    give(&owner, conflicting, "eth0");
    a.run(&format!("ip addr add {conflicting}/128 dev eth0"));
    give(&a, VIP, "eth0");
    for (status, arguments) in [
        (0, format!("announce {VIP} --timeout 2")),
        (0, format!("announce {VIP} --dry-run")),
        (0, format!("purge {absent}")),
        (1, format!("announce {VIP} -i eth7")),
        (1, format!("purge {absent} -i eth7")),
        (2, "announce 224.0.0.18".to_owned()),
        (2, format!("announce {VIP} --config /nonexistent")),
        (4, format!("announce {conflicting}")),
        (4, format!("announce {conflicting} {absent} --wait 0")),
        (5, format!("announce {absent} --wait 0")),
        (5, format!("purge {VIP}")),
    ] {
        let ended = run(&a, &arguments);
        assert_eq!(ended.status, status, "{arguments}: {ended:?}");
    }
    for (status, signal) in [(130, Signal::SIGINT), (143, Signal::SIGTERM)] {
        let capture = a.capture();
        let announcing = Run::start(vipherald(&a, &format!("announce {VIP}")));
        wait_for_announcement(&capture, VIP, 4);
        common::signal(announcing.pid(), signal);
        assert_eq!(announcing.end().status, status);
    }
}

#[test]
fn a_report_that_cannot_be_written_is_a_failure() {
    let lab = Lab::new();
    let a = lab.host("a");
    let full: File = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (reader, nobodys) = pipe().unwrap();
    drop(reader);
    for stdout in [Stdio::from(full), Stdio::from(nobodys)] {
        let mut command = vipherald(&a, &format!("purge {OTHER} --json"));
        command.stdout(stdout);
        let ended = Run::start(command).end();
        assert_eq!(ended.status, 1, "{ended:?}");
        assert!(
            ended.stderr.contains("error: cannot write to stdout"),
            "{ended:?}"
        );
    }
}

/// What prints a report, at its end at the latest.
const PRINTS: [&str; 6] = [
    "--json announce 10.9.0.100 --timeout 1",
    "--dry-run announce 10.9.0.100",
    "--json purge 10.9.0.101",
    "check 10.9.0.101",
    "check --nagios 10.9.0.101",
    "--json show --keepalived-conf /nonexistent",
];

#[test]
fn whoever_does_not_read_what_is_printed_does_not_keep_it_alive() {
    let watched = Watched::new();
    for arguments in PRINTS {
        for (name, status) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
            let (reader, writer) = pipe().unwrap();
            fill(&writer);
            let mut command = vipherald(&watched.host, arguments);
            command.stdout(writer);
            let mut run = Run::start(command);
            // By then it has to print.
            watch_for(Duration::from_millis(1800));
            assert!(!run.has_ended(), "{arguments}");
            let began = Instant::now();
            signal(run.pid(), name);
            let ended = run.end();
            let lasted = began.elapsed();
            assert_eq!(ended.status, status, "{arguments}: {ended:?}");
            assert!(lasted < SUSPENDED, "{arguments}: {lasted:?}");
            drop(reader);
        }
    }
}

#[test]
fn a_signal_in_mid_announcement_ends_it_though_nobody_reads_its_report() {
    let watched = Watched::new();
    let (reader, writer) = pipe().unwrap();
    fill(&writer);
    let mut command = vipherald(&watched.host, &format!("--json announce {VIP}"));
    command.stdout(writer);
    let run = Run::start(command);
    wait_for_announcement(&watched.capture, VIP, 3);
    let (ended, lasted) = run.terminate();
    assert_eq!(ended.status, 143, "{ended:?}");
    assert!(lasted < SUSPENDED, "{lasted:?}");
    assert!(ended.stderr.contains("not printed to its end"), "{ended:?}");
    drop(reader);
}

#[test]
fn a_report_is_complete_for_one_who_reads_slowly() {
    let watched = Watched::new();
    let vips: Vec<_> = (0..250).map(|n| format!("10.9.1.{n}")).collect();
    let lines = vips
        .iter()
        .map(|vip| format!("addr add {vip}/32 dev eth0\n"));
    ip_batch(&watched.host, &lines.collect::<String>());
    let arguments = format!("--dry-run --json announce {}", vips.join(" "));
    let (mut reader, writer) = pipe().unwrap();
    let before = fill(&writer);
    let mut command = vipherald(&watched.host, &arguments);
    command.stdout(writer);
    let run = Run::start(command);
    watch_for(Duration::from_millis(300));
    let mut printed = Vec::new();
    let mut octets = [0; 1000];
    loop {
        match reader.read(&mut octets).unwrap() {
            0 => break,
            read => printed.extend_from_slice(&octets[..read]),
        }
        watch_for(Duration::from_millis(1));
    }
    assert_eq!(run.end().status, 0);
    let report: serde_json::Value = serde_json::from_slice(&printed[before..]).unwrap();
    assert_eq!(report["vips"].as_array().unwrap().len(), vips.len());
}

#[test]
fn what_is_printed_goes_nowhere_where_the_standard_descriptors_are_closed() {
    let watched = Watched::new();
    let mut closed = watched.host.command("sh");
    closed
        .args(["-c", "exec \"$@\" <&- >&- 2>&-", "sh", common::VIPHERALD])
        .args(["--log", "stderr", "-vv", "announce", VIP])
        .args(["--timeout", "1", "--json"]);
    let ended = Run::start(closed).end();
    assert_eq!(ended.status, 0, "{ended:?}");
    assert_ne!(taken(&watched.capture), []);
}
