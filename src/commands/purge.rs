//! `purge`: delete this host's neighbour entries for VIPs that other hosts hold.

use super::output::{Done, warn_of_missing};
use super::target::Target;
use crate::cli::{Global, Purge};
use crate::error::Error;
use crate::kernel::Kernel;
use crate::privileges::Capability;
use crate::purge;
use crate::report::PurgeReport;

pub(super) async fn purge(args: &Purge, global: &Global) -> Result<Done, Error> {
    let target = Target::asked_for(&args.whose, global)?;
    let request = purge::Request {
        interface: args.interface.clone(),
        permanent: args.permanent,
        ..target.to_purge(global)
    };
    let done = run(&target, &request, global).await;
    // Without an entry there was nothing for the kernel to refuse.
    warn_of_missing(&[Capability::NetAdmin], &done);
    done
}

/// Purges, and reports.
pub(super) async fn run(
    target: &Target,
    request: &purge::Request,
    global: &Global,
) -> Result<Done, Error> {
    let purged = purge::purge(&Kernel::connect()?, request).await?;
    Done::report(
        global,
        PurgeReport::new(target.name.as_deref(), request, &purged),
    )
}
