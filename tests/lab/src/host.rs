//! A host on the switch.

use std::fmt::Display;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::unistd::Pid;

use crate::capture::{self, Capture};
use crate::keepalived::Keepalived;
use crate::mac::Mac;
use crate::neighbour::{self, Neighbour, NeighbourWatch, State};
use crate::netns::{self, Netns};
use crate::programs;
use crate::talker::Talker;

/// A host: a network namespace with its interface `eth0` plugged into the switch.
///
/// Clones are the same host.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    number: u8,
    netns: Netns,
    directory: PathBuf,
    /// Who is heard on further interfaces.
    talkers: Mutex<Vec<Talker>>,
}

impl Host {
    /// Makes the namespace; `wiring` and `configure` make the rest.
    pub(crate) fn new(name: &str, number: u8, directory: &Path) -> Self {
        let (name, directory) = (name.to_owned(), directory.to_owned());
        Self {
            inner: Arc::new(Inner {
                name,
                number,
                netns: Netns::new(),
                directory,
                talkers: Mutex::default(),
            }),
        }
    }

    /// The `ip` commands that plug the host in, for the switch to run.
    pub(crate) fn wiring(&self) -> String {
        let (port, mac, netns) = (self.port(), self.mac(), self.netns().path());
        format!(
            "link add {port} type veth peer name eth0 address {mac} netns {netns}\n\
             link set {port} master br0 up\n"
        )
    }

    /// Gives the host its addresses.
    pub(crate) fn configure(&self) {
        let (ipv4, number) = (self.ipv4(), self.inner.number);
        self.ip(&format!(
            "link set lo up\n\
             link set eth0 addrgenmode none\n\
             addr add {ipv4}/24 brd + dev eth0\n\
             addr add {ipv6}/64 dev eth0 nodad\n\
             addr add fe80::{number:x}/64 dev eth0 nodad\n\
             link set eth0 up\n",
            ipv6 = self.ipv6(),
        ));
    }

    /// Whether `eth0` is up and has its carrier, so that frames leave.
    pub(crate) fn is_running(&self) -> bool {
        self.netns().enter(|| {
            let mut links = getifaddrs().expect("links can be listed");
            links.any(|link| {
                link.interface_name == "eth0" && link.flags.contains(InterfaceFlags::IFF_RUNNING)
            })
        })
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The MAC of `eth0`.
    pub fn mac(&self) -> Mac {
        Mac([2, 0, 0, 9, 0, self.inner.number])
    }

    /// The host's own IPv4 address.
    pub fn ipv4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 9, 0, self.inner.number)
    }

    /// The host's own global IPv6 address.
    pub fn ipv6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, self.inner.number.into())
    }

    /// The name of the switch port that the host is plugged into.
    pub(crate) fn port(&self) -> String {
        format!("p{}", self.inner.number)
    }

    pub(crate) fn netns(&self) -> &Netns {
        &self.inner.netns
    }

    /// A program, by name or path, to run on this host.
    ///
    /// # Panics
    ///
    /// Where the program is not installed, saying what to install.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let program = program.as_ref();
        self.netns().command(
            program
                .to_str()
                .unwrap_or_else(|| panic!("{program:?} is no text")),
        )
    }

    /// Runs a command, split at white space and without a shell; gives its standard output.
    ///
    /// # Panics
    ///
    /// With the command and its standard error, if it fails.
    pub fn run(&self, command: &str) -> String {
        let output = self.try_run(command);
        programs::assert_success(&format!("{}: {command}", self.name()), &output);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The same for a command that may fail.
    pub fn try_run(&self, command: &str) -> Output {
        let mut words = command.split_whitespace();
        let program = words.next().expect("a command has at least one word");
        self.command(program)
            .args(words)
            .output()
            .unwrap_or_else(|e| panic!("{}: {command}: {e}", self.name()))
    }

    /// Runs `f` in a thread on this host. Sockets opened there stay there.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.netns().enter(f)
    }

    /// The process IDs of the programs of this name that run on the host, whoever started them.
    pub fn processes(&self, name: &str) -> Vec<u32> {
        let is_called = |pid: &Pid| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
            comm.is_ok_and(|comm| comm.trim_end() == name)
        };
        netns::processes(std::slice::from_ref(self.netns()))
            .into_iter()
            .filter(is_called)
            .filter_map(|pid| pid.as_raw().try_into().ok())
            .collect()
    }

    /// Sets a sysctl of this host, such as `net/ipv4/conf/all/drop_gratuitous_arp`.
    pub fn sysctl(&self, name: &str, value: &str) {
        // /proc/sys/net is that of the thread that looks at it.
        self.netns()
            .enter(|| fs::write(Path::new("/proc/sys").join(name), value))
            .unwrap_or_else(|e| panic!("{}: sysctl {name}={value}: {e}", self.name()));
    }

    /// The index of one of the host's interfaces.
    pub fn interface_index(&self, interface: &str) -> u32 {
        self.netns()
            .enter(|| if_nametoindex(interface))
            .unwrap_or_else(|e| panic!("{}: {interface}: {e}", self.name()))
    }

    /// The neighbour table, of both families and all interfaces.
    pub fn neighbours(&self) -> Vec<Neighbour> {
        self.netns().enter(neighbour::table)
    }

    /// The first entry for an address, on whichever interface.
    pub fn neighbour(&self, ip: impl Display) -> Option<Neighbour> {
        let ip: IpAddr = ip
            .to_string()
            .parse()
            .unwrap_or_else(|_| panic!("{ip} is no address"));
        self.neighbours().into_iter().find(|entry| entry.ip == ip)
    }

    /// The MAC in that entry.
    pub fn cached(&self, ip: impl Display) -> Option<Mac> {
        self.neighbour(ip)?.mac
    }

    /// Whether one of its interfaces has an address.
    pub fn holds(&self, ip: impl Display) -> bool {
        self.run("ip -o addr show").contains(&format!(" {ip}/"))
    }

    /// The MAC that an interface has now.
    pub fn interface_mac(&self, interface: &str) -> Mac {
        let link = self.run(&format!("ip -o link show dev {interface}"));
        let mut words = link.split_whitespace();
        words.find(|word| *word == "link/ether");
        words
            .next()
            .and_then(|mac| mac.parse().ok())
            .unwrap_or_else(|| panic!("no MAC: {link}"))
    }

    /// Gives the neighbour table a REACHABLE entry on `eth0`.
    pub fn remember(&self, ip: impl Display, mac: impl Display) {
        self.remember_as(ip, mac, State::Reachable);
    }

    /// Gives the neighbour table an entry on `eth0` in a given state.
    pub fn remember_as(&self, ip: impl Display, mac: impl Display, state: State) {
        let state = state.to_string().to_lowercase();
        self.ip(&format!(
            "neigh replace {ip} lladdr {mac} dev eth0 nud {state}\n"
        ));
    }

    /// Opens a watch on every change of the neighbour table from now on.
    pub fn watch_neighbours(&self) -> NeighbourWatch {
        self.netns().enter(NeighbourWatch::open)
    }

    /// Captures what `eth0` sends and receives from now on. A frame that the switch lost on its way
    /// to the host does not show; one that the host's own filter drops does.
    pub fn capture(&self) -> Capture {
        self.capture_on("eth0")
    }

    /// Captures what `eth0` sends from now on. It is complete also while a flood comes in.
    pub fn capture_sent(&self) -> Capture {
        self.netns().enter(|| Capture::open_for_sent("eth0"))
    }

    /// Captures what an interface sends and receives from now on.
    pub fn capture_on(&self, interface: &str) -> Capture {
        self.netns().enter(|| Capture::open(interface))
    }

    /// Sends a frame from `eth0` as it is, from the destination MAC on: also a forged one.
    pub fn send(&self, frame: &[u8]) {
        self.netns().enter(|| capture::send_frame("eth0", frame));
    }

    /// A raw socket on `eth0`, for who plays hosts itself: it gets every frame from the destination
    /// MAC on, also those to other MACs, and sends any.
    pub fn packet_socket(&self) -> OwnedFd {
        self.netns().enter(|| capture::packet_socket("eth0"))
    }

    /// Makes an interface of the host send a stranger's datagrams, which the other end of its cable hears
    /// as [`Lab::new`](crate::Lab::new) says.
    pub fn talk_on(&self, interface: &str) {
        let talker = self.netns().enter(|| Talker::start(interface));
        let mut talkers = self.inner.talkers.lock();
        talkers
            .as_mut()
            .expect("no thread panics with it")
            .push(talker);
    }

    /// Drops every ARP frame that the host receives, before the kernel answers or learns from it.
    pub fn filter_arp_input(&self) {
        self.nft(
            "add table arp lab\n\
             add chain arp lab input { type filter hook input priority 0; policy drop; }\n",
        );
    }

    /// Adds a VMAC interface above `eth0`, set up as keepalived does it for IPv4: a private
    /// macvlan, and on it and `eth0` the ARP settings that make it alone answer for its addresses.
    ///
    /// As under keepalived, that covers answers only: when the host itself looks for a neighbour to
    /// send from such an address, its request has `eth0`'s MAC for it, and the neighbour believes
    /// that, unless `net/ipv4/conf/eth0/arp_announce` is 2.
    pub fn vmac(&self, name: &str, mac: impl Display) {
        self.ip(&format!(
            "link add link eth0 name {name} address {mac} type macvlan mode private\n\
             link set {name} addrgenmode none\n"
        ));
        for (interface, setting) in [
            (name, "arp_ignore"),
            (name, "accept_local"),
            (name, "promote_secondaries"),
            ("eth0", "arp_ignore"),
            ("eth0", "arp_filter"),
        ] {
            self.sysctl(&format!("net/ipv4/conf/{interface}/{setting}"), "1");
        }
        self.sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "0");
        self.sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1");
        self.ip(&format!("link set {name} up\n"));
    }

    /// Starts the real keepalived with this configuration. Scripts run as root, and where the lab
    /// runs as the real root, under `enable_script_security`.
    pub fn keepalived(&self, configuration: &str) -> Keepalived {
        Keepalived::start(self, &self.inner.directory, configuration)
    }

    /// Runs `ip` commands, one a line.
    pub fn ip(&self, batch: &str) {
        programs::run(self.command("ip").args(["-batch", "-"]), batch);
    }

    /// Runs `nft` commands, one a line.
    pub fn nft(&self, commands: &str) {
        programs::run(self.command("nft").args(["-f", "-"]), commands);
    }
}
