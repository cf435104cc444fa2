//! The other nodes that subscribe to a document's commits.

use std::collections::BTreeMap;
use std::time::Duration;

use super::event::Now;
use crate::id::NodeId;

/// The other nodes that subscribe to a document's commits, each with the time of its newest message. A node that is silent for
/// [`SUBSCRIPTION_LASTS`] has no readers any more or has failed.
#[derive(Debug, Default)]
pub(super) struct PeerSubscriptions(BTreeMap<NodeId, Duration>);

/// How long a subscription lasts without being renewed.
pub(super) const SUBSCRIPTION_LASTS: Duration = Duration::from_secs(30);

impl PeerSubscriptions {
    /// Adds or renews a node's subscription.
    pub(super) fn renew(&mut self, node: NodeId, now: Now) {
        self.0.insert(node, now.clock);
    }

    /// Removes the subscriptions that were not renewed in time.
    pub(super) fn expire(&mut self, now: Now) {
        self.0
            .retain(|_, renewed| now.clock < *renewed + SUBSCRIPTION_LASTS);
    }

    /// The subscribed nodes.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.0.keys().copied()
    }

    /// Returns true if no node is subscribed.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When the first subscription ends unless it is renewed.
    pub(super) fn expiry(&self) -> Option<Duration> {
        self.0
            .values()
            .min()
            .map(|renewed| *renewed + SUBSCRIPTION_LASTS)
    }
}
