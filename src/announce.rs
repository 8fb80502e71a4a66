//! One run that announces VIPs, or checks those that are here. The driver sends frames; this file
//! yields to newer runs, finds peers, and sends orders.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::future::{self, Future};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use log::{debug, warn};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep_until;
use vipherald_core::address::{InterfaceIndex, Mac, Prefix};
use vipherald_core::announce::{Announcement, Claim, Mode, News, Pace, RunPlace, State};
use vipherald_core::ask::{Asker, Confirm, Confirmation, LinkView, Observed, PeerVerdict};
use vipherald_core::host::{HostSnapshot, Link, Place, PlacedVip};
use vipherald_core::order::outbox::{Retry, Route};
use vipherald_core::watch::{Hosts, Outcome};

use crate::driver::Driver;
use crate::error::Error;
use crate::kernel::{self, Kernel};
use crate::order::sockets::OrderSockets;
use crate::settings::Orders;
use crate::supersede::{Reported, RunId, Runs};
use crate::{descriptors, readable};

/// What to announce or check.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whether to announce them, or only to check.
    pub mode: Mode,
    /// The VIPs, and where they count.
    pub vips: Vec<PlacedVip>,
    /// All VIPs that are known, of other instances, too: nothing is asked from them.
    pub all_vips: Arc<HashSet<IpAddr>>,
    /// Whether a VIP that does not come is missing.
    pub expects_all: bool,
    /// The interface that the user named for all of them: it must exist, be up and have ARP or ND.
    pub interface: Option<String>,
    /// Configured peers.
    pub peers: Vec<IpAddr>,
    /// Which peers to ask.
    pub confirm: Confirm,
    /// Whether to refuse a VIP whose subnet is too large for [`Confirm::Subnet`].
    pub sweeps_all: bool,
    /// The bounds of the run.
    pub pace: Pace,
    /// When the run began.
    pub run_id: RunId,
    /// How to order peers to purge.
    pub orders: Orders,
    /// The VIPs' instance or group, for orders.
    pub instance: String,
    /// The hosts that a resident hears.
    pub heard: Option<Heard>,
    /// Of the hosts that nobody named, only these are asked; if there is none, all. Those with a MAC were
    /// reported by the old owner.
    pub late: Late,
}

impl Request {
    /// Whether it is for hosts that were silent before, and so far none of them has answered, and nothing
    /// is wrong that another announcement would not say. Anybody can forge such hosts.
    pub(crate) fn is_in_vain(&self, core: &Announcement) -> bool {
        let was_silent = !self.late.is_empty() && self.late.values().all(Option::is_none);
        let matters = |claim: &Claim| {
            let is_news = |one: &Confirmation| {
                let verdict = claim.verdict_of(one);
                let is_mute = matches!(verdict, PeerVerdict::Silent | PeerVerdict::Unasked);
                !is_mute && self.late.contains_key(&one.peer.ip)
            };
            let has_owners = claim.known_other_owners().next().is_some();
            claim.state() != State::Ready || has_owners || claim.peers().any(is_news)
        };
        was_silent && !core.claims().iter().any(matters)
    }
}

/// Hosts that an announcement did not reach.
pub type Late = BTreeMap<IpAddr, Option<Mac>>;

/// The most reported hosts that wait until the VIPs' peers are known.
const MOST_REPORTED: usize = 256;

/// The hosts that a resident hears.
pub type Heard = Rc<RefCell<Hosts>>;

/// What a resident has ready for a run, so that its first frame leaves sooner.
#[derive(Debug)]
pub(crate) struct Start {
    /// It was opened before `host` was known: what changed since waits there to be delivered.
    pub(crate) driver: Driver,
    /// The links that have the VIPs and those below, with all of their addresses.
    pub(crate) host: HostSnapshot,
}

/// A run that has loaded this host's links and addresses, and sent nothing yet.
#[derive(Debug)]
pub struct Session {
    driver: Driver,
    core: Announcement,
    peers: Vec<IpAddr>,
    confirm: Confirm,
    run_id: RunId,
    took_over: bool,
    runs: Option<Runs>,
    /// The number of claims whose places other runs know.
    claims_published: usize,
    /// Those places.
    told: BTreeSet<RunPlace>,
    loading_views: Option<JoinHandle<Result<Views, kernel::Error>>>,
    orders: Orders,
    instance: String,
    heard: Option<Heard>,
    late: Late,
    /// What residents know of the links, until the VIPs' peers are known.
    known: Vec<(InterfaceIndex, Observed)>,
    /// What old owners reported and that was not asked yet.
    reported: Vec<Reported>,
    /// `None` without a key.
    order_sockets: Option<OrderSockets>,
    /// Opened when the first order may be due.
    opened_order_sockets: bool,
    first_round: Arc<Notify>,
}

/// The links that the VIPs are on, and all links and addresses of this host.
type Views = (Vec<LinkView>, HostSnapshot);

impl Session {
    /// Subscribes to changes, then finds the VIPs.
    ///
    /// # Errors
    /// If netlink fails, or the named interface is unfit.
    pub async fn prepare(request: &Request, now: Instant) -> Result<Self, Error> {
        Self::prepare_from(request, None, now).await
    }

    /// The same, from what a resident has ready.
    pub(crate) async fn prepare_from(
        request: &Request,
        start: Option<Start>,
        now: Instant,
    ) -> Result<Self, Error> {
        let (driver, known) = match start {
            Some(Start { driver, host }) => (driver, Some(host)),
            None => (Driver::open(request.pace.arp_rate)?, None),
        };
        let mut placed = request.vips.clone();
        if let Some(name) = &request.interface {
            let link = fit_interface(driver.kernel(), name).await?;
            for one in &mut placed {
                one.place = Place::On(link.name.clone());
            }
        }
        let finds_hosts = matches!(request.confirm, Confirm::All | Confirm::Subnet);
        let pace = Pace {
            census: request.pace.census && finds_hosts,
            ..request.pace
        };
        let mut core = Announcement::new(&placed, pace, seed(), now)
            .in_mode(request.mode)
            .beside(Arc::clone(&request.all_vips));
        if !request.expects_all {
            core = core.expecting_some();
        }
        let mut session = Self {
            driver,
            core,
            peers: request.peers.clone(),
            confirm: request.confirm,
            run_id: request.run_id,
            // A check takes nothing over.
            took_over: request.mode == Mode::Check,
            runs: None,
            claims_published: 0,
            told: BTreeSet::new(),
            loading_views: None,
            orders: request.orders.clone(),
            instance: request.instance.clone(),
            heard: request.heard.clone(),
            late: request.late.clone(),
            known: Vec::new(),
            reported: reported(request),
            order_sockets: None,
            opened_order_sockets: false,
            first_round: Arc::default(),
        };
        match known {
            Some(host) => {
                for link in &host.links {
                    session.core.link_changed(now, link);
                }
                session.core.addresses_are(now, &host.addresses);
            }
            None => session.driver.load(&mut session.core, now).await?,
        }
        if request.confirm == Confirm::Subnet {
            session.check_subnets(request.sweeps_all)?;
        }
        Ok(session)
    }

    /// The core, for the report.
    #[must_use]
    pub fn core(&self) -> &Announcement {
        &self.core
    }

    /// Remembers which peers the run did not reach. Others run after each VIP.
    pub(crate) async fn remember_silent(&self, now: Instant) {
        let Some(heard) = &self.heard else { return };
        let ready = |claim: &&Claim| claim.state() == State::Ready;
        for claim in self.core.claims().iter().filter(ready) {
            let alone = Rc::from([claim.vip]);
            let mut near = None;
            for one in claim.peers() {
                // Those that an old owner reported may never have been asked.
                let was_silent =
                    !self.late.is_empty() && !matches!(self.late.get(&one.peer.ip), Some(Some(_)));
                let outcome = match claim.verdict_of(one) {
                    PeerVerdict::Silent | PeerVerdict::Unasked if was_silent => {
                        Outcome::SilentAgain
                    }
                    PeerVerdict::Silent | PeerVerdict::Unasked => Outcome::Silent,
                    _ => Outcome::Reached,
                };
                let vips = match one.peer.doubtful {
                    true => near.get_or_insert_with(|| self.core.vips_near(claim).collect()),
                    false => &alone,
                };
                let mut heard = heard.borrow_mut();
                heard.answered(now, claim.interface(), (vips, one.peer.ip), outcome);
            }
            yield_now().await;
        }
    }

    /// Notified when the first round is out.
    #[must_use]
    pub fn first_round(&self) -> Arc<Notify> {
        Arc::clone(&self.first_round)
    }

    /// Announces until the core is done or `stop` is, and returns the output of `stop` in that case.
    /// Passes news to `tell`.
    ///
    /// # Errors
    /// If the kernel stops answering, or no packet socket can be had.
    pub async fn run<S>(
        &mut self,
        stop: impl Future<Output = S>,
        mut tell: impl FnMut(&Announcement, &News),
    ) -> Result<Option<S>, Error> {
        // Biased: the first frame leaves before the first poll of `stop`.
        let ended = tokio::select! {
            biased;
            done = self.go_on(&mut tell) => done.map(|()| None),
            stopped = stop => Ok(Some(stopped)),
        };
        // They close while the report is made.
        self.driver.close_sockets(&self.core);
        ended
    }

    /// Announces until the core is done. Between two awaits it works for some milliseconds at most.
    async fn go_on(&mut self, tell: &mut impl FnMut(&Announcement, &News)) -> Result<(), Error> {
        loop {
            for news in self.core.take_news(Instant::now()) {
                tell(&self.core, &news);
            }
            let runs = self.runs.as_ref();
            let before_each = |core: &mut _| yield_to_newer_runs(core, runs);
            let now = self.driver.send_due(&mut self.core, before_each).await?;
            if self.first_round_is_out() {
                self.first_round.notify_one();
            }
            if self.core.is_over(now) && !self.awaits_order(now) {
                return Ok(());
            }
            // Older runs, peers and orders come after the first frames.
            if !self.took_over {
                self.took_over = true;
                self.take_over().await?;
            }
            self.publish_new_claims();
            if self.core.find_peers(now) | self.ask_known(now) | self.ask_reported(now) {
                yield_now().await;
                continue;
            }
            if self.core.awaits_links() && self.loading_views.is_none() {
                self.start_loading_views();
            }
            self.send_orders().await?;
            let deadline = self.next_deadline(now);
            let mut loading_views = self.loading_views.take();
            tokio::select! {
                readable = self.readable() => readable.map_err(Error::Runtime)?,
                views = joined(&mut loading_views) => {
                    loading_views = None;
                    self.views_are(views).await;
                }
                () = sleep_until(deadline.into()) => {}
            }
            self.loading_views = loading_views;
        }
    }

    /// Tells which VIPs are in subnets that are too large to ask every address.
    fn check_subnets(&self, refuse: bool) -> Result<(), Error> {
        for (vip, subnet) in self.core.too_large_to_sweep() {
            let error = Error::SubnetTooLarge { vip, subnet };
            if refuse {
                return Err(error);
            }
            warn!("{error}");
        }
        Ok(())
    }

    /// Whether each VIP that can be announced has been; those that are not here yet may never come.
    fn first_round_is_out(&self) -> bool {
        let is_due = |claim: &Claim| {
            let was_tried = claim.frames_sent > 0 || claim.last_refusal.is_some();
            claim.state() == State::Ready && !was_tried
        };
        let claims = self.core.claims();
        claims.iter().any(|claim| claim.frames_sent > 0) && !claims.iter().any(is_due)
    }

    /// Asks the hosts that residents know of. Returns whether there were any.
    fn ask_known(&mut self, now: Instant) -> bool {
        let runs = self.runs.iter();
        self.known.extend(runs.flat_map(Runs::take_known));
        if self.confirm != Confirm::All || self.core.awaits_peers() || self.known.is_empty() {
            return false;
        }
        let mut by_link: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (interface, host) in std::mem::take(&mut self.known) {
            by_link.entry(interface).or_default().push(host);
        }
        for (interface, hosts) in by_link {
            self.core.observed(now, interface, &hosts);
        }
        true
    }

    /// Asks the hosts that old owners report. Returns whether there were any.
    fn ask_reported(&mut self, now: Instant) -> bool {
        let runs = self.runs.iter();
        self.reported.extend(runs.flat_map(Runs::take_reported));
        let before = self.reported.len();
        let core = &mut self.core;
        self.reported
            .retain(|one| !core.reported(now, one.vip, one.ip, one.mac));
        self.reported.truncate(MOST_REPORTED);
        self.reported.len() < before
    }

    async fn take_over(&mut self) -> Result<(), Error> {
        let names: BTreeSet<_> = self
            .core
            .awaited()
            .filter_map(|vip| vip.place.name())
            .collect();
        for name in names.into_iter().map(str::to_owned).collect::<Vec<_>>() {
            if let Some(link) = self.driver.kernel().link_named(&name).await? {
                self.core.interface_is(&name, link.index);
            }
        }
        self.claims_published = self.core.claims().len();
        let places = self.core.places();
        self.told.extend(&places);
        let claim = || Runs::claim(self.run_id, &places);
        let claimed = claim().or_else(|error| match descriptors::raise_limit() {
            true => claim(),
            false => Err(error),
        });
        match claimed {
            Ok(runs) => self.runs = Some(runs),
            Err(error) => debug!("older and newer runs are not heard of: {error}"),
        }
        Ok(())
    }

    /// Tells other runs to which interfaces VIPs came since the last call, unless they know.
    fn publish_new_claims(&mut self) {
        let Some(runs) = &self.runs else { return };
        let claims = self.core.claims();
        let new = claims.iter().skip(self.claims_published);
        let places = new.map(|claim| (claim.vip, Some(claim.interface())));
        let untold: Vec<_> = places.filter(|place| self.told.insert(*place)).collect();
        self.claims_published = claims.len();
        runs.tell(&untold);
    }

    /// Waits for a change, a frame, an answer to an order, or another run.
    async fn readable(&self) -> io::Result<()> {
        future::poll_fn(|context| {
            let mut polls = vec![self.driver.poll_readable(context)];
            let orders = self.order_sockets.iter();
            polls.extend(orders.map(|orders| orders.poll_readable(context)));
            polls.extend(self.runs.iter().map(|runs| runs.poll_readable(context)));
            readable::any(polls)
        })
        .await
    }

    /// Starts to dump gateways and neighbours in the background, as tables can be large. It takes a
    /// connection of its own: the kernel refuses a second dump on one that has not ended the first
    /// (`EBUSY`), and the run may have to dump addresses at any moment.
    fn start_loading_views(&mut self) {
        let (on, asks) = (self.links(), self.asks());
        self.loading_views = Some(tokio::spawn(async move {
            load_views(&Kernel::connect()?, on, asks).await
        }));
    }

    /// The interfaces of the claims, and those below them.
    fn links(&self) -> BTreeSet<InterfaceIndex> {
        let claims = self.core.claims().iter();
        claims
            .flat_map(|claim| [Some(claim.interface()), claim.link.lower])
            .flatten()
            .collect()
    }

    fn asks(&self) -> bool {
        self.confirm != Confirm::None
    }

    async fn views_are(&mut self, views: Result<Views, kernel::Error>) {
        let views = match views {
            // Without a descriptor for its own connection, it takes the run's.
            Err(kernel::Error::Open(_)) => {
                load_views(self.driver.kernel(), self.links(), self.asks()).await
            }
            views => views,
        };
        let now = Instant::now();
        let (mut views, host) = views.unwrap_or_else(|error| {
            warn!("nobody is asked whether they follow: {error}");
            self.core.nobody_can_be_asked();
            self.confirm = Confirm::None;
            let on = |claim: &Claim| LinkView::of(claim.link.clone());
            let views = self.core.claims().iter().map(on).collect();
            (views, HostSnapshot::default())
        });
        if let Some(heard) = &self.heard {
            let heard = heard.borrow();
            for view in &mut views {
                view.observed = heard.on(view.link.index, now);
            }
        }
        for view in &mut views {
            let on = view.link.index;
            let known = self.known.extract_if(.., |(interface, _)| *interface == on);
            view.observed.extend(known.map(|(_, host)| host));
        }
        if !self.late.is_empty() {
            for view in &mut views {
                view.neighbours
                    .retain(|known| self.late.contains_key(&known.ip));
                view.observed
                    .retain(|heard| self.late.contains_key(&heard.ip));
            }
        }
        // Known links are newer in the core: changes updated them since the dump.
        for view in &views {
            if self.core.link(view.link.index).is_none() {
                self.core.link_changed(now, &view.link);
            }
        }
        if self.orders.broadcast {
            self.broadcast_orders(now, &views);
        }
        self.core.links_are(views, &host, &self.peers, self.confirm);
    }

    /// Broadcasts one order in the subnet of each VIP.
    fn broadcast_orders(&mut self, now: Instant, views: &[LinkView]) {
        let Some(order_sockets) = &mut self.order_sockets else {
            return;
        };
        for claim in self.core.claims() {
            let on = [Some(claim.interface()), claim.link.lower];
            let near = views
                .iter()
                .filter(|view| on.contains(&Some(view.link.index)));
            let subnet = near
                .flat_map(|view| &view.addresses)
                .find(|own| Prefix::of(own).contains(claim.vip.ip()) && !self.core.is_vip(own.ip));
            let everyone = subnet.and_then(|own| Some((own.ip, Prefix::of(own).broadcast()?)));
            if let (Some((from, to)), Some(mac)) = (everyone, claim.mac()) {
                let route = Route {
                    to: to.into(),
                    from: Some(from),
                    interface: claim.interface(),
                };
                order_sockets.request(now, route, Retry::Never, (claim.vip, mac));
            }
        }
    }

    /// Sends the orders that are due, with all changes delivered before each, and passes on answers.
    async fn send_orders(&mut self) -> Result<(), Error> {
        if !self.opened_order_sockets {
            self.opened_order_sockets = true;
            self.order_sockets = OrderSockets::open(&self.orders, &self.instance);
        }
        let Some(mut order_sockets) = self.order_sockets.take() else {
            return Ok(());
        };
        loop {
            let now = Instant::now();
            yield_to_newer_runs(&mut self.core, self.runs.as_ref());
            self.driver.deliver_changes(&mut self.core, now).await?;
            for answer in order_sockets.hear() {
                debug!(
                    "{}: {} answers the order: {:?}",
                    answer.vip, answer.peer, answer.fate
                );
                self.core.order_answered(
                    now,
                    answer.interface,
                    answer.vip,
                    answer.peer,
                    &answer.fate,
                );
            }
            for due in self.core.take_due_orders() {
                let route = Route {
                    to: due.peer,
                    from: due.from,
                    interface: due.interface,
                };
                let retry = if due.stale {
                    Retry::UntilTimeout
                } else {
                    Retry::Briefly
                };
                order_sockets.request(now, route, retry, (due.vip, due.mac));
            }
            order_sockets.retain(|interface, vip, mac| self.core.announces(interface, vip, mac));
            let is_vip = |ip| self.core.is_vip(ip);
            if now >= self.core.ends_at() || !order_sockets.send_next(now, is_vip) {
                break;
            }
        }
        self.order_sockets = Some(order_sockets);
        Ok(())
    }

    /// Whether the run lasts for the answer to an order.
    fn awaits_order(&self, now: Instant) -> bool {
        let order_sockets = self.order_sockets.as_ref();
        now < self.core.ends_at()
            && order_sockets.is_some_and(|order_sockets| order_sockets.is_waiting(now))
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        // After the core's end the run only waits for answers to orders.
        let core = if self.core.is_over(now) {
            self.core.ends_at()
        } else {
            self.core.next_deadline(now)
        };
        let order_sockets = self.order_sockets.as_ref();
        let due = order_sockets.and_then(OrderSockets::next_due);
        due.map_or(core, |due| due.min(core))
    }
}

/// What the old owner reported of the hosts of a request.
fn reported(request: &Request) -> Vec<Reported> {
    let hosts = request.late.iter();
    let hosts = hosts.filter_map(|(ip, mac)| Some((*ip, (*mac)?)));
    let of_each = |(ip, mac)| {
        let vips = request.vips.iter().map(|placed| placed.vip);
        vips.map(move |vip| Reported { vip, ip, mac })
    };
    hosts.flat_map(of_each).take(MOST_REPORTED).collect()
}

/// Loads these interfaces' addresses and, if `everyone`, gateways and neighbours.
async fn load_views(
    kernel: &Kernel,
    on: BTreeSet<InterfaceIndex>,
    everyone: bool,
) -> Result<Views, kernel::Error> {
    let host = kernel.snapshot().await?;
    let mut views = Vec::new();
    for link in host.links.iter().filter(|link| on.contains(&link.index)) {
        let mut view = LinkView::of(link.clone());
        let own = host.addresses.iter();
        view.addresses = own
            .filter(|own| own.interface == link.index)
            .copied()
            .collect();
        if everyone {
            view.gateways = kernel.gateways(link.index).await?;
            view.neighbours = kernel.neighbours(link.index).await?;
        }
        views.push(view);
    }
    Ok((views, host))
}

/// Yields to newer runs that announce the same.
fn yield_to_newer_runs(core: &mut Announcement, runs: Option<&Runs>) {
    let taken = runs.map(|runs| runs.taken(|| core.places()));
    if let Some(taken) = taken.filter(|taken| !taken.is_empty()) {
        core.superseded(&taken);
    }
}

/// The result of a task; pending if there is none.
async fn joined<T>(task: &mut Option<JoinHandle<T>>) -> T {
    match task {
        Some(task) => match task.await {
            Ok(result) => result,
            // Nothing cancels it, and a panic aborts the process.
            Err(_) => future::pending().await,
        },
        None => future::pending().await,
    }
}

/// A secret that differs from call to call.
pub(crate) fn seed() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// The interface of this name, if VIPs can be announced there.
async fn fit_interface(kernel: &Kernel, name: &str) -> Result<Link, Error> {
    let link = kernel.link_named(name).await?;
    let link = link.ok_or_else(|| Error::NoSuchInterface(name.to_owned()))?;
    match link.why_unaskable_with_advice() {
        Some(why) => Err(Error::UnfitInterface {
            interface: link.name,
            why,
        }),
        None => Ok(link),
    }
}
