//! What all sockets and requests share, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use actix_web::rt;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::rate_limits::RateLimits;
use super::rebalance::RebalanceQueue;
use super::settings::GatewaySettings;
use crate::auth::{AuthService, ClientIdIssuer};
use crate::doc::EncodedSnapshot;
use crate::id::DocId;
use crate::node::Node;
use crate::protocol::Refusal;
use crate::store::LoadRange;

/// How far the server is on its way down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It serves.
    Serving,
    /// Other nodes take over its documents; it serves on, and its sockets are sent to them one after the other.
    Leaving,
    /// It accepts nothing more; what was accepted becomes durable and is told.
    Draining,
    /// Sockets close.
    Closing,
}

/// What all sockets and requests share.
#[derive(Debug)]
pub struct Gateway {
    node: Arc<Node>,
    client_ids: ClientIdIssuer,
    auth: Arc<AuthService>,
    settings: GatewaySettings,
    limits: RateLimits,
    /// Taken by who looks at what documents were.
    histories: Semaphore,
    /// Taken by a request for a list of documents while the store looks through them.
    lists: Semaphore,
    phase: watch::Sender<Phase>,
    /// How many sockets are open.
    sockets: watch::Sender<usize>,
    /// Calls some of them to leave for nodes with fewer.
    rebalance_queue: RebalanceQueue,
}

impl Gateway {
    /// A gateway to a node's documents.
    #[must_use]
    pub fn new(
        node: Arc<Node>,
        client_ids: ClientIdIssuer,
        auth: Arc<AuthService>,
        settings: GatewaySettings,
    ) -> Arc<Self> {
        let phase = watch::Sender::new(Phase::Serving);
        Arc::new(Self {
            node,
            client_ids,
            auth,
            limits: RateLimits::new(&settings),
            histories: Semaphore::new(HISTORIES_AT_ONCE),
            lists: Semaphore::new(LISTS_AT_ONCE),
            settings,
            phase,
            sockets: watch::Sender::new(0),
            rebalance_queue: RebalanceQueue::new(),
        })
    }

    /// In a cluster: hands the documents over to the other nodes and sends the sockets to them, within the time that the
    /// settings give. Sockets that open meanwhile are sent on too.
    pub async fn hand_over(&self) {
        self.phase.send_replace(Phase::Leaving);
        self.node.leave_ring().await;
        let mut sockets = self.sockets.subscribe();
        let closed = sockets.wait_for(|open| *open == 0);
        let _ = rt::time::timeout(self.settings.hand_over() * 2, closed).await;
    }

    /// Sends the sockets to the other nodes when the store has answered those, and not this one, for a while; takes new
    /// sockets again when it is answered.
    pub async fn yield_while_stranded(&self) {
        let mut stranded = self.node.watch_store_isolation();
        while stranded.wait_for(|it| *it).await.is_ok() {
            let answered = stranded.wait_for(|it| !*it);
            if rt::time::timeout(STRANDED_PATIENCE, answered).await.is_ok() {
                continue;
            }
            self.phase.send_replace(Phase::Leaving);
            let _ = stranded.wait_for(|it| !*it).await;
            self.phase.send_replace(Phase::Serving);
        }
    }

    /// Stops accepting, waits until what was accepted is durable and told, and closes the sockets with 1012. Returns
    /// when they are closed, or after `patience`; `false`: something was not durable by then.
    pub async fn stop(&self, patience: Duration) -> bool {
        self.phase.send_replace(Phase::Draining);
        let durable = self.node.stop(patience).await;
        self.phase.send_replace(Phase::Closing);
        let mut sockets = self.sockets.subscribe();
        let closed = sockets.wait_for(|open| *open == 0);
        let _ = rt::time::timeout(self.settings.close_patience() * 2, closed).await;
        durable
    }

    /// A document as it was once. A few are looked at a time: that takes the store long, and others read from it too.
    pub(super) async fn history(
        &self,
        doc: &DocId,
        reach: LoadRange,
    ) -> Result<Arc<EncodedSnapshot>, Refusal> {
        let turn = self.histories.acquire().await;
        let _turn = turn.map_err(|_| Refusal::busy())?;
        Ok(self.node.history(doc, reach).await?)
    }

    /// Whether the decoded path of a request is that of the WebSockets.
    pub(super) fn is_socket_path(&self, path: &str) -> bool {
        let path = self.below_base(path).unwrap_or_default();
        path.strip_suffix('/').unwrap_or(path) == self.settings.socket_path
    }

    /// The rest of a path, beginning with its slash; `None` if it is outside of the base path.
    pub(super) fn below_base<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(&self.settings.base_path)?;
        rest.starts_with('/').then_some(rest)
    }

    /// Waits for the right to have the store look through the documents of a collection; none: the wait took 5 s.
    pub(super) async fn list_turn(&self) -> Option<SemaphorePermit<'_>> {
        let turn = rt::time::timeout(LIST_PATIENCE, self.lists.acquire());
        turn.await.ok()?.ok()
    }

    /// Whether it takes what comes.
    pub(super) fn is_serving(&self) -> bool {
        *self.phase.borrow() == Phase::Serving
    }

    /// How many sockets are open.
    pub(super) fn sockets(&self) -> usize {
        *self.sockets.borrow()
    }

    pub(super) fn rebalance_queue(&self) -> &RebalanceQueue {
        &self.rebalance_queue
    }

    pub(super) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    pub(super) fn client_ids(&self) -> &ClientIdIssuer {
        &self.client_ids
    }

    pub(super) fn limits(&self) -> &RateLimits {
        &self.limits
    }

    pub(super) fn auth(&self) -> &Arc<AuthService> {
        &self.auth
    }

    pub(super) fn settings(&self) -> &GatewaySettings {
        &self.settings
    }

    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }
}

/// How many look at what documents were at the same time. The others wait for their turn.
const HISTORIES_AT_ONCE: usize = 4;

/// How many lists of documents are read at the same time: as many as the store has connections for them by default.
const LISTS_AT_ONCE: usize = 2;

/// How long a list waits for its turn.
const LIST_PATIENCE: Duration = Duration::from_secs(5);

/// How long a node keeps its sockets while the store answers others and not this node. What they have open goes on
/// meanwhile by way of the others.
const STRANDED_PATIENCE: Duration = Duration::from_secs(5);

/// Counts a socket for as long as it lives.
#[derive(Debug)]
pub(super) struct SocketGuard(Arc<Gateway>);

impl SocketGuard {
    /// None: as many are open as may be.
    pub(super) fn new(gateway: &Arc<Gateway>) -> Option<Self> {
        let counted = Self(gateway.clone());
        gateway.sockets.send_modify(|open| *open += 1);
        // Looked at in a statement of its own: `counted` may be dropped below, and its drop takes the same lock.
        let open = *gateway.sockets.borrow();
        (open <= gateway.settings.sockets_max).then_some(counted)
    }
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        self.0.sockets.send_modify(|open| *open -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{AuthMode, AuthSettings};
    use crate::gateway::ShareDbEncoder;
    use crate::id::NodeId;
    use crate::node::{NodeEnvironment, NodeSettings};
    use crate::store::MemoryStore;

    #[tokio::test]
    async fn the_socket_too_many_is_refused_and_no_longer_counted() {
        let environment = NodeEnvironment {
            store: Arc::new(MemoryStore::new()),
            transport: None,
            encoder: &ShareDbEncoder,
            runtime: tokio::runtime::Handle::current(),
        };
        let node = Node::new((NodeId(1), "a"), NodeSettings::default(), environment);
        let settings = GatewaySettings {
            sockets_max: 1,
            ..GatewaySettings::default()
        };
        let open = AuthSettings {
            mode: AuthMode::Open,
            ..AuthSettings::default()
        };
        let auth = AuthService::open(open, None, &[7; 32]).unwrap();
        let gateway = Gateway::new(node, ClientIdIssuer::new(&[7; 32]), auth, settings);
        let first = SocketGuard::new(&gateway);
        assert!(first.is_some());
        assert!(SocketGuard::new(&gateway).is_none());
        drop(first);
        assert!(SocketGuard::new(&gateway).is_some());
    }
}
