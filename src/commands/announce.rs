//! `announce`: as their new owner, announce VIPs to every host of their link.

use std::time::{Duration, Instant};

use super::output::{Done, deliver, print};
use super::target::Target;
use crate::announce::session::{self, Session};
use crate::announce::{Announcement, Pace};
use crate::cli::{Announce, Global};
use crate::error::Error;
use crate::exit::Exit;
use crate::fifo::Stop;
use crate::report::{AnnounceReport, news_line};
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
    // A time-out that was asked for holds for all of the run.
    let by_default = args
        .timeout
        .map_or(order.pace.conflict_watch, |_| Duration::ZERO);
    order.pace = Pace {
        rate: args.rate.unwrap_or(order.pace.rate),
        wait: args.wait.unwrap_or(order.pace.wait),
        timeout: args.timeout.unwrap_or(order.pace.timeout),
        conflict_watch: args.conflict_watch.unwrap_or(by_default),
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
    let tell = |core: &Announcement, news| news_line(name, core, news).log();
    let stopped = session.run(stop, tell).await?;
    let (now, expected) = (Instant::now(), &target.real_servers);
    let report = AnnounceReport::new(name, session.core(), now, stopped, expected);
    let stdout = deliver(global, &report)?;
    let exit = stopped.unwrap_or(report.exit());
    Ok(Done { exit, stdout })
}
