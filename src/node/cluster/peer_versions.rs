//! The versions of the other nodes, as their heartbeats and notices state them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::message::NodeMessage;
use crate::doc::PeerMessage;
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

    /// A message in the form that a node can read, by its capabilities: as it is, or with less in it; `None` if the node would not
    /// know what to do with it. A node that has stated nothing yet has no capabilities.
    pub(in crate::node) fn readable<'a>(
        &self,
        node: NodeId,
        message: &'a NodeMessage,
    ) -> Option<Cow<'a, NodeMessage>> {
        let version = self.version_of(node);
        let theirs = version.map_or(Capabilities::default(), |it| it.capabilities);
        if !theirs.contain(needed(message)) {
            return None;
        }
        if !theirs.contain(Capabilities::QUARANTINE)
            && let Some(older) = message.without_quarantine()
        {
            return Some(Cow::Owned(older));
        }
        let NodeMessage::Document(doc, PeerMessage::Submit(submit, Some(_)), mark) = message else {
            return Some(Cow::Borrowed(message));
        };
        if theirs.contain(Capabilities::BASE_FINGERPRINTS) {
            return Some(Cow::Borrowed(message));
        }
        let plain = PeerMessage::Submit(submit.clone(), None);
        Some(Cow::Owned(NodeMessage::Document(doc.clone(), plain, *mark)))
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

/// The capabilities without which a node cannot read any form of a message.
fn needed(message: &NodeMessage) -> Capabilities {
    match message {
        NodeMessage::Document(_, PeerMessage::Diverged { .. }, _) => {
            Capabilities::BASE_FINGERPRINTS
        }
        NodeMessage::Document(_, _, Some(_))
        | NodeMessage::Document(_, PeerMessage::SaveSnapshot, None)
        | NodeMessage::SaveProbe
        | NodeMessage::SaveConfirmed => Capabilities::HISTORY_AND_SAVING,
        NodeMessage::Document(..)
        | NodeMessage::Ping
        | NodeMessage::Pong
        | NodeMessage::Leaving
        | NodeMessage::HasStore
        | NodeMessage::StoreAnswers
        | NodeMessage::Presence(_) => Capabilities::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doc::{Proposal, Submit};
    use crate::id::{ClientId, DocId, UserId};
    use crate::log::{Revision, SubmitId};
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
    fn message_is_sent_in_a_form_that_its_receiver_can_read() {
        const UNSTATED: NodeId = NodeId(4);
        let mut versions = PeerVersions::new(version(1, 1, Capabilities::ALL.0));
        versions.named(&[
            live(OLD, version(1, 1, 0)),
            live(FAR, version(1, 1, Capabilities::HISTORY_AND_SAVING.0)),
            live(NEW, version(1, 1, Capabilities::ALL.0)),
        ]);
        let doc = DocId::parse("c", "d").unwrap();
        let about = |message, mark| NodeMessage::Document(doc.clone(), message, mark);
        let submit = |fingerprint| {
            let id = SubmitId {
                author: UserId::anyone(),
                client: ClientId::parse("ann").unwrap(),
                seq: 1,
            };
            let proposal = Proposal::Delete;
            let base = Some(Revision(1));
            PeerMessage::Submit(Submit { id, base, proposal }, fingerprint)
        };
        let diverged = PeerMessage::Diverged {
            revision: Revision(1),
        };
        // For a node without capabilities, with the older ones, and with all: whether it is sent the message, and as it is.
        for (message, expected) in [
            (NodeMessage::Ping, ["as it is"; 3]),
            (NodeMessage::SaveProbe, ["not", "as it is", "as it is"]),
            (NodeMessage::SaveConfirmed, ["not", "as it is", "as it is"]),
            (
                about(PeerMessage::SaveSnapshot, None),
                ["not", "as it is", "as it is"],
            ),
            (
                about(submit(None), Some([7; 6])),
                ["not", "as it is", "as it is"],
            ),
            (about(submit(None), None), ["as it is"; 3]),
            (
                about(submit(Some(9)), None),
                ["with less", "with less", "as it is"],
            ),
            (
                about(submit(Some(9)), Some([7; 6])),
                ["not", "with less", "as it is"],
            ),
            (about(diverged, None), ["not", "not", "as it is"]),
        ] {
            let form = |node| match versions.readable(node, &message) {
                None => "not",
                Some(Cow::Borrowed(_)) => "as it is",
                Some(Cow::Owned(NodeMessage::Document(_, PeerMessage::Submit(_, None), _))) => {
                    "with less"
                }
                Some(Cow::Owned(other)) => panic!("{other:?}"),
            };
            assert_eq!([OLD, FAR, NEW].map(form), expected, "{message:?}");
            assert_eq!(form(UNSTATED), expected[0], "{message:?}");
        }
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
