//! The `vipherald` command: parse, log, run, exit.
#![no_main]
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, OsString};
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::process;
use std::time::Instant;

use clap::ValueEnum;
use clap::error::ErrorKind;
use log::error;
use nix::libc::{self, c_char, c_int};
use vipherald::cli::{Cli, LogTo};
use vipherald::error::Error;
use vipherald::exit::Exit;
use vipherald::{commands, logging};

/// Where the C library begins. Rust's own start would also read /proc/self/maps and set up a second
/// stack, to name a stack overflow: that takes a twelfth of the way to the first frame
/// (docs/performance.md). The rest of it is done here.
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, words: *const *const c_char) -> c_int {
    let began = Instant::now();
    occupy_standard_descriptors();
    // What can't be written shall be an error (EPIPE), not the end.
    // SAFETY: nobody else minds the signal.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
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

/// Opens /dev/null where standard input, output or error is closed. A socket would get its number
/// else, and what is printed would be sent.
fn occupy_standard_descriptors() {
    for descriptor in 0..=2 {
        // SAFETY: it touches no memory.
        let is_closed = unsafe { libc::fcntl(descriptor, libc::F_GETFD) } < 0;
        if is_closed {
            // SAFETY: the path ends with a NUL.
            let opened = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
            // It got the lowest number that is free, which is this one.
            if opened != descriptor {
                process::abort();
            }
        }
    }
}

fn run(words: &[OsString], began: Instant) -> Exit {
    let cli = match Cli::read(words) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, words),
    };
    logging::start(cli.global.log(), cli.global.verbose, cli.global.quiet);
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(Error::Runtime)
        .and_then(|runtime| runtime.block_on(commands::run(&cli, began)));
    done.unwrap_or_else(|error| {
        error!("{error}");
        error.exit()
    })
}

/// Says what is wrong with the command line, also to one who runs without a terminal.
fn refuse(error: &clap::Error, words: &[OsString]) -> Exit {
    if !error.use_stderr() || io::stderr().is_terminal() {
        // Nothing can be done about a terminal that is gone.
        let _ = error.print();
    } else {
        logging::start(log_asked_for(words), 0, false);
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
        0 => Exit::Done,
        _ => Exit::Usage,
    }
}

/// What `--log` says on a command line that could not be understood as a whole.
fn log_asked_for(words: &[OsString]) -> LogTo {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let apart = words.windows(2).find(|pair| pair[0] == "--log");
    let joined = || words.iter().find_map(|word| word.strip_prefix("--log="));
    apart
        .map(|pair| pair[1].as_ref())
        .or_else(joined)
        .and_then(|place| LogTo::from_str(place, false).ok())
        .unwrap_or(LogTo::Auto)
}
