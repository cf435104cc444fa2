//! A node: the documents that are open on it, its presence channels, and its place in the cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::delivery::byte_budget::ByteBudget;
use super::delivery::outbox::Outbox;
use super::delivery::outbox_budget::OutboxBudget;
use super::delivery::reply::ReplyTo;
use super::delivery::snapshot_budget::SnapshotBudget;
use super::document::registry::{AskError, DocumentRegistry};
use super::presence::service::PresenceService;
use super::services::{NodeEnvironment, NodeServices};
use super::settings::NodeSettings;
use crate::doc::{EncodedSnapshot, Rejection, SessionRequest};
use crate::id::{DocId, Name, NodeId, SessionId};
use crate::store::{Heartbeat, History, LoadRange, Store, StoreError};
use crate::version::Capabilities;

/// A node of the cluster, or a server that is alone.
///
/// A new node owns every document, until it [takes part](Self::take_part) in a cluster.
#[derive(Debug)]
pub struct Node {
    /// The name that operators gave it.
    name: Arc<str>,
    services: Arc<NodeServices>,
    registry: DocumentRegistry,
    /// For the submits of all sockets.
    submit_budget: ByteBudget,
    outboxes: Arc<OutboxBudget>,
    /// Held for a heartbeat: one after the other, so that an older one does not overwrite a newer one.
    heartbeats: Semaphore,
    next_session: AtomicU64,
}

impl Node {
    /// A node without open documents. `id` is drawn anew at every start.
    #[must_use]
    pub fn new(
        (id, name): (NodeId, &str),
        settings: NodeSettings,
        environment: NodeEnvironment,
    ) -> Arc<Self> {
        let submit_budget = ByteBudget::new(settings.submits_bytes_max);
        let outboxes = Arc::new(OutboxBudget::new(settings.outboxes_bytes_max));
        let services = Arc::new(NodeServices::new((id, name), settings, environment));
        Arc::new(Self {
            name: name.into(),
            registry: DocumentRegistry::new(services.clone()),
            services,
            submit_budget,
            outboxes,
            heartbeats: Semaphore::new(1),
            next_session: AtomicU64::new(1),
        })
    }

    /// This node's id, drawn at its start.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.services.id
    }

    /// An id for a new socket.
    #[must_use]
    pub fn next_session(&self) -> SessionId {
        SessionId(self.next_session.fetch_add(1, Ordering::Relaxed))
    }

    /// The presence channels.
    #[must_use]
    pub fn presence(&self) -> &Arc<PresenceService> {
        &self.services.presence
    }

    /// The store of all documents.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &*self.services.store
    }

    /// The budget for the submits of all sockets.
    #[must_use]
    pub fn submit_budget(&self) -> &ByteBudget {
        &self.submit_budget
    }

    /// The budget for encoded snapshots.
    #[must_use]
    pub fn snapshots(&self) -> &Arc<SnapshotBudget> {
        &self.services.snapshots
    }

    /// The budget for the outboxes of all sockets.
    #[must_use]
    pub fn outboxes(&self) -> &Arc<OutboxBudget> {
        &self.outboxes
    }

    /// How many submits of one session may be unanswered.
    #[must_use]
    pub fn session_submits_max(&self) -> usize {
        self.settings().document.session_submits_max.max(1)
    }

    /// How many documents are open.
    #[must_use]
    pub fn documents_open(&self) -> usize {
        self.services.documents.len()
    }

    /// Sends a session's request to a document, which is opened if it is not open. Waits while the document's mailbox is full.
    /// The answer goes to `reply_to`.
    ///
    /// # Errors
    /// If the document was not asked. Then there will be no answer.
    pub async fn ask(
        &self,
        doc: &DocId,
        session: (SessionId, &Arc<Outbox>),
        request: SessionRequest,
        reply_to: ReplyTo,
    ) -> Result<(), AskError> {
        self.registry.ask(doc, session, request, reply_to).await
    }

    /// Reports to a document that a session ended.
    pub async fn end_session(&self, doc: &DocId, session: SessionId) {
        self.registry.end_session(doc, session).await;
    }

    /// Reports to a document that a session lost the permission to change it.
    pub async fn revoke_write(&self, doc: &DocId, session: SessionId) {
        self.registry.revoke_write(doc, session).await;
    }

    /// Ends a session on these presence channels: its subscriptions, and the values that it published last.
    pub fn end_presence<'a>(&self, session: SessionId, channels: impl Iterator<Item = &'a Name>) {
        self.presence().end_session(session, channels);
    }

    /// The document in an earlier state.
    ///
    /// # Errors
    /// If the log has not reached that revision, or the store does not answer.
    pub async fn history(
        &self,
        doc: &DocId,
        range: LoadRange,
    ) -> Result<Arc<EncodedSnapshot>, Rejection> {
        // Entries may have later times, given by a wrong clock. A time that is not in the past means the newest state.
        let range = match range {
            LoadRange::AtTime(at_ms) if at_ms >= self.time_ms() => LoadRange::Head,
            range => range,
        };
        self.services.loader.history(doc, range).await
    }

    /// Waits for an answer of the store; if the store is away, at most half a second.
    ///
    /// # Errors
    /// As `answer`, or that the store is away.
    pub async fn unless_store_away<T>(
        &self,
        verb: &'static str,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.services.store_status.unless_away(verb, answer).await
    }

    /// Resolves when the store has been away for half a second since the call. Cancel-safe.
    pub async fn store_away(&self) {
        self.services.store_status.away().await;
    }

    /// Returns true if the store that the nodes share is known to be away. A store of this node alone never is.
    #[must_use]
    pub fn is_store_away(&self) -> bool {
        self.services.peers.is_store_away()
    }

    /// Whether the store answers other nodes and not this one: clients are served better there.
    #[must_use]
    pub fn watch_store_isolation(&self) -> watch::Receiver<bool> {
        self.services.peers.watch_store_isolation()
    }

    /// The history of the log that this node serves.
    #[must_use]
    pub fn log_history(&self) -> History {
        self.services.log_history.get()
    }

    /// Notified when the log has another history. Sockets of earlier histories are closed.
    #[must_use]
    pub fn watch_log_history(&self) -> watch::Receiver<History> {
        self.services.log_history.watch()
    }

    /// Sets the history of the log. To be called before the first document is opened.
    pub fn begin_log_history(&self, history: History) {
        self.services.log_history.begin(history);
    }

    /// Returns true if there may be other nodes.
    #[must_use]
    pub fn is_in_cluster(&self) -> bool {
        self.services.peers.has_transport()
    }

    /// Returns true if this node gave up its documents because other live nodes share no wire version with it.
    #[must_use]
    pub fn is_incompatible(&self) -> bool {
        self.services.peers.is_incompatible()
    }

    /// What this node and all other live nodes can do. A new message, entry or stored format is used only if all can.
    #[must_use]
    pub fn common_capabilities(&self) -> Capabilities {
        self.services.peers.common_capabilities()
    }

    /// The wall clock by which entries get their times, in milliseconds since 1970.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        self.services.clock.wall_ms()
    }

    /// Opens no more documents, and waits until everything that was accepted is durable. Returns false if that takes longer
    /// than `patience`.
    pub async fn stop(&self, patience: Duration) -> bool {
        let is_durable = self.registry.stop(patience).await;
        self.services.faults.flush().await;
        is_durable
    }

    /// Closes the transport to the other nodes.
    pub async fn close_peers(&self) {
        self.services.peers.close().await;
    }

    /// The next heartbeat of this node.
    pub(super) fn next_heartbeat(&self) -> Heartbeat {
        let peers = &self.services.peers;
        Heartbeat {
            me: self.id(),
            name: self.name.clone(),
            takes_part: peers.takes_part(),
            address: peers.address(),
            version: peers.version().clone(),
        }
    }

    /// Waits for the permit for a heartbeat.
    pub(super) async fn heartbeat_permit(&self) -> Option<SemaphorePermit<'_>> {
        self.heartbeats.acquire().await.ok()
    }

    pub(super) fn services(&self) -> &NodeServices {
        &self.services
    }

    pub(super) fn registry(&self) -> &DocumentRegistry {
        &self.registry
    }

    pub(super) fn settings(&self) -> &NodeSettings {
        &self.services.settings
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Handle;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::gateway::ShareDbEncoder;
    use crate::store::MemoryStore;

    #[tokio::test]
    async fn documents_without_sessions_are_closed_for_documents_that_are_asked_for() {
        let settings = NodeSettings {
            documents_max: 8,
            ..NodeSettings::default()
        };
        let environment = NodeEnvironment {
            store: Arc::new(MemoryStore::new()),
            transport: None,
            encoder: &ShareDbEncoder,
            runtime: Handle::current(),
            metrics: crate::node::NodeMetrics::default(),
        };
        let node = Node::new((NodeId(1), "a"), settings, environment);
        let outbox = Arc::new(Outbox::new(1 << 20, &ShareDbEncoder, None));
        let ask = async |name: &str, request| {
            let doc = DocId::parse("c", name).unwrap();
            let session = (SessionId(1), &outbox);
            node.ask(&doc, session, request, ReplyTo::Unrequested).await
        };
        for n in 0..8 {
            let fetch = SessionRequest::Fetch { since: None };
            ask(&format!("fetched {n}"), fetch).await.unwrap();
        }
        let patience = Duration::from_secs(20);
        let subscribe = || SessionRequest::Subscribe { since: None };
        let subscribed = timeout(patience, async {
            while ask("subscribed", subscribe()).await == Err(AskError::Full) {
                sleep(Duration::from_millis(20)).await;
            }
        });
        subscribed.await.expect("a document is closed for it");
        let evicted = timeout(patience, async {
            while node.documents_open() > 1 {
                node.services.documents.evict_idle();
                sleep(Duration::from_millis(20)).await;
            }
        });
        evicted.await.expect("only the subscribed document stays");
        let doc = DocId::parse("c", "subscribed").unwrap();
        let unsent = node.services.documents.try_send(
            &doc,
            super::super::document::mailbox::DocumentMessage::Finish,
        );
        assert!(unsent.is_none(), "it is open");
    }
}
