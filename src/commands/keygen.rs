//! `keygen`: write a key for orders.

use log::info;

use crate::cli::Keygen;
use crate::error::Error;
use crate::exit::Exit;
use crate::order;

pub(super) fn keygen(args: &Keygen) -> Result<Exit, Error> {
    order::key::generate(&args.file)?;
    info!(
        "{} written: copy it to every host, for root alone",
        args.file.display()
    );
    Ok(Exit::Done)
}
