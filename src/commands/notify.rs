//! `notify`: do what an event of keepalived calls for.

use std::time::Instant;

use log::{debug, error, warn};
use vipherald_core::event::{Call, Event};
use vipherald_core::keepalived::Configuration;

use super::advice::with_advice;
use super::output::Done;
use super::target::{Target, read_configuration};
use super::{announce, purge, yielded};
use crate::cli::{Global, Notify};
use crate::error::Error;
use crate::exit::Exit;
use crate::fifo::Stop;
use crate::privileges::Capability;
use crate::settings::Settings;
use crate::signals::termination;

pub(super) async fn notify(
    args: &Notify,
    settings: &Settings,
    global: &Global,
    began: Instant,
) -> Result<Done, Error> {
    let event = Event {
        of: args.of,
        name: args.name.clone(),
        state: args.state.clone(),
    };
    let call = match event.calls_for() {
        Ok(Some(call)) => call,
        Ok(None) => {
            debug!("{}: nothing to do for {}", event.name, event.state);
            return Ok(Done::silent(Exit::Done));
        }
        Err(unknown) => {
            warn!("{unknown}");
            return Ok(Done::silent(Exit::Usage));
        }
    };
    let configuration = read_configuration(global)?;
    let stop = Box::pin(termination());
    answer(&event, call, &configuration, settings, global, began, stop).await
}

/// Does what an event calls for. `stop` ends an announcement.
pub(super) async fn answer(
    event: &Event,
    call: Call,
    configuration: &Configuration,
    settings: &Settings,
    global: &Global,
    began: Instant,
    stop: Stop,
) -> Result<Done, Error> {
    let (target, refused) = Target::of_event(event, configuration)?;
    let mut done = match call {
        Call::Announce => {
            let order = target.to_announce(settings);
            announce::run(&target, &order, global, began, stop).await
        }
        Call::Purge => {
            let mut purged = purge::run(&target, &target.to_purge(global), global).await;
            if let (Ok(done), "BACKUP", false) = (&mut purged, event.state.as_str(), global.dry_run)
                && let Some(stopped) = yielded::order_peers(&target, settings, stop).await
            {
                done.exit = stopped;
            }
            purged
        }
    };
    // Last: no frame waits for it.
    for error in &refused {
        error!("{}: {}", event.name, with_advice("notify", error));
        if let Ok(
            done @ Done {
                exit: Exit::Done, ..
            },
        ) = &mut done
        {
            done.exit = error.exit();
        }
    }
    for problem in configuration.warnings_about(&event.name) {
        warn!("{problem}");
    }
    warn_of_missing(&[Capability::NetAdmin, Capability::NetRaw], &done);
    done
}

/// Warns of missing capabilities, whether or not they were needed this time: the next event may be
/// the first MASTER. To be called after the work, which it must not delay. What made that fail is
/// not told again.
pub(super) fn warn_of_missing(needed: &[Capability], done: &Result<Done, Error>) {
    let told = done
        .as_ref()
        .err()
        .map(Error::to_string)
        .unwrap_or_default();
    for capability in needed {
        if !capability.is_here() && !told.contains(capability.name()) {
            warn!("{}", capability.advice());
        }
    }
}
