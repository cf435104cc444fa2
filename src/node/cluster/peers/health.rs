//! Which nodes live, whether messages pass, and whether the store answers.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::{OtherNodes, Peers, names};
use crate::cluster::{Health, incompatible_nodes};
use crate::id::NodeId;
use crate::node::cluster::message::NodeMessage;
use crate::store::HeartbeatReply;
use crate::sync::lock;

/// How often [`Peers::check`] is called.
pub(in crate::node::cluster) const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// What this node has to do after a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(in crate::node::cluster) enum Participation {
    /// It serves its documents.
    Continue,
    /// It must give up its documents: other live nodes do not understand it.
    StepDown,
}

impl Peers {
    /// Whether messages pass. A node that is alone needs none.
    pub(in crate::node::cluster) fn health(&self) -> Health {
        match &self.transport {
            Some(transport) => transport.health().borrow().clone(),
            None => Health::Good,
        }
    }

    /// Returns true if other nodes hear this one, or there are none: the store listed no other live node.
    pub(in crate::node::cluster) fn is_heard(&self) -> bool {
        let others = *lock(&self.others);
        let is_alone = others.are_known && others.live == 0;
        is_alone || self.health().is_good()
    }

    /// Returns true if other nodes hear each other although this one has heard none for long: for as long as it takes until all
    /// nodes that hear none have told the store so.
    pub(in crate::node::cluster) fn others_are_heard(&self) -> bool {
        let unheard_since = *lock(&self.unheard_since);
        let is_long = |since| self.started.elapsed() >= since + self.dead_after;
        unheard_since.is_some_and(is_long) && lock(&self.others).taking_part > 0
    }

    /// Waits until messages pass, within a limit.
    pub(in crate::node::cluster) async fn wait_until_heard(&self, patience: Duration) {
        if let Some(transport) = &self.transport {
            let mut health = transport.health();
            let good = health.wait_for(Health::is_good);
            if !matches!(tokio::time::timeout(patience, good).await, Ok(Ok(_))) {
                tracing::warn!(health = ?self.health(), "the other nodes are not heard");
            }
        }
    }

    /// Notified when messages or the store are back.
    pub(in crate::node) fn watch_reconnects(&self) -> watch::Receiver<u64> {
        self.reconnects.subscribe()
    }

    /// Notified by the transport when messages pass again or take another way.
    pub(in crate::node::cluster) fn watch_transport(&self) -> Option<watch::Receiver<u64>> {
        Some(self.transport.as_ref()?.reopened())
    }

    /// Makes every document repeat the requests that are not answered.
    pub(in crate::node::cluster) fn reconnected(&self) {
        self.reconnects.send_modify(|count| *count += 1);
    }

    /// Takes note of an answered heartbeat.
    pub(in crate::node::cluster) fn heartbeat_succeeded(&self) {
        if self.heartbeat_failed.swap(false, Ordering::SeqCst) {
            self.reconnected();
        }
    }

    /// Takes note of a heartbeat that failed.
    pub(in crate::node::cluster) fn heartbeat_failed(&self) {
        self.heartbeat_failed.store(true, Ordering::SeqCst);
    }

    /// Returns true if this node has given up its documents because other nodes do not understand it.
    pub(in crate::node) fn is_incompatible(&self) -> bool {
        self.is_incompatible.load(Ordering::SeqCst)
    }

    /// Returns true if the store answers this node, as far as it knows.
    pub(in crate::node::cluster) fn has_store(&self) -> bool {
        self.membership().has_store(self.started.elapsed())
    }

    /// Returns true if the store is known to be away: it does not answer this node's heartbeats any more.
    pub(in crate::node) fn is_store_away(&self) -> bool {
        self.membership().is_store_away(self.started.elapsed())
    }

    /// Whether the store answers other nodes and not this one.
    pub(in crate::node) fn watch_store_isolation(&self) -> watch::Receiver<bool> {
        self.is_isolated.subscribe()
    }

    /// Takes the live nodes, and those that take documents, from the store's answer to a heartbeat. A node that hears no other
    /// node takes itself to be cut off, and keeps the ring that it has. A node without a transport stays alone in its ring.
    pub(in crate::node::cluster) fn apply_heartbeat(
        &self,
        reply: &HeartbeatReply,
    ) -> Participation {
        let live = reply.others.len();
        if self.transport.is_none() {
            self.check_shared_store(live);
            return Participation::Continue;
        }
        self.versions().named(&reply.others);
        let incompatible = self.incompatible_nodes(reply);
        let participation = self.set_incompatible(incompatible.contains(&self.me));
        let nodes = reply.nodes.iter().copied();
        let nodes: Vec<_> = nodes.filter(|node| !incompatible.contains(node)).collect();
        *lock(&self.others) = OtherNodes {
            are_known: true,
            live,
            taking_part: nodes.iter().filter(|node| **node != self.me).count(),
        };

        let is_heard = self.is_heard();
        let (mut membership, now) = (self.membership(), self.started.elapsed());
        let is_changed =
            membership.store_answered(now) | membership.set_incompatible(self.is_incompatible());
        membership.observe_idle_nodes(reply.nodes.len() <= live, now);
        if (is_heard && membership.store_listed(&nodes, now)) || is_changed {
            tracing::info!(nodes = ?membership.ring().nodes(), "hash ring changed");
            self.publish(&membership);
        }
        participation
    }

    /// Suspects nodes that owe an answer for too long, and sends pings to those that may be silent. Returns the nodes that are
    /// suspected from now on: their documents go to other nodes.
    pub(in crate::node::cluster) fn check(&self) -> Vec<NodeId> {
        let is_heard = self.is_heard();
        let (mut membership, now) = (self.membership(), self.started.elapsed());
        self.set_heard(is_heard, now);
        if !is_heard && membership.transport_failed(now) {
            tracing::info!(nodes = ?membership.ring().nodes(), "no messages pass: suspected nodes are in the hash ring again");
            self.publish(&membership);
        }
        let was_isolated = membership.is_isolated();
        let actions = membership.poll(now);
        if was_isolated && !membership.is_isolated() {
            tracing::warn!(
                "the store answers no other node either: this node is in the hash ring again"
            );
            self.publish(&membership);
        } else if actions.ring_changed {
            self.publish(&membership);
        }
        drop(membership);
        for node in actions.ping {
            self.send_every_way(node, &NodeMessage::Ping);
        }
        if actions.query_peers_about_store {
            self.send_all(&NodeMessage::HasStore);
        }
        actions.suspected
    }

    /// Answers another node, which the store does not answer, if the store answers this one. No answer means that it does not.
    pub(in crate::node::cluster) fn answer_store_query(&self, from: NodeId) {
        if self.has_store() {
            self.send(from, &NodeMessage::StoreAnswers);
        }
    }

    /// Takes note that the store answers another node. Returns true if that shows that this node is isolated from the store.
    pub(in crate::node::cluster) fn store_answers_peer(&self, node: NodeId) -> bool {
        let mut membership = self.membership();
        if !membership.peer_has_store(node, self.started.elapsed()) {
            return false;
        }
        tracing::warn!(
            "the store answers other nodes and not this one: its documents move to other nodes until it does"
        );
        self.publish(&membership);
        true
    }

    /// The live nodes that give up their documents because other nodes do not understand them, perhaps this one.
    fn incompatible_nodes(&self, reply: &HeartbeatReply) -> BTreeSet<NodeId> {
        let others = reply.others.iter().map(|node| (node.id, node.version.wire));
        let live: Vec<_> = others.chain([(self.me, self.version.wire)]).collect();
        incompatible_nodes(&live)
    }

    fn set_incompatible(&self, is_incompatible: bool) -> Participation {
        let was_incompatible = self.is_incompatible.swap(is_incompatible, Ordering::SeqCst);
        if is_incompatible && !was_incompatible {
            let nodes = self.not_understood();
            tracing::error!(
                nodes = names(&nodes), my_wire = %self.version.wire,
                "no common wire version with other live nodes: this node gives up its documents until they are gone; \
                 upgrade one release at a time"
            );
            return Participation::StepDown;
        }
        if was_incompatible && !is_incompatible {
            tracing::info!("all live nodes understand this node again");
        }
        Participation::Continue
    }

    /// Logs once if other nodes use the store of a node without a transport for long. An earlier process of this node may, for
    /// a short time.
    fn check_shared_store(&self, others: usize) {
        let mut since = lock(&self.shared_since);
        let now = self.started.elapsed();
        if others == 0 {
            *since = None;
        } else if now >= since.get_or_insert(now).saturating_add(self.dead_after * 2) {
            // Never reached again: the line is logged once.
            *since = Some(Duration::MAX);
            tracing::error!(
                others,
                "other nodes use this Postgres, and no messages from them arrive: set redis.url on all of them"
            );
        }
    }

    fn set_heard(&self, is_heard: bool, now: Duration) {
        let mut since = lock(&self.unheard_since);
        *since = (!is_heard).then(|| since.unwrap_or(now));
    }
}
