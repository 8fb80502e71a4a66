//! What the tests of orders share: keys, settings, and hosts that listen.
#![allow(dead_code, reason = "each test file uses a part")]

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use vipherald::order::wall_clock;
use vipherald_core::address::Vip;
use vipherald_core::order::message::{ANSWER_LENGTH, Id, PORT};
use vipherald_core::order::{Answer, Keys, Order};
use vipherald_lab::{Host, Lab, Mac, eventually};

use crate::common::{Run, SOON, VIPHERALD, run, vipherald};
use crate::events::file;

/// A key for orders, and settings that name it.
pub(crate) struct Orders {
    pub(crate) key: PathBuf,
    pub(crate) keys: Keys,
    folder: PathBuf,
}

impl Orders {
    pub(crate) fn new(lab: &Lab, host: &Host) -> Self {
        let key = lab.directory().join("orders.key");
        run(host, &format!("keygen {}", key.display())).exits(0);
        let keys = vipherald::key_file::read(std::slice::from_ref(&key), "", None).unwrap();
        Self {
            key,
            keys,
            folder: lab.directory().to_owned(),
        }
    }

    /// A settings file: `general`, and below `[orders]` the key and `more`.
    pub(crate) fn settings(&self, lab: &Lab, name: &str, general: &str, more: &str) -> PathBuf {
        let key = self.key.display();
        let text = format!("{general}\n[orders]\nkey_file = \"{key}\"\n{more}\n");
        file(lab, name, &text)
    }
}

/// Starts `listen` on a host, and waits until it does.
pub(crate) fn listen(host: &Host, settings: &Path, more: &str) -> Run {
    let arguments = format!(
        "--config {} listen --bind [::]:{PORT} {more}",
        settings.display()
    );
    let run = Run::start(vipherald(host, &arguments));
    wait_until_it_listens(host, &run);
    run
}

/// Waits until `listen` can be reached.
pub(crate) fn wait_until_it_listens(host: &Host, run: &Run) {
    let pid = run.pid();
    eventually(&format!("{} listens", host.name()), SOON, || {
        let sockets = std::fs::read_to_string(format!("/proc/{pid}/net/udp6")).ok()?;
        sockets.contains(&format!(":{PORT:04X} ")).then_some(())
    });
}

/// An order to a host, made now.
pub(crate) fn order_to(host: &Host, id: Id, vip: &str, mac: Mac) -> Order {
    Order {
        time: wall_clock(),
        id,
        to: host.ipv4().into(),
        instance: "VI_1".to_owned(),
        vips: vec![(
            vip.parse::<Vip>().unwrap(),
            vipherald_core::address::Mac::new(mac.0),
        )],
    }
}

/// A socket of a host, on some port of its IPv4 address.
pub(crate) fn socket(host: &Host) -> UdpSocket {
    let own = SocketAddr::new(host.ipv4().into(), 0);
    let socket = host.enter(|| UdpSocket::bind(own)).unwrap();
    let patience = Some(Duration::from_millis(200));
    socket.set_read_timeout(patience).unwrap();
    socket
}

/// Sends a datagram to a host's `listen`, again and again until it answers.
pub(crate) fn ask(socket: &UdpSocket, host: &Host, keys: &Keys, datagram: &[u8]) -> Answer {
    let mut buffer = [0; ANSWER_LENGTH.1];
    eventually("an answer", SOON, || {
        let _ = socket.send_to(datagram, (host.ipv4(), PORT));
        let (length, _) = socket.recv_from(&mut buffer).ok()?;
        Answer::read(&buffer[..length], keys)
    })
}

/// The answer to an order that `from` sends to a host's `listen`.
pub(crate) fn obey(from: &Host, host: &Host, orders: &Orders, order: &Order) -> Answer {
    let datagram = order.to_bytes(&orders.keys);
    ask(&socket(from), host, &orders.keys, &datagram)
}

/// A command that starts the program as a socket unit does, with the socket as standard input.
pub(crate) fn activated(host: &Host, socket: UdpSocket) -> Command {
    let mut command = host.command("sh");
    command
        // It has to be descriptor 3.
        .args([
            "-c",
            "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"",
        ])
        .arg(VIPHERALD)
        .args(["--log", "stderr"])
        .stdin(Stdio::from(OwnedFd::from(socket)));
    command
}
