//! Key files: read only if nobody but root could have read or replaced them.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc::O_NOFOLLOW;
use nix::unistd::Uid;
use vipherald_core::order::Keys;

use crate::settings::Orders;
use crate::{privileges, regular_file};

/// Octets that a key file has at most.
const LONGEST: u64 = 4096;

/// Why a key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings name no file.
    #[error("there is no key for orders: set orders.key_file; `vipherald keygen` writes one")]
    Unset,
    /// The file can't be read.
    #[error("cannot read the key {}: {source}{}", path.display(), advice(.source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others than root could know or change the key, or it is none.
    #[error("the key {} is not used: it {problem}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and the fix.
        problem: String,
    },
    /// `keygen` could not write one.
    #[error("cannot write the key {}: {source}{}", path.display(), keep(.source))]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn advice(unreadable: &io::Error) -> String {
    match unreadable.kind() {
        io::ErrorKind::NotFound => {
            ": `vipherald keygen` writes one; every host needs a copy of the same".to_owned()
        }
        _ => privileges::advice_on_file(unreadable),
    }
}

fn keep(unwritable: &io::Error) -> String {
    match unwritable.kind() {
        io::ErrorKind::AlreadyExists => {
            ": an existing key is not overwritten; name another file".to_owned()
        }
        _ => privileges::advice_on_file(unwritable),
    }
}

/// Reads the keys that the settings name.
///
/// # Errors
/// [`Error::Unset`] if they name none, or as [`read`].
pub fn of(settings: &Orders) -> Result<Keys, Error> {
    if !settings.has_key() {
        return Err(Error::Unset);
    }
    let credentials = env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    read(&settings.key_files, &settings.site, credentials.as_deref())
}

/// Reads key files, and checks each before use; `site` is mixed into each key. A credential of the same
/// name that systemd gave this unit (`LoadCredential=`, in the directory `credentials`) replaces a file.
///
/// # Errors
/// If a file can't be read, is too short, or others than root may read or replace it.
pub fn read(files: &[PathBuf], site: &str, credentials: Option<&Path>) -> Result<Keys, Error> {
    let read = |file: &PathBuf| {
        let name = file.file_name();
        let credential = credentials.zip(name).map(|(all, name)| all.join(name));
        match credential.filter(|credential| credential.exists()) {
            // Only root and the unit can see it.
            Some(credential) => read_one(&credential, site, Owner::Systemd),
            None => read_one(file, site, Owner::Root),
        }
    };
    files.iter().map(read).collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Owner {
    Root,
    Systemd,
}

fn read_one(path: &Path, site: &str, owner: Owner) -> Result<Keys, Error> {
    check(path, site, owner).map_err(|problem| match problem {
        Problem::Unreadable(source) => Error::Unreadable {
            path: path.to_owned(),
            source,
        },
        Problem::Unfit(problem) => Error::Unfit {
            path: path.to_owned(),
            problem,
        },
    })
}

/// Why a key is not used.
enum Problem {
    Unreadable(io::Error),
    Unfit(String),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

impl From<String> for Problem {
    fn from(problem: String) -> Self {
        Self::Unfit(problem)
    }
}

fn check(path: &Path, site: &str, owner: Owner) -> Result<Keys, Problem> {
    let by_root = owner == Owner::Root;
    if by_root {
        check_folders(path)?;
    }
    // Some versions of systemd pass a credential by links of their own.
    let file = regular_file::open(path, if by_root { O_NOFOLLOW } else { 0 })?;
    let about = file.metadata()?;
    let (place, mode) = (path.display(), about.mode() & 0o7777);
    let own = !by_root && about.uid() == Uid::effective().as_raw();
    if about.uid() != 0 && !own {
        Err(format!(
            "belongs to user {}, not to root: `chown root {place}`, and make a new one if that \
             user may have read it",
            about.uid()
        ))?;
    }
    if by_root && mode & 0o077 != 0 {
        Err(format!(
            "has mode {mode:04o}, so that others than root may read or write it: \
             `chmod 600 {place}`, and make a new one if they may have"
        ))?;
    }
    let mut octets = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > LONGEST {
        Err(format!("is longer than {LONGEST} octets"))?;
    }
    Ok(Keys::from_octets(octets.trim_ascii_end(), site)?)
}

/// Checks that nobody but root could have replaced a key: no symbolic link leads to it, and only root
/// may write to any folder above it, as sshd demands for the keys that it trusts. A sticky folder does
/// not count as such: whoever may write there could have created the file first.
fn check_folders(path: &Path) -> Result<(), Problem> {
    let path = std::path::absolute(path)?;
    let about = path.symlink_metadata()?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    if about.is_symlink() || folder.canonicalize()? != folder {
        let real = path.canonicalize()?;
        Err(format!(
            "is named by way of a symbolic link or `..`: name the file itself, {}",
            real.display()
        ))?;
    }
    for folder in folder.ancestors() {
        let about = folder.symlink_metadata()?;
        let place = folder.display();
        if about.uid() != 0 && is_known(about.uid()) {
            Err(format!(
                "is below {place}, which belongs to user {}, who could replace it: \
                 `chown root {place}`, or move the key",
                about.uid()
            ))?;
        }
        if about.mode() & 0o022 != 0 {
            // A folder with the sticky bit, such as /tmp, is meant for all.
            let fix = match about.mode() & 0o1000 {
                0 => format!("`chmod go-w {place}`, or move the key"),
                _ => "move the key".to_owned(),
            };
            Err(format!(
                "is below {place}, where others than root may write (mode {:04o}): {fix}",
                about.mode() & 0o7777
            ))?;
        }
    }
    Ok(())
}

/// Whether a user belongs to this user namespace. The kernel shows all others, such as the host's
/// root, as one user, so nothing is known of them.
fn is_known(user: u32) -> bool {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let overflow = read("/proc/sys/kernel/overflowuid");
    if overflow.trim().parse() != Ok(user) {
        return true;
    }
    read("/proc/self/uid_map").lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (first, count) = (numbers.next(), numbers.nth(1));
        match (first, count) {
            (Some(Ok(first)), Some(Ok(count))) => {
                (first..first.saturating_add(count)).contains(&u64::from(user))
            }
            _ => false,
        }
    })
}

/// Writes a new key, 64 hexadecimal digits, readable by root alone. The file appears complete or not
/// at all, because it is written under another name in the same folder first.
///
/// # Errors
/// If the file exists, or can't be written.
pub fn generate(path: &Path) -> Result<(), Error> {
    let write = || -> io::Result<()> {
        let mut random = [0; 40];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let digits = |octets: &[u8]| -> String {
            octets.iter().map(|octet| format!("{octet:02x}")).collect()
        };
        let (key, suffix) = random.split_at(32);
        let folder = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
        let mut draft = OsString::from(".");
        draft.push(name);
        draft.push(format!(".{}", digits(suffix)));
        let draft = folder.join(draft);
        let written = write_new(&draft, &(digits(key) + "\n"))
            // Unlike a rename, a link replaces nothing.
            .and_then(|()| fs::hard_link(&draft, path));
        let removed = fs::remove_file(&draft);
        written.and(removed)?;
        // The parent of a bare name is empty.
        File::open(Path::new(".").join(folder))?.sync_all()
    };
    write().map_err(|source| Error::Unwritable {
        path: path.to_owned(),
        source,
    })
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A folder of this test's own, below none that others may write.
    fn folder(name: &str) -> PathBuf {
        let name = format!("vipherald-{name}-{}", std::process::id());
        let folder = Path::new("/run").join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn refusal(file: &Path) -> String {
        let refused = read(&[file.to_owned()], "", None);
        refused.unwrap_err().to_string()
    }

    #[test]
    fn the_first_key_signs_and_all_verify() {
        let folder = folder("keys");
        let (old, new) = (folder.join("old"), folder.join("new"));
        generate(&old).unwrap();
        generate(&new).unwrap();
        let keys = |files: &[&PathBuf]| {
            let files: Vec<_> = files.iter().map(|file| (*file).clone()).collect();
            read(&files, "", None).unwrap()
        };
        let (only_old, rotating, only_new) = (keys(&[&old]), keys(&[&new, &old]), keys(&[&new]));
        let mut text = b"text".to_vec();
        rotating.sign(&mut text);
        assert!(only_new.authenticate(&text).is_some() && only_old.authenticate(&text).is_none());
        let mut text = b"text".to_vec();
        only_old.sign(&mut text);
        assert!(rotating.authenticate(&text).is_some() && only_new.authenticate(&text).is_none());
        let octets = fs::read(&old).unwrap();
        assert!(matches!(generate(&old), Err(Error::Unwritable { .. })));
        assert_eq!(fs::read(&old).unwrap(), octets);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_key_that_others_could_know_is_refused_with_the_fix() {
        let folder = folder("unfit");
        let file = folder.join("key");
        let refused = |fix: &str| {
            let told = refusal(&file);
            assert!(told.contains(fix), "{told}");
        };
        refused("vipherald keygen");
        generate(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert!(read(std::slice::from_ref(&file), "", None).is_ok());
        for mode in [0o640, 0o604, 0o620, 0o644] {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            refused("chmod 600");
        }
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, [b'x'; 31]).unwrap();
        refused("31 octets");
        fs::write(&file, [b'x'; 32]).unwrap();
        assert!(read(std::slice::from_ref(&file), "", None).is_ok());
        fs::write(&file, vec![b'x'; 5000]).unwrap();
        refused("longer than 4096");
        // A credential of the same name that systemd passes replaces it.
        let credentials = folder.join("credentials");
        fs::create_dir_all(&credentials).unwrap();
        generate(&credentials.join("key")).unwrap();
        let mode = Permissions::from_mode(0o440);
        fs::set_permissions(credentials.join("key"), mode).unwrap();
        assert!(read(std::slice::from_ref(&file), "", Some(&credentials)).is_ok());
        fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        refused("no regular file");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_key_that_others_could_replace_is_refused_with_the_fix() {
        let folder = folder("replaced");
        let deep = folder.join("deep");
        fs::create_dir(&deep).unwrap();
        let file = deep.join("key");
        generate(&file).unwrap();
        assert!(read(std::slice::from_ref(&file), "", None).is_ok());
        for (at, mode) in [(&deep, 0o777), (&folder, 0o775), (&folder, 0o1777)] {
            fs::set_permissions(at, Permissions::from_mode(mode)).unwrap();
            let told = refusal(&file);
            let fix = match mode {
                0o1777 => format!("(mode {mode:04o}): move the key"),
                _ => format!("(mode {mode:04o}): `chmod go-w {}`", at.display()),
            };
            assert!(told.contains(&fix), "{told}");
            fs::set_permissions(at, Permissions::from_mode(0o755)).unwrap();
        }
        let (linked, through) = (folder.join("linked"), folder.join("through"));
        symlink(&file, &linked).unwrap();
        symlink(&deep, &through).unwrap();
        for behind in [linked, through.join("key"), deep.join("../deep/key")] {
            let told = refusal(&behind);
            let fix = format!("name the file itself, {}", file.display());
            assert!(told.contains(&fix), "{told}");
        }
        // A user namespace of one user has no other to give it to.
        if nix::unistd::chown(&deep, Some(1.into()), None).is_ok() {
            let told = refusal(&file);
            assert!(told.contains("belongs to user 1, who could"), "{told}");
        }
        // Nor does it matter for what systemd passes.
        fs::set_permissions(&deep, Permissions::from_mode(0o777)).unwrap();
        assert!(read(std::slice::from_ref(&file), "", Some(&deep)).is_ok());
        fs::remove_dir_all(&folder).unwrap();
    }
}
