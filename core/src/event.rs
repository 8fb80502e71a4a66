//! What keepalived said: an event, from the arguments of `notify` or a line of its FIFO.
//!
//! An event is a claim, not the truth: whether a VIP is here is asked of the kernel.

use std::str::FromStr;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether an instance or a sync group changed.
    pub of: Subject,
    /// Its name in keepalived.conf.
    pub name: String,
    /// What it is now, as keepalived writes it.
    pub state: String,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A `vrrp_instance`.
    Instance,
    /// A `vrrp_sync_group`: its instances changed together.
    Group,
}

/// What an event calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// This host has the VIPs now, or has to say so again.
    Announce,
    /// Another host may have them now.
    Purge,
}

/// A state that keepalived does not know: misspelt in a hook, or of another version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: keepalived knows no state {state}: nothing is done; its states are {}", STATES.map(|(state, _)| state).join(", "))]
pub struct UnknownState {
    /// The instance or group.
    pub name: String,
    /// What it is said to be.
    pub state: String,
}

/// What each state calls for: all that keepalived 2.0 to 2.4 write to scripts and FIFOs.
const STATES: [(&str, Option<Call>); 8] = [
    ("MASTER", Some(Call::Announce)),
    // A split brain has just healed, and the other one's announcements are still in the caches.
    ("MASTER_RX_LOWER_PRI", Some(Call::Announce)),
    ("BACKUP", Some(Call::Purge)),
    ("FAULT", Some(Call::Purge)),
    ("STOP", Some(Call::Purge)),
    ("DELETED", Some(Call::Purge)),
    ("MASTER_PRIORITY", None),
    ("BACKUP_PRIORITY", None),
];

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
    /// What the event calls for: nothing for a mere change of priority.
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

    /// Reads a line of the FIFO, without its end: `INSTANCE "VI_1" MASTER 100`. The name may hold
    /// anything, quotes included. `None`: no such line.
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

/// Whether a line of the FIFO tells of a virtual or real server, as those of `notify_fifo` do where
/// keepalived also checks servers: `VS [192.0.2.10]:tcp:80 UP`.
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
    fn a_line_of_the_fifo_is_read_as_keepalived_writes_it() {
        let event = Event::from_line("INSTANCE \"VI_1\" MASTER 100").unwrap();
        assert_eq!((event.of, event.name.as_str()), (Subject::Instance, "VI_1"));
        assert_eq!(event.calls_for(), Ok(Some(Call::Announce)));
        let event = Event::from_line("GROUP \"a \"b\" c\" FAULT 0").unwrap();
        assert_eq!(
            (event.of, event.name.as_str()),
            (Subject::Group, "a \"b\" c")
        );
        assert_eq!(event.calls_for(), Ok(Some(Call::Purge)));
    }

    #[test]
    fn states_call_for_what_they_mean() {
        let call = |state: &str| {
            Event::from_line(&format!("INSTANCE \"VI_1\" {state} 1"))
                .unwrap()
                .calls_for()
        };
        for state in ["MASTER", "MASTER_RX_LOWER_PRI"] {
            assert_eq!(call(state), Ok(Some(Call::Announce)), "{state}");
        }
        for state in ["BACKUP", "FAULT", "STOP", "DELETED"] {
            assert_eq!(call(state), Ok(Some(Call::Purge)), "{state}");
        }
        for state in ["MASTER_PRIORITY", "BACKUP_PRIORITY"] {
            assert_eq!(call(state), Ok(None), "{state}");
        }
        for state in ["NEW_ONE", "MASTER_RX_LOWER_PRIO", "INIT"] {
            let told = call(state).unwrap_err().to_string();
            assert!(
                told.contains(state) && told.contains("BACKUP, FAULT"),
                "{told}"
            );
        }
    }

    #[test]
    fn servers_are_told_from_garbage() {
        for line in [
            "VS [192.0.2.10]:tcp:80 UP",
            "RS [10.0.0.1]:tcp:80 [192.0.2.10]:tcp:80 DOWN",
        ] {
            assert!(is_about_servers(line), "{line}");
        }
        assert!(!is_about_servers("INSTANCE \"VS \" MASTER 100"));
        assert!(!is_about_servers("VSX"));
    }

    #[test]
    fn anything_else_is_no_event() {
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
