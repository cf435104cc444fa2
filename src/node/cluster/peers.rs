//! The other nodes: which of them owns what, and the messages to them.

mod health;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

pub(super) use self::health::{CHECK_INTERVAL, Participation};
use super::codec::MessageDecodeError;
use super::message::NodeMessage;
use super::peer_versions::PeerVersions;
use super::wire_version::{self, Received};
use crate::cluster::{HashRing, Membership, Transport, TransportStats};
use crate::doc::PeerMessage;
use crate::id::{DocId, Name, NodeId};
use crate::node::metrics::{Direction, NodeMetrics};
use crate::store::LiveNode;
use crate::sync::lock;
use crate::version::{Capabilities, NodeVersion};

/// The other nodes, as this node knows them from the store's answers and from messages. A node that is alone owns every
/// document.
///
/// All mutexes are locked for single look-ups and updates.
#[derive(Debug)]
pub(in crate::node) struct Peers {
    me: NodeId,
    /// The versions that this node understands.
    version: NodeVersion,
    /// The versions of the other nodes.
    versions: Mutex<PeerVersions>,
    transport: Option<Arc<dyn Transport>>,
    membership: Mutex<Membership>,
    /// The hash ring of the membership.
    ring: watch::Sender<HashRing>,
    /// Whether this node takes no more documents.
    is_leaving: AtomicBool,
    /// Whether this node has given up its documents because other nodes do not understand it.
    is_incompatible: AtomicBool,
    /// Notified when a message comes from a node that the store has not listed yet.
    unknown_node: Notify,
    /// Whether the store answers other nodes and not this one.
    is_isolated: watch::Sender<bool>,
    /// How often messages, or the store, came back.
    reconnects: watch::Sender<u64>,
    /// Whether the last heartbeat failed.
    heartbeat_failed: AtomicBool,
    /// What the store last said of the other nodes.
    others: Mutex<OtherNodes>,
    /// Since when no message has passed, by `started`.
    unheard_since: Mutex<Option<Duration>>,
    /// When another node last confirmed that it can save edits.
    save_confirmed: watch::Sender<Option<Instant>>,
    /// Without a transport: since when other nodes use the same store, by `started`.
    shared_since: Mutex<Option<Duration>>,
    dead_after: Duration,
    started: Instant,
    metrics: Arc<NodeMetrics>,
}

/// What a node knows of the others, for metrics.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct PeersStatus {
    /// The live nodes, as the store last listed them.
    pub(in crate::node) alive: usize,
    /// Those that are left out of the ring because they do not answer.
    pub(in crate::node) suspected: usize,
    /// Whether the store answers other nodes and not this one.
    pub(in crate::node) is_isolated: bool,
    /// Whether the store is known to be away.
    pub(in crate::node) is_store_away: bool,
    /// Whether messages pass, or there is no other node.
    pub(in crate::node) is_heard: bool,
    /// What the transport counted; `None` without one.
    pub(in crate::node) messages: Option<TransportStats>,
}

/// What the store last said of the other live nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct OtherNodes {
    /// Whether the store has answered yet.
    are_known: bool,
    /// How many live.
    live: usize,
    /// How many of them take documents.
    taking_part: usize,
}

impl Peers {
    /// A node counts as dead `dead_after` its last heartbeat.
    pub(in crate::node) fn new(
        (me, version): (NodeId, NodeVersion),
        transport: Option<Arc<dyn Transport>>,
        dead_after: Duration,
        metrics: Arc<NodeMetrics>,
    ) -> Self {
        let membership = Membership::new(me, dead_after);
        Self {
            me,
            versions: Mutex::new(PeerVersions::new(version.clone())),
            version,
            transport,
            ring: watch::Sender::new(membership.ring().clone()),
            membership: Mutex::new(membership),
            is_leaving: AtomicBool::new(false),
            is_incompatible: AtomicBool::new(false),
            unknown_node: Notify::new(),
            is_isolated: watch::Sender::new(false),
            reconnects: watch::Sender::new(0),
            heartbeat_failed: AtomicBool::new(false),
            others: Mutex::default(),
            unheard_since: Mutex::default(),
            save_confirmed: watch::Sender::new(None),
            shared_since: Mutex::default(),
            dead_after,
            started: Instant::now(),
            metrics,
        }
    }

    pub(in crate::node) fn me(&self) -> NodeId {
        self.me
    }

    /// The versions that this node understands.
    pub(in crate::node) fn version(&self) -> &NodeVersion {
        &self.version
    }

    /// What this node and all other live nodes can do.
    pub(in crate::node) fn common_capabilities(&self) -> Capabilities {
        self.versions().common_capabilities()
    }

    /// How many messages of other nodes could not be decoded since the start.
    #[cfg(test)]
    pub(super) fn undecoded_total(&self) -> u64 {
        self.versions().undecoded_total()
    }

    /// What is known of the other nodes, for metrics.
    pub(in crate::node) fn status(&self) -> PeersStatus {
        // Each lock is released before the next one is taken.
        let suspected = self.membership().suspected_count();
        let alive = lock(&self.others).live;
        PeersStatus {
            alive,
            suspected,
            is_isolated: *self.is_isolated.borrow(),
            is_store_away: self.is_store_away(),
            is_heard: self.is_heard(),
            messages: self.transport.as_ref().map(|transport| transport.counts()),
        }
    }

    /// The live nodes that share no wire version with this one.
    pub(super) fn not_understood(&self) -> Vec<LiveNode> {
        self.versions().not_understood()
    }

    /// The node that should own the document: this node, if the ring is empty.
    pub(in crate::node) fn owner(&self, doc: &DocId) -> NodeId {
        owner(&self.ring.borrow(), doc, self.me)
    }

    /// The home of a presence channel: the node by way of which the values of other nodes come.
    pub(in crate::node) fn home(&self, channel: &Name) -> NodeId {
        let doc = DocId {
            collection: channel.clone(),
            id: channel.clone(),
        };
        self.owner(&doc)
    }

    pub(in crate::node) fn watch_ring(&self) -> watch::Receiver<HashRing> {
        self.ring.subscribe()
    }

    /// The address at which other nodes reach this one directly.
    pub(in crate::node) fn address(&self) -> Option<Arc<str>> {
        self.transport.as_ref()?.address()
    }

    /// Sets the addresses of the other live nodes.
    pub(super) fn set_addresses(&self, addresses: &[(NodeId, Arc<str>)]) {
        if let Some(transport) = &self.transport {
            transport.learn(addresses);
        }
    }

    pub(in crate::node) fn has_transport(&self) -> bool {
        self.transport.is_some()
    }

    /// Returns true if this node takes no more documents.
    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::SeqCst)
    }

    /// Returns true if this node takes documents: other nodes hear it, and it does not leave.
    pub(in crate::node) fn takes_part(&self) -> bool {
        self.transport.is_some() && self.is_heard() && !self.is_leaving()
    }

    /// Sends a message to a node. Never waits. The message may be lost.
    pub(in crate::node) fn send(&self, to: NodeId, message: &NodeMessage) {
        let Some(transport) = &self.transport else {
            return;
        };
        if let NodeMessage::Document(
            _,
            PeerMessage::Submit(..) | PeerMessage::Subscribe { .. },
            _,
        ) = message
        {
            self.membership().request_sent(to, self.started.elapsed());
        }
        let (version, readable) = {
            let versions = self.versions();
            (versions.for_node(to), versions.readable(to, message))
        };
        match (version, readable) {
            (Some(version), Some(message)) => {
                let bytes = wire_version::encode(&message, version);
                let sent = self.metrics.peer_message_bytes.of(Direction::Sent);
                sent.inc_by(bytes.len() as u64);
                transport.send(to, bytes);
            }
            (None, _) => {
                tracing::debug!(peer = %to, "no common wire version: a message is not sent");
            }
            (_, None) => {
                tracing::debug!(peer = %to, "a message that the node cannot read is not sent");
            }
        }
    }

    /// Sends a message to a node by all transports.
    pub(super) fn send_every_way(&self, to: NodeId, message: &NodeMessage) {
        if let (Some(transport), Some(version)) = (&self.transport, self.versions().for_node(to)) {
            transport.send_every_way(to, wire_version::encode(message, version));
        }
    }

    /// Sends a message to all other nodes. Returns false if there are none.
    pub(super) fn send_all(&self, message: &NodeMessage) -> bool {
        let others: Vec<_> = self.membership().others().collect();
        for node in &others {
            self.send(*node, message);
        }
        !others.is_empty()
    }

    /// Takes note of bytes from a node. If the store has not listed the node yet, the next heartbeat is made at once.
    pub(super) fn bytes_received(&self, node: NodeId) {
        if self.membership().is_unknown(node, self.started.elapsed()) {
            self.unknown_node.notify_one();
        }
    }

    /// Decodes a message of a node. Bytes that cannot be decoded are logged, and answered with the versions of this node; they do
    /// not show that the node serves its documents.
    pub(super) fn decode(&self, from: NodeId, bytes: &[u8]) -> Option<NodeMessage> {
        let received = self.metrics.peer_message_bytes.of(Direction::Received);
        received.inc_by(bytes.len() as u64);
        match wire_version::decode(bytes, self.version.wire) {
            Ok(Received::Message(message)) => Some(message),
            Ok(Received::Notice(version)) => {
                self.notice_received(from, version);
                None
            }
            Err(error) => {
                self.decode_failed(from, &error);
                None
            }
        }
    }

    /// Takes note of a decoded message of a node.
    pub(super) fn message_received(&self, node: NodeId) {
        let (mut membership, now) = (self.membership(), self.started.elapsed());
        if membership.message_received(node, now) {
            tracing::info!(peer = %node, "heard again: it has its documents back");
            self.publish(&membership);
        }
    }

    /// Waits for a message of a node that the store has not listed yet: the ring is about to change.
    pub(super) async fn unknown_node_heard(&self) {
        self.unknown_node.notified().await;
    }

    /// Removes a node from the ring, perhaps this one: it takes no more documents.
    pub(super) fn node_leaves(&self, node: NodeId) {
        if node == self.me {
            self.is_leaving.store(true, Ordering::SeqCst);
        }
        let mut membership = self.membership();
        if membership.peer_leaves(node) {
            tracing::info!(peer = %node, "it leaves: its documents go to others");
            self.publish(&membership);
        }
    }

    /// Takes note that another node has just found that it can save edits.
    pub(super) fn save_confirmed(&self) {
        self.save_confirmed.send_replace(Some(Instant::now()));
    }

    /// Asks the other nodes whether they can save edits. Returns false if none confirms it in time.
    pub(super) async fn others_can_save(&self, patience: Duration) -> bool {
        let asked = Instant::now();
        let mut confirmations = self.save_confirmed.subscribe();
        if !self.send_all(&NodeMessage::SaveProbe) {
            return false;
        }
        let confirmed = confirmations.wait_for(|at| at.is_some_and(|at| at > asked));
        matches!(tokio::time::timeout(patience, confirmed).await, Ok(Ok(_)))
    }

    /// Sends what is queued, within a limit, and closes the inbox.
    pub(in crate::node) async fn close(&self) {
        if let Some(transport) = &self.transport {
            transport.close().await;
        }
    }

    fn notice_received(&self, node: NodeId, version: NodeVersion) {
        let mine = &self.version;
        tracing::info!(
            peer = %node, wire = %version.wire, program = &*version.program, my_wire = %mine.wire, my_program = &*mine.program,
            "a node did not decode a message of this node: it states its wire versions"
        );
        self.versions().noticed(node, version);
    }

    fn decode_failed(&self, node: NodeId, error: &MessageDecodeError) {
        let mine = &self.version;
        let (reaction, (name, version), total) = {
            let mut versions = self.versions();
            let reaction = versions.undecodable(node, self.started.elapsed());
            let described = versions.describe(node);
            (reaction, described, versions.undecoded_total())
        };
        if let Some(messages) = reaction.warn {
            let version = version.unwrap_or_default();
            tracing::warn!(
                peer = %node, peer_name = &*name, wire = %version.wire, program = &*version.program, my_wire = %mine.wire,
                my_program = &*mine.program, messages, total, %error,
                "messages of another node cannot be decoded: it runs another version"
            );
        }
        if reaction.answer
            && let Some(transport) = &self.transport
        {
            transport.send(node, wire_version::notice(mine));
        }
    }

    /// Publishes the ring and the isolation of the membership.
    fn publish(&self, membership: &Membership) {
        self.ring.send_replace(membership.ring().clone());
        self.is_isolated.send_if_modified(|published| {
            let is_isolated = membership.is_isolated();
            std::mem::replace(published, is_isolated) != is_isolated
        });
    }

    fn membership(&self) -> MutexGuard<'_, Membership> {
        lock(&self.membership)
    }

    fn versions(&self) -> MutexGuard<'_, PeerVersions> {
        lock(&self.versions)
    }
}

/// The names and wire versions of nodes, for logs.
pub(super) fn names(nodes: &[LiveNode]) -> String {
    let name = |node: &LiveNode| format!("{} (wire {})", node.name, node.version.wire);
    nodes.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// The node that should own the document by this ring: `me`, if the ring is empty.
pub(in crate::node) fn owner(ring: &HashRing, doc: &DocId, me: NodeId) -> NodeId {
    ring.owner(doc).unwrap_or(me)
}
