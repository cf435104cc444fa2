//! The async shell around the state machines: a task per open document, delivery to sockets, presence, and the other nodes
//! of the cluster.

mod cluster;
mod delivery;
mod document;
#[expect(clippy::module_inception, reason = "a node is the main type of `node`")]
mod node;
mod presence;
mod settings;
#[cfg(debug_assertions)]
mod test_environment;

pub use cluster::background::JoinError;
pub use cluster::readiness::Readiness;
pub use delivery::byte_budget::{ByteBudget, BytePermit};
pub use delivery::outbox::{Outbox, OutboxFull};
pub use delivery::outbox_budget::OutboxBudget;
pub use delivery::reply::{BulkReply, ReplyTo, RequestSlot};
pub use delivery::snapshot_budget::SnapshotBudget;
pub use delivery::wake_queue::{WakeQueue, WakeTask};
pub use document::repair::{RepairMode, repair};
pub use node::{AskError, Node};
pub use presence::registry::{PresenceRegistry, PresenceRequester};
pub use settings::NodeSettings;
