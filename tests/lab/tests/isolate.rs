//! The runner of all tests: what it starts cannot outlive it, nor be seen outside.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

/// The script under a shell, with a command that runs inside.
fn isolate(script: &str) -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/isolate"));
    command.args(["sh", "-c", script]);
    command
}

fn output(script: &str) -> Output {
    isolate(script).output().expect("the script is executable")
}

#[test]
fn it_gives_the_status_and_the_output_of_its_command() {
    let output = output("echo out; echo err >&2; exit 7");
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice()),
        (&b"out\n"[..], &b"err\n"[..])
    );
    let aborted = self::output("kill -ABRT $$");
    assert_eq!(aborted.status.code(), Some(128 + 6));
}

#[test]
fn its_command_is_root_and_alone() {
    let output = output(
        "id -u; ip -o link | wc -l; ls /run | wc -l; test $$ -lt 9 && echo few; sysctl -qw net.ipv4.conf.lo.arp_ignore=1 && nft add table inet t && echo can",
    );
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        told.split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "0", "few", "can"],
        "{output:?}"
    );
}

#[test]
fn nothing_survives_its_kill() {
    // All that run inside hold the pipe; it ends when the last of them has.
    let script = "trap '' TERM HUP; setsid sleep 1000 & echo ready; sleep 1000; echo woke";
    let mut isolated = isolate(script).stdout(Stdio::piped()).spawn().unwrap();
    let mut pipe = BufReader::new(isolated.stdout.take().unwrap());
    let mut line = String::new();
    pipe.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    isolated.kill().unwrap();
    let mut rest = String::new();
    pipe.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    assert_eq!(isolated.wait().unwrap().signal(), Some(9));
}
