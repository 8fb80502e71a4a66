//! What it costs `watch` to hear a link: 50,000 frames a second that are none of its business, and the
//! memory of as many hosts as it remembers.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, send};
use nix::unistd::{SysconfVar, sysconf};
use vipherald_lab::{Host, Lab};

use crate::tools::{end, quiet};

const VIP: &str = "10.9.0.100";
/// Unrelated frames a second, for so long.
const RATE: u64 = 50_000;
const LASTS: Duration = Duration::from_secs(10);
/// As many as `watch` remembers on a link, from 10.9.16.0 on.
const HOSTS: u32 = 4096;
const FIRST_HOST: u32 = 0x0a09_1000;
/// Gaps between these are enough for every frame to be taken in.
const AT_ONCE: u32 = 64;
const STARTED_WITHIN: Duration = Duration::from_millis(500);

pub(crate) fn run(program: &Path) {
    println!("### What a resident costs that hears a link\n");
    println!("| | processor | memory |\n|---|---|---|");
    let mut csv = String::from("case,processor,memory\n");
    for (name, sends) in [
        ("nothing is sent", Sends::Nothing),
        ("50,000 unrelated frames/s", Sends::Unrelated),
        ("4,096 hosts ask for the VIP", Sends::Hosts),
    ] {
        let (share, memory) = measure(program, sends);
        println!(
            "| {name} | {:.2} % of a core | {memory} KiB |",
            share * 100.0
        );
        writeln!(csv, "\"{name}\",{share:.6},{memory}").expect("a String takes all");
    }
    println!();
    fs::write("target/bench/passive.csv", csv).expect("target is writable");
}

#[derive(Clone, Copy, PartialEq)]
enum Sends {
    Nothing,
    Unrelated,
    Hosts,
}

/// The share of a core that it takes, and its peak memory in KiB.
fn measure(program: &Path, sends: Sends) -> (f64, u64) {
    let lab = Lab::new();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let mut command = a.command(program);
    let watch = quiet(command.args(["watch", VIP])).spawn();
    let watch = watch.expect("it was just built");
    thread::sleep(STARTED_WITHIN);
    let (before, began) = (ticks(&watch), Instant::now());
    match sends {
        Sends::Nothing => {}
        Sends::Unrelated => send_unrelated(&b, &a),
        Sends::Hosts => send_questions(&b),
    }
    thread::sleep(LASTS.saturating_sub(began.elapsed()));
    let took = (ticks(&watch) - before) / began.elapsed().as_secs_f64();
    let memory = peak_memory(&watch);
    end(watch);
    (took, memory)
}

/// Datagrams to the host's MAC that no socket is there for, at an address that it has not.
fn send_unrelated(from: &Host, to: &Host) {
    let socket = from.packet_socket();
    let mut frame = [&to.mac().0[..], &from.mac().0, &[0x08, 0x00, 0x45]].concat();
    frame.resize(64, 0);
    // UDP from 10.9.0.250 to 10.9.0.251.
    frame[16..24].copy_from_slice(&[0, 50, 0, 0, 0x40, 0, 64, 17]);
    frame[26..34].copy_from_slice(&[10, 9, 0, 250, 10, 9, 0, 251]);
    let began = Instant::now();
    let mut sent: u64 = 0;
    while began.elapsed() < LASTS {
        let due = RATE * u64::try_from(began.elapsed().as_micros()).expect("seconds") / 1_000_000;
        while sent < due {
            // A full queue loses one.
            let _ = send(socket.as_raw_fd(), &frame, MsgFlags::MSG_DONTWAIT);
            sent += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// ARP requests of many hosts for the VIP.
fn send_questions(from: &Host) {
    let vip: Ipv4Addr = VIP.parse().expect("an address");
    for number in 0..HOSTS {
        let [.., high, low] = number.to_be_bytes();
        let mac = [2, 0, 0, 9, high, low];
        let sender = Ipv4Addr::from(FIRST_HOST + number).octets();
        let arp = [0, 1, 8, 0, 6, 4, 0, 1];
        let frame = [
            &[0xff; 6][..],
            &mac,
            &[8, 6],
            &arp,
            &mac,
            &sender,
            &[0; 6],
            &vip.octets(),
        ];
        from.send(&frame.concat());
        if number % AT_ONCE == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The processor time of a process, user and system, in seconds.
fn ticks(process: &Child) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).expect("it runs");
    let (_, rest) = stat.rsplit_once(") ").expect("proc(5)");
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks: u32 = fields[11..13]
        .iter()
        .map(|field| field.parse::<u32>().expect("a number"))
        .sum();
    let a_second = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    let a_second = i32::try_from(a_second.expect("POSIX")).expect("a hundred");
    f64::from(ticks) / f64::from(a_second)
}

fn peak_memory(process: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.expect("proc(5)").trim().trim_end_matches(" kB");
    number.parse().expect("a number")
}
