//! Who is asked what, and what answers prove. Two questions: who else answers for a VIP, and who
//! follows it?

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

mod confirmation;
mod identity;
mod loss;
mod owners;
mod peers;
mod rate;
mod rivals;
mod timers;

pub use confirmation::{Confirmation, Control, Peer, PeerVerdict, Source};
pub(crate) use confirmation::{EchoId, Question};
pub use identity::{Asker, FollowUp, unused_near};
pub(crate) use loss::{LossEstimates, probes_to_rule_out_chance};
pub use owners::{OwnerSearch, VipVerdict};
pub(crate) use peers::PeerFinder;
pub use peers::{LinkView, asking_address};
pub use rate::Bucket;
pub(crate) use rivals::{LOOK_AGAIN, Rivals, Step};
pub(crate) use timers::Timers;

/// How long the last question's answer may take.
pub const LAST_ANSWER: Duration = Duration::from_millis(250);

/// Who is asked whether they follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confirm {
    /// The peers that were named, gateways, and every neighbour the kernel knows.
    #[default]
    All,
    /// The peers that were named, and gateways.
    Peers,
    /// Nobody.
    None,
}

/// Why a frame could not leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The process may open no more files (`EMFILE`).
    OutOfDescriptors,
    /// The kernel's word.
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
