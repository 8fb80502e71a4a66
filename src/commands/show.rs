//! `show`: what keepalived.conf means, and whether keepalived's events reach vipherald.

use std::fs;

use vipherald_core::keepalived::{Configuration, Problem};

use super::output::{Done, print};
use super::target::read_configuration;
use crate::cli::{Global, Show};
use crate::error::Error;
use crate::loaded::{changed_at, loaded};
use crate::report::ShowReport;
use crate::wiring;

pub(super) fn show(args: &Show, global: &Global) -> Result<Done, Error> {
    let configuration = read_configuration(global)?;
    let mut warnings = outdated(&configuration, global);
    warnings.extend_from_slice(configuration.warnings());
    warnings.extend(wiring::problems(&configuration));
    let report = match &args.instance {
        Some(name) => ShowReport::instance(&configuration, configuration.instance(name)?, warnings),
        None => ShowReport::all(&configuration, warnings),
    };
    let stdout = print(global, &report)?;
    let exit = report.exit();
    Ok(Done { exit, stdout })
}

/// What a running keepalived has not read yet, where that can be told.
fn outdated(configuration: &Configuration, global: &Global) -> Vec<Problem> {
    let path = global.keepalived_conf();
    let problem = |file: &std::path::Path, message: String| Problem {
        file: file.to_owned(),
        line: 0,
        block: None,
        message,
        stops: false,
    };
    let running = loaded();
    let main = fs::canonicalize(path).ok();
    let Some(loaded) = running
        .iter()
        .find(|loaded| Some(&loaded.main) == main.as_ref())
    else {
        let others = running.iter().map(|other| {
            let message = format!(
                "keepalived runs with {}: give that by --keepalived-conf",
                other.main.display()
            );
            problem(path, message)
        });
        return others.collect();
    };
    let files = configuration.files().iter();
    let changed = files.filter(|file| {
        changed_at(file).is_ok_and(|changed| changed.is_some_and(|changed| changed > loaded.at))
    });
    changed
        .map(|file| {
            let message = "was changed after keepalived had read it: reload keepalived; until \
                           then it goes on with what it read, and vipherald with what is there now";
            problem(file, message.to_owned())
        })
        .collect()
}
