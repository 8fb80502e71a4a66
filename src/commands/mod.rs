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

use log::warn;

use self::output::{Done, print, write};
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
    let nagios = matches!(&cli.command, Command::Check(args) if args.own.nagios);
    match done {
        Ok(Done { exit, stdout }) => write(stdout, exit).await,
        Err(error) if nagios => {
            let line = plugin_line(Plugin::Unknown, &error.to_string(), "");
            write(line, Plugin::Unknown.exit()).await
        }
        Err(error) if cli.global.json => {
            let report = print(&cli.global, &FailureReport::new(name, &error))?;
            match write(report, error.exit()).await? {
                ended @ (Exit::Terminated | Exit::Interrupted) => Ok(ended),
                _ => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

async fn carry_out(cli: &Cli, began: Instant) -> Result<Done, Error> {
    let global = &cli.global;
    let settings = settings(cli)?;
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

/// Reads the settings. A typo in them must not turn the hooks off: those go on with what could be
/// read, and warn first. Who runs a command by hand can mend it, and is refused.
fn settings(cli: &Cli) -> Result<Settings, Error> {
    let file = cli.global.config.as_deref();
    let is_hook = matches!(
        cli.command,
        Command::Notify(_) | Command::Fifo(_) | Command::Listen(_)
    );
    match Settings::read(file) {
        Err(error) if is_hook || cli.global.lenient => {
            let (settings, dropped) = Settings::read_leniently(file, &error);
            for what in dropped {
                warn!("{what}");
            }
            Ok(settings)
        }
        read => Ok(read?),
    }
}
