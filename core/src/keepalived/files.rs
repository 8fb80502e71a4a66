//! The interface to the file system.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The kind of file at a path, after following symbolic links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file without execute bits.
    File,
    /// A regular file with an execute bit: keepalived does not read it.
    Executable,
    /// A directory.
    Directory,
    /// A pipe, socket or device.
    Other,
}

/// The source of configuration files.
pub trait Files {
    /// The kind of file at `path`.
    ///
    /// # Errors
    /// If nothing is there, or it is inaccessible.
    fn kind(&self, path: &Path) -> io::Result<Kind>;

    /// The names in a directory, in any order.
    ///
    /// # Errors
    /// If it can't be listed.
    fn names(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// At most the first `limit` bytes of a regular file.
    ///
    /// # Errors
    /// If it can't be read, or is of another kind.
    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>>;

    /// The path without symbolic links, or unchanged if it can't be resolved.
    fn real_path(&self, path: &Path) -> PathBuf;
}

/// Files in memory, for tests and fuzzing: absolute path → contents.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Memory {
    /// Adds or replaces a file, with its directories.
    #[must_use]
    pub fn with(mut self, path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> Self {
        let path = normal(path.as_ref());
        self.files.insert(path, contents.as_ref().to_owned());
        self
    }
}

impl Files for Memory {
    fn kind(&self, path: &Path) -> io::Result<Kind> {
        let path = normal(path);
        if self.files.contains_key(&path) {
            Ok(Kind::File)
        } else if self.files.keys().any(|file| file.starts_with(&path)) {
            Ok(Kind::Directory)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<String>> {
        if self.kind(directory)? != Kind::Directory {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let directory = normal(directory);
        let mut names: Vec<String> = self
            .files
            .keys()
            .filter_map(|file| file.strip_prefix(&directory).ok()?.components().next())
            .map(|name| name.as_os_str().to_string_lossy().into_owned())
            .collect();
        names.dedup();
        Ok(names)
    }

    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        let contents = self.files.get(&normal(path));
        let contents = contents.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(contents[..contents.len().min(limit)].to_owned())
    }

    fn real_path(&self, path: &Path) -> PathBuf {
        normal(path)
    }
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    normal
}
