//! The `vipherald` command: parse, log, run, exit.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use log::error;
use vipherald::cli::{Cli, LogTo};
use vipherald::error::Error;
use vipherald::exit::Exit;
use vipherald::{commands, logging};

fn main() -> ExitCode {
    let began = Instant::now();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    logging::start(cli.global.log, cli.global.verbose, cli.global.quiet);
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
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
        logging::start(LogTo::Auto, 0, false);
        let text = error.to_string();
        let what = text.lines().take_while(|line| !line.is_empty());
        error!("{}", what.collect::<Vec<_>>().join(" "));
    }
    match error.exit_code() {
        0 => Exit::Done.into(),
        _ => Exit::Usage.into(),
    }
}
