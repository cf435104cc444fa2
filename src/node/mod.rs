//! The shell that drives the machines: documents by name, a task for each, the store's answers, the sockets' outboxes.

mod alarm;
mod bell;
mod change_follower;
mod damage;
mod history;
mod life;
#[expect(clippy::module_inception, reason = "a node is the main type of `node`")]
mod node;
mod outbox;
mod outbox_budget;
mod pace;
mod peer_versions;
mod peers;
mod presence;
mod readiness;
mod refold;
mod repair;
mod reply;
mod room;
mod rumours;
mod slice;
mod snapshot_budget;
mod store_clock;
mod store_status;
mod task;
#[cfg(debug_assertions)]
mod test_environment;
mod wire;
mod wire_version;

pub use bell::{Bell, Ringing};
pub use history::{HISTORY_CHANGED, HISTORY_CHANGED_REASON};
pub use life::JoinError;
pub use node::{Node, NodeSettings, Unasked};
pub use outbox::{Outbox, Slow, TRY_AGAIN_LATER};
pub use outbox_budget::OutboxBudget;
pub use presence::{Asker, Hub};
pub use readiness::Readiness;
pub use repair::{Mode as RepairMode, repair};
pub use reply::{Bulk, ReplyTo, Slot};
pub use room::{Room, Taken};
pub use snapshot_budget::SnapshotBudget;
