//! Structured records for systemd's journal (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL>): a line of the
//! log with a kind that never changes, which `journalctl MESSAGE_ID=…` finds and the message catalog
//! explains, and with fields.

use std::fs;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use crate::printable::one_line;

/// Where journald takes records.
const SOCKET: &str = "/run/systemd/journal/socket";
/// The directory of journald's sockets; /dev/log leads there unless another daemon takes syslog's lines.
const DIRECTORY: &str = "/run/systemd/journal";
/// The facility "daemon", as everything else that is logged.
const FACILITY: u8 = 3;

/// What a line is about. Each kind has an entry in packaging/vipherald.catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This host has announced VIPs.
    TakenOver,
    /// The same, and each host that answers follows.
    AllFollow,
    /// No frame of any other host came in.
    PathSilent,
    /// Something on the way out drops the VIP's frames.
    Blocked,
    /// A peer sends to a wrong MAC.
    StalePeer,
    /// A required peer does not answer.
    SilentPeer,
    /// A peer follows that did not at first.
    FollowsLate,
    /// A host still sends to the VIP's old owner.
    StillSends,
    /// Another host has the VIP.
    Conflict,
    /// Another host had the VIP, and is gone.
    ConflictOver,
    /// A neighbour entry was deleted.
    Purged,
    /// An order of another host was carried out.
    OrderObeyed,
    /// A VIP that a dead keepalived had left was removed.
    Released,
}

impl Kind {
    /// Its MESSAGE_ID.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::TakenOver => "8acd8be1571944f78f51216ef8bcead7",
            Self::AllFollow => "da2c5f5e212448b79c832e80cee5bd99",
            Self::PathSilent => "1488b4f159bf482e8672b5eeb1e13629",
            Self::Blocked => "b639b5bff29347938650c40bc4d4530f",
            Self::StalePeer => "6ec7825850ae469693db75f70f3b891d",
            Self::SilentPeer => "823e7d600275413d8b9fa3e796e3621c",
            Self::FollowsLate => "31518abfbac64607afc712afc2649e27",
            Self::StillSends => "7a4f8749e706485083c8ded272a03b8a",
            Self::Conflict => "6be11a6486ed4603bfc2fd7a050564b6",
            Self::ConflictOver => "e2819a04b01441d79866871daa624cec",
            Self::Purged => "c563b6a10cb84cf3bcc0637b056170ec",
            Self::OrderObeyed => "882a7e41211d4e888c71d0c49bdc5099",
            Self::Released => "f4fd67af0d214d128d5afc94a0c9a80c",
        }
    }
}

/// What the journal gets besides the text of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    kind: Kind,
    fields: Vec<(&'static str, String)>,
}

impl Notice {
    /// A notice of this kind, without fields.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let fields = Vec::new();
        Self { kind, fields }
    }

    /// Adds the field `VIPHERALD_NAME`. A field may occur several times.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &(impl ToString + ?Sized)) -> Self {
        self.fields.push((name, value.to_string()));
        self
    }

    /// Adds a field with each of these values.
    #[must_use]
    pub fn with_each(self, name: &'static str, values: impl IntoIterator<Item: ToString>) -> Self {
        let values = values.into_iter();
        values.fold(self, |notice, value| notice.with(name, &value))
    }

    /// The record, with the line's text and its syslog priority.
    fn record(&self, text: &str, priority: u8) -> String {
        let mut record = format!(
            "MESSAGE={}\nMESSAGE_ID={}\nPRIORITY={priority}\nSYSLOG_FACILITY={FACILITY}\n\
             SYSLOG_IDENTIFIER=vipherald\n",
            one_line(text),
            self.kind.id()
        );
        for (name, value) in &self.fields {
            record += &format!("VIPHERALD_{name}={}\n", one_line(value));
        }
        record
    }
}

/// The journal's own socket.
#[derive(Debug)]
pub(crate) struct Journal(UnixDatagram);

impl Journal {
    /// Where journald also gets what goes to syslog.
    pub(crate) fn behind_syslog() -> Option<Self> {
        let syslog = fs::canonicalize("/dev/log").ok()?;
        let is_journald = syslog.parent() == Some(Path::new(DIRECTORY));
        is_journald.then(Self::open).flatten()
    }

    /// If journald runs, and a sandbox allows it.
    pub(crate) fn open() -> Option<Self> {
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect(SOCKET).ok()?;
        // A daemon that does not read must not delay a failover.
        socket.set_nonblocking(true).ok()?;
        Some(Self(socket))
    }

    /// Sends a record.
    pub(crate) fn send(&self, notice: &Notice, text: &str, priority: u8) -> io::Result<()> {
        let record = notice.record(text, priority);
        self.0.send(record.as_bytes()).map(|_| ())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ALL: [Kind; 13] = [
        Kind::TakenOver,
        Kind::AllFollow,
        Kind::PathSilent,
        Kind::Blocked,
        Kind::StalePeer,
        Kind::SilentPeer,
        Kind::FollowsLate,
        Kind::StillSends,
        Kind::Conflict,
        Kind::ConflictOver,
        Kind::Purged,
        Kind::OrderObeyed,
        Kind::Released,
    ];

    #[test]
    fn a_record_has_one_line_for_each_field_whatever_is_in_it() {
        let notice = Notice::new(Kind::Purged)
            .with("INSTANCE", "a\nMESSAGE=forged")
            .with_each("VIP", ["10.0.0.1", "10.0.0.2"]);
        let expected = "MESSAGE=purged\\nPRIORITY=0\nMESSAGE_ID=c563b6a10cb84cf3bcc0637b056170ec\n\
             PRIORITY=6\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=vipherald\n\
             VIPHERALD_INSTANCE=a\\nMESSAGE=forged\nVIPHERALD_VIP=10.0.0.1\nVIPHERALD_VIP=10.0.0.2\n";
        assert_eq!(notice.record("purged\nPRIORITY=0", 6), expected);
    }

    #[test]
    fn the_catalog_explains_each_kind_and_nothing_else() {
        let catalog = include_str!("../packaging/vipherald.catalog");
        let explained = catalog.lines().filter_map(|line| line.strip_prefix("-- "));
        let explained: Vec<_> = explained.collect();
        let ids: BTreeSet<_> = ALL.map(Kind::id).into();
        assert_eq!(ids.len(), ALL.len());
        assert_eq!(explained.len(), ALL.len());
        assert_eq!(explained.into_iter().collect::<BTreeSet<_>>(), ids);
        for id in ids {
            assert!(
                id.len() == 32
                    && id
                        .chars()
                        .all(|digit| matches!(digit, '0'..='9' | 'a'..='f'))
            );
            let (_, entry) = catalog.split_once(&format!("-- {id}\n")).unwrap();
            assert!(
                entry.starts_with("Subject: ") && entry.contains("\n\n"),
                "{id}"
            );
        }
    }
}
