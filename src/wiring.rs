//! Which of keepalived's scripts run vipherald, and whether keepalived runs those scripts at all.

use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use vipherald_core::keepalived::{Block, Configuration, Hook, Instance, Problem, Scripts};

use crate::regular_file;

/// The name of the program.
const NAME: &str = "vipherald";
/// What follows it in the names of the systemd units that do what an event calls for.
const UNITS: [&[u8]; 2] = [b"-master@", b"-backup@"];
/// How much of a script is searched for the name.
const SCRIPT_MAX: u64 = 1 << 20;
/// Who runs scripts if nobody is named, and there is that user.
const DEFAULT_USER: &str = "keepalived_script";
const USERS: &str = "/etc/passwd";

/// By what an event of an instance reaches vipherald.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// The instance's `notify`.
    Notify,
    /// A hook of its sync group.
    Group,
    /// A FIFO.
    Fifo,
    /// Hooks for single events.
    Hooks,
}

/// A way from keepalived to vipherald.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wire {
    /// What it is.
    pub by: By,
    /// The sync group.
    pub group: Option<String>,
    /// The keywords whose scripts run vipherald.
    pub keywords: Vec<String>,
}

/// How the events of an instance reach vipherald; by nothing at all if there is none.
#[must_use]
pub fn wires(configuration: &Configuration, instance: &Instance) -> Vec<Wire> {
    let of_instance = keywords(&instance.hooks);
    let by = if of_instance.iter().any(|keyword| keyword == "notify") {
        By::Notify
    } else {
        By::Hooks
    };
    let groups = configuration.groups().iter();
    let groups = groups.filter(|group| group.instances.contains(&instance.name));
    let mut wires = vec![(by, None, of_instance)];
    wires.extend(groups.map(|group| {
        let name = Some(group.name.clone());
        (By::Group, name, keywords(&group.hooks))
    }));
    wires.push((By::Fifo, None, keywords(&configuration.scripts().fifos)));
    wires
        .into_iter()
        .filter(|(_, _, keywords)| !keywords.is_empty())
        .map(|(by, group, keywords)| Wire {
            by,
            group,
            keywords,
        })
        .collect()
}

fn keywords(hooks: &[Hook]) -> Vec<String> {
    let ours = hooks.iter().filter(|hook| runs_vipherald(hook));
    ours.map(|hook| hook.keyword.clone()).collect()
}

/// Whether the script is vipherald, has it among its arguments (`systemctl`, `sh -c`), or calls it
/// in its text.
fn runs_vipherald(hook: &Hook) -> bool {
    let Some((program, arguments)) = hook.command.split_first() else {
        return false;
    };
    Path::new(program).file_name() == Some(NAME.as_ref())
        || arguments
            .iter()
            .any(|argument| calls_vipherald(argument.as_bytes()))
        || find(program).is_some_and(|path| is_script_of_vipherald(&path).unwrap_or(false))
}

fn is_script_of_vipherald(path: &Path) -> io::Result<bool> {
    let file = regular_file::open(path, 0)?;
    let mut text = Vec::new();
    file.take(SCRIPT_MAX).read_to_end(&mut text)?;
    Ok(calls_vipherald(&text))
}

/// Whether the text has the program's name, or that of one of its units, as the end of a word.
fn calls_vipherald(text: &[u8]) -> bool {
    let ends = |after: &[u8]| match after.first() {
        None | Some(b'"' | b'\'' | b';' | b'&' | b'|' | b')') => true,
        Some(byte) => byte.is_ascii_whitespace(),
    };
    (0..text.len()).any(|at| {
        let after = text[at..].strip_prefix(NAME.as_bytes());
        after.is_some_and(|after| ends(after) || UNITS.iter().any(|unit| after.starts_with(unit)))
    })
}

/// The program's path, which keepalived looks for in PATH if it is a bare name.
fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// Why scripts that run vipherald don't run, or not with the rights that it needs.
#[must_use]
pub fn problems(configuration: &Configuration) -> Vec<Problem> {
    let users = fs::read_to_string(USERS).unwrap_or_default();
    let scripts = configuration.scripts();
    let mut problems = Vec::new();
    let mut look_at = |block: Option<(&'static str, &str)>, hooks: &[Hook]| {
        for hook in hooks.iter().filter(|hook| runs_vipherald(hook)) {
            problems.extend(complaint(hook, scripts, &users).map(|message| Problem {
                file: hook.file.clone(),
                line: hook.line,
                block: block.map(|(kind, name)| Block {
                    kind,
                    name: name.to_owned(),
                }),
                message: format!("{}: {message}", hook.keyword),
                stops: false,
            }));
        }
    };
    for instance in configuration.instances() {
        look_at(Some(("vrrp_instance", &instance.name)), &instance.hooks);
    }
    for group in configuration.groups() {
        look_at(Some(("vrrp_sync_group", &group.name)), &group.hooks);
    }
    look_at(None, &scripts.fifos);
    problems
}

/// What is wrong with a hook.
fn complaint(hook: &Hook, scripts: &Scripts, users: &str) -> Option<String> {
    let program = hook.command.first()?;
    complaint_about_user(hook, scripts, users)
        .or_else(|| complaint_about_program(program, scripts.security))
}

fn complaint_about_user(hook: &Hook, scripts: &Scripts, users: &str) -> Option<String> {
    let named = hook.user.as_ref().or(scripts.user.as_ref());
    let user = match named {
        Some(user) => user,
        None if id_of(DEFAULT_USER, users).is_some() => DEFAULT_USER,
        None if scripts.security => {
            return Some(format!(
                "keepalived ignores it, because with enable_script_security it needs a user, and \
                 there is no {DEFAULT_USER}: set `script_user root` in global_defs"
            ));
        }
        // keepalived's own.
        None => return None,
    };
    (user != "root" && id_of(user, users) != Some(0)).then(|| {
        format!(
            "keepalived runs it as {user}, without the capabilities that vipherald needs: set \
             `script_user root` in global_defs"
        )
    })
}

/// The number of a user in the text of /etc/passwd.
fn id_of(user: &str, users: &str) -> Option<u32> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(user)).then_some(())?;
        fields.nth(1)?.parse().ok()
    })
}

fn complaint_about_program(program: &str, security: bool) -> Option<String> {
    let ignores = "keepalived ignores it";
    let Some(path) = find(program) else {
        return Some(format!("{ignores}: there is no {program} in PATH"));
    };
    let path = match fs::canonicalize(&path) {
        Ok(path) => path,
        Err(error) => return Some(format!("{ignores}: {}: {error}", path.display())),
    };
    let Ok(metadata) = fs::metadata(&path) else {
        return None;
    };
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Some(format!("{ignores}: {} is not executable", path.display()));
    }
    let unsafe_part = path
        .ancestors()
        .filter_map(|part| Some((part, fs::symlink_metadata(part).ok()?)))
        .filter(|(_, metadata)| others_can_change(metadata))
        .last();
    let (part, metadata) = unsafe_part.filter(|_| security)?;
    let who = if metadata.uid() == 0 {
        "can be written by others than root"
    } else {
        "does not belong to root"
    };
    Some(format!(
        "{ignores} because of enable_script_security: {} {who}",
        part.display()
    ))
}

/// What keepalived's `enable_script_security` minds.
fn others_can_change(metadata: &Metadata) -> bool {
    let mode = metadata.permissions().mode();
    let is_sticky_folder = metadata.is_dir() && mode & 0o1000 != 0;
    let group_can_write = metadata.gid() != 0 && mode & 0o020 != 0;
    let all_can_write = mode & 0o002 != 0;
    metadata.uid() != 0 || (!is_sticky_folder && (group_can_write || all_can_write))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vipherald_core::keepalived;
    use vipherald_core::keepalived::{Memory, Options};

    const USERS: &str = "root:x:0:0::/:/bin/sh\ntoor:x:0:0::/:\nnobody:x:65534:1::/:\n";

    fn read(text: &str) -> Configuration {
        let files = Memory::default().with("/k", text);
        keepalived::read(&files, Path::new("/k"), &Options::default()).unwrap()
    }

    fn instance(hooks: &str) -> String {
        format!(
            "vrrp_instance VI_1 {{\ninterface eth0\nvirtual_router_id 51\nvirtual_ipaddress {{ \
             10.0.0.1 }}\n{hooks}\n}}\n"
        )
    }

    /// `BY KEYWORD,…` for each wire.
    fn wired(text: &str) -> Vec<String> {
        let configuration = read(text);
        wires(&configuration, configuration.instance("VI_1").unwrap())
            .into_iter()
            .map(|wire| {
                let group = wire.group.unwrap_or_default();
                format!("{:?}{group} {}", wire.by, wire.keywords.join(","))
            })
            .collect()
    }

    #[test]
    fn vipherald_is_reached_by_its_name_at_any_path() {
        for (hooks, expected) in [
            ("notify \"/opt/x/vipherald notify\"", vec!["Notify notify"]),
            ("notify vipherald", vec!["Notify notify"]),
            (
                "notify_master \"/usr/bin/systemctl start vipherald-master@VI_1\"\nnotify_stop \"/v\"",
                vec!["Hooks notify_master"],
            ),
            (
                "notify_backup \"/bin/sh -c 'exec /x/vipherald purge 10.0.0.1'\"",
                vec!["Hooks notify_backup"],
            ),
            (
                "notify \"/usr/bin/logger -f /var/log/vipherald.log\"",
                vec![],
            ),
            ("notify /nonexistent/hook", vec![]),
            ("notify /mine\nnotify /x/vipherald", vec![]),
            ("notify /dev/zero", vec![]),
        ] {
            assert_eq!(wired(&instance(hooks)), expected, "{hooks}");
        }
    }

    #[test]
    fn groups_and_fifos_reach_it_for_all_their_instances() {
        let group = |hook| format!("vrrp_sync_group G {{\ngroup {{ VI_1 }}\n{hook}\n}}\n");
        let fifo = |keyword, path: &str| {
            format!("global_defs {{\n{path}\n{keyword} \"/x/vipherald fifo\"\n}}\n")
        };
        let plain = instance("");
        let by_group = plain.clone() + &group("notify \"/x/vipherald notify\"");
        assert_eq!(wired(&by_group), ["GroupG notify"]);
        assert!(wired(&(plain.clone() + &group("notify /mine"))).is_empty());
        let vrrp = fifo("vrrp_notify_fifo_script", "vrrp_notify_fifo /run/f") + &plain;
        assert_eq!(wired(&vrrp), ["Fifo vrrp_notify_fifo_script"]);
        let all = fifo("notify_fifo_script", "notify_fifo /run/f") + &plain;
        assert_eq!(wired(&all), ["Fifo notify_fifo_script"]);
        let lvs = fifo("lvs_notify_fifo_script", "lvs_notify_fifo /run/f") + &plain;
        assert!(wired(&lvs).is_empty());
        assert!(wired(&(fifo("vrrp_notify_fifo_script", "") + &plain)).is_empty());
    }

    #[test]
    fn the_user_of_a_hook_needs_to_be_root() {
        let complaint = |globals: &str, user: &str, users| {
            let text = format!("global_defs {{\n{globals}\n}}\n")
                + &instance(&format!("notify /x/vipherald {user}"));
            let configuration = read(&text);
            let hook = &configuration.instances()[0].hooks[0];
            complaint_about_user(hook, configuration.scripts(), users)
        };
        let with_default = USERS.to_owned() + "keepalived_script:x:7:7::/:\n";
        for (globals, user, users) in [
            ("script_user root", "", USERS),
            ("script_user nobody", "toor", USERS),
            ("", "", USERS),
            ("enable_script_security\nscript_user root", "", USERS),
        ] {
            assert_eq!(complaint(globals, user, users), None, "{globals} {user}");
        }
        for (globals, user, users, said) in [
            ("script_user nobody", "", USERS, "as nobody"),
            ("script_user root", "nobody", USERS, "as nobody"),
            ("", "", &with_default, "as keepalived_script"),
            ("enable_script_security", "", USERS, "ignores it"),
        ] {
            let complaint = complaint(globals, user, users).unwrap();
            assert!(complaint.contains(said), "{complaint}");
            assert!(complaint.contains("script_user root"), "{complaint}");
        }
    }

    #[test]
    fn a_program_that_keepalived_does_not_run_is_told() {
        let said = |program, security| complaint_about_program(program, security);
        assert_eq!(said("/bin/sh", false), None);
        assert!(said("/nonexistent/vipherald", false).is_some());
        assert!(
            said("/etc/passwd", false)
                .unwrap()
                .contains("not executable")
        );
        assert!(
            said("no-such-program-anywhere", false)
                .unwrap()
                .contains("PATH")
        );
    }
}
