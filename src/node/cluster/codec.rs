//! What nodes say to each other, as bytes: a version, then postcard. A node of another version is not understood, and
//! that is safe: whoever waits asks again, and what was committed is in the store.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::doc::{PeerMessage, Position, Presence, Proposal, Rejection, Submit};
use crate::id::{ClientId, DocId, Name, NodeId, UserId};
use crate::log::{Change, Entry, Epoch, Revision, SubmitId};
use crate::ot::Kind;
use crate::protocol::Code;
use crate::store::HistoryMark;

/// One message from node to node.
#[derive(Debug, Clone)]
pub(in crate::node) enum Message {
    /// About a document, in the history with this mark. Messages of another history are dropped: the log has other
    /// entries at their revisions.
    Link(DocId, PeerMessage, Option<HistoryMark>),
    /// Are you there?
    Ping,
    /// I am.
    Pong,
    /// I take no more documents.
    Leaving,
    /// The store does not answer me: does it answer you?
    HasStore,
    /// The store answers me.
    StoreAnswers,
    /// Edits cannot be saved here: can they be saved on the other node?
    SaveProbe,
    /// The answer to [`SaveProbe`](Self::SaveProbe): they can, as was found out since it came. Otherwise there is none.
    SaveConfirmed,
    /// About presence.
    Presence(Rumour),
}

/// What nodes say about presence channels, by way of each channel's home.
#[derive(Debug, Clone)]
pub(in crate::node) enum Rumour {
    /// To the home: I have subscribers of these channels, and these values are mine.
    Present {
        /// The channels that are listened to.
        listened: Vec<Name>,
        /// The values that are published.
        rosters: Vec<Roster>,
    },
    /// From the home: these values are a node's; what else was known of it in the channel is gone.
    Roster(NodeId, Roster),
    /// A value of a node's client.
    Value(NodeId, ClientId, Presence),
    /// Somebody on a node wants the channel's values to be said again.
    Asked(NodeId, Name),
}

/// The presences of one node in a channel, each with the version of its newest value.
#[derive(Debug, Clone)]
pub(in crate::node) struct Roster {
    pub(in crate::node) channel: Name,
    pub(in crate::node) values: Vec<(ClientId, Name, u64)>,
}

/// Why bytes are no message.
#[derive(Debug, Error)]
pub(in crate::node) enum BadMessage {
    #[error("version {0:?}")]
    Version(Option<u8>),
    #[error("{0}")]
    Form(#[from] postcard::Error),
    #[error("{0}")]
    Part(String),
}

/// The version of these messages.
pub(in crate::node) const VERSION: u8 = 1;

impl Message {
    /// The bytes that say it.
    pub(in crate::node) fn encode(&self) -> Bytes {
        let mut changes = Vec::new();
        let wire = Wire::of(self, &mut changes);
        let bytes = postcard::to_extend(&wire, vec![VERSION]);
        bytes.expect("memory takes what is written").into()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(in crate::node) fn decode(bytes: &[u8]) -> Result<Self, BadMessage> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => postcard::from_bytes::<Wire<'_>>(rest)?.read(),
            other => Err(BadMessage::Version(other.map(|(version, _)| *version))),
        }
    }
}

type WireDoc<'a> = (&'a str, &'a str);
type WireValue<'a> = (&'a str, &'a str, u64);

/// The order of these, and of their fields, is the wire's form.
#[derive(Serialize, Deserialize)]
enum Wire<'a> {
    Subscribe(#[serde(borrow)] WireDoc<'a>, Revision),
    Submit(#[serde(borrow)] WireDoc<'a>, WireSubmit<'a>),
    Commits(#[serde(borrow)] WireDoc<'a>, Revision, Vec<WireEntry<'a>>),
    Reject(#[serde(borrow)] WireDoc<'a>, WireId<'a>, &'a str, &'a str),
    Ping,
    Pong,
    Leaving,
    Present(#[serde(borrow)] Vec<&'a str>, Vec<WireRoster<'a>>),
    Roster(u64, #[serde(borrow)] WireRoster<'a>),
    Value(u64, #[serde(borrow)] WirePresence<'a>),
    Asked(u64, &'a str),
    HasStore,
    StoreAnswers,
    /// A message about a document in a history that was renewed. Those of a store's first history have no mark.
    InHistory(HistoryMark, #[serde(borrow)] WireLink<'a>),
    SaveProbe,
    SaveConfirmed,
    SaveSnapshot(#[serde(borrow)] WireDoc<'a>),
}

/// A message about a document. Not nested in itself: what is decoded has a bounded depth.
#[derive(Serialize, Deserialize)]
enum WireLink<'a> {
    Subscribe(#[serde(borrow)] WireDoc<'a>, Revision),
    Submit(#[serde(borrow)] WireDoc<'a>, WireSubmit<'a>),
    Commits(#[serde(borrow)] WireDoc<'a>, Revision, Vec<WireEntry<'a>>),
    Reject(#[serde(borrow)] WireDoc<'a>, WireId<'a>, &'a str, &'a str),
    SaveSnapshot(#[serde(borrow)] WireDoc<'a>),
}

impl<'a> From<WireLink<'a>> for Wire<'a> {
    fn from(link: WireLink<'a>) -> Self {
        match link {
            WireLink::Subscribe(doc, since) => Self::Subscribe(doc, since),
            WireLink::Submit(doc, submit) => Self::Submit(doc, submit),
            WireLink::Commits(doc, head, entries) => Self::Commits(doc, head, entries),
            WireLink::Reject(doc, id, code, message) => Self::Reject(doc, id, code, message),
            WireLink::SaveSnapshot(doc) => Self::SaveSnapshot(doc),
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
    /// As the log holds it.
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
    /// As the log holds it.
    change: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct WireRoster<'a> {
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
    /// `changes` keeps the log's form of what is sent.
    fn of(message: &'a Message, changes: &'a mut Vec<Vec<u8>>) -> Self {
        match message {
            Message::Link(doc, link, None) => WireLink::of(doc, link, changes).into(),
            Message::Link(doc, link, Some(mark)) => {
                Self::InHistory(*mark, WireLink::of(doc, link, changes))
            }
            Message::Ping => Self::Ping,
            Message::Pong => Self::Pong,
            Message::Leaving => Self::Leaving,
            Message::HasStore => Self::HasStore,
            Message::StoreAnswers => Self::StoreAnswers,
            Message::SaveProbe => Self::SaveProbe,
            Message::SaveConfirmed => Self::SaveConfirmed,
            Message::Presence(rumour) => Self::of_rumour(rumour),
        }
    }

    fn of_rumour(rumour: &'a Rumour) -> Self {
        match rumour {
            Rumour::Present { listened, rosters } => Self::Present(
                listened.iter().map(Name::as_str).collect(),
                rosters.iter().map(WireRoster::of).collect(),
            ),
            Rumour::Roster(node, roster) => Self::Roster(node.0, WireRoster::of(roster)),
            Rumour::Value(node, client, presence) => {
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
            Rumour::Asked(node, channel) => Self::Asked(node.0, channel.as_str()),
        }
    }

    fn read(self) -> Result<Message, BadMessage> {
        Ok(match self {
            Self::Subscribe(doc, since) => WireLink::Subscribe(doc, since).read(None)?,
            Self::Submit(doc, submit) => WireLink::Submit(doc, submit).read(None)?,
            Self::Commits(doc, head, entries) => {
                WireLink::Commits(doc, head, entries).read(None)?
            }
            Self::Reject(doc, id, code, message) => {
                WireLink::Reject(doc, id, code, message).read(None)?
            }
            Self::InHistory(mark, link) => link.read(Some(mark))?,
            Self::Ping => Message::Ping,
            Self::Pong => Message::Pong,
            Self::Leaving => Message::Leaving,
            Self::HasStore => Message::HasStore,
            Self::StoreAnswers => Message::StoreAnswers,
            Self::SaveProbe => Message::SaveProbe,
            Self::SaveConfirmed => Message::SaveConfirmed,
            Self::SaveSnapshot(doc) => WireLink::SaveSnapshot(doc).read(None)?,
            Self::Present(listened, rosters) => {
                let listened = listened.into_iter().map(read_name);
                let rosters = rosters.into_iter().map(WireRoster::read);
                Message::Presence(Rumour::Present {
                    listened: listened.collect::<Result<_, _>>()?,
                    rosters: rosters.collect::<Result<_, _>>()?,
                })
            }
            Self::Roster(node, roster) => {
                Message::Presence(Rumour::Roster(NodeId(node), roster.read()?))
            }
            Self::Value(node, presence) => {
                let (client, presence) = presence.read()?;
                Message::Presence(Rumour::Value(NodeId(node), client, presence))
            }
            Self::Asked(node, channel) => {
                Message::Presence(Rumour::Asked(NodeId(node), read_channel(channel)?))
            }
        })
    }
}

impl<'a> WireLink<'a> {
    /// `changes` keeps the log's form of what is sent.
    fn of(doc: &'a DocId, link: &'a PeerMessage, changes: &'a mut Vec<Vec<u8>>) -> Self {
        match link {
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

    fn read(self, mark: Option<HistoryMark>) -> Result<Message, BadMessage> {
        let (doc, link) = match self {
            Self::Subscribe(doc, since) => (doc, PeerMessage::Subscribe { since }),
            Self::Submit(doc, submit) => (doc, PeerMessage::Submit(submit.read()?)),
            Self::Commits(doc, head, entries) => {
                let entries = entries.into_iter().map(|entry| entry.read().map(Arc::new));
                let entries = entries.collect::<Result<_, _>>()?;
                (doc, PeerMessage::Commits { head, entries })
            }
            Self::SaveSnapshot(doc) => (doc, PeerMessage::SaveSnapshot),
            Self::Reject(doc, id, code, message) => {
                let reason = Code::parse(code).and_then(Code::rejection_reason);
                let reason = reason.ok_or_else(|| part("code", code))?;
                let rejection = Rejection::new(reason, message);
                let id = id.read()?;
                (doc, PeerMessage::Reject { id, rejection })
            }
        };
        Ok(Message::Link(read_doc(doc)?, link, mark))
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

    fn read(self) -> Result<SubmitId, BadMessage> {
        Ok(SubmitId {
            author: UserId::new(self.author),
            client: read_client(self.client)?,
            seq: self.seq,
        })
    }
}

impl WireSubmit<'_> {
    fn read(self) -> Result<Submit, BadMessage> {
        let proposal = match self.proposal {
            WireProposal::Create(change) => match read_change(change)? {
                Change::Create(content) => Proposal::Create(content),
                other => return Err(part("create", &format!("{other:?}"))),
            },
            WireProposal::Edit(json) => Proposal::Edit(json.into()),
            WireProposal::Delete => Proposal::Delete,
        };
        Ok(Submit {
            id: self.id.read()?,
            base: self.base,
            proposal,
        })
    }
}

impl WireEntry<'_> {
    fn read(self) -> Result<Entry, BadMessage> {
        Ok(Entry {
            revision: self.revision,
            epoch: self.epoch,
            id: self.id.read()?,
            at_ms: self.at_ms,
            change: read_change(self.change)?,
        })
    }
}

impl<'a> WireRoster<'a> {
    fn of(roster: &'a Roster) -> Self {
        let values = roster.values.iter();
        Self {
            channel: roster.channel.as_str(),
            values: values
                .map(|(client, id, version)| (client.as_str(), id.as_str(), *version))
                .collect(),
        }
    }

    fn read(self) -> Result<Roster, BadMessage> {
        let values = self.values.into_iter();
        let values = values
            .map(|(client, id, version)| Ok((read_client(client)?, read_name(id)?, version)))
            .collect::<Result<_, BadMessage>>()?;
        Ok(Roster {
            channel: read_channel(self.channel)?,
            values,
        })
    }
}

impl WirePresence<'_> {
    fn read(self) -> Result<(ClientId, Presence), BadMessage> {
        let position = self.position.map(|(doc, revision, kind)| {
            Ok::<_, BadMessage>(Position {
                doc: read_doc(doc)?,
                revision,
                kind: Kind::parse(kind).ok_or_else(|| part("type", kind))?,
            })
        });
        let presence = Presence {
            channel: read_channel(self.channel)?,
            id: read_name(self.id)?,
            version: self.version,
            value: self.value.into(),
            position: position.transpose()?,
        };
        Ok((read_client(self.client)?, presence))
    }
}

fn doc_names(doc: &DocId) -> WireDoc<'_> {
    (doc.collection.as_str(), doc.id.as_str())
}

fn read_doc((collection, id): WireDoc<'_>) -> Result<DocId, BadMessage> {
    DocId::parse(collection, id).map_err(|_| part("document", id))
}

fn read_name(name: &str) -> Result<Name, BadMessage> {
    Name::parse(name).map_err(|_| part("name", name))
}

fn read_channel(name: &str) -> Result<Name, BadMessage> {
    Name::parse_channel(name).map_err(|_| part("channel", name))
}

fn read_client(client: &str) -> Result<ClientId, BadMessage> {
    ClientId::parse(client).map_err(|_| part("client", client))
}

fn read_change(bytes: &[u8]) -> Result<Change, BadMessage> {
    Change::decode(bytes).map_err(|error| part("change", &error.to_string()))
}

fn part(what: &str, value: &str) -> BadMessage {
    BadMessage::Part(format!("no {what}: {value:?}"))
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

    fn all() -> Vec<Message> {
        let doc = DocId::parse("c", "名前").unwrap();
        let link = |link| Message::Link(doc.clone(), link, None);
        let content = Content::create(Kind::RichText, Some(r#"[{"insert":"a\n"}]"#)).unwrap();
        let op = Op::parse(Kind::TextUnicode, r#"[1,"😀",{"d":2}]"#).unwrap();
        let submit = |proposal| {
            link(PeerMessage::Submit(Submit {
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
        let roster = Roster {
            channel: channel.clone(),
            values: vec![(client.clone(), presence.id.clone(), 9)],
        };
        let rumours = [
            Rumour::Present {
                listened: vec![channel.clone()],
                rosters: vec![roster.clone()],
            },
            Rumour::Roster(NodeId(5), roster),
            Rumour::Value(NodeId(u64::MAX), client, presence),
            Rumour::Asked(NodeId(9), channel),
        ];
        let mut all = vec![
            link(PeerMessage::Subscribe { since: Revision(3) }),
            submit(Proposal::Create(content)),
            submit(Proposal::Edit(r#"["x"]"#.into())),
            submit(Proposal::Delete),
            link(PeerMessage::Commits {
                head: Revision(4),
                entries: entries.collect(),
            }),
            link(PeerMessage::Reject {
                id: id(1),
                rejection: Rejection::busy(),
            }),
            Message::Ping,
            Message::Pong,
            Message::Leaving,
            Message::HasStore,
            Message::StoreAnswers,
            Message::SaveProbe,
            Message::SaveConfirmed,
        ];
        all.extend(rumours.map(Message::Presence));
        let marked: Vec<_> = all
            .iter()
            .filter_map(|message| match message {
                Message::Link(doc, link, None) => {
                    Some(Message::Link(doc.clone(), link.clone(), Some([7; 6])))
                }
                _ => None,
            })
            .collect();
        all.extend(marked);
        all
    }

    #[test]
    fn every_message_is_read_as_it_was_written() {
        for message in all() {
            let read = Message::decode(&message.encode()).unwrap();
            assert_eq!(format!("{read:?}"), format!("{message:?}"));
        }
    }

    #[test]
    fn what_is_cut_or_of_another_version_is_refused() {
        for message in all() {
            let bytes = message.encode();
            for length in 0..bytes.len() {
                assert!(
                    Message::decode(&bytes[..length]).is_err(),
                    "{message:?} {length}"
                );
            }
            let mut newer = bytes.to_vec();
            newer[0] += 1;
            assert!(matches!(
                Message::decode(&newer),
                Err(BadMessage::Version(_))
            ));
        }
    }
}
