//! The commands: each reads like its sentence in the manual.

mod advice;
mod announce;
mod check;
mod fifo;
mod keygen;
mod listen;
mod notify;
mod order;
mod output;
mod purge;
mod release;
mod show;
mod target;

use std::time::Instant;

use log::error;

use self::output::{print, write};
use crate::cli::{Cli, Command};
use crate::error::Error;
use crate::exit::{Exit, Plugin};
use crate::logging::{self, LogTo};
use crate::report::{FailureReport, plugin_line};
use crate::settings::Settings;

/// Carries out a command line, and tells what came of it.
///
/// # Errors
/// If it could not be carried out, which [`fail`] tells.
pub async fn run(cli: &Cli, began: Instant) -> Result<Exit, Error> {
    let global = &cli.global;
    let settings = Settings::read(global.config.as_deref())?;
    if global.log().is_none() && settings.log != LogTo::Auto {
        logging::direct(settings.log.clone());
    }
    match &cli.command {
        Command::Announce(args) => announce::announce(&args.own, &settings, global, began).await,
        Command::Purge(args) => purge::purge(&args.own, global).await,
        Command::Check(args) => check::check(&args.own, &settings, global, began).await,
        Command::Notify(args) => notify::notify(&args.own, &settings, global, began).await,
        Command::Fifo(args) => fifo::fifo(&args.own, settings, global).await,
        Command::Show(args) => show::show(&args.own, global),
        Command::Listen(args) => listen::listen(&args.own, settings, global).await,
        Command::Order(args) => order::order(&args.own, &settings, global).await,
        Command::Release(args) => release::release(&args.own, &settings, global).await,
        Command::Keygen(args) => keygen::keygen(&args.own),
    }
}

/// Tells why a command line could not be carried out: in the log, with `--json` on stdout, too, and
/// with `--nagios` as a plugin does.
pub fn fail(cli: &Cli, error: &Error) -> Exit {
    let text = advice::with_advice(cli.command.name(), error);
    if let Command::Check(args) = &cli.command
        && args.own.nagios
    {
        return fail_as_plugin(&text);
    }
    if cli.global.json
        && let Err(unwritten) = print(&cli.global, &FailureReport::new(cli.command.name(), &text))
    {
        error!("{unwritten}");
    }
    error!("{text}");
    error.exit()
}

/// Tells a monitor that it could not be found out, and why. A status that was lost on the way is
/// unknown, too.
#[must_use]
pub fn fail_as_plugin(why: &str) -> Exit {
    let _ = write(&plugin_line(Plugin::Unknown, why, ""));
    Plugin::Unknown.exit()
}
