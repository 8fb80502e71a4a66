//! Makes what a package has besides the program and the files of this repository: completions for
//! shells, the manual, and the copyrights of everything that is linked into the program.
//!
//!     cargo run --package vipherald-generate -- TARGET FOLDER
#![expect(clippy::print_stderr, reason = "a build step tells of trouble there")]

mod manual;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId, TargetKind};
use clap::CommandFactory;
use clap_complete::{Shell, generate_to};
use vipherald::cli::Cli;

/// What is in the program and no crate of cargo's.
const RUNTIME: &str = "\
The Rust standard library: MIT OR Apache-2.0, Copyright (c) The Rust Project Contributors; see
https://github.com/rust-lang/rust/blob/master/COPYRIGHT for the parts that others hold.

The GNU C Library: LGPL-2.1-or-later, Copyright (c) Free Software Foundation, Inc. and others; see
https://www.gnu.org/licenses/old-licenses/lgpl-2.1 or, on Debian,
/usr/share/common-licenses/LGPL-2.1. It is linked statically: `make build` from this program's
source links it anew, with any other version.
";

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [target, folder] = arguments.as_slice() else {
        eprintln!("usage: vipherald-generate TARGET FOLDER");
        return ExitCode::from(2);
    };
    match generate(target, Path::new(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vipherald-generate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn generate(target: &str, folder: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut Cli::command(), "vipherald", folder)?;
    }
    for (name, page) in pages()? {
        fs::write(folder.join(name), page)?;
    }
    fs::write(folder.join("copyright"), copyright(target)?)?;
    Ok(())
}

/// The manual's pages.
fn pages() -> Result<[(&'static str, String); 2], Box<dyn Error>> {
    let commands = include_str!("../../man/vipherald.8");
    let settings = include_str!("../../man/vipherald.toml.5");
    let example = include_str!("../../../examples/vipherald.toml");
    Ok([
        (
            "vipherald.8",
            manual::of_commands(commands, Cli::command())?,
        ),
        ("vipherald.toml.5", manual::of_settings(settings, example)?),
    ])
}

/// The licences: the program's own, and that of each crate linked into it. All of them may be had
/// under MIT, which asks for its notice to be kept.
fn copyright(target: &str) -> Result<String, Box<dyn Error>> {
    let metadata = MetadataCommand::new()
        .other_options(["--locked", "--filter-platform", target].map(str::to_owned))
        .exec()?;
    let mut crates_by_notice: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut own = String::new();
    for package in linked(&metadata)? {
        let licence = package.license.as_deref().unwrap_or_default();
        let is_mit = licence
            .split([' ', '/', '(', ')'])
            .any(|word| word == "MIT");
        if !is_mit {
            return Err(format!("{} can't be had under MIT, but {licence:?}", package.name).into());
        }
        let notice = fs::read_to_string(notice_of(package)?)?.replace('\r', "");
        if package.source.is_none() {
            own = notice;
            continue;
        }
        let name = format!("{} {}", package.name, package.version);
        let notice = notice.trim().to_owned();
        crates_by_notice.entry(notice).or_default().insert(name);
    }

    let mut text = format!("vipherald: MIT OR Apache-2.0\n\n{}\n\n", own.trim());
    writeln!(
        text,
        "The program also contains\n\n{RUNTIME}\nand these crates:"
    )?;
    for (notice, crates) in crates_by_notice {
        let crates = crates.into_iter().collect::<Vec<_>>().join(", ");
        writeln!(text, "\n{}\n\n{crates}: MIT\n\n{notice}", "-".repeat(72))?;
    }
    Ok(text)
}

/// The program's package, and all whose code ends up in it: no macros, which only run at build
/// time, nor what only they need.
fn linked(metadata: &Metadata) -> Result<Vec<&Package>, Box<dyn Error>> {
    let resolve = metadata.resolve.as_ref().ok_or("cargo resolved nothing")?;
    let nodes: HashMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let program = metadata
        .packages
        .iter()
        .find(|package| package.name == "vipherald");
    let mut to_visit: Vec<&PackageId> = vec![&program.ok_or("there is no vipherald")?.id];
    let mut linked = BTreeMap::new();
    while let Some(id) = to_visit.pop() {
        let package = &metadata[id];
        let is_macro = |kind: &TargetKind| *kind == TargetKind::ProcMacro;
        if package
            .targets
            .iter()
            .any(|target| target.kind.iter().any(is_macro))
            || linked.insert(id, package).is_some()
        {
            continue;
        }
        let normal = nodes[id].deps.iter().filter(|dependency| {
            let mut kinds = dependency.dep_kinds.iter();
            kinds.any(|kind| kind.kind == DependencyKind::Normal)
        });
        to_visit.extend(normal.map(|dependency| &dependency.pkg));
    }
    Ok(linked.into_values().collect())
}

/// Where a package has the MIT licence with its copyright notice.
fn notice_of(package: &Package) -> Result<PathBuf, String> {
    let folder = package
        .manifest_path
        .parent()
        .ok_or("a manifest without a folder")?;
    let mut files = ["LICENSE-MIT", "LICENSE"]
        .map(|name| folder.join(name).into_std_path_buf())
        .into_iter();
    files
        .find(|path| path.exists())
        .ok_or_else(|| format!("{} has neither LICENSE-MIT nor LICENSE", package.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_tells_of_every_command_option_and_setting() {
        pages().unwrap();
    }
}
