//! `show`: show what keepalived.conf means, and whether its events reach vipherald.

use std::fs;
use std::path::{Path, PathBuf};

use vipherald_core::keepalived::{Block, Configuration, Instance, Problem};

use super::output::Done;
use super::target::read_configuration;
use crate::cli::{Global, Show};
use crate::error::Error;
use crate::loaded::{Loaded, changed_at, loaded};
use crate::report::ShowReport;
use crate::wiring::Wiring;

pub(super) fn show(args: &Show, global: &Global) -> Result<Done, Error> {
    let configuration = read_configuration(global)?;
    let mut warnings = outdated(&configuration, global);
    warnings.extend_from_slice(configuration.warnings());
    warnings.extend(duplicates(&configuration, global.keepalived_conf()));
    let wiring = Wiring::new(&configuration);
    warnings.extend(wiring.problems());
    let report = match &args.instance {
        Some(name) => ShowReport::instance(configuration.instance(name)?, &wiring, warnings),
        None => ShowReport::all(&configuration, &wiring, warnings),
    };
    Done::print(global, &report)
}

/// The instances that keepalived takes for the same virtual router, and so does not start.
fn duplicates(configuration: &Configuration, file: &Path) -> Vec<Problem> {
    let is_ipv4 = |one: &Instance| one.addresses().next().map(|vip| vip.address.is_ipv4());
    let key = |one: &Instance| (one.interface.clone(), one.virtual_router_id, is_ipv4(one));
    let clash = |one: &Instance, other: &Instance| {
        let share_peers = one.peers.iter().any(|peer| other.peers.contains(peer));
        let multicast = one.peers.is_empty() && other.peers.is_empty();
        one.name != other.name && key(one) == key(other) && (multicast || share_peers)
    };
    let problem = |one: &Instance| {
        let id = one.virtual_router_id?;
        let interface = one.interface.as_ref()?;
        let mut others = configuration.instances().iter();
        let other = &others.find(|other| clash(one, other))?.name;
        Some(Problem {
            file: file.to_owned(),
            line: 0,
            block: Some(Block {
                kind: "vrrp_instance",
                name: one.name.clone(),
            }),
            message: format!(
                "virtual_router_id {id} on {interface} is also that of {other}: keepalived does \
                 not start"
            ),
            stops: true,
        })
    };
    configuration
        .instances()
        .iter()
        .filter_map(problem)
        .collect()
}

/// The files that a running keepalived has not read yet, as far as that can be told.
fn outdated(configuration: &Configuration, global: &Global) -> Vec<Problem> {
    let path = global.keepalived_conf();
    let problem = |file: &Path, message: String| Problem {
        file: file.to_owned(),
        line: 0,
        block: None,
        message,
        stops: false,
    };
    let running = loaded();
    let main = fs::canonicalize(path).ok();
    let Some(loaded) = running.iter().find(|one| Some(&one.main) == main.as_ref()) else {
        let other = |other: &Loaded| {
            let runs_with = other.main.display();
            let message =
                format!("keepalived runs with {runs_with}: name that by --keepalived-conf");
            problem(path, message)
        };
        return running.iter().map(other).collect();
    };
    let is_newer = |file: &&PathBuf| changed_at(file).is_some_and(|changed| changed > loaded.at);
    let message = "was changed after keepalived read it: reload keepalived; until then it uses what \
                   it read, and vipherald what is there now";
    let files = configuration.files().iter().filter(is_newer);
    files
        .map(|file| problem(file, message.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vipherald_core::keepalived::{self, Memory, Options};

    /// What keepalived 2.2.7 makes of a second instance.
    #[test]
    fn keepalived_does_not_start_with_the_same_virtual_router_twice() {
        let instance = |name: &str, vip: &str, more: &str| {
            format!(
                "vrrp_instance {name} {{\nvirtual_router_id 51\ninterface eth0\n\
                 virtual_ipaddress {{\n{vip}\n}}\n{more}\n}}\n"
            )
        };
        let peers = |last: u8| format!("unicast_peer {{\n10.0.0.8\n10.0.0.{last}\n}}");
        let other_peers = "unicast_peer {\n10.0.0.9\n}".to_owned();
        for (first, vip, second, stops) in [
            (String::new(), "10.0.0.2", String::new(), true),
            (String::new(), "10.0.0.2", "use_vmac".to_owned(), true),
            (String::new(), "fd00::2", String::new(), false),
            (String::new(), "10.0.0.2", peers(9), false),
            (peers(7), "10.0.0.2", other_peers, false),
            (peers(7), "10.0.0.2", peers(9), true),
        ] {
            let text = instance("A", "10.0.0.1", &first) + &instance("B", vip, &second);
            let (file, files) = (Path::new("/k"), Memory::default().with("/k", &text));
            let configuration = keepalived::read(&files, file, &Options::default()).unwrap();
            let problems = duplicates(&configuration, file);
            assert_eq!(problems.len(), if stops { 2 } else { 0 }, "{text}");
            assert!(problems.iter().all(|problem| problem.stops));
        }
    }
}
