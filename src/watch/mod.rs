//! A resident that follows the kernel: it announces the VIPs that come to this host, and purges those
//! that leave, whoever moved them.

mod announcements;
mod files;
mod groups;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use log::{debug, warn};
use tokio::time::sleep_until;
use vipherald_core::address::InterfaceIndex;
use vipherald_core::ask::{Asker, Listening};
use vipherald_core::event::{Call, Event};
use vipherald_core::host::PlacedVip;
use vipherald_core::watch::{AtStart, Found, Moved, Progress, Watch};

pub(crate) use announcements::Announcements;
pub(crate) use files::FileChanges;
use groups::Groups;

use crate::announce::{Heard, Late, Start};
use crate::driver::Driver;
use crate::error::Error;
use crate::readable;
use crate::signals::Stop;
use crate::supersede::Runs;

/// The VIPs to watch, by unit: an instance, or those that the user named.
pub(crate) type Units = BTreeMap<String, BTreeSet<PlacedVip>>;

/// Does what moves of VIPs call for.
pub(crate) trait Act {
    /// Announces VIPs of a unit that came to this host, until `newer` ends that; or again, for hosts that
    /// were `late`.
    async fn came(
        &self,
        unit: &str,
        vips: Vec<PlacedVip>,
        late: Late,
        start: Option<Start>,
        newer: Stop,
    );

    /// Purges VIPs of a unit that left it.
    async fn left(&self, unit: &str, vips: Vec<PlacedVip>);

    /// Mends this kernel's entry for a VIP that is elsewhere: it does not have the owner's MAC.
    async fn is_elsewhere(&self, found: Found);
}

/// The sockets of the next announcement are opened this long after the first frames of the last one.
const FIRST_FRAMES: Duration = Duration::from_millis(100);
/// They subscribe again after this many changes, which the announcement would have to read.
const MOST_CHANGES: u64 = 64;
/// An announcement has sockets ready on no more links than these; it opens others itself.
const MOST_READY: usize = 8;
/// After so many messages of runs and `listen` they are not heard for a while: any user of this host can
/// send them, without end.
const MOST_HEARD: usize = 64;
const HEAR_AGAIN: Duration = Duration::from_millis(50);
/// What other hosts say is heard on no more links than these.
const MOST_LINKS: usize = 64;

/// The kernel's reports on some VIPs.
#[derive(Debug)]
pub(crate) struct Watcher {
    groups: Groups,
    driver: Driver,
    core: Watch,
    /// The links on which it can hear other hosts, at the last look.
    askable: BTreeSet<InterfaceIndex>,
    arp_rate: Option<NonZeroU32>,
    /// The sockets of the next announcement.
    next: Option<Driver>,
    /// The changes that were delivered here before those sockets subscribed.
    delivered: u64,
    /// When to open them.
    open_at: Instant,
    /// Hears what old owners report.
    runs: Option<Runs>,
    /// When it hears more of that, after a flood.
    hears_from: Instant,
    /// Messages heard since the last pause.
    heard: usize,
}

impl Watcher {
    /// Subscribes to changes, then looks at this host. At most `arp_rate` ARP frames of an announcement
    /// leave per second and link. Adds the hosts that it hears to `heard`.
    pub(crate) async fn start(
        units: Units,
        at_start: AtStart,
        arp_rate: Option<NonZeroU32>,
        heard: Heard,
    ) -> Result<Self, Error> {
        let driver = Driver::open(arp_rate)?;
        let mut core = Watch::new(units).adding_to(heard);
        let host = driver.kernel().snapshot().await?;
        let now = Instant::now();
        core.begin(now, &host, at_start);
        let mut watcher = Self {
            groups: Groups::default(),
            driver,
            core,
            askable: BTreeSet::new(),
            arp_rate,
            next: None,
            delivered: 0,
            open_at: now,
            runs: Runs::overhear()
                .inspect_err(|error| debug!("reports of old owners are not heard: {error}"))
                .ok(),
            hears_from: now,
            heard: 0,
        };
        watcher.open_next(now);
        watcher.listen();
        Ok(watcher)
    }

    /// Opens the sockets of the next announcement, unless they are open or it is too early. What changed
    /// before is in the core when the announcement starts, because all changes are delivered before that.
    fn open_next(&mut self, now: Instant) {
        let delivered = self.driver.delivered();
        let next = match self.next.take() {
            Some(next) if delivered < self.delivered + MOST_CHANGES => {
                self.next = Some(next);
                return;
            }
            Some(mut next) => next.subscribe_again().map(|()| next),
            None if now < self.open_at => return,
            None => Driver::open(self.arp_rate).map(|mut next| {
                next.open_sockets(self.core.links().take(MOST_READY));
                next
            }),
        };
        match next {
            Ok(next) => (self.next, self.delivered) = (Some(next), delivered),
            // The announcement will say so, if it finds the same.
            Err(error) => {
                debug!("the next announcement's sockets: {error}");
                self.open_at = now + FIRST_FRAMES;
            }
        }
    }

    /// What an announcement of these VIPs starts with; `None`: it has to look at the host itself.
    pub(crate) fn start_of(&mut self, vips: &[PlacedVip]) -> Option<Start> {
        let host = self.core.host_of(vips)?;
        let driver = self.next.take()?;
        self.open_at = Instant::now() + FIRST_FRAMES;
        Some(Start { driver, host })
    }

    /// Watches these units from now on.
    pub(crate) async fn units_are(&mut self, units: Units) -> Result<(), Error> {
        let host = self.driver.kernel().snapshot().await?;
        self.core.units_are(Instant::now(), units, &host);
        self.listen();
        Ok(())
    }

    /// Hears what other hosts say also on links that came, or came up, since the last look.
    async fn look_at_links(&mut self) -> Result<(), Error> {
        if self.core.is_outdated() {
            let host = self.driver.kernel().snapshot().await?;
            self.core.host_is(Instant::now(), &host);
        }
        let askable = self.core.links().filter(|link| link.is_askable());
        let askable: BTreeSet<_> = askable.map(|link| link.index).collect();
        if askable != self.askable {
            self.listen();
        }
        Ok(())
    }

    /// Receives on the links of the VIPs.
    fn listen(&mut self) {
        let askable = self.core.links().filter(|link| link.is_askable());
        let mut askable: Vec<_> = askable.collect();
        self.askable = askable.iter().map(|link| link.index).collect();
        if askable.len() > MOST_LINKS {
            warn!(
                "the VIPs are on {} links: what other hosts say is heard on {MOST_LINKS} of them",
                askable.len()
            );
            askable.truncate(MOST_LINKS);
        }
        let wanted = Listening {
            adverts: true,
            ..Listening::default()
        };
        self.driver.listen_on(askable.iter().copied(), &wanted);
        self.groups.join(&askable, self.core.vips());
    }

    /// The VIPs that are not where this kernel's entries say. Other hosts' claims are compared with these
    /// entries meanwhile.
    pub(crate) async fn take_found(&mut self) -> Result<Vec<Found>, Error> {
        let now = Instant::now();
        for claimed in self.core.take_claims(now) {
            let (on, ip) = (claimed.interface, claimed.placed.vip.ip());
            let entry = self.driver.kernel().neighbour(on, ip).await?;
            let cached = entry.and_then(|entry| entry.mac);
            self.core.entry_is(Instant::now(), &claimed, cached);
        }
        Ok(self.core.take_found(now))
    }

    /// Ends when there may be a move to take.
    pub(crate) async fn changed(&self) -> io::Result<()> {
        let now = Instant::now();
        let mut deadline = match self.next {
            Some(_) => self.core.next_deadline(now),
            None => self.open_at,
        };
        let runs = self.runs.as_ref().filter(|_| self.hears_from <= now);
        if runs.is_none() && self.runs.is_some() {
            deadline = deadline.min(self.hears_from);
        }
        let readable = std::future::poll_fn(|context| {
            let mut polls = vec![self.driver.poll_readable(context)];
            polls.extend(runs.map(|runs| runs.poll_readable(context)));
            readable::any(polls)
        });
        tokio::select! {
            readable = readable => readable,
            () = sleep_until(deadline.into()) => Ok(()),
        }
    }

    /// The moves that the kernel has reported. To cancel this would lose some.
    pub(crate) async fn take_moves(&mut self) -> Result<Vec<Moved>, Error> {
        let now = self.driver.send_due(&mut self.core, |_| ()).await?;
        let moves = self.core.take_moves(now);
        if !moves.is_empty() {
            return Ok(moves);
        }
        // No frame waits for this.
        self.hear_reports(now);
        self.open_next(now);
        self.look_at_links().await?;
        Ok(self.core.take_moves(now))
    }

    /// Hears what old owners report.
    fn hear_reports(&mut self, now: Instant) {
        let Some(runs) = self.runs.as_ref().filter(|_| self.hears_from <= now) else {
            return;
        };
        // Other runs' places are none of its concern.
        let _ = runs.taken(Vec::new);
        runs.tell_known(|interface| self.core.heard_on(interface, Instant::now()));
        for one in runs.take_reported() {
            self.core.reported(one.vip, one.ip, one.mac);
        }
        self.heard += runs.last_read();
        if self.heard >= MOST_HEARD {
            (self.heard, self.hears_from) = (0, now + HEAR_AGAIN);
        }
    }

    /// See [`Watch::are_late`].
    pub(crate) fn are_late(&mut self, vips: &[PlacedVip], peers: &Late) {
        self.core.are_late(vips, peers);
    }

    /// See [`Watch::progress`].
    pub(crate) fn progress(&mut self, event: &Event, call: Call, members: &[String]) -> Progress {
        self.core.progress(Instant::now(), event, call, members)
    }

    /// See [`Watch::here_before`].
    pub(crate) fn here_before(&self, unit: &str) -> Vec<PlacedVip> {
        self.core.here_before(unit)
    }

    /// See [`Watch::holds`].
    pub(crate) fn holds(&self, placed: &PlacedVip) -> bool {
        self.core.holds(placed)
    }
}
