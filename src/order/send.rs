//! Orders by hand: the outbox without an announcement.

use std::collections::HashSet;
use std::future::{self, Future};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;
use vipherald_core::address::{InterfaceIndex, Mac, Prefix, Vip};
use vipherald_core::host::{HostSnapshot, PlacedVip};
use vipherald_core::order::outbox::{Fate, Retry, Route};

use super::sockets::OrderSockets;
use crate::error::Error;
use crate::kernel::Kernel;
use crate::{key_file, settings};

/// What to order.
#[derive(Clone, Debug)]
pub struct Request {
    /// The VIPs, and where they count as held here.
    pub vips: Vec<PlacedVip>,
    /// All VIPs that are known: nothing is sent from them.
    pub all_vips: Arc<HashSet<IpAddr>>,
    /// The peers.
    pub peers: Vec<IpAddr>,
    /// The MAC that the VIPs have; `None`: that of the interface here that holds each.
    pub mac: Option<Mac>,
    /// The instance of the VIPs; may be empty.
    pub instance: String,
    /// How long to wait for answers.
    pub timeout: Duration,
}

/// What became of the order to one peer about one VIP.
#[derive(Clone, Debug)]
pub struct Ordered {
    /// The peer.
    pub peer: IpAddr,
    /// The VIP.
    pub vip: Vip,
    /// The MAC in the order.
    pub mac: Mac,
    /// How it is reached.
    route: Route,
    /// What became of it.
    pub fate: Fate,
}

/// The orders to send: to each peer about each VIP, with its MAC.
///
/// # Errors
/// If a VIP is not here and no MAC was given, or the kernel can't be asked.
pub async fn plan(request: &Request) -> Result<Vec<Ordered>, Error> {
    let kernel = Kernel::connect()?;
    let host = kernel.snapshot().await?;
    let mut told = Vec::new();
    for placed in &request.vips {
        let vip = placed.vip;
        let here = || host.holders(placed).iter().find_map(|link| link.mac);
        let mac = request.mac.or_else(here).ok_or(Error::NoMac(vip))?;
        if told.iter().all(|(other, _)| *other != vip) {
            told.push((vip, mac));
        }
    }
    let mut all: Vec<Ordered> = Vec::new();
    for peer in &request.peers {
        let route = route(&host, *peer, |ip| request.all_vips.contains(&ip));
        for (vip, mac) in &told {
            let twice = all
                .iter()
                .any(|other| (other.peer, other.vip) == (*peer, *vip));
            if !twice {
                all.push(Ordered {
                    peer: *peer,
                    vip: *vip,
                    mac: *mac,
                    route,
                    fate: Fate::Unanswered,
                });
            }
        }
    }
    Ok(all)
}

/// The way to a peer, from an own address that is no VIP: the kernel might choose one.
pub(crate) fn route(host: &HostSnapshot, peer: IpAddr, is_vip: impl Fn(IpAddr) -> bool) -> Route {
    let own = host.addresses.iter().find(|own| {
        let subnet = Prefix::of(own);
        !is_vip(own.ip) && !subnet.is_host() && subnet.contains(peer)
    });
    Route {
        to: peer,
        from: own.map(|own| own.ip),
        interface: own.map_or(InterfaceIndex(0), |own| own.interface),
    }
}

/// Sends the orders until all peers have answered, or time is up, or `stop` ends, whose result it then
/// returns.
///
/// # Errors
/// Without a key, or if the runtime breaks.
pub async fn send<S>(
    request: &Request,
    settings: &settings::Orders,
    ordered: &mut [Ordered],
    stop: impl Future<Output = S>,
) -> Result<Option<S>, Error> {
    let keys = key_file::of(settings)?;
    let mut order_sockets = OrderSockets::new(keys, settings.port.get(), &request.instance);
    let began = Instant::now();
    for order in &*ordered {
        order_sockets.request(
            began,
            order.route,
            Retry::UntilTimeout,
            (order.vip, order.mac),
        );
    }
    let is_vip = |ip| request.all_vips.contains(&ip);
    let end = began + request.timeout;
    let mut stop = pin!(stop);
    loop {
        let now = Instant::now();
        for heard in order_sockets.hear() {
            let of = |order: &&mut Ordered| (order.peer, order.vip) == (heard.peer, heard.vip);
            if let Some(order) = ordered.iter_mut().find(of) {
                order.fate = heard.fate;
            }
        }
        while now < end && order_sockets.send_next(now, is_vip) {}
        order_sockets.retain(|_, _, _| true);
        if now >= end || !order_sockets.is_waiting(now) {
            return Ok(None);
        }
        let wake = order_sockets.next_due().map_or(end, |due| due.min(end));
        tokio::select! {
            stopped = &mut stop => return Ok(Some(stopped)),
            ready = future::poll_fn(|context| order_sockets.poll_readable(context)) => {
                ready.map_err(Error::Runtime)?;
            }
            () = sleep_until(wake.into()) => {}
        }
    }
}
