//! The addresses that this host holds.

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use vipherald_core::address::InterfaceIndex;
use vipherald_core::host::{Address, Usability};

use super::{Error, Kernel, answered, family};

/// The address in a message; `None` for multicast and anycast ones.
pub(super) fn address_of(message: &AddressMessage) -> Option<Address> {
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link `Address` is the other end and `Local` is ours.
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let usability = if flags.contains(AddressFlags::Dadfailed) {
        Usability::DadFailed
    } else if flags.intersects(AddressFlags::Tentative | AddressFlags::Optimistic) {
        Usability::Tentative
    } else {
        Usability::Usable
    };
    Some(Address {
        ip: local.or(address)?,
        interface: InterfaceIndex(message.header.index),
        prefix_len: message.header.prefix_len,
        usability,
    })
}

impl Kernel {
    /// All addresses of this host, of both families.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn addresses(&self) -> Result<Vec<Address>, Error> {
        let dump = self.handle.address().get().execute();
        let messages: Vec<_> =
            answered(|| "list the addresses".to_owned(), dump.try_collect()).await?;
        Ok(messages.iter().filter_map(address_of).collect())
    }

    /// Removes an address from its interface. Returns whether it was there.
    ///
    /// # Errors
    /// If the kernel refuses, as it does without `CAP_NET_ADMIN`.
    pub async fn delete_address(&self, address: &Address) -> Result<bool, Error> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.ip);
        message.header.index = address.interface.0;
        message.header.prefix_len = address.prefix_len;
        // `Local` and the index identify the address. The kernel compares the prefix length only of
        // an `Address`, which would then have to match, too.
        message.attributes = vec![AddressAttribute::Local(address.ip)];
        let request = self.handle.address().del(message);
        let doing = || format!("delete the address {}", address.ip);
        match answered(doing, request.execute()).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }
}
