//! One document on one node, as pure machines: what happens to it comes in as an [`Event`], what it wants done goes out
//! as an [`Action`]. No clock, no dice, no waiting: the shell (`node`) does those.
#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

mod document;
mod event;
mod forwarder;
mod peer_message;
mod peer_subscriptions;
mod salvage;
mod sequencer;
mod settings;

pub use document::{Culprit, Document};
pub use event::{Action, Answer, Ask, Asker, Event, Now, ReadOnly, ReadOnlyCause, Ticket};
pub use peer_message::{Link, Submit};
pub use salvage::{Salvaged, salvage};
pub use settings::DocumentSettings;
