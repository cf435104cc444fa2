//! The encoding of messages between nodes: one byte with the version, then postcard.
//!
//! A message of an unknown version is dropped. That is safe: requests are repeated, and commits are in the store.

mod document;
mod presence;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::document::{WireEntry, WireId, WirePeerMessage, WireSubmit};
use self::presence::{WireDigest, WirePresence};
use super::message::{NodeMessage, PresenceMessage};
use crate::id::{ClientId, DocId, Name, NodeId};
use crate::log::Revision;
use crate::store::HistoryMark;

/// Why bytes cannot be decoded.
#[derive(Debug, Error)]
pub(in crate::node) enum MessageDecodeError {
    /// The version is unknown; `None` if there are no bytes.
    #[error("unknown version {0:?}")]
    Version(Option<u8>),
    /// The bytes are not a message of their version.
    #[error("malformed message: {0}")]
    Malformed(#[from] postcard::Error),
    /// A field has an invalid value.
    #[error("invalid {0}")]
    Invalid(String),
}

/// The version of these messages.
pub(in crate::node) const VERSION: u8 = 1;

impl NodeMessage {
    /// Encodes the message.
    pub(in crate::node) fn encode(&self) -> Bytes {
        let mut changes = Vec::new();
        let wire = Wire::of(self, &mut changes);
        let bytes = postcard::to_extend(&wire, vec![VERSION]);
        bytes.expect("memory takes what is written").into()
    }

    /// Decodes what [`encode`](Self::encode) wrote.
    pub(in crate::node) fn decode(bytes: &[u8]) -> Result<Self, MessageDecodeError> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => postcard::from_bytes::<Wire<'_>>(rest)?.decode(),
            other => Err(MessageDecodeError::Version(
                other.map(|(version, _)| *version),
            )),
        }
    }
}

type WireDoc<'a> = (&'a str, &'a str);

/// The encoded form. The order of the variants and fields is part of it.
#[derive(Serialize, Deserialize)]
enum Wire<'a> {
    Subscribe(#[serde(borrow)] WireDoc<'a>, Revision),
    Submit(#[serde(borrow)] WireDoc<'a>, WireSubmit<'a>),
    Commits(#[serde(borrow)] WireDoc<'a>, Revision, Vec<WireEntry<'a>>),
    Reject(#[serde(borrow)] WireDoc<'a>, WireId<'a>, &'a str, &'a str),
    Ping,
    Pong,
    Leaving,
    Refresh(#[serde(borrow)] Vec<&'a str>, Vec<WireDigest<'a>>),
    Digest(u64, #[serde(borrow)] WireDigest<'a>),
    Value(u64, #[serde(borrow)] WirePresence<'a>),
    RepeatRequest(u64, &'a str),
    HasStore,
    StoreAnswers,
    /// A message about a document in a history that was renewed. Messages of a store's first history have no mark.
    InHistory(HistoryMark, #[serde(borrow)] WirePeerMessage<'a>),
    SaveProbe,
    SaveConfirmed,
    SaveSnapshot(#[serde(borrow)] WireDoc<'a>),
    SubmitOn(#[serde(borrow)] WireDoc<'a>, WireSubmit<'a>, u64),
    Diverged(#[serde(borrow)] WireDoc<'a>, Revision),
}

impl<'a> Wire<'a> {
    /// The encoded form borrows from `message` and from `changes`, which holds the encoded changes.
    fn of(message: &'a NodeMessage, changes: &'a mut Vec<Vec<u8>>) -> Self {
        match message {
            NodeMessage::Document(doc, message, None) => {
                WirePeerMessage::of(doc, message, changes).into()
            }
            NodeMessage::Document(doc, message, Some(mark)) => {
                Self::InHistory(*mark, WirePeerMessage::of(doc, message, changes))
            }
            NodeMessage::Ping => Self::Ping,
            NodeMessage::Pong => Self::Pong,
            NodeMessage::Leaving => Self::Leaving,
            NodeMessage::HasStore => Self::HasStore,
            NodeMessage::StoreAnswers => Self::StoreAnswers,
            NodeMessage::SaveProbe => Self::SaveProbe,
            NodeMessage::SaveConfirmed => Self::SaveConfirmed,
            NodeMessage::Presence(message) => Self::of_presence(message),
        }
    }

    fn decode(self) -> Result<NodeMessage, MessageDecodeError> {
        Ok(match self {
            Self::Subscribe(doc, since) => WirePeerMessage::Subscribe(doc, since).decode(None)?,
            Self::Submit(doc, submit) => WirePeerMessage::Submit(doc, submit).decode(None)?,
            Self::Commits(doc, head, entries) => {
                WirePeerMessage::Commits(doc, head, entries).decode(None)?
            }
            Self::Reject(doc, id, code, message) => {
                WirePeerMessage::Reject(doc, id, code, message).decode(None)?
            }
            Self::InHistory(mark, message) => message.decode(Some(mark))?,
            Self::Ping => NodeMessage::Ping,
            Self::Pong => NodeMessage::Pong,
            Self::Leaving => NodeMessage::Leaving,
            Self::HasStore => NodeMessage::HasStore,
            Self::StoreAnswers => NodeMessage::StoreAnswers,
            Self::SaveProbe => NodeMessage::SaveProbe,
            Self::SaveConfirmed => NodeMessage::SaveConfirmed,
            Self::SaveSnapshot(doc) => WirePeerMessage::SaveSnapshot(doc).decode(None)?,
            Self::SubmitOn(doc, submit, base) => {
                WirePeerMessage::SubmitOn(doc, submit, base).decode(None)?
            }
            Self::Diverged(doc, revision) => {
                WirePeerMessage::Diverged(doc, revision).decode(None)?
            }
            Self::Refresh(subscribed, digests) => {
                let subscribed = subscribed.into_iter().map(decode_name);
                let digests = digests.into_iter().map(WireDigest::decode);
                NodeMessage::Presence(PresenceMessage::Refresh {
                    subscribed: subscribed.collect::<Result<_, _>>()?,
                    digests: digests.collect::<Result<_, _>>()?,
                })
            }
            Self::Digest(node, digest) => {
                NodeMessage::Presence(PresenceMessage::Digest(NodeId(node), digest.decode()?))
            }
            Self::Value(node, presence) => {
                let (client, presence) = presence.decode()?;
                NodeMessage::Presence(PresenceMessage::Value(NodeId(node), client, presence))
            }
            Self::RepeatRequest(node, channel) => NodeMessage::Presence(
                PresenceMessage::RepeatRequest(NodeId(node), decode_channel(channel)?),
            ),
        })
    }
}

fn doc_names(doc: &DocId) -> WireDoc<'_> {
    (doc.collection.as_str(), doc.id.as_str())
}

fn decode_doc((collection, id): WireDoc<'_>) -> Result<DocId, MessageDecodeError> {
    DocId::parse(collection, id).map_err(|_| invalid("document", id))
}

fn decode_name(name: &str) -> Result<Name, MessageDecodeError> {
    Name::parse(name).map_err(|_| invalid("name", name))
}

fn decode_channel(name: &str) -> Result<Name, MessageDecodeError> {
    Name::parse_channel(name).map_err(|_| invalid("channel", name))
}

fn decode_client(client: &str) -> Result<ClientId, MessageDecodeError> {
    ClientId::parse(client).map_err(|_| invalid("client", client))
}

fn invalid(what: &str, value: &str) -> MessageDecodeError {
    MessageDecodeError::Invalid(format!("{what}: {value:?}"))
}

#[cfg(test)]
mod tests;
