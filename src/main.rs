//! The `vipherald` command: parse, log, run, exit.
#![no_main]
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, OsString};
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::process;
use std::time::Instant;

use clap::error::ErrorKind;
use log::error;
use nix::libc::{self, c_char, c_int};
use vipherald::cli::Cli;
use vipherald::error::Error;
use vipherald::exit::Exit;
use vipherald::logging::LogTo;
use vipherald::printable::one_line;
use vipherald::{commands, logging};

/// Where the C library begins. Rust's own start would also read /proc/self/maps and set up a second
/// stack, to name a stack overflow: that takes a twelfth of the way to the first frame
/// (docs/performance.md). The rest of it is done here.
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, words: *const *const c_char) -> c_int {
    let began = Instant::now();
    occupy_standard_descriptors();
    // What can't be written shall be an error (EPIPE, EFBIG), not the end.
    for signal in [libc::SIGPIPE, libc::SIGXFSZ] {
        // SAFETY: nobody else minds the signal.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    let words: Vec<OsString> = (0..usize::try_from(count).unwrap_or(0))
        .map(|at| {
            // SAFETY: there are `count` strings, which last as long as the process.
            let word = unsafe { CStr::from_ptr(*words.add(at)) };
            OsStr::from_bytes(word.to_bytes()).to_owned()
        })
        .collect();
    // Not a return, with which nothing would be left of stdout's buffer.
    process::exit(run(&words, began) as c_int)
}

/// Puts the root directory where standard input, output or error is closed. A socket would get its
/// number else, and what is printed would be sent. Opened by its path alone (`O_PATH`) it takes
/// nothing in and gives nothing: reads and writes fail as where nothing is open. And there is one
/// where there is no /dev/null.
fn occupy_standard_descriptors() {
    for descriptor in 0..=2 {
        // SAFETY: it touches no memory.
        let is_closed = unsafe { libc::fcntl(descriptor, libc::F_GETFD) } < 0;
        if is_closed {
            // SAFETY: the path ends with a NUL.
            let opened = unsafe { libc::open(c"/".as_ptr(), libc::O_PATH) };
            // It got the lowest number that is free, which is this one.
            if opened != descriptor {
                let error = io::Error::last_os_error();
                let text = format!("error: cannot stand in for descriptor {descriptor}: {error}\n");
                // Where standard error is closed itself, nobody can be told.
                let _ = io::stderr().write_all(text.as_bytes());
                process::exit(Exit::Failed as c_int);
            }
        }
    }
}

fn run(words: &[OsString], began: Instant) -> Exit {
    let cli = match Cli::read(words) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, words),
    };
    let place = cli.global.log().cloned().unwrap_or_default();
    logging::start(place, cli.global.verbose, cli.global.quiet);
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map(|runtime| runtime.block_on(commands::run(&cli, began)));
    done.unwrap_or_else(|error| commands::fail(&cli, &Error::Runtime(error)))
}

/// Says what is wrong with the command line, also to one who runs without a terminal.
fn refuse(error: &clap::Error, words: &[OsString]) -> Exit {
    if !error.use_stderr() {
        // Nothing can be done about a terminal that is gone.
        let _ = error.print();
        return Exit::Done;
    }
    let is_nagios =
        |word: &OsString| word == "--nagios" || word.as_bytes().starts_with(b"--nagios=");
    if words.iter().any(is_nagios) {
        return commands::fail_as_plugin(&in_one_line(error));
    }
    if io::stderr().is_terminal() {
        for line in error.to_string().lines() {
            let _ = writeln!(io::stderr(), "{}", one_line(line));
        }
    } else {
        logging::start(log_asked_for(words), 0, false);
        error!("{}", in_one_line(error));
    }
    Exit::Usage
}

/// What is wrong, and what may have been meant.
fn in_one_line(error: &clap::Error) -> String {
    // clap's text for this is the help.
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "no command was given: see `vipherald --help`".to_owned();
    }
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let (what, more) = text.split_once("\n\n").unwrap_or((text, ""));
    let what: Vec<_> = what.lines().map(str::trim).collect();
    let tips = more.lines().map(str::trim);
    let tips = tips.filter(|line| line.starts_with("tip: "));
    std::iter::once(what.join(" "))
        .chain(tips.map(str::to_owned))
        .collect::<Vec<_>>()
        .join("; ")
}

/// What `--log` says on a command line that could not be understood as a whole.
fn log_asked_for(words: &[OsString]) -> LogTo {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let apart = words.windows(2).find(|pair| pair[0] == "--log");
    let joined = || words.iter().find_map(|word| word.strip_prefix("--log="));
    apart
        .map(|pair| pair[1].as_ref())
        .or_else(joined)
        .and_then(|place| place.parse().ok())
        .unwrap_or_default()
}
