//! The async shell around the state machines: a task for each open document, delivery to sockets, presence channels, and the
//! other nodes of the cluster.
//!
//! - `document`: the tasks of open documents, loading, and repair
//! - `delivery`: outboxes, replies, and the budgets and throttles of what is sent to sockets
//! - `presence`: presence channels
//! - `faults`: dead letters, and documents in quarantine
//! - `cluster`: the other nodes, the store's heartbeats and feed of changes, the history of the log
//!
//! [`Node`] is what the gateway uses. Below it, `services` holds what all these parts share.

mod clock;
mod cluster;
mod delivery;
mod document;
mod faults;
mod metrics;
#[expect(clippy::module_inception, reason = "a node is the main type of `node`")]
mod node;
mod presence;
mod sampling;
mod services;
mod settings;
#[cfg(debug_assertions)]
mod test_environment;

pub use cluster::background::JoinError;
pub use cluster::readiness::Readiness;
pub use delivery::byte_budget::{ByteBudget, BytePermit};
pub use delivery::encoder::{CommitAuthor, FrameEncoder, ReplyEncoder, SnapshotNotice};
pub use delivery::outbox::{Outbox, OutboxFull};
pub use delivery::outbox_budget::OutboxBudget;
pub use delivery::reply::{BulkReply, ReplyTo, RequestSlot};
pub use delivery::snapshot_budget::SnapshotBudget;
pub use delivery::wake_queue::{WakeQueue, WakeTask};
pub use document::registry::AskError;
pub use document::repair::{RepairMode, repair};
pub use faults::DeadLetterSettings;
pub use metrics::NodeMetrics;
pub use node::Node;
pub use presence::registry::PresenceRequester;
pub use presence::service::PresenceService;
pub use services::NodeEnvironment;
pub use settings::NodeSettings;
