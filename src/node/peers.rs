//! The other nodes: whom this one takes for the owner of what, and the way to them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::wire::Message;
use crate::cluster::{Health, Membership, Ring, Transport};
use crate::doc::Link;
use crate::id::{DocId, Name, NodeId};

/// The other nodes. A node that is alone owns everything, and has nobody to say anything to.
#[derive(Debug)]
pub(super) struct Peers {
    me: NodeId,
    transport: Option<Arc<dyn Transport>>,
    /// Locked for moments only.
    membership: Mutex<Membership>,
    /// The ring, told to whoever watches it.
    ring: watch::Sender<Ring>,
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
pub(super) struct Others {
    /// Whether the store has ever said so.
    are_known: bool,
    /// How many live.
    living: usize,
    /// How many of them take documents.
    taking_part: usize,
}

impl Peers {
    /// Whoever says nothing to the store for `dead_after` is taken for dead.
    pub(super) fn new(
        me: NodeId,
        transport: Option<Arc<dyn Transport>>,
        dead_after: Duration,
    ) -> Self {
        let membership = Membership::new(me, dead_after);
        Self {
            me,
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

    pub(super) fn me(&self) -> NodeId {
        self.me
    }

    /// Who should own the document. Where the ring is empty, whoever is asked.
    pub(super) fn owner(&self, doc: &DocId) -> NodeId {
        owner(&self.ring.borrow(), doc, self.me)
    }

    /// The node by way of which a presence channel's subscribers hear of each other.
    pub(super) fn home(&self, channel: &Name) -> NodeId {
        let doc = DocId {
            collection: channel.clone(),
            id: channel.clone(),
        };
        self.owner(&doc)
    }

    pub(super) fn watch_ring(&self) -> watch::Receiver<Ring> {
        self.ring.subscribe()
    }

    /// Whether messages pass; a node that is alone needs none.
    pub(super) fn health(&self) -> Health {
        match &self.transport {
            Some(transport) => transport.health().borrow().clone(),
            None => Health::Good,
        }
    }

    /// Whether other nodes hear this one, or there are none: the store named nobody else who lives.
    pub(super) fn is_heard(&self) -> bool {
        let others = self.others();
        let is_alone = others.are_known && others.living == 0;
        is_alone || self.health().is_good()
    }

    /// Whether other nodes hear each other although this one has heard none for long: as long as it takes until all nodes
    /// have told the store that they hear nobody, if that is so.
    pub(super) fn others_are_heard(&self) -> bool {
        let unheard_since = *self
            .unheard_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_long = |since| self.started.elapsed() >= since + self.dead_after;
        unheard_since.is_some_and(is_long) && self.others().taking_part > 0
    }

    fn others(&self) -> Others {
        *self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Told to all documents when messages or the store are back.
    pub(super) fn watch_reopened(&self) -> watch::Receiver<u64> {
        self.reopened.subscribe()
    }

    /// When messages pass again or go another way, as the transport says.
    pub(super) fn transport_reopened(&self) -> Option<watch::Receiver<u64>> {
        Some(self.transport.as_ref()?.reopened())
    }

    /// Has every document ask again for what it waits for.
    pub(super) fn reopen(&self) {
        self.reopened.send_modify(|count| *count += 1);
    }

    /// The store answered a heartbeat, or did not.
    pub(super) fn note_store(&self, answered: bool) {
        if self.store_failed.swap(!answered, Ordering::SeqCst) && answered {
            self.reopen();
        }
    }

    /// The address at which other nodes reach this one directly.
    pub(super) fn address(&self) -> Option<Arc<str>> {
        self.transport.as_ref()?.address()
    }

    /// The other nodes that live, and their addresses.
    pub(super) fn learn(&self, addresses: &[(NodeId, Arc<str>)]) {
        if let Some(transport) = &self.transport {
            transport.learn(addresses);
        }
    }

    /// Another node has just found that it can save edits.
    pub(super) fn note_saves(&self) {
        self.saves.send_replace(Some(Instant::now()));
    }

    /// Asks the other nodes whether they can save edits; `false` if none confirms it in time.
    pub(super) async fn others_save(&self, patience: Duration) -> bool {
        let asked = Instant::now();
        let mut saves = self.saves.subscribe();
        if !self.send_all(&Message::SaveProbe) {
            return false;
        }
        let confirmed = saves.wait_for(|at| at.is_some_and(|at| at > asked));
        matches!(tokio::time::timeout(patience, confirmed).await, Ok(Ok(_)))
    }

    /// Whether this node takes no more documents.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// Waits until messages pass, within a limit.
    pub(super) async fn come_up(&self, patience: Duration) {
        if let Some(transport) = &self.transport {
            let mut health = transport.health();
            let good = health.wait_for(Health::is_good);
            if !matches!(tokio::time::timeout(patience, good).await, Ok(Ok(_))) {
                tracing::warn!(health = ?self.health(), "the other nodes are not heard");
            }
        }
    }

    pub(super) fn has_transport(&self) -> bool {
        self.transport.is_some()
    }

    /// Says something to a node. Never waits, and may be lost.
    pub(super) fn send(&self, to: NodeId, message: &Message) {
        let Some(transport) = &self.transport else {
            return;
        };
        if matches!(
            message,
            Message::Link(_, Link::Submit(_) | Link::Subscribe { .. }, _)
        ) {
            self.membership().asked(to, self.started.elapsed());
        }
        transport.send(to, message.encode());
    }

    /// Says something to a node by every way that there is.
    pub(super) fn send_every_way(&self, to: NodeId, message: &Message) {
        if let Some(transport) = &self.transport {
            transport.send_every_way(to, message.encode());
        }
    }

    /// Says something to all others; `false`: there are none.
    pub(super) fn send_all(&self, message: &Message) -> bool {
        let others: Vec<_> = self.membership().others().collect();
        for node in &others {
            self.send(*node, message);
        }
        !others.is_empty()
    }

    /// A node was heard.
    pub(super) fn heard(&self, node: NodeId) {
        let (mut membership, now) = (self.membership(), self.started.elapsed());
        if membership.is_strange(node, now) {
            self.stranger.notify_one();
        }
        if membership.heard(node, now) {
            tracing::info!(peer = %node, "heard again: it has its documents back");
            self.publish(&membership);
        }
    }

    /// Waits until somebody is heard whom the store has not named yet: the ring is about to change.
    pub(super) async fn stranger(&self) {
        self.stranger.notified().await;
    }

    /// A node takes no more documents, perhaps this one.
    pub(super) fn leaves(&self, node: NodeId) {
        if node == self.me {
            self.leaving.store(true, Ordering::SeqCst);
        }
        let mut membership = self.membership();
        if membership.leaves(node) {
            tracing::info!(peer = %node, "it leaves: its documents go to others");
            self.publish(&membership);
        }
    }

    /// Whether this node takes documents: the others hear it, and it does not leave.
    pub(super) fn take_part(&self) -> bool {
        self.transport.is_some() && self.is_heard() && !self.is_leaving()
    }

    /// The store answers, and names the nodes that take documents. A node that hears nobody believes that it is the one who
    /// is cut off, and stays with the ring that it knows. One that has nothing to hear them with is alone in its ring, however
    /// many `others` live.
    pub(super) fn named(&self, nodes: &[NodeId], others: usize) {
        if self.transport.is_none() {
            return self.share_the_store(others);
        }
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) = Others {
            are_known: true,
            living: others,
            taking_part: nodes.iter().filter(|node| **node != self.me).count(),
        };
        let is_heard = self.is_heard();
        let (mut membership, now) = (self.membership(), self.started.elapsed());
        let back = membership.answered(now);
        membership.some_take_no_part(nodes.len() <= others, now);
        if (is_heard && membership.named(nodes, now)) || back {
            tracing::info!(nodes = ?membership.ring().nodes(), "the ring is another");
            self.publish(&membership);
        }
    }

    /// So many others live on the store of a node without a transport: an old self may, for a while, and nobody else.
    fn share_the_store(&self, others: usize) {
        let mut since = self
            .deaf_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
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
    pub(super) fn look(&self) -> Vec<NodeId> {
        let is_heard = self.is_heard();
        let (mut membership, now) = (self.membership(), self.started.elapsed());
        self.note_heard(is_heard, now);
        if !is_heard && membership.unheard(now) {
            tracing::info!(nodes = ?membership.ring().nodes(), "nothing passes: who seemed silent is in the ring again");
            self.publish(&membership);
        }
        let was_stranded = membership.is_stranded();
        let due = membership.due(now);
        if was_stranded && !membership.is_stranded() {
            tracing::warn!("the store answers no other node either: this one is in the ring again");
            self.publish(&membership);
        } else if due.ring_changed {
            self.publish(&membership);
        }
        drop(membership);
        for node in due.ping {
            self.send_every_way(node, &Message::Ping);
        }
        if due.ask_for_store {
            self.send_all(&Message::HasStore);
        }
        due.suspected
    }

    fn note_heard(&self, is_heard: bool, now: Duration) {
        let mut since = self
            .unheard_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *since = (!is_heard).then(|| since.unwrap_or(now));
    }

    /// Another node is not answered by the store, and asks whether this one is. Silence means no.
    pub(super) fn asked_for_store(&self, from: NodeId) {
        if self.has_store() {
            self.send(from, &Message::StoreAnswers);
        }
    }

    /// Whether the store answers this node, as far as it knows.
    pub(super) fn has_store(&self) -> bool {
        self.membership().has_store(self.started.elapsed())
    }

    /// Whether the store is known to be away: it does not answer this node's heartbeats any more.
    pub(super) fn is_store_away(&self) -> bool {
        self.membership().is_store_away(self.started.elapsed())
    }

    /// The store answers another node; says whether that shows that this one is stranded.
    pub(super) fn stands(&self, node: NodeId) -> bool {
        let mut membership = self.membership();
        if !membership.stands(node, self.started.elapsed()) {
            return false;
        }
        tracing::warn!(
            "the store answers others and not this node: it gives up what it owns until it is answered"
        );
        self.publish(&membership);
        true
    }

    pub(super) fn watch_stranded(&self) -> watch::Receiver<bool> {
        self.stranded.subscribe()
    }

    /// Sends what is queued, within a limit, and gives the inbox up.
    pub(super) async fn close(&self) {
        if let Some(transport) = &self.transport {
            transport.close().await;
        }
    }

    fn publish(&self, membership: &Membership) {
        self.ring.send_replace(membership.ring().clone());
        self.stranded.send_if_modified(|told| {
            std::mem::replace(told, membership.is_stranded()) != membership.is_stranded()
        });
    }

    fn membership(&self) -> MutexGuard<'_, Membership> {
        self.membership
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who should own the document by this ring; where it is empty, this node.
pub(super) fn owner(ring: &Ring, doc: &DocId, me: NodeId) -> NodeId {
    ring.owner(doc).unwrap_or(me)
}

/// How often it is looked at who owes an answer.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);
