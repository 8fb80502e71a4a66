//! `fifo`: do what keepalived's events call for, in order, and what moves of VIPs do.

use std::rc::Rc;
use std::time::{Duration, Instant};

use log::{info, warn};
use vipherald_core::event::{Event, Subject};
use vipherald_core::host::PlacedVip;
use vipherald_core::keepalived::{Configuration, Instance};
use vipherald_core::watch::{AtStart, Found};

use super::advice::with_advice;
use super::announce;
use super::notify::Responder;
use super::output::{Done, Printer};
use super::resident::{Resident, targets};
use super::target::{Target, read_configuration};
use super::then::Then;
use crate::announce::{Heard, Late, Start};
use crate::cli::{Fifo, Global};
use crate::error::Error;
use crate::exit::Exit;
use crate::fifo::{Occasion, Respond, Unmentioned, follow};
use crate::history::keeper::Keeper;
use crate::settings::Settings;
use crate::signals::{Stop, termination};
use crate::watch::{Act, Watcher};

pub(super) async fn fifo(
    args: &Fifo,
    settings: Rc<Settings>,
    global: &Global,
    history: Rc<Keeper>,
) -> Result<Done, Error> {
    // keepalived restarts its FIFO script at every reload, so this is what it runs with.
    let configuration = read_configuration(global)?;
    let unmentioned = Unmentioned::all(&configuration);
    let (printer, printed) = Printer::start();
    let resident = Resident::new(
        "fifo",
        targets(&configuration),
        settings,
        global,
        printer,
        history,
    );
    let failed = resident.failed();
    let (units, arp_rate) = (resident.units(), resident.settings.arp_rate);
    let heard = Heard::clone(&resident.heard);
    // A keepalived that starts may find VIPs that another one left, and it reports what becomes of them.
    let watcher = async {
        let started = Watcher::start(units, AtStart::Here, arp_rate, heard).await;
        started
            .inspect_err(|error| warn!("{error}: only keepalived's events count"))
            .ok()
    };
    let reader = Reader {
        configuration,
        resident,
    };
    let stop = Box::pin(termination());
    let exit = follow(&args.path, stop, unmentioned, watcher, reader).await?;
    if exit != Exit::Done {
        return Ok(Done::silent(exit));
    }
    let exit = if failed.get() { Exit::Failed } else { exit };
    tokio::select! {
        biased;
        exit = termination() => Ok(Done::silent(exit)),
        () = printed => Ok(Done::silent(exit)),
    }
}

/// Does what the events call for.
struct Reader {
    configuration: Configuration,
    resident: Resident,
}

impl Reader {
    fn target(&self, instance: &Instance) -> Target {
        Target::of_instance(instance, &self.configuration)
    }

    /// Announces the VIPs of an instance that are here, though no event was about it.
    async fn announce_unmentioned(
        &self,
        instance: &str,
        vips: Vec<PlacedVip>,
        newer: Stop,
    ) -> Result<Done, Error> {
        info!("{instance}: its VIPs are here, but no event came since this reader started");
        let target = Target {
            vips,
            ..self.target(self.configuration.instance(instance)?)
        };
        let mut request = target.to_announce(&self.resident.settings);
        request.pace.wait = Duration::ZERO;
        request.heard = Some(Heard::clone(&self.resident.heard));
        announce::run(
            &target,
            &request,
            &self.resident.global,
            Instant::now(),
            newer,
            || (),
        )
        .await
    }
}

impl Respond for Reader {
    fn members(&self, event: &Event) -> Vec<String> {
        match event.of {
            Subject::Instance => vec![event.name.clone()],
            Subject::Group => {
                let group = self.configuration.group(&event.name);
                group.map_or(Vec::new(), |group| group.instances.clone())
            }
        }
    }

    fn serves(&self, event: &Event) -> Result<(), String> {
        let known = match event.of {
            Subject::Instance => self.configuration.instance(&event.name).map(drop),
            Subject::Group => self.configuration.group(&event.name).map(drop),
        };
        known.map_err(|error| {
            self.resident.has_failed();
            format!("{}: {}", event.name, with_advice("fifo", &error.into()))
        })
    }

    async fn respond(&self, occasion: Occasion, newer: Stop) {
        let name = occasion.name().to_owned();
        let then = Then::default();
        let responder = Responder {
            then: &then,
            configuration: &self.configuration,
            settings: &self.resident.settings,
            global: &self.resident.global,
            heard: Some(Heard::clone(&self.resident.heard)),
        };
        let done = match occasion {
            Occasion::Event(event, call) => {
                responder.respond(&event, call, Instant::now(), newer).await
            }
            Occasion::Done(event) => responder.respond_to_done(&event, newer).await,
            Occasion::Unmentioned(instance, vips) => {
                self.announce_unmentioned(&instance, vips, newer).await
            }
        };
        self.resident.report(&name, done);
    }
}

impl Act for Reader {
    async fn came(
        &self,
        unit: &str,
        vips: Vec<PlacedVip>,
        late: Late,
        start: Option<Start>,
        newer: Stop,
    ) {
        self.resident.came(unit, vips, late, start, newer).await;
    }

    async fn left(&self, unit: &str, vips: Vec<PlacedVip>) {
        self.resident.left(unit, vips).await;
    }

    async fn is_elsewhere(&self, found: Found) {
        self.resident.is_elsewhere(found).await;
    }
}
