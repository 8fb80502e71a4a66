//! `purge`: delete this host's neighbour entries for VIPs that other hosts hold.

use super::output::{deliver, print};
use super::target::Target;
use crate::cli::{Global, Purge};
use crate::error::Error;
use crate::exit::Exit;
use crate::kernel::Kernel;
use crate::purge;
use crate::report::PurgeReport;

pub(super) async fn purge(args: &Purge, global: &Global) -> Result<Exit, Error> {
    let target = Target::asked_for(&args.whose, global)?;
    let order = purge::Order {
        interface: args.interface.clone(),
        permanent: args.permanent,
        ..target.to_purge(global)
    };
    run(&target, &order, global).await
}

/// Purges, and tells what came of it.
pub(super) async fn run(
    target: &Target,
    order: &purge::Order,
    global: &Global,
) -> Result<Exit, Error> {
    let purged = purge::purge(&Kernel::connect()?, order).await?;
    let report = PurgeReport::new(target.name.as_deref(), order, &purged);
    if global.dry_run {
        print(global, &report)?;
    } else {
        deliver(global, &report)?;
    }
    Ok(report.exit())
}
