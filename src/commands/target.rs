//! The VIPs and peers that a command is about.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::warn;
use vipherald_core::address::WrittenVip;
use vipherald_core::announce::{Mode, Pace};
use vipherald_core::event::{Event, Subject};
use vipherald_core::host::PlacedVip;
use vipherald_core::keepalived;
use vipherald_core::keepalived::{Configuration, Instance};

use crate::announce::Late;
use crate::cli::{Global, Which, Whose};
use crate::error::Error;
use crate::settings::Settings;
use crate::stragglers::Departure;
use crate::supersede::RunId;
use crate::{announce, check, keepalived_conf, purge};

/// The VIPs that a command is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The instance or group, if keepalived.conf gave the VIPs.
    pub(super) name: Option<String>,
    pub(super) vips: Vec<PlacedVip>,
    /// All VIPs that are known, of other instances, too: each may leave at any moment.
    pub(super) all_vips: Arc<HashSet<IpAddr>>,
    /// Its unicast peers.
    pub(super) peers: Vec<IpAddr>,
    /// The real servers of keepalived.conf: they have VIPs, too, where nobody asks for them.
    pub(super) real_servers: Vec<IpAddr>,
}

impl Target {
    pub(super) fn asked_for(whose: &Whose, global: &Global) -> Result<Self, Error> {
        Self::named(&whose.vips, whose.instance.as_deref(), global)
    }

    fn named(vips: &[WrittenVip], instance: Option<&str>, global: &Global) -> Result<Self, Error> {
        match instance {
            Some(name) => {
                let configuration = read_configuration(global)?;
                let target = Self::of_instance(configuration.instance(name)?, &configuration);
                for problem in configuration.warnings_about(name) {
                    warn!("{problem}");
                }
                if target.vips.is_empty() {
                    return Err(Error::InstanceWithoutVip {
                        instance: name.to_owned(),
                        file: global.keepalived_conf().to_owned(),
                    });
                }
                Ok(target)
            }
            None => {
                let vips = vips.iter();
                let vips = vips.map(|written| PlacedVip::anywhere(written.vip));
                Ok(Self::of_vips(vips.collect()))
            }
        }
    }

    pub(super) fn of_vips(vips: Vec<PlacedVip>) -> Self {
        Self {
            name: None,
            all_vips: Arc::new(vips.iter().map(|placed| placed.vip.ip()).collect()),
            vips,
            peers: Vec::new(),
            real_servers: Vec::new(),
        }
    }

    pub(super) fn to_look_at(which: &Which, global: &Global) -> Result<Self, Error> {
        if !which.all {
            return Self::named(&which.vips, which.instance.as_deref(), global);
        }
        let configuration = read_configuration(global)?;
        warn_of_all(&configuration);
        let mut target = Self::empty("all", &configuration);
        for instance in configuration.instances() {
            target.add(instance);
        }
        target.vips.shrink_to_fit();
        Ok(target)
    }

    /// What an event is about. Members of a group that vipherald refuses do not keep it from serving the
    /// others: the errors about them come with the target.
    ///
    /// # Errors
    /// If vipherald refuses the instance, or every member of the group.
    pub(super) fn of_event(
        event: &Event,
        configuration: &Configuration,
    ) -> Result<(Self, Vec<Error>), Error> {
        match event.of {
            Subject::Instance => {
                let instance = configuration.instance(&event.name)?;
                Ok((Self::of_instance(instance, configuration), Vec::new()))
            }
            Subject::Group => {
                let group = configuration.group(&event.name)?;
                let mut target = Self::empty(&group.name, configuration);
                let mut refused = Vec::new();
                for member in &group.instances {
                    match configuration.instance(member) {
                        Ok(instance) => target.add(instance),
                        Err(error) => refused.push(error.into()),
                    }
                }
                match refused.pop() {
                    Some(error) if target.vips.is_empty() => Err(error),
                    last => {
                        refused.extend(last);
                        Ok((target, refused))
                    }
                }
            }
        }
    }

    pub(super) fn of_instance(instance: &Instance, configuration: &Configuration) -> Self {
        let mut target = Self::empty(&instance.name, configuration);
        target.add(instance);
        target
    }

    fn empty(name: &str, configuration: &Configuration) -> Self {
        Self {
            name: Some(name.to_owned()),
            vips: Vec::new(),
            all_vips: Arc::new(
                configuration
                    .instances()
                    .iter()
                    .flat_map(Instance::addresses)
                    .map(|configured| configured.address)
                    .collect(),
            ),
            peers: Vec::new(),
            real_servers: configuration.real_servers().collect(),
        }
    }

    fn add(&mut self, instance: &Instance) {
        self.vips.extend(instance.placed_vips());
        self.peers.extend(&instance.peers);
    }

    pub(super) fn to_announce(&self, settings: &Settings) -> announce::Request {
        announce::Request {
            mode: Mode::Announce,
            vips: self.vips.clone(),
            all_vips: Arc::clone(&self.all_vips),
            interface: None,
            peers: [self.peers.as_slice(), &settings.peers].concat(),
            confirm: settings.confirm,
            sweeps_all: false,
            expects_all: true,
            pace: Pace {
                rate: settings.rate,
                arp_rate: settings.arp_rate,
                census: settings.census,
                repeats: true,
                wait: settings.wait,
                timeout: settings.timeout,
                conflict_watch: match self.name {
                    Some(_) => settings.conflict_watch,
                    // Whoever named VIPs waits for a result, not for another owner to go away.
                    None => Duration::ZERO,
                },
            },
            run_id: RunId::now(),
            orders: settings.orders.clone(),
            instance: self.name.clone().unwrap_or_default(),
            heard: None,
            late: Late::new(),
        }
    }

    pub(super) fn to_check(&self, settings: &Settings) -> check::Request {
        let mut seen = BTreeSet::new();
        let once = self.vips.iter().filter(|placed| seen.insert(*placed));
        // As many as keepalived.conf may have take a large part of the units' memory: no room for more.
        let mut vips = Vec::with_capacity(self.vips.len());
        vips.extend(once.cloned());
        check::Request {
            vips,
            all_vips: Arc::clone(&self.all_vips),
            interface: None,
            peers: [self.peers.as_slice(), &settings.peers].concat(),
            confirm: settings.confirm,
            rate: settings.rate,
            arp_rate: settings.arp_rate,
            census: settings.census,
            wait: check::WAIT,
            openly: false,
        }
    }

    /// Its VIPs left.
    pub(super) fn departure(
        &self,
        settings: &Settings,
        (run_id, since): (RunId, Instant),
    ) -> Departure {
        Departure {
            name: self.name.clone(),
            vips: self.vips.clone(),
            all_vips: Arc::clone(&self.all_vips),
            peers: [self.peers.as_slice(), &settings.peers].concat(),
            run_id,
            since,
            lasts: settings.straggler_watch,
        }
    }

    pub(super) fn to_purge(&self, global: &Global) -> purge::Request {
        purge::Request {
            vips: self.vips.clone(),
            interface: None,
            permanent: false,
            right: None,
            dry_run: global.dry_run,
        }
    }
}

pub(super) fn read_configuration(global: &Global) -> Result<Configuration, Error> {
    Ok(keepalived_conf::read(
        global.keepalived_conf(),
        &options(global),
    )?)
}

/// Warns of whatever makes it uncertain which VIPs keepalived has.
pub(super) fn warn_of_all(configuration: &Configuration) {
    let refused = configuration.refused().iter();
    for problem in refused.chain(configuration.warnings()) {
        warn!("{problem}");
    }
}

pub(super) fn options(global: &Global) -> keepalived::Options {
    keepalived::Options {
        config_id: global.config_id.clone(),
        assumed_id: None,
    }
}
