//! `show`: what keepalived.conf means.

use log::warn;

use super::output::{Done, print};
use super::target::read_configuration;
use crate::cli::{Global, Show};
use crate::error::Error;
use crate::exit::Exit;
use crate::report::ShowReport;

pub(super) fn show(args: &Show, global: &Global) -> Result<Done, Error> {
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
    let stdout = print(global, &report)?;
    let exit = Exit::Done;
    Ok(Done { exit, stdout })
}
