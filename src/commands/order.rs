//! `order`: order peers to purge what they have for VIPs other than their owner's MAC.

use std::time::Duration;

use super::output::{Done, deliver, print};
use super::target::Target;
use crate::cli::{Global, Order};
use crate::error::Error;
use crate::exit::Exit;
use crate::order;
use crate::report::OrderReport;
use crate::settings::Settings;
use crate::signals::termination;

/// How long `order` asks for an answer.
const ORDERED_WITHIN: Duration = Duration::from_secs(5);

pub(super) async fn order(
    args: &Order,
    settings: &Settings,
    global: &Global,
) -> Result<Done, Error> {
    let target = Target::asked_for(&args.whose, global)?;
    let name = target.name.as_deref();
    let peers = if args.peers.is_empty() {
        target.peers.clone()
    } else {
        args.peers.clone()
    };
    if peers.is_empty() {
        return Err(Error::NoPeer);
    }
    let request = order::send::Request {
        vips: target.vips.clone(),
        peers,
        mac: args.mac,
        instance: target.name.clone().unwrap_or_default(),
        timeout: args.timeout.unwrap_or(ORDERED_WITHIN),
    };
    let mut ordered = order::send::plan(&request).await?;
    if global.dry_run {
        let stdout = print(global, &OrderReport::new(name, &ordered, true))?;
        let exit = Exit::Done;
        return Ok(Done { exit, stdout });
    }
    let sent = order::send::send(&request, &settings.orders, &mut ordered, termination());
    let stopped = sent.await?;
    let report = OrderReport::new(name, &ordered, false);
    let stdout = deliver(global, &report)?;
    let exit = stopped.unwrap_or(report.exit());
    Ok(Done { exit, stdout })
}
