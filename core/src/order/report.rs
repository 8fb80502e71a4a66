//! The datagrams by which the old owner of a VIP tells its peers who still sends to it. `docs/orders.md`
//! has the layout, and parsing is as strict as that of orders.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Keys;
use super::message::{Id, Kind, MOST_VIPS, Reader, has_head, head, mapped};
use super::outbox::Route;
use crate::address::{Mac, Vip};

/// The most stragglers of one report.
pub const MOST_IN_REPORT: usize = MOST_VIPS;
/// The gap after the first try. It doubles with each.
const FIRST_GAP: Duration = Duration::from_millis(50);
/// How often a report is sent that nobody acknowledges, within three seconds.
const TRIES: u32 = 6;

/// What the old owner of a VIP tells a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The sender's clock: milliseconds since 1970, UTC.
    pub time: u64,
    /// The random id.
    pub id: Id,
    /// The host that it is for. `listen` on others ignores it.
    pub to: IpAddr,
    /// The VIP that has left the sender.
    pub vip: Vip,
    /// From 1 to [`MOST_IN_REPORT`] hosts that still send to it there, each once.
    pub stragglers: Vec<(IpAddr, Mac)>,
}

impl Report {
    /// The signed datagram, without the stragglers beyond [`MOST_IN_REPORT`].
    #[must_use]
    pub fn to_bytes(&self, keys: &Keys) -> Vec<u8> {
        let stragglers = &self.stragglers[..self.stragglers.len().min(MOST_IN_REPORT)];
        let mut datagram = head(Kind::Report, stragglers.len(), self.time, self.id);
        datagram.extend_from_slice(&mapped(self.to));
        datagram.extend_from_slice(&mapped(self.vip.ip()));
        for (ip, mac) in stragglers {
            datagram.extend_from_slice(&mapped(*ip));
            datagram.extend_from_slice(&mac.octets());
        }
        keys.sign(&mut datagram);
        datagram
    }

    /// Whether a datagram starts like a report.
    #[must_use]
    pub fn is_begun_by(datagram: &[u8]) -> bool {
        has_head(datagram, Kind::Report)
    }

    /// Parses an authenticated report without its tag.
    #[must_use]
    pub fn parse(signed: &[u8]) -> Option<Self> {
        let mut reader = Reader(signed);
        let (count, time, id) = reader.head(Kind::Report)?;
        let (to, vip) = (reader.ip()?, reader.vip()?);
        let mut stragglers: Vec<(IpAddr, Mac)> = Vec::with_capacity(count);
        for _ in 0..count {
            let straggler = (reader.ip()?, reader.mac()?);
            let (ip, mac) = straggler;
            let is_host = !ip.is_unspecified() && !ip.is_multicast() && mac.is_unicast();
            if !is_host || stragglers.contains(&straggler) {
                return None;
            }
            stragglers.push(straggler);
        }
        reader.0.is_empty().then_some(Self {
            time,
            id,
            to,
            vip,
            stragglers,
        })
    }
}

/// The datagram that acknowledges the report with this id. `time` is this host's clock.
#[must_use]
pub fn acknowledgement(time: u64, id: Id, keys: &Keys) -> Vec<u8> {
    let mut datagram = head(Kind::Acknowledgement, 1, time, id);
    keys.sign(&mut datagram);
    datagram
}

/// The id of the report that a datagram acknowledges.
#[must_use]
pub fn acknowledged(datagram: &[u8], keys: &Keys) -> Option<Id> {
    if !has_head(datagram, Kind::Acknowledgement) {
        return None;
    }
    let mut reader = Reader(keys.authenticate(datagram)?);
    let (count, _, id) = reader.head(Kind::Acknowledgement)?;
    (count == 1 && reader.0.is_empty()).then_some(id)
}

/// The reports of a run, sent again until they are acknowledged.
#[derive(Debug)]
pub struct Reports {
    keys: Keys,
    sending: Vec<Sending>,
}

#[derive(Debug)]
struct Sending {
    route: Route,
    id: Id,
    datagram: Vec<u8>,
    tries: u32,
    due: Instant,
}

impl Reports {
    /// None yet.
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        let sending = Vec::new();
        Self { keys, sending }
    }

    /// Queues a report to the host that it is for.
    pub fn send(&mut self, now: Instant, route: Route, report: &Report) {
        self.sending.push(Sending {
            route,
            id: report.id,
            datagram: report.to_bytes(&self.keys),
            tries: 0,
            due: now,
        });
    }

    /// The next datagram that is due.
    pub fn poll(&mut self, now: Instant) -> Option<(Route, Vec<u8>)> {
        self.sending
            .retain(|one| one.tries < TRIES || one.due > now);
        let due = self.sending.iter_mut().find(|one| one.due <= now)?;
        due.due = now + FIRST_GAP * (1 << due.tries);
        due.tries += 1;
        Some((due.route, due.datagram.clone()))
    }

    /// A datagram came in.
    pub fn received(&mut self, datagram: &[u8]) {
        if let Some(id) = acknowledged(datagram, &self.keys) {
            self.sending.retain(|one| one.id != id);
        }
    }

    /// When to call [`Reports::poll`] again.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.sending.iter().map(|one| one.due).min()
    }
}

#[cfg(test)]
mod tests;
