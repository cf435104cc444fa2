//! The encoding of messages between nodes: one byte with the version, then postcard.
//!
//! A message of an unknown version is dropped. That is safe: requests are repeated, and commits are in the store.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::message::{NodeMessage, PresenceDigest, PresenceMessage};
use crate::doc::{PeerMessage, Position, Presence, Proposal, Rejection, Submit};
use crate::id::{ClientId, DocId, Name, NodeId, UserId};
use crate::log::{Change, Entry, Epoch, Revision, SubmitId};
use crate::ot::Kind;
use crate::protocol::Code;
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
type WireValue<'a> = (&'a str, &'a str, u64);

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
}

/// A message about a document. A type of its own, so that what is decoded has a bounded depth.
#[derive(Serialize, Deserialize)]
enum WirePeerMessage<'a> {
    Subscribe(#[serde(borrow)] WireDoc<'a>, Revision),
    Submit(#[serde(borrow)] WireDoc<'a>, WireSubmit<'a>),
    Commits(#[serde(borrow)] WireDoc<'a>, Revision, Vec<WireEntry<'a>>),
    Reject(#[serde(borrow)] WireDoc<'a>, WireId<'a>, &'a str, &'a str),
    SaveSnapshot(#[serde(borrow)] WireDoc<'a>),
}

impl<'a> From<WirePeerMessage<'a>> for Wire<'a> {
    fn from(message: WirePeerMessage<'a>) -> Self {
        match message {
            WirePeerMessage::Subscribe(doc, since) => Self::Subscribe(doc, since),
            WirePeerMessage::Submit(doc, submit) => Self::Submit(doc, submit),
            WirePeerMessage::Commits(doc, head, entries) => Self::Commits(doc, head, entries),
            WirePeerMessage::Reject(doc, id, code, message) => Self::Reject(doc, id, code, message),
            WirePeerMessage::SaveSnapshot(doc) => Self::SaveSnapshot(doc),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct WireId<'a> {
    author: &'a str,
    client: &'a str,
    seq: u64,
}

#[derive(Serialize, Deserialize)]
struct WireSubmit<'a> {
    #[serde(borrow)]
    id: WireId<'a>,
    base: Option<Revision>,
    proposal: WireProposal<'a>,
}

#[derive(Serialize, Deserialize)]
enum WireProposal<'a> {
    /// The change as it is encoded in the log.
    Create(&'a [u8]),
    Edit(&'a str),
    Delete,
}

#[derive(Serialize, Deserialize)]
struct WireEntry<'a> {
    revision: Revision,
    epoch: Epoch,
    #[serde(borrow)]
    id: WireId<'a>,
    at_ms: u64,
    /// As it is encoded in the log.
    change: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct WireDigest<'a> {
    channel: &'a str,
    #[serde(borrow)]
    values: Vec<WireValue<'a>>,
}

#[derive(Serialize, Deserialize)]
struct WirePresence<'a> {
    client: &'a str,
    channel: &'a str,
    id: &'a str,
    version: u64,
    value: &'a str,
    #[serde(borrow)]
    position: Option<(WireDoc<'a>, Revision, &'a str)>,
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

    fn of_presence(message: &'a PresenceMessage) -> Self {
        match message {
            PresenceMessage::Refresh {
                subscribed,
                digests,
            } => Self::Refresh(
                subscribed.iter().map(Name::as_str).collect(),
                digests.iter().map(WireDigest::of).collect(),
            ),
            PresenceMessage::Digest(node, digest) => Self::Digest(node.0, WireDigest::of(digest)),
            PresenceMessage::Value(node, client, presence) => {
                let position = presence.position.as_ref();
                let position = position.map(|it| (doc_names(&it.doc), it.revision, it.kind.uri()));
                let wire = WirePresence {
                    client: client.as_str(),
                    channel: presence.channel.as_str(),
                    id: presence.id.as_str(),
                    version: presence.version,
                    value: &presence.value,
                    position,
                };
                Self::Value(node.0, wire)
            }
            PresenceMessage::RepeatRequest(node, channel) => {
                Self::RepeatRequest(node.0, channel.as_str())
            }
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

impl<'a> WirePeerMessage<'a> {
    /// The encoded form borrows from `message` and from `changes`, which holds the encoded changes.
    fn of(doc: &'a DocId, message: &'a PeerMessage, changes: &'a mut Vec<Vec<u8>>) -> Self {
        match message {
            PeerMessage::Subscribe { since } => Self::Subscribe(doc_names(doc), *since),
            PeerMessage::Submit(submit) => {
                if let Proposal::Create(content) = &submit.proposal {
                    changes.push(Change::Create(content.clone()).encode());
                }
                let proposal = match (&submit.proposal, changes.first()) {
                    (Proposal::Create(_), create) => {
                        WireProposal::Create(create.map_or(&[], |it| it))
                    }
                    (Proposal::Edit(json), _) => WireProposal::Edit(json),
                    (Proposal::Delete, _) => WireProposal::Delete,
                };
                let (id, base) = (WireId::of(&submit.id), submit.base);
                Self::Submit(doc_names(doc), WireSubmit { id, base, proposal })
            }
            PeerMessage::Commits { head, entries } => {
                changes.extend(entries.iter().map(|entry| entry.change.encode()));
                let entries = entries.iter().zip(&*changes);
                let entries = entries.map(|(entry, change)| WireEntry {
                    revision: entry.revision,
                    epoch: entry.epoch,
                    id: WireId::of(&entry.id),
                    at_ms: entry.at_ms,
                    change,
                });
                Self::Commits(doc_names(doc), *head, entries.collect())
            }
            PeerMessage::SaveSnapshot => Self::SaveSnapshot(doc_names(doc)),
            PeerMessage::Reject { id, rejection } => {
                let code = Code::from(rejection.reason).as_str();
                let message = &rejection.message;
                Self::Reject(doc_names(doc), WireId::of(id), code, message)
            }
        }
    }

    fn decode(self, mark: Option<HistoryMark>) -> Result<NodeMessage, MessageDecodeError> {
        let (doc, message) = match self {
            Self::Subscribe(doc, since) => (doc, PeerMessage::Subscribe { since }),
            Self::Submit(doc, submit) => (doc, PeerMessage::Submit(submit.decode()?)),
            Self::Commits(doc, head, entries) => {
                let entries = entries
                    .into_iter()
                    .map(|entry| entry.decode().map(Arc::new));
                let entries = entries.collect::<Result<_, _>>()?;
                (doc, PeerMessage::Commits { head, entries })
            }
            Self::SaveSnapshot(doc) => (doc, PeerMessage::SaveSnapshot),
            Self::Reject(doc, id, code, message) => {
                let reason = Code::parse(code).and_then(Code::rejection_reason);
                let reason = reason.ok_or_else(|| invalid("code", code))?;
                let rejection = Rejection::new(reason, message);
                let id = id.decode()?;
                (doc, PeerMessage::Reject { id, rejection })
            }
        };
        Ok(NodeMessage::Document(decode_doc(doc)?, message, mark))
    }
}

impl<'a> WireId<'a> {
    fn of(id: &'a SubmitId) -> Self {
        Self {
            author: id.author.as_str(),
            client: id.client.as_str(),
            seq: id.seq,
        }
    }

    fn decode(self) -> Result<SubmitId, MessageDecodeError> {
        Ok(SubmitId {
            author: UserId::new(self.author),
            client: decode_client(self.client)?,
            seq: self.seq,
        })
    }
}

impl WireSubmit<'_> {
    fn decode(self) -> Result<Submit, MessageDecodeError> {
        let proposal = match self.proposal {
            WireProposal::Create(change) => match decode_change(change)? {
                Change::Create(content) => Proposal::Create(content),
                other => return Err(invalid("create", &format!("{other:?}"))),
            },
            WireProposal::Edit(json) => Proposal::Edit(json.into()),
            WireProposal::Delete => Proposal::Delete,
        };
        Ok(Submit {
            id: self.id.decode()?,
            base: self.base,
            proposal,
        })
    }
}

impl WireEntry<'_> {
    fn decode(self) -> Result<Entry, MessageDecodeError> {
        Ok(Entry {
            revision: self.revision,
            epoch: self.epoch,
            id: self.id.decode()?,
            at_ms: self.at_ms,
            change: decode_change(self.change)?,
        })
    }
}

impl<'a> WireDigest<'a> {
    fn of(digest: &'a PresenceDigest) -> Self {
        let values = digest.values.iter();
        Self {
            channel: digest.channel.as_str(),
            values: values
                .map(|(client, id, version)| (client.as_str(), id.as_str(), *version))
                .collect(),
        }
    }

    fn decode(self) -> Result<PresenceDigest, MessageDecodeError> {
        let values = self.values.into_iter();
        let values = values
            .map(|(client, id, version)| Ok((decode_client(client)?, decode_name(id)?, version)))
            .collect::<Result<_, MessageDecodeError>>()?;
        Ok(PresenceDigest {
            channel: decode_channel(self.channel)?,
            values,
        })
    }
}

impl WirePresence<'_> {
    fn decode(self) -> Result<(ClientId, Presence), MessageDecodeError> {
        let position = self.position.map(|(doc, revision, kind)| {
            Ok::<_, MessageDecodeError>(Position {
                doc: decode_doc(doc)?,
                revision,
                kind: Kind::parse(kind).ok_or_else(|| invalid("type", kind))?,
            })
        });
        let presence = Presence {
            channel: decode_channel(self.channel)?,
            id: decode_name(self.id)?,
            version: self.version,
            value: self.value.into(),
            position: position.transpose()?,
        };
        Ok((decode_client(self.client)?, presence))
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

fn decode_change(bytes: &[u8]) -> Result<Change, MessageDecodeError> {
    Change::decode(bytes).map_err(|error| invalid("change", &error.to_string()))
}

fn invalid(what: &str, value: &str) -> MessageDecodeError {
    MessageDecodeError::Invalid(format!("{what}: {value:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ot::{Content, Op};

    fn id(seq: u64) -> SubmitId {
        SubmitId {
            author: UserId::new("ann@example.org"),
            client: ClientId::parse("client").unwrap(),
            seq,
        }
    }

    fn all() -> Vec<NodeMessage> {
        let doc = DocId::parse("c", "名前").unwrap();
        let about_doc = |message| NodeMessage::Document(doc.clone(), message, None);
        let content = Content::create(Kind::RichText, Some(r#"[{"insert":"a\n"}]"#)).unwrap();
        let op = Op::parse(Kind::TextUnicode, r#"[1,"😀",{"d":2}]"#).unwrap();
        let submit = |proposal| {
            about_doc(PeerMessage::Submit(Submit {
                id: id(u64::MAX),
                base: Some(Revision(7)),
                proposal,
            }))
        };
        let entries = [
            Change::Create(content.clone()),
            Change::Edit(op),
            Change::Delete,
            Change::Nothing,
        ];
        let entries = (1..).zip(entries).map(|(revision, change)| {
            Arc::new(Entry {
                revision: Revision(revision),
                epoch: Epoch(3),
                id: id(revision),
                at_ms: u64::MAX,
                change,
            })
        });
        let channel = Name::parse("c.d").unwrap();
        let presence = Presence {
            channel: channel.clone(),
            id: Name::parse("p").unwrap(),
            version: 9,
            value: r#"{"index":1}"#.into(),
            position: Some(Position {
                doc: doc.clone(),
                revision: Revision(8),
                kind: Kind::RichText,
            }),
        };
        let client = id(0).client;
        let digest = PresenceDigest {
            channel: channel.clone(),
            values: vec![(client.clone(), presence.id.clone(), 9)],
        };
        let messages = [
            PresenceMessage::Refresh {
                subscribed: vec![channel.clone()],
                digests: vec![digest.clone()],
            },
            PresenceMessage::Digest(NodeId(5), digest),
            PresenceMessage::Value(NodeId(u64::MAX), client, presence),
            PresenceMessage::RepeatRequest(NodeId(9), channel),
        ];
        let mut all = vec![
            about_doc(PeerMessage::Subscribe { since: Revision(3) }),
            submit(Proposal::Create(content)),
            submit(Proposal::Edit(r#"["x"]"#.into())),
            submit(Proposal::Delete),
            about_doc(PeerMessage::Commits {
                head: Revision(4),
                entries: entries.collect(),
            }),
            about_doc(PeerMessage::Reject {
                id: id(1),
                rejection: Rejection::busy(),
            }),
            NodeMessage::Ping,
            NodeMessage::Pong,
            NodeMessage::Leaving,
            NodeMessage::HasStore,
            NodeMessage::StoreAnswers,
            NodeMessage::SaveProbe,
            NodeMessage::SaveConfirmed,
        ];
        all.extend(messages.map(NodeMessage::Presence));
        let marked: Vec<_> = all
            .iter()
            .filter_map(|message| match message {
                NodeMessage::Document(doc, message, None) => Some(NodeMessage::Document(
                    doc.clone(),
                    message.clone(),
                    Some([7; 6]),
                )),
                _ => None,
            })
            .collect();
        all.extend(marked);
        all
    }

    #[test]
    fn every_message_is_decoded_as_it_was_encoded() {
        for message in all() {
            let read = NodeMessage::decode(&message.encode()).unwrap();
            assert_eq!(format!("{read:?}"), format!("{message:?}"));
        }
    }

    #[test]
    fn truncated_messages_and_unknown_versions_are_rejected() {
        for message in all() {
            let bytes = message.encode();
            for length in 0..bytes.len() {
                assert!(
                    NodeMessage::decode(&bytes[..length]).is_err(),
                    "{message:?} {length}"
                );
            }
            let mut newer = bytes.to_vec();
            newer[0] += 1;
            assert!(matches!(
                NodeMessage::decode(&newer),
                Err(MessageDecodeError::Version(_))
            ));
        }
    }
}
