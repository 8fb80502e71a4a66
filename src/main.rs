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

/// The C library starts here. Rust's own start would also read /proc/self/maps and set up a second
/// stack, to report a stack overflow: a twelfth of the time to the first frame (docs/performance.md).
/// This does the rest of it.
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, words: *const *const c_char) -> c_int {
    let began = Instant::now();
    occupy_standard_descriptors();
    // A write that fails shall be an error (EPIPE, EFBIG), and not kill the process.
    for signal in [libc::SIGPIPE, libc::SIGXFSZ] {
        // SAFETY: nothing else handles the signal.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    let words: Vec<OsString> = (0..usize::try_from(count).unwrap_or(0))
        .map(|at| {
            // SAFETY: there are `count` strings, which last as long as the process.
            let word = unsafe { CStr::from_ptr(*words.add(at)) };
            OsStr::from_bytes(word.to_bytes()).to_owned()
        })
        .collect();
    // A return would lose what is left in stdout's buffer.
    process::exit(run(&words, began) as c_int)
}

/// Opens the root directory in place of a standard stream that is closed. Otherwise a socket would get
/// its number, and what is printed would be sent. Opened as a mere path (`O_PATH`), it fails reads and
/// writes as a closed descriptor does. Unlike /dev/null, it always exists.
fn occupy_standard_descriptors() {
    for descriptor in 0..=2 {
        // SAFETY: it touches no memory.
        let is_closed = unsafe { libc::fcntl(descriptor, libc::F_GETFD) } < 0;
        if is_closed {
            // SAFETY: the path ends with a NUL.
            let opened = unsafe { libc::open(c"/".as_ptr(), libc::O_PATH) };
            // It gets the lowest free number, which is this one.
            if opened != descriptor {
                let error = io::Error::last_os_error();
                let text =
                    format!("error: cannot replace closed descriptor {descriptor}: {error}\n");
                // This fails if standard error is the closed one.
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

/// Says what is wrong with the command line: in the log, without a terminal.
fn refuse(error: &clap::Error, words: &[OsString]) -> Exit {
    if !error.use_stderr() {
        // If the terminal is gone, so be it.
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

/// What is wrong, and clap's suggestions.
fn in_one_line(error: &clap::Error) -> String {
    // For this, clap's text is the whole help.
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

/// The `--log` of a command line that is wrong elsewhere.
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
