//! The commands: each reads like its sentence in the manual.

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

use self::output::{print, write};
use crate::cli::{Cli, Command};
use crate::error::Error;
use crate::exit::{Exit, Plugin};
use crate::report::{FailureReport, plugin_line};
use crate::settings::Settings;

/// Carries out a command line, and tells what came of it.
///
/// # Errors
/// If it could not be carried out; with `--json` that has been told on stdout, too.
pub async fn run(cli: &Cli, began: Instant) -> Result<Exit, Error> {
    let name = match &cli.command {
        Command::Announce(_) => "announce",
        Command::Purge(_) => "purge",
        Command::Check(_) => "check",
        Command::Notify(_) => "notify",
        Command::Fifo(_) => "fifo",
        Command::Show(_) => "show",
        Command::Listen(_) => "listen",
        Command::Order(_) => "order",
        Command::Release(_) => "release",
        Command::Keygen(_) => "keygen",
    };
    let done = carry_out(cli, began).await;
    if let (Command::Check(args), Err(error)) = (&cli.command, &done)
        && args.own.nagios
    {
        write(&plugin_line(Plugin::Unknown, &error.to_string(), ""))?;
        return Ok(Plugin::Unknown.exit());
    }
    if let (true, Err(error)) = (cli.global.json, &done) {
        print(&cli.global, &FailureReport::new(name, error))?;
    }
    done
}

async fn carry_out(cli: &Cli, began: Instant) -> Result<Exit, Error> {
    let global = &cli.global;
    let settings = Settings::read(global.config.as_deref())?;
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
