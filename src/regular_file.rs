//! Files that people name: nothing but regular files, which neither keep the reader waiting, as a
//! FIFO does, nor go on for ever, as /dev/zero does.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc::{O_NOCTTY, O_NONBLOCK};

/// Opens a regular file for reading, with these flags of open(2), too.
///
/// # Errors
/// If it can't be opened, or is of another kind.
pub fn open(path: &Path, flags: i32) -> io::Result<File> {
    let mut options = File::options();
    // Opening a FIFO would wait for its writer.
    let options = options
        .read(true)
        .custom_flags(flags | O_NONBLOCK | O_NOCTTY);
    let file = options.open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !kind.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok(file)
}

/// Reads the text of a regular file of at most `limit` octets.
///
/// # Errors
/// If it can't be read, is of another kind, is longer, or is not UTF-8.
pub fn read_to_string(path: &Path, limit: u64) -> io::Result<String> {
    let mut octets = Vec::new();
    let mut file = open(path, 0)?.take(limit + 1);
    file.read_to_end(&mut octets)?;
    if octets.len() as u64 > limit {
        let text = format!("it is longer than {limit} octets");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    String::from_utf8(octets)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}
