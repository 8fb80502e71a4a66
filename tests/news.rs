//! What a run says before it ends, to whoever started it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod events;

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::thread;

use vipherald_lab::{Host, Lab, State};

use common::{OLD_MAC, Run, VIP, give, meet, old_mac, remember_old, vipherald, with_own_directory};
use events::{file, instance, with};

/// An owner of the VIP with two peers that it knows.
fn owner_and_peers(lab: &Lab) -> (Host, Vec<Host>) {
    let (owner, peers) = (lab.host("owner"), lab.hosts("peer", 2));
    give(&owner, VIP, "eth0");
    meet(&owner, &peers);
    remember_old(&peers, &[VIP]);
    (owner, peers)
}

/// A run whose lines are read as they come.
struct Told {
    run: Run,
    lines: Box<dyn BufRead + Send>,
}

impl Told {
    /// stderr is a pipe.
    fn by(mut command: Command) -> Self {
        let (reader, writer) = io::pipe().unwrap();
        command.stderr(writer).stdout(Stdio::null());
        Self {
            run: Run::start(command),
            lines: Box::new(BufReader::new(reader)),
        }
    }

    /// The next line, while the run goes on.
    fn next(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        assert!(!self.run.has_ended(), "only at the end: {line}");
        line.trim_end().to_owned()
    }

    /// What comes from now on to the end, and the exit status.
    fn rest(mut self) -> (String, i32) {
        let status = self.run.end().status;
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        (rest, status)
    }
}

#[test]
fn that_all_follow_is_said_at_once_to_a_pipe_a_terminal_and_a_hooks_syslog() {
    let first = |owner: &Host| {
        format!(
            "{VIP} announced on eth0 as {}: 2 of 2 who answer",
            owner.mac()
        )
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let lab = Lab::new();
            let (owner, _peers) = owner_and_peers(&lab);
            let mut told = Told::by(vipherald(&owner, &format!("announce {VIP}")));
            let line = told.next();
            assert!(line.starts_with(&first(&owner)), "{line}");
            assert!(line.contains(" follow, the last after "), "{line}");
            // The end is no news.
            assert_eq!(told.rest(), (String::new(), 0));
        });
        scope.spawn(|| {
            let lab = Lab::new();
            let (owner, _peers) = owner_and_peers(&lab);
            let mut command = owner.command("script");
            let program = common::VIPHERALD;
            command.args(["-qec", &format!("{program} announce {VIP}"), "/dev/null"]);
            command.stdin(Stdio::null());
            let (reader, writer) = io::pipe().unwrap();
            command.stdout(writer).stderr(Stdio::null());
            let mut told = Told {
                run: Run::start(command),
                lines: Box::new(BufReader::new(reader)),
            };
            let line = told.next();
            assert!(line.starts_with(&first(&owner)), "{line}");
            assert_eq!(told.rest(), (String::new(), 0));
        });
        scope.spawn(|| {
            let lab = Lab::new();
            let (owner, _peers) = owner_and_peers(&lab);
            let path = lab.directory().join("log");
            let daemon = UnixDatagram::bind(&path).unwrap();
            let mut hook = owner.command(common::VIPHERALD);
            hook.args(["announce", VIP]);
            let prepare = format!("ln -s {} /dev/log", path.display());
            let mut hook = with_own_directory(&owner, "/dev", &prepare, &hook);
            hook.env_remove("JOURNAL_STREAM").stderr(Stdio::null());
            let mut run = Run::start(hook);
            let mut message = [0; 4096];
            let length = daemon.recv(&mut message).unwrap();
            assert!(!run.has_ended());
            let message = String::from_utf8_lossy(&message[..length]);
            assert!(message.contains(&first(&owner)), "{message}");
            run.end().exits(0);
            daemon.set_nonblocking(true).unwrap();
            assert!(daemon.recv(&mut [0; 16]).is_err(), "the end is no news");
        });
    });
}

#[test]
fn who_does_not_follow_is_said_before_the_end_and_that_it_does_after_all() {
    let lab = Lab::new();
    let (owner, peers) = owner_and_peers(&lab);
    peers[0].remember_as(VIP, OLD_MAC, State::Permanent);
    let mut told = Told::by(vipherald(&owner, &format!("announce {VIP}")));
    let line = told.next();
    assert!(line.contains(": 1 of 2 who answer follow, "), "{line}");
    let line = told.next();
    let stale = format!(
        "warning: {VIP} on eth0: {} ({}) is stale: ",
        peers[0].ipv4(),
        peers[0].mac()
    );
    assert!(line.starts_with(&stale), "{line}");
    assert_eq!(peers[0].neighbour(VIP).unwrap().mac, Some(old_mac()));
    peers[0].run(&format!("ip neigh del {VIP} dev eth0"));
    let line = told.next();
    let straggler = format!(
        "{VIP} on eth0: {} ({}) follows after all",
        peers[0].ipv4(),
        peers[0].mac()
    );
    assert!(line.starts_with(&straggler), "{line}");
    assert_eq!(told.rest(), (String::new(), 0));
}

#[test]
fn another_owner_is_said_before_the_end() {
    let lab = Lab::new();
    let (owner, peers) = owner_and_peers(&lab);
    give(&peers[1], VIP, "eth0");
    let mut told = Told::by(vipherald(&owner, &format!("announce {VIP}")));
    let line = told.next();
    assert!(line.contains(": 1 of 1 who answer follow, "), "{line}");
    let line = told.next();
    let conflict = format!("error: {VIP} on eth0: conflict: {} (host ", peers[1].mac());
    assert!(line.starts_with(&conflict), "{line}");
    let (rest, status) = told.rest();
    assert!(!rest.contains("conflict"), "{rest}");
    assert_eq!(status, 4);
}

#[test]
fn the_node_that_has_just_died_is_expected_to_be_silent_and_others_are_not() {
    let dead = "10.9.0.77";
    let expected = format!("VI_1: {VIP} on eth0: the configured peer {dead} is silent: the node");
    let unexpected =
        format!("warning: VI_1: {VIP} on eth0: the configured peer {dead} is silent: no");
    thread::scope(|scope| {
        for (nodes, more, line) in [
            (vec![dead], "", &expected),
            // The user vouches for it.
            (vec![dead], "-p 10.9.0.77", &unexpected),
            // Not all of them have died.
            (vec![dead, "10.9.0.78"], "", &unexpected),
        ] {
            scope.spawn(move || {
                let lab = Lab::new();
                let (owner, peers) = owner_and_peers(&lab);
                let nodes = nodes.join("\n ");
                let nodes = format!("unicast_peer {{\n {}\n {nodes}\n }}", peers[0].ipv4());
                let conf = file(&lab, "conf", &instance("VI_1", 51, 100, &[VIP], &nodes));
                let announce = format!("announce --instance VI_1 --timeout 12 {more}");
                let mut told = Told::by(vipherald(&owner, &with(&conf, &announce)));
                let first = told.next();
                assert!(first.contains(": 2 of 2 who answer follow, "), "{first}");
                let second = told.next();
                assert!(second.starts_with(line.as_str()), "{second}");
                let (rest, status) = told.rest();
                assert!(!rest.contains(dead), "{rest}");
                assert_eq!(status, 3);
            });
        }
    });
}

#[test]
fn that_nobody_is_heard_is_said_before_the_end() {
    let lab = Lab::silent();
    let owner = lab.host("owner");
    give(&owner, VIP, "eth0");
    let mut told = Told::by(vipherald(
        &owner,
        &format!("announce {VIP} -p 10.9.0.77 --timeout 12"),
    ));
    let line = told.next();
    let silent = format!("warning: {VIP} on eth0: no frame of any other host has come in yet");
    assert!(line.starts_with(&silent), "{line}");
    let (rest, status) = told.rest();
    assert!(rest.contains("nobody who was asked answers"), "{rest}");
    assert!(
        rest.contains("no frame of any other host came in"),
        "{rest}"
    );
    assert_eq!(status, 3);
}
