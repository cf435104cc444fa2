//! One document on one node, as pure machines: what happens to it comes in as an [`Event`], what it wants done goes out
//! as an [`Action`]. No clock, no dice, no waiting: the shell (`node`) does those.
#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

mod action;
mod document;
mod encoded_snapshot;
mod event;
mod forwarder;
mod peer_message;
mod peer_subscriptions;
mod presence;
mod rejection;
mod salvage;
mod sequencer;
mod settings;
mod submit;

pub use action::{Action, SessionReply};
pub use document::{Document, PoisonSubmit};
pub use encoded_snapshot::EncodedSnapshot;
pub use event::{
    Event, Now, PageRequester, ReadMode, ReadOnly, ReadOnlyCause, SessionRequest, Ticket,
};
pub use peer_message::PeerMessage;
pub use presence::{Position, Presence};
pub use rejection::{Rejection, RejectionReason};
pub use salvage::{Salvaged, salvage};
pub use settings::DocumentSettings;
pub use submit::{Proposal, Submit};
