//! Orders by hand: the same outbox, without an announcement.

use std::future::{self, Future};
use std::net::IpAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;
use vipherald_core::address::{InterfaceIndex, Mac, Prefix, Vip};
use vipherald_core::host::PlacedVip;
use vipherald_core::order::outbox::{Fate, Retry, Route};

use super::sockets::{OrderSockets, credentials};
use crate::error::Error;
use crate::kernel::Kernel;
use crate::{key_file, settings};

/// What is to be ordered.
#[derive(Clone, Debug)]
pub struct Request {
    /// The VIPs, and where they count as held here.
    pub vips: Vec<PlacedVip>,
    /// The peers.
    pub peers: Vec<IpAddr>,
    /// The MAC that the VIPs have; `None`: that of the interface which holds each here.
    pub mac: Option<Mac>,
    /// The instance that the VIPs are of; may be empty.
    pub instance: String,
    /// How long to ask.
    pub timeout: Duration,
}

/// What became of the order to one peer about one VIP.
#[derive(Clone, Debug)]
pub struct Ordered {
    /// The peer.
    pub peer: IpAddr,
    /// The VIP.
    pub vip: Vip,
    /// The MAC that it was told.
    pub mac: Mac,
    /// How it is reached.
    route: Route,
    /// What became of it.
    pub fate: Fate,
}

/// What would be ordered: each peer about each VIP, with its MAC.
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
        let own = host.addresses.iter().find(|own| {
            let is_vip = request.vips.iter().any(|placed| placed.vip.ip() == own.ip);
            !is_vip && !Prefix::of(own).is_host() && Prefix::of(own).contains(*peer)
        });
        let route = Route {
            to: *peer,
            // Left to itself, the kernel may well choose the VIP.
            from: own.map(|own| own.ip),
            interface: own.map_or(InterfaceIndex(0), |own| own.interface),
        };
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

/// Orders until all have answered, or time is up, or `stop` is. Gives what `stop` gave, if it was.
///
/// # Errors
/// Without a key, or if the runtime breaks.
pub async fn send<S>(
    request: &Request,
    settings: &settings::Orders,
    ordered: &mut [Ordered],
    stop: impl Future<Output = S>,
) -> Result<Option<S>, Error> {
    if settings.key_files.is_empty() {
        return Err(Error::NoKey);
    }
    let keys = key_file::read(&settings.key_files, credentials().as_deref())?;
    let vips: Vec<Vip> = request.vips.iter().map(|placed| placed.vip).collect();
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
        while now < end && order_sockets.send_next(now, &vips) {}
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
