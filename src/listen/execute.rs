//! Executes an order: purges the entries that contradict it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use log::debug;
use tokio::time::Instant;
use vipherald_core::address::{InterfaceIndex, Mac, Vip};
use vipherald_core::keepalived;
use vipherald_core::order::admission::HostFacts;
use vipherald_core::order::message::{Answer, Done, Order, Outcome, Reason};
use vipherald_core::order::report::Report;

use crate::error::Error;
use crate::kernel::Kernel;
use crate::order::wall_clock;
use crate::purge::{self, Entry, Kept};
use crate::release::{self, Doubt};
use crate::supersede::Reported;
use crate::{keepalived_conf, settings};

/// How long to wait for the new owner's answers to ARP or ND, for all VIPs of an order together.
const RESOLVED_WITHIN: Duration = Duration::from_millis(250);

/// What became of an order.
#[derive(Debug)]
pub(super) struct Executed {
    /// `None`: the order is not for this host.
    pub(super) answer: Option<Answer>,
    /// What to log, besides the answer.
    pub(super) notes: Vec<String>,
}

/// An order in progress. It has its own connection, because the kernel makes only one dump at a time
/// on each.
struct Work<'a> {
    context: &'a Context,
    kernel: Kernel,
    notes: Vec<String>,
}

/// What it takes to execute orders.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) settings: settings::Orders,
    pub(super) keepalived_conf: PathBuf,
    pub(super) options: keepalived::Options,
}

/// Whether this host has the VIP of a report.
#[derive(Debug)]
pub(super) enum OwnVip {
    /// It has, on these interfaces.
    Here(Vec<String>),
    /// It does not, or does not know.
    Elsewhere,
}

impl Context {
    /// Passes a report that came in by `link` on to whatever announces the VIP here. `None`: it is not
    /// for this host, or the kernel does not say.
    pub(super) async fn take_report(
        &self,
        report: &Report,
        link: InterfaceIndex,
    ) -> Option<OwnVip> {
        let work = Work {
            context: self,
            kernel: Kernel::connect().ok()?,
            notes: Vec::new(),
        };
        let facts = work.facts().await.ok()?;
        if !facts.is_meant(report.to, link) {
            return None;
        }
        let placed = facts.placed(report.vip);
        let holders = placed.iter().flat_map(|placed| facts.host.holders(placed));
        let interfaces: Vec<_> = holders.map(|link| link.name.clone()).collect();
        if interfaces.is_empty() {
            return Some(OwnVip::Elsewhere);
        }
        let own: BTreeSet<_> = facts.host.addresses.iter().map(|own| own.ip).collect();
        let others = report.stragglers.iter().filter(|(ip, _)| !own.contains(ip));
        let reported = others.map(|(ip, mac)| Reported {
            vip: report.vip,
            ip: *ip,
            mac: *mac,
        });
        if let Err(error) = Reported::tell(&reported.collect::<Vec<_>>()) {
            debug!("a report is not passed on: {error}");
        }
        Some(OwnVip::Here(interfaces))
    }

    /// Executes an order that came in by `link`.
    pub(super) async fn execute(&self, order: &Order, link: InterfaceIndex) -> Executed {
        self.attempt(order, link)
            .await
            .unwrap_or_else(|problem| Executed {
                answer: Some(Answer::refusal(order, wall_clock(), Reason::Failed)),
                notes: vec![format!("an order is refused: {problem}")],
            })
    }

    async fn attempt(&self, order: &Order, link: InterfaceIndex) -> Result<Executed, Error> {
        let mut work = Work {
            context: self,
            kernel: Kernel::connect()?,
            notes: Vec::new(),
        };
        let answer = work.execute(order, link).await?;
        let notes = work.notes;
        Ok(Executed { answer, notes })
    }
}

impl Work<'_> {
    async fn execute(
        &mut self,
        order: &Order,
        link: InterfaceIndex,
    ) -> Result<Option<Answer>, Error> {
        let mut facts = self.facts().await?;
        if !facts.is_meant(order.to, link) {
            return Ok(None);
        }
        for link in &facts.host.links {
            let gateways = self.kernel.gateways(link.index).await?;
            facts.gateways.extend(gateways);
        }
        let mut purged = Vec::new();
        for (vip, mac) in &order.vips {
            let done = self.about(&facts, *vip, *mac).await;
            purged.push(done.unwrap_or_else(|problem| {
                self.notes
                    .push(format!("{vip}: an order is refused: {problem}"));
                (refused(*vip, Reason::Failed), None)
            }));
        }
        Ok(Some(Answer {
            id: order.id,
            done: self.resolve(purged).await,
            time: wall_clock(),
        }))
    }

    /// What this host has and is configured to have, but for its gateways.
    async fn facts(&self) -> Result<HostFacts, Error> {
        let host = self.kernel.snapshot().await?;
        let configuration =
            keepalived_conf::read(&self.context.keepalived_conf, &self.context.options);
        Ok(HostFacts {
            host,
            gateways: BTreeSet::new(),
            // A host without keepalived has no such file.
            configured: configuration.map_or_else(|_| Vec::new(), |all| all.placed_vips()),
        })
    }

    /// Obeys an order about one VIP. Returns the entry, too, if it deleted one.
    async fn about(
        &mut self,
        facts: &HostFacts,
        vip: Vip,
        mac: Mac,
    ) -> Result<(Done, Option<Entry>), Error> {
        if facts.is_own(vip, mac) {
            // The sender yields to this host.
            let right = Done {
                outcome: Outcome::Right,
                ..refused(vip, Reason::HeldThere)
            };
            return Ok((right, None));
        }
        if facts.holds(vip) {
            return Ok((self.release(facts, vip, mac).await?, None));
        }
        if let Err(reason) = facts.permit(vip, &self.context.settings.allow) {
            return Ok((refused(vip, reason), None));
        }
        let purge = purge::Request {
            vips: facts.placed(vip),
            interface: None,
            permanent: self.context.settings.permanent,
            right: Some(mac),
            dry_run: false,
        };
        let purged = purge::purge(&self.kernel, &purge).await?;
        if !purged.held_here.is_empty() {
            return Ok((refused(vip, Reason::HeldThere), None));
        }
        Ok(told(vip, &purged.entries))
    }

    /// Releases a VIP that is here although another host announces it.
    async fn release(&mut self, facts: &HostFacts, vip: Vip, mac: Mac) -> Result<Done, Error> {
        let (configured, files) = (&facts.configured, &self.context.settings.pid_files);
        let dry_run = !self.context.settings.release_orphan;
        let held = release::release(&self.kernel, &[vip], configured, files, dry_run).await?;
        let Some(first) = held.first() else {
            return Ok(refused(vip, Reason::HeldThere));
        };
        let interface = first.interface.clone();
        let outcome = match held.iter().find_map(|held| held.kept.as_ref()) {
            None => {
                self.notes.push(format!(
                    "{vip} released on {interface}: {mac} announces it, and the keepalived that \
                     left it here is dead"
                ));
                Outcome::Released
            }
            Some(doubt) => {
                let advice = match doubt {
                    Doubt::DryRun => "keepalived is dead, but orders.release_orphan is not set: \
                         `vipherald release --all`"
                        .to_owned(),
                    doubt => doubt.to_string(),
                };
                self.notes.push(format!(
                    "{vip} is held here, on {interface}, and {mac} announces it: {advice}"
                ));
                Outcome::Refused(match doubt {
                    Doubt::DryRun | Doubt::NotConfigured => Reason::HeldThere,
                    _ => Reason::MaybeAlive,
                })
            }
        };
        Ok(Done {
            outcome,
            interface,
            ..refused(vip, Reason::HeldThere)
        })
    }

    /// Resolves the VIPs whose entries were deleted.
    async fn resolve(&mut self, purged: Vec<(Done, Option<Entry>)>) -> Vec<Done> {
        let deadline = Instant::now() + RESOLVED_WITHIN;
        // First ask for all, then wait for the answers.
        for patient in [false, true] {
            for entry in purged.iter().filter_map(|(_, entry)| entry.as_ref()) {
                let retry = if patient {
                    deadline.saturating_duration_since(Instant::now())
                } else {
                    Duration::ZERO
                };
                let (on, ip) = (entry.index, entry.vip.ip());
                if let Err(problem) = self.kernel.resolve(on, ip, retry).await {
                    self.notes.push(format!("cannot resolve {ip}: {problem}"));
                }
            }
        }
        let mut all = Vec::with_capacity(purged.len());
        for (mut done, entry) in purged {
            if let Some(entry) = entry {
                let found = self.kernel.neighbour(entry.index, entry.vip.ip()).await;
                done.now = found.ok().flatten().and_then(|found| found.mac);
            }
            all.push(done);
        }
        all
    }
}

/// What became of a VIP's entries, one for each interface at most: the one that most needs to be
/// reported.
fn told(vip: Vip, entries: &[Entry]) -> (Done, Option<Entry>) {
    let rank = |entry: &&Entry| match entry.kept {
        Some(Kept::Right) => 2,
        Some(_) => 0,
        None => 1,
    };
    let Some(entry) = entries.iter().min_by_key(rank) else {
        let absent = Done {
            outcome: Outcome::Absent,
            ..refused(vip, Reason::Failed)
        };
        return (absent, None);
    };
    let outcome = match entry.kept {
        None => Outcome::Purged,
        Some(Kept::Right) => Outcome::Right,
        Some(Kept::Permanent) => Outcome::Kept(Reason::Permanent),
        Some(_) => Outcome::Kept(Reason::Foreign),
    };
    let done = Done {
        vip,
        outcome,
        was: entry.mac,
        now: entry.mac.filter(|_| entry.kept.is_some()),
        interface: entry.interface.clone(),
    };
    let deleted = entries.iter().find(|entry| entry.kept.is_none());
    (done, deleted.cloned())
}

fn refused(vip: Vip, reason: Reason) -> Done {
    Done {
        vip,
        outcome: Outcome::Refused(reason),
        was: None,
        now: None,
        interface: String::new(),
    }
}
