//! The versions of the other nodes, as their heartbeats and notices state them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::id::NodeId;
use crate::store::LiveNode;
use crate::version::{Capabilities, NodeVersion};

/// The shortest time between two notices to a node that sends undecodable messages.
const NOTICE_EVERY: Duration = Duration::from_secs(1);

/// The shortest time between two log lines about a node that sends undecodable messages.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// The most nodes without a heartbeat that are tracked. Further ones are not answered.
const UNNAMED_MAX: usize = 256;

/// The versions of the other nodes. Pure: the caller passes the time.
#[derive(Debug)]
pub(in crate::node) struct PeerVersions {
    /// This node's own.
    mine: NodeVersion,
    /// The live nodes, as their newest heartbeats state them.
    named: BTreeMap<NodeId, LiveNode>,
    /// The versions of nodes that answered with a notice.
    noticed: BTreeMap<NodeId, NodeVersion>,
    /// The nodes that sent undecodable messages.
    undecoded: BTreeMap<NodeId, Undecoded>,
    /// How many messages could not be decoded.
    undecoded_total: u64,
}

#[derive(Debug, Default)]
struct Undecoded {
    /// How many messages since the last warning.
    messages: u64,
    /// When it was last logged.
    warned: Option<Duration>,
    /// When it was last sent a notice.
    answered: Option<Duration>,
}

/// What to do about a message that cannot be decoded.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::node) struct Reaction {
    /// Whether to send a notice.
    pub(in crate::node) answer: bool,
    /// How many messages of the node were not decoded since it was last logged, if it is to be logged now.
    pub(in crate::node) warn: Option<u64>,
}

impl PeerVersions {
    pub(in crate::node) fn new(mine: NodeVersion) -> Self {
        Self {
            mine,
            named: BTreeMap::new(),
            noticed: BTreeMap::new(),
            undecoded: BTreeMap::new(),
            undecoded_total: 0,
        }
    }

    /// Sets the other live nodes, as the store lists them.
    pub(in crate::node) fn named(&mut self, others: &[LiveNode]) {
        self.named = others.iter().map(|node| (node.id, node.clone())).collect();
        self.noticed
            .retain(|node, _| !self.named.contains_key(node));
    }

    /// Takes the versions that a node states because it could not decode a message.
    pub(in crate::node) fn noticed(&mut self, node: NodeId, version: NodeVersion) {
        let has_room = self.noticed.len() < UNNAMED_MAX || self.noticed.contains_key(&node);
        if has_room && !self.named.contains_key(&node) {
            self.noticed.insert(node, version);
        }
    }

    /// The wire version for a message to a node: the newest that both understand, `None` if there is none. A node that has
    /// stated nothing yet is sent the oldest.
    pub(in crate::node) fn for_node(&self, node: NodeId) -> Option<u8> {
        match self.version_of(node) {
            Some(version) => self.mine.wire.common(version.wire),
            None => Some(self.mine.wire.oldest),
        }
    }

    /// The node's name and versions, as far as they are known.
    pub(in crate::node) fn describe(&self, node: NodeId) -> (Arc<str>, Option<NodeVersion>) {
        let name = self.named.get(&node).map(|node| node.name.clone());
        (
            name.unwrap_or_else(|| "".into()),
            self.version_of(node).cloned(),
        )
    }

    /// What this node and all other live nodes can do.
    pub(in crate::node) fn common_capabilities(&self) -> Capabilities {
        let others = self.named.values().map(|node| node.version.capabilities);
        others.fold(self.mine.capabilities, Capabilities::and)
    }

    /// The live nodes that share no wire version with this one.
    pub(in crate::node) fn not_understood(&self) -> Vec<LiveNode> {
        let others = self.named.values();
        let strange = others.filter(|node| self.mine.wire.common(node.version.wire).is_none());
        strange.cloned().collect()
    }

    /// Takes note of a message of a node that could not be decoded.
    pub(in crate::node) fn undecodable(&mut self, node: NodeId, now: Duration) -> Reaction {
        self.undecoded_total += 1;
        let is_recent = |at: Option<Duration>| at.is_some_and(|at| now < at + WARN_EVERY);
        if !self.undecoded.contains_key(&node) {
            self.undecoded.retain(|_, peer| is_recent(peer.warned));
            if self.undecoded.len() >= UNNAMED_MAX {
                return Reaction {
                    answer: false,
                    warn: None,
                };
            }
        }
        let peer = self.undecoded.entry(node).or_default();
        peer.messages += 1;
        let answer = peer.answered.is_none_or(|at| now >= at + NOTICE_EVERY);
        if answer {
            peer.answered = Some(now);
        }
        let warn = (!is_recent(peer.warned)).then(|| std::mem::take(&mut peer.messages));
        if warn.is_some() {
            peer.warned = Some(now);
        }
        Reaction { answer, warn }
    }

    /// How many messages of other nodes could not be decoded since the start.
    pub(in crate::node) fn undecoded_total(&self) -> u64 {
        self.undecoded_total
    }

    fn version_of(&self, node: NodeId) -> Option<&NodeVersion> {
        let named = self.named.get(&node).map(|node| &node.version);
        named.or_else(|| self.noticed.get(&node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::WireRange;

    const OLD: NodeId = NodeId(1);
    const NEW: NodeId = NodeId(2);
    const FAR: NodeId = NodeId(3);

    fn version(oldest: u8, newest: u8, capabilities: u64) -> NodeVersion {
        NodeVersion {
            wire: WireRange { oldest, newest },
            capabilities: Capabilities(capabilities),
            program: "".into(),
        }
    }

    fn live(id: NodeId, version: NodeVersion) -> LiveNode {
        LiveNode {
            id,
            name: "n".into(),
            takes_part: false,
            version,
        }
    }

    #[test]
    fn message_is_encoded_in_the_newest_version_that_its_receiver_understands() {
        let mut versions = PeerVersions::new(version(2, 3, 0b11));
        assert_eq!(
            versions.for_node(OLD),
            Some(2),
            "nothing is known of it yet"
        );
        versions.noticed(FAR, version(3, 9, 0));
        assert_eq!(versions.for_node(FAR), Some(3), "it answered with a notice");
        versions.named(&[
            live(OLD, version(1, 2, 0b01)),
            live(NEW, version(3, 4, 0b111)),
            live(FAR, version(4, 5, 0b1)),
        ]);
        assert_eq!(versions.for_node(OLD), Some(2));
        assert_eq!(versions.for_node(NEW), Some(3));
        assert_eq!(versions.for_node(FAR), None, "its heartbeat says otherwise");
        assert_eq!(versions.not_understood(), [live(FAR, version(4, 5, 0b1))]);
        assert_eq!(versions.common_capabilities(), Capabilities(0b01));
    }

    #[test]
    fn undecodable_messages_are_answered_once_a_second_and_logged_once_a_minute() {
        let mut versions = PeerVersions::new(version(1, 1, 0));
        let reaction = |answer, warn| Reaction { answer, warn };
        for (at_ms, expected) in [
            (0, reaction(true, Some(1))),
            (999, reaction(false, None)),
            (1_000, reaction(true, None)),
            (1_500, reaction(false, None)),
            (59_999, reaction(true, None)),
            (60_000, reaction(false, Some(5))),
        ] {
            let now = Duration::from_millis(at_ms);
            assert_eq!(versions.undecodable(NEW, now), expected, "{at_ms}");
        }
        assert_eq!(versions.undecoded_total(), 6);
    }

    #[test]
    fn what_is_kept_of_unnamed_nodes_is_bounded() {
        let mut versions = PeerVersions::new(version(1, 1, 0));
        for id in 0..10_000 {
            versions.undecodable(NodeId(id), Duration::ZERO);
            versions.noticed(NodeId(id), version(1, 1, 0));
        }
        assert_eq!(
            (versions.undecoded.len(), versions.noticed.len()),
            (UNNAMED_MAX, UNNAMED_MAX)
        );
        let later = versions.undecodable(NodeId(20_000), WARN_EVERY);
        assert!(
            later.answer && versions.undecoded.len() == 1,
            "the old ones are forgotten"
        );
    }
}
