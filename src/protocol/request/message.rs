//! The requests of a client.

use super::{BulkRequest, SubmitRequest};
use crate::doc::Presence;
use crate::id::{DocId, Name};
use crate::log::Revision;

/// A request of a client.
#[derive(Debug, Clone)]
pub enum ClientMessage {
    /// `hs`: opens the connection, possibly under the client id of an earlier one.
    Handshake {
        /// The client id of the previous connection.
        client: Option<String>,
    },
    /// `pp`: a ping of the application.
    Ping,
    /// `f`: the document, or its commits since a revision.
    Fetch {
        /// The document.
        doc: DocId,
        /// The revision that the client has, if any.
        since: Option<Revision>,
        /// `min`: the oldest revision that a snapshot may have. An extension: the ShareDB client does not send it.
        min: Option<Revision>,
    },
    /// `s`: as `f`, and all later commits.
    Subscribe {
        /// The document.
        doc: DocId,
        /// The revision that the client has, if any.
        since: Option<Revision>,
        /// `min`: the oldest revision that a snapshot may have. An extension: the ShareDB client does not send it.
        min: Option<Revision>,
    },
    /// `u`: ends the subscription of a document.
    Unsubscribe {
        /// The document.
        doc: DocId,
    },
    /// `bf`: fetches several documents with one reply.
    BulkFetch(BulkRequest),
    /// `bs`: subscribes to several documents with one reply.
    BulkSubscribe(BulkRequest),
    /// `bu`: ends several subscriptions with one reply.
    BulkUnsubscribe(BulkRequest),
    /// `op`: submits a change.
    Submit {
        /// The document.
        doc: DocId,
        /// The change.
        submit: SubmitRequest,
    },
    /// `nf`: the document at a revision; the newest if none is given.
    HistoryAt {
        /// The document.
        doc: DocId,
        /// The revision.
        revision: Option<Revision>,
    },
    /// `nt`: the document at a time; the newest if none is given.
    HistoryAtTime {
        /// The document.
        doc: DocId,
        /// Milliseconds since 1970.
        at_ms: Option<u64>,
    },
    /// `p`: publishes the value of a presence.
    Presence(Presence),
    /// `ps`: subscribes to the presences of a channel.
    PresenceSubscribe {
        /// The channel.
        channel: Name,
        /// The number of the request among those of the client: a later `pu` overrides an earlier `ps`.
        seq: u64,
    },
    /// `pu`: ends the subscription of a channel.
    PresenceUnsubscribe {
        /// The channel.
        channel: Name,
        /// The number of the request among those of the client.
        seq: u64,
    },
    /// `pr`: asks the other subscribers of a channel to publish their presences again.
    PresenceRequest {
        /// The channel.
        channel: Name,
    },
}

impl ClientMessage {
    /// The collection or channel of the request; it decides which tenant the request is for.
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

    /// Returns true if the reply may be large: documents or commits.
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

    /// The document that the request changes, if it is a submit.
    #[must_use]
    pub fn changed_document(&self) -> Option<&DocId> {
        match self {
            Self::Submit { doc, .. } => Some(doc),
            _ => None,
        }
    }
}
