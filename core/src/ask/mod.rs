//! Questions to other hosts, and what their answers prove: who else answers for a VIP, and who
//! follows it.
//!
//! What is known of a link is kept once for all VIPs: its hosts, sorted (`LinkHosts`), and those that may
//! not exist, which are asked about one VIP (`Background`). Evidence is kept for each VIP and host
//! (`Confirmation`), the MAC that answered included: a forged answer about one VIP decides nothing about
//! another. [`MOST_HOSTS`] and [`MOST_PAIRS`] limit both.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

mod asker;
mod background;
mod confirmation;
mod echo_id;
mod loss;
mod owners;
mod peers;
mod rate;
#[cfg(test)]
pub(crate) mod testing;
mod timers;

pub use asker::{Asker, Listening, Transmit};
pub(crate) use background::{Background, Neighbourhood};
pub use confirmation::{Confirmation, Control, Peer, PeerVerdict, Proof, Source};
pub(crate) use confirmation::{Question, Reply};
pub(crate) use echo_id::EchoId;
pub(crate) use loss::{LossEstimates, PROBES_WITHOUT_LOSS, probes_to_rule_out_chance};
pub use owners::{
    AskedFrom, Claimants, MOST_CLAIMANTS, OwnerSearch, OwnerSearches, Subject, VipVerdict,
    unused_near,
};
pub(crate) use owners::{LOOK_AGAIN, OwnerWatch, Step};
pub(crate) use peers::{Given, PeerFinder};
pub use peers::{LinkView, MOST_HOSTS, MOST_PAIRS, Observed};
pub use rate::{ArpBudget, Bucket};
pub(crate) use timers::{Timers, Worth};

/// How long the answer to the last question may take.
pub const LAST_ANSWER: Duration = Duration::from_millis(250);

/// Which peers to ask whether they follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confirm {
    /// Configured peers, gateways, and the kernel's neighbours.
    #[default]
    All,
    /// Configured peers and gateways.
    Peers,
    /// All of these, and every address of the VIP's IPv4 subnet.
    Subnet,
    /// Nobody.
    None,
}

/// Why a frame could not leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The process may open no more files (`EMFILE`).
    OutOfDescriptors,
    /// The kernel's error message.
    Other(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfDescriptors => f.write_str("EMFILE: Too many open files"),
            Self::Other(why) => f.write_str(why),
        }
    }
}
