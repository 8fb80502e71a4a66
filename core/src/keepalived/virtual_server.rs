//! A `virtual_server`: which real servers receive packets whose destination is the virtual IP.

use std::net::IpAddr;

use super::instance::socket_address;

/// How LVS forwards packets to a real server.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Method {
    /// LVS rewrites the destination: the real server does not need the virtual IP. keepalived's
    /// default.
    #[default]
    Nat,
    /// Direct routing or a tunnel: the real server has the virtual IP, too.
    DrOrTun,
}

/// The part of a block read so far. Its braces count as for keepalived's VRRP process, which skips
/// the block; its keywords as for keepalived's checker process.
#[derive(Default)]
pub(super) struct VirtualServer {
    method: Method,
    real_servers: Vec<(IpAddr, Method)>,
    /// Whether the block of the last of these is open.
    in_real_server: bool,
}

impl VirtualServer {
    /// Applies a line; `depth` counts the open blocks.
    pub(super) fn keyword(&mut self, depth: usize, words: &[String]) {
        let [keyword, value, ..] = words else {
            return;
        };
        match (depth, keyword.as_str()) {
            (1, "lb_kind" | "lvs_method") => set(&mut self.method, value),
            (1, "real_server") => {
                let address = socket_address(value).ok();
                self.in_real_server = address.is_some();
                // A later line of the virtual server does not change its method.
                let method = self.method;
                self.real_servers.extend(address.map(|it| (it, method)));
            }
            (2, "lvs_method") if self.in_real_server => {
                if let Some((_, method)) = self.real_servers.last_mut() {
                    set(method, value);
                }
            }
            (1, _) => self.in_real_server = false,
            _ => {}
        }
    }

    /// The real servers that have the virtual IP.
    pub(super) fn without_nat(self) -> impl Iterator<Item = IpAddr> {
        let all = self.real_servers.into_iter();
        all.filter_map(|(address, method)| (method != Method::Nat).then_some(address))
    }
}

/// keepalived ignores an unknown method.
fn set(method: &mut Method, value: &str) {
    match value {
        "NAT" => *method = Method::Nat,
        "DR" | "TUN" => *method = Method::DrOrTun,
        _ => {}
    }
}
