//! Speed and size, beside the tools that one would use instead. Ratios of medians, measured in one
//! run and in turns; nothing is asserted.
//!
//! ```sh
//! first_frame PATH_OF_VIPHERALD [TURNS]
//! ```
//!
//! A frame's moment is the kernel's time stamp at the peer, counted from the sender's exec.

mod stopwatch;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs};

use vipherald_lab::{Direction, Frame, Host, Lab};

use stopwatch::{quantile, time};

const VIP: &str = "10.9.0.254";
const SOON: Duration = Duration::from_secs(20);
/// VIPs of the run with many: 10.9.1.0 to 10.9.1.255.
const MANY: usize = 256;
/// Entries of a table that is large.
const ENTRIES: u32 = 60_000;

fn main() {
    // cargo itself adds --bench.
    let arguments: Vec<String> = env::args().skip(1).filter(|a| a != "--bench").collect();
    let (program, turns) = match arguments.as_slice() {
        [program] => (program, 100),
        [program, turns] => (program, turns.parse().expect("TURNS is a number")),
        _ => panic!("usage: first_frame PATH_OF_VIPHERALD [TURNS]"),
    };
    let program = fs::canonicalize(program).unwrap_or_else(|e| panic!("{program}: {e}"));
    println!("{turns} turns each; medians, and the range from the first to the ninth tenth\n");
    first_frame(&program, turns);
    first_round(&program, turns.div_ceil(10));
    purge(&program, turns.div_ceil(2));
    memory(&program);
    let size = fs::metadata(&program).expect("it is there").len();
    println!("\nsize of {}: {}", program.display(), mebibytes(size));
}

fn first_frame(program: &Path, turns: usize) {
    let lab = Lab::new();
    let (owner, peer) = (lab.host("owner"), lab.host("peer"));
    owner.run(&format!("ip addr add {VIP}/32 dev eth0"));
    let floor = build_floor(&lab);
    let capture = peer.capture();
    let mac = owner.mac().to_string();
    let first = |program: &Path, arguments: &[&str]| {
        let mut command = quiet(owner.command(program));
        let (child, began) = stopwatch::start(command.args(arguments));
        let frame = capture
            .wait_for(SOON, is_gratuitous)
            .expect("a frame comes");
        end(child);
        capture.frames();
        since(began, frame.time)
    };
    let mut measured = [const { Vec::new() }; 3];
    for _ in 0..turns {
        measured[0].push(first(program, &["announce", VIP, "--log", "stderr"]));
        measured[1].push(first(
            Path::new("arping"),
            &["-q", "-U", "-c", "1", "-I", "eth0", VIP],
        ));
        measured[2].push(first(&floor, &["eth0", &mac, VIP]));
    }
    let names = [
        "vipherald announce",
        "arping -U -c 1",
        "a static C program that sends one",
    ];
    print("exec to first frame", &names, &measured);
}

fn first_round(program: &Path, turns: usize) {
    let lab = Lab::new();
    let (owner, peer) = (lab.host("owner"), lab.host("peer"));
    let vips: Vec<_> = (0..MANY).map(|n| format!("10.9.1.{n}")).collect();
    batch(
        &owner,
        vips.iter().map(|vip| format!("addr add {vip}/32 dev eth0")),
    );
    let capture = peer.capture();
    // A round of vipherald's is two frames for each VIP.
    let all = |mut command: Command, frames: usize| {
        let (child, began) = stopwatch::start(&mut command);
        let mut seen = 0;
        let last = capture.wait_for(SOON, |frame| {
            seen += usize::from(is_gratuitous(frame));
            seen == frames
        });
        end(child);
        capture.frames();
        since(began, last.expect("all come").time)
    };
    let mut measured = [const { Vec::new() }; 3];
    for _ in 0..turns {
        let mut ours = quiet(owner.command(program));
        ours.args(["announce", "--log", "stderr"]).args(&vips);
        measured[0].push(all(ours, 2 * MANY));
        measured[1].push(all(arpings(&owner, &vips, "&"), MANY));
    }
    // One after the other: slow enough for a part of them, once.
    let part = &vips[..MANY / 32];
    measured[2].push(all(arpings(&owner, part, ";"), part.len()) * 32);
    let names = [
        "vipherald announce, both ARP forms",
        "a shell loop of arping -U -c 1 &",
        "the same without &, 32 times 8 VIPs",
    ];
    print(
        "256 VIPs: exec to last frame of the first round",
        &names,
        &measured,
    );
}

/// A shell that runs an arping for each VIP.
fn arpings(owner: &Host, vips: &[String], separator: &str) -> Command {
    let mut shell = quiet(owner.command("sh"));
    let one = |vip: &String| format!("arping -q -U -c 1 -I eth0 {vip} {separator} ");
    shell
        .arg("-c")
        .arg(vips.iter().map(one).collect::<String>());
    shell
}

fn purge(program: &Path, turns: usize) {
    let lab = Lab::new();
    let host = lab.host("host");
    host.run("ip addr add 10.8.0.1/16 dev eth0");
    // Permanent ones do not count against the limit that all hosts share.
    let entries = (0..ENTRIES).map(|n| {
        let ip = std::net::Ipv4Addr::from(0x0a08_0002 + n);
        format!("neigh add {ip} lladdr 02:00:00:00:00:01 dev eth0 nud permanent")
    });
    batch(&host, entries);
    let timed = |program: &Path, arguments: &[&str]| {
        host.remember(VIP, "02:00:00:00:00:99");
        let mut command = quiet(host.command(program));
        command.args(arguments);
        let began = Instant::now();
        let status = command.status().expect("it can be started");
        let lasted = began.elapsed();
        assert!(status.success(), "{command:?}: {status}");
        lasted
    };
    let mut measured = [const { Vec::new() }; 4];
    let ip = Path::new("ip");
    for _ in 0..turns {
        let purge = ["purge", VIP, "-i", "eth0", "--log", "stderr"];
        measured[0].push(timed(program, &purge));
        measured[1].push(timed(program, &["purge", VIP, "--log", "stderr"]));
        measured[2].push(timed(ip, &["neigh", "del", VIP, "dev", "eth0"]));
        measured[3].push(timed(ip, &["neigh", "flush", "to", VIP]));
    }
    let names = [
        "vipherald purge -i eth0",
        "vipherald purge, every interface",
        "ip neigh del dev eth0",
        "ip neigh flush to",
    ];
    print("purge of one VIP among 60,000 entries", &names, &measured);
}

/// What a run with many peers and VIPs takes at most.
fn memory(program: &Path) {
    println!("peak resident memory (VmHWM)");
    for (peers, vips) in [(1, 1), (30, 1), (30, 64)] {
        let lab = Lab::new();
        let (owner, peers) = (lab.host("owner"), lab.hosts("peer", peers));
        for peer in &peers {
            owner.remember(peer.ipv4(), peer.mac());
        }
        let vips: Vec<_> = (0..vips).map(|n| format!("10.9.0.{}", 254 - n)).collect();
        batch(
            &owner,
            vips.iter().map(|vip| format!("addr add {vip}/32 dev eth0")),
        );
        let mut command = quiet(owner.command(program));
        command.args(["announce", "--json", "--log", "stderr", "--timeout", "2"]);
        let mut child = command.args(&vips).spawn().expect("it can be started");
        let status = PathBuf::from(format!("/proc/{}/status", child.id()));
        let mut peak = String::new();
        while child.try_wait().expect("it is one's own child").is_none() {
            // Of one that has just ended there is none.
            let text = fs::read_to_string(&status).unwrap_or_default();
            if let Some(line) = text.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
                line.trim().clone_into(&mut peak);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        println!(
            "  {:<42}{peak:>12}",
            format!("{} peers, {} VIPs", peers.len(), vips.len())
        );
    }
}

/// Prints medians, and how they compare with the first one.
fn print(what: &str, names: &[&str], measured: &[Vec<Duration>]) {
    println!("{what}");
    let of = |values: &[Duration], share| quantile(values, share).unwrap_or_default();
    let ours = of(&measured[0], 0.5);
    for (number, (name, values)) in names.iter().zip(measured).enumerate() {
        let median = of(values, 0.5);
        let range = format!("{} - {}", time(of(values, 0.1)), time(of(values, 0.9)));
        let ratio = ours.as_secs_f64() / median.as_secs_f64();
        let against = match number {
            0 => String::new(),
            _ => format!("vipherald takes {ratio:.2} x as long"),
        };
        println!("  {name:<42}{:>12}  {range:<20} {against}", time(median));
    }
    println!();
}

fn mebibytes(octets: u64) -> String {
    let kibibytes = u32::try_from(octets / 1024).unwrap_or(u32::MAX);
    format!("{:.2} MiB", f64::from(kibibytes) / 1024.0)
}

/// Compiles the C program, statically.
fn build_floor(lab: &Lab) -> PathBuf {
    let floor = lab.directory().join("floor");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/floor.c");
    let status = Command::new("cc")
        .args(["-O2", "-static", "-o"])
        .arg(&floor)
        .arg(source)
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "no C compiler, or no static C library: apt-get install gcc libc6-dev"
    );
    floor
}

/// Whether it came in and is ARP that tells of its sender.
fn is_gratuitous(frame: &Frame) -> bool {
    let body = frame.payload();
    frame.direction == Direction::ToHost
        && frame.ether_type() == 0x0806
        && body[14..18] == body[24..28]
}

fn since(earlier: SystemTime, later: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}

fn end(mut child: Child) {
    // It may have ended by itself.
    let _ = child.kill();
    child.wait().expect("one's own child can be waited for");
}

fn quiet(mut command: Command) -> Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Runs `ip` commands.
fn batch(host: &Host, lines: impl IntoIterator<Item = String>) {
    let lines: Vec<_> = lines.into_iter().collect();
    let mut ip = host
        .command("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("ip can be started");
    let mut stdin = ip.stdin.take().expect("it was piped");
    stdin
        .write_all(lines.join("\n").as_bytes())
        .expect("ip reads its commands");
    drop(stdin);
    assert!(ip.wait().is_ok_and(|status| status.success()), "ip -batch");
}
