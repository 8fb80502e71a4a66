//! `copy`: put this program where another container can run it.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use log::info;

use super::output::Done;
use crate::cli::Copy;
use crate::error::Error;
use crate::exit::Exit;

pub(super) fn copy(args: &Copy) -> Result<Done, Error> {
    let to = args.directory.join("vipherald");
    copy_to(&to).map_err(|source| Error::Copy {
        path: to.clone(),
        source,
    })?;
    info!("{} written", to.display());
    Ok(Done::silent(Exit::Done))
}

/// The file is replaced as a whole: a keepalived that already runs may start it at any time.
fn copy_to(to: &Path) -> io::Result<()> {
    let draft = to.with_extension("new");
    let mut file = File::create(&draft)?;
    // The path of the program may mean nothing in this container's root.
    io::copy(&mut File::open("/proc/self/exe")?, &mut file)?;
    file.set_permissions(Permissions::from_mode(0o755))?;
    file.sync_all()?;
    fs::rename(draft, to)
}
