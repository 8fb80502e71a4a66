//! Interfaces and addresses at one moment.

use vipherald_core::host::{Address, HostSnapshot, PlacedVip};

use super::{Error, Kernel};

impl Kernel {
    /// All interfaces and addresses.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn snapshot(&self) -> Result<HostSnapshot, Error> {
        Ok(HostSnapshot {
            links: self.links().await?,
            addresses: self.addresses().await?,
        })
    }

    /// All addresses, but only the interfaces that have some of these VIPs, and those below: to list all
    /// interfaces takes as long as the rest of a purge.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn snapshot_around(&self, vips: &[PlacedVip]) -> Result<HostSnapshot, Error> {
        let mut host = HostSnapshot {
            links: Vec::new(),
            addresses: self.addresses().await?,
        };
        let has_vip = |own: &&Address| vips.iter().any(|placed| placed.vip.ip() == own.ip);
        let holders = host.addresses.iter().filter(has_vip);
        let mut unknown: Vec<_> = holders.map(|own| own.interface).collect();
        while let Some(index) = unknown.pop() {
            if host.link(index).is_none()
                && let Some(link) = self.link(index).await?
            {
                unknown.extend(link.lower);
                host.links.push(link);
            }
        }
        Ok(host)
    }
}
