//! `order`: order peers to purge every entry for VIPs but the one with their owner's MAC.

use std::time::{Duration, Instant};

use super::output::Done;
use super::target::Target;
use crate::cli::{Global, Order};
use crate::error::Error;
use crate::order;
use crate::report::OrderReport;
use crate::settings::Settings;
use crate::signals::termination;

/// How long `order` waits for answers by default.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn order(
    args: &Order,
    settings: &Settings,
    global: &Global,
    began: Instant,
) -> Result<Done, Error> {
    let mut target = Target::asked_for(&args.whose, global)?;
    if !args.peers.is_empty() {
        target.peers.clone_from(&args.peers);
    }
    if target.peers.is_empty() {
        return Err(Error::NoPeer);
    }
    let name = target.name.as_deref();
    let request = order::send::Request {
        vips: target.vips,
        all_vips: target.all_vips,
        peers: target.peers,
        mac: args.mac,
        instance: name.unwrap_or_default().to_owned(),
        timeout: args.timeout.unwrap_or(TIMEOUT),
    };
    let mut ordered = order::send::plan(&request).await?;
    let stopped = if global.dry_run {
        None
    } else {
        order::send::send(&request, &settings.orders, &mut ordered, termination()).await?
    };
    let report = OrderReport::new(name, &ordered, began, global.dry_run);
    Ok(Done::report(global, report)?.stopped(stopped))
}
