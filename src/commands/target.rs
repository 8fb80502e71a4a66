//! The VIPs and peers that a command is about.

use std::collections::BTreeSet;
use std::net::IpAddr;

use log::{debug, warn};

use crate::address::Vip;
use crate::announce::session;
use crate::announce::{Manner, Pace};
use crate::cli::{Global, Which, Whose};
use crate::error::Error;
use crate::event::{Event, Subject};
use crate::keepalived::{self, Configuration, Instance};
use crate::settings::Settings;
use crate::takeover::Age;
use crate::{check, purge};

/// The VIPs that a command is about.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The instance or group they are of, if keepalived.conf named them.
    pub(super) name: Option<String>,
    pub(super) vips: Vec<Vip>,
    /// Its unicast peers.
    pub(super) peers: Vec<IpAddr>,
}

impl Target {
    pub(super) fn asked_for(whose: &Whose, global: &Global) -> Result<Self, Error> {
        match &whose.instance {
            Some(name) => Ok(Self::of_instance(
                read_configuration(global)?.instance(name)?,
            )),
            None => Ok(Self {
                name: None,
                vips: whose.vips.clone(),
                peers: Vec::new(),
            }),
        }
    }

    pub(super) fn to_look_at(which: &Which, global: &Global) -> Result<Self, Error> {
        if !which.all {
            let whose = Whose {
                vips: which.vips.clone(),
                instance: which.instance.clone(),
            };
            return Self::asked_for(&whose, global);
        }
        let configuration = read_configuration(global)?;
        for problem in configuration.warnings() {
            warn!("{problem}");
        }
        let all = configuration.instances().iter().map(Self::of_instance);
        let (vips, peers): (Vec<_>, Vec<_>) = all.map(|one| (one.vips, one.peers)).unzip();
        Ok(Self {
            name: Some("all".to_owned()),
            vips: vips.concat(),
            peers: peers.concat(),
        })
    }

    pub(super) fn of_event(event: &Event, configuration: &Configuration) -> Result<Self, Error> {
        match event.of {
            Subject::Instance => Ok(Self::of_instance(configuration.instance(&event.name)?)),
            Subject::Group => {
                let group = configuration.group(&event.name)?;
                let mut target = Self {
                    name: Some(group.name.clone()),
                    vips: Vec::new(),
                    peers: Vec::new(),
                };
                for member in &group.instances {
                    let member = Self::of_instance(configuration.instance(member)?);
                    target.vips.extend(member.vips);
                    target.peers.extend(member.peers);
                }
                Ok(target)
            }
        }
    }

    pub(super) fn of_instance(instance: &Instance) -> Self {
        let vips = instance.addresses().filter_map(|configured| {
            Vip::try_from(configured.address)
                .inspect_err(|why| debug!("{}: passed over: {why}", instance.name))
                .ok()
        });
        Self {
            name: Some(instance.name.clone()),
            vips: vips.collect(),
            peers: instance.peers.clone(),
        }
    }

    pub(super) fn to_announce(&self, settings: &Settings) -> session::Order {
        session::Order {
            manner: Manner::Announce,
            vips: self.vips.clone(),
            interface: None,
            peers: [self.peers.as_slice(), &settings.peers].concat(),
            confirm: settings.confirm,
            pace: Pace {
                rate: settings.rate,
                wait: settings.wait,
                timeout: settings.timeout,
            },
            age: Age::now(),
            configured: self.name.is_some(),
            orders: settings.orders.clone(),
            instance: self.name.clone().unwrap_or_default(),
        }
    }

    pub(super) fn to_check(&self, settings: &Settings) -> check::Order {
        let mut vips = self.vips.clone();
        let mut seen = BTreeSet::new();
        vips.retain(|vip| seen.insert(*vip));
        check::Order {
            vips,
            interface: None,
            peers: [self.peers.as_slice(), &settings.peers].concat(),
            confirm: settings.confirm,
            rate: settings.rate,
            wait: check::WAIT,
            configured: self.name.is_some(),
        }
    }

    pub(super) fn to_purge(&self, global: &Global) -> purge::Order {
        purge::Order {
            vips: self.vips.clone(),
            interface: None,
            permanent: false,
            right: None,
            dry_run: global.dry_run,
        }
    }
}

pub(super) fn read_configuration(global: &Global) -> Result<Configuration, Error> {
    Ok(keepalived::read(
        global.keepalived_conf(),
        &options(global),
    )?)
}

pub(super) fn options(global: &Global) -> keepalived::Options {
    keepalived::Options {
        config_id: global.config_id.clone(),
    }
}
