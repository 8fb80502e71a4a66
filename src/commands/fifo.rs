//! `fifo`: do what keepalived's events call for, in order.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use log::{error, info, warn};
use vipherald_core::host::{HostSnapshot, PlacedVip};
use vipherald_core::keepalived::{Configuration, Instance};

use super::advice::with_advice;
use super::announce;
use super::notify::answer;
use super::output::{Done, Printer};
use super::target::{Target, read_configuration};
use crate::cli::{Fifo, Global};
use crate::error::Error;
use crate::exit::Exit;
use crate::fifo::{Answers, Occasion, Stop, Untold, follow};
use crate::kernel::{self, Kernel};
use crate::settings::Settings;
use crate::signals::termination;

pub(super) async fn fifo(args: &Fifo, settings: Settings, global: &Global) -> Result<Done, Error> {
    // keepalived starts its FIFO script anew at every reload, so that this is what it runs with.
    let configuration = read_configuration(global)?;
    let untold = Untold::all(&configuration);
    let (printer, printed) = Printer::start();
    let reader = Reader {
        configuration,
        settings,
        global: global.clone(),
        printer,
    };
    let exit = follow(&args.path, Box::pin(termination()), untold, reader).await?;
    if exit != Exit::Done {
        return Ok(Done::silent(exit));
    }
    tokio::select! {
        biased;
        exit = termination() => Ok(Done::silent(exit)),
        () = printed => Ok(Done::silent(exit)),
    }
}

/// What events are answered with.
struct Reader {
    configuration: Configuration,
    settings: Settings,
    global: Global,
    printer: Printer,
}

impl Reader {
    fn target(&self, instance: &Instance) -> Target {
        Target::of_instance(instance, &self.configuration)
    }

    /// Announces the VIPs of an instance that are here, though no event told so.
    async fn announce_untold(
        &self,
        instance: &str,
        vips: Vec<PlacedVip>,
        newer: Stop,
    ) -> Result<Done, Error> {
        info!(
            "{instance}: its VIPs are here and keepalived told nothing since this reader started"
        );
        let target = Target {
            vips,
            ..self.target(self.configuration.instance(instance)?)
        };
        let mut order = target.to_announce(&self.settings);
        order.pace.wait = Duration::ZERO;
        announce::run(&target, &order, &self.global, Instant::now(), newer).await
    }
}

impl Answers for Reader {
    async fn held(&self, instances: &BTreeSet<String>) -> Vec<(String, Vec<PlacedVip>)> {
        if instances.is_empty() {
            return Vec::new();
        }
        let host = async { Kernel::connect()?.snapshot().await };
        let host: HostSnapshot = match host.await {
            Ok(host) => host,
            Err(error) => {
                let error: kernel::Error = error;
                warn!("VIPs that no event told of are not announced: {error}");
                return Vec::new();
            }
        };
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

    async fn answer(&self, occasion: Occasion, newer: Stop) {
        let began = Instant::now();
        let name = occasion.name().to_owned();
        let done = match occasion {
            Occasion::Told(event, call) => {
                let (configuration, global) = (&self.configuration, &self.global);
                answer(
                    &event,
                    call,
                    configuration,
                    &self.settings,
                    global,
                    began,
                    newer,
                )
                .await
            }
            Occasion::Untold(instance, vips) => self.announce_untold(&instance, vips, newer).await,
        };
        match done {
            Ok(done) => self.printer.print(done.stdout),
            Err(error) => error!("{name}: {}", with_advice("fifo", &error)),
        }
    }
}
