//! What the tests of the binary share: running it on a host, and reading what it says and sends.
#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod arp;
pub(crate) mod docs;
pub(crate) mod tls;
pub(crate) mod vrrp;

use std::net::{IpAddr, Ipv6Addr};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use vipherald_lab::{Capture, Direction, Frame, Host, Lab, Mac, State, eventually};

use arp::{Arp, mac_at};

pub(crate) const VIPHERALD: &str = env!("CARGO_BIN_EXE_vipherald");
pub(crate) const VIP: &str = "10.9.0.100";
pub(crate) const VIP6: &str = "fd09::100";
pub(crate) const OLD_MAC: &str = "02:00:00:00:00:99";
/// Long enough for whatever is to happen on a machine that is busy with other tests.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// What ends within this time did not wait for the rounds, which take 10 s.
pub(crate) const BEFORE_THE_ROUNDS_END: Duration = Duration::from_secs(8);
/// How long a busy machine may suspend a process between two of its steps, where a test has to
/// draw a line.
pub(crate) const SUSPENDED: Duration = Duration::from_millis(250);

/// Dropped, also by a panic, it ends what watches or floods.
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

pub(crate) fn old_mac() -> Mac {
    OLD_MAC.parse().unwrap()
}

/// `vipherald` on a host, told to log to stderr; `arguments` are split at white space.
pub(crate) fn vipherald(host: &Host, arguments: &str) -> Command {
    let mut command = host.command(VIPHERALD);
    command
        .args(["--log", "stderr"])
        .args(arguments.split_whitespace());
    heard(command)
}

/// The command with an empty stdin, and with pipes for its output.
pub(crate) fn heard(mut command: Command) -> Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A command under a shell script, which is to run it as `"$@"`.
pub(crate) fn in_shell(host: &Host, script: &str, command: &Command) -> Command {
    let mut shell = host.command("sh");
    shell
        .args(["-c", script, "sh"])
        .arg(command.get_program())
        .args(command.get_args());
    heard(shell)
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// What it was called with, for people.
    pub(crate) arguments: String,
    /// The exit status as a shell has it: 128 more than the signal, where one ended it.
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) lasted: Duration,
}

impl Ended {
    #[track_caller]
    pub(crate) fn exits(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn logs(&self, part: impl AsRef<str>) -> &Self {
        let part = part.as_ref();
        assert!(self.stderr.contains(part), "no {part:?}: {self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn logs_no(&self, part: impl AsRef<str>) -> &Self {
        let part = part.as_ref();
        assert!(!self.stderr.contains(part), "{part:?}: {self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn prints(&self, part: impl AsRef<str>) -> &Self {
        let part = part.as_ref();
        assert!(self.stdout.contains(part), "no {part:?}: {self:#?}");
        self
    }

    /// What `--json` printed.
    #[track_caller]
    pub(crate) fn report(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }
}

/// What a report says of a VIP.
pub(crate) fn vip_in<'a>(report: &'a Value, vip: &str) -> &'a Value {
    by_address(&report["vips"], vip)
}

/// What a report says of a peer for a VIP.
pub(crate) fn peer_in<'a>(report: &'a Value, vip: &str, peer: impl Into<IpAddr>) -> &'a Value {
    by_address(&vip_in(report, vip)["peers"], &peer.into().to_string())
}

/// The peer's verdict alone.
pub(crate) fn verdict_in<'a>(report: &'a Value, vip: &str, peer: impl Into<IpAddr>) -> &'a str {
    peer_in(report, vip, peer)["verdict"].as_str().unwrap()
}

/// What a list says of an address.
pub(crate) fn by_address<'a>(list: &'a Value, address: &str) -> &'a Value {
    let found = list.as_array().unwrap().iter();
    let mut found = found.filter(|one| one["address"] == address);
    found
        .next()
        .unwrap_or_else(|| panic!("no {address}: {list:#}"))
}

/// Runs `vipherald` on a host to its end.
pub(crate) fn run(host: &Host, arguments: &str) -> Ended {
    Run::start(vipherald(host, arguments)).end()
}

/// A run that goes on.
pub(crate) struct Run {
    child: Child,
    arguments: String,
    began: Instant,
}

impl Run {
    pub(crate) fn start(mut command: Command) -> Self {
        let began = Instant::now();
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        Self {
            child,
            arguments: arguments.join(" "),
            began,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        const LONGEST: Duration = Duration::from_secs(90);
        let deadline = Instant::now() + LONGEST;
        while !self.has_ended() {
            if Instant::now() > deadline {
                self.child.kill().unwrap();
                panic!(
                    "not over after {LONGEST:?}: {:?}",
                    self.child.wait_with_output()
                );
            }
            thread::sleep(Duration::from_millis(1));
        }
        let lasted = self.began.elapsed();
        ended(
            &self.child.wait_with_output().unwrap(),
            self.arguments,
            lasted,
        )
    }

    /// Waits for its end, or after some time sends SIGTERM.
    pub(crate) fn end_or_terminate(mut self, patience: Duration) -> Ended {
        let deadline = Instant::now() + patience;
        while !self.has_ended() {
            if Instant::now() > deadline {
                return self.terminate().0;
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.end()
    }

    /// Sends SIGTERM; gives also how long it took to end from then on.
    pub(crate) fn terminate(self) -> (Ended, Duration) {
        let signalled = Instant::now();
        signal(self.pid(), nix::sys::signal::Signal::SIGTERM);
        (self.end(), signalled.elapsed())
    }

    /// Asserts that it still runs, and ends only at SIGTERM.
    #[track_caller]
    pub(crate) fn goes_on(mut self) -> Ended {
        assert!(!self.has_ended(), "{}", self.arguments);
        self.terminate().0.exits(143)
    }

    /// Waits until it has subscribed to the kernel's changes, looked, and sleeps.
    pub(crate) fn wait_until_it_waits(&self) {
        let pid = self.pid();
        let mut looks = 0;
        eventually("the run waits for changes", SOON, || {
            looks = if subscribed(pid) && sleeps(pid) {
                looks + 1
            } else {
                0
            };
            // A pause for an answer is shorter than the time between two looks.
            (looks == 5).then_some(())
        });
    }
}

/// Sends a signal to a process that this test started.
pub(crate) fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
    nix::sys::signal::kill(pid, signal).unwrap();
}

fn ended(output: &Output, arguments: String, lasted: Duration) -> Ended {
    use std::os::unix::process::ExitStatusExt;
    let status = output.status;
    let ended = Ended {
        arguments,
        status: status
            .code()
            .or_else(|| status.signal().map(|signal| 128 + signal))
            .unwrap(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        lasted,
    };
    ended.logs_no("panicked");
    ended
}

/// Whether in the network namespace of this process a netlink socket listens for changes of links
/// and addresses of both families, and nothing else.
fn subscribed(pid: u32) -> bool {
    let sockets = std::fs::read_to_string(format!("/proc/{pid}/net/netlink")).unwrap_or_default();
    sockets
        .lines()
        .any(|line| line.split_whitespace().nth(3) == Some("00000111"))
}

fn sleeps(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// The frames by which a VIP is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Request,
    Reply,
    Advertisement,
}

/// The flag of an advertisement that answers a solicitation.
const SOLICITED: u8 = 0x40;

/// An announcement on the wire, whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) time: SystemTime,
    pub(crate) direction: Direction,
    pub(crate) form: Form,
    pub(crate) vip: IpAddr,
    /// The MAC that is announced: the sender hardware address or the target link-layer option.
    pub(crate) mac: Option<Mac>,
}

/// The announcement that a frame is: gratuitous ARP, or an unsolicited neighbour advertisement.
///
/// This reads octets at their offsets (RFC 826, RFC 8200 §3, RFC 4861 §4.4), with nothing of the
/// code under test.
pub(crate) fn announcement(frame: &Frame) -> Option<Announced> {
    let body = frame.payload();
    let (form, vip, mac) = match frame.ether_type() {
        0x0806 => {
            let arp = Arp::read(frame)?;
            let form = match arp.operation {
                1 => Form::Request,
                _ => Form::Reply,
            };
            let (mac, vip) = arp.sender;
            if arp.target.1 != vip {
                return None;
            }
            (form, vip.into(), Some(mac))
        }
        0x86dd if body[6] == 58 && body[40] == 136 && body[44] & SOLICITED == 0 => {
            let target = <[u8; 16]>::try_from(&body[48..64]).unwrap();
            let option = body.get(64..72).filter(|option| option[..2] == [2, 1]);
            let mac = option.map(|option| mac_at(option, 2));
            (Form::Advertisement, Ipv6Addr::from(target).into(), mac)
        }
        _ => return None,
    };
    Some(Announced {
        time: frame.time,
        direction: frame.direction,
        form,
        vip,
        mac,
    })
}

/// The announcements that a capture has seen so far, once each.
pub(crate) fn taken(capture: &Capture) -> Vec<Announced> {
    capture.frames().iter().filter_map(announcement).collect()
}

/// Waits for the `count`th announcement of a VIP; none is taken.
pub(crate) fn wait_for_announcement(capture: &Capture, vip: &str, count: usize) -> Announced {
    let vip: IpAddr = vip.parse().unwrap();
    let mut seen = 0;
    let found = capture.wait_for(SOON, |frame| {
        seen += usize::from(announcement(frame).is_some_and(|a| a.vip == vip));
        seen == count
    });
    found
        .and_then(|frame| announcement(&frame))
        .unwrap_or_else(|| panic!("no announcement number {count} of {vip}"))
}

/// A VIP on a host's interface; of an IPv6 one without duplicate address detection.
pub(crate) fn give(host: &Host, vip: &str, interface: &str) {
    host.run(&format!("ip addr add {} dev {interface}", with_length(vip)));
}

/// Takes it away again. Gives the time right after.
pub(crate) fn take(host: &Host, vip: &str, interface: &str) -> SystemTime {
    let vip = vip_and_length(vip);
    host.run(&format!("ip addr del {vip} dev {interface}"));
    SystemTime::now()
}

fn vip_and_length(vip: &str) -> String {
    format!("{vip}/{}", if vip.contains(':') { 128 } else { 32 })
}

fn with_length(vip: &str) -> String {
    let nodad = if vip.contains(':') { " nodad" } else { "" };
    vip_and_length(vip) + nodad
}

/// Many IPv4 VIPs on a host's `eth0`, at once.
pub(crate) fn give_all(host: &Host, vips: &[String]) {
    let lines = vips
        .iter()
        .map(|vip| format!("addr add {vip}/32 dev eth0\n"));
    host.ip(&lines.collect::<String>());
}

/// Makes the others known to a host, by both families.
pub(crate) fn meet<'a>(host: &Host, others: impl IntoIterator<Item = &'a Host>) {
    for other in others {
        host.remember(other.ipv4(), other.mac());
        host.remember(other.ipv6(), other.mac());
    }
}

/// The host's own address of the VIP's family.
pub(crate) fn address_beside(vip: &str, host: &Host) -> IpAddr {
    if vip.contains(':') {
        host.ipv6().into()
    } else {
        host.ipv4().into()
    }
}

/// A second interface of a host, `v0`, with its other end on the same host.
pub(crate) fn second_interface(host: &Host) {
    host.ip("link add v0 type veth peer name v1\n\
         link set v0 addrgenmode none\n\
         link set v1 addrgenmode none\n\
         link set v0 up\n\
         link set v1 up\n");
    host.talk_on("v1");
}

/// Whether there are other users than root in this user namespace.
fn is_everyone_mapped() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    map.contains("4294967295")
}

/// What an error message advises after [`without_privilege`].
pub(crate) fn what_gives_privilege() -> &'static str {
    if is_everyone_mapped() {
        "set `script_user root` in keepalived.conf"
    } else {
        "CapabilityBoundingSet="
    }
}

/// A cable from a host's new interface `v0` to the new `v1` of another.
pub(crate) fn cable(host: &Host, other: &Host) {
    second_interface(host);
    let mut sleeper = other.command("sleep").arg("600").spawn().unwrap();
    host.run(&format!("ip link set v1 netns {}", sleeper.id()));
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    other.ip("link set v1 addrgenmode none\nlink set v1 up\n");
    other.talk_on("v1");
    eventually("the cable carries", SOON, || {
        let state = host.run("ip link show dev v0");
        state.contains("LOWER_UP").then_some(())
    });
}

/// Gives a host a second card, `v0`, in the same subnet. The other end of its cable is `v1` of
/// another host, which is a switch from now on.
pub(crate) fn second_card(host: &Host, switch: &Host) -> Mac {
    cable(host, switch);
    switch.ip("link add br1 type bridge stp_state 0 mcast_snooping 0\n\
         link set eth0 master br1\n\
         link set v1 master br1\n\
         link set br1 up\n");
    host.run("ip addr add 10.9.0.201/24 dev v0");
    host.run("ip addr add fd09::201/64 dev v0 nodad");
    eventually("the second card is on the link", SOON, || {
        let ping = host.try_run(&format!("arping -c 1 -w 1 -I v0 {}", host.ipv4()));
        let forwards = switch.run("bridge link");
        let all = forwards.matches("state forwarding").count() == 2;
        (all || ping.status.success()).then_some(())
    });
    host.interface_mac("v0")
}

/// `vipherald` on a host without privilege: as `nobody`, where this user namespace has that user, else
/// as a root without capabilities.
pub(crate) fn without_privilege(lab: &Lab, host: &Host, arguments: &str) -> Command {
    let who: &[&str] = if is_everyone_mapped() {
        &["--reuid=65534", "--regid=65534", "--clear-groups"]
    } else {
        &["--bounding-set=-all", "--inh-caps=-all"]
    };
    let mut command = host.command("setpriv");
    // Its own copy: the path of the one that was built may be closed to other users.
    command
        .args(who)
        .arg(lab.install_hook(VIPHERALD))
        .args(["--log", "stderr"])
        .args(arguments.split_whitespace());
    heard(command)
}

/// Runs `command` with an empty directory in place of `directory`, after `prepare`, a shell script,
/// has filled it.
pub(crate) fn with_own_directory(
    host: &Host,
    directory: &str,
    prepare: &str,
    command: &Command,
) -> Command {
    let mut own = host.command("unshare");
    let script = format!("mount -t tmpfs tmpfs {directory} && {prepare} && exec \"$@\"");
    own.args(["--mount", "sh", "-c", &script, "sh"])
        .arg(command.get_program())
        .args(command.get_args());
    heard(own)
}

/// Hosts with an entry for the old owner, and then what they hold.
pub(crate) fn remember_old<'a>(hosts: impl IntoIterator<Item = &'a Host>, vips: &[&str]) {
    for host in hosts {
        for vip in vips {
            host.remember(vip, OLD_MAC);
        }
    }
}

/// Every host's entry for every VIP holds this MAC.
#[track_caller]
pub(crate) fn assert_followed<'a>(
    hosts: impl IntoIterator<Item = &'a Host>,
    vips: &[&str],
    mac: Mac,
) {
    for host in hosts {
        for vip in vips {
            let entry = host.neighbour(vip);
            let held = entry.as_ref().and_then(|entry| entry.mac);
            assert_eq!(held, Some(mac), "{} for {vip}: {entry:?}", host.name());
            assert_ne!(entry.unwrap().state, State::Failed);
        }
    }
}

/// Waits until every host's entry for every VIP holds this MAC.
#[track_caller]
pub(crate) fn wait_until_followed<'a>(
    hosts: impl IntoIterator<Item = &'a Host>,
    vips: &[&str],
    mac: Mac,
) {
    let hosts: Vec<_> = hosts.into_iter().collect();
    eventually(&format!("{vips:?} follow {mac}"), SOON, || {
        hosts
            .iter()
            .all(|host| vips.iter().all(|vip| host.cached(vip) == Some(mac)))
            .then_some(())
    });
}

/// Measures until a promise about time is kept by the median of the last five tries.
///
/// A busy machine takes the processor away from the program and from the test, and often in several
/// tries in a row: that some took too long proves nothing. But no machine makes a program faster
/// than it is: one that is too slow by itself is so in most of any five tries.
#[allow(clippy::print_stdout, reason = "what was measured")]
pub(crate) fn keeps(promise: Duration, mut measure: impl FnMut() -> Duration) {
    const MOST_TRIES: usize = 40;
    let mut measured = Vec::new();
    while measured.len() < MOST_TRIES {
        measured.push(measure());
        let mut last = measured
            .last_chunk::<5>()
            .copied()
            .unwrap_or([Duration::MAX; 5]);
        last.sort();
        if last[2] < promise {
            println!("less than {promise:?}: {measured:?}");
            return;
        }
    }
    panic!("not less than {promise:?}: {measured:?}");
}

/// The number of frames, and how long they took, from the log line about an announcement.
pub(crate) fn told_frames(line: &str) -> (u64, Duration) {
    let (_, told) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
    let words: Vec<_> = told.split_whitespace().collect();
    let [frames, "frames", "in", time, unit, ..] = words[..] else {
        panic!("{line}");
    };
    let seconds = match unit.trim_end_matches([',', ';']) {
        "ms" => 1e-3,
        "s" => 1.0,
        _ => panic!("{line}"),
    };
    let time = Duration::from_secs_f64(time.parse::<f64>().unwrap() * seconds);
    (frames.parse().unwrap(), time)
}

/// Asserts that next to no frame left after its VIP did. `late` has how much later each was.
///
/// A run looks right before each frame. Only where the machine suspends it between the look and the
/// frame, and the VIP leaves meanwhile, the frame comes too late. That is rare, and only one frame
/// of a process. A program that does not look sends the rest of a round, at most removals.
pub(crate) fn assert_seldom_late(late: &[(Duration, IpAddr)], removals: usize) {
    assert!(
        late.len() * 50 <= removals && late.iter().all(|(by, _)| *by < SUSPENDED),
        "in {removals} removals: {late:?}"
    );
}

/// Asserts that a run ended at once. Its status would be the same after the half a second that it waits for a
/// slow reader.
#[track_caller]
pub(crate) fn assert_at_once(lasted: Duration, ended: &Ended) {
    assert!(
        lasted < Duration::from_millis(450),
        "{lasted:?}: {ended:#?}"
    );
}

/// Fills a pipe, so that a writer waits for the reader. Gives the number of octets.
pub(crate) fn fill(writer: &std::io::PipeWriter) -> usize {
    let size = nix::fcntl::fcntl(writer, nix::fcntl::FcntlArg::F_GETPIPE_SZ).unwrap();
    let size = usize::try_from(size).unwrap();
    let mut writer = writer;
    std::io::Write::write_all(&mut writer, &vec![b'.'; size]).unwrap();
    size
}

pub(crate) fn since(earlier: SystemTime, later: SystemTime) -> Duration {
    later
        .duration_since(earlier)
        .unwrap_or_else(|e| panic!("{:?} too early", e.duration()))
}

/// Lets time pass, during which nothing should happen.
pub(crate) fn watch_for(time: Duration) {
    thread::sleep(time);
}

/// A process that ends when it is dropped.
pub(crate) struct Talker(pub(crate) Child);

impl Drop for Talker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Drops a VIP's frames before a host's kernel sees them, as port security at the owner does.
pub(crate) fn never_hears(host: &Host, vip: &str) {
    let rules = if vip.contains(':') {
        format!("ip6 saddr {vip} drop")
    } else {
        format!("arp saddr ip {vip} drop\nadd rule netdev lab in ip saddr {vip} drop")
    };
    host.nft(&format!(
        "add table netdev lab\n\
         add chain netdev lab in {{ type filter hook ingress device eth0 priority 0; }}\n\
         add rule netdev lab in {rules}\n"
    ));
}
