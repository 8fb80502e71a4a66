//! The virtual MACs of instances, and the names of their macvlan interfaces.

use std::collections::{HashMap, HashSet};

use super::vip::INTERFACE_NAME_MAX;

/// A virtual router's MAC (RFC 9568 §7.3).
pub(super) fn standard_mac(ipv6: bool, virtual_router_id: u8) -> [u8; 6] {
    let family = if ipv6 { 2 } else { 1 };
    [0x00, 0x00, 0x5e, 0x00, family, virtual_router_id]
}

/// The MAC of `use_vmac`: six octets, or five followed by the virtual router id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GivenMac {
    octets: [u8; 6],
    completed_by_id: bool,
}

impl GivenMac {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix(':').unwrap_or(text);
        let parts: Vec<&str> = text.split(':').collect();
        let mut octets = [0; 6];
        if !(5..=6).contains(&parts.len()) {
            return None;
        }
        for (octet, part) in octets.iter_mut().zip(&parts) {
            let valid = (1..=2).contains(&part.len()) && !part.starts_with('+');
            *octet = u8::from_str_radix(part, 16).ok().filter(|_| valid)?;
        }
        let standard = octets[..4] == [0x00, 0x00, 0x5e, 0x00] && matches!(octets[4], 1 | 2);
        (octets[0] & 1 == 0 && !standard).then_some(Self {
            octets,
            completed_by_id: parts.len() == 5,
        })
    }

    pub(super) fn octets(self, virtual_router_id: u8) -> [u8; 6] {
        let mut octets = self.octets;
        if self.completed_by_id {
            octets[5] = virtual_router_id;
        }
        octets
    }
}

/// The macvlan interfaces that keepalived creates, and the names in use.
#[derive(Default)]
pub(super) struct Names {
    by_mac: HashMap<(String, [u8; 6]), String>,
    taken: HashSet<String>,
    given: HashSet<String>,
    /// How many names are taken for a prefix, router id and family.
    tried: HashMap<(String, u8, bool), usize>,
}

impl Names {
    /// Marks a name as used by an interface.
    pub(super) fn take(&mut self, name: &str) {
        self.taken.insert(name.to_owned());
    }

    /// Gives a configured name to an instance; `false` if another instance has it.
    pub(super) fn give(&mut self, name: &str) -> bool {
        self.take(name);
        self.given.insert(name.to_owned())
    }

    /// The interface that already carries `mac` on top of `base`.
    pub(super) fn carrying(&self, base: &str, mac: [u8; 6]) -> Option<&str> {
        self.by_mac.get(&(base.to_owned(), mac)).map(String::as_str)
    }

    /// Remembers the interface that carries `mac` on top of `base`.
    pub(super) fn carry(&mut self, base: &str, mac: [u8; 6], name: &str) {
        self.take(name);
        self.by_mac
            .entry((base.to_owned(), mac))
            .or_insert_with(|| name.to_owned());
    }

    /// The first free name: `vrrp.ID`, then `vrrp6.ID` for IPv6, then `vrrp1.ID` and so on.
    pub(super) fn free(&mut self, prefix: &str, virtual_router_id: u8, ipv6: bool) -> String {
        let key = (prefix.to_owned(), virtual_router_id, ipv6);
        let tried = self.tried.entry(key).or_default();
        loop {
            let infix = match *tried {
                0 => String::new(),
                n if !ipv6 => n.to_string(),
                1 => "6".to_owned(),
                n @ 2..=6 => (n - 1).to_string(),
                n => n.to_string(),
            };
            *tried += 1;
            let suffix = format!("{infix}.{virtual_router_id}");
            let room = INTERFACE_NAME_MAX.saturating_sub(suffix.len());
            let mut cut = prefix.len().min(room);
            while !prefix.is_char_boundary(cut) {
                cut -= 1;
            }
            let name = format!("{}{suffix}", &prefix[..cut]);
            // Names that are too long are all alike; keepalived would search for ever.
            if !self.taken.contains(&name) || suffix.len() > INTERFACE_NAME_MAX {
                self.taken.insert(name.clone());
                return name;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tried_in_keepaliveds_order() {
        let mut names = Names::default();
        for infix in ["", "6", "1", "2", "3", "4", "5", "7"] {
            assert_eq!(names.free("vrrp", 51, true), format!("vrrp{infix}.51"));
        }
        let mut names = Names::default();
        names.take("vrrp.51");
        assert_eq!(names.free("vrrp", 51, false), "vrrp1.51");
        assert_eq!(
            names.free("averylongprefixname", 200, false),
            "averylongpr.200"
        );
    }

    #[test]
    fn a_mac_may_leave_its_last_octet_to_the_router_id() {
        let octets = |text| GivenMac::parse(text).map(|mac| mac.octets(9));
        assert_eq!(octets("2:a:b:c:d:e"), Some([2, 10, 11, 12, 13, 14]));
        assert_eq!(octets("02:0a:0b:0c:0d"), Some([2, 10, 11, 12, 13, 9]));
        assert_eq!(octets("02:0a:0b:0c:0d:"), Some([2, 10, 11, 12, 13, 9]));
        for bad in [
            "01:0:0:0:0:1",
            "00:00:5e:00:01:07",
            "2:3:4:5",
            "2:3:4:5:6:7:8",
            "2:3:4:5:6:777",
            "2:3:4:5:6:007",
            "2:3:4:5:6:+7",
        ] {
            assert_eq!(octets(bad), None, "{bad}");
        }
    }
}
