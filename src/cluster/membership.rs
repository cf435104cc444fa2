//! Who takes documents, as far as this node knows: what the store tells with every heartbeat, and, sooner, who does not answer.

#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Ring;
use crate::id::NodeId;

/// Who takes documents, as far as this node knows. A pure machine: time comes in as an argument.
///
/// The store names the members, and notices within seconds that one died. A node that was asked something and is silent
/// is noticed sooner: it is asked whether it is there, and so is this node itself, by the same way. Whoever does not
/// answer although the way is open is passed over until it is heard again. That is an opinion: nothing is decided by it
/// but whom to ask next.
#[derive(Debug)]
pub struct Membership {
    me: NodeId,
    /// As the store told last.
    members: BTreeSet<NodeId>,
    /// The members that said that they leave.
    leaving: BTreeSet<NodeId>,
    /// Those who have been asked something and not been heard since.
    owing: BTreeMap<NodeId, Owing>,
    /// When this node last heard itself.
    heard_myself: Duration,
    ring: Ring,
}

#[derive(Debug)]
struct Owing {
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
pub struct Due {
    /// Whom to ask whether it is there; this node itself among them, where it is any.
    pub ping: Vec<NodeId>,
    /// Whether the ring is another.
    pub ring_changed: bool,
}

/// How long an asked node may be silent before it is asked whether it is there.
const PING_AFTER: Duration = Duration::from_millis(150);

/// How long it may be silent before it is passed over.
const SUSPECT_AFTER: Duration = Duration::from_millis(400);

/// How often one that is passed over is asked.
const PING_SUSPECT_EVERY: Duration = Duration::from_secs(1);

impl Membership {
    /// A node that knows of no other.
    #[must_use]
    pub fn new(me: NodeId) -> Self {
        Self {
            me,
            members: BTreeSet::from([me]),
            leaving: BTreeSet::new(),
            owing: BTreeMap::new(),
            heard_myself: Duration::ZERO,
            ring: Ring::new([me]),
        }
    }

    /// Those who take documents.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The members but this node.
    pub fn others(&self) -> impl Iterator<Item = NodeId> {
        self.members.iter().copied().filter(|node| *node != self.me)
    }

    /// Whether the store has named it.
    #[must_use]
    pub fn knows(&self, node: NodeId) -> bool {
        node == self.me || self.members.contains(&node)
    }

    /// The store names the members; says whether the ring is another. Where it names none, all are cut off from each other
    /// alike, and the ring stays as it is.
    pub fn named(&mut self, nodes: &[NodeId]) -> bool {
        if nodes.is_empty() {
            return false;
        }
        self.members = nodes.iter().copied().collect();
        self.leaving.retain(|node| self.members.contains(node));
        self.owing.retain(|node, _| self.members.contains(node));
        self.settle()
    }

    /// A node says that it takes no more documents; says whether the ring is another.
    pub fn leaves(&mut self, node: NodeId) -> bool {
        self.leaving.insert(node);
        self.settle()
    }

    /// A node was asked something that it will answer, if only that it is there.
    pub fn asked(&mut self, node: NodeId, now: Duration) {
        if node != self.me && self.members.contains(&node) {
            self.owing.entry(node).or_insert(Owing {
                since: now,
                pinged: None,
                ping_again: now + PING_AFTER,
                suspect: false,
            });
        }
    }

    /// A node was heard, perhaps this one; says whether the ring is another.
    pub fn heard(&mut self, node: NodeId, now: Duration) -> bool {
        if node == self.me {
            self.heard_myself = now;
            return false;
        }
        let owing = self.owing.remove(&node);
        owing.is_some_and(|owing| owing.suspect) && self.settle()
    }

    /// Looks at who is silent.
    pub fn due(&mut self, now: Duration) -> Due {
        let mut due = Due::default();
        let mut suspected = false;
        for (node, owing) in &mut self.owing {
            if now >= owing.ping_again {
                owing.pinged.get_or_insert(now);
                due.ping.push(*node);
                owing.ping_again = now
                    + if owing.suspect {
                        PING_SUSPECT_EVERY
                    } else {
                        PING_AFTER
                    };
            }
            // Where this node does not hear itself either, it is the way that is closed.
            let way_is_open = owing.pinged.is_some_and(|at| self.heard_myself > at);
            if !owing.suspect && way_is_open && now >= owing.since + SUSPECT_AFTER {
                owing.suspect = true;
                suspected = true;
            }
        }
        if !due.ping.is_empty() {
            due.ping.push(self.me);
        }
        due.ring_changed = suspected && self.settle();
        due
    }

    fn settle(&mut self) -> bool {
        let suspect = |node: &NodeId| self.owing.get(node).is_some_and(|owing| owing.suspect);
        let taking = self.members.iter().copied();
        let ring = Ring::new(taking.filter(|node| !self.leaving.contains(node) && !suspect(node)));
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

    fn three() -> Membership {
        let mut membership = Membership::new(ME);
        assert!(membership.named(&[ME, OTHER, THIRD]));
        membership
    }

    /// Lets time pass in steps, with the own pings heard or not; says when the ring changed.
    fn pass(membership: &mut Membership, from: u64, to: u64, way_is_open: bool) -> Option<u64> {
        let mut changed = None;
        for at in (from..=to).step_by(50) {
            let due = membership.due(ms(at));
            if due.ring_changed {
                changed.get_or_insert(at);
            }
            if way_is_open && due.ping.contains(&ME) {
                membership.heard(ME, ms(at + 1));
            }
        }
        changed
    }

    #[test]
    fn who_does_not_answer_is_passed_over_until_it_is_heard() {
        let mut membership = three();
        assert_eq!(
            pass(&mut membership, 0, 1_000, true),
            None,
            "nobody was asked"
        );
        membership.asked(OTHER, ms(1_000));
        assert_eq!(pass(&mut membership, 1_000, 3_000, true), Some(1_400));
        assert_eq!(membership.ring().nodes(), [ME, THIRD]);
        assert!(
            !membership.named(&[ME, OTHER, THIRD]),
            "the store does not know better yet"
        );
        assert!(membership.heard(OTHER, ms(4_000)));
        assert_eq!(membership.ring().nodes(), [ME, OTHER, THIRD]);
    }

    #[test]
    fn who_answers_the_ping_is_there_however_slow_its_store_is() {
        let mut membership = three();
        membership.asked(OTHER, ms(0));
        assert_eq!(membership.due(ms(149)), Due::default());
        assert_eq!(membership.due(ms(150)).ping, [OTHER, ME]);
        assert!(!membership.heard(OTHER, ms(160)));
        assert_eq!(pass(&mut membership, 200, 3_000, true), None);
    }

    #[test]
    fn nobody_is_suspected_while_the_way_is_closed() {
        let mut membership = three();
        membership.asked(OTHER, ms(0));
        membership.asked(THIRD, ms(0));
        assert_eq!(pass(&mut membership, 0, 10_000, false), None);
        assert!(
            pass(&mut membership, 10_050, 12_000, true).is_some(),
            "it is open again"
        );
    }

    #[test]
    fn who_leaves_or_is_no_member_is_not_in_the_ring() {
        let mut membership = three();
        assert!(membership.leaves(OTHER));
        assert!(!membership.named(&[ME, OTHER, THIRD]));
        assert_eq!(membership.ring().nodes(), [ME, THIRD]);
        assert!(membership.named(&[ME]));
        assert!(
            !membership.named(&[]),
            "when all are cut off nothing changes"
        );
        assert_eq!(membership.ring().nodes(), [ME]);
        assert!(
            membership.named(&[ME, OTHER]),
            "another node of that name was never leaving"
        );
    }

    #[test]
    fn a_suspect_is_asked_again_and_again_but_seldom() {
        let mut membership = three();
        membership.asked(OTHER, ms(0));
        pass(&mut membership, 0, 1_000, true);
        let pings = (1_050..=6_000)
            .step_by(50)
            .filter(|at| !membership.due(ms(*at)).ping.is_empty());
        assert_eq!(pings.count(), 5);
    }
}
