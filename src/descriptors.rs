//! The limit on open descriptors: a run needs one for each interface.

use log::debug;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one. Returns whether that gave room for more.
///
/// Call it only when needed: somebody may have set a low limit on purpose.
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
