//! The commands: each reads like its sentence in the manual.

mod advice;
mod announce;
mod check;
mod copy;
mod fifo;
mod history;
mod keygen;
mod listen;
mod notify;
mod order;
mod output;
mod purge;
mod release;
mod resident;
mod show;
mod target;
mod then;
mod watch;
mod yielded;

use std::io::{self, Write};
use std::rc::Rc;
use std::time::Instant;

use log::{error, warn};

use self::output::Done;
use crate::cli::{Cli, Command};
use crate::error::Error;
use crate::exit::{Exit, Plugin};
use crate::history::keeper::Keeper;
use crate::logging::{self, LogTo};
use crate::report::{FailureReport, plugin_line};
use crate::settings::Settings;
use crate::signals::termination;
use crate::stragglers::{Departure, Departures};

/// Runs a command line, and prints what it reports. Returns the exit status.
pub async fn run(cli: &Cli, began: Instant) -> Exit {
    match command(cli, began).await {
        Ok(exit) => exit,
        Err(error) => {
            let failed = failure(cli, &error);
            let exit = failed.exit;
            failed.write().await.unwrap_or_else(|error| {
                error!("{error}");
                exit
            })
        }
    }
}

/// Runs a command, and keeps what it did in the history: after its last frame, and while stdout may have to
/// wait for its reader.
async fn command(cli: &Cli, began: Instant) -> Result<Exit, Error> {
    let settings = Rc::new(settings(cli)?);
    let history = Rc::new(Keeper::new(Rc::clone(&settings)));
    let done = execute(cli, &settings, &history, began).await;
    let mut departure = None;
    let written = match done {
        Ok(mut done) => {
            history.keep(std::mem::take(&mut done.receipts));
            departure = done.departure.take();
            done.write().await
        }
        Err(error) => Err(error),
    };
    let is_ended = matches!(written, Ok(Exit::Terminated | Exit::Interrupted));
    history.finish(is_ended).await;
    match (written, departure) {
        (Ok(Exit::Done), Some(departure)) => Ok(look_for_stragglers(departure, &settings).await),
        (written, _) => written,
    }
}

/// The last thing that a hook does: nobody waits for it, and a signal ends it.
async fn look_for_stragglers(departure: Departure, settings: &Settings) -> Exit {
    let departures = Departures::default();
    if !departures.add(departure) {
        return Exit::Done;
    }
    tokio::select! {
        biased;
        ended = termination() => ended,
        () = departures.watch(&settings.orders) => Exit::Done,
    }
}

async fn execute(
    cli: &Cli,
    settings: &Rc<Settings>,
    history: &Rc<Keeper>,
    began: Instant,
) -> Result<Done, Error> {
    let global = &cli.global;
    match &cli.command {
        Command::Announce(args) => announce::announce(&args.own, settings, global, began).await,
        Command::Purge(args) => purge::purge(&args.own, global).await,
        Command::Check(args) => {
            let done = check::check(&args.own, settings, global, began);
            if args.own.nagios {
                unless_ended(done).await
            } else {
                done.await
            }
        }
        Command::Notify(args) => notify::notify(&args.own, settings, global, began).await,
        Command::Fifo(args) => {
            fifo::fifo(&args.own, Rc::clone(settings), global, Rc::clone(history)).await
        }
        Command::Watch(args) => {
            watch::watch(&args.own, Rc::clone(settings), global, Rc::clone(history)).await
        }
        Command::Show(args) => show::show(&args.own, global),
        Command::Listen(args) => {
            listen::listen(&args.own, settings, global, Rc::clone(history)).await
        }
        Command::Order(args) => order::order(&args.own, settings, global, began).await,
        Command::Release(args) => release::release(&args.own, settings, global).await,
        Command::History(args) => history::history(&args.own, settings, global),
        Command::Keygen(args) => keygen::keygen(&args.own),
        Command::Copy(args) => copy::copy(&args.own),
    }
}

/// Reports why a command line could not be run at all, without a runtime. Returns the exit status.
pub fn fail(cli: &Cli, error: &Error) -> Exit {
    print_now(&failure(cli, error))
}

/// Reports to a monitor that the check could not be run, and why. (If it never sees the status, that
/// is UNKNOWN, too.) Returns the exit status.
#[must_use]
pub fn fail_as_plugin(why: &str) -> Exit {
    print_now(&unknown(why))
}

/// Logs why a command failed. What is left to print is a report with `--json`, and a plugin's line
/// with `--nagios`.
fn failure(cli: &Cli, error: &Error) -> Done {
    let command = cli.command.name();
    let text = advice::with_advice(command, error);
    if matches!(&cli.command, Command::Check(args) if args.own.nagios) {
        return unknown(&text);
    }
    error!("{text}");
    let exit = error.into();
    let report = FailureReport::new(command, &text, exit);
    let json = cli.global.json.then(|| Done::print(&cli.global, &report));
    json.and_then(Result::ok).unwrap_or(Done::silent(exit))
}

fn unknown(why: &str) -> Done {
    Done {
        exit: Plugin::Unknown.into(),
        stdout: plugin_line(Plugin::Unknown, why, ""),
        receipts: Vec::new(),
        departure: None,
    }
}

/// A plugin's work, or UNKNOWN if a signal ends it: a monitor that has waited too long sends SIGTERM, and
/// still wants a line.
async fn unless_ended(work: impl Future<Output = Result<Done, Error>>) -> Result<Done, Error> {
    tokio::select! {
        biased;
        _ = termination() => Ok(unknown("a signal ended the check")),
        done = work => done,
    }
}

fn print_now(done: &Done) -> Exit {
    if let Err(error) = io::stdout().write_all(done.stdout.as_bytes()) {
        error!("{}", Error::Stdout(error));
    }
    done.exit
}

/// Reads the settings. A typo in them must not disable keepalived's hooks: those warn, and go on with
/// what could be read. Whoever runs a command by hand can correct the file, and gets an error.
fn settings(cli: &Cli) -> Result<Settings, Error> {
    let global = &cli.global;
    let file = global.config.as_deref();
    let is_hook = matches!(
        cli.command,
        Command::Notify(_) | Command::Fifo(_) | Command::Watch(_) | Command::Listen(_)
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
