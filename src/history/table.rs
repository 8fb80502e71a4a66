//! Receipts as a table for people: when did it move, who followed when, who did not?

use super::receipt::{AboutVip, Ordered, Owner, Peer, Receipt, Touched};

/// Peers that one row names; of more it gives the number.
const NAMED: usize = 4;
const HEAD: [&str; 9] = [
    "TIME",
    "WHAT",
    "INSTANCE",
    "VIP",
    "ON",
    "RESULT",
    "FOLLOW",
    "LAST AFTER",
    "DETAILS",
];

/// A row for each VIP of each receipt; with `peers`, also a line for each peer.
pub(crate) fn table(receipts: &[Receipt], peers: bool) -> String {
    let rows: Vec<_> = receipts.iter().flat_map(rows).collect();
    let mut widths = HEAD.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(&row.cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(widths);
        let padded: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&HEAD.map(str::to_owned));
    for row in &rows {
        text += &line(&row.cells);
        if let Some(vip) = row.vip.filter(|_| peers) {
            vip.peers.iter().for_each(|peer| text += &about_peer(peer));
            text += &about_others(vip);
        }
    }
    text
}

#[derive(Default)]
struct Row<'a> {
    cells: [String; 9],
    vip: Option<&'a AboutVip>,
}

fn rows(receipt: &Receipt) -> Vec<Row<'_>> {
    let row = |vip: &str, on: Option<&str>, result: &str, details: String| Row {
        cells: [
            receipt.time.clone(),
            match &receipt.event {
                Some(event) => format!("{} ({event})", receipt.command),
                None => receipt.command.clone(),
            },
            receipt.instance.clone().unwrap_or_default(),
            vip.to_owned(),
            on.unwrap_or_default().to_owned(),
            result.to_owned(),
            String::new(),
            String::new(),
            details,
        ],
        vip: None,
    };
    let result = receipt.result.as_deref().unwrap_or_default();
    let touched = |one: &Touched| {
        let was = [one.mac.as_deref(), one.state.as_deref()];
        let was: Vec<_> = was.into_iter().flatten().collect();
        row(
            &one.address,
            one.interface.as_deref(),
            &one.action,
            was.join(" "),
        )
    };
    let ordered = |order: &Ordered| {
        let outcome = order.order.as_deref().unwrap_or_default();
        let by = if receipt.command == "listen" {
            "from"
        } else {
            "to"
        };
        let reason = order.reason.as_ref().map(|why| format!(": {why}"));
        let was = order.was.as_ref().map(|was| format!(", was {was}"));
        let now = order.now.as_ref().map(|now| format!(", is {now}"));
        let more = [reason, was, now].into_iter().flatten().collect::<String>();
        row(
            &order.address,
            order.interface.as_deref(),
            outcome,
            format!("{by} {}{more}", order.peer),
        )
    };
    let refused = receipt.refused.iter();
    let refused = refused.map(|(why, count)| row("", None, "refused", format!("{count} {why}")));
    let vips = receipt.vips.iter().map(|vip| {
        let AboutVip {
            address,
            interface,
            result: own,
            ..
        } = vip;
        let result = own.as_deref().unwrap_or(result);
        let row = row(address, interface.as_deref(), result, String::new());
        about_vip(vip, receipt, row)
    });
    let entries = receipt
        .entries
        .iter()
        .chain(&receipt.addresses)
        .map(touched);
    let orders = receipt.orders.iter().map(ordered);
    vips.chain(entries).chain(orders).chain(refused).collect()
}

fn about_vip<'a>(vip: &'a AboutVip, receipt: &Receipt, mut row: Row<'a>) -> Row<'a> {
    if vip.counting() > 0 {
        row.cells[6] = format!("{} of {}", vip.following(), vip.counting());
    }
    if let Some(last) = vip.followed_after().last() {
        row.cells[7] = after(*last);
    }
    if receipt.command == "check" {
        row.cells[5] = vip.verdict.clone().unwrap_or_default();
    }
    let mut details: Vec<_> = vip
        .action
        .iter()
        .map(|action| format!("repaired: {action}"))
        .collect();
    let owner = |one: &Owner| match (&one.mac, &one.host) {
        (Some(mac), Some(host)) => format!("{mac} ({host})"),
        (Some(mac), None) => mac.clone(),
        _ => "another host".to_owned(),
    };
    details.extend(
        vip.conflicts
            .iter()
            .map(|one| format!("conflict with {}", owner(one))),
    );
    details.extend(
        vip.past_conflicts
            .iter()
            .map(|one| format!("for a while also {}", owner(one))),
    );
    let blocked = vip.is_blocked() && receipt.command == "announce";
    details.extend(blocked.then(|| "blocked on the way out".to_owned()));
    let silent = vip.is_path_silent();
    details.extend(silent.then(|| "no frame of another host".to_owned()));
    details.extend(laggards(vip));
    row.cells[8] = details.join("; ");
    row.vip = Some(vip);
    row
}

/// Who does not follow, in words: each that somebody should look after, and how many others.
pub(super) fn laggards(vip: &AboutVip) -> Option<String> {
    let peers = vip.peers.iter();
    let wrong: Vec<_> = peers.filter(|peer| peer.needs_attention()).collect();
    let named = wrong.iter().take(NAMED);
    let mut all: Vec<_> = named
        .map(|peer| format!("{} {}", peer.address, peer.verdict))
        .collect();
    // Of those that are not listed, it is not known whether they are required.
    let not_kept = vip.not_kept.get("stale").copied().unwrap_or_default();
    let wrong = (wrong.len() as u64).saturating_add(not_kept);
    let named = all.len() as u64;
    match wrong - named {
        0 => {}
        1 if named > 0 => all.push("1 more does not follow".to_owned()),
        more if named == 0 => all.push(format!("{more} do not follow")),
        more => all.push(format!("{more} more do not follow")),
    }
    let not_following = vip.counting().saturating_sub(vip.following());
    match not_following.saturating_sub(wrong) {
        0 => {}
        1 => all.push("1 neighbour silent".to_owned()),
        silent => all.push(format!("{silent} neighbours silent")),
    }
    (!all.is_empty()).then(|| all.join(", "))
}

/// How many peers a long receipt does not list.
fn about_others(vip: &AboutVip) -> String {
    let others = vip.not_kept.iter();
    let others: Vec<_> = others
        .map(|(verdict, count)| format!("{count} {verdict}"))
        .collect();
    match others.is_empty() {
        true => String::new(),
        false => format!("    not listed  {}\n", others.join(", ")),
    }
}

fn about_peer(peer: &Peer) -> String {
    let mac = peer.mac.as_deref().unwrap_or("-");
    let order = peer.order.as_ref().map(|order| format!(", order {order}"));
    let proof = peer.proof.as_ref().map(|proof| format!(" by {proof}"));
    // One that is stale may have acknowledged before.
    let when = peer.after_ms.filter(|_| peer.follows());
    let when = when.map(|ms| format!(" after {}", after(ms)));
    format!(
        "    {}  {mac}  {}{}{}{}\n",
        peer.address,
        peer.verdict,
        proof.unwrap_or_default(),
        when.unwrap_or_default(),
        order.unwrap_or_default()
    )
}

/// A time in milliseconds, in words.
pub(super) fn after(ms: f64) -> String {
    if ms < 1e3 {
        format!("{ms:.1} ms")
    } else {
        format!("{:.1} s", ms / 1e3)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn printed(receipts: &[Value], peers: bool) -> String {
        let receipts: Vec<_> = receipts
            .iter()
            .map(|one| Receipt::read(one).unwrap())
            .collect();
        table(&receipts, peers)
    }

    fn announced() -> Value {
        json!({"command": "announce", "event": "MASTER", "time": "2026-01-01T00:00:00.000Z",
            "instance": "VI_1", "result": "unproven",
            "vips": [{"address": "10.0.0.100", "interface": "eth0",
                "past_conflicts": [{"mac": "02:00:00:00:00:09", "host": "10.0.0.9"}],
                "peers": [
                    {"address": "10.0.0.1", "mac": "02:00:00:00:00:01", "verdict": "proven", "after_ms": 0.6,
                     "proof": "traffic"},
                    {"address": "10.0.0.2", "verdict": "acknowledged", "after_ms": 1300.0},
                    {"address": "10.0.0.3", "verdict": "stale", "order": "unanswered"},
                    {"address": "10.0.0.4", "verdict": "silent", "required": true},
                    {"address": "10.0.0.5", "verdict": "silent"},
                    {"address": "10.0.0.6", "verdict": "holder"}]}]})
    }

    #[test]
    fn the_table_says_when_it_moved_and_who_did_not_follow() {
        let expected = "\
TIME                      WHAT               INSTANCE  VIP         ON    RESULT    FOLLOW  LAST AFTER  DETAILS
2026-01-01T00:00:00.000Z  announce (MASTER)  VI_1      10.0.0.100  eth0  unproven  2 of 5  1.3 s       for a while also 02:00:00:00:00:09 (10.0.0.9); 10.0.0.3 stale, 10.0.0.4 silent, 1 neighbour silent
";
        assert_eq!(printed(&[announced()], false), expected);
        let with_peers = printed(&[announced()], true);
        for line in [
            "    10.0.0.1  02:00:00:00:00:01  proven by traffic after 0.6 ms\n",
            "    10.0.0.3  -  stale, order unanswered\n",
        ] {
            assert!(with_peers.contains(line), "{with_peers}");
        }
    }

    #[test]
    fn purges_orders_releases_and_repairs_have_rows() {
        let text = printed(
            &[
                json!({"command": "purge", "time": "T", "entries": [{"address": "10.0.0.100",
                    "interface": "eth0", "mac": "02:00:00:00:00:09", "state": "STALE",
                    "action": "deleted"}]}),
                json!({"command": "release", "time": "T", "addresses": [{"address": "10.0.0.101",
                    "interface": "eth1", "action": "released"}]}),
                json!({"command": "listen", "time": "T", "orders": [{"peer": "10.0.0.1",
                    "address": "10.0.0.102", "order": "kept", "reason": "permanent",
                    "was": "02:00:00:00:00:09"}], "refused": {"sent again": 2}}),
                json!({"command": "check", "time": "T", "result": "stale", "vips": [
                    {"address": "10.0.0.103", "verdict": "ok", "action": "deleted"}]}),
            ],
            false,
        );
        let words: Vec<_> = text
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        let expected = [
            "T purge 10.0.0.100 eth0 deleted 02:00:00:00:00:09 STALE",
            "T release 10.0.0.101 eth1 released",
            "T listen 10.0.0.102 kept from 10.0.0.1: permanent, was 02:00:00:00:00:09",
            "T listen refused 2 sent again",
            "T check 10.0.0.103 ok repaired: deleted",
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn what_hides_every_peer_is_told_of_the_vip() {
        let told = |vip: Value| {
            let text = printed(&[json!({"command": "announce", "vips": [vip]})], false);
            text.lines().nth(1).unwrap().trim_start().to_owned()
        };
        let reach = |path, broadcasts| json!({"path": path, "broadcasts": broadcasts, "asked": 0});
        for (vip, expected) in [
            (
                json!({"verdict": "blocked", "reach": reach("alive", 9)}),
                "blocked on the way out",
            ),
            (
                json!({"reach": reach("silent", 9)}),
                "no frame of another host",
            ),
            (json!({"reach": reach("alive", 9)}), ""),
            (json!({"reach": reach("silent", 0)}), ""),
        ] {
            assert!(told(vip.clone()).ends_with(expected), "{vip}");
            assert_eq!(
                told(vip.clone()).contains("the way out"),
                vip["verdict"] == "blocked"
            );
            assert_eq!(
                told(vip.clone()).contains("no frame"),
                expected.starts_with("no frame")
            );
        }
    }

    #[test]
    fn of_many_laggards_a_few_are_named() {
        let peer = |number| json!({"address": format!("10.0.0.{number}"), "verdict": "stale"});
        let vip = json!({"address": "v", "peers": (0..9).map(peer).collect::<Vec<_>>()});
        let text = printed(&[json!({"command": "announce", "vips": [vip]})], false);
        assert!(
            text.contains("10.0.0.3 stale, 5 more do not follow"),
            "{text}"
        );
    }
}
