//! One line of `virtual_ipaddress` or `virtual_ipaddress_excluded`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::full_length;

/// The longest name of an interface (the kernel's IFNAMSIZ less its NUL).
pub(super) const INTERFACE_NAME_MAX: usize = 15;

/// A virtual address as it is written, before the instance's interface is applied to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) address: IpAddr,
    pub(super) prefix_len: u8,
    pub(super) dev: Option<String>,
    pub(super) use_vmac: bool,
}

/// An entry, and what keepalived passes over in it; or why keepalived drops it.
pub(super) fn parse(words: &[String]) -> Result<(Entry, Option<String>), String> {
    let Some((first, mut rest)) = words.split_first() else {
        return Err("no address".to_owned());
    };
    let (address, mut prefix_len, mut passed_over) = parse_prefix(first)?;
    let mut entry = Entry {
        address,
        prefix_len,
        dev: None,
        use_vmac: false,
    };
    let full_length = full_length(address);
    while let Some((keyword, mut after)) = rest.split_first() {
        let mut parameter = || {
            let (parameter, rest) = after
                .split_first()
                .ok_or_else(|| format!("{keyword} needs a parameter"))?;
            after = rest;
            Ok::<_, String>(parameter.as_str())
        };
        match keyword.as_str() {
            "dev" => {
                let dev = parameter()?;
                if entry.dev.is_some() {
                    return Err("dev is given twice".to_owned());
                }
                entry.dev = Some(dev.to_owned());
            }
            "brd" | "broadcast" => {
                let broadcast = parameter()?;
                if address.is_ipv6() {
                    return Err("an IPv6 address has no broadcast address".to_owned());
                }
                if !matches!(broadcast, "+" | "-") && broadcast.parse::<Ipv4Addr>().is_err() {
                    return Err(format!("{broadcast} is no broadcast address"));
                }
            }
            "label" => {
                if parameter()?.len() > INTERFACE_NAME_MAX {
                    return Err("the label is too long".to_owned());
                }
            }
            "peer" => {
                let peer = parameter()?;
                match parse_address(peer) {
                    // Point to point: the peer's prefix counts, and it can't have one.
                    Some(peer) if peer.is_ipv6() == address.is_ipv6() => prefix_len = full_length,
                    _ => passed_over = Some(format!("peer {peer}")),
                }
            }
            "scope" | "preferred_lft" => {
                parameter()?;
            }
            "use_vmac" => entry.use_vmac = true,
            "home" | "-nodad" | "mngtmpaddr" | "noprefixroute" | "autojoin" | "no_track" => {}
            unknown => passed_over = Some(unknown.to_owned()),
        }
        rest = after;
    }
    entry.prefix_len = prefix_len;
    Ok((entry, passed_over))
}

/// `ADDRESS[/LENGTH]`, and what is wrong with the length.
fn parse_prefix(text: &str) -> Result<(IpAddr, u8, Option<String>), String> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address = parse_address(address).ok_or_else(|| format!("{text} is no address"))?;
    let full_length = full_length(address);
    let Some(length) = length else {
        return Ok((address, full_length, None));
    };
    // keepalived takes the digits at the start, none being 0, and falls back to the full length
    // where that is out of range.
    let number = length.trim_start_matches(|c: char| c.is_ascii_whitespace());
    let number = number.strip_prefix('+').unwrap_or(number);
    let end = number
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(number.len());
    let prefix_len = match &number[..end] {
        "" if number.starts_with('-') => None,
        "" => Some(0),
        digits => digits.parse().ok().filter(|&length| length <= full_length),
    };
    let clean = end == length.len() && end > 0 && prefix_len.is_some();
    let passed_over = (!clean).then(|| format!("the prefix length of {text}"));
    Ok((address, prefix_len.unwrap_or(full_length), passed_over))
}

/// An address without anything around it.
pub(super) fn parse_address(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    } else {
        text.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(line: &str) -> Result<(Entry, Option<String>), String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&words)
    }

    fn prefix(line: &str) -> u8 {
        entry(line).unwrap().0.prefix_len
    }

    #[test]
    fn options_come_in_any_order() {
        let (parsed, passed_over) =
            entry("10.0.0.1/24 scope link brd + dev eth1 label eth1:v home use_vmac").unwrap();
        assert_eq!(parsed.address, IpAddr::from([10, 0, 0, 1]));
        assert_eq!(
            (parsed.prefix_len, parsed.dev.as_deref()),
            (24, Some("eth1"))
        );
        assert!(parsed.use_vmac && passed_over.is_none());
        assert_eq!(entry("fd00::1").unwrap().0.prefix_len, 128);
        assert_eq!(entry("10.0.0.1 odd").unwrap().1.as_deref(), Some("odd"));
    }

    #[test]
    fn a_bad_prefix_length_is_what_keepalived_makes_of_it() {
        assert_eq!(prefix("10.0.0.1/33"), 32);
        assert_eq!(prefix("10.0.0.1/x"), 0);
        assert_eq!(prefix("10.0.0.1/24x"), 24);
        assert_eq!(prefix("10.0.0.1/24 peer 10.0.0.2"), 32);
        assert_eq!(prefix("10.0.0.1/24 peer 10.0.0.2/24"), 24);
        assert_eq!(prefix("fd00::1/64 peer 10.0.0.2"), 64);
    }

    #[test]
    fn what_keepalived_drops_is_dropped() {
        for line in [
            "10.0.0.256",
            "host",
            "10.0.0.1 dev",
            "10.0.0.1 dev eth0 dev eth1",
            "fd00::1 brd +",
            "10.0.0.1 brd x",
            "10.0.0.1 label 0123456789abcdef",
            "10.0.0.1 preferred_lft",
            "",
        ] {
            assert!(entry(line).is_err(), "{line}");
        }
    }
}
