//! keepalived's events: the arguments of `notify`, or a line of its FIFO.
//!
//! An event only starts the work. Whether this host holds a VIP, the kernel decides.

use std::str::FromStr;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether an instance or a sync group changed state.
    pub of: Subject,
    /// Its name in keepalived.conf.
    pub name: String,
    /// Its new state, as keepalived writes it.
    pub state: String,
}

/// What changed state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A `vrrp_instance`.
    Instance,
    /// A `vrrp_sync_group`: all its instances changed together.
    Group,
}

/// What an event calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// This host owns the VIPs now, or has to announce them again.
    Announce,
    /// Another host may own them now.
    Purge,
}

/// A state that keepalived does not have: a misspelt hook, or another keepalived version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: keepalived knows no state {state}: nothing is done; its states are {}", STATES.map(|(state, _)| state).join(", "))]
pub struct UnknownState {
    /// The instance or group.
    pub name: String,
    /// The unknown state.
    pub state: String,
}

/// Every state that keepalived 2.0 to 2.4 write to scripts and FIFOs, and what it calls for.
const STATES: [(&str, Option<Call>); 8] = [
    ("MASTER", Some(Call::Announce)),
    // A split brain has just healed. Neighbour tables still hold the other master's MAC.
    ("MASTER_RX_LOWER_PRI", Some(Call::Announce)),
    ("BACKUP", Some(Call::Purge)),
    ("FAULT", Some(Call::Purge)),
    ("STOP", Some(Call::Purge)),
    ("DELETED", Some(Call::Purge)),
    ("MASTER_PRIORITY", None),
    ("BACKUP_PRIORITY", None),
];

impl Subject {
    /// As keepalived writes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Instance => "INSTANCE",
            Self::Group => "GROUP",
        }
    }
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "INSTANCE" => Ok(Self::Instance),
            "GROUP" => Ok(Self::Group),
            _ => Err("keepalived's `notify` says INSTANCE or GROUP here".to_owned()),
        }
    }
}

impl Event {
    /// What the event calls for; `None` for a change of priority alone.
    ///
    /// # Errors
    /// If keepalived has no such state.
    pub fn calls_for(&self) -> Result<Option<Call>, UnknownState> {
        let known = STATES.iter().find(|(state, _)| *state == self.state);
        known.map(|(_, call)| *call).ok_or_else(|| UnknownState {
            name: self.name.clone(),
            state: self.state.clone(),
        })
    }

    /// Parses a FIFO line without its newline, such as `INSTANCE "VI_1" MASTER 100`. The name may
    /// contain anything, even quotes. `None` if the line is no event.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        let (of, rest) = line.split_once(" \"")?;
        let (name, rest) = rest.rsplit_once("\" ")?;
        let mut words = rest.split(' ');
        let state = words.next().filter(|state| is_state(state))?;
        let priority = words.next()?;
        let well_formed = words.next().is_none() && priority.parse::<u16>().is_ok();
        well_formed.then_some(Self {
            of: of.parse().ok()?,
            name: name.to_owned(),
            state: state.to_owned(),
        })
    }
}

/// Whether a FIFO line reports a virtual or real server, such as `VS [192.0.2.10]:tcp:80 UP`.
/// keepalived writes such lines to `notify_fifo` if it also checks servers.
#[must_use]
pub fn is_about_servers(line: &str) -> bool {
    line.starts_with("VS ") || line.starts_with("RS ")
}

fn is_state(word: &str) -> bool {
    !word.is_empty()
        && word
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifo_line_names_an_instance_or_a_group() {
        for (line, of, name) in [
            ("INSTANCE \"VI_1\" MASTER 100", Subject::Instance, "VI_1"),
            ("GROUP \"a \"b\" c\" FAULT 0", Subject::Group, "a \"b\" c"),
        ] {
            let event = Event::from_line(line).unwrap();
            assert_eq!((event.of, event.name.as_str()), (of, name));
        }
    }

    #[test]
    fn every_state_calls_for_an_announcement_a_purge_or_nothing() {
        let call = |state: &str| {
            Event::from_line(&format!("INSTANCE \"VI_1\" {state} 1"))
                .unwrap()
                .calls_for()
        };
        for (states, expected) in [
            ("MASTER MASTER_RX_LOWER_PRI", Some(Call::Announce)),
            ("BACKUP FAULT STOP DELETED", Some(Call::Purge)),
            ("MASTER_PRIORITY BACKUP_PRIORITY", None),
        ] {
            for state in states.split(' ') {
                assert_eq!(call(state), Ok(expected), "{state}");
            }
        }
        for state in ["NEW_ONE", "MASTER_RX_LOWER_PRIO", "INIT"] {
            let error = call(state).unwrap_err().to_string();
            assert!(
                error.contains(state) && error.contains("BACKUP, FAULT"),
                "{error}"
            );
        }
    }

    #[test]
    fn lines_about_servers_are_recognised() {
        for (line, expected) in [
            ("VS [192.0.2.10]:tcp:80 UP", true),
            ("RS [10.0.0.1]:tcp:80 [192.0.2.10]:tcp:80 DOWN", true),
            ("INSTANCE \"VS \" MASTER 100", false),
            ("VSX", false),
        ] {
            assert_eq!(is_about_servers(line), expected, "{line}");
        }
    }

    #[test]
    fn any_other_line_is_no_event() {
        for line in [
            "",
            "INSTANCE",
            "INSTANCE VI_1 MASTER 100",
            "INSTANCE \"VI_1\" MASTER",
            "INSTANCE \"VI_1\" master 100",
            "INSTANCE \"VI_1\" MASTER 100 1",
            "INSTANCE \"VI_1\" MASTER x",
            "VS [10.0.0.1]:tcp:80 UP",
            "ANCE \"VI_1\" MASTER 100",
            "\0\u{1}\"\" \"",
        ] {
            assert_eq!(Event::from_line(line), None, "{line:?}");
        }
    }
}
