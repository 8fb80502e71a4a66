//! The shell around the core: it hands over the kernel's word and every frame that came in before
//! a frame goes out, and sends.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::future::{self, Future};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use log::{debug, trace, warn};
use nix::errno::Errno;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep_until;
use vipherald_core::address::{InterfaceIndex, Prefix};
use vipherald_core::announce::{Announcement, Claim, Mode, News, Pace, Transmit};
use vipherald_core::ask::{Confirm, LinkView, Refusal};
use vipherald_core::host::{Address, HostSnapshot, Link, Place, PlacedVip};
use vipherald_core::order::outbox::{Retry, Route};
use vipherald_core::wire::Frame;

use crate::descriptors;
use crate::error::Error;
use crate::kernel::{self, Change, Changes, Drained, Kernel};
use crate::order::sockets::OrderSockets;
use crate::packet_socket::{self, PacketSocket};
use crate::settings::Orders;
use crate::supersede::{RunId, Runs};

/// Frames of a socket that are read before the next one is sent.
const FRAMES_AT_ONCE: u32 = 1024;

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
    kernel: Kernel,
    changes: Changes,
    core: Announcement,
    sockets: HashMap<InterfaceIndex, PacketSocket>,
    out_of_descriptors: bool,
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
        let changes = Changes::subscribe()?;
        let kernel = Kernel::connect()?;
        let mut placed = request.vips.clone();
        if let Some(name) = &request.interface {
            let link = named(&kernel, name).await?;
            for one in &mut placed {
                one.place = Place::On(link.name.clone());
            }
        }
        let core = Announcement::new(&placed, request.pace, seed(), now).in_mode(request.mode);
        let mut session = Self {
            core,
            kernel,
            changes,
            sockets: HashMap::new(),
            out_of_descriptors: false,
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
        session.look(now).await?;
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
                now = self.send_due() => now?,
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

    /// Sends every frame that may leave now, knowing before each what the kernel knows and what
    /// came in.
    async fn send_due(&mut self) -> Result<Instant, Error> {
        loop {
            let now = Instant::now();
            let all_heard = self.hear_frames(now);
            self.hear_newer_runs();
            self.hear_changes(now).await?;
            match self.core.poll_transmit(now) {
                Some(transmit) => self.send(now, &transmit).await?,
                None if all_heard || self.core.is_over(now) => return Ok(now),
                None => {}
            }
            // Whoever shares the thread gets a turn, and time to act on the next event.
            yield_now().await;
        }
    }

    async fn send(&mut self, now: Instant, transmit: &Transmit) -> Result<(), Error> {
        // An interface that is gone takes its claims with it, as soon as the change is heard.
        let Some(link) = self.core.link(transmit.interface) else {
            self.core.refused(now, transmit, refusal(Errno::ENXIO));
            return Ok(());
        };
        if self.out_of_descriptors && !self.sockets.contains_key(&link.index) {
            self.core.refused(now, transmit, Refusal::OutOfDescriptors);
            return Ok(());
        }
        if let Err(error) = ready_socket(&mut self.sockets, link, transmit.is_question) {
            // One interface's trouble keeps no other from its frames.
            let Some(errno) = error.errno() else {
                return Err(error.into());
            };
            if errno == Errno::EMFILE && descriptors::raise_limit() {
                self.core.put_off(now, transmit);
            } else {
                // To try it again would take 8-16 ms each time: the kernel notices after it has made
                // the socket, and waits before it closes that.
                self.out_of_descriptors |= errno == Errno::EMFILE;
                debug!("{error}");
                self.core.refused(now, transmit, refusal(errno));
            }
            return Ok(());
        }
        let octets = transmit.frame.to_bytes();
        // The last look, when there is nothing left to do but to send: what is between the two is
        // the time in which a frame may leave after its VIP did.
        if self.hear_changes(now).await? {
            self.core.put_off(now, transmit);
            return Ok(());
        }
        let interface = transmit.interface;
        match self.sockets[&interface].send(&octets) {
            Ok(()) => {
                trace!("interface {}: sent {:?}", interface.0, transmit.frame);
                self.core.sent(now, transmit);
            }
            Err(errno) => {
                debug!(
                    "interface {}: {errno}, not sent: {:?}",
                    interface.0, transmit.frame
                );
                self.core.refused(now, transmit, refusal(errno));
            }
        }
        Ok(())
    }

    /// Hands over frames that came in, of each socket a bounded number, so that a flood holds
    /// nothing up. Returns whether these were all.
    fn hear_frames(&mut self, now: Instant) -> bool {
        let mut all_heard = true;
        for (interface, socket) in &self.sockets {
            let mut heard = 0;
            for octets in (0..FRAMES_AT_ONCE).map_while(|_| socket.receive()) {
                heard += 1;
                if let Some(frame) = Frame::parse(&octets) {
                    trace!("interface {}: received {frame:?}", interface.0);
                    self.core.received(now, *interface, &frame);
                }
            }
            all_heard &= heard < FRAMES_AT_ONCE;
        }
        all_heard
    }

    async fn take_over(&mut self) -> Result<(), Error> {
        let names: BTreeSet<_> = self
            .core
            .absent()
            .filter_map(|vip| vip.place.name())
            .collect();
        for name in names.into_iter().map(str::to_owned).collect::<Vec<_>>() {
            if let Some(link) = self.kernel.link_named(&name).await? {
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

    fn hear_newer_runs(&mut self) {
        if let Some(runs) = &self.runs {
            let taken = runs.taken(|| self.core.places());
            if !taken.is_empty() {
                self.core.superseded(&taken);
            }
        }
    }

    /// Waits until there is a change, a frame or another run to hear.
    async fn readable(&self) -> io::Result<()> {
        future::poll_fn(|context| {
            let mut any = self.changes.poll_readable(context);
            for socket in self.sockets.values() {
                any = either(any, socket.poll_readable(context));
            }
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
                look_around(&self.kernel, self.links(), self.asks()).await
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
            self.hear_newer_runs();
            self.hear_changes(now).await?;
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

    /// Tells the core every change that had happened when the last look at the queue found it
    /// empty, with nothing awaited since. Whether there was any.
    async fn hear_changes(&mut self, now: Instant) -> Result<bool, Error> {
        let mut any = false;
        loop {
            let mut changes = Vec::new();
            let drained = self.changes.drain(|change| changes.push(change))?;
            if changes.is_empty() && drained == Drained::Complete {
                return Ok(any);
            }
            any = true;
            for change in changes {
                self.hear(now, change).await?;
            }
            if drained == Drained::Overrun {
                self.look(now).await?;
            }
        }
    }

    async fn hear(&mut self, now: Instant, change: Change) -> Result<(), Error> {
        match change {
            // Others than those of the VIPs are of no interest, however many there are.
            Change::Link(link) if self.core.link(link.index).is_some() => {
                self.core.link_changed(now, &link);
            }
            Change::Link(_) => {}
            Change::LinkGone(interface) => self.core.link_gone(now, interface),
            Change::AddressGone(address) => self.core.address_gone(now, &address),
            Change::Address(address) => {
                self.meet_links_of(now, &address).await?;
                self.core.address_changed(now, &address);
            }
        }
        Ok(())
    }

    /// Asks for all that holds now.
    async fn look(&mut self, now: Instant) -> Result<(), Error> {
        for interface in self.core.interfaces() {
            self.meet(now, interface).await?;
        }
        let addresses = self.kernel.addresses().await?;
        for address in &addresses {
            self.meet_links_of(now, address).await?;
        }
        self.core.addresses_are(now, &addresses);
        Ok(())
    }

    /// Tells the core of the interface that has an address, and of the one below it, as far as it
    /// has to know them.
    async fn meet_links_of(&mut self, now: Instant, address: &Address) -> Result<(), Error> {
        for _ in 0..2 {
            match self.core.unknown_link_of(address) {
                Some(interface) => self.meet(now, interface).await?,
                None => break,
            }
        }
        Ok(())
    }

    async fn meet(&mut self, now: Instant, interface: InterfaceIndex) -> Result<(), Error> {
        match self.kernel.link(interface).await? {
            Some(link) => self.core.link_changed(now, &link),
            None => self.core.link_gone(now, interface),
        }
        Ok(())
    }
}

/// The open socket on an interface, which also listens if it has to.
fn ready_socket<'a>(
    sockets: &'a mut HashMap<InterfaceIndex, PacketSocket>,
    link: &Link,
    listen: bool,
) -> Result<&'a PacketSocket, packet_socket::Error> {
    let socket = match sockets.entry(link.index) {
        Entry::Occupied(open) => open.into_mut(),
        Entry::Vacant(none) => none.insert(PacketSocket::open(link)?),
    };
    if listen {
        socket.listen(link)?;
    }
    Ok(socket)
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

/// The kernel's word for why a frame could not leave.
pub(crate) fn refusal(errno: Errno) -> Refusal {
    match errno {
        Errno::EMFILE => Refusal::OutOfDescriptors,
        other => Refusal::Other(other.to_string()),
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
