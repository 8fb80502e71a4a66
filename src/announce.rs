//! Announcing VIPs, or checking those that are here: one run, from the first look at this host to its
//! end. The [`Driver`] sends; here it yields to newer runs, looks for peers, and sends orders.

use std::collections::BTreeSet;
use std::future::{self, Future};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use log::{debug, warn};
use tokio::task::JoinHandle;
use tokio::time::sleep_until;
use vipherald_core::address::{InterfaceIndex, Prefix};
use vipherald_core::announce::{Announcement, Claim, Mode, News, Pace};
use vipherald_core::ask::{Asker, Confirm, LinkView};
use vipherald_core::host::{HostSnapshot, Link, Place, PlacedVip};
use vipherald_core::order::outbox::{Retry, Route};

use crate::descriptors;
use crate::driver::Driver;
use crate::error::Error;
use crate::kernel::{self, Kernel};
use crate::order::sockets::OrderSockets;
use crate::settings::Orders;
use crate::supersede::{RunId, Runs};

/// What is to be announced, or checked.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whether they are to be announced, or only checked.
    pub mode: Mode,
    /// The VIPs, and where they count.
    pub vips: Vec<PlacedVip>,
    /// The interface that was named for all of them, if one was: it has to be there, and fit.
    pub interface: Option<String>,
    /// Peers that must follow.
    pub peers: Vec<IpAddr>,
    /// Who else is asked.
    pub confirm: Confirm,
    /// The bounds of the run.
    pub pace: Pace,
    /// When the run began.
    pub run_id: RunId,
    /// How peers are ordered to purge.
    pub orders: Orders,
    /// The instance or group that the VIPs are of, as orders name it.
    pub instance: String,
}

/// A run that looked at the host, and has not sent anything yet.
#[derive(Debug)]
pub struct Session {
    driver: Driver,
    core: Announcement,
    peers: Vec<IpAddr>,
    confirm: Confirm,
    run_id: RunId,
    took_over: bool,
    runs: Option<Runs>,
    /// The claims that other runs were told of.
    claims_told: usize,
    looking_around: Option<JoinHandle<Result<Around, kernel::Error>>>,
    orders: Orders,
    instance: String,
    /// Where orders leave; `None` inside: without a key, there are none.
    order_sockets: Option<Option<OrderSockets>>,
}

/// What the kernel knows of the links that the VIPs are on, and all that this host has.
type Around = (Vec<LinkView>, HostSnapshot);

impl Session {
    /// Subscribes to changes, then looks where the VIPs are.
    ///
    /// # Errors
    /// If the kernel can't be asked, or the interface that was named is none to announce on.
    pub async fn prepare(request: &Request, now: Instant) -> Result<Self, Error> {
        let driver = Driver::open()?;
        let mut placed = request.vips.clone();
        if let Some(name) = &request.interface {
            let link = named(driver.kernel(), name).await?;
            for one in &mut placed {
                one.place = Place::On(link.name.clone());
            }
        }
        let core = Announcement::new(&placed, request.pace, seed(), now).in_mode(request.mode);
        let mut session = Self {
            driver,
            core,
            peers: request.peers.clone(),
            confirm: request.confirm,
            run_id: request.run_id,
            // Who only asks takes nothing over.
            took_over: request.mode == Mode::Check,
            runs: None,
            claims_told: 0,
            looking_around: None,
            orders: request.orders.clone(),
            instance: request.instance.clone(),
            order_sockets: None,
        };
        session.driver.look(&mut session.core, now).await?;
        Ok(session)
    }

    /// The core, for what it knows.
    #[must_use]
    pub fn core(&self) -> &Announcement {
        &self.core
    }

    /// Announces until the core is done, or `stop` is. Returns what `stop` gave, if it was. What is
    /// worth telling before the end goes to `tell`.
    ///
    /// # Errors
    /// If the kernel stops answering, or no packet socket can be had.
    pub async fn run<S>(
        &mut self,
        stop: impl Future<Output = S>,
        tell: impl Fn(&Announcement, &News),
    ) -> Result<Option<S>, Error> {
        let mut stop = pin!(stop);
        loop {
            for news in self.core.take_news() {
                tell(&self.core, &news);
            }
            // The first frame goes first: `stop` is asked when its turn comes, between frames.
            let now = tokio::select! {
                biased;
                now = self.driver.send_due(&mut self.core, |core| hear_newer_runs(core, self.runs.as_ref())) => now?,
                stopped = &mut stop => return Ok(Some(stopped)),
            };
            if self.core.is_over(now) && !self.awaits_order(now) {
                return Ok(None);
            }
            // Only now, after the first frames are out: older runs, and whom to ask and to order.
            if !self.took_over {
                self.took_over = true;
                self.take_over().await?;
            }
            self.tell_new_claims();
            if self.core.awaits_peers() && self.looking_around.is_none() {
                self.look_around();
            }
            self.post_orders().await?;
            let deadline = self.next_deadline(now);
            let mut looking_around = self.looking_around.take();
            tokio::select! {
                stopped = &mut stop => return Ok(Some(stopped)),
                readable = self.readable() => readable.map_err(Error::Runtime)?,
                around = joined(&mut looking_around) => {
                    looking_around = None;
                    self.meet_peers(around).await;
                }
                () = sleep_until(deadline.into()) => {}
            }
            self.looking_around = looking_around;
        }
    }

    async fn take_over(&mut self) -> Result<(), Error> {
        let names: BTreeSet<_> = self
            .core
            .absent()
            .filter_map(|vip| vip.place.name())
            .collect();
        for name in names.into_iter().map(str::to_owned).collect::<Vec<_>>() {
            if let Some(link) = self.driver.kernel().link_named(&name).await? {
                self.core.interface_is(&name, link.index);
            }
        }
        self.claims_told = self.core.claims().len();
        let places = self.core.places();
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

    /// Tells other runs of the interfaces that VIPs came to since they were told last.
    fn tell_new_claims(&mut self) {
        let claims = self.core.claims().len();
        if claims > self.claims_told
            && let Some(runs) = &self.runs
        {
            self.claims_told = claims;
            runs.tell(&self.core.places());
        }
    }

    /// Waits until there is a change, a frame or another run to hear.
    async fn readable(&self) -> io::Result<()> {
        future::poll_fn(|context| {
            let mut any = self.driver.poll_readable(context);
            if let Some(Some(order_sockets)) = &self.order_sockets {
                any = either(any, order_sockets.poll_readable(context));
            }
            match &self.runs {
                Some(runs) => either(any, runs.poll_readable(context)),
                None => any,
            }
        })
        .await
    }

    /// Begins to ask the kernel who is around, beside everything else: tables can be large. On a
    /// connection of its own: the kernel refuses a second dump on one that has not ended the first
    /// (`EBUSY`), and the run may have to look for addresses at any moment.
    fn look_around(&mut self) {
        let (on, asks) = (self.links(), self.asks());
        self.looking_around = Some(tokio::spawn(async move {
            look_around(&Kernel::connect()?, on, asks).await
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

    /// Whether anybody shall be asked.
    fn asks(&self) -> bool {
        self.confirm != Confirm::None
    }

    async fn meet_peers(&mut self, around: Result<Around, kernel::Error>) {
        let around = match around {
            // Without a descriptor for a connection of its own, the run's has to do.
            Err(kernel::Error::Open(_)) => {
                look_around(self.driver.kernel(), self.links(), self.asks()).await
            }
            around => around,
        };
        let now = Instant::now();
        let (views, host) = around.unwrap_or_else(|error| {
            warn!("nobody is asked whether they follow: {error}");
            self.core.nobody_can_be_asked();
            self.confirm = Confirm::None;
            let on = |claim: &Claim| LinkView::of(claim.link.clone());
            let views = self.core.claims().iter().map(on).collect();
            (views, HostSnapshot::default())
        });
        // Of the links that are known, changes have told since.
        for around in &views {
            if self.core.link(around.link.index).is_none() {
                self.core.link_changed(now, &around.link);
            }
        }
        self.core
            .links_are(now, &views, &host, &self.peers, self.confirm);
        if self.orders.broadcast {
            self.order_everyone(now, &views);
        }
    }

    /// Has one order go to everyone on the subnets that the VIPs are in.
    fn order_everyone(&mut self, now: Instant, views: &[LinkView]) {
        let Some(Some(order_sockets)) = &mut self.order_sockets else {
            return;
        };
        let vips = self.core.vips();
        for claim in self.core.claims() {
            let on = [Some(claim.interface()), claim.link.lower];
            let near = views
                .iter()
                .filter(|around| on.contains(&Some(around.link.index)));
            let subnet = near.flat_map(|around| &around.addresses).find(|own| {
                Prefix::of(own).contains(claim.vip.ip())
                    && vips.iter().all(|vip| vip.ip() != own.ip)
            });
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

    /// Sends the orders that are due, knowing before each what the kernel knows, and hands over
    /// the answers.
    async fn post_orders(&mut self) -> Result<(), Error> {
        let (orders, instance) = (&self.orders, &self.instance);
        let order_sockets = self
            .order_sockets
            .get_or_insert_with(|| OrderSockets::open(orders, instance));
        let Some(mut order_sockets) = order_sockets.take() else {
            return Ok(());
        };
        loop {
            let now = Instant::now();
            hear_newer_runs(&mut self.core, self.runs.as_ref());
            self.driver.hear_changes(&mut self.core, now).await?;
            for heard in order_sockets.hear() {
                debug!(
                    "{}: {} answers the order: {:?}",
                    heard.vip, heard.peer, heard.fate
                );
                self.core
                    .order_answered(now, heard.interface, heard.vip, heard.peer, &heard.fate);
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
            if now >= self.core.ends_at() || !order_sockets.send_next(now, self.core.vips()) {
                break;
            }
        }
        self.order_sockets = Some(Some(order_sockets));
        Ok(())
    }

    /// Whether the run goes on for an order that may still be answered.
    fn awaits_order(&self, now: Instant) -> bool {
        let order_sockets = self.order_sockets.iter().flatten().next();
        now < self.core.ends_at()
            && order_sockets.is_some_and(|order_sockets| order_sockets.is_waiting(now))
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        // A core that is over only waits: for answers to orders.
        let core = if self.core.is_over(now) {
            self.core.ends_at()
        } else {
            self.core.next_deadline(now)
        };
        let order_sockets = self.order_sockets.iter().flatten().next();
        let due = order_sockets.and_then(OrderSockets::next_due);
        due.map_or(core, |due| due.min(core))
    }
}

/// Asks the kernel who is around on these interfaces.
async fn look_around(
    kernel: &Kernel,
    on: BTreeSet<InterfaceIndex>,
    everyone: bool,
) -> Result<Around, kernel::Error> {
    let host = kernel.snapshot().await?;
    let mut views = Vec::new();
    for link in host.links.iter().filter(|link| on.contains(&link.index)) {
        let mut around = LinkView::of(link.clone());
        let index = around.link.index;
        around.addresses = host
            .addresses
            .iter()
            .filter(|address| address.interface == index)
            .copied()
            .collect();
        if everyone {
            around.gateways = kernel.gateways(index).await?;
            around.neighbours = kernel.neighbours(index).await?;
        }
        views.push(around);
    }
    Ok((views, host))
}

/// Yields to newer runs, where they announce the same.
fn hear_newer_runs(core: &mut Announcement, runs: Option<&Runs>) {
    let taken = runs.map(|runs| runs.taken(|| core.places()));
    if let Some(taken) = taken.filter(|taken| !taken.is_empty()) {
        core.superseded(&taken);
    }
}

/// The result of a task; never, if there is none.
async fn joined<T>(task: &mut Option<JoinHandle<T>>) -> T {
    match task {
        Some(task) => match task.await {
            Ok(result) => result,
            // Nobody cancels it, and a panic aborts the process.
            Err(_) => future::pending().await,
        },
        None => future::pending().await,
    }
}

/// A number that differs from run to run.
fn seed() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

fn either<T>(one: Poll<T>, other: Poll<T>) -> Poll<T> {
    if one.is_ready() { one } else { other }
}

/// The interface of this name, on which VIPs shall be announced or checked.
async fn named(kernel: &Kernel, name: &str) -> Result<Link, Error> {
    let link = kernel.link_named(name).await?;
    let link = link.ok_or_else(|| Error::NoSuchInterface(name.to_owned()))?;
    if let Some(why) = link.unlike_ethernet {
        let interface = link.name;
        return Err(Error::UnfitInterface { interface, why });
    }
    if !link.up {
        return Err(Error::InterfaceDown(link.name));
    }
    Ok(link)
}
