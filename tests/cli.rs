//! The command line: bad input gets a clear error and its exit status, and nothing happens.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, pipe};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use vipherald_lab::{Capture, Frame, Host, Lab};

use common::arp::is_request_for;
use common::{
    BEFORE_THE_ROUNDS_END, Ended, OLD_MAC, Run, SOON, VIP, VIP6, assert_at_once, fill, give,
    give_all, in_shell, run, second_interface, signal, taken, vipherald, wait_for_announcement,
    watch_for, what_gives_privilege, with_own_directory, without_privilege,
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

    /// The VIP that `arguments` name counts as absent, and the warning has these words.
    fn finds_absent(&self, arguments: &str, words: &[&str]) {
        let ended = run(&self.host, &format!("{arguments} --wait 0.1")).exits(5);
        assert!(
            ended.stderr.starts_with("warning: "),
            "{arguments}: {ended:?}"
        );
        for word in words {
            ended.logs(word);
        }
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
            ended.logs(word);
        }
        assert_eq!(ended.stderr.lines().count(), 1, "{what}: {ended:?}");
        assert_eq!(ended.stdout, "", "{what}");
        assert_eq!(taken(&self.capture), [], "{what}");
        let kept = self.host.cached(OTHER);
        assert_eq!(kept, OLD_MAC.parse().ok(), "{what}");
    }

    /// Shows that the test can fail: valid commands send and delete.
    fn would_act(&self) {
        run(&self.host, &format!("announce {VIP} --timeout 2")).exits(0);
        run(&self.host, &format!("purge {OTHER}")).exits(0);
        assert!(!taken(&self.capture).is_empty());
        assert!(self.host.neighbour(OTHER).is_none());
    }
}

#[test]
fn an_address_that_can_be_no_vip_is_refused_and_nothing_is_sent_or_deleted() {
    let watched = Watched::new();
    for (bad, why) in [
        ("vip", "not an IPv4 or IPv6 address"),
        ("10.9.0.300", "not an IPv4 or IPv6 address"),
        ("10.9.0.100/24x", "not an IPv4 or IPv6 address"),
        ("10.9.0.100/33", "not an IPv4 or IPv6 address"),
        ("10.9.0.0/24", "whole subnet"),
        ("fe80::1%", "not an IPv4 or IPv6 address"),
        ("10.9.0.100%eth0", "not an IPv4 or IPv6 address"),
        ("224.0.0.18", "multicast"),
        ("ff02::12", "multicast"),
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("255.255.255.255", "broadcast"),
        ("::ffff:10.9.0.100", "IPv4-mapped"),
    ] {
        // A good address beside it does not help.
        watched.refuses(&format!("announce {VIP} {bad}"), 2, &[bad, why]);
        watched.refuses(&format!("purge {OTHER} {bad}"), 2, &[bad, why]);
    }
    watched.would_act();
}

#[test]
fn a_vip_may_carry_a_prefix_length_or_an_interface() {
    let lab = Lab::new();
    let (a, peer) = (lab.host("a"), lab.host("peer"));
    give(&a, VIP, "eth0");
    second_interface(&a);
    // The same link-local address, on two links.
    for interface in ["eth0", "v0"] {
        a.run(&format!("ip addr add fe80::100/64 dev {interface} nodad"));
    }
    let capture = peer.capture();
    let ended = run(&a, &format!("announce {VIP}/24 --timeout 1"));
    assert!(
        ended
            .stderr
            .starts_with(&format!("{VIP} announced on eth0")),
        "{ended:?}"
    );
    let ended = run(&a, "announce fe80::100%eth0/64 --timeout 1").exits(0);
    assert!(
        ended.stderr.starts_with("fe80::100 announced on eth0 as "),
        "{ended:?}"
    );
    let vips: Vec<_> = taken(&capture).iter().map(|a| a.vip.to_string()).collect();
    for vip in [VIP, "fe80::100"] {
        assert!(vips.iter().any(|seen| seen == vip), "{vip}: {vips:?}");
    }
    // The zone selects the link.
    let planned = run(&a, "announce fe80::100%v0 --dry-run");
    assert!(
        planned.stdout.contains("on v0") && !planned.stdout.contains("eth0"),
        "{planned:?}"
    );
    peer.remember_as(OTHER, OLD_MAC, vipherald_lab::State::Stale);
    let ended = run(&peer, &format!("purge {OTHER}/32"));
    assert_eq!(
        (ended.status, peer.neighbour(OTHER)),
        (0, None),
        "{ended:?}"
    );
    run(&peer, &format!("check {VIP}/24")).exits(0);
}

#[test]
fn an_interfaces_alternative_name_is_as_good_as_its_own() {
    let lab = Lab::new();
    let (a, peer) = (lab.host("a"), lab.host("peer"));
    give(&a, VIP, "eth0");
    let long = "a-name-of-the-one-that-faces-the-servers".repeat(3);
    for host in [&a, &peer] {
        for name in ["servers", long.as_str()] {
            host.run(&format!("ip link property add dev eth0 altname {name}"));
        }
    }
    for name in ["servers", long.as_str()] {
        peer.remember(VIP, OLD_MAC);
        let ended = run(&peer, &format!("check {VIP} -i {name}")).exits(3);
        assert!(
            ended.stdout.starts_with(&format!("{VIP} on eth0: STALE")),
            "{ended:?}"
        );
        let ended = run(&peer, &format!("purge {VIP} -i {name}"));
        assert_eq!((ended.status, peer.neighbour(VIP)), (0, None), "{ended:?}");
        let ended = run(&a, &format!("announce {VIP} -i {name} --timeout 1"));
        ended.logs("announced on eth0");
    }
    let too_long = "x".repeat(200);
    for name in ["x", "a-name-that-nobody-has", &too_long] {
        for command in [
            format!("announce {VIP}"),
            format!("check {OTHER}"),
            format!("purge {OTHER}"),
        ] {
            let ended = run(&a, &format!("{command} -i {name}")).exits(1);
            ended.logs(format!("no interface {name}"));
        }
    }
}

/// A monitor takes 2 for CRITICAL: whatever kept the check from looking is 3, UNKNOWN, with the
/// reason in one line on stdout.
#[test]
fn a_check_that_could_not_look_is_unknown_to_monitors() {
    let watched = Watched::new();
    let unknown = |ended: &Ended, what: &str, why: &str| {
        assert_eq!(ended.status, 3, "{what}: {ended:?}");
        let start = "VIPHERALD UNKNOWN - ";
        assert!(ended.stdout.starts_with(start), "{what}: {ended:?}");
        assert_eq!(ended.stdout.matches('\n').count(), 1, "{what}: {ended:?}");
        ended.prints(why);
        assert_eq!(ended.stderr, "", "{what}");
    };
    for (arguments, why) in [
        (
            "check --nagios 10.9.0.101/24x",
            "invalid value '10.9.0.101/24x'",
        ),
        (
            "check --nagios",
            "required arguments were not provided: <VIP",
        ),
        (
            "check 10.9.0.101 --nagios --wiat 2",
            "tip: a similar argument exists: '--wait'",
        ),
        ("check 10.9.0.101 --nagios --wait 0", "more than 0"),
        ("check 10.9.0.101 --nagios --json", "cannot be used with"),
        ("check 10.9.0.101 --nagios --dry-run", "--dry-run"),
        ("check 10.9.0.101 --nagios=yes", "unexpected value"),
        ("chek 10.9.0.101 --nagios", "'check'"),
        ("check --nagios fe80::1%eth0 -i eth1", "contradicts"),
        ("check --nagios 10.9.0.101 -i eth7", "no interface eth7"),
        (
            "check --nagios 10.9.0.101 --config /none",
            "cannot read the settings /none",
        ),
        ("check --nagios 10.9.0.101 --config /dev/zero", "/dev/zero"),
        (
            "--keepalived-conf /none check --nagios --all",
            "can't read /none",
        ),
        (
            "--keepalived-conf /dev/null check --nagios --instance A",
            "/dev/null",
        ),
    ] {
        unknown(&run(&watched.host, arguments), arguments, why);
    }
    let arguments = format!("check --nagios {OTHER}");
    let command = without_privilege(&watched.lab, &watched.host, &arguments);
    unknown(&Run::start(command).end(), "no privilege", "CAP_NET_RAW");
    // No descriptors for anything but the line.
    let check = vipherald(&watched.host, &format!("check --nagios {OTHER}"));
    let limited = in_shell(&watched.host, "ulimit -n 4 && exec \"$@\"", &check);
    let ended = Run::start(limited).end();
    // 127: it is the loader of libraries that has too few.
    if ended.status != 127 {
        unknown(&ended, "no descriptors", "os error 24");
    }
    // A monitor that has waited too long.
    let long = vipherald(&watched.host, &format!("check --nagios {OTHER} --wait 600"));
    let long = Run::start(long);
    let asks = |frame: &Frame| is_request_for(frame, OTHER.parse().unwrap());
    assert!(watched.capture.wait_for(SOON, asks).is_some());
    signal(long.pid(), Signal::SIGTERM);
    unknown(&long.end(), "SIGTERM", "a signal ended the check");
    // Even if the line cannot be printed, the status is not 1, a warning.
    let mut command = vipherald(&watched.host, "check --nagios");
    command.stdout(OpenOptions::new().write(true).open("/dev/full").unwrap());
    Run::start(command).end().exits(3);
    // Help is help.
    let help = run(&watched.host, "check --nagios --help");
    assert_eq!((help.status, help.stdout.contains("Usage:")), (0, true));
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
        (
            "anounce 10.9.0.100",
            ["unrecognized subcommand 'anounce'; tip: ", "'announce'"],
        ),
        (
            "announce 10.9.0.100 --pear 10.9.0.2",
            ["unexpected argument '--pear' found; tip: ", "'--peer'"],
        ),
        (
            "announce 10.9.0.100 --confirm peer",
            ["invalid value 'peer'", "'peers'"],
        ),
        (
            "announce 10.9.0.100 -p gateway.example.org",
            ["gateway.example.org", "by its address, not by a name"],
        ),
        (
            "announce fe80::100%eth0 fe80::101%eth1",
            ["fe80::100 on eth0 and fe80::101 on eth1", "once for each"],
        ),
        (
            "purge fe80::100%eth1 -i eth0",
            ["fe80::100%eth1", "contradicts -i eth0"],
        ),
        (
            "release fe80::100%eth1",
            ["release takes no interface", "write fe80::100 "],
        ),
        ("check 10.9.0.101 --log syslogd", ["syslogd", "file:PATH"]),
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
fn an_interface_that_is_missing_or_down_is_refused() {
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
    host.ip("link set v0 down\n");
    give(host, VIP6, "v0");
    // The IPv4 VIP stays on an interface that is set down; an IPv6 one leaves it.
    give(host, "10.8.0.100", "v0");
    let words = ["v0", "down", "ip link set v0 up"];
    for arguments in [
        "announce 10.8.0.100 -i v0",
        &format!("announce {VIP} -i v0"),
    ] {
        watched.refuses(arguments, 1, &words);
    }
    watched.finds_absent("announce 10.8.0.100", &words);
    watched.would_act();
}

#[test]
fn an_interface_without_arp_is_refused() {
    let watched = Watched::new();
    let host = &watched.host;
    second_interface(host);
    host.ip("link set v0 arp off\n");
    let made = host.try_run("ip tuntap add dev tun0 mode tun");
    assert!(
        made.status.success(),
        "needs a /dev/net/tun that may be opened: `modprobe tun`, or run as root: {made:?}"
    );
    host.ip("link set tun0 up\n");
    for (vip, interface, why) in [
        ("10.8.0.1", "lo", "loopback"),
        ("fd08::1", "lo", "loopback"),
        ("10.8.0.2", "tun0", ""),
        ("fd08::2", "tun0", ""),
        ("10.8.0.3", "v0", "NOARP"),
    ] {
        give(host, vip, interface);
        let words = ["cannot announce", interface, why];
        watched.finds_absent(&format!("announce {vip}"), &words[1..]);
        watched.refuses(&format!("announce {vip} -i {interface}"), 1, &words);
    }
    watched.would_act();
}

#[test]
fn without_privilege_it_names_the_capability_and_keepaliveds_setting() {
    let watched = Watched::new();
    for (arguments, capability, what) in [
        (format!("announce {VIP}"), "CAP_NET_RAW", "eth0"),
        (format!("purge {OTHER}"), "CAP_NET_ADMIN", OTHER),
    ] {
        let command = without_privilege(&watched.lab, &watched.host, &arguments);
        let words = [capability, what_gives_privilege(), what];
        watched.refused(&Run::start(command).end(), &arguments, 1, &words);
    }
    watched.would_act();
}

#[test]
fn an_error_in_the_settings_names_line_and_key() {
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

/// A reader of such a file would never end.
#[test]
fn what_is_no_regular_file_is_refused_unread() {
    let watched = Watched::new();
    let host = &watched.host;
    let folder = watched.lab.directory();
    let fifo = folder.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let link = folder.join("link");
    std::os::unix::fs::symlink(&fifo, &link).unwrap();
    let socket = folder.join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let strict = folder.join("strict");
    fs::write(&strict, format!("includer {}\n", fifo.display())).unwrap();
    let refuses = |arguments: &str, status: i32, words: &[&str]| {
        watched.refused(&run(host, arguments), arguments, status, words);
    };
    for path in [&fifo, &link, &socket, Path::new("/dev/zero"), folder] {
        let path = path.display().to_string();
        refuses(
            &format!("purge {OTHER} --config {path}"),
            2,
            &["cannot read the settings", &path],
        );
        refuses(
            &format!("purge --keepalived-conf {path} --instance VI_1"),
            1,
            &["can't read", &path],
        );
        let settings = folder.join("settings");
        fs::write(&settings, format!("[orders]\nkey_file = \"{path}\"\n")).unwrap();
        let order = format!("order {VIP} -p 10.9.0.2 --config {}", settings.display());
        refuses(&order, 2, &["the key", &path]);
    }
    let strict = format!(
        "--keepalived-conf {} purge --instance VI_1",
        strict.display()
    );
    refuses(&strict, 1, &["fifo is no regular file"]);
    // A link to a regular file is fine.
    let (conf, settings) = (folder.join("conf"), folder.join("good"));
    fs::write(&settings, "wait = 1\n").unwrap();
    let text = format!(
        "vrrp_instance VI_1 {{\ninterface eth0\nvirtual_router_id 1\n\
         virtual_ipaddress {{\n{VIP}\n}}\n}}\n"
    );
    fs::write(&conf, text).unwrap();
    for (name, target) in [("conf-link", &conf), ("good-link", &settings)] {
        std::os::unix::fs::symlink(target, folder.join(name)).unwrap();
    }
    let shown = folder.display();
    let links = format!("--config {shown}/good-link --keepalived-conf {shown}/conf-link");
    run(host, &format!("{links} check --instance VI_1")).exits(0);
    // A file may have this many octets, and not one more.
    fs::write(&settings, vec![b'#'; (1 << 20) + 1]).unwrap();
    let long = format!("purge {OTHER} --config {}", settings.display());
    refuses(&long, 2, &["longer than 1048576", "good"]);
    fs::write(&settings, vec![b'#'; 1 << 20]).unwrap();
    run(host, &long).exits(0);
}

/// The units have `MemoryMax=64M`.
#[test]
fn no_keepalived_conf_takes_more_memory_than_the_units_have() {
    let watched = Watched::new();
    let folder = watched.lab.directory();
    let (conf, told) = (folder.join("conf"), folder.join("told"));
    let instance = "vrrp_instance VI_1 {\ninterface eth0\nvirtual_router_id 1\n\
                    virtual_ipaddress_excluded {\n";
    let address = |n: u32| std::net::Ipv4Addr::from(0x0a00_0000 + n);
    // As many VIPs as it reads; and more of everything than it reads.
    let vips = |count: u32| {
        let lines = (0..count).map(|n| format!("{}\n", address(n)));
        format!("{instance}{}}}\n}}\n", lines.collect::<String>())
    };
    let many = |count: u32, unit: fn(u32) -> String| (0..count).map(unit).collect::<String>();
    let comments = "# and so on, and so on, and so on\n".repeat(3 << 20);
    for (what, text, is_read) in [
        ("as many VIPs as are read", vips(70_000), true),
        ("too many VIPs", vips(2_000_000), false),
        (
            "instances",
            many(300_000, |n| format!("vrrp_instance {n}{{\n}}\n")),
            false,
        ),
        (
            "groups",
            many(300_000, |n| format!("vrrp_sync_group {n}{{\n}}\n")),
            false,
        ),
        (
            "definitions",
            many(500_000, |n| format!("$A{n}=1\n")),
            false,
        ),
        (
            "long names",
            format!("$A={}\n~SEQ(i,65000) vrrp_instance $i$A\n", "x".repeat(900)),
            false,
        ),
        ("comments", comments, false),
    ] {
        fs::write(&conf, text).unwrap();
        for command in ["show --json", "check --all --dry-run"] {
            let read = vipherald(
                &watched.host,
                &format!("--keepalived-conf {} {command}", conf.display()),
            );
            // The limit is in KiB of address space, which includes memory that is not used.
            let script = "ulimit -v 65536 && exec \"$@\"";
            let mut limited = in_shell(&watched.host, script, &read);
            limited.stdout(File::create(&told).unwrap());
            let ended = Run::start(limited).end();
            let stderr = &ended.stderr;
            assert!(
                [0, 1].contains(&ended.status),
                "{what}: {command}: {stderr}"
            );
            if is_read {
                let vips = fs::read_to_string(&told).unwrap().matches("10.").count();
                assert!((70_000..=140_000).contains(&vips), "{command}: {vips}");
                assert_eq!(stderr, "", "{what}: {command}");
            } else if command.starts_with("show") {
                let shown = fs::read_to_string(&told).unwrap();
                let bound = ["2 MiB", "8 MiB"];
                let names_it = bound.iter().any(|bound| shown.contains(bound));
                assert!(names_it, "{what}: {stderr}");
                assert_eq!(ended.status, 1, "{what}: not all of it is shown");
            }
        }
    }
}

#[test]
fn keygen_leaves_a_whole_key_or_nothing() {
    let watched = Watched::new();
    let host = &watched.host;
    let own = watched.lab.directory().display().to_string();
    let keygen = vipherald(host, &format!("keygen {own}/key"));
    let prepare = format!(
        "mount -t tmpfs -o size=4k,mode=755 tmpfs {own} && \
         {{ head -c 4096 /dev/zero >{own}/filler || true; }} && \
         {{ \"$@\"; echo \"status $?: $(ls -A {own})\"; rm {own}/filler; }}"
    );
    // Once there is room, it writes a key.
    let ended = Run::start(with_own_directory(host, &own, &prepare, &keygen))
        .end()
        .exits(0);
    assert_eq!(ended.stdout, "status 2: filler\n", "{ended:?}");
    let (full, written) = ended.stderr.split_once('\n').unwrap();
    assert!(
        full.starts_with("error: cannot write the key ") && full.contains("os error 28"),
        "{full}"
    );
    assert!(written.contains("written"), "{written}");
}

#[test]
fn unreadable_settings_are_an_error() {
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
fn the_default_settings_file_is_read_where_there_is_one() {
    let watched = Watched::new();
    let host = &watched.host;
    let announce = vipherald(host, &format!("announce {VIP} --timeout 3"));
    let missing = Run::start(with_own_directory(host, "/etc", "true", &announce)).end();
    let complains = missing.stderr.contains("vipherald.toml") || missing.stderr.contains("warning");
    assert!(missing.status == 0 && !complains, "{missing:?}");
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
        let ended = run(
            &watched.host,
            &format!("announce {vip} {settings} {overridden}"),
        );
        // Only the time shows that it does not wait for 30 s: the VIP would be as absent then.
        assert!(ended.lasted < BEFORE_THE_ROUNDS_END, "{ended:?}");
        (ended.status, taken(&watched.capture).len())
    };
    let (status, announced) = announce(VIP);
    assert!(status == 0 && (6..16).contains(&announced), "{announced}");
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
            format!("announce {VIP} --timeout 0.5"),
            format!("purge {OTHER}"),
        ] {
            let script = format!("ulimit -n {limit} && exec \"$@\"");
            let command = vipherald(&watched.host, &arguments);
            let limited = in_shell(&watched.host, &script, &command);
            let ended = Run::start(limited).end();
            // 127: it is the loader of libraries that has too few.
            if ![0, 127].contains(&ended.status) {
                let why = ["os error 24", "no descriptor is left"];
                let told = ended.stderr.starts_with("error: ")
                    && why.iter().any(|why| ended.stderr.contains(why));
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
        run(&a, &arguments).exits(status);
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
        let ended = Run::start(command).end().exits(1);
        ended.logs("error: cannot write to stdout");
    }
}

/// Commands that print a report, at their end at the latest.
const PRINTS: [&str; 6] = [
    "--json announce 10.9.0.100 --timeout 1",
    "--dry-run announce 10.9.0.100",
    "--json purge 10.9.0.101",
    "check 10.9.0.101",
    "check --nagios 10.9.0.101",
    "--json show --keepalived-conf /nonexistent",
];

#[test]
fn a_stuck_reader_of_stdout_keeps_no_run_alive() {
    let watched = Watched::new();
    let ends_at = |arguments: &str, name: Signal, status: i32| {
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
        let ended = run.end().exits(status);
        assert_at_once(began.elapsed(), &ended);
        drop(reader);
    };
    thread::scope(|scope| {
        for arguments in PRINTS {
            // One after the other: the newer announcement ends the older one.
            scope.spawn(|| {
                ends_at(arguments, Signal::SIGTERM, 143);
                ends_at(arguments, Signal::SIGINT, 130);
            });
        }
    });
}

#[test]
fn a_signal_ends_an_announcement_whose_report_nobody_reads() {
    let watched = Watched::new();
    let (reader, writer) = pipe().unwrap();
    fill(&writer);
    let mut command = vipherald(&watched.host, &format!("--json announce {VIP}"));
    command.stdout(writer);
    let run = Run::start(command);
    wait_for_announcement(&watched.capture, VIP, 3);
    let (ended, lasted) = run.terminate();
    let ended = ended.exits(143);
    assert_at_once(lasted, &ended);
    ended.logs("not printed to its end");
    drop(reader);
}

#[test]
fn a_slow_reader_gets_the_whole_report() {
    let watched = Watched::new();
    let vips: Vec<_> = (0..250).map(|n| format!("10.9.1.{n}")).collect();
    give_all(&watched.host, &vips);
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

/// `vipherald` without standard descriptors.
fn closed(host: &Host, arguments: &str) -> Command {
    in_shell(
        host,
        "exec \"$@\" <&- >&- 2>&-",
        &vipherald(host, arguments),
    )
}

#[test]
fn closed_standard_descriptors_do_no_harm() {
    let watched = Watched::new();
    let announce = format!("-vv announce {VIP} --timeout 1 --json");
    let closed = closed(&watched.host, &announce);
    // Without /dev/null, too, as in a chroot.
    let in_bare = with_own_directory(&watched.host, "/dev", "true", &closed);
    for command in [closed, in_bare] {
        // It announces, but the report that was asked for can't be printed.
        let ended = Run::start(command).end().exits(1);
        let text = (ended.stdout.as_str(), ended.stderr.as_str());
        assert_eq!(text, ("", ""));
        assert_ne!(taken(&watched.capture), []);
    }
}

#[test]
fn what_a_closed_stdout_does_not_take_is_an_error() {
    let lab = Lab::new();
    let host = lab.host("host");
    let purge = vipherald(&host, &format!("--json purge {VIP}"));
    let closed = in_shell(&host, "exec \"$@\" >&-", &purge);
    let ended = Run::start(closed).end().exits(1);
    ended.logs("cannot write to stdout: ");
}

/// Else what is printed would leave as a frame or a datagram.
#[test]
fn no_socket_takes_the_place_of_a_closed_standard_descriptor() {
    let watched = Watched::new();
    let announcing = Run::start(closed(&watched.host, &format!("-vv announce {VIP}")));
    wait_for_announcement(&watched.capture, VIP, 4);
    let held = |descriptor: u32| {
        let link = format!("/proc/{}/fd/{descriptor}", announcing.pid());
        fs::read_link(link).unwrap()
    };
    for descriptor in 0..=2 {
        assert_eq!(held(descriptor), Path::new("/"));
    }
    announcing.terminate();
}

#[test]
fn copy_replaces_the_program_as_a_whole() {
    use std::os::unix::fs::PermissionsExt;
    let watched = Watched::new();
    let own = watched.lab.directory();
    let copied = own.join("vipherald");
    for _ in 0..2 {
        let ended = run(&watched.host, &format!("copy {}", own.display())).exits(0);
        assert!(ended.stderr.contains("vipherald written"), "{ended:?}");
        assert_eq!(
            fs::read(&copied).unwrap(),
            fs::read(common::VIPHERALD).unwrap()
        );
        assert_eq!(
            fs::metadata(&copied).unwrap().permissions().mode() & 0o7777,
            0o755
        );
    }
    assert!(!own.join("vipherald.new").exists());
    let ended = run(&watched.host, "copy /absent").exits(1);
    assert!(
        ended.stderr.contains("cannot write /absent/vipherald: "),
        "{ended:?}"
    );
}
