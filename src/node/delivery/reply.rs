//! Where a document's answer goes: straight to the socket, or into an answer about many documents.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::byte_budget::BytePermit;
use super::outbox::Outbox;
use crate::doc::{EncodedSnapshot, Rejection, SessionReply};
use crate::id::Name;
use crate::log::Entry;
use crate::protocol::{self, CloseReason, Code, EchoedFields, Refusal};
use crate::sync::lock;

/// One of a session's few requests of a kind that may be without an answer, until it is dropped.
#[derive(Debug)]
pub struct RequestSlot {
    _permit: OwnedSemaphorePermit,
}

impl RequestSlot {
    /// Waits for a slot. Cancel-safe. None if no slots will be given any more.
    pub async fn take(slots: &Arc<Semaphore>) -> Option<Self> {
        let _permit = slots.clone().acquire_owned().await.ok()?;
        Some(Self { _permit })
    }
}

/// Where a document's answer goes.
#[derive(Debug)]
pub enum ReplyTo {
    /// To the socket, as the answer to this request.
    Socket(EchoedFields),
    /// To the socket, as the answer to a fetch or a subscription.
    Read(EchoedFields, RequestSlot),
    /// To the socket, as the answer to a submit. A client whose submit is refused throws its user's work away: where the
    /// refusal will pass, the socket is closed instead, and the client comes back and says it again. With it goes the room
    /// that the submit takes.
    Submit(EchoedFields, BytePermit, RequestSlot),
    /// To the caller on this node that awaits the commit of its submit. The permit is the room that the submit takes. The
    /// channel closes without an answer if the document's task ends first: the submit may then be committed or not.
    Commit(oneshot::Sender<Result<Arc<Entry>, Rejection>>, BytePermit),
    /// Nowhere: nobody asked. A refusal closes the socket, and its client comes back and asks.
    Unrequested,
    /// Into the answer to a bulk request, under this name.
    Bulk(Arc<BulkReply>, Name, Option<RequestSlot>),
}

/// An answer's frames.
#[derive(Debug)]
pub(in crate::node) enum AnswerFrames {
    /// Nothing is to be said, or the answer is part of another.
    None,
    /// One frame.
    One(Bytes),
    /// What a read is answered with, in pieces that share a snapshot's memory, or commits: the client asked for it, so it
    /// does not close its reader, however large it is.
    Content(Vec<Bytes>),
}

impl ReplyTo {
    /// The frames that say the answer.
    pub(in crate::node) fn answer(self, outbox: &Outbox, answer: SessionReply) -> AnswerFrames {
        let will_close = match (&self, &answer) {
            (Self::Unrequested, SessionReply::Rejected(_)) => true,
            (Self::Submit(..), SessionReply::Rejected(rejection)) => rejection.is_transient(),
            _ => false,
        };
        match (self, answer) {
            (Self::Bulk(bulk, name, _slot), answer) => {
                bulk.answer(outbox, name, answer);
                AnswerFrames::None
            }
            (Self::Commit(caller, _room), answer) => {
                let outcome = match answer {
                    SessionReply::Committed(entry) => Ok(entry),
                    SessionReply::Rejected(rejection) => Err(rejection),
                    SessionReply::Snapshot(_) | SessionReply::Done => return AnswerFrames::None,
                };
                // A caller that no longer waits needs no answer.
                let _ = caller.send(outcome);
                AnswerFrames::None
            }
            (_, SessionReply::Rejected(rejection)) if will_close => {
                outbox.close(CloseReason::RequestRejected(rejection.reason.into()));
                AnswerFrames::None
            }
            (Self::Unrequested, _) | (_, SessionReply::Committed(_)) => AnswerFrames::None,
            (Self::Socket(echo) | Self::Read(echo, _) | Self::Submit(echo, ..), answer) => {
                match answer {
                    SessionReply::Snapshot(shown) => {
                        AnswerFrames::Content(protocol::snapshot_reply(&echo, &shown))
                    }
                    SessionReply::Rejected(rejection) => {
                        AnswerFrames::One(protocol::error(&echo, &rejection.into()))
                    }
                    SessionReply::Done | SessionReply::Committed(_) => {
                        AnswerFrames::One(protocol::done(&echo))
                    }
                }
            }
        }
    }

    /// What holds this document's commits back until the answer is complete.
    pub(in crate::node) fn hold(&self) -> Option<Arc<BulkReply>> {
        match self {
            Self::Socket(_)
            | Self::Read(..)
            | Self::Submit(..)
            | Self::Commit(..)
            | Self::Unrequested => None,
            Self::Bulk(bulk, ..) => bulk.shows.then(|| bulk.clone()),
        }
    }
}

/// The answer to a bulk request, while its documents answer one by one.
///
/// Where it shows snapshots, the commits that follow them are held back until it is complete: a client that was sent a
/// commit before the snapshot would fetch the document again.
#[derive(Debug)]
pub struct BulkReply {
    echo: EchoedFields,
    /// Whether the answer shows snapshots; otherwise commits come first, and the answer says only that they came.
    shows: bool,
    inner: Mutex<Parts>,
}

#[derive(Debug)]
struct Parts {
    missing: usize,
    /// What each document answered: none where its commits were all it had to say.
    shown: BTreeMap<Name, Option<Arc<EncodedSnapshot>>>,
    shown_bytes: usize,
    refused: BTreeMap<Name, Refusal>,
    /// Frames, each with its pieces.
    held: Vec<Vec<Bytes>>,
    held_bytes: usize,
    /// The session's right to one bulk answer at a time; freed when the answer is complete.
    turn: Option<RequestSlot>,
}

impl BulkReply {
    /// An answer that is complete after `documents` have answered. `turn` is the session's right to it.
    #[must_use]
    pub fn new(
        echo: EchoedFields,
        shows: bool,
        documents: usize,
        turn: Option<RequestSlot>,
    ) -> Arc<Self> {
        let parts = Parts {
            missing: documents,
            shown: BTreeMap::new(),
            shown_bytes: 0,
            refused: BTreeMap::new(),
            held: Vec::new(),
            held_bytes: 0,
            turn,
        };
        Arc::new(Self {
            echo,
            shows,
            inner: Mutex::new(parts),
        })
    }

    /// Sends the answer if there is nothing to wait for.
    pub fn begin(&self, outbox: &Outbox) {
        let parts = lock(&self.inner);
        if parts.missing == 0 {
            self.complete(outbox, parts);
        }
    }

    /// A document that was not asked: it will not answer.
    pub fn refuse(&self, outbox: &Outbox, name: Name, refusal: Refusal) {
        self.add(outbox, name, Err(refusal));
    }

    /// A refusal that will pass, if one of the documents so far was refused with one: the store is away, or the node is
    /// busy, and the other documents would each be waited for as long.
    #[must_use]
    pub fn will_pass(&self) -> Option<Refusal> {
        let parts = lock(&self.inner);
        let mut refused = parts.refused.values();
        refused.find(|refusal| refusal.will_pass()).cloned()
    }

    /// Whether the answer is not complete.
    pub(in crate::node) fn holds(&self) -> bool {
        let parts = lock(&self.inner);
        parts.missing > 0
    }

    /// Holds the pieces of a frame back, no more of them than the outbox takes; `false`: the answer is complete, and they
    /// may go.
    pub(in crate::node) fn hold(&self, outbox: &Outbox, pieces: &[Bytes]) -> bool {
        let mut parts = lock(&self.inner);
        let holds = parts.missing > 0;
        if holds {
            parts.held_bytes += pieces.iter().map(Bytes::len).sum::<usize>();
            parts.held.push(pieces.to_vec());
            outbox.bear(parts.held_bytes);
            if outbox.is_closed() {
                parts.held.clear();
            }
        }
        holds
    }

    /// Takes in what one of the documents answered.
    pub fn answer(&self, outbox: &Outbox, name: Name, answer: SessionReply) {
        let outcome = match answer {
            SessionReply::Snapshot(snapshot) => Ok(Some(snapshot)),
            SessionReply::Done | SessionReply::Committed(_) => Ok(None),
            SessionReply::Rejected(rejection) => Err(rejection.into()),
        };
        self.add(outbox, name, outcome);
    }

    /// Adds one document's part: its snapshot, `None` if its commits were all it had to send, or its refusal.
    fn add(
        &self,
        outbox: &Outbox,
        name: Name,
        outcome: Result<Option<Arc<EncodedSnapshot>>, Refusal>,
    ) {
        let mut parts = lock(&self.inner);
        match outcome {
            Ok(Some(shown)) if parts.shown_bytes + shown.size() > BULK_BYTES_MAX => {
                parts.refused.insert(name, too_much());
            }
            Ok(shown) => {
                parts.shown_bytes += shown.as_ref().map_or(0, |shown| shown.size());
                parts.shown.insert(name, shown);
            }
            Err(refusal) => {
                parts.refused.insert(name, refusal);
            }
        }
        parts.missing = parts.missing.saturating_sub(1);
        if parts.missing == 0 {
            self.complete(outbox, parts);
        }
    }

    /// Sends the answer and what was held back, under the lock: whoever finds it complete comes behind.
    fn complete(&self, outbox: &Outbox, mut parts: std::sync::MutexGuard<'_, Parts>) {
        if self.shows || !parts.refused.is_empty() {
            outbox.answer(protocol::bulk_reply(
                &self.echo,
                &parts.shown,
                &parts.refused,
            ));
        } else {
            // A full outbox closes itself; its session ends by that.
            let _ = outbox.push(protocol::done(&self.echo));
        }
        parts.turn = None;
        parts.shown.clear();
        for pieces in parts.held.drain(..) {
            outbox.answer(pieces);
        }
    }
}

/// The most bytes of documents that one answer shows: it is one frame, made for one socket.
const BULK_BYTES_MAX: usize = 64 << 20;

fn too_much() -> Refusal {
    let message = format!("One answer shows at most {BULK_BYTES_MAX} bytes: ask for less at once");
    Refusal::new(Code::TooLarge, message)
}
