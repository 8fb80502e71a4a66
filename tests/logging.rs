//! Where messages go, and that nobody who reads them can hold up the work.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File};
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::SystemTime;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use vipherald_lab::{Host, Lab, State, eventually};

use common::{
    BEFORE_THE_ROUNDS_END, Ended, Run, SOON, VIP, VIP6, give, in_shell, taken, told_frames,
    vipherald, with_own_directory,
};

const ABSENT: &str = "10.9.0.101";

/// `vipherald` as the binary decides for itself where to log, standard error being wherever the test
/// wants it.
fn automatic(host: &Host, arguments: &str) -> Command {
    let mut command = host.command(common::VIPHERALD);
    command.args(arguments.split_whitespace());
    command
}

/// The same with nothing in /dev but a syslog socket, or not even that; standard error is a pipe.
fn with_syslog(host: &Host, socket: Option<&str>, arguments: &str) -> Command {
    let prepare = socket.map_or("true".to_owned(), |path| format!("ln -s {path} /dev/log"));
    let mut command = with_own_directory(host, "/dev", &prepare, &automatic(host, arguments));
    command.env_remove("JOURNAL_STREAM");
    command
}

/// The same with standard error on /dev/null, as keepalived gives it to its scripts.
fn as_hook(host: &Host, socket: Option<&str>, arguments: &str) -> Command {
    let mut command = with_syslog(host, socket, arguments);
    command.stderr(Stdio::null());
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
    ended.report()["frames_sent"].as_u64().unwrap()
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
fn syslog_gets_one_line_when_nobody_reads_stderr() {
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
        let run = Run::start(as_hook(&a, Some(&path), &arguments));
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
    // --log syslog goes there, although somebody reads stderr.
    let mut command = with_syslog(&a, Some(&path), "--log syslog purge 10.9.0.101");
    command.stderr(Stdio::piped());
    let ended = Run::start(command).end();
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""), "{ended:?}");
    assert_eq!(messages(&daemon).len(), 1);
    // Nobody reads a closed stderr either.
    let arguments = format!("purge {ABSENT}");
    let closed = in_shell(&a, "exec \"$@\" 2>&-", &automatic(&a, &arguments));
    let mut closed = with_own_directory(&a, "/dev", &format!("ln -s {path} /dev/log"), &closed);
    closed.env_remove("JOURNAL_STREAM");
    Run::start(closed).end().exits(0);
    assert_eq!(messages(&daemon).len(), 1);
}

/// `ssh NODE vipherald …`, cron, a pipe: there is no terminal, and somebody reads.
#[test]
fn without_a_terminal_the_reader_of_stderr_gets_the_line() {
    let lab = Lab::new();
    let a = lab.host("a");
    let (daemon, path) = daemon(&lab);
    let file = lab.directory().join("stderr");
    for (arguments, status, text) in [
        (
            format!("announce {ABSENT} --wait 0"),
            5,
            "warning: 10.9.0.101 not on this host",
        ),
        (
            format!("announce {ABSENT} -i eth7"),
            1,
            "error: there is no interface eth7",
        ),
        (
            "anounce 10.9.0.101".to_owned(),
            2,
            "error: unrecognized subcommand 'anounce'; tip: a similar subcommand exists: 'announce'",
        ),
        (format!("purge {ABSENT}"), 0, "10.9.0.101 purged"),
    ] {
        let ended = Run::start(with_syslog(&a, Some(&path), &arguments))
            .end()
            .exits(status);
        assert!(ended.stderr.starts_with(text), "{ended:?}");
        let mut command = with_syslog(&a, Some(&path), &arguments);
        command.stderr(File::create(&file).unwrap());
        Run::start(command).end();
        let told = fs::read_to_string(&file).unwrap();
        assert_eq!(told, ended.stderr);
    }
    assert!(messages(&daemon).is_empty());
}

/// The lines of a log, without their times, which are of the last minute.
fn lines_of(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.ends_with('\n'), "{text}");
    let line = |line: &str| {
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(
            time.replace(|c: char| c.is_ascii_digit(), "0"),
            "0000-00-00T00:00:00.000Z",
            "{line}"
        );
        let date = Command::new("date")
            .args(["-d", time, "+%s"])
            .output()
            .unwrap();
        let told: u64 = String::from_utf8(date.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        assert!((told..told + 90).contains(&now.as_secs()), "{line}");
        rest.to_owned()
    };
    text.lines().map(line).collect()
}

#[test]
fn a_file_gets_dated_lines_where_there_is_no_daemon() {
    let (lab, a) = owner();
    let file = lab.directory().join("vipherald.log");
    let settings = lab.directory().join("settings");
    let shown = file.display();
    fs::write(&settings, format!("log = \"file:{shown}\"\n")).unwrap();
    let (option, config) = (
        format!("--log file:{shown}"),
        format!("--config {}", settings.display()),
    );
    let mut expected = Vec::new();
    for (how, arguments, text) in [
        (
            &option,
            format!("announce {VIP} --timeout 1"),
            format!("{VIP} announced on eth0"),
        ),
        (
            &option,
            format!("announce {ABSENT} --wait 0"),
            format!("warning: {ABSENT} not on this"),
        ),
        (
            &config,
            format!("purge {VIP} -i eth7"),
            "error: there is no interface eth7".to_owned(),
        ),
        (
            &option,
            "purge".to_owned(),
            "error: the following required arguments".to_owned(),
        ),
    ] {
        // The first one makes the file under keepalived's umask.
        let own = automatic(&a, &format!("{how} {arguments}"));
        let mut command = in_shell(&a, "umask 0177 && exec \"$@\"", &own);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let run = Run::start(command);
        expected.push(format!("vipherald[{}]: {text}", run.pid()));
        run.end();
    }
    let lines = lines_of(&file);
    assert_eq!(lines.len(), expected.len(), "{lines:?}");
    for (line, start) in lines.iter().zip(&expected) {
        assert!(line.starts_with(start), "{line}: {start}");
    }
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    // The command line comes before the settings.
    let ended = common::run(&a, &format!("{config} purge {ABSENT}"));
    ended.logs("purged");
    assert_eq!(lines_of(&file).len(), expected.len());
    // And without a umask it is for root and its group.
    fs::remove_file(&file).unwrap();
    let mut command = automatic(&a, &format!("{option} purge {ABSENT}"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Run::start(command).end();
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o640);
    // Where there is nothing to say, there is no file.
    fs::remove_file(&file).unwrap();
    common::run(&a, &format!("-q purge {ABSENT} {option}"));
    assert!(!file.exists());
}

/// The same with its standard error heard.
fn heard(host: &Host, arguments: &str) -> Command {
    let mut command = automatic(host, arguments);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

#[test]
fn a_log_that_is_no_file_delays_nothing() {
    type Make = fn(&Path) -> PathBuf;
    let cases: [(Make, &str); 5] = [
        (fifo_in, ""),
        (
            |folder| {
                symlink(folder.join("target"), folder.join("link")).unwrap();
                folder.join("link")
            },
            "symbolic links",
        ),
        (Path::to_owned, "directory"),
        (|_| "/dev/full".into(), "no regular file"),
        (|_| "/none/log".into(), "No such file"),
    ];
    thread::scope(|scope| {
        for (make, why) in cases {
            scope.spawn(move || {
                let (lab, a) = owner();
                let path = make(lab.directory()).display().to_string();
                let command = heard(&a, &format!("--log file:{path} {ANNOUNCE} -vv"));
                let ended = assert_not_held_up(&a, command);
                // stderr gets the reason, and everything else.
                let start = format!("warning: cannot log to {path}: ");
                assert!(ended.stderr.starts_with(&start), "{ended:?}");
                ended.logs(why).logs("announced on eth0");
                assert!(!lab.directory().join("target").exists());
            });
        }
    });
}

fn fifo_in(folder: &Path) -> PathBuf {
    let fifo = folder.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    fifo
}

/// A host that has the VIP.
fn owner() -> (Lab, Host) {
    let lab = Lab::new();
    let a = lab.host("a");
    give(&a, VIP, "eth0");
    (lab, a)
}

#[test]
fn a_log_that_is_full_or_stuck_delays_nothing() {
    let (lab, a) = owner();
    let folder = lab.directory();
    // Somebody reads the FIFO, and no more.
    let fifo = fifo_in(folder);
    let reader = File::options().read(true).write(true).open(&fifo).unwrap();
    let command = heard(&a, &format!("--log file:{} {ANNOUNCE}", fifo.display()));
    assert_not_held_up(&a, command).logs("no regular file");
    drop(reader);
    // A full disk, and a limit on the size of files.
    let log = folder.join("log");
    let arguments = format!("--log file:{} {ANNOUNCE} -vv", log.display());
    let limited = in_shell(&a, "ulimit -f 1 && exec \"$@\"", &heard(&a, &arguments));
    assert_not_held_up(&a, limited);
    assert!(log.metadata().unwrap().len() <= 1024);
    let own = folder.display().to_string();
    let prepare = format!(
        "mount -t tmpfs -o size=4k,mode=755 tmpfs {own} && \
         ! head -c 4096 /dev/zero >{own}/filler 2>/dev/null || true"
    );
    let full = with_own_directory(&a, &own, &prepare, &heard(&a, &arguments));
    assert_not_held_up(&a, full);
}

/// What comes from outside is one line, wherever it is printed.
#[test]
fn control_characters_in_names_reach_neither_the_log_nor_the_terminal() {
    let lab = Lab::new();
    let a = lab.host("a");
    let (daemon, path) = daemon(&lab);
    let forged = "VI\n<0>forged\x1b[2J\r\u{9b}\u{202e}x";
    let shown = r"VI\n<0>forged\u{1b}[2J\r\u{9b}\u{202e}x";
    let log = lab.directory().join("own.log");
    let conf = lab.directory().join("conf");
    fs::write(&conf, "").unwrap();
    let conf = conf.to_str().unwrap();
    let notify = [
        "--keepalived-conf",
        conf,
        "notify",
        "INSTANCE",
        forged,
        "MASTER",
        "1",
    ];
    let file = format!("--log=file:{}", log.display());
    for to in ["--log=stderr", "--log=auto", file.as_str()] {
        let mut command = a.command(common::VIPHERALD);
        command.arg(to).args(notify);
        let socket = format!("ln -s {path} /dev/log");
        let mut command = with_own_directory(&a, "/dev", &socket, &command);
        command.env_remove("JOURNAL_STREAM");
        if to == "--log=auto" {
            command.stderr(Stdio::null());
        }
        let ended = Run::start(command).end().exits(1);
        let told = match to {
            "--log=stderr" => vec![ended.stderr.trim_end_matches('\n').to_owned()],
            "--log=auto" => messages(&daemon),
            _ => lines_of(&log),
        };
        assert_eq!(told.len(), 1, "{told:?}");
        let line = &told[0];
        assert!(
            line.contains(&format!("there is no vrrp_instance {shown}")),
            "{line}"
        );
        assert!(
            !line.contains(|c: char| c.is_control() || c == '\u{202e}'),
            "{line}"
        );
    }
    // In what is printed, from a file; and in what is wrong with a command line.
    let named = lab.directory().join("named");
    fs::write(
        &named,
        "vrrp_instance \"A\x1b]0;x\x07\u{202e}B\" {\ninterface eth0\n}\n",
    )
    .unwrap();
    let ended = common::run(&a, &format!("--keepalived-conf {} show", named.display()));
    let name = "instance A\\u{1b}]0;x\\u{7}\\u{202e}B";
    let lines: Vec<_> = ended.stdout.lines().collect();
    assert_eq!(lines[0], format!("{name} on eth0"), "{ended:?}");
    let told = format!("{name}: has no virtual_router_id: keepalived does not start");
    assert!(lines.iter().any(|line| line.ends_with(&told)), "{ended:?}");
    assert!(
        !ended.stdout.contains(['\x1b', '\x07', '\u{202e}']),
        "{ended:?}"
    );
    let mut command = vipherald(&a, "check --nagios");
    command.args(["--instance", "A\x1b[2J\nB"]);
    let ended = Run::start(command).end();
    assert_eq!(ended.stdout.lines().count(), 1, "{ended:?}");
    assert!(!ended.stdout.contains('\x1b'), "{ended:?}");
    let mut command = vipherald(&a, "");
    command.arg("a\x1b[2J");
    let ended = Run::start(command).end();
    ended.logs("'a\\u{1b}[2J'");
}

#[test]
fn quiet_logs_only_what_is_wrong_and_vv_logs_every_frame() {
    let (_lab, a) = owner();
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
    assert_eq!(all.len(), sent + 2, "nothing of other crates: {all:?}");
}

#[test]
fn the_first_frame_leaves_before_the_first_message() {
    let (lab, a) = owner();
    let (daemon, path) = daemon(&lab);
    setsockopt(&daemon, sockopt::ReceiveTimestampns, &true).unwrap();
    let capture = a.capture();
    let arguments = format!("announce {VIP} --timeout 1 -vv");
    Run::start(as_hook(&a, Some(&path), &arguments))
        .end()
        .exits(0);
    let (frame, message) = (taken(&capture)[0].time, first_message(&daemon));
    assert!(frame <= message, "{frame:?}, {message:?}");
}

/// Runs a command that is [`ANNOUNCE`] to its end, and takes it that nothing held it up: it has 3 s
/// for three rounds, which take 0.2 s. If it waited half a second for each line that it logs of a
/// frame, it would not come so far; and what is logged at its end would delay that alone.
fn assert_not_held_up(host: &Host, command: Command) -> Ended {
    let capture = host.capture();
    let ended = Run::start(command).end().exits(0);
    assert!(ended.lasted < BEFORE_THE_ROUNDS_END, "{ended:?}");
    let announced = taken(&capture).len();
    assert!(announced >= 6, "{announced} announcements: {ended:?}");
    ended
}

const ANNOUNCE: &str = "announce 10.9.0.100 --timeout 3";

#[test]
fn a_syslog_socket_that_is_full_or_absent_delays_nothing() {
    let (lab, a) = owner();
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
            assert_not_held_up(&a, as_hook(&a, socket, &arguments));
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
    let (lab, a) = owner();
    let line = format!("{VIP} announced on eth0 as {}: ", a.mac());
    // A socket file whose daemon is dead.
    let (socket, path) = daemon(&lab);
    drop(socket);
    for socket in [None, Some(path.as_str())] {
        let arguments = format!("--log syslog {ANNOUNCE} -v --json");
        let ended = Run::start(with_syslog(&a, socket, &arguments)).end();
        assert!(
            ended.status == 0 && ended.stderr.starts_with(&line),
            "{ended:?}"
        );
        let frames = ended
            .stderr
            .lines()
            .find(|line| line.contains(" frames in "));
        assert_eq!(told_frames(frames.unwrap()).0, frames_sent(&ended));
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

/// Who has it may bind the journal's socket, or speak to whoever has bound it: there is one for all tests.
static JOURNAL: Mutex<()> = Mutex::new(());

#[test]
fn the_journal_gets_priorities_on_stderr() {
    let _nobody_else = JOURNAL.lock().unwrap_or_else(PoisonError::into_inner);
    let (lab, a) = owner();
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
            // What is read by somebody else has no priorities, and is no less read.
            assert!(told.contains(&starts[3..]), "{told:?}");
            assert!(syslog.is_empty(), "{syslog:?}");
        }
    }
}

#[test]
fn a_full_pipe_on_stderr_delays_nothing() {
    let (_lab, a) = owner();
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

/// The journal's sockets are in the /run that the tests have of their own.
#[test]
fn the_journal_gets_a_record_instead_of_the_line_and_never_both() {
    const DIRECTORY: &str = "/run/systemd/journal";
    let _nobody_else = JOURNAL.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::new();
    let a = lab.host("a");
    fs::create_dir_all(DIRECTORY).unwrap();
    let bind = |name: &str| {
        let socket = UnixDatagram::bind(format!("{DIRECTORY}/{name}")).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    };
    let (lines, records) = (bind("dev-log"), bind("socket"));
    let dev_log = format!("{DIRECTORY}/dev-log");
    let purge = || {
        a.remember(VIP, common::OLD_MAC);
        let arguments = format!("purge {VIP} {ABSENT}");
        Run::start(as_hook(&a, Some(&dev_log), &arguments))
            .end()
            .exits(0);
    };
    purge();
    let told = messages(&records);
    let [record] = told.as_slice() else {
        panic!("{told:?}");
    };
    let text = format!("{VIP} purged on eth0: was {} REACHABLE", common::OLD_MAC);
    for field in [
        format!("MESSAGE={text}"),
        "MESSAGE_ID=c563b6a10cb84cf3bcc0637b056170ec".to_owned(),
        "PRIORITY=6".to_owned(),
        "SYSLOG_IDENTIFIER=vipherald".to_owned(),
        format!("VIPHERALD_VIP={VIP}"),
        "VIPHERALD_INTERFACE=eth0".to_owned(),
        format!("VIPHERALD_MAC={}", common::OLD_MAC),
    ] {
        assert!(
            record.lines().any(|line| line == field),
            "{field}: {record}"
        );
    }
    // What is of no kind stays a line.
    let told = messages(&lines);
    assert!(
        told.len() == 1 && told[0].contains(&format!("{ABSENT} purged: no entry")),
        "{told:?}"
    );

    // Nobody is there who could answer.
    let silent = Lab::silent();
    let owner = silent.host("owner");
    give(&owner, VIP, "eth0");
    let announce = format!("announce {VIP} --timeout 2");
    Run::start(as_hook(&owner, Some(&dev_log), &announce))
        .end()
        .exits(3);
    let ids: Vec<_> = messages(&records)
        .iter()
        .flat_map(|record| {
            record
                .lines()
                .filter_map(|line| line.strip_prefix("MESSAGE_ID="))
        })
        .map(str::to_owned)
        .collect();
    assert_eq!(
        ids,
        [
            "8acd8be1571944f78f51216ef8bcead7",
            "1488b4f159bf482e8672b5eeb1e13629"
        ]
    );

    // What a run finds out while it goes on.
    let lab = Lab::new();
    let (owner, peer, rival) = (lab.host("owner"), lab.host("peer"), lab.host("rival"));
    give(&owner, VIP, "eth0");
    owner.remember(peer.ipv4(), peer.mac());
    peer.remember_as(VIP, common::OLD_MAC, State::Permanent);
    let announce = Run::start(as_hook(&owner, Some(&dev_log), &format!("announce {VIP}")));
    let is_recorded = |id: &str, field: &str| {
        let mut told = Vec::new();
        eventually(field, 2 * SOON, || {
            told.extend(messages(&records));
            let has = |record: &String, wanted: &str| record.lines().any(|line| line == wanted);
            let id = format!("MESSAGE_ID={id}");
            let mut of_kind = told.iter().filter(|record| has(record, &id));
            of_kind.any(|record| has(record, field)).then_some(())
        });
    };
    let of_peer = format!("VIPHERALD_PEER={}", peer.ipv4());
    let of_rival = format!("VIPHERALD_MAC={}", rival.mac());
    is_recorded("6ec7825850ae469693db75f70f3b891d", &of_peer);
    peer.ip(&format!("neigh del {VIP} dev eth0\n"));
    is_recorded("31518abfbac64607afc712afc2649e27", &of_peer);
    give(&rival, VIP, "eth0");
    is_recorded("6be11a6486ed4603bfc2fd7a050564b6", &of_rival);
    rival.ip("addr flush dev eth0\n");
    is_recorded("e2819a04b01441d79866871daa624cec", &of_rival);
    announce.terminate();
    let conf = lab.directory().join("keepalived.conf");
    let instance =
        format!("vrrp_instance VI_1 {{\n interface eth0\n virtual_ipaddress {{\n {VIP}\n }}\n}}\n");
    fs::write(&conf, instance).unwrap();
    let release = format!("--keepalived-conf {} release {VIP}", conf.display());
    Run::start(as_hook(&owner, Some(&dev_log), &release))
        .end()
        .exits(0);
    is_recorded(
        "f4fd67af0d214d128d5afc94a0c9a80c",
        &format!("VIPHERALD_VIP={VIP}"),
    );

    // If the journal does not take it, the line is not lost.
    drop(records);
    purge();
    let told = messages(&lines);
    assert_eq!(
        told.iter().filter(|line| line.contains(&text)).count(),
        1,
        "{told:?}"
    );
    fs::remove_file(format!("{DIRECTORY}/socket")).unwrap();
    fs::remove_file(dev_log).unwrap();
}
