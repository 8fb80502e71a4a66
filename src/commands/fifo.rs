//! `fifo`: do what keepalived's events call for, in order.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use log::{error, info, warn};
use vipherald_core::event::{Event, Subject};
use vipherald_core::host::{HostSnapshot, PlacedVip};
use vipherald_core::keepalived::{Configuration, Instance};

use super::advice::with_advice;
use super::announce;
use super::notify::Responder;
use super::output::{Done, Printer};
use super::target::{Target, read_configuration};
use super::then::Then;
use crate::cli::{Fifo, Global};
use crate::error::Error;
use crate::exit::Exit;
use crate::fifo::{Occasion, Respond, Stop, Unmentioned, follow};
use crate::history::keeper::Keeper;
use crate::kernel::{self, Kernel};
use crate::settings::Settings;
use crate::signals::termination;

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
    let failed = Rc::new(Cell::new(false));
    let reader = Reader {
        configuration,
        settings,
        global: global.clone(),
        printer,
        failed: Rc::clone(&failed),
        history,
    };
    let exit = follow(&args.path, Box::pin(termination()), unmentioned, reader).await?;
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
    settings: Rc<Settings>,
    global: Global,
    printer: Printer,
    /// Whether some event called for what could not be done.
    failed: Rc<Cell<bool>>,
    history: Rc<Keeper>,
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
        let mut request = target.to_announce(&self.settings);
        request.pace.wait = Duration::ZERO;
        announce::run(
            &target,
            &request,
            &self.global,
            Instant::now(),
            newer,
            || (),
        )
        .await
    }
}

impl Respond for Reader {
    async fn held(&self, instances: &BTreeSet<String>) -> Vec<(String, Vec<PlacedVip>)> {
        if instances.is_empty() {
            return Vec::new();
        }
        let host = async { Kernel::connect()?.snapshot().await };
        let host = host.await.unwrap_or_else(|error: kernel::Error| {
            warn!("cannot announce VIPs that no event was about: {error}");
            HostSnapshot::default()
        });
        let known = self.configuration.instances().iter();
        known
            .filter(|instance| instances.contains(&instance.name))
            .map(|instance| {
                let mut vips = self.target(instance).vips;
                vips.retain(|placed| !host.holders(placed).is_empty());
                (instance.name.clone(), vips)
            })
            .filter(|(_, vips)| !vips.is_empty())
            .collect()
    }

    fn serves(&self, event: &Event) -> Result<(), String> {
        let known = match event.of {
            Subject::Instance => self.configuration.instance(&event.name).map(drop),
            Subject::Group => self.configuration.group(&event.name).map(drop),
        };
        known.map_err(|error| {
            self.failed.set(true);
            format!("{}: {}", event.name, with_advice("fifo", &error.into()))
        })
    }

    async fn respond(&self, occasion: Occasion, newer: Stop) {
        let name = occasion.name().to_owned();
        let done = match occasion {
            Occasion::Event(event, call) => {
                let responder = Responder {
                    configuration: &self.configuration,
                    settings: &self.settings,
                    global: &self.global,
                    then: &Then::default(),
                };
                responder.respond(&event, call, Instant::now(), newer).await
            }
            Occasion::Unmentioned(instance, vips) => {
                self.announce_unmentioned(&instance, vips, newer).await
            }
        };
        match done {
            Ok(done) => {
                self.history.keep(done.receipts);
                self.printer.print(done.stdout);
            }
            Err(error) => {
                self.failed.set(true);
                error!("{name}: {}", with_advice("fifo", &error));
            }
        }
    }
}
