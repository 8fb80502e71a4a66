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
    /// What the event calls for; nothing for a mere change of priority, and for states of other
    /// versions of keepalived.
    #[must_use]
    pub fn calls_for(&self) -> Option<Call> {
        match self.state.as_str() {
            // The second: a split brain has just healed, and the other one's announcements are
            // still in the caches.
            "MASTER" | "MASTER_RX_LOWER_PRI" => Some(Call::Announce),
            "BACKUP" | "FAULT" | "STOP" | "DELETED" => Some(Call::Purge),
            _ => None,
        }
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
        assert_eq!(event.calls_for(), Some(Call::Announce));
        let event = Event::from_line("GROUP \"a \"b\" c\" FAULT 0").unwrap();
        assert_eq!(
            (event.of, event.name.as_str()),
            (Subject::Group, "a \"b\" c")
        );
        assert_eq!(event.calls_for(), Some(Call::Purge));
    }

    #[test]
    fn states_call_for_what_they_mean() {
        let call = |state: &str| {
            Event::from_line(&format!("INSTANCE \"VI_1\" {state} 1"))
                .unwrap()
                .calls_for()
        };
        for state in ["MASTER", "MASTER_RX_LOWER_PRI"] {
            assert_eq!(call(state), Some(Call::Announce), "{state}");
        }
        for state in ["BACKUP", "FAULT", "STOP", "DELETED"] {
            assert_eq!(call(state), Some(Call::Purge), "{state}");
        }
        for state in ["MASTER_PRIORITY", "BACKUP_PRIORITY", "NEW_ONE"] {
            assert_eq!(call(state), None, "{state}");
        }
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
