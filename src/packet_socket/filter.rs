//! What may come in, as classic BPF programs (Documentation/networking/filter.rst) over the Ethernet
//! frame. The parser checks everything again: a filter only saves a busy host the copies.

use std::net::IpAddr;

use nix::libc::{self, sock_filter as Op};
use socket2::SockFilter;
use vipherald_core::address::Mac;
use vipherald_core::ask::Listening;

use super::flood::{Class, Shares, VRRP};

/// Octets of the longest frame to receive; a longer one is no answer.
pub(super) const LONGEST: u16 = 1514;

/// Admits answers, and what is `wanted` besides, or a random share of them; nothing that this host sends, and
/// nothing of another VLAN, whose tag the kernel has stripped from the octets. (VLAN 0 is no VLAN, only a
/// priority.)
pub(super) fn answers(wanted: &Listening, shares: &Shares) -> Vec<SockFilter> {
    let mut program = Vec::from(OF_THIS_LINK);
    if wanted.any {
        program.extend(ANY);
    } else {
        program.extend(echo_replies(wanted.echoes, shares));
        if wanted.adverts {
            program.extend(adverts(shares));
        }
        program.extend(shared_by_receiver(shares));
        program.extend(when(&[(ETHERTYPE, libc::ETH_P_ARP as u32)], &[ADMIT]));
        for kind in [SOLICITATION, ADVERTISEMENT] {
            program.extend(when(&icmpv6(kind), &[ADMIT]));
        }
        if !wanted.from.is_empty() || wanted.from_all_but.is_some() {
            program.extend(traffic(wanted));
        }
    }
    program.push(DROP);
    loadable(&program)
}

/// Admits ARP, neighbour solicitations and advertisements, in and out.
pub(super) fn both_ways() -> Vec<SockFilter> {
    loadable(&BOTH_WAYS)
}

/// Admits nothing.
pub(super) fn nothing() -> Vec<SockFilter> {
    loadable(&[DROP])
}

fn loadable(program: &[Op]) -> Vec<SockFilter> {
    let one = |op: &Op| SockFilter::new(op.code, op.jt, op.jf, op.k);
    program.iter().map(one).collect()
}

/// A condition: what is loaded has this value.
type Condition<'a> = (&'a [Op], u32);

/// A part of a program: `then`, if all conditions hold.
fn when(conditions: &[Condition<'_>], then: &[Op]) -> Vec<Op> {
    let mut part = then.to_vec();
    for (loads, value) in conditions.iter().rev() {
        let over = u8::try_from(part.len()).unwrap_or(u8::MAX);
        part = [*loads, &[equal(*value, 0, over)], &part].concat();
    }
    part
}

const ETHERTYPE: &[Op] = &[load(HALF, 12)];

/// ICMP, no fragment, an echo reply behind a header of any length.
const ICMP_ECHO_REPLY: [Condition<'static>; 4] = [
    (ETHERTYPE, libc::ETH_P_IP as u32),
    (&[load(BYTE, 23)], libc::IPPROTO_ICMP as u32),
    (
        &[
            load(HALF, 20),
            op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, 0x3fff),
        ],
        0,
    ),
    (
        &[
            op(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0, 14),
            op(libc::BPF_LD | libc::BPF_B | libc::BPF_IND, 0, 0, 14),
        ],
        0,
    ),
];
/// After that condition.
const ICMP_IDENTIFIER: &[Op] = &[op(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 0, 0, 18)];
const ICMPV6_IDENTIFIER: &[Op] = &[load(HALF, 58)];

const ICMPV6_ECHO_REPLY: u32 = 129;
const SOLICITATION: u32 = 135;
const ADVERTISEMENT: u32 = 136;

/// ICMPv6 of this type, without extension headers.
const fn icmpv6(kind: u32) -> [Condition<'static>; 3] {
    const NEXT_HEADER: &[Op] = &[load(BYTE, 20)];
    const TYPE: &[Op] = &[load(BYTE, 54)];
    [
        (ETHERTYPE, libc::ETH_P_IPV6 as u32),
        (NEXT_HEADER, libc::IPPROTO_ICMPV6 as u32),
        (TYPE, kind),
    ]
}

/// Admits echo replies with an identifier, or with any, and drops all others.
fn echo_replies(identifier: Option<u16>, shares: &Shares) -> Vec<Op> {
    let admit = [share(shares, Class::Echo), vec![ADMIT]].concat();
    let of_family = |is_reply: &[Condition<'_>], loads| {
        let mut then = match identifier {
            Some(ours) => when(&[(loads, ours.into())], &admit),
            None => admit.clone(),
        };
        then.push(DROP);
        when(is_reply, &then)
    };
    [
        of_family(&ICMP_ECHO_REPLY, ICMP_IDENTIFIER),
        of_family(&icmpv6(ICMPV6_ECHO_REPLY), ICMPV6_IDENTIFIER),
    ]
    .concat()
}

/// Admits VRRP advertisements that no router forwarded, by IP protocol and hop limit.
fn adverts(shares: &Shares) -> Vec<Op> {
    const IPV4: [Condition<'static>; 3] = [
        (ETHERTYPE, libc::ETH_P_IP as u32),
        (&[load(BYTE, 23)], VRRP as u32),
        (&[load(BYTE, 22)], 255),
    ];
    const IPV6: [Condition<'static>; 3] = [
        (ETHERTYPE, libc::ETH_P_IPV6 as u32),
        (&[load(BYTE, 20)], VRRP as u32),
        (&[load(BYTE, 21)], 255),
    ];
    let admit = [share(shares, Class::Advert), vec![ADMIT]].concat();
    [when(&IPV4, &admit), when(&IPV6, &admit)].concat()
}

/// Drops some of the other frames: those to this host are a class of their own.
fn shared_by_receiver(shares: &Shares) -> Vec<Op> {
    let (to_us, mut to_all) = (share(shares, Class::ToUs), share(shares, Class::ToAll));
    if to_us.is_empty() && to_all.is_empty() {
        return Vec::new();
    }
    // Those to all go on behind the share of those to one host.
    to_all.push(jump(u32::try_from(to_us.len()).unwrap_or(u32::MAX)));
    let over_to_all = u8::try_from(to_all.len()).unwrap_or(u8::MAX);
    // By the receiver's address, as `Class::of` does: one host may be another, to which a switch floods what
    // it sends, and the kernel then says of frames that they are for neither this host nor all.
    let receiver = [
        load(BYTE, 0),
        op(
            libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K,
            0,
            over_to_all,
            1,
        ),
    ];
    [&receiver[..], &to_all, &to_us].concat()
}

/// Drops all but a random share of what gets here.
fn share(shares: &Shares, class: Class) -> Vec<Op> {
    match shares.mask(class) {
        0 => Vec::new(),
        mask => vec![
            load(WORD, about_packet(libc::SKF_AD_RANDOM)),
            op(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, mask),
            DROP,
        ],
    }
}

/// Drops the rest.
const DROP: Op = op(libc::BPF_RET | libc::BPF_K, 0, 0, 0);
const ADMIT: Op = op(libc::BPF_RET | libc::BPF_K, 0, 0, LONGEST as u32);
/// Admits the headers.
const ADMIT_HEADERS: Op = op(libc::BPF_RET | libc::BPF_K, 0, 0, 64);

/// Drops what this host sends and what has the tag of another VLAN.
const OF_THIS_LINK: [Op; 8] = [
    load(BYTE, about_packet(libc::SKF_AD_PKTTYPE)),
    equal(libc::PACKET_OUTGOING as u32, 0, 1),
    DROP,
    load(BYTE, about_packet(libc::SKF_AD_VLAN_TAG_PRESENT)),
    equal(0, 3, 0),
    load(HALF, about_packet(libc::SKF_AD_VLAN_TAG)),
    op(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, VLAN_ID),
    DROP,
];
/// The bits of a tag that name the VLAN (IEEE 802.1Q); the others are the priority.
const VLAN_ID: u32 = 0x0fff;

/// Admits ARP, IPv4 and IPv6: what a port that forwards lets through.
const ANY: [Op; 5] = [
    load(HALF, 12),
    equal(libc::ETH_P_ARP as u32, 2, 0),
    equal(libc::ETH_P_IP as u32, 1, 0),
    equal(libc::ETH_P_IPV6 as u32, 0, 1),
    ADMIT,
];

/// Admits the headers of packets that some hosts send to this one for some addresses. Of those it compares
/// the last four octets.
fn traffic(wanted: &Listening) -> Vec<Op> {
    let mut program = vec![
        load(BYTE, about_packet(libc::SKF_AD_PKTTYPE)),
        equal(libc::PACKET_HOST as u32, 1, 0),
        DROP,
        load(HALF, 12),
        equal(libc::ETH_P_IP as u32, 2, 0),
        equal(libc::ETH_P_IPV6 as u32, 3, 0),
        DROP,
        load(WORD, 30),
        jump(1),
        load(WORD, 50),
    ];
    for (at, to) in wanted.to.iter().enumerate() {
        let last = match to {
            IpAddr::V4(to) => to.to_bits(),
            IpAddr::V6(to) => last_word(to.octets()),
        };
        program.push(equal(last, 0, 1));
        // Over the rest of the comparisons and the DROP behind them.
        let rest = wanted.to.len() - at - 1;
        program.push(jump(u32::try_from(2 * rest + 1).unwrap_or(u32::MAX)));
    }
    program.push(DROP);
    for from in &wanted.from {
        program.extend(if_from(*from, ADMIT_HEADERS));
    }
    if let Some(but) = &wanted.from_all_but {
        but.iter()
            .for_each(|from| program.extend(if_from(*from, DROP)));
        program.push(ADMIT_HEADERS);
    }
    program
}

/// What becomes of a frame with this source.
fn if_from(from: Mac, verdict: Op) -> [Op; 5] {
    let [a, b, c, d, e, f] = from.octets();
    [
        load(WORD, 6),
        equal(u32::from_be_bytes([a, b, c, d]), 0, 3),
        load(HALF, 10),
        equal(u16::from_be_bytes([e, f]).into(), 0, 1),
        verdict,
    ]
}

fn last_word(octets: [u8; 16]) -> u32 {
    let [.., a, b, c, d] = octets;
    u32::from_be_bytes([a, b, c, d])
}

static BOTH_WAYS: [Op; 15] = [
    load(BYTE, about_packet(libc::SKF_AD_VLAN_TAG_PRESENT)),
    equal(0, 3, 0),
    load(HALF, about_packet(libc::SKF_AD_VLAN_TAG)),
    op(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, VLAN_ID),
    DROP,
    load(HALF, 12),
    equal(libc::ETH_P_ARP as u32, 6, 0),
    equal(libc::ETH_P_IPV6 as u32, 0, 6),
    load(BYTE, 20),
    equal(libc::IPPROTO_ICMPV6 as u32, 0, 4),
    load(BYTE, 54),
    equal(135, 1, 0),
    equal(136, 0, 1),
    ADMIT,
    DROP,
];

const BYTE: u32 = libc::BPF_B;
const HALF: u32 = libc::BPF_H;
const WORD: u32 = libc::BPF_W;

/// Skips this many instructions.
const fn jump(over: u32) -> Op {
    op(libc::BPF_JMP | libc::BPF_JA, 0, 0, over)
}

const fn load(width: u32, at: u32) -> Op {
    op(libc::BPF_LD | width | libc::BPF_ABS, 0, 0, at)
}

/// Skips `yes` instructions if what was loaded is `value`, else `no`.
const fn equal(value: u32, yes: u8, no: u8) -> Op {
    op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, no, value)
}

#[expect(clippy::cast_possible_truncation)]
const fn op(code: u32, yes: u8, no: u8, value: u32) -> Op {
    Op {
        code: code as u16,
        jt: yes,
        jf: no,
        k: value,
    }
}

#[expect(clippy::cast_sign_loss)]
const fn about_packet(what: i32) -> u32 {
    (libc::SKF_AD_OFF + what) as u32
}
