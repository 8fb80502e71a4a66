//! The interfaces of this host.

use futures_util::TryStreamExt;
use rtnetlink::packet_core::DefaultNla;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, LinkAttribute, LinkFlags, LinkLayerType, LinkMessage,
};
use vipherald_core::address::{InterfaceIndex, Mac};
use vipherald_core::host::Link;

use super::{Error, Kernel, answered};

/// Octets of an interface's name, with the NUL (`IFNAMSIZ`).
const NAME_MAX: usize = 16;
/// Octets of an alternative name, with the NUL (`ALTIFNAMSIZ`).
const ALTERNATIVE_NAME_MAX: usize = 128;
/// Requests an interface by a name longer than `IFNAMSIZ`, which only an alternative one can be
/// (linux/if_link.h, since Linux 5.5).
const IFLA_ALT_IFNAME: u16 = 53;

pub(super) fn link_of(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    // In another network namespace, an index means another interface.
    let lower_is_elsewhere = message
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, LinkAttribute::LinkNetNsId(_)));
    let mut link = Link {
        index: InterfaceIndex(message.header.index),
        name: String::new(),
        mac: None,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        unlike_ethernet: None,
        forwards_ipv6: false,
        lower: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(octets) => {
                link.mac = Mac::from_slice(octets).filter(|mac| mac.is_unicast());
            }
            LinkAttribute::Link(lower) if *lower != 0 && !lower_is_elsewhere => {
                link.lower = Some(InterfaceIndex(*lower));
            }
            LinkAttribute::AfSpecUnspec(families) => {
                link.forwards_ipv6 = forwards_ipv6(families);
            }
            _ => {}
        }
    }
    link.unlike_ethernet = if flags.contains(LinkFlags::Loopback) {
        Some("is a loopback interface")
    } else if flags.contains(LinkFlags::Noarp) {
        Some("has ARP switched off (NOARP)")
    } else if flags.contains(LinkFlags::Pointopoint) {
        Some("is a point-to-point link")
    } else if message.header.link_layer_type != LinkLayerType::Ether {
        Some("is not an Ethernet interface")
    } else if link.mac.is_none() {
        Some("has no Ethernet address")
    } else {
        None
    };
    link
}

fn forwards_ipv6(families: &[AfSpecUnspec]) -> bool {
    families
        .iter()
        .filter_map(|family| match family {
            AfSpecUnspec::Inet6(inet6) => Some(inet6),
            _ => None,
        })
        .flatten()
        .any(|attribute| matches!(attribute, AfSpecInet6::DevConf(conf) if conf.forwarding > 0))
}

impl Kernel {
    /// The interface with this index, if there still is one.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn link(&self, index: InterfaceIndex) -> Result<Option<Link>, Error> {
        let request = self.handle.link().get().match_index(index.0);
        self.one_link(format!("look up interface {}", index.0), request)
            .await
    }

    /// The interface of this name, its own or an alternative one (`ip link property add altname`),
    /// or `None` if there is none.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn link_named(&self, name: &str) -> Result<Option<Link>, Error> {
        // The kernel refuses longer names as invalid.
        let request = match name.len() {
            0 | ALTERNATIVE_NAME_MAX.. => return Ok(None),
            // This finds alternative names, too.
            ..NAME_MAX => self.handle.link().get().match_name(name.to_owned()),
            _ => {
                let mut request = self.handle.link().get().match_index(0);
                let name = [name.as_bytes(), b"\0"].concat();
                let name = LinkAttribute::Other(DefaultNla::new(IFLA_ALT_IFNAME, name));
                request.message_mut().attributes.push(name);
                request
            }
        };
        self.one_link(format!("look up interface {name}"), request)
            .await
    }

    async fn one_link(
        &self,
        doing: String,
        request: rtnetlink::LinkGetRequest,
    ) -> Result<Option<Link>, Error> {
        let mut answers = Box::pin(request.execute());
        match answered(|| doing.clone(), answers.try_next()).await {
            Ok(message) => Ok(message.as_ref().map(link_of)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All interfaces.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn links(&self) -> Result<Vec<Link>, Error> {
        let dump = self.handle.link().get().execute();
        let messages: Vec<_> =
            answered(|| "list the interfaces".to_owned(), dump.try_collect()).await?;
        Ok(messages.iter().map(link_of).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_of_another_namespace_is_no_interface_below() {
        let [link, elsewhere] = [LinkAttribute::Link(3), LinkAttribute::LinkNetNsId(0)];
        let lower = |attributes: &[&LinkAttribute]| {
            let mut message = LinkMessage::default();
            message.attributes = attributes.iter().map(|one| (*one).clone()).collect();
            link_of(&message).lower
        };
        assert_eq!(lower(&[&link]), Some(InterfaceIndex(3)));
        // The kernel puts the namespace first.
        assert_eq!(lower(&[&elsewhere, &link]), None);
        assert_eq!(lower(&[&link, &elsewhere]), None);
    }
}
