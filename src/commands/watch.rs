//! `watch`: announce the VIPs that come to this host, and purge those that leave, until a signal.

use std::collections::BTreeSet;
use std::future;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use log::{debug, info, warn};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until};
use vipherald_core::host::PlacedVip;
use vipherald_core::keepalived::{Configuration, Problem};
use vipherald_core::watch::AtStart;

use super::output::{Done, Printer};
use super::resident::{Resident, Targets, targets};
use super::target::{Target, read_configuration, warn_of_all};
use crate::announce::Heard;
use crate::cli::{Global, Watch};
use crate::error::Error;
use crate::history::keeper::Keeper;
use crate::kernel::Kernel;
use crate::service::Service;
use crate::settings::Settings;
use crate::signals::{HangUps, Stop, termination};
use crate::watch::{Announcements, FileChanges, Units, Watcher};

/// The name of the VIPs that the user named, in messages.
const NAMED: &str = "watch";
/// Files are read this long after a change, because several may change at once.
const SETTLED: Duration = Duration::from_millis(200);

pub(super) async fn watch(
    args: &Watch,
    settings: Rc<Settings>,
    global: &Global,
    history: Rc<Keeper>,
) -> Result<Done, Error> {
    let service = Service::of_environment();
    let on = match &args.interface {
        Some(name) => Some(interface(name).await?),
        None => None,
    };
    let vips: BTreeSet<_> = match (args.all, args.vips.as_slice()) {
        (true, _) => BTreeSet::new(),
        (false, []) => settings.watch.iter().copied().collect(),
        (false, named) => named.iter().map(|written| written.vip).collect(),
    };
    let mut file = None;
    let targets = if vips.is_empty() {
        let configuration = read_configuration(global)?;
        warn_of_all(&configuration);
        let known = targets(&configuration);
        file = Some(ConfigurationFile::new(global, on.clone(), &configuration));
        known
    } else {
        let vips = vips.into_iter().map(PlacedVip::anywhere);
        [(NAMED.to_owned(), Target::of_vips(vips.collect()))].into()
    };
    let targets = on_interface(targets, on.as_deref());
    let (printer, _) = Printer::start();
    let resident = Resident::new("watch", targets, settings, global, printer, history);
    let stop: Stop = Box::pin(termination());
    let watching = run(Rc::new(resident), file, &service, stop);
    let done = LocalSet::new().run_until(watching).await;
    service.stops();
    done
}

/// An interface's name, if `name` is an alternative one; an interface may also come later.
async fn interface(name: &str) -> Result<String, Error> {
    let link = Kernel::connect()?.link_named(name).await?;
    if link.is_none() {
        warn!("there is no interface {name} yet");
    }
    Ok(link.map_or_else(|| name.to_owned(), |link| link.name))
}

fn on_interface(mut targets: Targets, on: Option<&str>) -> Targets {
    for target in targets.values_mut() {
        let vips = std::mem::take(&mut target.vips).into_iter();
        target.vips = vips.map(|placed| placed.only_on(on)).collect();
    }
    targets
}

async fn run(
    resident: Rc<Resident>,
    mut file: Option<ConfigurationFile<'_>>,
    service: &Service,
    mut stop: Stop,
) -> Result<Done, Error> {
    let (arp_rate, heard) = (resident.settings.arp_rate, Heard::clone(&resident.heard));
    let mut watcher = Watcher::start(resident.units(), AtStart::Came, arp_rate, heard).await?;
    let hang_ups = HangUps::listen().map_err(Error::Runtime)?;
    let mut announcements = Announcements::new(Rc::clone(&resident));
    service.is_ready(&status(&resident.units()));
    let alive = |now: Instant| service.watchdog().map(|every| now + every);
    let mut alive_at = alive(Instant::now());
    loop {
        announcements.act(&mut watcher).await?;
        tokio::select! {
            biased;
            exit = &mut stop => {
                let cut = announcements.units();
                if !cut.is_empty() {
                    warn!(
                        "ended by a signal: the announcement of {} is cut short; the next start announces \
                         what is here",
                        cut.join(", ")
                    );
                }
                return Ok(Done::silent(exit));
            }
            changed = watcher.changed() => changed.map_err(Error::Runtime)?,
            () = at(alive_at) => {
                service.lives();
                alive_at = alive(Instant::now());
            }
            hung_up = hang_ups.next() => {
                hung_up.map_err(Error::Runtime)?;
                match &mut file {
                    Some(file) => file.read_at = Some(Instant::now()),
                    None => info!("SIGHUP: the VIPs were named, there is no file to read again"),
                }
            }
            is_due = due(file.as_mut()) => if is_due
                && let Some(file) = &mut file
                && let Some(targets) = file.read_again(&resident)
            {
                resident.watch(targets);
                watcher.units_are(resident.units()).await?;
                let status = status(&resident.units());
                info!("{}: {status}", file.path().display());
                service.is_ready(&status);
            },
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => future::pending().await,
    }
}

/// Ends when the file is to be read again (`true`), or has just changed.
async fn due(file: Option<&mut ConfigurationFile<'_>>) -> bool {
    let Some(file) = file else {
        return future::pending().await;
    };
    if file.read_at.is_some() {
        at(file.read_at).await;
        file.read_at = None;
        return true;
    }
    match file.changed().await {
        Ok(()) => file.read_at = Some(Instant::now() + SETTLED),
        Err(error) => {
            warn!("{error}: changes of keepalived.conf count after SIGHUP");
            file.changes = None;
        }
    }
    false
}

fn status(units: &Units) -> String {
    let vips: BTreeSet<_> = units.values().flatten().map(|placed| placed.vip).collect();
    let plural = if vips.len() == 1 { "" } else { "s" };
    format!("watching {} virtual IP{plural}", vips.len())
}

/// keepalived.conf with its includes.
struct ConfigurationFile<'a> {
    global: &'a Global,
    on: Option<String>,
    /// `None`: they can't be watched.
    changes: Option<FileChanges>,
    /// When to read it again.
    read_at: Option<Instant>,
}

impl<'a> ConfigurationFile<'a> {
    fn new(global: &'a Global, on: Option<String>, configuration: &Configuration) -> Self {
        let changes = FileChanges::new().inspect_err(|error| {
            warn!("inotify: {error}: changes of keepalived.conf count after SIGHUP");
        });
        let mut file = Self {
            global,
            on,
            changes: changes.ok(),
            read_at: None,
        };
        file.watch(configuration);
        file
    }

    fn path(&self) -> &Path {
        self.global.keepalived_conf()
    }

    /// Watches what this configuration was read from, and where more of it may appear. Returns whether any
    /// of that was not watched before.
    fn watch(&mut self, configuration: &Configuration) -> bool {
        let files = configuration.files().iter();
        let paths = files.chain(configuration.depends_on());
        let paths = paths.map(AsRef::as_ref);
        let own = self.global.keepalived_conf();
        let changes = self.changes.as_mut();
        changes.is_some_and(|changes| changes.watch(paths.chain([own])))
    }

    /// Reads the configuration, and watches what it was read from.
    fn read(&mut self) -> Result<Configuration, Error> {
        loop {
            let configuration = read_configuration(self.global)?;
            // Of what was not watched yet, a change may have come too early to be seen.
            if !self.watch(&configuration) {
                return Ok(configuration);
            }
        }
    }

    async fn changed(&self) -> io::Result<()> {
        match &self.changes {
            Some(changes) => changes.changed().await,
            None => future::pending().await,
        }
    }

    /// Reads it again. `None`: nothing about the VIPs has changed, or keepalived would not take it
    /// either, and what was read before counts.
    fn read_again(&mut self, resident: &Resident) -> Option<Targets> {
        let configuration = match self.read() {
            Ok(configuration) => configuration,
            Err(error) => {
                warn!("{error}: what was read before still counts");
                return None;
            }
        };
        warn_of_all(&configuration);
        let refused = configuration.refused().iter();
        let mut problems = refused.chain(configuration.warnings());
        if let Some(stops) = problems.find(|problem| problem.stops) {
            warn!(
                "{}: keepalived does not take this: what was read before still counts",
                stops.file.display()
            );
            return None;
        }
        let mut targets = on_interface(targets(&configuration), self.on.as_deref());
        for refused in configuration.refused() {
            self.keep(refused, resident, &mut targets);
        }
        if resident.watches(&targets) {
            debug!("{}: the VIPs are the same", self.path().display());
            return None;
        }
        Some(targets)
    }

    /// Of an instance that vipherald can't read any more, what was read before counts.
    fn keep(&self, refused: &Problem, resident: &Resident, targets: &mut Targets) {
        let name = refused.block.as_ref().map(|block| block.name.as_str());
        if let Some((name, before)) = name.and_then(|name| Some((name, resident.known(name)?))) {
            warn!("{name}: what was read before still counts");
            targets.entry(name.to_owned()).or_insert(before);
        }
    }
}
