//! `keygen`: write a key for orders.

use log::info;

use super::output::Done;
use crate::cli::Keygen;
use crate::error::Error;
use crate::exit::Exit;
use crate::key_file;

pub(super) fn keygen(args: &Keygen) -> Result<Done, Error> {
    key_file::generate(&args.file)?;
    info!(
        "{} written: copy it to every host, for root alone",
        args.file.display()
    );
    Ok(Done::silent(Exit::Done))
}
