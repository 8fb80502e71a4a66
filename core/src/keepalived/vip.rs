//! A line of `virtual_ipaddress` or `virtual_ipaddress_excluded`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::full_length;

/// The longest name of an interface (`IFNAMSIZ` without the NUL).
pub(super) const INTERFACE_NAME_MAX: usize = 15;

/// A virtual IP as written, before the instance determines its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) address: IpAddr,
    pub(super) prefix_len: u8,
    pub(super) dev: Option<String>,
    pub(super) use_vmac: bool,
}

/// An entry, and what keepalived ignores in it. The error says why keepalived drops it.
pub(super) fn parse(words: &[String]) -> Result<(Entry, Option<String>), String> {
    let Some((first, mut rest)) = words.split_first() else {
        return Err("no address".to_owned());
    };
    let (address, mut prefix_len, mut ignored) = parse_prefix(first)?;
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
                    // Point to point: the prefix length would be the peer's, which has none.
                    Some(peer) if peer.is_ipv6() == address.is_ipv6() => prefix_len = full_length,
                    _ => ignored = Some(format!("peer {peer}")),
                }
            }
            "scope" | "preferred_lft" => {
                parameter()?;
            }
            "use_vmac" => entry.use_vmac = true,
            "home" | "-nodad" | "mngtmpaddr" | "noprefixroute" | "autojoin" | "no_track" => {}
            unknown => ignored = Some(unknown.to_owned()),
        }
        rest = after;
    }
    entry.prefix_len = prefix_len;
    Ok((entry, ignored))
}

/// Parses `ADDRESS[/LENGTH]`; the text names a malformed length.
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
    // keepalived parses the leading digits, or 0 without any, and uses the full length if the
    // number is out of range.
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
    let ignored = (!clean).then(|| format!("the prefix length of {text}"));
    Ok((address, prefix_len.unwrap_or(full_length), ignored))
}

/// A bare address.
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

    #[test]
    fn options_come_in_any_order() {
        let (parsed, ignored) =
            entry("10.0.0.1/24 scope link brd + dev eth1 label eth1:v home use_vmac").unwrap();
        let expected = Entry {
            address: [10, 0, 0, 1].into(),
            prefix_len: 24,
            dev: Some("eth1".to_owned()),
            use_vmac: true,
        };
        assert_eq!((parsed, ignored), (expected, None));
        assert_eq!(entry("10.0.0.1 odd").unwrap().1.as_deref(), Some("odd"));
    }

    #[test]
    fn prefix_lengths_are_those_of_keepalived() {
        for (line, length) in [
            ("fd00::1", 128),
            ("10.0.0.1/33", 32),
            ("10.0.0.1/x", 0),
            ("10.0.0.1/24x", 24),
            ("10.0.0.1/24 peer 10.0.0.2", 32),
            ("10.0.0.1/24 peer 10.0.0.2/24", 24),
            ("fd00::1/64 peer 10.0.0.2", 64),
        ] {
            assert_eq!(entry(line).unwrap().0.prefix_len, length, "{line}");
        }
    }

    #[test]
    fn keepalived_drops_malformed_entries() {
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
