//! The destination of a document's answer: the socket, or the reply to a bulk request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::byte_budget::BytePermit;
use super::encoder::ReplyEncoder;
use super::outbox::Outbox;
use crate::doc::{EncodedSnapshot, Rejection, SessionReply};
use crate::id::Name;
use crate::log::Entry;
use crate::protocol::{CloseReason, Code, Refusal};
use crate::sync::lock;

/// The permit for one of a session's few unanswered requests of a kind, until it is dropped.
#[derive(Debug)]
pub struct RequestSlot {
    _permit: OwnedSemaphorePermit,
}

impl RequestSlot {
    /// Waits for a slot. Cancel-safe. Returns `None` if the semaphore is closed.
    pub async fn take(slots: &Arc<Semaphore>) -> Option<Self> {
        let _permit = slots.clone().acquire_owned().await.ok()?;
        Some(Self { _permit })
    }
}

/// The destination of a document's answer.
#[derive(Debug)]
pub enum ReplyTo {
    /// The socket, as the reply to a request without a bound of its own.
    Socket(Box<dyn ReplyEncoder>),
    /// The socket, as the reply to a fetch or a subscription.
    Read(Box<dyn ReplyEncoder>, RequestSlot),
    /// The socket, as the reply to a submit. After a rejection, the client drops its user's edit: a temporary rejection
    /// closes the socket instead, and the client reconnects and sends the submit again.
    Submit {
        /// Encodes the reply.
        encoder: Box<dyn ReplyEncoder>,
        /// The bytes of the submit in the budgets of its socket and its node.
        permit: BytePermit,
        /// One of its socket's unanswered submits.
        slot: RequestSlot,
        /// When its frame was read.
        received: Instant,
    },
    /// The caller on this node that awaits the commit of its submit. The channel closes without an answer if the document's
    /// task ends first: the submit may then be committed or not.
    Commit(oneshot::Sender<Result<Arc<Entry>, Rejection>>, BytePermit),
    /// No reply: the client did not make the request. A rejection closes the socket, and the client reconnects and asks
    /// itself.
    Unrequested,
    /// The reply to a bulk request, under this name.
    Bulk(Arc<BulkReply>, Name, Option<RequestSlot>),
}

/// The frames of a reply.
#[derive(Debug)]
pub(in crate::node) enum ReplyFrames {
    /// Nothing is sent, or the answer is a part of another reply.
    None,
    /// One frame, which counts as pushed.
    Pushed(Bytes),
    /// The content that a read asked for, in pieces. It does not close the outbox, whatever its size.
    Content(Vec<Bytes>),
}

impl ReplyTo {
    /// The frames of an answer. May close the outbox instead, or complete a bulk reply.
    pub(in crate::node) fn reply(self, outbox: &Outbox, reply: SessionReply) -> ReplyFrames {
        let closes_socket = match (&self, &reply) {
            (Self::Unrequested, SessionReply::Rejected(_)) => true,
            (Self::Submit { .. }, SessionReply::Rejected(rejection)) => rejection.is_transient(),
            _ => false,
        };
        match (self, reply) {
            (Self::Bulk(bulk, name, _slot), reply) => {
                bulk.answer(outbox, name, reply);
                ReplyFrames::None
            }
            (Self::Commit(caller, _permit), reply) => {
                let outcome = match reply {
                    SessionReply::Committed(entry) => Ok(entry),
                    SessionReply::Rejected(rejection) => Err(rejection),
                    SessionReply::Snapshot(_) | SessionReply::Done => return ReplyFrames::None,
                };
                // A caller that no longer waits needs no answer.
                let _ = caller.send(outcome);
                ReplyFrames::None
            }
            (_, SessionReply::Rejected(rejection)) if closes_socket => {
                outbox.close(CloseReason::RequestRejected(rejection.reason.into()));
                ReplyFrames::None
            }
            (Self::Unrequested, _) | (_, SessionReply::Committed(_)) => ReplyFrames::None,
            (
                Self::Socket(encoder) | Self::Read(encoder, _) | Self::Submit { encoder, .. },
                reply,
            ) => match reply {
                SessionReply::Snapshot(snapshot) => {
                    ReplyFrames::Content(encoder.snapshot(&snapshot))
                }
                SessionReply::Rejected(rejection) => {
                    ReplyFrames::Pushed(encoder.rejection(rejection))
                }
                SessionReply::Done | SessionReply::Committed(_) => {
                    ReplyFrames::Pushed(encoder.done())
                }
            },
        }
    }

    /// When the frame of a submit was read; `None` for other requests.
    pub(in crate::node) fn submit_received(&self) -> Option<Instant> {
        match self {
            Self::Submit { received, .. } => Some(*received),
            _ => None,
        }
    }

    /// The bulk reply behind which this document's commits are held back.
    pub(in crate::node) fn holding_bulk(&self) -> Option<Arc<BulkReply>> {
        match self {
            Self::Bulk(bulk, ..) => bulk.has_snapshots.then(|| bulk.clone()),
            Self::Socket(_)
            | Self::Read(..)
            | Self::Submit { .. }
            | Self::Commit(..)
            | Self::Unrequested => None,
        }
    }
}

/// The reply to a bulk request, while its documents answer one by one.
///
/// If it has snapshots, the commits after them are held back until it is complete: a client that is sent a commit before the
/// snapshot would fetch the document again.
#[derive(Debug)]
pub struct BulkReply {
    encoder: Box<dyn ReplyEncoder>,
    /// Whether the reply has snapshots. Otherwise the commits are sent first, and the reply only says that they were.
    has_snapshots: bool,
    parts: Mutex<BulkParts>,
}

#[derive(Debug)]
struct BulkParts {
    /// How many documents have not answered.
    missing: usize,
    /// The documents that were read; `None` if their commits were sent instead of a snapshot.
    read: BTreeMap<Name, Option<Arc<EncodedSnapshot>>>,
    read_bytes: usize,
    rejected: BTreeMap<Name, Refusal>,
    /// The frames that are held back, each in pieces.
    held: Vec<Vec<Bytes>>,
    held_bytes: usize,
    /// The session's permit for one bulk request at a time; freed when the reply is complete.
    turn: Option<RequestSlot>,
}

impl BulkReply {
    /// A reply that is complete after `documents` have answered. `turn` is the session's permit for it.
    #[must_use]
    pub fn new(
        encoder: Box<dyn ReplyEncoder>,
        has_snapshots: bool,
        documents: usize,
        turn: Option<RequestSlot>,
    ) -> Arc<Self> {
        let parts = BulkParts {
            missing: documents,
            read: BTreeMap::new(),
            read_bytes: 0,
            rejected: BTreeMap::new(),
            held: Vec::new(),
            held_bytes: 0,
            turn,
        };
        Arc::new(Self {
            encoder,
            has_snapshots,
            parts: Mutex::new(parts),
        })
    }

    /// Sends the reply if no document has to answer.
    pub fn begin(&self, outbox: &Outbox) {
        let parts = lock(&self.parts);
        if parts.missing == 0 {
            self.complete(outbox, parts);
        }
    }

    /// Adds the rejection of a document that was not asked and will not answer.
    pub fn reject(&self, outbox: &Outbox, name: Name, refusal: Refusal) {
        self.add(outbox, name, Err(refusal));
    }

    /// A temporary rejection of one of the documents so far, if there is one: the store is unavailable or the node is busy,
    /// and waiting for each of the other documents would take as long.
    #[must_use]
    pub fn temporary_rejection(&self) -> Option<Refusal> {
        let parts = lock(&self.parts);
        let mut rejected = parts.rejected.values();
        rejected.find(|refusal| refusal.will_pass()).cloned()
    }

    /// Returns true if the reply is not complete.
    pub(in crate::node) fn is_incomplete(&self) -> bool {
        lock(&self.parts).missing > 0
    }

    /// Holds back the pieces of a frame, at most as many as the outbox takes. Returns false if the reply is complete and the
    /// frame may be sent.
    pub(in crate::node) fn hold(&self, outbox: &Outbox, pieces: &[Bytes]) -> bool {
        let mut parts = lock(&self.parts);
        let is_incomplete = parts.missing > 0;
        if is_incomplete {
            parts.held_bytes += pieces.iter().map(Bytes::len).sum::<usize>();
            parts.held.push(pieces.to_vec());
            outbox.close_if_over(parts.held_bytes);
            if outbox.is_closed() {
                parts.held.clear();
            }
        }
        is_incomplete
    }

    /// Adds the answer of one of the documents.
    pub fn answer(&self, outbox: &Outbox, name: Name, reply: SessionReply) {
        let outcome = match reply {
            SessionReply::Snapshot(snapshot) => Ok(Some(snapshot)),
            SessionReply::Done | SessionReply::Committed(_) => Ok(None),
            SessionReply::Rejected(rejection) => Err(rejection.into()),
        };
        self.add(outbox, name, outcome);
    }

    /// Adds one document: its snapshot, `None` if its commits were sent instead, or its rejection.
    fn add(
        &self,
        outbox: &Outbox,
        name: Name,
        outcome: Result<Option<Arc<EncodedSnapshot>>, Refusal>,
    ) {
        let mut parts = lock(&self.parts);
        match outcome {
            Ok(Some(snapshot)) if parts.read_bytes + snapshot.size() > BULK_BYTES_MAX => {
                parts.rejected.insert(name, reply_too_large());
            }
            Ok(snapshot) => {
                parts.read_bytes += snapshot.as_ref().map_or(0, |it| it.size());
                parts.read.insert(name, snapshot);
            }
            Err(refusal) => {
                parts.rejected.insert(name, refusal);
            }
        }
        parts.missing = parts.missing.saturating_sub(1);
        if parts.missing == 0 {
            self.complete(outbox, parts);
        }
    }

    /// Sends the reply and the frames behind it. Under the lock: a thread that finds the reply complete sends after it.
    fn complete(&self, outbox: &Outbox, mut parts: MutexGuard<'_, BulkParts>) {
        if self.has_snapshots || !parts.rejected.is_empty() {
            outbox.push_reply(self.encoder.bulk(&parts.read, &parts.rejected));
        } else {
            // A full outbox closes itself, which ends its session.
            let _ = outbox.push(self.encoder.done());
        }
        parts.turn = None;
        parts.read.clear();
        for pieces in parts.held.drain(..) {
            outbox.push_reply(pieces);
        }
    }
}

/// The most bytes of documents in one reply: it is one frame, for one socket.
const BULK_BYTES_MAX: usize = 64 << 20;

fn reply_too_large() -> Refusal {
    let message = format!("One answer shows at most {BULK_BYTES_MAX} bytes: ask for less at once");
    Refusal::new(Code::TooLarge, message)
}
