//! Processes that are no children of ours.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

/// How long killed processes may take to end.
const ENDED_WITHIN: Duration = Duration::from_secs(5);

/// Kills processes, and those that `more` finds until it finds none; waits until all have ended.
pub(crate) fn kill_all(mut more: impl FnMut() -> Vec<Pid>) {
    let mut killed = Vec::new();
    wait::poll(ENDED_WITHIN, || {
        let found = more();
        for &pid in &found {
            // One that ended meanwhile is as good as killed.
            let _ = kill(pid, Signal::SIGKILL);
        }
        killed.extend(found);
        killed.retain(|&pid| !has_ended(pid));
        killed.is_empty().then_some(())
    });
}

/// Whether a process is gone, or is a zombie that only waits for its parent to ask.
fn has_ended(pid: Pid) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    // The state follows the program's name, which is in parentheses and may contain anything.
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}
