//! The other nodes that want a document's commits.

use std::collections::BTreeMap;
use std::time::Duration;

use super::event::Now;
use crate::id::NodeId;

/// The other nodes that want a document's commits, each with the time at which it said so last. Whoever has not said it
/// for a while has no readers any more, or is gone.
#[derive(Debug, Default)]
pub(super) struct Listeners(BTreeMap<NodeId, Duration>);

/// How long a node is told the commits after it said that it wants them.
pub(super) const LISTENS_FOR: Duration = Duration::from_secs(30);

impl Listeners {
    /// A node says that it wants the commits.
    pub(super) fn said(&mut self, node: NodeId, now: Now) {
        self.0.insert(node, now.clock);
    }

    /// Forgets those who have been silent for too long.
    pub(super) fn expire(&mut self, now: Now) {
        self.0.retain(|_, said| now.clock < *said + LISTENS_FOR);
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.0.keys().copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When the first of them will have been silent for too long.
    pub(super) fn expiry(&self) -> Option<Duration> {
        self.0.values().min().map(|said| *said + LISTENS_FOR)
    }
}
