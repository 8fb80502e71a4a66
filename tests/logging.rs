//! Where messages go, and that nobody who reads them can hold up the work.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::File;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, SystemTime};

use vipherald_lab::{Host, Lab};

use common::{Run, VIP, VIP6, give, median, vipherald, wait_for_announcement, with_own_directory};

const ABSENT: &str = "10.9.0.101";

/// `vipherald` as the binary decides for itself where to log.
fn automatic(host: &Host, arguments: &str) -> Command {
    let mut command = host.command(common::VIPHERALD);
    command.args(arguments.split_whitespace());
    command
}

/// The same with nothing in /dev but a syslog socket, or not even that.
fn with_syslog(host: &Host, socket: Option<&str>, arguments: &str) -> Command {
    let prepare = socket.map_or("true".to_owned(), |path| format!("ln -s {path} /dev/log"));
    let mut command = with_own_directory(host, "/dev", &prepare, &automatic(host, arguments));
    command.env_remove("JOURNAL_STREAM");
    command
}

/// A syslog daemon's socket in the lab's directory.
fn daemon(lab: &Lab) -> (UnixDatagram, String) {
    let path = lab.directory().join("log");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    (socket, path.to_str().unwrap().to_owned())
}

/// What has come to the daemon.
fn messages(daemon: &UnixDatagram) -> Vec<String> {
    let mut buffer = [0; 4096];
    std::iter::from_fn(|| {
        daemon
            .recv(&mut buffer)
            .ok()
            .map(|length| buffer[..length].to_vec())
    })
    .map(|message| String::from_utf8(message).unwrap())
    .collect()
}

/// Splits `<PRI>Mmm dd hh:mm:ss vipherald[PID]: TEXT` (RFC 3164) into all but the time.
fn parse(message: &str) -> (u8, &str, &str) {
    let (priority, rest) = message[1..].split_once('>').unwrap();
    let (stamp, rest) = rest.split_at(15);
    let colons: Vec<_> = stamp.match_indices(':').map(|(at, _)| at).collect();
    assert_eq!(colons, [9, 12], "{message}");
    let (tag, text) = rest.trim_start().split_once(": ").unwrap();
    (priority.parse().unwrap(), tag, text)
}

const DAEMON: u8 = 3 << 3;
const ERROR: u8 = 3;
const WARNING: u8 = 4;
const INFO: u8 = 6;

#[test]
fn syslog_gets_one_line_that_says_it_all_when_stderr_is_nobodys() {
    let lab = Lab::new();
    let a = lab.host("a");
    for vip in [VIP, VIP6] {
        give(&a, vip, "eth0");
    }
    let (daemon, path) = daemon(&lab);
    let mac = a.mac();
    for (arguments, severity, text) in [
        (
            format!("announce {VIP} {VIP6} --timeout 0.45"),
            INFO,
            format!("{VIP}, {VIP6} announced on eth0 as {mac}: 15 frames in 2"),
        ),
        (
            format!("announce {ABSENT} --wait 0"),
            WARNING,
            format!("{ABSENT} not on this host"),
        ),
        (
            format!("announce {VIP} -i eth7"),
            ERROR,
            "there is no interface eth7".to_owned(),
        ),
        (
            "announce 224.0.0.18".to_owned(),
            ERROR,
            "invalid value '224.0.0.18'".to_owned(),
        ),
        (
            format!("purge {ABSENT}"),
            INFO,
            format!("{ABSENT} purged: no entry was there"),
        ),
    ] {
        let run = Run::start(with_syslog(&a, Some(&path), &arguments));
        let tag = format!("vipherald[{}]", run.pid());
        let ended = run.end();
        let messages = messages(&daemon);
        assert_eq!(messages.len(), 1, "{arguments}: {messages:?}");
        let told = parse(&messages[0]);
        assert_eq!(
            (told.0, told.1),
            (DAEMON + severity, tag.as_str()),
            "{messages:?}"
        );
        assert!(told.2.starts_with(&text), "{messages:?}");
        assert_eq!(ended.stderr, "", "{ended:?}");
    }
    // Where it is told to, in spite of that.
    let ended = Run::start(with_syslog(
        &a,
        Some(&path),
        "--log stderr announce 224.0.0.18",
    ))
    .end();
    assert!(
        ended.stderr.starts_with("error: invalid value"),
        "{ended:?}"
    );
    assert!(messages(&daemon).is_empty());
}

#[test]
fn quiet_says_what_is_wrong_and_verbose_twice_says_every_frame() {
    let lab = Lab::new();
    let a = lab.host("a");
    give(&a, VIP, "eth0");
    let lines = |arguments: &str| {
        let ended = common::run(&a, arguments);
        ended.stderr.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let announce = ANNOUNCE;
    assert_eq!(lines(&format!("{announce} -q")), [""; 0]);
    assert_eq!(lines(&format!("announce {ABSENT} --wait 0 -q")).len(), 1);
    assert_eq!(lines(announce).len(), 1);
    let all = lines(&format!("{announce} -vv"));
    assert_eq!(
        all.iter().filter(|line| line.contains("sent")).count(),
        9,
        "{all:?}"
    );
    assert_eq!(all.len(), 10, "nothing of other crates: {all:?}");
}

/// From start to first frame on the wire, the median of a few runs, each of which must end well.
fn first_frame(host: &Host, command: impl Fn() -> Command) -> Duration {
    let measure = || {
        let capture = host.capture();
        let start = SystemTime::now();
        let run = Run::start(command());
        let first = wait_for_announcement(&capture, VIP, 1);
        let ended = run.end();
        assert_eq!(ended.status, 0, "{ended:?}");
        assert!(ended.lasted < Duration::from_secs(2), "{ended:?}");
        assert_eq!(common::taken(&capture).len(), 6, "{ended:?}");
        first.time.duration_since(start).unwrap()
    };
    median((0..5).map(|_| measure()).collect())
}

/// Three rounds.
const ANNOUNCE: &str = "announce 10.9.0.100 --timeout 0.45";

/// What a first frame may be later because of other tests, but not because of a log.
const LEEWAY: Duration = Duration::from_millis(30);

#[test]
fn a_syslog_socket_that_is_full_or_absent_holds_up_nothing() {
    let lab = Lab::new();
    let a = lab.host("a");
    give(&a, VIP, "eth0");
    let (daemon, path) = daemon(&lab);
    let nobody = UnixDatagram::unbound().unwrap();
    nobody.set_nonblocking(true).unwrap();
    let full = loop {
        if let Err(error) = nobody.send_to(b"<30>noise", &path) {
            break error.kind();
        }
    };
    assert_eq!(full, ErrorKind::WouldBlock);

    let quiet = first_frame(&a, || with_syslog(&a, None, &format!("{ANNOUNCE} -q")));
    for level in ["", "-vv"] {
        let arguments = format!("{ANNOUNCE} {level}");
        let absent = first_frame(&a, || with_syslog(&a, None, &arguments));
        let full = first_frame(&a, || with_syslog(&a, Some(&path), &arguments));
        assert!(
            absent < quiet + LEEWAY,
            "absent: {absent:?}, no log: {quiet:?}"
        );
        assert!(full < quiet + LEEWAY, "full: {full:?}, no log: {quiet:?}");
    }
    let came = messages(&daemon);
    assert!(
        came.iter().all(|message| message == "<30>noise"),
        "{came:?}"
    );
}

#[test]
fn without_a_daemon_stderr_gets_the_line() {
    let lab = Lab::new();
    let a = lab.host("a");
    give(&a, VIP, "eth0");
    let announce = format!("{ANNOUNCE} -v");
    let ended = Run::start(with_syslog(&a, None, &announce)).end();
    let line = format!("{VIP} announced on eth0 as {}: 9 frames in 2", a.mac());
    assert!(ended.stderr.starts_with(&line), "{ended:?}");
    // A socket file whose daemon is dead.
    let (socket, path) = daemon(&lab);
    drop(socket);
    let ended = Run::start(with_syslog(&a, Some(&path), &announce)).end();
    assert!(
        ended.status == 0 && ended.stderr.starts_with(&line),
        "{ended:?}"
    );
}

/// The device and inode of a pipe, as systemd names the journal's stream.
fn stream(pipe: &PipeWriter) -> String {
    let owned: OwnedFd = pipe.as_fd().try_clone_to_owned().unwrap();
    let metadata = File::from(owned).metadata().unwrap();
    format!("{}:{}", metadata.dev(), metadata.ino())
}

fn read_all(mut pipe: PipeReader) -> String {
    let mut text = String::new();
    pipe.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn the_journal_gets_priorities_on_stderr() {
    let lab = Lab::new();
    let a = lab.host("a");
    give(&a, VIP, "eth0");
    let (daemon, path) = daemon(&lab);
    for (arguments, starts) in [
        (
            ANNOUNCE.to_owned(),
            format!("<6>{VIP} announced on eth0 as "),
        ),
        (
            format!("announce {ABSENT} --wait 0"),
            format!("<4>{ABSENT} not on this host"),
        ),
        (
            format!("announce {VIP} -i eth7"),
            "<3>there is no interface eth7".to_owned(),
        ),
    ] {
        for (named, journal) in [(true, true), (false, false)] {
            let (reader, writer) = io::pipe().unwrap();
            let stream = if named {
                stream(&writer)
            } else {
                "1:1".to_owned()
            };
            let mut command = with_syslog(&a, Some(&path), &arguments);
            command.env("JOURNAL_STREAM", stream).stderr(writer);
            let run = Run::start(command);
            run.end();
            let (told, syslog) = (read_all(reader), messages(&daemon));
            assert_eq!(told.starts_with(&starts), journal, "{told:?}");
            assert_eq!(syslog.is_empty(), journal, "{syslog:?}");
        }
    }
}

#[test]
fn a_full_pipe_on_stderr_holds_up_nothing() {
    let lab = Lab::new();
    let a = lab.host("a");
    give(&a, VIP, "eth0");
    // Stuffed to its last octet, and never read.
    let (_reader, mut writer) = io::pipe().unwrap();
    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&writer, flags).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    let blocking = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty());
    nix::fcntl::fcntl(&writer, blocking).unwrap();

    let quiet = first_frame(&a, || vipherald(&a, &format!("{ANNOUNCE} -q")));
    let stuffed = first_frame(&a, || {
        let mut command = vipherald(&a, &format!("{ANNOUNCE} -vv"));
        command.stderr(writer.try_clone().unwrap());
        command
    });
    assert!(
        stuffed < quiet + LEEWAY,
        "full: {stuffed:?}, no log: {quiet:?}"
    );
}
