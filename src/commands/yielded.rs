//! What a node that has yielded does for its peers, if it has a key: some of them may have followed
//! it, and the node that stays master, which gets no event, announces nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use log::debug;
use vipherald_core::address::Mac;
use vipherald_core::ask::VipVerdict;
use vipherald_core::host::PlacedVip;

use super::target::Target;
use crate::check::{self, Role};
use crate::error::Error;
use crate::exit::Exit;
use crate::fifo::Stop;
use crate::kernel::Kernel;
use crate::order::send;
use crate::settings::Settings;

/// How long peers are asked for an answer: not every one listens, and soon another host may have the
/// VIPs, or this one.
const ORDERED_WITHIN: Duration = Duration::from_millis(500);

/// Orders the peers to purge what they have for the VIPs other than their owner's MAC. Returns what
/// `stop` gave, if that ended it. Nothing of it is certain to be needed, so that failures are told
/// at debug level alone.
pub(super) async fn order_peers(target: &Target, settings: &Settings, stop: Stop) -> Option<Exit> {
    if settings.orders.key_files.is_empty() {
        return None;
    }
    tokio::select! {
        stopped = stop => Some(stopped),
        ordered = find_and_order(target, settings) => {
            if let Err(error) = ordered {
                debug!("no peer is ordered to purge: {error}");
            }
            None
        }
    }
}

async fn find_and_order(target: &Target, settings: &Settings) -> Result<(), Error> {
    // A node that has just lost a VIP sends not even a probe for it that an owner could have sent.
    let request = check::Request {
        openly: true,
        ..target.to_check(settings)
    };
    if request.peers.is_empty() {
        return Ok(());
    }
    // Whoever alone answers for a VIP has it. Where nobody does, or two do, there is nothing to say.
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
        // Those that came (back) meanwhile are announced by another run.
        vips.retain(|placed| host.holders(placed).is_empty());
        let request = send::Request {
            vips,
            peers: request.peers.clone(),
            mac: Some(mac),
            instance: target.name.clone().unwrap_or_default(),
            timeout: ORDERED_WITHIN,
        };
        let mut ordered = send::plan(&request).await?;
        let never = std::future::pending::<()>();
        send::send(&request, &settings.orders, &mut ordered, never).await?;
        for request in ordered {
            let (vip, peer, fate) = (request.vip, request.peer, request.fate.word());
            debug!("{vip}: {peer} is told that {mac} has it: {fate}");
        }
    }
    Ok(())
}
