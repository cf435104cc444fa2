//! Who takes documents, as far as this node knows: what the store tells with every heartbeat, and, sooner, who does not answer.

#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::HashRing;
use crate::id::NodeId;

/// Who takes documents, as far as this node knows. A pure machine: time comes in as an argument.
///
/// The store names the members, and notices within seconds that one died. A node that was asked something and is silent
/// is noticed sooner: it is asked whether it is there, and so is this node itself, by the same way. Whoever does not
/// answer although the way is open is passed over until it is heard again. That is an opinion: nothing is decided by it
/// but whom to ask next.
///
/// Where the store has not store_answered_at, or messages have not passed, it may have been so for all: whoever is first to be back
/// would find nobody else alive. So nobody is removed on the store's word until the others have had the time to say that
/// they live. And a node that the store does not answer, while it answers another, knows that the others take it for dead:
/// it is *isolated*, and takes itself out of its own ring, as they do.
#[derive(Debug)]
pub struct Membership {
    me: NodeId,
    /// How long a node may say nothing to the store until it is taken for dead.
    dead_after: Duration,
    /// As the store told last.
    members: BTreeSet<NodeId>,
    /// The members that said that they leave.
    leaving: BTreeSet<NodeId>,
    /// Those who have been asked something and not been heard since.
    awaited: BTreeMap<NodeId, AwaitedReply>,
    /// Those who were heard though the store has not named them, and when it was last asked about each.
    unknown_nodes: BTreeMap<NodeId, Duration>,
    /// When this node last heard itself.
    loopback_heard_at: Duration,
    /// When the store last store_answered_at.
    store_answered_at: Duration,
    /// Until when nobody is removed on the store's word.
    keep_members_until: Duration,
    /// Since when somebody lives and takes no part.
    partial_since: Option<Duration>,
    /// When the others are to be asked next whether the store answers them.
    query_store_at: Duration,
    /// Until when it is believed that the store answers another.
    others_have_store_until: Duration,
    /// Whether this node has taken itself out of the ring.
    isolated: bool,
    /// Whether this node takes no documents because other nodes do not understand it.
    incompatible: bool,
    ring: HashRing,
}

#[derive(Debug)]
struct AwaitedReply {
    /// When it was asked first.
    since: Duration,
    /// When it was first asked whether it is there.
    pinged: Option<Duration>,
    /// When it is to be asked that again.
    ping_again: Duration,
    /// Whether it is passed over.
    suspect: bool,
}

/// What is to be done after a while.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MembershipActions {
    /// Whom to ask whether it is there; this node itself among them, where it is any.
    pub ping: Vec<NodeId>,
    /// Whether to ask the others if the store answers them: it does not answer this node.
    pub query_peers_about_store: bool,
    /// Whether the ring is another.
    pub ring_changed: bool,
    /// The nodes that are passed over from now on, because they did not answer.
    pub suspected: Vec<NodeId>,
}

/// How long an asked node may be silent before it is asked whether it is there.
const PING_AFTER: Duration = Duration::from_millis(150);

/// How long it may be silent before it is passed over.
const SUSPECT_AFTER: Duration = Duration::from_millis(400);

/// How long a node must have been silent, while this node heard itself, for that to be its own fault once nothing passes.
const TRANSPORT_DOUBT: Duration = Duration::from_secs(1);

/// How often one that is passed over is asked.
const PING_SUSPECT_EVERY: Duration = Duration::from_secs(1);

/// How often the store is asked about one that it does not name. One that takes no part is heard all the same.
const UNKNOWN_NODE_QUERY_EVERY: Duration = Duration::from_secs(1);

/// How often the others are asked whether the store answers them.
const STORE_QUERY_EVERY: Duration = Duration::from_millis(500);

impl Membership {
    /// A node that knows of no other. Whoever says nothing for `dead_after` is taken for dead.
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

    /// Those who take documents.
    #[must_use]
    pub fn ring(&self) -> &HashRing {
        &self.ring
    }

    /// The members but this node.
    pub fn others(&self) -> impl Iterator<Item = NodeId> {
        self.members.iter().copied().filter(|node| *node != self.me)
    }

    /// Whether this node has taken itself out of its ring: the store answers others and not this node, or other nodes do
    /// not understand it.
    #[must_use]
    pub fn is_isolated(&self) -> bool {
        self.isolated || self.incompatible
    }

    /// Sets whether this node stands back because other nodes do not understand it. Returns true if the ring changed.
    pub fn set_incompatible(&mut self, incompatible: bool) -> bool {
        std::mem::replace(&mut self.incompatible, incompatible) != incompatible
            && self.rebuild_ring()
    }

    /// Whether the store answers this node, as far as it knows: what it says to one who is not store_answered_at.
    #[must_use]
    pub fn has_store(&self, now: Duration) -> bool {
        now < self.store_answered_at + self.dead_after / 2
    }

    /// Whether the store, which store_answered_at before, has not store_answered_at for two thirds of the time after which the others take this
    /// node for dead: four heartbeats with the usual settings.
    #[must_use]
    pub fn is_store_away(&self, now: Duration) -> bool {
        self.store_answered_at > Duration::ZERO
            && now >= self.store_answered_at + self.dead_after * 2 / 3
    }

    /// A node was heard: whether to ask the store about it.
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

    /// The store answered; says whether the ring is another. The first that it says after a silence is of little worth.
    pub fn store_answered(&mut self, now: Duration) -> bool {
        if !self.has_store(now) {
            self.keep_members_until = now + self.dead_after;
        }
        self.store_answered_at = now;
        self.others_have_store_until = now;
        self.update_isolation(now)
    }

    /// Messages do not pass; says whether the ring is another. If they did not for all, the store names whoever is first to
    /// be heard again. And who seemed silent just before may have store_answered_at: were it passed over for as long as nothing
    /// passes, it and this node would take each other's documents over again and again.
    pub fn transport_failed(&mut self, now: Duration) -> bool {
        self.keep_members_until = now + self.dead_after;
        let doubtful = self.loopback_heard_at.saturating_sub(TRANSPORT_DOUBT);
        self.awaited
            .retain(|_, awaited| awaited.pinged.is_some_and(|at| at < doubtful));
        self.rebuild_ring()
    }

    /// Whether somebody lives and takes no part. Who begins to has not been heard of late, perhaps as nobody will be in a
    /// moment: then all keep the ring that they know, and it must be the same. Whom it is about is passed over soon enough.
    pub fn observe_idle_nodes(&mut self, are_some: bool, now: Duration) {
        let since = *self.partial_since.get_or_insert(now);
        if !are_some {
            self.partial_since = None;
        } else if now < since + self.dead_after {
            self.keep_members_until = self.keep_members_until.max(since + self.dead_after);
        }
    }

    /// The store names the members; says whether the ring is another. Where it names none, all are cut off from each other
    /// alike, and the ring stays as it is.
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

    /// A node says that the store answers it; says whether the ring is another.
    pub fn peer_has_store(&mut self, node: NodeId, now: Duration) -> bool {
        if node == self.me || self.has_store(now) {
            return false;
        }
        self.others_have_store_until = now + self.dead_after;
        self.update_isolation(now)
    }

    /// A node says that it takes no more documents; says whether the ring is another.
    pub fn peer_leaves(&mut self, node: NodeId) -> bool {
        self.leaving.insert(node);
        self.rebuild_ring()
    }

    /// A node was asked something that it will answer, if only that it is there.
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

    /// A node was heard, perhaps this one; says whether the ring is another.
    pub fn message_received(&mut self, node: NodeId, now: Duration) -> bool {
        if node == self.me {
            self.loopback_heard_at = now;
            return false;
        }
        let awaited = self.awaited.remove(&node);
        awaited.is_some_and(|awaited| awaited.suspect) && self.rebuild_ring()
    }

    /// Looks at who is silent, the store included.
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
            // Where this node does not hear itself either, it is the way that is closed.
            let way_is_open = awaited.pinged.is_some_and(|at| self.loopback_heard_at > at);
            if !awaited.suspect && way_is_open && now >= awaited.since + SUSPECT_AFTER {
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

    /// Whether the others take this node for dead, where the store answers them.
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
        let gone = |node: &NodeId| self.is_isolated() && *node == self.me;
        let taking = self.members.iter().copied();
        let ring = HashRing::new(
            taking.filter(|node| !self.leaving.contains(node) && !suspect(node) && !gone(node)),
        );
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

    /// The store answers, and names these.
    fn beat(membership: &mut Membership, nodes: &[NodeId], at: u64) -> bool {
        membership.store_answered(ms(at)) | membership.store_listed(nodes, ms(at))
    }

    /// Heartbeats that name these, twice a second.
    fn beats(membership: &mut Membership, nodes: &[NodeId], from: u64, to: u64) {
        for at in (from..=to).step_by(500) {
            beat(membership, nodes, at);
        }
    }

    /// Lets time pass in steps, with the own pings heard or not; says when the ring changed.
    fn pass(membership: &mut Membership, from: u64, to: u64, way_is_open: bool) -> Option<u64> {
        let mut changed = None;
        for at in (from..=to).step_by(50) {
            let due = membership.poll(ms(at));
            if due.ring_changed {
                changed.get_or_insert(at);
            }
            if way_is_open && due.ping.contains(&ME) {
                membership.message_received(ME, ms(at + 1));
            }
        }
        changed
    }

    #[test]
    fn who_fell_silent_with_all_messages_is_not_passed_over() {
        let mut membership = three();
        membership.request_sent(OTHER, ms(1_000));
        pass(&mut membership, 1_000, 1_150, true);
        // Its own ping came back, the answer of the other did not; nothing passes since.
        assert_eq!(pass(&mut membership, 1_200, 1_400, false), Some(1_400));
        assert_eq!(membership.ring().nodes(), [ME, THIRD]);
        assert!(membership.transport_failed(ms(2_000)));
        assert_eq!(membership.ring().nodes(), [ME, OTHER, THIRD]);
        membership.request_sent(OTHER, ms(2_000));
        assert_eq!(pass(&mut membership, 2_000, 9_000, false), None);
    }

    #[test]
    fn who_begins_to_take_no_part_is_a_member_for_a_while() {
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
    fn who_was_silent_long_before_is_passed_over_still() {
        let mut membership = three();
        membership.request_sent(OTHER, ms(1_000));
        pass(&mut membership, 1_000, 4_000, true);
        assert!(!membership.transport_failed(ms(5_000)));
        assert_eq!(membership.ring().nodes(), [ME, THIRD]);
    }

    #[test]
    fn who_does_not_answer_is_passed_over_until_it_is_heard() {
        let mut membership = three();
        assert_eq!(
            pass(&mut membership, 0, 1_000, true),
            None,
            "nobody was asked"
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
            "the store does not know better yet"
        );
        assert!(membership.message_received(OTHER, ms(4_000)));
        assert_eq!(membership.ring().nodes(), [ME, OTHER, THIRD]);
    }

    #[test]
    fn who_answers_the_ping_is_there_however_slow_its_store_is() {
        let mut membership = three();
        membership.request_sent(OTHER, ms(0));
        assert_eq!(membership.poll(ms(149)), MembershipActions::default());
        assert_eq!(membership.poll(ms(150)).ping, [OTHER, ME]);
        assert!(!membership.message_received(OTHER, ms(160)));
        assert_eq!(pass(&mut membership, 200, 3_000, true), None);
    }

    #[test]
    fn nobody_is_suspected_while_the_way_is_closed() {
        let mut membership = three();
        membership.request_sent(OTHER, ms(0));
        membership.request_sent(THIRD, ms(0));
        assert_eq!(pass(&mut membership, 0, 10_000, false), None);
        assert!(
            pass(&mut membership, 10_050, 12_000, true).is_some(),
            "it is open again"
        );
    }

    #[test]
    fn who_leaves_or_is_no_member_is_not_in_the_ring() {
        let mut membership = three();
        assert!(membership.peer_leaves(OTHER));
        assert!(!beat(&mut membership, &[ME, OTHER, THIRD], 0));
        assert_eq!(membership.ring().nodes(), [ME, THIRD]);
        assert!(beat(&mut membership, &[ME], 0));
        assert!(
            !beat(&mut membership, &[], 0),
            "when all are cut off nothing changes"
        );
        assert_eq!(membership.ring().nodes(), [ME]);
        assert!(
            beat(&mut membership, &[ME, OTHER], 0),
            "another node of that name was never leaving"
        );
    }

    #[test]
    fn a_suspect_is_asked_again_and_again_but_seldom() {
        let mut membership = three();
        membership.request_sent(OTHER, ms(0));
        pass(&mut membership, 0, 1_000, true);
        let pings = (1_050..=6_000)
            .step_by(50)
            .filter(|at| !membership.poll(ms(*at)).ping.is_empty());
        assert_eq!(pings.count(), 5);
    }

    #[test]
    fn who_is_back_first_does_not_take_the_others_for_dead() {
        // When the store was silent and answers again, and when messages did not pass until then.
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
            let story = format!("{silent_from} {unheard_until}");
            assert_eq!(membership.ring().nodes().contains(&THIRD), stays, "{story}");
            beats(&mut membership, &[ME, OTHER], 18_000, 18_000);
            assert_eq!(membership.ring().nodes(), [ME, OTHER], "{story}");
        }
    }

    #[test]
    fn who_comes_while_others_may_come_back_is_let_in_at_once() {
        let mut membership = three();
        let fourth = NodeId(4);
        assert!(beat(&mut membership, &[ME, fourth], 5_000));
        assert_eq!(membership.ring().nodes(), [ME, OTHER, THIRD, fourth]);
    }

    #[test]
    fn who_is_stranded_leaves_its_own_ring_until_the_store_answers_it() {
        let mut membership = three();
        assert_eq!(membership.poll(ms(2_999)), MembershipActions::default());
        assert!(membership.poll(ms(3_000)).query_peers_about_store);
        assert!(
            !membership.poll(ms(3_050)).query_peers_about_store,
            "not that often"
        );
        assert!(membership.peer_has_store(OTHER, ms(3_060)));
        assert!(membership.is_isolated());
        assert_eq!(membership.ring().nodes(), [OTHER, THIRD]);
        assert!(
            membership.poll(ms(3_500)).query_peers_about_store,
            "again and again"
        );
        assert!(membership.store_answered(ms(4_000)));
        assert!(!membership.is_isolated());
        assert_eq!(membership.ring().nodes(), [ME, OTHER, THIRD]);
    }

    #[test]
    fn the_store_is_away_after_heartbeats_without_an_answer() {
        let mut membership = Membership::new(ME, DEAD_AFTER);
        assert!(!membership.is_store_away(ms(60_000)), "it is never asked");
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
        assert!(!membership.set_incompatible(true), "it was already");
        assert!(membership.is_isolated());
        assert_eq!(membership.ring().nodes(), [OTHER, THIRD]);
        assert!(!beat(&mut membership, &[ME, OTHER, THIRD], 500));
        assert!(membership.set_incompatible(false));
        assert_eq!(membership.ring().nodes(), [ME, OTHER, THIRD]);
    }

    #[test]
    fn nobody_is_stranded_while_the_store_answers_no_one() {
        let mut membership = three();
        for at in (3_000..20_000).step_by(50) {
            assert!(!membership.poll(ms(at)).ring_changed);
        }
        assert!(!membership.has_store(ms(20_000)), "nor says that it is");
        assert!(membership.peer_has_store(OTHER, ms(20_000)));
        assert!(
            membership.poll(ms(23_000)).ring_changed,
            "it was the first to be cut off, and all are"
        );
        assert_eq!(membership.ring().nodes(), [ME, OTHER, THIRD]);
    }

    #[test]
    fn who_is_alone_or_answered_is_not_stranded() {
        let mut alone = Membership::new(ME, DEAD_AFTER);
        alone.store_answered(ms(0));
        assert_eq!(alone.poll(ms(10_000)), MembershipActions::default());
        let mut standing = three();
        assert!(!standing.peer_has_store(OTHER, ms(1_000)));
        assert!(
            standing.has_store(ms(1_499)) && !standing.has_store(ms(1_500)),
            "half of the time after which a node is dead"
        );
        assert!(!standing.poll(ms(3_000)).ring_changed, "that was long ago");
    }

    #[test]
    fn the_store_is_asked_about_a_stranger_once_a_second() {
        let mut membership = three();
        let strange = NodeId(9);
        for (node, at, asks) in [
            (strange, 0, true),
            (strange, 20, false),
            (NodeId(8), 20, true),
            (strange, 999, false),
            (strange, 1_000, true),
            (OTHER, 1_000, false),
            (ME, 1_000, false),
        ] {
            assert_eq!(membership.is_unknown(node, ms(at)), asks, "{node} {at}");
        }
    }
}
