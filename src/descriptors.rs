//! The limit on open descriptors, which a run for many interfaces may come to: it needs one for
//! each.

use log::debug;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one. Returns whether there is room for more now.
///
/// Not before it is needed: a process that has a low limit was given that by somebody.
pub(crate) fn raise_limit() -> bool {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft >= hard {
            return Err(Errno::EMFILE);
        }
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        debug!("the limit on open descriptors is raised from {soft} to {hard}");
        Ok(())
    });
    raised.is_ok()
}
