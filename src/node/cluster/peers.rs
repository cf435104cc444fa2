//! The other nodes: whom this one takes for the owner of what, and the way to them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::codec::{BadMessage, Message};
use super::peer_versions::PeerVersions;
use super::wire_version::{self, Received};
use crate::cluster::{HashRing, Health, Membership, Transport, incompatible_nodes};
use crate::doc::PeerMessage;
use crate::id::{DocId, Name, NodeId};
use crate::store::{HeartbeatReply, LiveNode};
use crate::sync::lock;
use crate::version::{Capabilities, NodeVersion};

/// The other nodes. A node that is alone owns everything, and has nobody to say anything to.
#[derive(Debug)]
pub(in crate::node) struct Peers {
    me: NodeId,
    /// The versions that this node understands.
    version: NodeVersion,
    /// Of the other nodes. Locked for moments only.
    versions: Mutex<PeerVersions>,
    /// Whether this node stands back because other nodes do not understand it.
    incompatible: Mutex<bool>,
    transport: Option<Arc<dyn Transport>>,
    /// Locked for moments only.
    membership: Mutex<Membership>,
    /// The ring, told to whoever watches it.
    ring: watch::Sender<HashRing>,
    /// Whether this node takes no more documents.
    leaving: AtomicBool,
    /// Told when somebody is heard whom the store has not named yet.
    stranger: Notify,
    /// Whether the store answers the others and not this node, told to whoever watches it.
    stranded: watch::Sender<bool>,
    /// How often messages or the store came back, told to all documents.
    reopened: watch::Sender<u64>,
    /// Whether the store did not answer the last heartbeat.
    store_failed: AtomicBool,
    /// What the store said last of the other nodes.
    others: Mutex<Others>,
    /// Since when no message has passed.
    unheard_since: Mutex<Option<Duration>>,
    /// When another node last confirmed that it can save edits.
    saves: watch::Sender<Option<Instant>>,
    /// Where there is no transport: since when others live on the same store.
    deaf_since: Mutex<Option<Duration>>,
    dead_after: Duration,
    started: Instant,
}

/// What the store said last of the other nodes that live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::node) struct Others {
    /// Whether the store has ever said so.
    are_known: bool,
    /// How many live.
    living: usize,
    /// How many of them take documents.
    taking_part: usize,
}

impl Peers {
    /// Whoever says nothing to the store for `dead_after` is taken for dead.
    pub(in crate::node) fn new(
        (me, version): (NodeId, NodeVersion),
        transport: Option<Arc<dyn Transport>>,
        dead_after: Duration,
    ) -> Self {
        let membership = Membership::new(me, dead_after);
        Self {
            me,
            versions: Mutex::new(PeerVersions::new(version.clone())),
            incompatible: Mutex::default(),
            version,
            transport,
            ring: watch::Sender::new(membership.ring().clone()),
            membership: Mutex::new(membership),
            leaving: AtomicBool::new(false),
            stranger: Notify::new(),
            stranded: watch::Sender::new(false),
            reopened: watch::Sender::new(0),
            store_failed: AtomicBool::new(false),
            others: Mutex::default(),
            unheard_since: Mutex::default(),
            saves: watch::Sender::new(None),
            deaf_since: Mutex::default(),
            dead_after,
            started: Instant::now(),
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
    pub(in crate::node) fn undecoded_total(&self) -> u64 {
        self.versions().undecoded_total()
    }

    /// The live nodes that share no wire version with this one.
    pub(in crate::node) fn not_understood(&self) -> Vec<LiveNode> {
        self.versions().not_understood()
    }

    /// Whether this node stands back because other nodes do not understand it.
    pub(in crate::node) fn is_incompatible(&self) -> bool {
        *lock(&self.incompatible)
    }

    /// Who should own the document. Where the ring is empty, whoever is asked.
    pub(in crate::node) fn owner(&self, doc: &DocId) -> NodeId {
        owner(&self.ring.borrow(), doc, self.me)
    }

    /// The node by way of which a presence channel's subscribers hear of each other.
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

    /// Whether messages pass; a node that is alone needs none.
    pub(in crate::node) fn health(&self) -> Health {
        match &self.transport {
            Some(transport) => transport.health().borrow().clone(),
            None => Health::Good,
        }
    }

    /// Whether other nodes hear this one, or there are none: the store named nobody else who lives.
    pub(in crate::node) fn is_heard(&self) -> bool {
        let others = self.others();
        let is_alone = others.are_known && others.living == 0;
        is_alone || self.health().is_good()
    }

    /// Whether other nodes hear each other although this one has heard none for long: as long as it takes until all nodes
    /// have told the store that they hear nobody, if that is so.
    pub(in crate::node) fn others_are_heard(&self) -> bool {
        let unheard_since = *lock(&self.unheard_since);
        let is_long = |since| self.started.elapsed() >= since + self.dead_after;
        unheard_since.is_some_and(is_long) && self.others().taking_part > 0
    }

    fn others(&self) -> Others {
        *lock(&self.others)
    }

    /// Told to all documents when messages or the store are back.
    pub(in crate::node) fn watch_reopened(&self) -> watch::Receiver<u64> {
        self.reopened.subscribe()
    }

    /// When messages pass again or go another way, as the transport says.
    pub(in crate::node) fn transport_reopened(&self) -> Option<watch::Receiver<u64>> {
        Some(self.transport.as_ref()?.reopened())
    }

    /// Has every document ask again for what it waits for.
    pub(in crate::node) fn reopen(&self) {
        self.reopened.send_modify(|count| *count += 1);
    }

    /// The store answered a heartbeat, or did not.
    pub(in crate::node) fn note_store(&self, answered: bool) {
        if self.store_failed.swap(!answered, Ordering::SeqCst) && answered {
            self.reopen();
        }
    }

    /// The address at which other nodes reach this one directly.
    pub(in crate::node) fn address(&self) -> Option<Arc<str>> {
        self.transport.as_ref()?.address()
    }

    /// The other nodes that live, and their addresses.
    pub(in crate::node) fn learn(&self, addresses: &[(NodeId, Arc<str>)]) {
        if let Some(transport) = &self.transport {
            transport.learn(addresses);
        }
    }

    /// Another node has just found that it can save edits.
    pub(in crate::node) fn note_saves(&self) {
        self.saves.send_replace(Some(Instant::now()));
    }

    /// Asks the other nodes whether they can save edits; `false` if none confirms it in time.
    pub(in crate::node) async fn others_save(&self, patience: Duration) -> bool {
        let asked = Instant::now();
        let mut saves = self.saves.subscribe();
        if !self.send_all(&Message::SaveProbe) {
            return false;
        }
        let confirmed = saves.wait_for(|at| at.is_some_and(|at| at > asked));
        matches!(tokio::time::timeout(patience, confirmed).await, Ok(Ok(_)))
    }

    /// Whether this node takes no more documents.
    pub(in crate::node) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// Waits until messages pass, within a limit.
    pub(in crate::node) async fn come_up(&self, patience: Duration) {
        if let Some(transport) = &self.transport {
            let mut health = transport.health();
            let good = health.wait_for(Health::is_good);
            if !matches!(tokio::time::timeout(patience, good).await, Ok(Ok(_))) {
                tracing::warn!(health = ?self.health(), "the other nodes are not heard");
            }
        }
    }

    pub(in crate::node) fn has_transport(&self) -> bool {
        self.transport.is_some()
    }

    /// Says something to a node. Never waits, and may be lost.
    pub(in crate::node) fn send(&self, to: NodeId, message: &Message) {
        let Some(transport) = &self.transport else {
            return;
        };
        if matches!(
            message,
            Message::Link(_, PeerMessage::Submit(_) | PeerMessage::Subscribe { .. }, _)
        ) {
            self.membership().request_sent(to, self.started.elapsed());
        }
        let version = self.versions().for_node(to);
        match version {
            Some(version) => transport.send(to, wire_version::encode(message, version)),
            None => tracing::debug!(peer = %to, "no common wire version: a message is not sent"),
        }
    }

    /// Says something to a node by every way that there is.
    pub(in crate::node) fn send_every_way(&self, to: NodeId, message: &Message) {
        if let (Some(transport), Some(version)) = (&self.transport, self.versions().for_node(to)) {
            transport.send_every_way(to, wire_version::encode(message, version));
        }
    }

    /// Says something to all others; `false`: there are none.
    pub(in crate::node) fn send_all(&self, message: &Message) -> bool {
        let others: Vec<_> = self.membership().others().collect();
        for node in &others {
            self.send(*node, message);
        }
        !others.is_empty()
    }

    /// Something came from a node. If the store has not named the node yet, the next heartbeat is made at once.
    pub(in crate::node) fn received_from(&self, node: NodeId) {
        if self.membership().is_unknown(node, self.started.elapsed()) {
            self.stranger.notify_one();
        }
    }

    /// Decodes what came from a node. What cannot be decoded is logged, and answered with the versions of this node; the
    /// node does not count as heard.
    pub(in crate::node) fn decode(&self, from: NodeId, bytes: &[u8]) -> Option<Message> {
        match wire_version::decode(bytes, self.version.wire) {
            Ok(Received::Message(message)) => Some(message),
            Ok(Received::Notice(version)) => {
                self.noticed(from, version);
                None
            }
            Err(error) => {
                self.not_decoded(from, &error);
                None
            }
        }
    }

    fn noticed(&self, node: NodeId, version: NodeVersion) {
        let mine = &self.version;
        tracing::info!(
            peer = %node, wire = %version.wire, program = &*version.program, my_wire = %mine.wire, my_program = &*mine.program,
            "a node did not decode a message of this node: it states its wire versions"
        );
        self.versions().noticed(node, version);
    }

    fn not_decoded(&self, node: NodeId, error: &BadMessage) {
        let mine = &self.version;
        let (reaction, (name, version), total) = {
            let mut versions = self.versions();
            let reaction = versions.undecodable(node, self.started.elapsed());
            (
                reaction,
                versions.describe(node),
                versions.undecoded_total(),
            )
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

    /// A message of a node was decoded.
    pub(in crate::node) fn heard(&self, node: NodeId) {
        let (mut membership, now) = (self.membership(), self.started.elapsed());
        if membership.message_received(node, now) {
            tracing::info!(peer = %node, "heard again: it has its documents back");
            self.publish(&membership);
        }
    }

    /// Waits until somebody is heard whom the store has not named yet: the ring is about to change.
    pub(in crate::node) async fn stranger(&self) {
        self.stranger.notified().await;
    }

    /// A node takes no more documents, perhaps this one.
    pub(in crate::node) fn leaves(&self, node: NodeId) {
        if node == self.me {
            self.leaving.store(true, Ordering::SeqCst);
        }
        let mut membership = self.membership();
        if membership.peer_leaves(node) {
            tracing::info!(peer = %node, "it leaves: its documents go to others");
            self.publish(&membership);
        }
    }

    /// Whether this node takes documents: the others hear it, and it does not leave.
    pub(in crate::node) fn take_part(&self) -> bool {
        self.transport.is_some() && self.is_heard() && !self.is_leaving()
    }

    /// The store answers a heartbeat: it names the live nodes and those that take documents. A node that hears nobody
    /// believes that it is cut off, and keeps the ring that it knows. A node without a transport is alone in its ring,
    /// however many others live. Returns true if this node must give up its documents: other nodes do not understand it.
    pub(in crate::node) fn named(&self, pulse: &HeartbeatReply) -> bool {
        let others = pulse.others.len();
        if self.transport.is_none() {
            self.share_the_store(others);
            return false;
        }
        self.versions().named(&pulse.others);
        let incompatible = self.incompatible_of(pulse);
        let stands_back = self.stand_back(incompatible.contains(&self.me));
        let nodes = pulse.nodes.iter().copied();
        let nodes: Vec<_> = nodes.filter(|node| !incompatible.contains(node)).collect();
        *lock(&self.others) = Others {
            are_known: true,
            living: others,
            taking_part: nodes.iter().filter(|node| **node != self.me).count(),
        };
        let is_heard = self.is_heard();
        let (mut membership, now) = (self.membership(), self.started.elapsed());
        let changed =
            membership.store_answered(now) | membership.set_incompatible(self.is_incompatible());
        membership.observe_idle_nodes(pulse.nodes.len() <= others, now);
        if (is_heard && membership.store_listed(&nodes, now)) || changed {
            tracing::info!(nodes = ?membership.ring().nodes(), "the ring is another");
            self.publish(&membership);
        }
        stands_back
    }

    /// The live nodes that stand back because others do not understand them, perhaps this one.
    fn incompatible_of(&self, pulse: &HeartbeatReply) -> BTreeSet<NodeId> {
        let others = pulse.others.iter().map(|node| (node.id, node.version.wire));
        let live: Vec<_> = others.chain([(self.me, self.version.wire)]).collect();
        incompatible_nodes(&live)
    }

    /// Notes whether this node stands back. Returns true if it does from now on.
    fn stand_back(&self, incompatible: bool) -> bool {
        let was = std::mem::replace(&mut *lock(&self.incompatible), incompatible);
        if incompatible && !was {
            let nodes = self.not_understood();
            tracing::error!(
                nodes = names(&nodes), my_wire = %self.version.wire,
                "no common wire version with other live nodes: this node gives up its documents until they are gone; \
                 upgrade one release at a time"
            );
        } else if was && !incompatible {
            tracing::info!("all live nodes understand this node again");
        }
        incompatible && !was
    }

    /// So many others live on the store of a node without a transport: an old self may, for a while, and nobody else.
    fn share_the_store(&self, others: usize) {
        let mut since = lock(&self.deaf_since);
        let now = self.started.elapsed();
        if others == 0 {
            *since = None;
        } else if now >= since.get_or_insert(now).saturating_add(self.dead_after * 2) {
            // Said once: what comes after the end of time does not come again.
            *since = Some(Duration::MAX);
            tracing::error!(
                others,
                "other nodes stand on this Postgres, and this one cannot hear them: set redis.url on all of them"
            );
        }
    }

    /// Looks which nodes owe an answer, and asks whether they are there. Returns those that are passed over from now on.
    pub(in crate::node) fn look(&self) -> Vec<NodeId> {
        let is_heard = self.is_heard();
        let (mut membership, now) = (self.membership(), self.started.elapsed());
        self.note_heard(is_heard, now);
        if !is_heard && membership.transport_failed(now) {
            tracing::info!(nodes = ?membership.ring().nodes(), "nothing passes: who seemed silent is in the ring again");
            self.publish(&membership);
        }
        let was_stranded = membership.is_isolated();
        let due = membership.poll(now);
        if was_stranded && !membership.is_isolated() {
            tracing::warn!("the store answers no other node either: this one is in the ring again");
            self.publish(&membership);
        } else if due.ring_changed {
            self.publish(&membership);
        }
        drop(membership);
        for node in due.ping {
            self.send_every_way(node, &Message::Ping);
        }
        if due.query_peers_about_store {
            self.send_all(&Message::HasStore);
        }
        due.suspected
    }

    fn note_heard(&self, is_heard: bool, now: Duration) {
        let mut since = lock(&self.unheard_since);
        *since = (!is_heard).then(|| since.unwrap_or(now));
    }

    /// Another node is not answered by the store, and asks whether this one is. Silence means no.
    pub(in crate::node) fn asked_for_store(&self, from: NodeId) {
        if self.has_store() {
            self.send(from, &Message::StoreAnswers);
        }
    }

    /// Whether the store answers this node, as far as it knows.
    pub(in crate::node) fn has_store(&self) -> bool {
        self.membership().has_store(self.started.elapsed())
    }

    /// Whether the store is known to be away: it does not answer this node's heartbeats any more.
    pub(in crate::node) fn is_store_away(&self) -> bool {
        self.membership().is_store_away(self.started.elapsed())
    }

    /// The store answers another node; says whether that shows that this one is stranded.
    pub(in crate::node) fn stands(&self, node: NodeId) -> bool {
        let mut membership = self.membership();
        if !membership.peer_has_store(node, self.started.elapsed()) {
            return false;
        }
        tracing::warn!(
            "the store answers others and not this node: it gives up what it owns until it is answered"
        );
        self.publish(&membership);
        true
    }

    pub(in crate::node) fn watch_store_isolation(&self) -> watch::Receiver<bool> {
        self.stranded.subscribe()
    }

    /// Sends what is queued, within a limit, and gives the inbox up.
    pub(in crate::node) async fn close(&self) {
        if let Some(transport) = &self.transport {
            transport.close().await;
        }
    }

    fn publish(&self, membership: &Membership) {
        self.ring.send_replace(membership.ring().clone());
        self.stranded.send_if_modified(|told| {
            std::mem::replace(told, membership.is_isolated()) != membership.is_isolated()
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
pub(in crate::node) fn names(nodes: &[LiveNode]) -> String {
    let name = |node: &LiveNode| format!("{} (wire {})", node.name, node.version.wire);
    nodes.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Who should own the document by this ring; where it is empty, this node.
pub(in crate::node) fn owner(ring: &HashRing, doc: &DocId, me: NodeId) -> NodeId {
    ring.owner(doc).unwrap_or(me)
}

/// How often it is looked at who owes an answer.
pub(in crate::node) const LOOK_EVERY: Duration = Duration::from_millis(50);
