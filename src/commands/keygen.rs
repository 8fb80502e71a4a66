//! `keygen`: write a key for orders.

use log::info;

use super::output::Done;
use crate::cli::Keygen;
use crate::error::Error;
use crate::exit::Exit;
use crate::key_file;

pub(super) fn keygen(args: &Keygen) -> Result<Done, Error> {
    key_file::generate(&args.file)?;
    let file = args.file.display();
    info!("{file} written: copy it to every host, readable by root alone");
    Ok(Done::silent(Exit::Done))
}
