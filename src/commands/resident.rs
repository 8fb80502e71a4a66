//! What `fifo` and `watch` do when VIPs move.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use log::{debug, error, info, warn};
use tokio::task::spawn_local;
use tokio::time::sleep;
use vipherald_core::address::Mac;
use vipherald_core::announce::Claim;
use vipherald_core::host::PlacedVip;
use vipherald_core::keepalived::Configuration;
use vipherald_core::log_limit::RateLimit;
use vipherald_core::watch::{COME_WITHIN, Found};

use super::advice::with_advice;
use super::announce;
use super::output::{Done, Printer};
use super::purge::run as purge_and_report;
use super::target::Target;
use crate::announce::{Heard, Late, Start};
use crate::cli::Global;
use crate::error::Error;
use crate::exit::Exit;
use crate::history::keeper::Keeper;
use crate::kernel::Kernel;
use crate::memory;
use crate::purge::{self, Entry, Kept};
use crate::report::PurgeReport;
use crate::settings::Settings;
use crate::signals::Stop;
use crate::stragglers::Departures;
use crate::supersede::{RunId, is_lost};
use crate::watch::{Act, Units};

/// Late hosts to name in a line.
const NAMED: usize = 8;
/// Conflicts to log a minute.
const CONFLICTS: u32 = 6;
/// Mended entries to log and to keep in the history a minute: anybody can forge claims of VIPs.
const MENDS: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);
/// How long memory that a run needed is kept for the next one.
const GIVE_BACK_AFTER: Duration = Duration::from_secs(1);
/// How long the kernel may take to resolve a VIP again.
const RESOLVED_WITHIN: Duration = Duration::from_secs(1);

/// The VIPs and peers of each unit, by its name.
pub(super) type Targets = BTreeMap<String, Target>;

/// Those of each instance.
pub(super) fn targets(configuration: &Configuration) -> Targets {
    let instances = configuration.instances().iter();
    instances
        .map(|one| (one.name.clone(), Target::of_instance(one, configuration)))
        .collect()
}

/// Announces the VIPs that come, purges those that leave, and reports.
pub(super) struct Resident {
    /// `fifo` or `watch`.
    command: &'static str,
    targets: RefCell<Targets>,
    pub(super) settings: Rc<Settings>,
    pub(super) global: Global,
    printer: Printer,
    history: Rc<Keeper>,
    /// Whether something could not be done.
    failed: Rc<Cell<bool>>,
    /// The hosts that it hears.
    pub(super) heard: Heard,
    /// How often conflicts are logged.
    conflicts: RefCell<RateLimit>,
    /// How often mended entries are reported.
    mends: RefCell<RateLimit>,
    /// Those that were not, since the last line that said so.
    unreported_mends: Rc<Cell<u32>>,
    /// Whether memory is about to be given back.
    gives_back: Rc<Cell<bool>>,
    /// The VIPs that leave.
    departures: Rc<Departures>,
}

impl Resident {
    pub(super) fn new(
        command: &'static str,
        targets: Targets,
        settings: Rc<Settings>,
        global: &Global,
        printer: Printer,
        history: Rc<Keeper>,
    ) -> Self {
        Self {
            command,
            targets: RefCell::new(targets),
            settings,
            global: global.clone(),
            printer,
            history,
            failed: Rc::default(),
            heard: Heard::default(),
            conflicts: RefCell::new(RateLimit::a_minute(CONFLICTS)),
            mends: RefCell::new(RateLimit::a_minute(MENDS)),
            unreported_mends: Rc::default(),
            gives_back: Rc::default(),
            departures: Rc::default(),
        }
    }

    /// What to watch.
    pub(super) fn units(&self) -> Units {
        let targets = self.targets.borrow();
        let units = targets.iter();
        units
            .map(|(name, target)| (name.clone(), target.vips.iter().cloned().collect()))
            .collect()
    }

    /// Watches these from now on.
    pub(super) fn watch(&self, targets: Targets) {
        self.targets.replace(targets);
    }

    /// Whether it watches just these.
    pub(super) fn watches(&self, targets: &Targets) -> bool {
        *self.targets.borrow() == *targets
    }

    /// What is known of a unit.
    pub(super) fn known(&self, unit: &str) -> Option<Target> {
        self.targets.borrow().get(unit).cloned()
    }

    /// Whether something could not be done, now or later.
    pub(super) fn failed(&self) -> Rc<Cell<bool>> {
        Rc::clone(&self.failed)
    }

    /// Something could not be done.
    pub(super) fn has_failed(&self) {
        self.failed.set(true);
    }

    /// Prints or logs what came of a unit's or a group's move.
    pub(super) fn report(&self, name: &str, done: Result<Done, Error>) {
        match done {
            Ok(done) => {
                self.history.keep(done.receipts);
                self.printer.print(done.stdout);
            }
            Err(error) => {
                self.has_failed();
                error!("{name}: {}", with_advice(self.command, &error));
            }
        }
        self.give_memory_back();
    }

    /// Gives back the memory that runs needed, once for all that end at the same time.
    fn give_memory_back(&self) {
        if self.gives_back.replace(true) {
            return;
        }
        let gives_back = Rc::clone(&self.gives_back);
        spawn_local(async move {
            sleep(GIVE_BACK_AFTER).await;
            gives_back.set(false);
            memory::give_back();
        });
    }

    /// These VIPs of a unit; `None` if the unit is no longer watched.
    fn target(&self, unit: &str, vips: Vec<PlacedVip>) -> Option<Target> {
        let target = self.known(unit)?;
        Some(Target { vips, ..target })
    }
}

impl Act for Resident {
    async fn came(
        &self,
        unit: &str,
        vips: Vec<PlacedVip>,
        late: Late,
        start: Option<Start>,
        newer: Stop,
    ) {
        let Some(target) = self.target(unit, vips) else {
            return;
        };
        let mut request = target.to_announce(&self.settings);
        request.expects_all = false;
        if !late.is_empty() {
            let silent = late.iter().filter(|(_, mac)| mac.is_none());
            let hosts: Vec<_> = silent.take(NAMED).map(|(ip, _)| ip.to_string()).collect();
            if !hosts.is_empty() {
                debug!("{unit}: heard again after silence: {}", hosts.join(", "));
            }
            // All others have had the broadcasts.
            request.pace.census = false;
            request.pace.repeats = false;
            request.late = late;
        }
        request.heard = Some(Heard::clone(&self.heard));
        request.pace.wait = request.pace.wait.max(COME_WITHIN);
        request.pace.conflict_watch = self.settings.conflict_watch;
        let rounds_last = request.pace.timeout.min(Claim::planned_time());
        let (mut start, mut newer) = (start, newer.fuse());
        loop {
            let rounds_end = Instant::now() + rounds_last;
            request.run_id = RunId::now();
            let stop = &mut newer;
            let done =
                announce::run_from(start.take(), &target, &request, &self.global, stop).await;
            let is_superseded = matches!(&done, Ok(done) if done.exit == Exit::Superseded);
            self.report(unit, done);
            if !is_superseded || newer.is_terminated() || !request.pace.repeats {
                return;
            }
            let vips = target.vips.iter().map(|placed| (placed.vip, None));
            let goes_on = tokio::select! {
                _ = &mut newer => return,
                is_lost = is_lost(request.run_id, vips.collect(), rounds_end) => is_lost,
            };
            if !goes_on {
                return;
            }
            warn!("{unit}: the run that took over ended too early: announcing again");
        }
    }

    async fn left(&self, unit: &str, vips: Vec<PlacedVip>) {
        let Some(target) = self.target(unit, vips) else {
            return;
        };
        let since = (RunId::now(), Instant::now());
        let request = target.to_purge(&self.global);
        let done = purge_and_report(&target, &request, &self.global).await;
        self.report(unit, done);
        if !self.global.dry_run && self.departures.add(target.departure(&self.settings, since)) {
            // Nobody waits for it.
            let (departures, settings) = (Rc::clone(&self.departures), Rc::clone(&self.settings));
            spawn_local(async move { departures.watch(&settings.orders).await });
        }
    }

    async fn is_elsewhere(&self, found: Found) {
        let vip = found.placed.vip;
        if let Err(error) = self.mend(found).await {
            self.has_failed();
            error!("{vip}: {error}");
        }
    }
}

impl Resident {
    /// Replaces the entry for a VIP of another host, as `check --fix` does.
    async fn mend(&self, found: Found) -> Result<(), Error> {
        let (vip, interface) = (found.placed.vip, found.interface);
        let [owner] = found.owners[..] else {
            if self.conflicts.borrow_mut().take(Instant::now()) {
                let macs: Vec<_> = found.owners.iter().map(Mac::to_string).collect();
                warn!(
                    "{vip}: {} answer for it: two hosts have it, or one host answers on two interfaces \
                     (arp_ignore); `vipherald check {vip}` tells which; this host's entry stays",
                    macs.join(" and ")
                );
            }
            return Ok(());
        };
        let kernel = Kernel::connect()?;
        let Some(link) = kernel.link(interface).await? else {
            return Ok(());
        };
        let request = purge::Request {
            vips: vec![found.placed],
            interface: Some(link.name),
            permanent: self.settings.orders.permanent,
            right: Some(owner),
            dry_run: self.global.dry_run,
        };
        let purged = purge::purge(&kernel, &request).await?;
        let wrong = |entry: &&Entry| entry.kept != Some(Kept::Right);
        if purged.entries.iter().find(wrong).is_none() {
            // The kernel has taken in the answers.
            return Ok(());
        }
        let is_reported = self.may_report_mend();
        if is_reported {
            info!("{vip}: {owner} answers for it");
        } else {
            debug!("{vip}: {owner} answers for it: this host's entry is mended");
        }
        if purged.entries.iter().any(|entry| entry.kept.is_none()) {
            kernel.resolve(interface, vip.ip(), RESOLVED_WITHIN).await?;
        }
        if is_reported {
            let report = PurgeReport::new(None, &request, &purged);
            self.report(&vip.to_string(), Done::report(&self.global, report));
        }
        Ok(())
    }

    /// Whether one more mended entry may be reported. How many were not is said after a minute.
    fn may_report_mend(&self) -> bool {
        let mut mends = self.mends.borrow_mut();
        if !mends.take(Instant::now()) {
            let before = self.unreported_mends.get();
            self.unreported_mends.set(before.saturating_add(1));
            if before == 0 {
                let unreported = Rc::clone(&self.unreported_mends);
                spawn_local(async move {
                    sleep(MINUTE).await;
                    say_unreported(&unreported);
                });
            }
            return false;
        }
        if mends.is_spent() {
            warn!("for a minute, no more wrong entries for VIPs of other hosts are reported");
        }
        true
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        say_unreported(&self.unreported_mends);
    }
}

fn say_unreported(mends: &Cell<u32>) {
    if let more @ 1.. = mends.take() {
        warn!("{more} more entries for VIPs of other hosts were wrong, and are mended");
    }
}
