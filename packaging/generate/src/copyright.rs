//! The licences and copyright notices of what is in the program.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use cargo_metadata::Package;

use crate::linked::Linked;

/// What the program contains besides crates.
const RUNTIME: &str = "\
The Rust standard library: MIT OR Apache-2.0, Copyright (c) The Rust Project Contributors; see
https://github.com/rust-lang/rust/blob/master/COPYRIGHT for the parts that others hold.

The GNU C Library: LGPL-2.1-or-later, Copyright (c) Free Software Foundation, Inc. and others; see
https://www.gnu.org/licenses/old-licenses/lgpl-2.1 or, on Debian,
/usr/share/common-licenses/LGPL-2.1. It is linked statically: `make build` from this program's
source links it anew, with any other version.
";

/// The licences of the program and of each crate linked into it. All are available under MIT, which
/// requires its notice to be kept.
pub(crate) fn copyright(linked: &BTreeMap<String, Linked>) -> Result<String, Box<dyn Error>> {
    let mut crates_by_notice: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut own = String::new();
    for package in linked.values().map(|one| &one.package) {
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

/// The file with a package's MIT licence and copyright notice.
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
