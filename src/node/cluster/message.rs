//! The messages between nodes. A message may be lost: its receiver or its sender makes up for it later.

use crate::doc::{PeerMessage, Presence, Rejection, RejectionReason};
use crate::id::{ClientId, DocId, Name, NodeId};
use crate::store::HistoryMark;

/// A message from node to node.
#[derive(Debug, Clone)]
pub(in crate::node) enum NodeMessage {
    /// A message about a document, in the history with this mark. A receiver with another history drops it: the log has other
    /// entries at its revisions.
    Document(DocId, PeerMessage, Option<HistoryMark>),
    /// Asks for a [`Pong`](Self::Pong), which shows that messages pass.
    Ping,
    /// The answer to a [`Ping`](Self::Ping).
    Pong,
    /// The sender takes no more documents.
    Leaving,
    /// The store does not answer the sender. A receiver that the store answers replies with
    /// [`StoreAnswers`](Self::StoreAnswers).
    HasStore,
    /// The store answers the sender.
    StoreAnswers,
    /// The sender cannot save edits. A receiver that can replies with [`SaveConfirmed`](Self::SaveConfirmed).
    SaveProbe,
    /// The sender has checked, since it received a [`SaveProbe`](Self::SaveProbe), that it can save edits.
    SaveConfirmed,
    /// A message about presence channels.
    Presence(PresenceMessage),
}

impl NodeMessage {
    /// The message for a node that does not know of quarantine, if it differs: it knows of damaged documents, which are
    /// read-only too.
    pub(in crate::node) fn without_quarantine(&self) -> Option<Self> {
        match self {
            Self::Document(doc, PeerMessage::Reject { id, rejection }, mark)
                if rejection.reason == RejectionReason::Quarantined =>
            {
                let rejection = Rejection::new(RejectionReason::Damaged, &*rejection.message);
                let id = id.clone();
                let message = PeerMessage::Reject { id, rejection };
                Some(Self::Document(doc.clone(), message, *mark))
            }
            _ => None,
        }
    }
}

/// A message about presence channels, to a channel's home or from it.
#[derive(Debug, Clone)]
pub(in crate::node) enum PresenceMessage {
    /// To the home: the sender's state of these channels.
    Refresh {
        /// The channels that sessions of the sender subscribe to.
        subscribed: Vec<Name>,
        /// The values that are published on the sender.
        digests: Vec<PresenceDigest>,
    },
    /// From the home: the values that are published on this node. Other values of the node are gone.
    Digest(NodeId, PresenceDigest),
    /// The value of a client of this node.
    Value(NodeId, ClientId, Presence),
    /// A session of this node asks all to publish their values in the channel again.
    RepeatRequest(NodeId, Name),
}

/// The presences of one node in a channel, each with the version of its newest value.
#[derive(Debug, Clone)]
pub(in crate::node) struct PresenceDigest {
    pub(in crate::node) channel: Name,
    pub(in crate::node) values: Vec<(ClientId, Name, u64)>,
}
