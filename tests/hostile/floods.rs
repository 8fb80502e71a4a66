//! Floods of datagrams at `listen`, and of lines at `fifo`.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, UdpSocket};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use vipherald_core::order::message::{Id, PORT};
use vipherald_core::order::{Answer, Outcome};
use vipherald_lab::{Lab, eventually};

use crate::ceilings::{Cost, frames_sent, memory};
use crate::common::{
    OLD_MAC, Over, Run, SOON, address_beside, give, remember_old, vipherald, wait_until_followed,
};
use crate::events::{fifo, file, instance, with};
use crate::flood::{Flooder, Forge};
use crate::helpers::{Orders, order_to, wait_until_it_listens};

/// How long floods of datagrams and frames last.
const FLOODED_FOR: Duration = Duration::from_secs(3);
/// Lines of a flood, and of one whose lines cost little.
const LINES: usize = 200_000;
const MANY_LINES: usize = 1_000_000;

/// What the forged traffic at `listen` is.
#[derive(Clone, Copy)]
pub(crate) enum At {
    /// One recorded order, again and again, by its own sender's address.
    RecordedOrder,
    /// Orders that no key signed.
    UnsignedOrders,
    /// Frames, besides genuine orders.
    Link(Forge),
}

/// Floods a host that listens. It still obeys a genuine order afterwards, or meanwhile.
pub(crate) fn listen(at: At, vip: &str) -> Cost {
    let lab = Lab::new();
    let (owner, peer, attacker) = (lab.host("owner"), lab.host("peer"), lab.host("attacker"));
    let orders = Orders::new(&lab, &owner);
    let settings = orders.settings(&lab, "settings", "", "");
    let log = lab.directory().join("listen.log");
    let arguments = format!("--config {} listen --bind [::]:{PORT}", settings.display());
    let mut command = vipherald(&peer, &arguments);
    command.stderr(File::create(&log).unwrap());
    let run = Run::start(command);
    wait_until_it_listens(&peer, &run);
    give(&owner, vip, "eth0");
    remember_old([&peer], &[vip]);
    let (own, there) = (address_beside(vip, &owner), address_beside(vip, &peer));
    let sender = owner.enter(|| UdpSocket::bind((own, 0))).unwrap();
    let patience = Some(Duration::from_millis(200));
    sender.set_read_timeout(patience).unwrap();
    let genuine = |number: u8| {
        let mut order = order_to(&peer, Id::from([number; 16]), vip, owner.mac());
        order.to = there;
        order.to_bytes(&orders.keys)
    };
    let obeyed = |number: u8| {
        let mut buffer = [0; 1000];
        let answer = eventually("a genuine order is obeyed", SOON, || {
            let _ = sender.send_to(&genuine(number), (there, PORT));
            let (length, _) = sender.recv_from(&mut buffer).ok()?;
            let answer = Answer::read(&buffer[..length], &orders.keys)?;
            (answer.id == Id::from([number; 16])).then_some(answer)
        });
        let done = answer.done[0].outcome;
        assert!(matches!(done, Outcome::Purged | Outcome::Right), "{done:?}");
    };
    obeyed(1);
    let (ends, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let (before, began) = (frames_sent(&peer), Instant::now());
    thread::scope(|scope| {
        scope.spawn(|| watch(run.pid(), &most, &ends));
        let _over = Over(&ends);
        match at {
            At::RecordedOrder => send_again(&sender, &genuine(1), (there, PORT)),
            At::UnsignedOrders => {
                let mut unsigned = genuine(2);
                *unsigned.last_mut().unwrap() ^= 1;
                let from = address_beside(vip, &attacker);
                let socket = attacker.enter(|| UdpSocket::bind((from, 0))).unwrap();
                send_again(&socket, &unsigned, (there, PORT));
            }
            At::Link(forged) => {
                let mut flooder = Flooder::on(&attacker, forged(vip.parse().unwrap()));
                let never = AtomicBool::new(false);
                let sent = flooder.send_for(FLOODED_FOR, &never);
                assert!(sent > 10_000, "{sent} frames are no flood");
            }
        }
    });
    let (most, frames) = (most.into_inner(), frames_sent(&peer) - before);
    let lasted = began.elapsed();
    peer.remember(vip, OLD_MAC);
    obeyed(3);
    wait_until_followed([&peer], &[vip], owner.mac());
    run.goes_on();
    Cost::of(lasted, most, frames, &log)
}

fn send_again(socket: &UdpSocket, datagram: &[u8], to: (IpAddr, u16)) {
    let began = Instant::now();
    let mut sent = 0;
    while began.elapsed() < FLOODED_FOR {
        for _ in 0..64 {
            sent += u32::from(socket.send_to(datagram, to).is_ok());
        }
    }
    assert!(sent > 10_000, "{sent} datagrams are no flood");
}

/// Notes the most memory that a process takes.
pub(crate) fn watch(pid: u32, most: &AtomicU64, ends: &AtomicBool) {
    while !ends.load(Ordering::SeqCst) {
        most.fetch_max(memory(pid), Ordering::SeqCst);
        thread::sleep(Duration::from_millis(10));
    }
    most.fetch_max(memory(pid), Ordering::SeqCst);
}

/// What is written into the FIFO.
#[derive(Clone, Copy)]
pub(crate) enum Written {
    /// Events of instances that keepalived.conf does not have, each of another.
    UnknownNames,
    /// Events of one instance, by turns MASTER and BACKUP.
    OneInstance,
    /// A million lines of nonsense, each another.
    Nonsense,
    /// One line of 64 MiB.
    EndlessLine,
    /// Half a line, and then nothing.
    HalfLine,
}

/// Floods the FIFO. Its reader then still announces the VIP at the next event, and ends at SIGTERM.
pub(crate) fn events(written: Written, vip: &str) -> Cost {
    let lab = Lab::new();
    let (host, peer) = (lab.host("host"), lab.host("peer"));
    let conf = file(&lab, "conf", &instance("VI_1", 51, 100, &[vip], ""));
    let (path, mut writer) = fifo(&lab, "fifo");
    // As long as the pipe is full, this waits, where keepalived would drop lines.
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    let log = lab.directory().join("fifo.log");
    let mut command = vipherald(&host, &with(&conf, &format!("fifo {}", path.display())));
    command
        .stdout(Stdio::null())
        .stderr(File::create(&log).unwrap());
    let run = Run::start(command);
    let (ends, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let (before, began) = (frames_sent(&host), Instant::now());
    thread::scope(|scope| {
        scope.spawn(|| watch(run.pid(), &most, &ends));
        let _over = Over(&ends);
        flood_lines(&mut writer, written);
        // What follows the flood is read after it. The reader may have looked for VIPs by itself, too.
        remember_old([&peer], &[vip]);
        give(&host, vip, "eth0");
        writer
            .write_all(b"\nINSTANCE \"VI_1\" MASTER 100\n")
            .unwrap();
        wait_until_followed([&peer], &[vip], host.mac());
    });
    let (most, frames) = (most.into_inner(), frames_sent(&host) - before);
    let lasted = began.elapsed();
    run.goes_on();
    Cost::of(lasted, most, frames, &log)
}

fn flood_lines(writer: &mut File, written: Written) {
    let mut lines = String::new();
    match written {
        Written::UnknownNames => {
            for number in 0..LINES {
                lines += &format!("INSTANCE \"unknown_{number}\" MASTER 100\n");
            }
        }
        Written::OneInstance => {
            for _ in 0..LINES {
                lines += "INSTANCE \"VI_1\" MASTER 100\nINSTANCE \"VI_1\" BACKUP 100\n";
            }
        }
        Written::Nonsense => {
            for number in 0..MANY_LINES {
                lines += &format!("nonsense {number}\n");
            }
        }
        Written::EndlessLine => lines = "x".repeat(64 << 20),
        Written::HalfLine => lines = "INSTANCE \"VI_1\" MAS".to_owned(),
    }
    writer.write_all(lines.as_bytes()).unwrap();
}
