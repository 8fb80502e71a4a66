//! `notify`: do what an event of keepalived calls for.

use std::fs;
use std::time::{Duration, Instant};

use log::{debug, error, warn};
use nix::unistd::getppid;
use vipherald_core::event::{Call, Event};
use vipherald_core::keepalived::Configuration;

use super::advice::with_advice;
use super::output::{Done, warn_of_missing};
use super::target::{Target, read_configuration};
use super::then::Then;
use super::{announce, purge, yielded};
use crate::announce::Heard;
use crate::cli::{Global, Notify};
use crate::error::Error;
use crate::exit::Exit;
use crate::privileges::Capability;
use crate::settings::Settings;
use crate::signals::{Stop, termination};
use crate::supersede::RunId;

pub(super) async fn notify(
    args: &Notify,
    settings: &Settings,
    global: &Global,
    began: Instant,
) -> Result<Done, Error> {
    let then = Then::new(args, global);
    let done = respond(args, settings, global, began, &then).await;
    // If there was no first round.
    then.start();
    done
}

async fn respond(
    args: &Notify,
    settings: &Settings,
    global: &Global,
    began: Instant,
    then: &Then,
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
    let responder = Responder {
        configuration: &configuration,
        settings,
        global,
        heard: None,
        then,
    };
    let stop = Box::pin(termination());
    let run_id = RunId::now();
    let mut done = responder.respond(&event, call, began, stop).await;
    if let Ok(done) = &mut done
        && call == Call::Purge
        && has_yielded(&event, global)
    {
        let (target, _) = Target::of_event(&event, &configuration)?;
        let mut departure = target.departure(settings, (run_id, began));
        // Who else waits for this run would wait for that, too.
        departure.lasts = match args.straggler_watch {
            Some(given) => given,
            None if is_run_by_keepalived() => departure.lasts,
            None => Duration::ZERO,
        };
        done.departure = Some(departure);
    }
    done
}

/// Whether keepalived itself started this run, and so does not wait for it.
fn is_run_by_keepalived() -> bool {
    fs::read_to_string(format!("/proc/{}/comm", getppid()))
        .is_ok_and(|name| name.trim_end() == "keepalived")
}

/// What it takes to do what an event calls for.
pub(super) struct Responder<'a> {
    pub(super) configuration: &'a Configuration,
    pub(super) settings: &'a Settings,
    pub(super) global: &'a Global,
    /// The hosts that a resident hears.
    pub(super) heard: Option<Heard>,
    pub(super) then: &'a Then,
}

impl Responder<'_> {
    /// Announces or purges, as the event calls for. `stop` ends an announcement.
    pub(super) async fn respond(
        &self,
        event: &Event,
        call: Call,
        began: Instant,
        stop: Stop,
    ) -> Result<Done, Error> {
        let (target, refused) = Target::of_event(event, self.configuration)?;
        let mut done = match call {
            Call::Announce => {
                let mut request = target.to_announce(self.settings);
                request.heard.clone_from(&self.heard);
                let first_round = || self.then.start();
                announce::run(&target, &request, self.global, began, stop, first_round).await
            }
            Call::Purge => {
                let purged = purge::run(&target, &target.to_purge(self.global), self.global).await;
                match purged {
                    Ok(done) if has_yielded(event, self.global) => {
                        Ok(yielded::order_peers(&target, self.settings, stop, done).await)
                    }
                    purged => purged,
                }
            }
        };
        self.warn(event, &refused, &mut done);
        done
    }

    /// Does what is left to do for an event, if the VIPs were announced or purged when they moved.
    pub(super) async fn respond_to_done(&self, event: &Event, stop: Stop) -> Result<Done, Error> {
        let (target, refused) = Target::of_event(event, self.configuration)?;
        let mut done = Ok(Done::silent(Exit::Done));
        if has_yielded(event, self.global) {
            let nothing = Done::silent(Exit::Done);
            done = Ok(yielded::order_peers(&target, self.settings, stop, nothing).await);
        }
        self.warn(event, &refused, &mut done);
        done
    }

    /// Comes last, because no frame waits for it.
    fn warn(&self, event: &Event, refused: &[Error], done: &mut Result<Done, Error>) {
        for error in refused {
            error!("{}: {}", event.name, with_advice("notify", error));
            if let Ok(done) = done
                && done.exit == Exit::Done
            {
                done.exit = error.into();
            }
        }
        if let Ok(done) = done {
            let receipts = std::mem::take(&mut done.receipts).into_iter();
            let state = event.state.as_str();
            done.receipts = receipts.map(|one| one.by_event(state)).collect();
        }
        for problem in self.configuration.warnings_about(&event.name) {
            warn!("{problem}");
        }
        warn_of_missing(&[Capability::NetAdmin, Capability::NetRaw], done);
    }
}

/// Whether this node has become BACKUP.
fn has_yielded(event: &Event, global: &Global) -> bool {
    event.state == "BACKUP" && !global.dry_run
}
