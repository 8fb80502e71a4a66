//! The `vipherald` command: parse, log, run, exit.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Instant;

use clap::ValueEnum;
use clap::error::ErrorKind;
use log::error;
use vipherald::cli::{Cli, LogTo};
use vipherald::error::Error;
use vipherald::exit::Exit;
use vipherald::{commands, logging};

fn main() -> ExitCode {
    let began = Instant::now();
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    logging::start(cli.global.log(), cli.global.verbose, cli.global.quiet);
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(Error::Runtime)
        .and_then(|runtime| runtime.block_on(commands::run(&cli, began)));
    let exit = done.unwrap_or_else(|error| {
        error!("{error}");
        error.exit()
    });
    exit.into()
}

/// Says what is wrong with the command line, also to one who runs without a terminal.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || io::stderr().is_terminal() {
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
