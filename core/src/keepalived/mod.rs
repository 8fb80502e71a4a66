//! keepalived.conf: instances, their virtual IPs and peers, sync groups.
//!
//! [`read`] follows keepalived 2.2.7, with comments, quotes, includes, conditions, definitions and
//! sequences; a test compares it with the real keepalived. It refuses an instance, and only that
//! one, if it can't determine the virtual IPs, or if keepalived does what no author can have meant.
//! [`Configuration::instance`] says why. `docs/keepalived-conf.md` has the list.
//!
//! The files are hostile input. Reading them takes time and memory in proportion to their size,
//! within stated limits, and never panics.

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
mod trouble;
mod vip;
mod virtual_server;
mod vmac;

#[cfg(test)]
mod model_tests;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::address::Vip;
use crate::host::{Place, PlacedVip};

pub use files::{Files, Kind, Memory};
pub use hook::{Hook, Scripts};

/// What the files do not contain.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The configuration id for `@id` lines: the argument of keepalived's `-i`.
    pub config_id: Option<String>,
    /// keepalived's default for it: the host name up to its first dot.
    pub assumed_id: Option<String>,
}

/// A `vrrp_instance`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// The name, which keepalived passes to notify scripts.
    pub name: String,
    /// `interface`, which sends the advertisements. It is below the VMAC, if there is one.
    pub interface: Option<String>,
    /// The interface that `use_vmac` or `use_ipvlan` creates. If keepalived chooses the name, and
    /// another program has taken it, keepalived uses another one.
    pub vmac: Option<String>,
    /// `virtual_router_id`.
    pub virtual_router_id: Option<u8>,
    /// `virtual_ipaddress`: the advertised virtual IPs.
    pub vips: Vec<VirtualAddress>,
    /// `virtual_ipaddress_excluded`, and the virtual IPs that do not fit into an advertisement
    /// (beyond 255 of IPv4 or 89 of IPv6: this assumes an MTU of 1500).
    pub excluded: Vec<VirtualAddress>,
    /// `unicast_peer`: the other routers.
    pub peers: Vec<IpAddr>,
    /// `notify` and its variants, except those that keepalived ignores.
    #[serde(skip)]
    pub hooks: Vec<Hook>,
}

impl Instance {
    /// All its addresses, advertised or excluded.
    pub fn addresses(&self) -> impl Iterator<Item = &VirtualAddress> {
        self.vips.iter().chain(&self.excluded)
    }

    /// The addresses that can be virtual IPs, with the interface where keepalived puts each.
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
    /// The prefix length in bits.
    pub prefix_len: u8,
    /// The interface.
    pub dev: Option<String>,
}

/// A `vrrp_sync_group`: instances that change state together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// The name, which keepalived passes to notify scripts.
    pub name: String,
    /// The names of its instances.
    pub instances: Vec<String>,
    /// `notify` and its variants, except those that keepalived ignores.
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

/// A problem in the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; 0 for the whole file.
    pub line: usize,
    /// The block; `None` for problems outside blocks.
    pub block: Option<Block>,
    /// The problem.
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

/// Why there is no configuration, instance or group.
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
    /// The instance or group is refused.
    #[error("{problem}")]
    Refused {
        /// Why.
        problem: Box<Problem>,
    },
    /// The instance or group does not exist.
    #[error("{}", missing(block, known, cause.as_deref()))]
    Missing {
        /// The instance or group.
        block: Block,
        /// The existing names.
        known: Vec<String>,
        /// A possible explanation.
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

/// The contents of the files.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    instances: Vec<Instance>,
    groups: Vec<Group>,
    /// One problem per refused instance or group.
    refused: Vec<Problem>,
    real_servers: Vec<IpAddr>,
    scripts: Scripts,
    files: Vec<PathBuf>,
    depends_on: BTreeSet<PathBuf>,
    warnings: Vec<Problem>,
    /// The files have `@id` lines, but none for our assumed id.
    foreign_ids: Option<Problem>,
    is_cut_short: bool,
}

const INSTANCE: &str = "vrrp_instance";
const GROUP: &str = "vrrp_sync_group";

impl Configuration {
    /// The instance of this name.
    ///
    /// # Errors
    /// If it does not exist or is refused.
    pub fn instance(&self, name: &str) -> Result<&Instance, Error> {
        let found = self.instances.iter().find(|instance| instance.name == name);
        found.ok_or_else(|| {
            let known = self.instances.iter().map(|instance| &instance.name);
            self.absent(INSTANCE, name, known.cloned().collect())
        })
    }

    /// The sync group of this name. Its instances may be refused nevertheless.
    ///
    /// # Errors
    /// If it does not exist or is refused.
    pub fn group(&self, name: &str) -> Result<&Group, Error> {
        let found = self.groups.iter().find(|group| group.name == name);
        found.ok_or_else(|| {
            let known = self.groups.iter().map(|group| &group.name);
            self.absent(GROUP, name, known.cloned().collect())
        })
    }

    /// All instances that are not refused, in the order of the files.
    #[must_use]
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// The virtual IPs of these instances, with the interface where keepalived puts each.
    #[must_use]
    pub fn placed_vips(&self) -> Vec<PlacedVip> {
        let instances = self.instances.iter();
        instances.flat_map(Instance::placed_vips).collect()
    }

    /// All sync groups that are not refused, in the order of the files.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The real servers to which LVS forwards packets unchanged (`lb_kind` or `lvs_method` `DR` or
    /// `TUN`), once per virtual server, in the order of the files. Each should have the virtual
    /// IP on an interface without ARP and ND.
    pub fn real_servers(&self) -> impl Iterator<Item = IpAddr> {
        self.real_servers.iter().copied()
    }

    /// The script parameters of `global_defs`.
    #[must_use]
    pub fn scripts(&self) -> &Scripts {
        &self.scripts
    }

    /// All files, includes too.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// What decides which files are included: directories in which a new one may match, and names
    /// without wildcards. Not all of them exist.
    #[must_use]
    pub fn depends_on(&self) -> &BTreeSet<PathBuf> {
        &self.depends_on
    }

    /// Problems for which nothing is refused.
    #[must_use]
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// The refused instances and groups, each with the reason.
    #[must_use]
    pub fn refused(&self) -> &[Problem] {
        &self.refused
    }

    /// Whether the reader stopped before the end, because something is beyond its limits. The first
    /// warning says what.
    #[must_use]
    pub fn is_cut_short(&self) -> bool {
        self.is_cut_short
    }

    /// The warnings about an instance or group of this name.
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

/// Reads a configuration from `files`.
///
/// # Errors
/// If the file at `path` can't be read. [`Configuration::instance`], [`Configuration::group`] and
/// [`Configuration::warnings`] return the problems inside.
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

/// The source of our configuration id.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IdSource {
    Given,
    /// keepalived's default, which its `-i` may override.
    Assumed,
}
