//! Who is asked what, and what answers prove. Two questions: who else answers for a VIP, and who
//! follows it?

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

mod confirmation;
mod follow_up;
mod inquiry;
mod loss;
mod peers;
mod rate;
mod rivals;
mod timers;

pub use confirmation::{Confirmation, Control, Peer, PeerVerdict, Source};
pub(crate) use confirmation::{Question, Run};
pub use follow_up::{Asker, FollowUp, unused_near};
pub use inquiry::{Inquiry, VipVerdict};
pub(crate) use loss::{Paths, enough_probes};
pub(crate) use peers::Near;
pub use peers::{Surroundings, asking_address};
pub use rate::Bucket;
pub(crate) use rivals::{LOOK_AGAIN, Rivals, Step};
pub(crate) use timers::Agenda;

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
