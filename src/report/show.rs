//! What keepalived.conf means, and how its events reach vipherald.

use std::path::{Path, PathBuf};

use log::Level;
use serde::Serialize;
use vipherald_core::keepalived::{Configuration, Group, Instance, Problem, VirtualAddress};

use super::{Line, Report};
use crate::exit::Exit;
use crate::wiring::{By, Wire, Wires, Wiring};

/// What keepalived.conf means.
#[derive(Debug, Serialize)]
pub struct ShowReport<'a> {
    instances: Vec<Shown<'a>>,
    groups: &'a [Group],
    refused: Vec<Refused<'a>>,
    warnings: Vec<Warning>,
    /// Whether there is more than vipherald reads.
    #[serde(skip)]
    is_cut_short: bool,
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    instance: &'a Instance,
    #[serde(flatten)]
    wires: Wires,
}

/// An instance or group that can't be relied on.
#[derive(Debug, Serialize)]
struct Refused<'a> {
    kind: Option<&'static str>,
    name: Option<&'a str>,
    file: &'a Path,
    line: usize,
    reason: &'a str,
    #[serde(skip)]
    problem: &'a Problem,
}

/// A warning.
#[derive(Debug, Serialize)]
struct Warning {
    kind: Option<&'static str>,
    name: Option<String>,
    file: PathBuf,
    line: usize,
    message: String,
    stops: bool,
    #[serde(skip)]
    text: String,
}

impl<'a> ShowReport<'a> {
    /// All of it, with `warnings`.
    #[must_use]
    pub fn all(
        configuration: &'a Configuration,
        wiring: &Wiring<'_>,
        warnings: Vec<Problem>,
    ) -> Self {
        let instances = configuration.instances().iter();
        let refused = configuration.refused().iter();
        Self {
            instances: instances.map(|one| Shown::of(one, wiring)).collect(),
            groups: configuration.groups(),
            refused: refused.map(Refused::from).collect(),
            warnings: warnings.into_iter().map(Warning::from).collect(),
            is_cut_short: configuration.is_cut_short(),
        }
    }

    /// One instance, with those of the `warnings` that concern it.
    #[must_use]
    pub fn instance(instance: &'a Instance, wiring: &Wiring<'_>, warnings: Vec<Problem>) -> Self {
        let concern_it = |problem: &Problem| match &problem.block {
            Some(block) => block.kind == "vrrp_instance" && block.name == instance.name,
            None => true,
        };
        let warnings = warnings.into_iter().filter(concern_it);
        Self {
            instances: vec![Shown::of(instance, wiring)],
            groups: &[],
            refused: Vec::new(),
            warnings: warnings.map(Warning::from).collect(),
            is_cut_short: false,
        }
    }
}

impl<'a> Shown<'a> {
    fn of(instance: &'a Instance, wiring: &Wiring<'_>) -> Self {
        let wires = wiring.wires(instance);
        Self { instance, wires }
    }
}

impl<'a> From<&'a Problem> for Refused<'a> {
    fn from(problem: &'a Problem) -> Self {
        let block = problem.block.as_ref();
        Self {
            kind: block.map(|block| block.kind),
            name: block.map(|block| block.name.as_str()),
            file: &problem.file,
            line: problem.line,
            reason: &problem.message,
            problem,
        }
    }
}

impl From<Problem> for Warning {
    fn from(problem: Problem) -> Self {
        let text = problem.to_string();
        let (kind, name) = match problem.block {
            Some(block) => (Some(block.kind), Some(block.name)),
            None => (None, None),
        };
        Self {
            kind,
            name,
            file: problem.file,
            line: problem.line,
            message: problem.message,
            stops: problem.stops,
            text,
        }
    }
}

impl Report for ShowReport<'_> {
    fn lines(&self) -> Vec<Line> {
        let info = |text: String| Line::new(Level::Info, text);
        let groups = self.groups.iter().map(|group| {
            let members = group.instances.join(", ");
            format!("group {}: {members}", group.name)
        });
        let instances = self.instances.iter().flat_map(instance_lines);
        let refused = self.refused.iter().map(|refused| {
            let text = format!("refused: {}", refused.problem);
            Line::new(Level::Error, text)
        });
        let warnings = self.warnings.iter().map(|warning| {
            let text = format!("warning: {}", warning.text);
            Line::new(Level::Warn, text)
        });
        let all = instances.chain(groups).map(info);
        all.chain(refused).chain(warnings).collect()
    }

    /// A failure if vipherald can't rely on what it read, or keepalived does not start with it.
    fn exit(&self) -> Exit {
        let stops = self.warnings.iter().any(|warning| warning.stops);
        if stops || self.is_cut_short || !self.refused.is_empty() {
            Exit::Failed
        } else {
            Exit::Done
        }
    }
}

fn instance_lines(shown: &Shown<'_>) -> Vec<String> {
    let instance = shown.instance;
    let mut head = format!("instance {}", instance.name);
    if let Some(interface) = &instance.interface {
        head += &format!(" on {interface}");
    }
    if let Some(vmac) = &instance.vmac {
        head += &format!(", VMAC {vmac}");
    }
    if let Some(id) = instance.virtual_router_id {
        head += &format!(", virtual router {id}");
    }
    let of_kind = |kind: &'static str, addresses: &[VirtualAddress]| {
        let line = move |vip: &VirtualAddress| {
            let dev = vip.dev.as_ref().map(|dev| format!(" dev {dev}"));
            let dev = dev.unwrap_or_default();
            format!("  {kind} {}/{}{dev}", vip.address, vip.prefix_len)
        };
        addresses.iter().map(line).collect::<Vec<_>>()
    };
    let peers = instance.peers.iter().map(|peer| format!("  peer {peer}"));
    let Wires { wired, ignored } = &shown.wires;
    let not_at_all = wired
        .is_empty()
        .then(|| "  wired not at all: keepalived runs vipherald for none of its events".to_owned());
    let wired = wired
        .iter()
        .map(|wire| format!("  wired by {}", words(wire)));
    let ignored = ignored.iter().map(|wire| {
        let by = words(wire);
        format!("  not wired by {by} (keepalived ignores it)")
    });
    std::iter::once(head)
        .chain(of_kind("VIP", &instance.vips))
        .chain(of_kind("excluded", &instance.excluded))
        .chain(peers)
        .chain(not_at_all)
        .chain(wired)
        .chain(ignored)
        .collect()
}

fn words(wire: &Wire) -> String {
    let by = match (wire.by, &wire.group) {
        (By::Group, Some(group)) => format!("group {group}"),
        (By::Group, None) => "group".to_owned(),
        (By::Notify, _) if wire.keywords == ["notify"] => return "notify".to_owned(),
        (By::Notify, _) => "notify".to_owned(),
        (By::Fifo, _) => "FIFO".to_owned(),
        (By::Hooks, _) => "hooks".to_owned(),
    };
    format!("{by}: {}", wire.keywords.join(", "))
}
