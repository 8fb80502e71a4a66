//! What a node that has just become BACKUP does for its peers, if it has a key. Some of them may have
//! followed it, and the node that remains master gets no event and so announces nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::debug;
use vipherald_core::address::Mac;
use vipherald_core::ask::VipVerdict;
use vipherald_core::host::PlacedVip;

use super::output::Done;
use super::target::Target;
use crate::check::{self, Role};
use crate::error::Error;
use crate::kernel::Kernel;
use crate::order::send;
use crate::report::OrderReport;
use crate::settings::Settings;
use crate::signals::Stop;

/// How long to wait for the peers' answers: not every peer listens, and the VIPs may soon move again.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Orders the peers to purge every entry for the VIPs but the one with their owner's MAC. `done` gets
/// receipts for them, and the exit status of `stop` if that came first. Perhaps no peer needs the order,
/// so failures are logged at debug level only.
pub(super) async fn order_peers(
    target: &Target,
    settings: &Settings,
    stop: Stop,
    done: Done,
) -> Done {
    if !settings.orders.has_key() {
        return done;
    }
    let mut reports = Vec::new();
    let stopped = tokio::select! {
        stopped = stop => Some(stopped),
        ordered = find_and_order(target, settings, &mut reports) => {
            if let Err(error) = ordered {
                debug!("cannot order peers to purge: {error}");
            }
            None
        }
    };
    let done = reports.into_iter().fold(done, Done::kept);
    done.stopped(stopped)
}

async fn find_and_order(
    target: &Target,
    settings: &Settings,
    reports: &mut Vec<OrderReport>,
) -> Result<(), Error> {
    // A node that has just lost a VIP must not even send a probe that could be its owner's.
    let request = check::Request {
        openly: true,
        ..target.to_check(settings)
    };
    if request.peers.is_empty() {
        return Ok(());
    }
    // The only one who answers for a VIP owns it. If nobody answers, or two do, order nothing.
    let mut owners: BTreeMap<Mac, Vec<PlacedVip>> = BTreeMap::new();
    for found in check::look(&Kernel::connect()?, &request).await? {
        if let (Role::Other(_), [(owner, _)]) = (&found.role, &found.owners[..])
            && matches!(found.verdict, VipVerdict::Ok | VipVerdict::Stale)
        {
            owners
                .entry(*owner)
                .or_default()
                .push(PlacedVip::anywhere(found.placed.vip));
        }
    }
    let host = Kernel::connect()?.snapshot().await?;
    for (mac, mut vips) in owners {
        // Another run announces those that have come back since.
        vips.retain(|placed| host.holders(placed).is_empty());
        let request = send::Request {
            vips,
            all_vips: Arc::clone(&target.all_vips),
            peers: request.peers.clone(),
            mac: Some(mac),
            instance: target.name.clone().unwrap_or_default(),
            timeout: TIMEOUT,
        };
        let began = Instant::now();
        let mut ordered = send::plan(&request).await?;
        let never = std::future::pending::<()>();
        send::send(&request, &settings.orders, &mut ordered, never).await?;
        reports.push(OrderReport::new(
            target.name.as_deref(),
            &ordered,
            began,
            false,
        ));
        for request in ordered {
            let (vip, peer, fate) = (request.vip, request.peer, request.fate.word());
            debug!("{vip}: ordered {peer} to use {mac}: {fate}");
        }
    }
    Ok(())
}
