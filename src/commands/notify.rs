//! `notify`: do what an event of keepalived calls for.

use std::time::Instant;

use log::{debug, warn};

use super::target::{Target, read_configuration};
use super::{announce, purge};
use crate::cli::{Global, Notify};
use crate::error::Error;
use crate::event::{Call, Event};
use crate::exit::Exit;
use crate::fifo::Stop;
use crate::keepalived::Configuration;
use crate::settings::Settings;
use crate::termination::termination;

pub(super) async fn notify(
    args: &Notify,
    settings: &Settings,
    global: &Global,
    began: Instant,
) -> Result<Exit, Error> {
    let event = Event {
        of: args.of,
        name: args.name.clone(),
        state: args.state.clone(),
    };
    if event.calls_for().is_none() {
        debug!("{}: nothing to do for {}", event.name, event.state);
        return Ok(Exit::Done);
    }
    let configuration = read_configuration(global)?;
    answer(
        &event,
        &configuration,
        settings,
        global,
        began,
        Box::pin(termination()),
    )
    .await
}

/// Does what an event calls for. `stop` ends an announcement.
pub(super) async fn answer(
    event: &Event,
    configuration: &Configuration,
    settings: &Settings,
    global: &Global,
    began: Instant,
    stop: Stop,
) -> Result<Exit, Error> {
    let target = Target::of_event(event, configuration)?;
    let done = match event.calls_for() {
        Some(Call::Announce) => {
            let order = target.to_announce(settings);
            announce::run(&target, &order, global, began, stop).await
        }
        Some(Call::Purge) => purge::run(&target, &target.to_purge(global), global).await,
        None => Ok(Exit::Done),
    };
    // Last: no frame waits for it.
    for problem in configuration.warnings_about(&event.name) {
        warn!("{problem}");
    }
    done
}
