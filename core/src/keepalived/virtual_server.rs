//! A `virtual_server`: which real servers get packets that are still addressed to the virtual IP.

use std::net::IpAddr;

use super::instance::socket_address;

/// How LVS hands packets to a real server.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Method {
    /// It rewrites the address: the real server needs no virtual IP. keepalived's default.
    #[default]
    Nat,
    /// By direct routing or through a tunnel: the real server has the virtual IP, too.
    AsTheyAre,
}

/// A block that is being read. The process for VRRP passes over it, and so its braces are counted;
/// within them it is read as keepalived's checker reads it.
#[derive(Default)]
pub(super) struct VirtualServer {
    method: Method,
    real_servers: Vec<(IpAddr, Method)>,
    /// The `real_server` whose block is open is one of these.
    taken: bool,
}

impl VirtualServer {
    /// A line, and how many blocks are open there.
    pub(super) fn keyword(&mut self, depth: usize, words: &[String]) {
        let [keyword, value, ..] = words else {
            return;
        };
        match (depth, keyword.as_str()) {
            (1, "lb_kind" | "lvs_method") => set(&mut self.method, value),
            (1, "real_server") => {
                let address = socket_address(value).ok();
                self.taken = address.is_some();
                // It has the method so far: a line behind it doesn't count for it.
                let method = self.method;
                self.real_servers.extend(address.map(|it| (it, method)));
            }
            (2, "lvs_method") if self.taken => {
                if let Some((_, method)) = self.real_servers.last_mut() {
                    set(method, value);
                }
            }
            // Another block.
            (1, _) => self.taken = false,
            _ => {}
        }
    }

    /// The real servers that have the virtual IP.
    pub(super) fn without_nat(self) -> impl Iterator<Item = IpAddr> {
        let all = self.real_servers.into_iter();
        all.filter_map(|(address, method)| (method != Method::Nat).then_some(address))
    }
}

/// keepalived passes over a word that it doesn't know.
fn set(method: &mut Method, value: &str) {
    match value {
        "NAT" => *method = Method::Nat,
        "DR" | "TUN" => *method = Method::AsTheyAre,
        _ => {}
    }
}
