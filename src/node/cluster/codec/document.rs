//! Messages about a document: `doc::PeerMessage`, its submits and its entries.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{MessageDecodeError, Wire, WireDoc, decode_client, decode_doc, doc_names, invalid};
use crate::doc::{PeerMessage, Proposal, Rejection, Submit};
use crate::id::{DocId, UserId};
use crate::log::{Change, Entry, Epoch, Revision, SubmitId};
use crate::node::cluster::message::NodeMessage;
use crate::protocol::Code;
use crate::store::HistoryMark;

/// A message about a document. A type of its own, so that what is decoded has a bounded depth.
#[derive(Serialize, Deserialize)]
pub(super) enum WirePeerMessage<'a> {
    Subscribe(#[serde(borrow)] WireDoc<'a>, Revision),
    Submit(#[serde(borrow)] WireDoc<'a>, WireSubmit<'a>),
    Commits(#[serde(borrow)] WireDoc<'a>, Revision, Vec<WireEntry<'a>>),
    Reject(#[serde(borrow)] WireDoc<'a>, WireId<'a>, &'a str, &'a str),
    SaveSnapshot(#[serde(borrow)] WireDoc<'a>),
    /// A submit with the fingerprint of the entry at its base. Nodes need `Capabilities::BASE_FINGERPRINTS` to read it and the
    /// next one.
    SubmitOn(#[serde(borrow)] WireDoc<'a>, WireSubmit<'a>, u64),
    Diverged(#[serde(borrow)] WireDoc<'a>, Revision),
}

impl<'a> From<WirePeerMessage<'a>> for Wire<'a> {
    fn from(message: WirePeerMessage<'a>) -> Self {
        match message {
            WirePeerMessage::Subscribe(doc, since) => Self::Subscribe(doc, since),
            WirePeerMessage::Submit(doc, submit) => Self::Submit(doc, submit),
            WirePeerMessage::Commits(doc, head, entries) => Self::Commits(doc, head, entries),
            WirePeerMessage::Reject(doc, id, code, message) => Self::Reject(doc, id, code, message),
            WirePeerMessage::SaveSnapshot(doc) => Self::SaveSnapshot(doc),
            WirePeerMessage::SubmitOn(doc, submit, base) => Self::SubmitOn(doc, submit, base),
            WirePeerMessage::Diverged(doc, revision) => Self::Diverged(doc, revision),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct WireId<'a> {
    author: &'a str,
    client: &'a str,
    seq: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct WireSubmit<'a> {
    #[serde(borrow)]
    id: WireId<'a>,
    base: Option<Revision>,
    proposal: WireProposal<'a>,
}

#[derive(Serialize, Deserialize)]
pub(super) enum WireProposal<'a> {
    /// The change as it is encoded in the log.
    Create(&'a [u8]),
    Edit(&'a str),
    Delete,
}

#[derive(Serialize, Deserialize)]
pub(super) struct WireEntry<'a> {
    revision: Revision,
    epoch: Epoch,
    #[serde(borrow)]
    id: WireId<'a>,
    at_ms: u64,
    /// As it is encoded in the log.
    change: &'a [u8],
}

impl<'a> WirePeerMessage<'a> {
    /// The encoded form borrows from `message` and from `changes`, which holds the encoded changes.
    pub(super) fn of(
        doc: &'a DocId,
        message: &'a PeerMessage,
        changes: &'a mut Vec<Vec<u8>>,
    ) -> Self {
        match message {
            PeerMessage::Subscribe { since } => Self::Subscribe(doc_names(doc), *since),
            PeerMessage::Submit(submit, base_fingerprint) => {
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
                let wire = WireSubmit { id, base, proposal };
                match base_fingerprint {
                    Some(fingerprint) => Self::SubmitOn(doc_names(doc), wire, *fingerprint),
                    None => Self::Submit(doc_names(doc), wire),
                }
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
            PeerMessage::Diverged { revision } => Self::Diverged(doc_names(doc), *revision),
            PeerMessage::Reject { id, rejection } => {
                let code = Code::from(rejection.reason).as_str();
                let message = &rejection.message;
                Self::Reject(doc_names(doc), WireId::of(id), code, message)
            }
        }
    }

    pub(super) fn decode(
        self,
        mark: Option<HistoryMark>,
    ) -> Result<NodeMessage, MessageDecodeError> {
        let (doc, message) = match self {
            Self::Subscribe(doc, since) => (doc, PeerMessage::Subscribe { since }),
            Self::Submit(doc, submit) => (doc, PeerMessage::Submit(submit.decode()?, None)),
            Self::SubmitOn(doc, submit, base) => {
                (doc, PeerMessage::Submit(submit.decode()?, Some(base)))
            }
            Self::Diverged(doc, revision) => (doc, PeerMessage::Diverged { revision }),
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

fn decode_change(bytes: &[u8]) -> Result<Change, MessageDecodeError> {
    Change::decode(bytes).map_err(|error| invalid("change", &error.to_string()))
}
