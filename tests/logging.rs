//! Where messages go, and that nobody who reads them can hold up the work.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::File;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::SystemTime;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use serde_json::Value;
use vipherald_lab::{Host, Lab};

use common::{
    BEFORE_THE_ROUNDS_END, Ended, Run, VIP, VIP6, give, taken, told_frames, vipherald,
    with_own_directory,
};

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

/// When the kernel took the first message to the daemon.
fn first_message(daemon: &UnixDatagram) -> SystemTime {
    let mut control = nix::cmsg_space!(nix::libc::timespec);
    let message = recvmsg::<()>(
        daemon.as_raw_fd(),
        &mut [],
        Some(&mut control),
        MsgFlags::empty(),
    )
    .unwrap();
    let mut stamps = message
        .cmsgs()
        .unwrap()
        .filter_map(|control| match control {
            ControlMessageOwned::ScmTimestampns(time) => Some(SystemTime::UNIX_EPOCH + time.into()),
            _ => None,
        });
    stamps
        .next()
        .expect("the socket was told to give time stamps")
}

/// The frames that a run of `--json` reports.
fn frames_sent(ended: &Ended) -> u64 {
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    report["frames_sent"].as_u64().unwrap()
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
            format!("announce {VIP} {VIP6} --timeout 2 --json"),
            INFO,
            format!("{VIP}, {VIP6} announced on eth0 as {mac}: "),
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
        if arguments.contains("--json") {
            assert_eq!(told_frames(told.2).0, frames_sent(&ended));
        }
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
        let lines: Vec<_> = ended.stderr.lines().map(str::to_owned).collect();
        (lines, ended)
    };
    let announce = "announce 10.9.0.100 --timeout 2 --json";
    assert_eq!(lines(&format!("{announce} -q")).0, [""; 0]);
    assert_eq!(lines(&format!("announce {ABSENT} --wait 0 -q")).0.len(), 1);
    assert_eq!(lines(announce).0.len(), 1);
    let (all, ended) = lines(&format!("{announce} -vv"));
    let sent = all.iter().filter(|line| line.contains("sent")).count();
    assert_eq!(sent as u64, frames_sent(&ended), "{all:?}");
    assert_eq!(all.len(), sent + 1, "nothing of other crates: {all:?}");
}

#[test]
fn the_first_frame_leaves_before_the_first_message() {
    let lab = Lab::new();
    let a = lab.host("a");
    give(&a, VIP, "eth0");
    let (daemon, path) = daemon(&lab);
    setsockopt(&daemon, sockopt::ReceiveTimestampns, &true).unwrap();
    let capture = a.capture();
    let arguments = format!("announce {VIP} --timeout 1 -vv");
    let ended = Run::start(with_syslog(&a, Some(&path), &arguments)).end();
    assert_eq!(ended.status, 0, "{ended:?}");
    let (frame, message) = (taken(&capture)[0].time, first_message(&daemon));
    assert!(frame <= message, "{frame:?}, {message:?}");
}

/// Runs a command that is [`ANNOUNCE`] to its end, and takes it that nothing held it up: it has 3 s
/// for three rounds, which take 0.2 s. If it waited half a second for each line that it logs of a
/// frame, it would not come so far.
fn assert_not_held_up(host: &Host, command: Command) {
    let capture = host.capture();
    let ended = Run::start(command).end();
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(ended.lasted < BEFORE_THE_ROUNDS_END, "{ended:?}");
    let announced = taken(&capture).len();
    assert!(announced >= 6, "{announced} announcements: {ended:?}");
}

const ANNOUNCE: &str = "announce 10.9.0.100 --timeout 3";

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

    for level in ["", "-vv"] {
        let arguments = format!("{ANNOUNCE} {level}");
        for socket in [None, Some(path.as_str())] {
            assert_not_held_up(&a, with_syslog(&a, socket, &arguments));
        }
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
    let line = format!("{VIP} announced on eth0 as {}: ", a.mac());
    // A socket file whose daemon is dead.
    let (socket, path) = daemon(&lab);
    drop(socket);
    for socket in [None, Some(path.as_str())] {
        let arguments = format!("{ANNOUNCE} -v --json");
        let ended = Run::start(with_syslog(&a, socket, &arguments)).end();
        assert!(
            ended.status == 0 && ended.stderr.starts_with(&line),
            "{ended:?}"
        );
        assert_eq!(told_frames(&ended.stderr).0, frames_sent(&ended));
    }
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

    let mut command = vipherald(&a, &format!("{ANNOUNCE} -vv"));
    command.stderr(writer);
    assert_not_held_up(&a, command);
}
