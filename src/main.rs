//! The `vipherald` command: parse, log, run, exit.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use clap::error::ErrorKind;
use clap::{Parser, ValueEnum};
use log::error;
use tokio::signal::unix::{SignalKind, signal};
use vipherald::announce::Pace;
use vipherald::announce::session::{self, Session};
use vipherald::cli::{Announce, Cli, Command, Global, LogTo, Purge};
use vipherald::error::Error;
use vipherald::exit::Exit;
use vipherald::kernel::Kernel;
use vipherald::report::{AnnounceReport, PurgeReport, Report};
use vipherald::settings::Settings;
use vipherald::{logging, purge};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let global = &cli.global;
    logging::start(global.log, global.verbose, global.quiet);
    let done = Settings::read(global.config.as_deref())
        .map_err(Error::from)
        .and_then(|settings| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(Error::Runtime)?;
            runtime.block_on(async {
                match &cli.command {
                    Command::Announce(args) => announce(args, &settings, global).await,
                    Command::Purge(args) => purge(args, global).await,
                }
            })
        });
    let exit = done.unwrap_or_else(|error| {
        error!("{error}");
        error.exit()
    });
    exit.into()
}

/// Says what is wrong with the command line, also to one who runs without a terminal.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || io::IsTerminal::is_terminal(&io::stderr()) {
        // Nothing can be done about a terminal that is gone.
        let _ = error.print();
    } else {
        logging::start(log_asked_for(), 0, false);
        let text = error.to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let what = text.lines().take_while(|line| !line.is_empty());
        match error.kind() {
            // clap's text for this is the help.
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                error!("no command was given: see `vipherald --help`");
            }
            _ => error!("{}", what.collect::<Vec<_>>().join(" ")),
        }
    }
    match error.exit_code() {
        0 => Exit::Done.into(),
        _ => Exit::Usage.into(),
    }
}

/// What `--log` says on a command line that could not be understood as a whole.
fn log_asked_for() -> LogTo {
    let words: Vec<_> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let apart = words.windows(2).find(|pair| pair[0] == "--log");
    let joined = || words.iter().find_map(|word| word.strip_prefix("--log="));
    apart
        .map(|pair| pair[1].as_str())
        .or_else(joined)
        .and_then(|place| LogTo::from_str(place, false).ok())
        .unwrap_or(LogTo::Auto)
}

async fn announce(args: &Announce, settings: &Settings, global: &Global) -> Result<Exit, Error> {
    let began = Instant::now();
    let order = session::Order {
        vips: args.vips.clone(),
        interface: args.interface.clone(),
        pace: Pace {
            rate: args.rate.unwrap_or(settings.rate),
            wait: args.wait.unwrap_or(settings.wait),
            timeout: args.timeout.unwrap_or(settings.timeout),
        },
    };
    let mut session = Session::prepare(&order, began).await?;
    if global.dry_run {
        let report = AnnounceReport::planned(session.core());
        print(global, &report)?;
        return Ok(Exit::Done);
    }
    let stopped = session.run(termination()).await?;
    let report = AnnounceReport::new(session.core(), began.elapsed());
    deliver(global, &report)?;
    Ok(stopped.unwrap_or(report.exit()))
}

async fn purge(args: &Purge, global: &Global) -> Result<Exit, Error> {
    let order = purge::Order {
        vips: args.vips.clone(),
        interface: args.interface.clone(),
        permanent: args.permanent,
        dry_run: global.dry_run,
    };
    let purged = purge::purge(&Kernel::connect()?, &order).await?;
    let report = PurgeReport::new(&order.vips, &purged, global.dry_run);
    if global.dry_run {
        print(global, &report)?;
    } else {
        deliver(global, &report)?;
    }
    Ok(report.exit())
}

/// Ends when somebody wants this process to end. Handlers are installed when this is first
/// awaited: until then the default holds, and a signal simply ends the process.
async fn termination() -> Exit {
    match (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) {
        (Ok(mut terminate), Ok(mut interrupt)) => tokio::select! {
            _ = terminate.recv() => Exit::Terminated,
            _ = interrupt.recv() => Exit::Interrupted,
        },
        _ => std::future::pending().await,
    }
}

/// Tells what happened: always to the log, with `--json` also on stdout.
fn deliver(global: &Global, report: &impl Report) -> Result<(), Error> {
    report.log();
    if global.json {
        print(global, report)?;
    }
    Ok(())
}

fn print(global: &Global, report: &impl Report) -> Result<(), Error> {
    let text = if global.json {
        serde_json::to_string(report).map_err(|error| Error::Stdout(error.into()))? + "\n"
    } else {
        report.text()
    };
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(Error::Stdout)
}
