//! A `vrrp_instance`: its keywords, and what keepalived makes of them after reading all files.

use std::net::IpAddr;

use super::hook::Hook;
use super::lines::Place;
use super::trouble::Trouble;
use super::vip::{self, Entry, INTERFACE_NAME_MAX};
use super::vmac::{self, GivenMac, Names};
use super::{Instance, VirtualAddress};

/// The most addresses in an advertisement, at the usual MTU of 1500. The count is one octet. IPv6
/// addresses of 16 octets follow headers of 14 (Ethernet), 40 (IPv6) and 8 (VRRP).
const fn advertised_max(ipv6: bool) -> usize {
    if ipv6 { (1500 - 14 - 40 - 8) / 16 } else { 255 }
}

/// The parameters in `global_defs` that concern instances.
#[derive(Default)]
pub(super) struct Globals {
    vmac_prefix: Option<String>,
    vmac_addr_prefix: Option<String>,
}

impl Globals {
    /// Applies a line of `global_defs`. keepalived uses the first of a kind.
    pub(super) fn keyword(&mut self, words: &[String]) {
        let [keyword, value, ..] = words else {
            return;
        };
        let slot = match keyword.as_str() {
            "vmac_prefix" => &mut self.vmac_prefix,
            "vmac_addr_prefix" => &mut self.vmac_addr_prefix,
            _ => return,
        };
        slot.get_or_insert_with(|| value.clone());
    }

    fn vmac_prefix(&self) -> &str {
        self.vmac_prefix.as_deref().unwrap_or("vrrp")
    }

    fn vmac_addr_prefix(&self) -> &str {
        let prefix = self.vmac_addr_prefix.as_deref();
        prefix.unwrap_or_else(|| self.vmac_prefix())
    }
}

/// The instance's own interface on top of `interface`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Vmac,
    Ipvlan,
}

/// The part of an instance read so far.
pub(super) struct Draft {
    name: String,
    interface: Option<String>,
    own: Option<Own>,
    own_name: Option<String>,
    mac: Option<GivenMac>,
    /// `use_vmac_addr`: a VMAC for each address that is not on the instance's own interface.
    use_vmac_addr: bool,
    unicast: bool,
    virtual_router_id: Option<u8>,
    /// The family of the first address of any kind.
    ipv6: Option<bool>,
    vips: Vec<Entry>,
    excluded: Vec<Entry>,
    peers: Vec<IpAddr>,
    pub(super) hooks: Vec<Hook>,
    pub(super) place: Place,
    pub(super) trouble: Trouble,
}

impl Draft {
    /// The keywords of [`Draft::keyword`].
    pub(super) const KEYWORDS: [&str; 12] = [
        "check_unicast_src",
        "interface",
        "mcast_dst_ip",
        "mcast_src_ip",
        "native_ipv6",
        "old_unicast_checksum",
        "unicast_fault_no_peer",
        "unicast_src_ip",
        "use_ipvlan",
        "use_vmac",
        "use_vmac_addr",
        "virtual_router_id",
    ];

    /// Those that determine the interfaces of the virtual IPs.
    pub(super) const PLACES: [&str; 5] = [
        "interface",
        "use_ipvlan",
        "use_vmac",
        "use_vmac_addr",
        "virtual_router_id",
    ];

    pub(super) fn new(name: &str, place: Place) -> Self {
        Self {
            name: name.to_owned(),
            interface: None,
            own: None,
            own_name: None,
            mac: None,
            use_vmac_addr: false,
            unicast: false,
            virtual_router_id: None,
            ipv6: None,
            vips: Vec::new(),
            excluded: Vec::new(),
            peers: Vec::new(),
            hooks: Vec::new(),
            place,
            trouble: Trouble::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn has_addresses(&self) -> bool {
        !self.vips.is_empty() || !self.excluded.is_empty()
    }

    /// The missing parameters, and whether keepalived does not start without them.
    pub(super) fn lacks(&self) -> Vec<(&'static str, bool)> {
        let mut lacks = Vec::new();
        if self.virtual_router_id.is_none() {
            lacks.push(("has no virtual_router_id: keepalived does not start", true));
        }
        match (&self.interface, self.unicast) {
            (Some(_), _) => {}
            (None, false) => lacks.push(("has no interface: keepalived does not start", true)),
            (None, true) => {
                lacks.push((
                    "has no interface: keepalived before 2.2.8 does not start",
                    false,
                ));
            }
        }
        lacks
    }

    /// Applies a line of the block. The error says what keepalived ignores.
    pub(super) fn keyword(&mut self, words: &[String]) -> Result<(), String> {
        let Some((keyword, parameters)) = words.split_first() else {
            return Ok(());
        };
        let parameter = || {
            let first = parameters.first();
            first.ok_or_else(|| format!("{keyword} needs a parameter"))
        };
        match keyword.as_str() {
            "interface" => self.interface(parameter()?),
            "virtual_router_id" => self.virtual_router_id(parameter()?),
            "use_vmac" => self.use_vmac(parameters),
            "use_ipvlan" => self.use_ipvlan(parameters),
            "use_vmac_addr" => {
                self.use_vmac_addr = true;
                Ok(())
            }
            "native_ipv6" => self.fix_family(true, keyword),
            "mcast_src_ip" | "mcast_dst_ip" => self.other_address(parameter()?),
            "unicast_src_ip" => {
                self.unicast();
                self.other_address(parameter()?)
            }
            _ => {
                self.unicast();
                Ok(())
            }
        }
    }

    /// Notes a unicast keyword.
    pub(super) fn unicast(&mut self) {
        self.unicast = true;
    }

    /// A line of `virtual_ipaddress`, which allows one family.
    pub(super) fn virtual_ipaddress(&mut self, words: &[String]) -> Result<(), String> {
        let (entry, ignored) = vip::parse(words)?;
        self.fix_family(entry.address.is_ipv6(), &words[0])?;
        self.vips.push(entry);
        ignored.map_or(Ok(()), Err)
    }

    /// A line of `virtual_ipaddress_excluded`, which allows both families.
    pub(super) fn virtual_ipaddress_excluded(&mut self, words: &[String]) -> Result<(), String> {
        let (entry, ignored) = vip::parse(words)?;
        self.excluded.push(entry);
        ignored.map_or(Ok(()), Err)
    }

    /// A line of `unicast_peer`: an address, and options that do not concern us.
    pub(super) fn unicast_peer(&mut self, words: &[String]) -> Result<(), String> {
        let peer = words.first().map_or("", String::as_str);
        let address = socket_address(peer)?;
        self.fix_family(address.is_ipv6(), peer)?;
        self.peers.push(address);
        Ok(())
    }

    /// The first address fixes the family. keepalived ignores those of the other family.
    fn fix_family(&mut self, ipv6: bool, what: &str) -> Result<(), String> {
        if *self.ipv6.get_or_insert(ipv6) == ipv6 {
            Ok(())
        } else {
            Err(format!("{what} is not of the instance's address family"))
        }
    }

    fn interface(&mut self, name: &str) -> Result<(), String> {
        if name.len() > INTERFACE_NAME_MAX {
            return Err(format!("the name of interface {name} is too long"));
        }
        if name == "lo" || name.contains('$') {
            self.interface = None;
            return Err(format!("interface {name}"));
        }
        self.interface = Some(name.to_owned());
        Ok(())
    }

    fn virtual_router_id(&mut self, text: &str) -> Result<(), String> {
        let id = text.parse().ok().filter(|&id| id > 0);
        let id = id.ok_or_else(|| format!("virtual_router_id {text} is not between 1 and 255"))?;
        self.virtual_router_id = Some(id);
        Ok(())
    }

    /// A source or destination address: it only fixes the family.
    fn other_address(&mut self, text: &str) -> Result<(), String> {
        let address = socket_address(text)?;
        self.fix_family(address.is_ipv6(), text)
    }

    /// `use_vmac [NAME] [MAC]`, in any order.
    fn use_vmac(&mut self, parameters: &[String]) -> Result<(), String> {
        self.own.get_or_insert(Own::Vmac);
        for parameter in parameters.iter().take(2) {
            if parameter.contains(':') {
                let mac = GivenMac::parse(parameter);
                let mac = mac.ok_or_else(|| format!("{parameter} is no MAC for a VMAC"))?;
                self.mac.get_or_insert(mac);
            } else {
                self.own_name(parameter)?;
            }
        }
        Ok(())
    }

    /// `use_ipvlan [NAME] [ADDRESS] [bridge|private|vepa]`, in any order. The first line counts.
    fn use_ipvlan(&mut self, parameters: &[String]) -> Result<(), String> {
        if self.own == Some(Own::Ipvlan) {
            return Err("a second use_ipvlan".to_owned());
        }
        self.own = Some(Own::Ipvlan);
        for parameter in parameters {
            if matches!(parameter.as_str(), "bridge" | "private" | "vepa") {
                continue;
            }
            let address = parameter.split('/').next().and_then(vip::parse_address);
            if let Some(address) = address {
                self.fix_family(address.is_ipv6(), parameter)?;
            } else {
                self.own_name(parameter)?;
            }
        }
        Ok(())
    }

    fn own_name(&mut self, name: &str) -> Result<(), String> {
        let valid = name.len() <= INTERFACE_NAME_MAX
            && !matches!(name, "" | "." | "..")
            && !name.contains(|c: char| c == '/' || c.is_ascii_whitespace());
        if self.own_name.is_some() || !valid {
            return Err(format!(
                "{name} as the name of the instance's own interface"
            ));
        }
        self.own_name = Some(name.to_owned());
        Ok(())
    }

    /// After the last file, like keepalived: excludes the addresses that do not fit into
    /// advertisements, names VMACs, and determines the interface of each address.
    pub(super) fn finish_all(mut drafts: Vec<Self>, globals: &Globals) -> Vec<(Instance, Trouble)> {
        let mut names = Names::default();
        for draft in &mut drafts {
            draft.reserve_names(&mut names);
        }
        let finish = |draft: Self| draft.finish(globals, &mut names);
        drafts.into_iter().map(finish).collect()
    }

    /// Reserves all configured names before [`Draft::finish`] chooses any.
    fn reserve_names(&mut self, names: &mut Names) {
        let entries = self.vips.iter().chain(&self.excluded);
        let devs = entries.filter_map(|entry| entry.dev.as_ref());
        for name in self.interface.iter().chain(devs) {
            names.take(name);
        }
        if self.interface.is_none() && self.unicast {
            self.own = None;
            self.own_name = None;
        }
        // If two instances have the same name, the first one gets it.
        if self.own_name.as_ref().is_some_and(|name| !names.give(name)) {
            self.own_name = None;
        }
    }

    fn finish(mut self, globals: &Globals, names: &mut Names) -> (Instance, Trouble) {
        let ipv6 = self.ipv6.unwrap_or(false);
        let advertised = self.vips.len().min(advertised_max(ipv6));
        let mut spilt = self.vips.split_off(advertised);
        self.excluded.append(&mut spilt);
        let own_name = self.own.map(|own| self.name_own(own, ipv6, globals, names));
        let vmac = own_name.as_deref().filter(|_| self.own == Some(Own::Vmac));
        let mut place = |entries: &[Entry]| -> Vec<VirtualAddress> {
            let place = |entry: &Entry| VirtualAddress {
                address: entry.address,
                prefix_len: entry.prefix_len,
                dev: self.interface_of(entry, ipv6, vmac, globals, names),
            };
            entries.iter().map(place).collect()
        };
        let (vips, excluded) = (place(&self.vips), place(&self.excluded));
        let instance = Instance {
            name: self.name,
            interface: self.interface,
            vmac: own_name,
            virtual_router_id: self.virtual_router_id,
            vips,
            excluded,
            peers: self.peers,
            hooks: self.hooks,
        };
        (instance, self.trouble)
    }

    fn mac(&self, ipv6: bool) -> [u8; 6] {
        let id = self.virtual_router_id.unwrap_or(0);
        self.mac
            .map_or_else(|| vmac::standard_mac(ipv6, id), |mac| mac.octets(id))
    }

    /// The name of the instance's own interface.
    fn name_own(&self, own: Own, ipv6: bool, globals: &Globals, names: &mut Names) -> String {
        let id = self.virtual_router_id.unwrap_or(0);
        let base = self.interface.as_deref().unwrap_or_default();
        let mac = self.mac(ipv6);
        // keepalived uses an interface with the same MAC on the same base, whatever its name.
        if let Some(name) = names.carrying(base, mac).filter(|_| own == Own::Vmac) {
            return name.to_owned();
        }
        let name = self.own_name.clone();
        let name = name.unwrap_or_else(|| names.free(globals.vmac_prefix(), id, ipv6));
        if own == Own::Vmac {
            names.carry(base, mac, &name);
        }
        name
    }

    /// The interface that keepalived puts an address on.
    fn interface_of(
        &self,
        entry: &Entry,
        ipv6: bool,
        vmac: Option<&str>,
        globals: &Globals,
        names: &mut Names,
    ) -> Option<String> {
        let elsewhere = entry.dev.is_some() && entry.dev != self.interface;
        let on_own = !elsewhere && entry.address.is_ipv6() == ipv6;
        if let Some(vmac) = vmac.filter(|_| on_own) {
            return Some(vmac.to_owned());
        }
        let base = entry.dev.clone().or_else(|| self.interface.clone())?;
        let on_vmac = entry.use_vmac || (self.use_vmac_addr && !on_own);
        if !on_vmac {
            return Some(base);
        }
        let mac = self.mac(entry.address.is_ipv6());
        if let Some(name) = names.carrying(&base, mac) {
            return Some(name.to_owned());
        }
        let id = self.virtual_router_id.unwrap_or(0);
        let name = names.free(globals.vmac_addr_prefix(), id, entry.address.is_ipv6());
        names.carry(&base, mac, &name);
        Some(name)
    }
}

/// An address as keepalived parses it for sockets: it ignores what follows a `-` or a `/`.
pub(super) fn socket_address(text: &str) -> Result<IpAddr, String> {
    let end = text.find('-').or_else(|| text.find('/'));
    let address = vip::parse_address(&text[..end.unwrap_or(text.len())]);
    address.ok_or_else(|| format!("{text} is no address"))
}
