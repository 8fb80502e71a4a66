//! `announce`: as their new owner, announce VIPs to every host of their link.

use std::time::Instant;

use super::output::{Done, deliver, print};
use super::target::Target;
use crate::announce::Pace;
use crate::announce::session::{self, Session};
use crate::cli::{Announce, Global};
use crate::error::Error;
use crate::exit::Exit;
use crate::fifo::Stop;
use crate::report::AnnounceReport;
use crate::settings::Settings;
use crate::termination::termination;

pub(super) async fn announce(
    args: &Announce,
    settings: &Settings,
    global: &Global,
    began: Instant,
) -> Result<Done, Error> {
    let target = Target::asked_for(&args.whose, global)?;
    let mut order = target.to_announce(settings);
    order.interface.clone_from(&args.interface);
    order.peers.extend(&args.peers);
    order.confirm = args.confirm.unwrap_or(order.confirm);
    order.pace = Pace {
        rate: args.rate.unwrap_or(order.pace.rate),
        wait: args.wait.unwrap_or(order.pace.wait),
        timeout: args.timeout.unwrap_or(order.pace.timeout),
    };
    run(&target, &order, global, began, Box::pin(termination())).await
}

/// Announces, and tells what came of it. `stop` ends it.
pub(super) async fn run(
    target: &Target,
    order: &session::Order,
    global: &Global,
    began: Instant,
    stop: Stop,
) -> Result<Done, Error> {
    let mut session = Session::prepare(order, began).await?;
    let name = target.name.as_deref();
    if global.dry_run {
        let stdout = print(global, &AnnounceReport::planned(name, session.core()))?;
        let exit = Exit::Done;
        return Ok(Done { exit, stdout });
    }
    let stopped = session.run(stop).await?;
    let report = AnnounceReport::new(name, session.core(), Instant::now());
    let stdout = deliver(global, &report)?;
    let exit = stopped.unwrap_or(report.exit());
    Ok(Done { exit, stdout })
}
