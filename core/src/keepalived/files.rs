//! The seam to the file system: all that reading a configuration asks of it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

/// What a path leads to, symbolic links followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file that nobody may execute.
    File,
    /// A regular file with any execute bit: keepalived doesn't read it.
    Executable,
    /// A directory.
    Directory,
    /// A pipe, a socket, a device.
    Other,
}

/// Where configuration files come from.
pub trait Files {
    /// What is at `path`.
    ///
    /// # Errors
    /// When nothing is there, or it can't be looked at.
    fn kind(&self, path: &Path) -> io::Result<Kind>;

    /// The names in a directory, in any order.
    ///
    /// # Errors
    /// When it can't be listed.
    fn names(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// The bytes of a regular file, cut off after `limit`.
    ///
    /// # Errors
    /// When it can't be read, or is of another kind.
    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>>;

    /// The path without symbolic links, or as it is where it can't be resolved.
    fn real_path(&self, path: &Path) -> PathBuf;
}

/// Files held in memory, for tests and fuzzing: absolute path → contents.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Memory {
    /// Adds or replaces a file; its directories come into being with it.
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
