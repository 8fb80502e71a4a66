//! The keys that orders and answers are signed with.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac as _};
use nix::libc::O_NONBLOCK;
use nix::unistd::Uid;
use sha2::Sha256;

use super::message::TAG;

/// Octets that a key has at least: as many as the hash gives (RFC 2104 §3).
const SHORTEST: usize = 32;
/// Octets that a key file has at most.
const LONGEST: u64 = 4096;

/// The keys of this host: the first one signs, all of them verify.
#[derive(Clone)]
pub struct Keys(Vec<Hmac<Sha256>>);

/// Why a key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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

fn advice(unreadable: &io::Error) -> &'static str {
    match unreadable.kind() {
        io::ErrorKind::NotFound => {
            ": `vipherald keygen` writes one; every host needs a copy of the same"
        }
        _ => "",
    }
}

fn keep(unwritable: &io::Error) -> &'static str {
    match unwritable.kind() {
        io::ErrorKind::AlreadyExists => ": a key is not overwritten; name another file",
        _ => "",
    }
}

impl Keys {
    /// Reads key files, checking each before use. Where systemd gave this unit a credential of a
    /// file's name (`LoadCredential=`, in the directory `credentials`), that takes its place.
    ///
    /// # Errors
    /// If a file can't be read, is too short, or is not root's alone.
    pub fn read(files: &[PathBuf], credentials: Option<&Path>) -> Result<Self, Error> {
        let read = |file: &PathBuf| {
            let name = file.file_name();
            let credential = credentials.zip(name).map(|(all, name)| all.join(name));
            match credential.filter(|credential| credential.exists()) {
                // systemd lets nobody but the unit see it.
                Some(credential) => read(&credential, Owner::Systemd),
                None => read(file, Owner::Root),
            }
        };
        files.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// The one key that these octets are, at least 32.
    ///
    /// # Errors
    /// If they are fewer.
    pub fn from_octets(octets: &[u8]) -> Result<Self, String> {
        if octets.len() < SHORTEST {
            return Err(format!(
                "has {} octets, and a key has at least {SHORTEST}: `vipherald keygen` writes one",
                octets.len()
            ));
        }
        let hmac = Hmac::new_from_slice(octets).map_err(|error| error.to_string())?;
        Ok(Self(vec![hmac]))
    }

    /// Appends the tag of the first key.
    pub fn sign(&self, datagram: &mut Vec<u8>) {
        if let Some(key) = self.0.first() {
            let tag = key.clone().chain_update(&*datagram).finalize();
            datagram.extend_from_slice(&tag.into_bytes());
        }
    }

    /// What is before the tag, if one of the keys made that. Takes one hash a key, and the same
    /// time whatever the tag.
    #[must_use]
    pub fn authenticate<'a>(&self, datagram: &'a [u8]) -> Option<&'a [u8]> {
        let (signed, tag) = datagram.split_at_checked(datagram.len().checked_sub(TAG)?)?;
        let made = |key: &Hmac<Sha256>| {
            let tagged = key.clone().chain_update(signed);
            tagged.verify_slice(tag).is_ok()
        };
        self.0.iter().any(made).then_some(signed)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Owner {
    Root,
    Systemd,
}

fn read(path: &Path, owner: Owner) -> Result<Hmac<Sha256>, Error> {
    let unreadable = |source| Error::Unreadable {
        path: path.to_owned(),
        source,
    };
    let unfit = |problem: String| Error::Unfit {
        path: path.to_owned(),
        problem,
    };
    // Not to wait for the other end of what turns out to be a pipe.
    let mut options = File::options();
    let file = options.read(true).custom_flags(O_NONBLOCK).open(path);
    let file = file.map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    let (place, mode) = (path.display(), about.mode() & 0o7777);
    if !about.is_file() {
        return Err(unfit("is no regular file".to_owned()));
    }
    let own = owner == Owner::Systemd && about.uid() == Uid::effective().as_raw();
    if about.uid() != 0 && !own {
        return Err(unfit(format!(
            "belongs to user {}, not to root: `chown root {place}`, and make a new one if that \
             user may have read it",
            about.uid()
        )));
    }
    if owner == Owner::Root && mode & 0o077 != 0 {
        return Err(unfit(format!(
            "has mode {mode:04o}, so that others than root may read or write it: \
             `chmod 600 {place}`, and make a new one if they may have"
        )));
    }
    let mut octets = Vec::new();
    let read = file.take(LONGEST + 1).read_to_end(&mut octets);
    read.map_err(unreadable)?;
    if octets.len() as u64 > LONGEST {
        return Err(unfit(format!("is longer than {LONGEST} octets")));
    }
    let keys = Keys::from_octets(octets.trim_ascii_end()).map_err(unfit)?;
    let mut key = keys.0.into_iter();
    key.next().ok_or_else(|| unfit("is no key".to_owned()))
}

/// Writes a new key for root alone: 64 hexadecimal digits.
///
/// # Errors
/// If the file exists, or can't be written.
pub fn generate(path: &Path) -> Result<(), Error> {
    let write = || -> io::Result<()> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let digits: String = random.iter().map(|octet| format!("{octet:02x}")).collect();
        let mut options = File::options();
        let file = options.write(true).create_new(true).mode(0o600).open(path);
        let mut file = file?;
        file.write_all((digits + "\n").as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| Error::Unwritable {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// RFC 4231 §4.2 (test case 1 has a key of 20 octets; these are 32 or more: cases 6).
    #[test]
    fn the_tag_is_that_of_rfc_4231() {
        let keys = Keys::from_octets(&[0xaa; 131]).unwrap();
        let mut text = b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec();
        let signed = text.len();
        keys.sign(&mut text);
        let tag: String = text[signed..].iter().map(|o| format!("{o:02x}")).collect();
        assert_eq!(
            tag,
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
        assert_eq!(keys.authenticate(&text), Some(&text[..signed]));
        for at in 0..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 1;
            assert_eq!(keys.authenticate(&changed), None);
        }
        for cut in 0..text.len() {
            assert_eq!(keys.authenticate(&text[..cut]), None);
        }
    }

    #[test]
    fn the_first_key_signs_and_all_verify() {
        let folder = std::env::temp_dir().join(format!("vipherald-keys-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (old, new) = (folder.join("old"), folder.join("new"));
        generate(&old).unwrap();
        generate(&new).unwrap();
        let keys = |files: &[&PathBuf]| {
            let files: Vec<_> = files.iter().map(|file| (*file).clone()).collect();
            Keys::read(&files, None).unwrap()
        };
        let (only_old, rotating, only_new) = (keys(&[&old]), keys(&[&new, &old]), keys(&[&new]));
        let mut text = b"text".to_vec();
        rotating.sign(&mut text);
        assert!(only_new.authenticate(&text).is_some() && only_old.authenticate(&text).is_none());
        let mut text = b"text".to_vec();
        only_old.sign(&mut text);
        assert!(rotating.authenticate(&text).is_some() && only_new.authenticate(&text).is_none());
        assert!(matches!(generate(&old), Err(Error::Unwritable { .. })));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_key_that_others_could_know_is_refused_with_the_fix() {
        let folder = std::env::temp_dir().join(format!("vipherald-unfit-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("key");
        let refused = |fix: &str| {
            let told = Keys::read(std::slice::from_ref(&file), None)
                .unwrap_err()
                .to_string();
            assert!(told.contains(fix), "{told}");
        };
        refused("vipherald keygen");
        generate(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert!(Keys::read(std::slice::from_ref(&file), None).is_ok());
        for mode in [0o640, 0o604, 0o620, 0o644] {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            refused("chmod 600");
        }
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, [b'x'; 31]).unwrap();
        refused("31 octets");
        fs::write(&file, [b'x'; 32]).unwrap();
        assert!(Keys::read(std::slice::from_ref(&file), None).is_ok());
        fs::write(&file, vec![b'x'; 5000]).unwrap();
        refused("longer than 4096");
        // A credential of the same name takes its place, as systemd hands it over.
        let credentials = folder.join("credentials");
        fs::create_dir_all(&credentials).unwrap();
        generate(&credentials.join("key")).unwrap();
        let mode = Permissions::from_mode(0o440);
        fs::set_permissions(credentials.join("key"), mode).unwrap();
        assert!(Keys::read(std::slice::from_ref(&file), Some(&credentials)).is_ok());
        fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        refused("no regular file");
        fs::remove_dir_all(&folder).unwrap();
    }
}
