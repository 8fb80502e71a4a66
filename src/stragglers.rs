//! Looks who still sends to VIPs that have left this host, names them, and tells the peers.

use std::cell::{Cell, RefCell};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{Level, debug, warn};
use tokio::sync::Notify;
use tokio::time::sleep_until;
use vipherald_core::address::{Mac, Prefix, Vip};
use vipherald_core::ask::{Asker, Listening};
use vipherald_core::host::{HostSnapshot, PlacedVip};
use vipherald_core::log_limit::RateLimit;
use vipherald_core::order::outbox::Route;
use vipherald_core::order::report::{MOST_IN_REPORT, Report, Reports};
use vipherald_core::stragglers::{Straggler, Stragglers};

use crate::driver::Driver;
use crate::error::Error;
use crate::journal::{Kind, Notice};
use crate::key_file;
use crate::order::sockets::{WarnOnce, connected, random_id};
use crate::order::{send, wall_clock};
use crate::privileges::advice_on_call;
use crate::readable::{self, Readable};
use crate::report::Line;
use crate::settings::Orders;
use crate::supersede::{RunId, Runs};

/// What a warning about reports that can't leave begins with.
const UNTOLD: &str = "the peers get no report of who still sends here";
/// Datagrams to read at once.
const AT_ONCE: usize = 64;
/// Hosts a minute that are named; the rest is counted.
const NAMED: u32 = 64;
/// Reports leave at most so often: whoever forges frames makes this host send no more.
const REPORT_EVERY: Duration = Duration::from_millis(250);

/// VIPs that left this host.
#[derive(Clone, Debug)]
pub(crate) struct Departure {
    /// Their instance or group.
    pub(crate) name: Option<String>,
    pub(crate) vips: Vec<PlacedVip>,
    /// All VIPs that are known, of other instances, too: nothing is sent from them.
    pub(crate) all_vips: Arc<HashSet<IpAddr>>,
    /// Whom to tell, if there is a key.
    pub(crate) peers: Vec<IpAddr>,
    /// Runs that began later care for them instead.
    pub(crate) run_id: RunId,
    /// When they left.
    pub(crate) since: Instant,
    /// How long to look.
    pub(crate) lasts: Duration,
}

/// The VIPs that leave, for one [`Departures::watch`] at a time.
#[derive(Debug)]
pub(crate) struct Departures {
    new: RefCell<Vec<Departure>>,
    /// How often a host is named.
    lines: RefCell<RateLimit>,
    /// Those that were not, since the last line that said so.
    unnamed: Cell<u32>,
    arrived: Notify,
    is_watched: Cell<bool>,
}

impl Default for Departures {
    fn default() -> Self {
        Self {
            new: RefCell::default(),
            lines: RefCell::new(RateLimit::a_minute(NAMED)),
            unnamed: Cell::default(),
            arrived: Notify::default(),
            is_watched: Cell::default(),
        }
    }
}

impl Departures {
    /// Adds some. Returns whether [`Departures::watch`] is to be called.
    pub(crate) fn add(&self, departure: Departure) -> bool {
        if departure.lasts.is_zero() {
            return false;
        }
        self.new.borrow_mut().push(departure);
        self.arrived.notify_one();
        !self.is_watched.replace(true)
    }

    /// Watches until nothing is left to look for. A failure is no more than that nobody is named.
    pub(crate) async fn watch(&self, orders: &Orders) {
        if let Err(error) = self.look(orders).await {
            debug!("who still sends to VIPs that left is not known: {error}");
        }
        self.tell_unnamed();
        self.is_watched.set(false);
    }

    /// Logs the stragglers that were found.
    fn name(&self, look: &mut Look, now: Instant) {
        for found in look.core.take() {
            let Some(line) = look.line(now, &found) else {
                continue;
            };
            if !self.lines.borrow_mut().take(now) {
                self.unnamed.set(self.unnamed.get().saturating_add(1));
                continue;
            }
            self.tell_unnamed();
            line.log();
        }
    }

    fn tell_unnamed(&self) {
        if let more @ 1.. = self.unnamed.take() {
            warn!("{more} more hosts still send to VIPs that left");
        }
    }

    async fn look(&self, orders: &Orders) -> Result<(), Error> {
        let mut look = Look {
            driver: Driver::open(None)?,
            core: Stragglers::default(),
            runs: None,
            run_id: None,
            about: BTreeMap::new(),
            host: HostSnapshot::default(),
            routers: BTreeSet::new(),
            mail: Mail::open(orders),
        };
        loop {
            let new = self.new.take();
            if !new.is_empty() {
                look.add(new).await?;
            }
            let now = look.driver.send_due(&mut look.core, |_| ()).await?;
            look.yield_to_newer_runs();
            self.name(&mut look, now);
            look.mail.send(now, &look.host);
            let is_done = look.core.is_over(now) && look.mail.next_due().is_none();
            if is_done && self.new.borrow().is_empty() {
                return Ok(());
            }
            let due = look.mail.next_due();
            let deadline = look.core.next_deadline(now);
            let deadline = due.map_or(deadline, |due| due.min(deadline));
            tokio::select! {
                readable = look.readable() => readable.map_err(Error::Runtime)?,
                () = self.arrived.notified() => {}
                () = sleep_until(deadline.into()) => {}
            }
        }
    }
}

struct Look {
    driver: Driver,
    core: Stragglers,
    runs: Option<Runs>,
    /// That of the first departure.
    run_id: Option<RunId>,
    /// The instance and the peers of each VIP.
    about: BTreeMap<Vip, (Option<String>, Vec<IpAddr>)>,
    host: HostSnapshot,
    /// Those that were named.
    routers: BTreeSet<(Vip, Mac)>,
    mail: Mail,
}

impl Look {
    async fn add(&mut self, new: Vec<Departure>) -> Result<(), Error> {
        self.host = self.driver.kernel().snapshot().await?;
        for departure in new {
            self.run_id.get_or_insert(departure.run_id);
            let until = departure.since + departure.lasts;
            self.core
                .left(departure.since, until, &departure.vips, &self.host);
            self.mail.vips.extend(departure.all_vips.iter());
            for placed in &departure.vips {
                let about = (departure.name.clone(), departure.peers.clone());
                self.about.insert(placed.vip, about);
            }
        }
        let links: Vec<_> = self.core.links().cloned().collect();
        self.driver.listen_on(links.iter(), &Listening::default());
        let places: Vec<_> = self
            .core
            .places()
            .map(|(vip, on)| (vip, Some(on)))
            .collect();
        match &self.runs {
            Some(runs) => runs.tell(&places),
            None => {
                let run_id = self.run_id.unwrap_or_else(RunId::now);
                let runs = Runs::claim(run_id, &places);
                let runs = runs.inspect_err(|error| debug!("newer runs are not heard of: {error}"));
                self.runs = runs.ok();
            }
        }
        Ok(())
    }

    fn yield_to_newer_runs(&mut self) {
        let Some(runs) = &self.runs else { return };
        let places = || {
            self.core
                .places()
                .map(|(vip, on)| (vip, Some(on)))
                .collect()
        };
        let taken = runs.taken(places);
        for (vip, _) in taken {
            self.core.forget(vip);
        }
    }

    /// Whether a sender is beyond a router of the link where its frame came in.
    fn is_routed(&self, found: &Straggler) -> bool {
        let own = self.host.addresses.iter();
        let subnets = own.filter(|own| {
            own.interface == found.interface
                && own.ip.is_ipv4() == found.ip.is_ipv4()
                && own.prefix_len < if own.ip.is_ipv4() { 32 } else { 128 }
        });
        let mut subnets = subnets.map(Prefix::of).peekable();
        subnets.peek().is_some() && !subnets.any(|subnet| subnet.contains(found.ip))
    }

    /// What to log of a straggler, which it reports; `None` if that has been logged.
    fn line(&mut self, now: Instant, found: &Straggler) -> Option<Line> {
        let link = self.core.link(found.interface);
        let notice = Notice::new(Kind::StillSends)
            .with("VIP", &found.vip)
            .with_each("INTERFACE", link.map(|link| &link.name))
            .with("MAC", &found.mac);
        let (vip, ip, mac) = (found.vip, found.ip, found.mac);
        let after = format!("{} s after it left", found.after.as_secs());
        let (name, peers) = self.about.get(&vip).cloned().unwrap_or_default();
        let (notice, text) = if self.is_routed(found) {
            if !self.routers.insert((vip, mac)) {
                return None;
            }
            let text = format!("a router ({mac}) still sends to {vip} here, for {ip}, {after}");
            (notice, text)
        } else {
            self.mail.post(now, found, &peers);
            let text = format!("{ip} ({mac}) still sends to {vip} here, {after}");
            (notice.with("PEER", &ip), text)
        };
        let line = Line::new(Level::Warn, text).of(notice);
        Some(line.about(name.as_deref()))
    }

    async fn readable(&self) -> io::Result<()> {
        future::poll_fn(|context| {
            let mut polls = vec![self.driver.poll_readable(context)];
            polls.extend(self.runs.iter().map(|runs| runs.poll_readable(context)));
            let sockets = self.mail.sockets.values();
            polls.extend(sockets.map(|socket| socket.poll_readable(context)));
            readable::any(polls)
        })
        .await
    }
}

/// The reports to the peers.
struct Mail {
    /// Nothing is sent from these.
    vips: HashSet<IpAddr>,
    /// `None` without a key.
    reports: Option<Reports>,
    port: u16,
    /// What is to be reported to each peer of each VIP.
    waiting: BTreeMap<(IpAddr, Vip), Vec<Straggler>>,
    next: Option<Instant>,
    last: Option<Instant>,
    warnings: WarnOnce,
    sockets: HashMap<IpAddr, Readable<UdpSocket>>,
}

impl Mail {
    fn open(orders: &Orders) -> Self {
        let reports = match key_file::of(orders) {
            Ok(keys) => Some(Reports::new(keys)),
            Err(key_file::Error::Unset) => None,
            Err(error) => {
                warn!("{UNTOLD}: {error}");
                None
            }
        };
        Self {
            vips: HashSet::new(),
            reports,
            port: orders.port.get(),
            waiting: BTreeMap::new(),
            next: None,
            last: None,
            warnings: WarnOnce::default(),
            sockets: HashMap::new(),
        }
    }

    fn post(&mut self, now: Instant, found: &Straggler, peers: &[IpAddr]) {
        if self.reports.is_none() {
            return;
        }
        for peer in peers {
            let waiting = self.waiting.entry((*peer, found.vip)).or_default();
            waiting.push(*found);
            let from = self.last.map_or(now, |last| last + REPORT_EVERY);
            self.next.get_or_insert(from);
        }
    }

    /// Sends what is due, and takes in what is acknowledged.
    fn send(&mut self, now: Instant, host: &HostSnapshot) {
        let Some(reports) = &mut self.reports else {
            return;
        };
        let is_vip = |ip| self.vips.contains(&ip);
        if self.next.is_some_and(|next| next <= now) {
            for ((peer, vip), found) in std::mem::take(&mut self.waiting) {
                for some in found.chunks(MOST_IN_REPORT) {
                    let id = match random_id() {
                        Ok(id) => id,
                        Err(error) => {
                            self.warnings.warn(&format!("{UNTOLD}: {error}"));
                            continue;
                        }
                    };
                    let report = Report {
                        time: wall_clock(),
                        id,
                        to: peer,
                        vip,
                        stragglers: some.iter().map(|one| (one.ip, one.mac)).collect(),
                    };
                    reports.send(now, send::route(host, peer, is_vip), &report);
                }
            }
            (self.next, self.last) = (None, Some(now));
        }
        let mut datagram = [0; 1024];
        for socket in self.sockets.values() {
            for _ in 0..AT_ONCE {
                let Ok(length) = socket.get().recv(&mut datagram) else {
                    break;
                };
                reports.received(&datagram[..length]);
            }
        }
        while let Some((route, datagram)) = reports.poll(now) {
            let sent = socket_to(&mut self.sockets, route, self.port, is_vip)
                .and_then(|socket| socket.get().send(&datagram));
            match sent {
                Ok(_) => {}
                // No `listen` is there.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    debug!("report to {}: {error}", route.to);
                }
                Err(error) => {
                    let (to, advice) = (route.to, advice_on_call(&error));
                    self.warnings
                        .warn(&format!("{UNTOLD}: {to}: {error}{advice}"));
                }
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let reports = self.reports.as_ref().and_then(Reports::next_due);
        reports.into_iter().chain(self.next).min()
    }
}

fn socket_to(
    sockets: &mut HashMap<IpAddr, Readable<UdpSocket>>,
    route: Route,
    port: u16,
    is_vip: impl Fn(IpAddr) -> bool,
) -> io::Result<&Readable<UdpSocket>> {
    Ok(match sockets.entry(route.to) {
        Entry::Occupied(open) => open.into_mut(),
        Entry::Vacant(none) => none.insert(connected(route, port, is_vip)?),
    })
}
