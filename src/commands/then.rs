//! The user's own script of `notify --then`, which keepalived would otherwise run itself.

use std::cell::RefCell;
use std::os::unix::process::CommandExt;
use std::process::Command;

use log::{info, warn};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};

use crate::cli::{Global, Notify};

/// The script, until it is started.
#[derive(Debug, Default)]
pub(super) struct Then(RefCell<Option<Command>>);

impl Then {
    /// The script that the command line names, with keepalived's own arguments appended.
    pub(super) fn new(args: &Notify, global: &Global) -> Self {
        let Some((script, own)) = args.then.split_first() else {
            return Self::default();
        };
        if global.dry_run {
            info!("{} would be run", script.display());
            return Self::default();
        }
        let mut command = Command::new(script);
        command
            .args(own)
            .args([args.of.word(), &args.name, &args.state]);
        command.args(&args.priority);
        as_keepalived_would(&mut command);
        Self(RefCell::new(Some(command)))
    }

    /// Starts it, the first time, and does not wait for it.
    pub(super) fn start(&self) {
        if let Some(mut command) = self.0.borrow_mut().take()
            && let Err(error) = command.spawn()
        {
            let script = command.get_program().display();
            warn!("cannot run {script}: {error}");
        }
    }
}

/// Undoes in the child what this process has changed of what it inherited from keepalived: signals that
/// it ignores or blocks, and the limit on descriptors. All other descriptors close by themselves, and the
/// environment is keepalived's. The process group is keepalived's, too: with it, keepalived ends what it
/// has started.
#[allow(unsafe_code)]
fn as_keepalived_would(command: &mut Command) {
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE);
    let restore = move || {
        SigSet::empty().thread_set_mask()?;
        for ignored in [Signal::SIGPIPE, Signal::SIGXFSZ] {
            // SAFETY: this sets no handler.
            unsafe { signal(ignored, SigHandler::SigDfl) }?;
        }
        if let Ok((soft, hard)) = descriptors {
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes system calls alone, and allocates nothing.
    unsafe { command.pre_exec(restore) };
}
