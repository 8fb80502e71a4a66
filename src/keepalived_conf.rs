//! keepalived.conf and its includes, on this host's disk.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use vipherald_core::keepalived::{self, Configuration, Files, Kind, Options};

use crate::regular_file;

/// The host's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn kind(&self, path: &Path) -> io::Result<Kind> {
        let metadata = fs::metadata(path)?;
        Ok(if metadata.is_dir() {
            Kind::Directory
        } else if !metadata.is_file() {
            Kind::Other
        } else if metadata.permissions().mode() & 0o111 != 0 {
            Kind::Executable
        } else {
            Kind::File
        })
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(directory)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        regular_file::read(path, u64::try_from(limit).unwrap_or(u64::MAX))
    }

    fn real_path(&self, path: &Path) -> PathBuf {
        fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
    }
}

/// Reads a configuration. The default for its configuration id is that of keepalived.
///
/// # Errors
/// As [`keepalived::read`].
pub fn read(path: &Path, options: &Options) -> Result<Configuration, keepalived::Error> {
    let options = Options {
        assumed_id: short_host_name(),
        ..options.clone()
    };
    keepalived::read(&Disk, path, &options)
}

/// The host name up to its first dot.
fn short_host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim_end().split('.').next()?;
    (!name.is_empty()).then(|| name.to_owned())
}
