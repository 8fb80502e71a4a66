//! What a check found: for people, for programs, and for a monitor.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use log::Level;
use serde::Serialize;
use vipherald_core::address::{Mac, Vip};
use vipherald_core::ask::{Confirmation, PeerVerdict, VipVerdict};
use vipherald_core::host::{Neighbour, NeighbourState};

use super::asked_peer::AskedPeer;
use super::caps::{MOST_PEERS, NotKept, shorten};
use super::purge::state_name;
use super::{Action, Header, Line, Report, list, proxy_off, show_proxies};
use crate::check::{Finding, Mended, Role};
use crate::exit::{Exit, Plugin};
use crate::printable::one_line;

/// Columns that every terminal shows.
const WIDTH: usize = 80;
/// Where the second column begins.
const COLUMN: usize = 21;

/// An SGR colour (ECMA-48 §8.3.117).
fn colour(verdict: VipVerdict) -> &'static str {
    match verdict {
        VipVerdict::Ok => "32",
        VipVerdict::Unproven => "33",
        _ => "31",
    }
}

/// One VIP, and what a repair changed.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What holds now.
    pub finding: Finding,
    /// The verdict before the repair.
    pub before: Option<VipVerdict>,
    /// What was done.
    pub mended: Option<Mended>,
}

impl Checked {
    /// A VIP without a repair.
    #[must_use]
    pub fn found(finding: Finding) -> Self {
        Self {
            finding,
            before: None,
            mended: None,
        }
    }
}

/// What a check found.
#[derive(Debug, Serialize)]
pub struct CheckReport {
    #[serde(flatten)]
    header: Header<VipVerdict>,
    duration_ms: u64,
    frames_sent: u32,
    vips: Vec<CheckedVip>,
    #[serde(skip)]
    checked: Vec<Checked>,
    #[serde(skip)]
    began: Instant,
    #[serde(skip)]
    lasted: Duration,
    #[serde(skip)]
    coloured: bool,
}

#[derive(Debug, Serialize)]
struct CheckedVip {
    address: Vip,
    interface: Option<String>,
    held_here: bool,
    also_on: Vec<String>,
    verdict: VipVerdict,
    owners: Vec<Mac>,
    hosts: BTreeMap<String, IpAddr>,
    proxies: Vec<Mac>,
    cached: Option<Cached>,
    frames_sent: u32,
    peers: Vec<AskedPeer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    more_peers: Option<NonZeroUsize>,
    /// Those that the receipt leaves out.
    #[serde(flatten)]
    not_kept: NotKept,
    reason: Option<String>,
    notes: Vec<String>,
    before: Option<VipVerdict>,
    action: Option<Action>,
}

#[derive(Debug, Serialize)]
struct Cached {
    mac: Option<Mac>,
    state: NeighbourState,
}

impl CheckReport {
    /// Reports what was found, for the instance of this name, or for none.
    #[must_use]
    pub fn new(name: Option<&str>, checked: Vec<Checked>, began: Instant) -> Self {
        let lasted = began.elapsed();
        Self {
            header: Header::new("check", worst(&checked)).about(name),
            duration_ms: u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
            frames_sent: checked.iter().map(|one| one.finding.frames).sum(),
            vips: {
                let mut room = MOST_PEERS;
                let vips = checked.iter();
                vips.map(|one| CheckedVip::of(one, &mut room)).collect()
            },
            checked,
            began,
            lasted,
            coloured: false,
        }
    }

    /// The same for a terminal that shows colours.
    #[must_use]
    pub fn in_colour(self, coloured: bool) -> Self {
        Self { coloured, ..self }
    }

    /// The result as a monitoring plugin's status; UNKNOWN if nothing was checked.
    #[must_use]
    pub fn plugin(&self) -> Plugin {
        let verdicts = self.checked.iter().map(|one| one.finding.verdict);
        verdicts.map(Plugin::from).max().unwrap_or(Plugin::Unknown)
    }

    /// One line, as monitoring plugins print it.
    #[must_use]
    pub fn plugin_line(&self) -> String {
        let short = |one: &Checked| {
            let (vip, verdict) = (one.finding.placed.vip, one.finding.verdict);
            format!("{vip} {verdict}: {}", means(one))
        };
        let is_wrong = |one: &&Checked| one.finding.verdict != VipVerdict::Ok;
        let wrong: Vec<_> = self.checked.iter().filter(is_wrong).map(short).collect();
        let text = match (wrong.as_slice(), self.checked.as_slice()) {
            ([], [only]) => short(only),
            ([], []) => "no VIP was checked".to_owned(),
            ([], all) => format!("{} VIPs ok", all.len()),
            (wrong, _) => wrong.join("; "),
        };
        let count = |verdict: VipVerdict| {
            let like = |one: &&Checked| one.finding.verdict == verdict;
            let number = self.checked.iter().filter(like).count();
            format!("{verdict}={number}")
        };
        let counts = [
            VipVerdict::Ok,
            VipVerdict::Unproven,
            VipVerdict::Stale,
            VipVerdict::Unowned,
            VipVerdict::Conflict,
            VipVerdict::Failed,
        ]
        .map(count)
        .join(" ");
        let (frames, time) = (self.frames_sent, self.lasted.as_secs_f64());
        let numbers = format!("{counts} frames={frames} time={time:.3}s");
        plugin_line(self.plugin(), &text, &numbers)
    }
}

/// A monitoring plugin's line: the only bar in it separates the numbers.
#[must_use]
pub fn plugin_line(plugin: Plugin, text: &str, numbers: &str) -> String {
    let text = text.replace('|', "/");
    let text = one_line(&text);
    let bar = if numbers.is_empty() { "" } else { " | " };
    format!("VIPHERALD {} - {text}{bar}{numbers}\n", plugin.name())
}

fn worst(checked: &[Checked]) -> VipVerdict {
    let all = checked.iter().map(|one| one.finding.verdict);
    // Without any VIP, the check failed.
    all.min().unwrap_or(VipVerdict::Failed)
}

impl CheckedVip {
    /// With at most `room` peers, from which it takes what it needs.
    fn of(checked: &Checked, room: &mut usize) -> Self {
        let finding = &checked.finding;
        let (cached, (peers, more_peers)) = match &finding.role {
            Role::Other(entry) => (entry.map(Cached::of), (Vec::new(), None)),
            Role::Owner { began, peers } => {
                let peers = peers.iter().map(|(peer, verdict)| (peer, *verdict));
                (None, AskedPeer::listed(*began, peers, room))
            }
        };
        let owners = finding.owners.iter();
        let hosts = owners.filter_map(|(mac, host)| Some((mac.to_string(), (*host)?)));
        let also_on = finding.also_on.iter().map(|(name, _)| name.clone());
        let (action, kept) = match checked.mended {
            None => (None, None),
            Some(Mended::Deleted) => (Some(Action::Deleted), None),
            Some(Mended::Announced) => (Some(Action::Announced), None),
            Some(Mended::Kept(why)) => (Some(Action::Kept), Some(why.to_owned())),
        };
        Self {
            address: finding.placed.vip,
            interface: finding.interface.clone(),
            held_here: matches!(finding.role, Role::Owner { .. }),
            also_on: also_on.collect(),
            verdict: finding.verdict,
            owners: finding.owners.iter().map(|(mac, _)| *mac).collect(),
            hosts: hosts.collect(),
            proxies: finding.proxies.clone(),
            cached,
            frames_sent: finding.frames,
            peers,
            more_peers,
            not_kept: NotKept::default(),
            reason: finding.why.clone().or(kept),
            notes: finding.notes.clone(),
            before: checked.before,
            action,
        }
    }
}

impl Cached {
    fn of(entry: Neighbour) -> Self {
        Self {
            mac: entry.mac,
            state: entry.state,
        }
    }
}

/// An owner for people: the MAC, and whose it is.
fn host((mac, host): &(Mac, Option<IpAddr>)) -> String {
    match host {
        Some(host) => format!("{mac} ({host})"),
        None => format!("{mac} (host not known)"),
    }
}

fn all_hosts(owners: &[(Mac, Option<IpAddr>)]) -> String {
    owners.iter().map(host).collect::<Vec<_>>().join(" and ")
}

/// How many hosts hold a VIP for which several answer, as far as is known, as the end of a sentence. A
/// proxy for every address holds none.
fn how_many(finding: &Finding) -> String {
    match finding.owners.len().saturating_sub(finding.proxies.len()) {
        0 | 1 => String::new(),
        2 => ": two hosts hold it, it seems".to_owned(),
        number => format!(": {number} hosts hold it, it seems"),
    }
}

/// Whether several hosts are stale and none is known to follow. Only frames that announce the VIP tell
/// whether their entries are wrong or port security drops what comes from the VIP.
fn may_be_blocked(peers: &[(Confirmation, PeerVerdict)]) -> bool {
    let count = |wanted| peers.iter().filter(|(_, one)| *one == wanted).count();
    count(PeerVerdict::Stale) > 1 && count(PeerVerdict::Proven) == 0
}

/// The verdict in words.
fn means(checked: &Checked) -> String {
    let finding = &checked.finding;
    if let Some(why) = &finding.why {
        return why.clone();
    }
    let owners = &finding.owners;
    match (&finding.role, finding.verdict) {
        (Role::Owner { .. }, VipVerdict::Ok) => {
            "this host holds it, nobody else answers for it, and no peer follows another".to_owned()
        }
        (Role::Owner { peers, .. }, VipVerdict::Stale) => {
            let stale = peers
                .iter()
                .filter(|(_, verdict)| *verdict == PeerVerdict::Stale);
            let (seen, deaf): (Vec<_>, Vec<_>) =
                stale.partition(|(peer, _)| peer.forwarded_by.is_some());
            let name = |all: Vec<&(Confirmation, _)>| {
                let all: Vec<_> = all.into_iter().map(|(peer, _)| peer.peer.ip).collect();
                (all.len(), list(&all))
            };
            let mut known = Vec::new();
            if let (1.., those) = name(seen) {
                known.push(format!("frames for it from {those} go to another MAC"));
            }
            let filter = match may_be_blocked(peers) {
                true => "something on the way out drops frames from the VIP",
                false => "a filter there does not know the VIP",
            };
            known.extend(match name(deaf) {
                (0, _) => None,
                (1, one) => Some(format!(
                    "{one} answers this host's own address and not the VIP: it sends to another \
                     MAC, or {filter}"
                )),
                (_, those) => Some(format!(
                    "{those} answer this host's own address and not the VIP: they send to another \
                     MAC, or {filter}"
                )),
            });
            format!("this host holds it, but {}", known.join(", and "))
        }
        (Role::Owner { .. }, VipVerdict::Conflict) => format!(
            "this host holds it, and it is also answered by {}{}",
            all_hosts(owners.get(1..).unwrap_or_default()),
            how_many(finding)
        ),
        (Role::Other(_), VipVerdict::Conflict) => format!(
            "{} is answered by {}{}",
            finding.placed.vip,
            all_hosts(owners),
            how_many(finding)
        ),
        (Role::Other(entry), VipVerdict::Ok) => {
            let owner = all_hosts(owners);
            match entry.and_then(|entry| entry.mac) {
                Some(_) => format!("it is answered by {owner} alone, to whom this host sends"),
                None => format!("it is answered by {owner} alone; this host holds no entry for it"),
            }
        }
        (Role::Other(entry), VipVerdict::Stale) => {
            let cached = entry.and_then(|entry| entry.mac);
            let cached = cached.map_or_else(String::new, |mac| mac.to_string());
            let does_not = if finding.proxies.is_empty() {
                "which does not answer for it"
            } else {
                "a proxy, which answers for addresses that nobody has"
            };
            format!(
                "this host sends to {cached}, {does_not}; {} answers for it",
                all_hosts(owners)
            )
        }
        (_, VipVerdict::Unowned) => format!("nobody answered {} probes", finding.frames),
        (_, VipVerdict::Failed | VipVerdict::Unproven) => {
            "its owner changed while it was asked for".to_owned()
        }
    }
}

/// The next step in words.
fn next_step(checked: &Checked) -> Option<String> {
    let finding = &checked.finding;
    let vip = finding.placed.vip;
    if let Some(Mended::Kept(why)) = checked.mended {
        let again = match &finding.role {
            Role::Other(Some(entry)) if entry.state == NeighbourState::Permanent => {
                format!("run `vipherald check --fix --permanent {vip}`")
            }
            _ => "it can only be changed where it was set".to_owned(),
        };
        return Some(format!("The entry was kept ({why}): {again}."));
    }
    let text = match (finding.verdict, &finding.role) {
        (VipVerdict::Ok | VipVerdict::Failed | VipVerdict::Unproven, _) => return None,
        (VipVerdict::Stale, Role::Other(Some(entry)))
            if entry.state == NeighbourState::Permanent =>
        {
            format!(
                "Someone set the entry by hand. To replace it, run here: \
                 `vipherald check --fix --permanent {vip}`."
            )
        }
        (VipVerdict::Stale, Role::Other(_)) => {
            format!("To repair it, run on this host: `vipherald check --fix {vip}`.")
        }
        (VipVerdict::Stale, Role::Owner { peers, .. }) if may_be_blocked(peers) => format!(
            "Run `vipherald announce {vip}` here: it announces the VIP again, and tells which."
        ),
        (VipVerdict::Stale, Role::Owner { .. }) => format!(
            "To repair an entry, run `vipherald check --fix {vip}` there, or here, which announces \
             the VIP again. If that changes nothing, look for a filter there."
        ),
        (VipVerdict::Conflict, _) => end_conflict(finding),
        (VipVerdict::Unowned, _) => "Is keepalived running, and MASTER on any host of this link? \
                                     Is this the VIP's interface (-i)?"
            .to_owned(),
    };
    Some(text)
}

/// How a conflict is ended.
fn end_conflict(finding: &Finding) -> String {
    let vip = finding.placed.vip;
    let name = |(mac, host): &(Mac, Option<IpAddr>)| {
        host.map_or_else(|| mac.to_string(), |host| host.to_string())
    };
    let others = match finding.role {
        Role::Owner { .. } => finding.owners.get(1..).unwrap_or_default(),
        Role::Other(_) => &finding.owners,
    };
    let is_proxy = |(mac, _): &&(Mac, Option<IpAddr>)| finding.proxies.contains(mac);
    let (proxies, others): (Vec<_>, Vec<_>) = others.iter().partition(is_proxy);
    let named = |all: Vec<_>| all.into_iter().map(name).collect::<Vec<_>>().join(" and ");
    let mut steps = Vec::new();
    if !proxies.is_empty() {
        steps.push(format!(
            "{} answers for addresses that nobody has, too: a proxy (proxy ARP or ND), no second \
             owner. Switch that off there, on the interface to this link (Linux: {}), or exclude \
             the VIP from it by a route to it on this link (`ip route add {vip} dev IF`).",
            named(proxies),
            proxy_off(vip)
        ));
    }
    let wrong_owners = match finding.role {
        Role::Owner { .. } => others.len(),
        // One of them is right.
        Role::Other(_) => others.len().saturating_sub(1),
    };
    let by_detection = finding.proxies.is_empty() && wrong_owners == 0;
    if wrong_owners > 0 || by_detection {
        let release = format!(
            "`vipherald release {vip}` if its keepalived is dead, or find out why both are MASTER"
        );
        let there = match vip.ip() {
            IpAddr::V4(_) => "`sysctl -w net.ipv4.conf.all.arp_ignore=1` there makes one answer",
            IpAddr::V6(_) => "it has the VIP on two interfaces: take it off one",
        };
        steps.push(match finding.role {
            _ if others.is_empty() => format!("On the other host run {release}."),
            Role::Owner { .. } => format!(
                "If this host is keepalived's MASTER, on {} run {release}.",
                named(others)
            ),
            Role::Other(_) => format!(
                "See which of {} is keepalived's MASTER; on the other run {release}. Should the \
                 MACs be of one host, {there}.",
                named(others)
            ),
        });
        // A proxy for single addresses can't be told from an owner: nobody has the other addresses.
        steps.push(format!(
            "If such a host does not have the VIP, a proxy entry answers for it: `{}` there shows it.",
            show_proxies(vip)
        ));
    }
    steps.push(format!(
        "Until then nothing is repaired here, because the next answer would decide again. Then run \
         `vipherald check --fix {vip}`."
    ));
    steps.join(" ")
}

/// A row of the table.
fn row(name: &str, value: &str) -> String {
    format!("  {name:<width$}{value}", width = COLUMN - 2)
}

impl CheckReport {
    fn rows(&self, checked: &Checked) -> Vec<String> {
        let finding = &checked.finding;
        let word = finding.verdict.to_string().to_uppercase();
        let mut head = finding.placed.vip.to_string();
        if let Some(interface) = &finding.interface {
            head += &format!(" on {interface}");
        }
        head += &format!(": {word}");
        if let Some(before) = checked.before {
            head += &format!(" (was {})", before.to_string().to_uppercase());
        }
        let mut rows = vec![head];
        for (name, why) in &finding.also_on {
            rows.push(row("also on", &format!("{name}, which {why}")));
        }
        let own = usize::from(matches!(finding.role, Role::Owner { .. }));
        let (own, others) = finding.owners.split_at(own.min(finding.owners.len()));
        for (mac, _) in own {
            rows.push(row("held here as", &mac.to_string()));
        }
        let labels = std::iter::once("answered by").chain(std::iter::repeat(""));
        for (label, owner) in labels.zip(others) {
            rows.push(row(label, &host(owner)));
        }
        match &finding.role {
            Role::Other(Some(entry)) => {
                let mac = entry.mac.map_or_else(String::new, |mac| format!("{mac} "));
                let entry = format!("{mac}{}", state_name(entry.state));
                rows.push(row("this host's entry", &entry));
            }
            Role::Other(None) if finding.frames > 0 => rows.push(row("this host's entry", "none")),
            Role::Other(None) => {}
            Role::Owner { peers, .. } => rows.extend(peer_rows(peers)),
        }
        match checked.mended {
            Some(Mended::Deleted) if finding.is_resolved() => {
                rows.push(row("repaired", "entry deleted, resolved again"));
            }
            Some(Mended::Deleted) => rows.push(row("not repaired", "entry deleted, not resolved")),
            Some(Mended::Announced) => rows.push(row("repaired", "announced to everyone")),
            Some(Mended::Kept(_)) | None => {}
        }
        rows.extend(sentence(&means(checked)));
        rows.extend(finding.notes.iter().flat_map(|note| sentence(note)));
        rows.extend(next_step(checked).iter().flat_map(|text| wrapped(text)));
        rows
    }
}

/// How many peers follow, and each that does not.
fn peer_rows(peers: &[(Confirmation, PeerVerdict)]) -> Vec<String> {
    use PeerVerdict::{Acknowledged, Holder, Offlink, Proven, Silent, Stale};
    let name = |verdict: PeerVerdict| format!("{verdict:?}").to_lowercase();
    let count = |verdict: PeerVerdict| {
        let number = peers.iter().filter(|(_, other)| *other == verdict).count();
        (number > 0).then(|| format!("{number} {}", name(verdict)))
    };
    let counts = [Proven, Acknowledged, Stale, Silent, Holder, Offlink];
    let counts: Vec<_> = counts.into_iter().filter_map(count).collect();
    let all = if counts.is_empty() {
        "none known".to_owned()
    } else {
        counts.join(", ")
    };
    let wrong = peers.iter().filter(|(_, verdict)| *verdict != Proven);
    let wrong =
        wrong.map(|(peer, verdict)| row("", &format!("{} {}", peer.peer.ip, name(*verdict))));
    std::iter::once(row("peers", &all)).chain(wrong).collect()
}

/// A clause as a sentence, in lines. An address stays as it is.
fn sentence(clause: &str) -> Vec<String> {
    let mut text = format!("{clause}.");
    let begins_with_word = !clause.split(' ').next().unwrap_or_default().contains(':');
    if let Some(first) = text.get_mut(..1).filter(|_| begins_with_word) {
        first.make_ascii_uppercase();
    }
    wrapped(&text)
}

/// A sentence in lines that an 80-column terminal shows.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![" ".to_owned()];
    for word in text.split(' ') {
        let fits = |line: &String| line.chars().count() + 1 + word.chars().count() <= WIDTH;
        match lines.last_mut() {
            Some(line) if fits(line) => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("  {word}")),
        }
    }
    lines
}

impl Report for CheckReport {
    fn lines(&self) -> Vec<Line> {
        self.checked
            .iter()
            .flat_map(|checked| self.rows(checked))
            .map(|text| Line::new(Level::Info, text))
            .collect()
    }

    fn shorten(&mut self) {
        let vips = self.vips.iter_mut();
        shorten(vips.map(|vip| (&mut vip.peers, &mut vip.not_kept)));
    }

    fn exit(&self) -> Exit {
        self.header.result.into()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for checked in &self.checked {
            let mut rows = self.rows(checked);
            for row in &mut rows {
                *row = one_line(row).into_owned();
            }
            if let (true, Some(head)) = (self.coloured, rows.first_mut()) {
                let verdict = checked.finding.verdict;
                let word = verdict.to_string().to_uppercase();
                let coloured = format!(": \x1b[1;{}m{word}\x1b[0m", colour(verdict));
                *head = head.replacen(&format!(": {word}"), &coloured, 1);
            }
            rows.push(String::new());
            text += &rows.join("\n");
        }
        text
    }

    fn began(&self) -> Option<Instant> {
        Some(self.began)
    }
}

#[cfg(test)]
mod tests {
    use vipherald_core::host::PlacedVip;

    use super::*;

    #[test]
    fn sentences_fit_eighty_columns() {
        let text = "word ".repeat(60);
        for line in wrapped(text.trim()) {
            assert!(line.len() <= 80 && line.starts_with("  word"), "{line}");
        }
    }

    #[test]
    fn the_cure_of_a_proxy_is_one_for_the_vips_family() {
        for (vip, cure) in [("192.0.2.10", "net.ipv4"), ("2001:db8::10", "ndppd")] {
            let [owner, proxy] =
                ["02:00:00:00:00:01", "02:00:00:00:00:09"].map(|mac| mac.parse().unwrap());
            let finding = Finding {
                placed: PlacedVip::anywhere(vip.parse().unwrap()),
                interface: None,
                also_on: Vec::new(),
                verdict: VipVerdict::Conflict,
                why: None,
                notes: Vec::new(),
                owners: vec![(owner, None), (proxy, None)],
                proxies: vec![proxy],
                frames: 0,
                role: Role::Other(None),
            };
            let told = end_conflict(&finding);
            let mut cures = ["net.ipv4", "ndppd"].into_iter();
            assert!(
                cures.all(|one| told.contains(one) == (one == cure)),
                "{told}"
            );
        }
    }

    #[test]
    fn a_plugin_line_is_one_line_with_one_bar() {
        let line = plugin_line(Plugin::Unknown, "a|b\nc", "x=1");
        assert_eq!(line, "VIPHERALD UNKNOWN - a/b\\nc | x=1\n");
    }
}
