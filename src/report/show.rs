//! What keepalived.conf means.

use log::Level;
use serde::Serialize;

use super::{Line, Report};
use crate::keepalived::{Configuration, Group, Instance, VirtualAddress};

/// What keepalived.conf means.
#[derive(Debug, Serialize)]
pub struct ShowReport<'a> {
    instances: &'a [Instance],
    groups: &'a [Group],
}

impl<'a> ShowReport<'a> {
    /// All of it.
    #[must_use]
    pub fn all(configuration: &'a Configuration) -> Self {
        Self {
            instances: configuration.instances(),
            groups: configuration.groups(),
        }
    }

    /// One instance.
    #[must_use]
    pub fn instance(instance: &'a Instance) -> Self {
        Self {
            instances: std::slice::from_ref(instance),
            groups: &[],
        }
    }
}

impl Report for ShowReport<'_> {
    fn lines(&self) -> Vec<Line> {
        let groups = self.groups.iter().map(|group| {
            let members = group.instances.join(", ");
            format!("group {}: {members}", group.name)
        });
        let instances = self.instances.iter().flat_map(instance_lines);
        let all = instances.chain(groups);
        all.map(|text| Line(Level::Info, text)).collect()
    }
}

fn instance_lines(instance: &Instance) -> Vec<String> {
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
    std::iter::once(head)
        .chain(of_kind("VIP", &instance.vips))
        .chain(of_kind("excluded", &instance.excluded))
        .chain(peers)
        .collect()
}
