//! Opens only regular files, which neither make anybody wait, as a FIFO does, nor go on for ever, as
//! /dev/zero does.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc::{O_NOCTTY, O_NOFOLLOW, O_NONBLOCK};

/// Opens a regular file for reading, with these additional flags of open(2).
///
/// # Errors
/// If it can't be opened, or is not a regular file.
pub fn open(path: &Path, flags: i32) -> io::Result<File> {
    let mut options = File::options();
    // Without O_NONBLOCK, opening a FIFO would wait for its writer.
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

/// Opens a regular file, which it may create (0640), for appending: a write to anything else may wait for
/// a reader. Not through a symbolic link, which could make root append to any file that others choose.
///
/// # Errors
/// If it can't be opened, or is not a regular file.
pub fn append(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.append(true).create(true).mode(0o640);
    options.custom_flags(O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok(file)
}

/// Reads a regular file, up to `limit` octets.
///
/// # Errors
/// If it can't be read, or is not a regular file.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    open(path, 0)?.take(limit).read_to_end(&mut octets)?;
    Ok(octets)
}

/// Reads the text of a regular file of at most `limit` octets.
///
/// # Errors
/// If it can't be read, is not a regular file, is longer, or is not UTF-8.
pub fn read_to_string(path: &Path, limit: u64) -> io::Result<String> {
    let octets = read(path, limit + 1)?;
    if octets.len() as u64 > limit {
        let text = format!("it is longer than {limit} octets");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    String::from_utf8(octets)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}
