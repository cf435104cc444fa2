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

    /// Returns true if the store answered within half of `dead_after`: what this node replies to a node that asks.
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
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);
    const THIRD: NodeId = NodeId(3);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const DEAD_AFTER: Duration = Duration::from_secs(3);

    fn three() -> Membership {
        let mut membership = Membership::new(ME, DEAD_AFTER);
        assert!(beat(&mut membership, &[ME, OTHER, THIRD], 0));
        membership
    }

    /// A heartbeat: the store answers and lists these nodes.
    fn beat(membership: &mut Membership, nodes: &[NodeId], at: u64) -> bool {
        membership.store_answered(ms(at)) | membership.store_listed(nodes, ms(at))
    }

    /// Heartbeats that list these nodes, twice a second.
    fn beats(membership: &mut Membership, nodes: &[NodeId], from: u64, to: u64) {
        for at in (from..=to).step_by(500) {
            beat(membership, nodes, at);
        }
    }

    /// Polls every 50 ms, with or without loopback pings; returns when the ring changed first.
    fn pass(membership: &mut Membership, from: u64, to: u64, transport_works: bool) -> Option<u64> {
        let mut changed = None;
        for at in (from..=to).step_by(50) {
            let due = membership.poll(ms(at));
            if due.ring_changed {
                changed.get_or_insert(at);
            }
            if transport_works && due.ping.contains(&ME) {
                membership.message_received(ME, ms(at + 1));
            }
        }
        changed
    }

    #[test]
    fn node_that_fell_silent_with_the_transport_is_not_suspected() {
        let mut membership = three();
        membership.request_sent(OTHER, ms(1_000));
        pass(&mut membership, 1_000, 1_150, true);
        // The loopback ping arrived and the reply did not; no message passes since.
        assert_eq!(pass(&mut membership, 1_200, 1_400, false), Some(1_400));
        assert_eq!(membership.ring().nodes(), [ME, THIRD]);
        assert!(membership.transport_failed(ms(2_000)));
        assert_eq!(membership.ring().nodes(), [ME, OTHER, THIRD]);
        membership.request_sent(OTHER, ms(2_000));
        assert_eq!(pass(&mut membership, 2_000, 9_000, false), None);
    }

    #[test]
    fn node_that_begins_to_take_no_documents_stays_a_member_for_a_grace_period() {
        let mut membership = three();
        beats(&mut membership, &[ME, OTHER, THIRD], 500, 4_500);
        for at in (5_000..=9_000).step_by(500) {
            membership.observe_idle_nodes(true, ms(at));
            beat(&mut membership, &[ME, OTHER], at);
            let is_member = membership.ring().nodes().contains(&THIRD);
            assert_eq!(is_member, at < 8_000, "{at}");
        }
        membership.observe_idle_nodes(false, ms(9_500));
        beat(&mut membership, &[ME, OTHER, THIRD], 9_500);
        membership.observe_idle_nodes(true, ms(10_000));
        beat(&mut membership, &[ME, OTHER], 10_000);
        assert_eq!(membership.ring().nodes(), [ME, OTHER, THIRD]);
    }

    #[test]
    fn node_that_was_silent_before_the_transport_failed_stays_suspected() {
        let mut membership = three();
        membership.request_sent(OTHER, ms(1_000));
        pass(&mut membership, 1_000, 4_000, true);
        assert!(!membership.transport_failed(ms(5_000)));
        assert_eq!(membership.ring().nodes(), [ME, THIRD]);
    }

    #[test]
    fn silent_node_is_suspected_until_a_message_arrives() {
        let mut membership = three();
        assert_eq!(
            pass(&mut membership, 0, 1_000, true),
            None,
            "no request was sent"
        );
        membership.request_sent(OTHER, ms(1_000));
        assert_eq!(pass(&mut membership, 1_000, 1_350, true), None);
        let due = membership.poll(ms(1_400));
        assert!(due.ring_changed);
        assert_eq!(due.suspected, [OTHER], "the node that did not answer");
        assert_eq!(pass(&mut membership, 1_450, 3_000, true), None, "once");
        assert_eq!(membership.ring().nodes(), [ME, THIRD]);
        assert!(
            !beat(&mut membership, &[ME, OTHER, THIRD], 3_000),
            "the store still lists it"
        );
        assert!(membership.message_received(OTHER, ms(4_000)));
        assert_eq!(membership.ring().nodes(), [ME, OTHER, THIRD]);
    }

    #[test]
    fn node_that_answers_pings_is_not_suspected() {
        let mut membership = three();
        membership.request_sent(OTHER, ms(0));
        assert_eq!(membership.poll(ms(149)), MembershipActions::default());
        assert_eq!(membership.poll(ms(150)).ping, [OTHER, ME]);
        assert!(!membership.message_received(OTHER, ms(160)));
        assert_eq!(pass(&mut membership, 200, 3_000, true), None);
    }

    #[test]
    fn no_node_is_suspected_while_the_transport_fails() {
        let mut membership = three();
        membership.request_sent(OTHER, ms(0));
        membership.request_sent(THIRD, ms(0));
        assert_eq!(pass(&mut membership, 0, 10_000, false), None);
        assert!(
            pass(&mut membership, 10_050, 12_000, true).is_some(),
            "the transport works again"
        );
    }

    #[test]
    fn draining_and_unlisted_nodes_are_not_in_the_ring() {
        let mut membership = three();
        assert!(membership.peer_leaves(OTHER));
        assert!(!beat(&mut membership, &[ME, OTHER, THIRD], 0));
        assert_eq!(membership.ring().nodes(), [ME, THIRD]);
        assert!(beat(&mut membership, &[ME], 0));
        assert!(
            !beat(&mut membership, &[], 0),
            "an empty list changes nothing"
        );
        assert_eq!(membership.ring().nodes(), [ME]);
        assert!(
            beat(&mut membership, &[ME, OTHER], 0),
            "a node that is listed again has not announced a drain"
        );
    }

    #[test]
    fn suspected_node_is_pinged_once_a_second() {
        let mut membership = three();
        membership.request_sent(OTHER, ms(0));
        pass(&mut membership, 0, 1_000, true);
        let pings = (1_050..=6_000)
            .step_by(50)
            .filter(|at| !membership.poll(ms(*at)).ping.is_empty());
        assert_eq!(pings.count(), 5);
    }

    #[test]
    fn first_node_to_recover_keeps_the_others_for_a_grace_period() {
        // Since when the store is silent, until when the transport fails, and the end of the grace period.
        for (silent_from, unheard_until, is_lenient_until) in [
            (10_000, 0, 18_000),
            (10_000, 15_000, 18_000),
            (15_000, 15_000, 18_000),
            (14_500, 0, 0),
            (13_600, 0, 0),
            (13_400, 0, 18_000),
        ] {
            let mut membership = three();
            beats(&mut membership, &[ME, OTHER, THIRD], 500, silent_from);
            if silent_from % 500 > 0 {
                beat(&mut membership, &[ME, OTHER, THIRD], silent_from);
            }
            if unheard_until > 0 {
                membership.transport_failed(ms(unheard_until));
            }
            beats(&mut membership, &[ME, OTHER], 15_000, 17_500);
            let stays = is_lenient_until > 0;
            let case = format!("{silent_from} {unheard_until}");
            assert_eq!(membership.ring().nodes().contains(&THIRD), stays, "{case}");
            beats(&mut membership, &[ME, OTHER], 18_000, 18_000);
            assert_eq!(membership.ring().nodes(), [ME, OTHER], "{case}");
        }
    }

    #[test]
    fn new_node_joins_at_once_during_a_grace_period() {
        let mut membership = three();
        let fourth = NodeId(4);
        assert!(beat(&mut membership, &[ME, fourth], 5_000));
        assert_eq!(membership.ring().nodes(), [ME, OTHER, THIRD, fourth]);
    }

    #[test]
    fn isolated_node_leaves_its_own_ring_until_the_store_answers() {
        let mut membership = three();
        assert_eq!(membership.poll(ms(2_999)), MembershipActions::default());
        assert!(membership.poll(ms(3_000)).query_peers_about_store);
        assert!(
            !membership.poll(ms(3_050)).query_peers_about_store,
            "not before the interval has passed"
        );
        assert!(membership.peer_has_store(OTHER, ms(3_060)));
        assert!(membership.is_isolated());
        assert_eq!(membership.ring().nodes(), [OTHER, THIRD]);
        assert!(
            membership.poll(ms(3_500)).query_peers_about_store,
            "once an interval"
        );
        assert!(membership.store_answered(ms(4_000)));
        assert!(!membership.is_isolated());
        assert_eq!(membership.ring().nodes(), [ME, OTHER, THIRD]);
    }

    #[test]
    fn store_is_away_after_four_heartbeats_without_an_answer() {
        let mut membership = Membership::new(ME, DEAD_AFTER);
        assert!(
            !membership.is_store_away(ms(60_000)),
            "it has never answered"
        );
        membership.store_answered(ms(500));
        assert!(!membership.is_store_away(ms(2_499)));
        assert!(membership.is_store_away(ms(2_500)));
        membership.store_answered(ms(2_600));
        assert!(!membership.is_store_away(ms(2_600)));
    }

    #[test]
    fn incompatible_node_is_not_in_its_own_ring() {
        let mut membership = three();
        assert!(membership.set_incompatible(true));
        assert!(!membership.set_incompatible(true), "no change");
        assert!(membership.is_isolated());
        assert_eq!(membership.ring().nodes(), [OTHER, THIRD]);
        assert!(!beat(&mut membership, &[ME, OTHER, THIRD], 500));
        assert!(membership.set_incompatible(false));
        assert_eq!(membership.ring().nodes(), [ME, OTHER, THIRD]);
    }

    #[test]
    fn no_node_is_isolated_while_the_store_answers_none() {
        let mut membership = three();
        for at in (3_000..20_000).step_by(50) {
            assert!(!membership.poll(ms(at)).ring_changed);
        }
        assert!(
            !membership.has_store(ms(20_000)),
            "the reply to other nodes says so"
        );
        assert!(membership.peer_has_store(OTHER, ms(20_000)));
        assert!(
            membership.poll(ms(23_000)).ring_changed,
            "the other node has lost the store as well"
        );
        assert_eq!(membership.ring().nodes(), [ME, OTHER, THIRD]);
    }

    #[test]
    fn lone_node_and_answered_node_are_not_isolated() {
        let mut alone = Membership::new(ME, DEAD_AFTER);
        alone.store_answered(ms(0));
        assert_eq!(alone.poll(ms(10_000)), MembershipActions::default());
        let mut standing = three();
        assert!(!standing.peer_has_store(OTHER, ms(1_000)));
        assert!(
            standing.has_store(ms(1_499)) && !standing.has_store(ms(1_500)),
            "half of dead_after"
        );
        assert!(
            !standing.poll(ms(3_000)).ring_changed,
            "the statement is too old"
        );
    }

    #[test]
    fn store_is_queried_about_an_unlisted_node_once_a_second() {
        let mut membership = three();
        let unlisted = NodeId(9);
        for (node, at, asks) in [
            (unlisted, 0, true),
            (unlisted, 20, false),
            (NodeId(8), 20, true),
            (unlisted, 999, false),
            (unlisted, 1_000, true),
            (OTHER, 1_000, false),
            (ME, 1_000, false),
        ] {
            assert_eq!(membership.is_unknown(node, ms(at)), asks, "{node} {at}");
        }
    }
}
