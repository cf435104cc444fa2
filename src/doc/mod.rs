//! One document on one node, as state machines without IO: [`Event`]s in, [`Action`]s out. The caller (`node`) has the clock, the
//! store and the sockets.
//!
//! A [`Document`] holds a forwarder always and a sequencer while the node owns the document. Both add to one list of effects, which
//! [`Document::handle`] works off in one loop:
//!
//! ```text
//!                    Event                                    Action
//!  sessions  ── Request, SessionClosed, … ──►         ┌──► Reply, Deliver, PublishPresence, CloseSessions
//!  store     ── SnapshotEncoded, PageLoaded, ─►       ├──► LoadSnapshot, EncodeSnapshot, LoadPage, Claim,
//!               Claimed, Appended, …          Document│    Append, SaveSnapshot, …
//!  ring      ── OwnerChanged ────────────────►   │ ▲  │
//!  peers     ── PeerMessage ─────────────────►   │ │  └──► Send
//!                                                ▼ │ effects
//!               ┌────────────┐ Subscribe, Submit, SaveSnapshot ┌───────────┐
//!               │ Forwarder  │ ──────────────────────────────► │ Sequencer │   here, or on another node
//!               │ every node │ ◄────────────────────────────── │ the owner │   through PeerMessage
//!               └────────────┘ Commits, Reject                 └───────────┘
//! ```
//!
//! A message between a forwarder and a sequencer of the same node is handled within the same call of `handle`; all others are
//! actions and events of the two nodes. The module knows no wire format: `protocol` encodes what it answers.
#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

mod action;
mod document;
mod effects;
mod encoded_snapshot;
mod event;
mod forwarder;
mod peer_message;
mod peer_subscriptions;
mod presence;
mod rejection;
mod retry_timers;
mod salvage;
mod sequencer;
mod settings;
mod submit;

pub use action::{Action, SessionReply};
pub use document::{Contradiction, Document, PoisonSubmit};
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
