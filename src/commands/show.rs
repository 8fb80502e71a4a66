//! `show`: what keepalived.conf means.

use log::warn;

use super::output::print;
use super::target::read_configuration;
use crate::cli::{Global, Show};
use crate::error::Error;
use crate::exit::Exit;
use crate::report::ShowReport;

pub(super) fn show(args: &Show, global: &Global) -> Result<Exit, Error> {
    let configuration = read_configuration(global)?;
    let report = match &args.instance {
        Some(name) => ShowReport::instance(configuration.instance(name)?),
        None => {
            for problem in configuration.warnings() {
                warn!("{problem}");
            }
            ShowReport::all(&configuration)
        }
    };
    print(global, &report)?;
    Ok(Exit::Done)
}
