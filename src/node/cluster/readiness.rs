//! Whether a node should be sent clients, for balancers.
//!
//! A node is not ready only if another node serves better. A fault of all nodes leaves all of them ready: they serve the page
//! and what they have in memory, and a balancer without a ready node serves nothing.

use std::sync::Arc;

use tokio::time::Instant;

use super::message::NodeMessage;
use crate::id::NodeId;
use crate::node::Node;

/// Whether a node should be sent clients. The reasons are fixed words, since the answer is public. Details are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It serves everything.
    Ready,
    /// It does not serve everything, and no other node is known to serve better.
    Degraded(&'static str),
    /// Other nodes serve better, or there are none to ask.
    NotReady(&'static str),
}

/// The reason if the store accepts no edits.
const UNSAVED: &str = "edits cannot be saved";

/// The reason if no message passes to or from other nodes.
const UNHEARD: &str = "the other nodes are not heard";

impl Node {
    /// Whether this node should be sent clients. Takes less than a second, whatever has failed.
    pub async fn readiness(&self) -> Readiness {
        let peers = &self.services().peers;
        if !self.can_save(None).await {
            // A node without a transport has no other nodes to ask. "Not ready" is the clearest answer to its operator.
            let checks = &self.services().save_checks;
            return if !self.is_in_cluster() || checks.others_can_save(peers).await {
                Readiness::NotReady(UNSAVED)
            } else {
                Readiness::Degraded(UNSAVED)
            };
        }
        if peers.is_heard() {
            Readiness::Ready
        } else if peers.others_are_heard() {
            Readiness::NotReady(UNHEARD)
        } else {
            Readiness::Degraded(UNHEARD)
        }
    }

    /// Answers another node that cannot save edits, if this node can. No answer means that it cannot.
    pub(super) fn answer_save_probe(self: &Arc<Self>, from: NodeId) {
        let (node, received) = (Arc::clone(self), Instant::now());
        self.services().runtime.spawn(async move {
            let services = node.services();
            let Some(_permit) = services.save_checks.probe_permit() else {
                return;
            };
            if !services.peers.is_leaving() && node.can_save(Some(received)).await {
                services.peers.send(from, &NodeMessage::SaveConfirmed);
            }
        });
    }

    async fn can_save(&self, since: Option<Instant>) -> bool {
        let services = self.services();
        let checks = &services.save_checks;
        checks.can_save(self.store(), &services.peers, since).await
    }
}
