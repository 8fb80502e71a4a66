//! What keepalived.conf says: instances, their virtual IPs and peers, sync groups.
//!
//! [`read`] reads the files as keepalived 2.2.7 reads them, with comments, quotes, includes,
//! conditions, definitions and sequences, and a test compares it with the real one. Where a value
//! that matters can't be known, or where keepalived does what no author can have meant, the
//! instance that it concerns is refused, and only that one: [`Configuration::instance`] says why,
//! and what to do. `docs/keepalived-conf.md` has the list.
//!
//! The files are hostile input: reading them takes time and memory in proportion to their size
//! and to stated bounds, and never panics.

mod condition;
mod definitions;
mod files;
mod glob;
mod hook;
mod include;
mod instance;
mod interpret;
mod lexer;
mod lines;
mod sequence;
mod vip;
mod virtual_server;
mod vmac;

#[cfg(test)]
mod model_tests;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::address::Vip;
use crate::host::{Place, PlacedVip};

pub use files::{Files, Kind, Memory};
pub use hook::{Hook, Scripts};

/// What to assume that the files don't say.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The configuration id that `@id` lines are compared with: the argument of keepalived's
    /// `-i`.
    pub config_id: Option<String>,
    /// What keepalived takes without `-i`: the host name up to its first dot.
    pub assumed_id: Option<String>,
}

/// A `vrrp_instance`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// Its name, which keepalived gives to notify scripts.
    pub name: String,
    /// `interface`: where it sends its advertisements; below the VMAC, if it has one.
    pub interface: Option<String>,
    /// The interface of its own that `use_vmac` or `use_ipvlan` makes. A name that keepalived
    /// chooses itself may come out differently where other programs hold it.
    pub vmac: Option<String>,
    /// `virtual_router_id`.
    pub virtual_router_id: Option<u8>,
    /// `virtual_ipaddress`: the virtual IPs that are advertised.
    pub vips: Vec<VirtualAddress>,
    /// `virtual_ipaddress_excluded`, and the virtual IPs for which an advertisement has no room
    /// (at an MTU of 1500, which is what is assumed: 255 of IPv4, 89 of IPv6).
    pub excluded: Vec<VirtualAddress>,
    /// `unicast_peer`: the other routers.
    pub peers: Vec<IpAddr>,
    /// `notify` and its kin, those that keepalived does not ignore.
    #[serde(skip)]
    pub hooks: Vec<Hook>,
}

impl Instance {
    /// All addresses that move with the instance, advertised or excluded.
    pub fn addresses(&self) -> impl Iterator<Item = &VirtualAddress> {
        self.vips.iter().chain(&self.excluded)
    }

    /// Those of them that can be virtual IPs, and where keepalived puts each.
    pub fn placed_vips(&self) -> impl Iterator<Item = PlacedVip> + '_ {
        self.addresses().filter_map(|configured| {
            let vip = Vip::try_from(configured.address).ok()?;
            let place = match (&configured.dev, &self.vmac, &self.interface) {
                (Some(dev), Some(vmac), Some(above)) if dev == vmac => Place::Vmac {
                    name: vmac.clone(),
                    above: above.clone(),
                },
                (Some(dev), _, _) => Place::On(dev.clone()),
                (None, _, _) => Place::Anywhere,
            };
            Some(PlacedVip { vip, place })
        })
    }
}

/// A virtual IP as keepalived puts it on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VirtualAddress {
    /// The address.
    pub address: IpAddr,
    /// The length of its prefix.
    pub prefix_len: u8,
    /// The interface that it is put on.
    pub dev: Option<String>,
}

/// A `vrrp_sync_group`: instances that change state together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Its name, which keepalived gives to notify scripts.
    pub name: String,
    /// The names of its instances.
    pub instances: Vec<String>,
    /// `notify` and its kin, those that keepalived does not ignore.
    #[serde(skip)]
    pub hooks: Vec<Hook>,
}

/// A `vrrp_instance` or a `vrrp_sync_group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Which of the two.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
}

/// Something about the files, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// The block that it concerns; `None` for all or none of them.
    pub block: Option<Block>,
    /// What it is.
    pub message: String,
    /// keepalived does not start with it, or stops when it reloads.
    pub stops: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if let Some(Block { kind, name }) = &self.block {
            write!(f, ": {kind} {name}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Why the configuration doesn't tell what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read.
    #[error("can't read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An instance or a group can't be relied on.
    #[error("{problem}")]
    Refused {
        /// What is wrong with it.
        problem: Box<Problem>,
    },
    /// There is no such instance or group.
    #[error("{}", missing(block, known, cause.as_deref()))]
    Missing {
        /// What was asked for.
        block: Block,
        /// The names that there are.
        known: Vec<String>,
        /// What may explain it.
        cause: Option<Box<Problem>>,
    },
}

fn missing(block: &Block, known: &[String], cause: Option<&Problem>) -> String {
    let mut text = format!("there is no {} {}", block.kind, block.name);
    if !known.is_empty() {
        text += &format!(" (there is {})", known.join(", "));
    }
    if let Some(cause) = cause {
        text += &format!("; {cause}");
    }
    text
}

/// What the files say.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    instances: Vec<Instance>,
    groups: Vec<Group>,
    /// Instances and groups that can't be relied on, and why.
    refused: Vec<Problem>,
    real_servers: Vec<IpAddr>,
    scripts: Scripts,
    files: Vec<PathBuf>,
    warnings: Vec<Problem>,
    /// The files have lines for configuration ids, and none of them is ours.
    foreign_ids: Option<Problem>,
}

const INSTANCE: &str = "vrrp_instance";
const GROUP: &str = "vrrp_sync_group";

impl Configuration {
    /// The instance of this name.
    ///
    /// # Errors
    /// When there is none, or what the files say about it can't be relied on.
    pub fn instance(&self, name: &str) -> Result<&Instance, Error> {
        let found = self.instances.iter().find(|instance| instance.name == name);
        found.ok_or_else(|| {
            let known = self.instances.iter().map(|instance| &instance.name);
            self.absent(INSTANCE, name, known.cloned().collect())
        })
    }

    /// The sync group of this name. Its instances are asked for one by one.
    ///
    /// # Errors
    /// When there is none, or what the files say about it can't be relied on.
    pub fn group(&self, name: &str) -> Result<&Group, Error> {
        let found = self.groups.iter().find(|group| group.name == name);
        found.ok_or_else(|| {
            let known = self.groups.iter().map(|group| &group.name);
            self.absent(GROUP, name, known.cloned().collect())
        })
    }

    /// All instances that can be relied on, in the order of the files.
    #[must_use]
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// The virtual IPs of all of them, and where keepalived puts each.
    #[must_use]
    pub fn placed_vips(&self) -> Vec<PlacedVip> {
        let instances = self.instances.iter();
        instances.flat_map(Instance::placed_vips).collect()
    }

    /// All sync groups that can be relied on, in the order of the files.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The addresses of the real servers that LVS sends packets for the virtual IP itself to, by
    /// direct routing or through a tunnel (`lb_kind` or `lvs_method` `DR` or `TUN`), in the order
    /// of the files, once per virtual server. Each of them is to hold the virtual IP, too, where
    /// nobody can ask for it.
    pub fn real_servers(&self) -> impl Iterator<Item = IpAddr> {
        self.real_servers.iter().copied()
    }

    /// What `global_defs` says about scripts.
    #[must_use]
    pub fn scripts(&self) -> &Scripts {
        &self.scripts
    }

    /// The files that were read.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// What is odd about the files, and yet leaves no doubt about what keepalived makes of it.
    #[must_use]
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// What can't be relied on, and why: values that can't be known, which keepalived may know.
    #[must_use]
    pub fn refused(&self) -> &[Problem] {
        &self.refused
    }

    /// What is odd about an instance or a group of this name, though it can be relied on.
    pub fn warnings_about<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Problem> {
        let is_it = move |block: &Block| block.name == name;
        let all = self.warnings.iter();
        all.filter(move |problem| problem.block.as_ref().is_some_and(is_it))
    }

    fn absent(&self, kind: &'static str, name: &str, known: Vec<String>) -> Error {
        let block = Block {
            kind,
            name: name.to_owned(),
        };
        let mut refused = self.refused.iter();
        match refused.find(|problem| problem.block.as_ref() == Some(&block)) {
            Some(problem) => Error::Refused {
                problem: Box::new(problem.clone()),
            },
            None => Error::Missing {
                block,
                known,
                cause: self
                    .foreign_ids
                    .as_ref()
                    .or(self.warnings.first())
                    .map(|problem| Box::new(problem.clone())),
            },
        }
    }
}

/// Reads a configuration from `files`; a pure function of its arguments.
///
/// # Errors
/// When the file itself can't be read. What is wrong inside is told by
/// [`Configuration::instance`], [`Configuration::group`] and [`Configuration::warnings`].
pub fn read(files: &dyn Files, path: &Path, options: &Options) -> Result<Configuration, Error> {
    let unreadable = |source| Error::Unreadable {
        path: path.to_owned(),
        source,
    };
    let contents = files
        .read(path, lines::Lines::limit() + 1)
        .map_err(unreadable)?;
    let (config_id, id_source) = match (&options.config_id, &options.assumed_id) {
        (None, Some(assumed)) => (Some(assumed.as_str()), IdSource::Assumed),
        (given, _) => (given.as_deref(), IdSource::Given),
    };
    let lines = lines::Lines::new(files, config_id, path, contents);
    Ok(interpret::Interpreter::new(lines, id_source).run())
}

/// Where our configuration id is from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IdSource {
    Given,
    /// It stands for what keepalived may have been given otherwise.
    Assumed,
}
