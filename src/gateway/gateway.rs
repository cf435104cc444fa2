//! What all sockets and requests share, and the shutdown of both.

use std::sync::Arc;
use std::time::Duration;

use actix_web::rt;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::metrics::GatewayMetrics;
use super::rate_limits::RateLimits;
use super::rebalance::RebalanceQueue;
use super::settings::GatewaySettings;
use crate::auth::{AuthService, ClientIdIssuer, Credentials, Identity};
use crate::doc::EncodedSnapshot;
use crate::id::DocId;
use crate::metrics::set_gauge;
use crate::node::Node;
use crate::protocol::Refusal;
use crate::store::{LoadRange, StoreError};

/// The phase of the server's shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Serving.
    Serving,
    /// Other nodes take over the documents; sockets are redirected to them one after the other, and served until then.
    Leaving,
    /// New edits are rejected; accepted ones become durable and are delivered.
    Draining,
    /// Sockets are being closed.
    Closing,
}

/// What all sockets and requests share.
#[derive(Debug)]
pub struct Gateway {
    node: Arc<Node>,
    client_ids: ClientIdIssuer,
    auth: Arc<AuthService>,
    settings: GatewaySettings,
    metrics: GatewayMetrics,
    limits: RateLimits,
    /// Permits for reads of earlier revisions.
    histories: Semaphore,
    /// Permits for lists of documents.
    lists: Semaphore,
    phase: watch::Sender<Phase>,
    /// The number of open sockets.
    sockets: watch::Sender<usize>,
    /// Redirects sockets to nodes with fewer of them.
    rebalance_queue: RebalanceQueue,
}

impl Gateway {
    /// A gateway to the documents of a node.
    #[must_use]
    pub fn new(
        node: Arc<Node>,
        client_ids: ClientIdIssuer,
        auth: Arc<AuthService>,
        settings: GatewaySettings,
        metrics: GatewayMetrics,
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
            metrics,
            phase,
            sockets: watch::Sender::new(0),
            rebalance_queue: RebalanceQueue::new(),
        })
    }

    /// In a cluster: hands the documents over to the other nodes and redirects the sockets to them, those that open
    /// meanwhile included. Returns when no socket is open, at the latest after twice `hand_over_ms`.
    pub async fn hand_over(&self) {
        self.phase.send_replace(Phase::Leaving);
        self.node.leave_ring().await;
        let mut sockets = self.sockets.subscribe();
        let closed = sockets.wait_for(|open| *open == 0);
        let _ = rt::time::timeout(self.settings.hand_over() * 2, closed).await;
    }

    /// Redirects the sockets to the other nodes while the store answers those and not this node, and accepts sockets again
    /// when it answers.
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

    /// Rejects new edits, waits until the accepted ones are durable and delivered, and closes the sockets with 1012. Returns
    /// when they are closed, or after `patience`. Returns false if an edit was not durable by then.
    pub async fn stop(&self, patience: Duration) -> bool {
        self.phase.send_replace(Phase::Draining);
        let durable = self.node.stop(patience).await;
        self.phase.send_replace(Phase::Closing);
        let mut sockets = self.sockets.subscribe();
        let closed = sockets.wait_for(|open| *open == 0);
        let _ = rt::time::timeout(self.settings.close_patience() * 2, closed).await;
        durable
    }

    /// An earlier revision of a document. The number of reads at once is limited, because they keep the store busy.
    pub(super) async fn history(
        &self,
        doc: &DocId,
        reach: LoadRange,
    ) -> Result<Arc<EncodedSnapshot>, Refusal> {
        let permit = self.histories.acquire().await;
        let _permit = permit.map_err(|_| Refusal::busy())?;
        Ok(self.node.history(doc, reach).await?)
    }

    /// Returns true if the decoded path of a request is that of the WebSockets.
    pub(super) fn is_socket_path(&self, path: &str) -> bool {
        let path = self.below_base(path).unwrap_or_default();
        path.strip_suffix('/').unwrap_or(path) == self.settings.socket_path
    }

    /// The path below the base path, with its leading slash; `None` if it is outside.
    pub(super) fn below_base<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(&self.settings.base_path)?;
        rest.starts_with('/').then_some(rest)
    }

    /// Waits for a permit to list documents; `None` after 5 s.
    pub(super) async fn list_permit(&self) -> Option<SemaphorePermit<'_>> {
        let permit = rt::time::timeout(LIST_PATIENCE, self.lists.acquire());
        permit.await.ok()?.ok()
    }

    /// Returns true if the server accepts sockets and edits.
    pub(super) fn is_serving(&self) -> bool {
        *self.phase.borrow() == Phase::Serving
    }

    /// The number of open sockets.
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

    /// The identity that `credentials` prove; `None` if they prove none. Counts tokens that prove none.
    pub(super) async fn identify(
        &self,
        credentials: &Credentials,
    ) -> Result<Option<Identity>, StoreError> {
        let identity = self.auth.identify(credentials).await?;
        let has_token = credentials
            .access
            .as_ref()
            .is_some_and(|token| !token.is_empty());
        if identity.is_none() && has_token {
            self.metrics.credentials_refused.inc();
        }
        Ok(identity)
    }

    pub(super) fn metrics(&self) -> &GatewayMetrics {
        &self.metrics
    }

    /// Sets the gauges of the gateway's metrics to the current state. Does not wait.
    pub fn sample_metrics(&self) {
        set_gauge(&self.metrics.sockets_open, self.sockets());
        self.metrics.serving.set(i64::from(self.is_serving()));
    }

    pub(super) fn settings(&self) -> &GatewaySettings {
        &self.settings
    }

    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }
}

/// The reads of earlier revisions at once.
const HISTORIES_AT_ONCE: usize = 4;

/// The lists of documents that are read at once: as many as the store has connections for them by default.
const LISTS_AT_ONCE: usize = 2;

/// How long a list waits for its permit.
const LIST_PATIENCE: Duration = Duration::from_secs(5);

/// How long a node keeps its sockets while the store answers others and not this node. What they have open goes on
/// meanwhile by way of the others.
const STRANDED_PATIENCE: Duration = Duration::from_secs(5);

/// Counts an open socket until it is dropped.
#[derive(Debug)]
pub(super) struct SocketGuard(Arc<Gateway>);

impl SocketGuard {
    /// Counts one more socket; `None` if as many are open as may be.
    pub(super) fn new(gateway: &Arc<Gateway>) -> Option<Self> {
        let guard = Self(gateway.clone());
        gateway.sockets.send_modify(|open| *open += 1);
        // Read in a statement of its own: `guard` may be dropped below, and its drop takes the same lock.
        let open = *gateway.sockets.borrow();
        (open <= gateway.settings.sockets_max).then_some(guard)
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
    use crate::node::{NodeEnvironment, NodeMetrics, NodeSettings};
    use crate::store::MemoryStore;

    #[tokio::test]
    async fn rejected_socket_is_not_counted() {
        let environment = NodeEnvironment {
            store: Arc::new(MemoryStore::new()),
            transport: None,
            encoder: &ShareDbEncoder,
            runtime: tokio::runtime::Handle::current(),
            metrics: NodeMetrics::default(),
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
        let gateway = Gateway::new(
            node,
            ClientIdIssuer::new(&[7; 32]),
            auth,
            settings,
            GatewayMetrics::default(),
        );
        let first = SocketGuard::new(&gateway);
        assert!(first.is_some());
        assert!(SocketGuard::new(&gateway).is_none());
        drop(first);
        assert!(SocketGuard::new(&gateway).is_some());
    }
}
