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
mod yielded;

use std::io::{self, Write};
use std::time::Instant;

use log::{error, warn};

use self::output::{Done, print, write};
use crate::cli::{Cli, Command};
use crate::error::Error;
use crate::exit::{Exit, Plugin};
use crate::logging::{self, LogTo};
use crate::report::{FailureReport, plugin_line};
use crate::settings::Settings;

/// Carries out a command line, and tells what came of it. Returns the exit status.
pub async fn run(cli: &Cli, began: Instant) -> Exit {
    match attempt(cli, began).await {
        Ok(exit) => exit,
        Err(error) => {
            let Done { exit, stdout } = failure(cli, &error);
            write(stdout, exit).await.unwrap_or_else(|unwritten| {
                error!("{unwritten}");
                exit
            })
        }
    }
}

async fn attempt(cli: &Cli, began: Instant) -> Result<Exit, Error> {
    let Done { exit, stdout } = carry_out(cli, began).await?;
    write(stdout, exit).await
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

/// Tells why a command line could not be carried out, before there is a runtime. Returns the exit
/// status.
pub fn fail(cli: &Cli, error: &Error) -> Exit {
    let Done { exit, stdout } = failure(cli, error);
    print_now(&stdout);
    exit
}

/// Logs why a command line could not be carried out. What is left is to print: with `--json` a
/// report, and with `--nagios` a line, as a plugin does.
fn failure(cli: &Cli, error: &Error) -> Done {
    let text = advice::with_advice(cli.command.name(), error);
    if let Command::Check(args) = &cli.command
        && args.own.nagios
    {
        return unknown(&text);
    }
    error!("{text}");
    let report = FailureReport::new(cli.command.name(), &text);
    let json = cli.global.json.then(|| print(&cli.global, &report));
    Done {
        exit: error.exit(),
        stdout: json.and_then(Result::ok).unwrap_or_default(),
    }
}

/// Tells a monitor that it could not be found out, and why. A status that was lost on the way is
/// unknown, too.
#[must_use]
pub fn fail_as_plugin(why: &str) -> Exit {
    let Done { exit, stdout } = unknown(why);
    print_now(&stdout);
    exit
}

fn unknown(why: &str) -> Done {
    Done {
        exit: Plugin::Unknown.exit(),
        stdout: plugin_line(Plugin::Unknown, why, ""),
    }
}

fn print_now(text: &str) {
    if let Err(error) = io::stdout().write_all(text.as_bytes()) {
        error!("{}", Error::Stdout(error));
    }
}

/// Reads the settings. A typo in them must not turn the hooks off: those go on with what could be
/// read, and warn first. Who runs a command by hand can mend it, and is refused.
fn settings(cli: &Cli) -> Result<Settings, Error> {
    let global = &cli.global;
    let file = global.config.as_deref();
    let is_hook = matches!(
        cli.command,
        Command::Notify(_) | Command::Fifo(_) | Command::Listen(_)
    );
    let (settings, dropped) = match Settings::read(file) {
        Ok(settings) => (settings, Vec::new()),
        Err(error) if is_hook || global.lenient => Settings::read_leniently(file, &error),
        Err(error) => return Err(error.into()),
    };
    if global.log().is_none() && settings.log != LogTo::Auto {
        logging::direct(settings.log.clone());
    }
    for what in dropped {
        warn!("{what}");
    }
    Ok(settings)
}
