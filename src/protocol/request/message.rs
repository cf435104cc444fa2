//! The requests of a client.

use super::{BulkRequest, SubmitRequest};
use crate::doc::Presence;
use crate::id::{DocId, Name};
use crate::log::Revision;

/// One request of a client.
#[derive(Debug, Clone)]
pub enum ClientMessage {
    /// `hs`: the client says who it was, if it was somebody.
    Handshake {
        /// The id that it had on its last connection.
        client: Option<String>,
    },
    /// `pp`: answered at once.
    Ping,
    /// `f`: the document, or its commits since a revision.
    Fetch {
        /// The document.
        doc: DocId,
        /// What the client has, if it has anything.
        since: Option<Revision>,
        /// `min`: what is shown must not be older. Ours; the ShareDB client does not send it.
        min: Option<Revision>,
    },
    /// `s`: as `f`, and its commits from then on.
    Subscribe {
        /// The document.
        doc: DocId,
        /// What the client has, if it has anything.
        since: Option<Revision>,
        /// `min`: what is shown must not be older. Ours; the ShareDB client does not send it.
        min: Option<Revision>,
    },
    /// `u`: no more commits of the document.
    Unsubscribe {
        /// The document.
        doc: DocId,
    },
    /// `bf`: many fetches with one answer.
    BulkFetch(BulkRequest),
    /// `bs`: many subscriptions with one answer.
    BulkSubscribe(BulkRequest),
    /// `bu`: many unsubscriptions with one answer.
    BulkUnsubscribe(BulkRequest),
    /// `op`: a change.
    Submit {
        /// The document.
        doc: DocId,
        /// The change.
        submit: SubmitRequest,
    },
    /// `nf`: the document as it was at a revision; now, if none is given.
    HistoryAt {
        /// The document.
        doc: DocId,
        /// The revision.
        revision: Option<Revision>,
    },
    /// `nt`: the document as it was at a time; now, if none is given.
    HistoryAtTime {
        /// The document.
        doc: DocId,
        /// Milliseconds since 1970.
        at_ms: Option<u64>,
    },
    /// `p`: a presence's new value.
    Presence(Presence),
    /// `ps`: from now on the presences of a channel.
    PresenceSubscribe {
        /// The channel.
        channel: Name,
        /// The client's count of such requests: a later `pu` overtakes an earlier `ps`.
        seq: u64,
    },
    /// `pu`: no more presences of a channel.
    PresenceUnsubscribe {
        /// The channel.
        channel: Name,
        /// The client's count of such requests.
        seq: u64,
    },
    /// `pr`: ask the others to say their presences again.
    PresenceRequest {
        /// The channel.
        channel: Name,
    },
}

impl ClientMessage {
    /// The collection or the channel that it is about: it says whose that is.
    #[must_use]
    pub fn collection_or_channel(&self) -> Option<&Name> {
        match self {
            Self::Handshake { .. } | Self::Ping => None,
            Self::Fetch { doc, .. }
            | Self::Subscribe { doc, .. }
            | Self::Unsubscribe { doc }
            | Self::Submit { doc, .. }
            | Self::HistoryAt { doc, .. }
            | Self::HistoryAtTime { doc, .. } => Some(&doc.collection),
            Self::BulkFetch(bulk) | Self::BulkSubscribe(bulk) | Self::BulkUnsubscribe(bulk) => {
                Some(&bulk.collection)
            }
            Self::Presence(presence) => Some(&presence.channel),
            Self::PresenceSubscribe { channel, .. }
            | Self::PresenceUnsubscribe { channel, .. }
            | Self::PresenceRequest { channel } => Some(channel),
        }
    }

    /// Whether its answer may be large: documents, or commits.
    #[must_use]
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Self::Fetch { .. }
                | Self::Subscribe { .. }
                | Self::BulkFetch(_)
                | Self::BulkSubscribe(_)
                | Self::HistoryAt { .. }
                | Self::HistoryAtTime { .. }
        )
    }

    /// The document that it would change.
    #[must_use]
    pub fn changed_document(&self) -> Option<&DocId> {
        match self {
            Self::Submit { doc, .. } => Some(doc),
            _ => None,
        }
    }
}
