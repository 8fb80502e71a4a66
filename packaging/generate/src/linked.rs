//! What is linked into the program.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::fs;
use std::process::Command;

use cargo_metadata::{Metadata, MetadataCommand, Package};
use toml::Table;

/// The program, or a crate whose code is in it.
pub(crate) struct Linked {
    pub(crate) package: Package,
    /// Of the crate's archive, in hexadecimal. The program has none.
    pub(crate) sha256: Option<String>,
    /// Which of the others it uses itself, by their specifications.
    pub(crate) uses: BTreeSet<String>,
}

/// Everything that is linked into the program for a target, by cargo's specifications: `log@0.4.35`.
/// `cargo tree` lists these crates; `cargo metadata`, which has the rest, also names crates that only
/// tests or an unused feature would need.
pub(crate) fn linked(target: &str) -> Result<BTreeMap<String, Linked>, Box<dyn Error>> {
    let metadata = metadata(target)?;
    let mut sha256s = sha256s(&metadata)?;
    let packages = metadata.packages.into_iter();
    let mut packages: HashMap<_, _> = packages
        .map(|package| (format!("{}@{}", package.name, package.version), package))
        .collect();

    let mut linked: BTreeMap<String, Linked> = BTreeMap::new();
    let mut path: Vec<String> = Vec::new();
    for line in tree(target)?.lines() {
        let mut words = line.split_whitespace();
        let (Some(depth), Some(name), Some(version)) = (words.next(), words.next(), words.next())
        else {
            return Err(format!("cargo tree says {line:?}").into());
        };
        let specification = format!("{name}@{}", version.trim_start_matches('v'));
        path.truncate(depth.parse()?);
        if let Some(user) = path.last().and_then(|user| linked.get_mut(user)) {
            user.uses.insert(specification.clone());
        }
        if let Some(package) = packages.remove(&specification) {
            let one = Linked {
                package,
                sha256: sha256s.remove(&specification),
                uses: BTreeSet::new(),
            };
            linked.insert(specification.clone(), one);
        }
        path.push(specification);
    }
    Ok(linked)
}

fn metadata(target: &str) -> Result<Metadata, cargo_metadata::Error> {
    let options = ["--locked", "--filter-platform", target];
    MetadataCommand::new()
        .other_options(options.map(str::to_owned))
        .exec()
}

/// A line for each crate below the one that uses it, such as `2 log v0.4.35`, where 2 is the depth.
/// What a crate uses follows its first occurrence only. Macros only run at build time.
fn tree(target: &str) -> Result<String, Box<dyn Error>> {
    let output = Command::new("cargo")
        .args(["tree", "--locked", "--package", "vipherald"])
        .args(["--edges", "normal,no-proc-macro", "--target", target])
        .args(["--prefix", "depth", "--format", " {p}"])
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The checksums in Cargo.lock, by the specifications of their crates.
fn sha256s(metadata: &Metadata) -> Result<HashMap<String, String>, Box<dyn Error>> {
    let lock: Table = fs::read_to_string(metadata.workspace_root.join("Cargo.lock"))?.parse()?;
    let packages = lock["package"].as_array().ok_or("Cargo.lock is empty")?;
    Ok(packages
        .iter()
        .filter_map(|package| {
            let [name, version, checksum] =
                ["name", "version", "checksum"].map(|key| package.get(key)?.as_str());
            Some((format!("{}@{}", name?, version?), checksum?.to_owned()))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those that deny.toml names.
    const TARGETS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

    #[test]
    fn what_only_macros_build_scripts_or_tests_use_is_not_linked() {
        for target in TARGETS {
            let linked = linked(target).unwrap();
            let names: BTreeSet<_> = linked.values().map(|one| &**one.package.name).collect();
            for name in ["vipherald", "rtnetlink", "netlink-packet-route", "libc"] {
                assert!(names.contains(name), "{name}");
            }
            // The last two belong to features that only proptest enables (getrandom's), or nobody
            // (toml's).
            for name in ["serde_derive", "syn", "autocfg", "rand_core", "indexmap"] {
                assert!(!names.contains(name), "{name}");
            }
        }
    }

    #[test]
    fn every_crate_has_its_checksum_and_is_used_by_another() {
        let linked = linked(TARGETS[0]).unwrap();
        let used: BTreeSet<_> = linked.values().flat_map(|one| &one.uses).collect();
        for (specification, one) in &linked {
            let is_program = one.package.name == "vipherald";
            let is_ours = is_program || one.package.name == "vipherald-core";
            assert_eq!(one.sha256.is_none(), is_ours, "{specification}");
            assert_eq!(!used.contains(specification), is_program, "{specification}");
        }
        assert_eq!(used.len() + 1, linked.len());
        assert!(linked.values().any(|one| {
            one.uses
                .iter()
                .any(|name| name.starts_with("netlink-proto@"))
        }));
    }

    /// A crate that names no version may still need one.
    #[test]
    fn no_crate_names_a_newer_rust_than_the_program_does() {
        for target in TARGETS {
            let metadata = metadata(target).unwrap();
            let mut packages = metadata.packages.iter();
            let program = packages.find(|package| package.name == "vipherald");
            let own = &program.unwrap().rust_version;
            for package in &metadata.packages {
                assert!(
                    package.rust_version <= *own,
                    "{}: {:?}",
                    package.id,
                    package.rust_version
                );
            }
        }
    }
}
