//! Which of keepalived's scripts run vipherald, and whether keepalived runs those scripts.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use vipherald_core::keepalived::{Block, Configuration, Hook, Instance, Problem, Scripts};

use crate::regular_file;

/// The name of the program.
const NAME: &str = "vipherald";
/// What follows it in the names of the systemd units that keepalived's hooks start.
const UNITS: [&[u8]; 2] = [b"-master@", b"-backup@"];
/// Octets of a script that are searched for the name.
const SCRIPT_MAX: u64 = 1 << 20;
/// The user that runs scripts if none is named and this one exists.
const DEFAULT_USER: &str = "keepalived_script";
const USERS: &str = "/etc/passwd";

/// How an event of an instance reaches vipherald.
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

/// The ways from keepalived to vipherald for one instance. Its events reach vipherald unless `wired`
/// is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Wires {
    /// Those that work.
    pub wired: Vec<Wire>,
    /// Those whose scripts keepalived ignores.
    pub ignored: Vec<Wire>,
}

/// What keepalived does with a script that runs vipherald.
#[derive(Debug)]
enum Verdict {
    Runs,
    /// As this user, without the capabilities that vipherald needs.
    RunsAs(String),
    /// And why.
    Ignores(String),
}

/// The scripts of a configuration, and the users of this host.
#[derive(Debug)]
pub struct Wiring<'a> {
    configuration: &'a Configuration,
    users: String,
}

impl<'a> Wiring<'a> {
    /// Reads the users.
    #[must_use]
    pub fn new(configuration: &'a Configuration) -> Self {
        Self {
            configuration,
            users: fs::read_to_string(USERS).unwrap_or_default(),
        }
    }

    /// How the events of an instance reach vipherald.
    #[must_use]
    pub fn wires(&self, instance: &Instance) -> Wires {
        let mut wires = Wires::default();
        let mut add = |by: Option<By>, group: Option<&str>, hooks: &[Hook]| {
            let ours = hooks.iter().filter(|hook| runs_vipherald(hook));
            let is_run = |hook: &&Hook| !matches!(self.verdict(hook), Verdict::Ignores(_));
            let (run, ignored): (Vec<_>, Vec<_>) = ours.partition(is_run);
            for (hooks, wires) in [(run, &mut wires.wired), (ignored, &mut wires.ignored)] {
                let keywords: Vec<_> = hooks.iter().map(|hook| hook.keyword.clone()).collect();
                let of_instance = match keywords.iter().any(|keyword| keyword == "notify") {
                    true => By::Notify,
                    false => By::Hooks,
                };
                wires.extend((!keywords.is_empty()).then(|| Wire {
                    by: by.unwrap_or(of_instance),
                    group: group.map(str::to_owned),
                    keywords,
                }));
            }
        };
        add(None, None, &instance.hooks);
        for group in self.configuration.groups() {
            if group.instances.contains(&instance.name) {
                add(Some(By::Group), Some(&group.name), &group.hooks);
            }
        }
        add(Some(By::Fifo), None, &self.configuration.scripts().fifos);
        wires
    }

    /// Why scripts that run vipherald don't run, or lack the capabilities that it needs.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |block: Option<Block>, hooks: &[Hook]| {
            for hook in hooks.iter().filter(|hook| runs_vipherald(hook)) {
                let message = match self.verdict(hook) {
                    Verdict::Runs => continue,
                    Verdict::RunsAs(user) => format!(
                        "keepalived runs it as {user}, without the capabilities that vipherald \
                         needs: set `script_user root` in global_defs"
                    ),
                    Verdict::Ignores(why) => format!("keepalived ignores it{why}"),
                };
                problems.push(Problem {
                    file: hook.file.clone(),
                    line: hook.line,
                    block: block.clone(),
                    message: format!("{}: {message}", hook.keyword),
                    stops: false,
                });
            }
        };
        let block = |kind, name: &str| {
            let name = name.to_owned();
            Some(Block { kind, name })
        };
        for instance in self.configuration.instances() {
            add(block("vrrp_instance", &instance.name), &instance.hooks);
        }
        for group in self.configuration.groups() {
            add(block("vrrp_sync_group", &group.name), &group.hooks);
        }
        add(None, &self.configuration.scripts().fifos);
        problems
    }

    fn verdict(&self, hook: &Hook) -> Verdict {
        let scripts = self.configuration.scripts();
        let as_user = verdict_on_user(hook, scripts, &self.users);
        let program = hook.command.first();
        match (
            &as_user,
            program.and_then(|program| why_ignored(program, scripts.security)),
        ) {
            (Verdict::Ignores(_), _) | (_, None) => as_user,
            (_, Some(why)) => Verdict::Ignores(why),
        }
    }
}

/// Whether the script is vipherald, names it in an argument (`systemctl`, `sh -c`), or calls it in its
/// text.
fn runs_vipherald(hook: &Hook) -> bool {
    let Some((program, arguments)) = hook.command.split_first() else {
        return false;
    };
    Path::new(program).file_name() == Some(NAME.as_ref())
        || arguments
            .iter()
            .any(|argument| calls_vipherald(argument.as_bytes()))
        || find(program)
            .and_then(|path| regular_file::read(&path, SCRIPT_MAX).ok())
            .is_some_and(|text| calls_vipherald(&text))
}

/// Whether a word of the text ends with the program's name, or continues it to that of a unit.
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

fn verdict_on_user(hook: &Hook, scripts: &Scripts, users: &str) -> Verdict {
    let user = match hook.user.as_ref().or(scripts.user.as_ref()) {
        Some(user) => user,
        None if id_of(DEFAULT_USER, users).is_some() => DEFAULT_USER,
        None if scripts.security => {
            return Verdict::Ignores(format!(
                ", because with enable_script_security it needs a user, and there is no \
                 {DEFAULT_USER}: set `script_user root` in global_defs"
            ));
        }
        // keepalived's own user.
        None => return Verdict::Runs,
    };
    if user == "root" || id_of(user, users) == Some(0) {
        Verdict::Runs
    } else {
        Verdict::RunsAs(user.to_owned())
    }
}

/// The number of a user in the text of /etc/passwd.
fn id_of(user: &str, users: &str) -> Option<u32> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(user)).then_some(())?;
        fields.nth(1)?.parse().ok()
    })
}

/// Why keepalived ignores a program, to follow "keepalived ignores it".
fn why_ignored(program: &str, security: bool) -> Option<String> {
    let Some(path) = find(program) else {
        return Some(format!(": there is no {program} in PATH"));
    };
    let path = match fs::canonicalize(&path) {
        Ok(path) => path,
        Err(error) => return Some(format!(": {}: {error}", path.display())),
    };
    let metadata = fs::metadata(&path).ok()?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Some(format!(": {} is not executable", path.display()));
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
        " because of enable_script_security: {} {who}",
        part.display()
    ))
}

/// What keepalived's `enable_script_security` rejects.
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

    /// `BY KEYWORD,…` for each wire, whether or not the program exists here.
    fn wired(text: &str) -> Vec<String> {
        let configuration = read(text);
        let wires = Wiring::new(&configuration).wires(configuration.instance("VI_1").unwrap());
        wires
            .wired
            .into_iter()
            .chain(wires.ignored)
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
    fn a_script_that_keepalived_ignores_is_no_wire() {
        let text = "global_defs {\nscript_user root\n}\n".to_owned()
            + &instance("notify /nonexistent/vipherald\nnotify_stop \"/bin/sh -c vipherald\"");
        let configuration = read(&text);
        let wiring = Wiring::new(&configuration);
        let wires = wiring.wires(configuration.instance("VI_1").unwrap());
        let wire = |by, keyword: &str| Wire {
            by,
            group: None,
            keywords: vec![keyword.to_owned()],
        };
        assert_eq!(wires.wired, [wire(By::Hooks, "notify_stop")]);
        assert_eq!(wires.ignored, [wire(By::Notify, "notify")]);
        let problems = wiring.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        let told = "notify: keepalived ignores it: /nonexistent/vipherald: ";
        assert!(problems[0].message.starts_with(told), "{problems:?}");
    }

    #[test]
    fn the_user_of_a_hook_needs_to_be_root() {
        let complaint = |globals: &str, user: &str, users| {
            let text = format!("global_defs {{\n{globals}\n}}\n")
                + &instance(&format!("notify /x/vipherald {user}"));
            let configuration = read(&text);
            let hook = &configuration.instances()[0].hooks[0];
            match verdict_on_user(hook, configuration.scripts(), users) {
                Verdict::Runs => None,
                Verdict::RunsAs(user) => Some(format!("as {user}")),
                Verdict::Ignores(why) => Some(why),
            }
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
            ("enable_script_security", "", USERS, "script_user root"),
        ] {
            let complaint = complaint(globals, user, users).unwrap();
            assert!(complaint.contains(said), "{complaint}");
        }
    }

    #[test]
    fn a_program_that_keepalived_does_not_run_is_told() {
        let said = why_ignored;
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
