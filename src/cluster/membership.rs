//! Cluster membership as one node sees it: the nodes that the store lists with each heartbeat, less those that are
//! suspected because they do not answer. The hash ring is built from it.

#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::HashRing;
use crate::id::NodeId;

/// Failure detector and membership of one node. A pure state machine: time is an argument, measured from the node's start.
///
/// **Members** are the nodes that the store lists: nodes with a heartbeat younger than `dead_after`. That takes seconds to
/// notice a failure. **Suspicion** is faster: a node that owes a reply is pinged, and so is this node itself through the
/// same transport. A node that stays silent although the loopback ping arrived is suspected and left out of the ring until
/// a message from it arrives. Suspicion decides only which node is asked next; ownership is decided by the store's fence.
///
/// **Grace period.** After the store or the transport failed, the other nodes may have missed heartbeats for the same
/// reason, and the first node to recover would see no other. So for `dead_after` no member is removed.
///
/// **Isolation.** If the store answers another node and not this one, the other nodes remove this node once `dead_after`
/// has passed. It removes itself from its own ring at the same time, so that all rings agree.
///
/// Every method that returns `bool` without saying otherwise returns true if the ring changed.
#[derive(Debug)]
pub struct Membership {
    me: NodeId,
    /// Age of a heartbeat at which its node counts as failed.
    dead_after: Duration,
    /// The nodes that the store listed, this one included.
    members: BTreeSet<NodeId>,
    /// Members that announced that they drain.
    leaving: BTreeSet<NodeId>,
    /// Nodes that owe a reply: a request was sent, and no message has arrived since.
    awaited: BTreeMap<NodeId, AwaitedReply>,
    /// Nodes that sent a message and are not listed, with the time of the last store query about each.
    unknown_nodes: BTreeMap<NodeId, Duration>,
    /// When the last loopback ping arrived.
    loopback_heard_at: Duration,
    /// When the store last answered a heartbeat.
    store_answered_at: Duration,
    /// End of the grace period in which no member is removed.
    keep_members_until: Duration,
    /// Since when at least one live node takes no documents.
    partial_since: Option<Duration>,
    /// When to ask the other nodes next whether the store answers them.
    query_store_at: Duration,
    /// Until when the store is assumed to answer another node.
    others_have_store_until: Duration,
    /// The store answers other nodes and not this one.
    isolated: bool,
    /// This node takes no documents because other nodes do not understand its messages.
    incompatible: bool,
    ring: HashRing,
}

#[derive(Debug)]
struct AwaitedReply {
    /// When the first unanswered request was sent.
    since: Duration,
    /// When the first ping was sent.
    pinged: Option<Duration>,
    /// When to send the next ping.
    ping_again: Duration,
    /// Left out of the ring.
    suspect: bool,
}

/// What the caller has to do after [`Membership::poll`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MembershipActions {
    /// Nodes to ping. If there are any, this node is among them.
    pub ping: Vec<NodeId>,
    /// Ask the other nodes whether the store answers them, because it does not answer this one.
    pub query_peers_about_store: bool,
    /// The ring changed.
    pub ring_changed: bool,
    /// Nodes that are newly suspected.
    pub suspected: Vec<NodeId>,
}

/// Silence after a request until the node is pinged.
const PING_AFTER: Duration = Duration::from_millis(150);

/// Silence after a request until the node is suspected.
const SUSPECT_AFTER: Duration = Duration::from_millis(400);

/// Silence beyond which a node stays suspected when the transport fails: its silence is older than the failure.
const TRANSPORT_DOUBT: Duration = Duration::from_secs(1);

/// Interval of the pings to a suspected node.
const PING_SUSPECT_EVERY: Duration = Duration::from_secs(1);

/// Least interval between two store queries about one unlisted node: a node that takes no documents sends messages too.
const UNKNOWN_NODE_QUERY_EVERY: Duration = Duration::from_secs(1);

/// Interval of the queries to other nodes whether the store answers them.
const STORE_QUERY_EVERY: Duration = Duration::from_millis(500);

impl Membership {
    /// Returns a membership that holds this node alone. `dead_after` is the age of a heartbeat at which its node counts as
    /// failed.
    #[must_use]
    pub fn new(me: NodeId, dead_after: Duration) -> Self {
        Self {
            me,
            dead_after,
            members: BTreeSet::from([me]),
            leaving: BTreeSet::new(),
            awaited: BTreeMap::new(),
            unknown_nodes: BTreeMap::new(),
            loopback_heard_at: Duration::ZERO,
            store_answered_at: Duration::ZERO,
            keep_members_until: Duration::ZERO,
            partial_since: None,
            query_store_at: Duration::ZERO,
            others_have_store_until: Duration::ZERO,
            isolated: false,
            incompatible: false,
            ring: HashRing::new([me]),
        }
    }

    /// The ring of the nodes that take documents.
    #[must_use]
    pub fn ring(&self) -> &HashRing {
        &self.ring
    }

    /// The other members.
    pub fn others(&self) -> impl Iterator<Item = NodeId> {
        self.members.iter().copied().filter(|node| *node != self.me)
    }

    /// How many members are left out of the ring because they do not answer.
    #[must_use]
    pub fn suspected_count(&self) -> usize {
        self.awaited.values().filter(|reply| reply.suspect).count()
    }

    /// Returns true if this node is not in its own ring: the store answers other nodes and not this one, or other nodes do
    /// not understand its messages.
    #[must_use]
    pub fn is_isolated(&self) -> bool {
        self.isolated || self.incompatible
    }

    /// Sets whether other nodes do not understand this node's messages. It takes no documents then.
    pub fn set_incompatible(&mut self, incompatible: bool) -> bool {
        std::mem::replace(&mut self.incompatible, incompatible) != incompatible
            && self.rebuild_ring()
    }

    /// Returns true if the store answered within half of `dead_after`. This node reports it to other nodes that ask.
    #[must_use]
    pub fn has_store(&self, now: Duration) -> bool {
        now < self.store_answered_at + self.dead_after / 2
    }

    /// Returns true if the store answered before and has not for two thirds of `dead_after`: four heartbeats with the
    /// default settings.
    #[must_use]
    pub fn is_store_away(&self, now: Duration) -> bool {
        self.store_answered_at > Duration::ZERO
            && now >= self.store_answered_at + self.dead_after * 2 / 3
    }

    /// Takes a message from a node. Returns true if the store has to be asked about it, because it does not list the node.
    pub fn is_unknown(&mut self, node: NodeId, now: Duration) -> bool {
        if node == self.me || self.members.contains(&node) {
            return false;
        }
        self.unknown_nodes
            .retain(|_, asked| now < *asked + UNKNOWN_NODE_QUERY_EVERY);
        match self.unknown_nodes.entry(node) {
            Entry::Vacant(vacant) => {
                vacant.insert(now);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// Takes an answer of the store. The first one after a silence starts a grace period.
    pub fn store_answered(&mut self, now: Duration) -> bool {
        if !self.has_store(now) {
            self.keep_members_until = now + self.dead_after;
        }
        self.store_answered_at = now;
        self.others_have_store_until = now;
        self.update_isolation(now)
    }

    /// Takes a failure of the transport: starts a grace period, and withdraws suspicions that are about as young as the
    /// failure. Such a node may have answered: if it stayed suspected while no message passes, it and this node would take
    /// over each other's documents again and again.
    pub fn transport_failed(&mut self, now: Duration) -> bool {
        self.keep_members_until = now + self.dead_after;
        let doubtful = self.loopback_heard_at.saturating_sub(TRANSPORT_DOUBT);
        self.awaited
            .retain(|_, awaited| awaited.pinged.is_some_and(|at| at < doubtful));
        self.rebuild_ring()
    }

    /// Takes whether a live node takes no documents. A node that begins to take none may be the first to lose a transport
    /// that the others lose a moment later: so its first `dead_after` is a grace period, in which all nodes keep the same
    /// ring. If the failure is that node's alone, it is suspected soon.
    pub fn observe_idle_nodes(&mut self, are_some: bool, now: Duration) {
        let since = *self.partial_since.get_or_insert(now);
        if !are_some {
            self.partial_since = None;
        } else if now < since + self.dead_after {
            self.keep_members_until = self.keep_members_until.max(since + self.dead_after);
        }
    }

    /// Takes the members that the store lists. An empty list means that all nodes are cut off from each other: the ring
    /// stays as it is.
    pub fn store_listed(&mut self, nodes: &[NodeId], now: Duration) -> bool {
        if nodes.is_empty() {
            return false;
        }
        if now >= self.keep_members_until {
            self.members.clear();
        }
        self.members.extend(nodes);
        self.leaving.retain(|node| self.members.contains(node));
        self.awaited.retain(|node, _| self.members.contains(node));
        self.rebuild_ring()
    }

    /// Takes the statement of another node that the store answers it.
    pub fn peer_has_store(&mut self, node: NodeId, now: Duration) -> bool {
        if node == self.me || self.has_store(now) {
            return false;
        }
        self.others_have_store_until = now + self.dead_after;
        self.update_isolation(now)
    }

    /// Takes the statement of another node that it drains.
    pub fn peer_leaves(&mut self, node: NodeId) -> bool {
        self.leaving.insert(node);
        self.rebuild_ring()
    }

    /// A request was sent to a node, which must send some message in reply.
    pub fn request_sent(&mut self, node: NodeId, now: Duration) {
        if node != self.me && self.members.contains(&node) {
            self.awaited.entry(node).or_insert(AwaitedReply {
                since: now,
                pinged: None,
                ping_again: now + PING_AFTER,
                suspect: false,
            });
        }
    }

    /// A message of a node arrived, a loopback ping of this node included. Ends the suspicion of that node.
    pub fn message_received(&mut self, node: NodeId, now: Duration) -> bool {
        if node == self.me {
            self.loopback_heard_at = now;
            return false;
        }
        let awaited = self.awaited.remove(&node);
        awaited.is_some_and(|awaited| awaited.suspect) && self.rebuild_ring()
    }

    /// Looks at the nodes that owe a reply, and at the age of the store's last answer. Call it about every 50 ms.
    pub fn poll(&mut self, now: Duration) -> MembershipActions {
        let mut due = MembershipActions::default();
        for (node, awaited) in &mut self.awaited {
            if now >= awaited.ping_again {
                awaited.pinged.get_or_insert(now);
                due.ping.push(*node);
                awaited.ping_again = now
                    + if awaited.suspect {
                        PING_SUSPECT_EVERY
                    } else {
                        PING_AFTER
                    };
            }
            // If the loopback ping is missing too, the transport failed and not the node.
            let transport_works = awaited.pinged.is_some_and(|at| self.loopback_heard_at > at);
            if !awaited.suspect && transport_works && now >= awaited.since + SUSPECT_AFTER {
                awaited.suspect = true;
                due.suspected.push(*node);
            }
        }
        if !due.ping.is_empty() {
            due.ping.push(self.me);
        }
        due.query_peers_about_store = self.is_taken_for_dead(now)
            && now >= self.query_store_at
            && self.others().next().is_some();
        if due.query_peers_about_store {
            self.query_store_at = now + STORE_QUERY_EVERY;
        }
        due.ring_changed =
            (!due.suspected.is_empty() && self.rebuild_ring()) | self.update_isolation(now);
        due
    }

    /// Returns true if the other nodes count this one as failed, provided that the store answers them.
    fn is_taken_for_dead(&self, now: Duration) -> bool {
        now >= self.store_answered_at + self.dead_after
    }

    fn update_isolation(&mut self, now: Duration) -> bool {
        let isolated = self.is_taken_for_dead(now) && now < self.others_have_store_until;
        std::mem::replace(&mut self.isolated, isolated) != isolated && self.rebuild_ring()
    }

    fn rebuild_ring(&mut self) -> bool {
        let suspect = |node: &NodeId| {
            self.awaited
                .get(node)
                .is_some_and(|awaited| awaited.suspect)
        };
        let is_removed = |node: &NodeId| self.is_isolated() && *node == self.me;
        let taking = self.members.iter().copied();
        let ring =
            HashRing::new(taking.filter(|node| {
                !self.leaving.contains(node) && !suspect(node) && !is_removed(node)
            }));
        let changed = ring != self.ring;
        self.ring = ring;
        changed
    }
}

#[cfg(test)]
mod tests;
