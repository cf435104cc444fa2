//! Where a document's answer goes: straight to the socket, or into an answer about many documents.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::outbox::{Outbox, TRY_AGAIN_LATER};
use super::room::Taken;
use crate::doc::Answer;
use crate::id::Name;
use crate::protocol::{self, Code, Echo, Refusal, Shown};

/// Where a document's answer goes.
#[derive(Debug)]
pub enum ReplyTo {
    /// To the socket, as the answer to this request.
    Socket(Echo),
    /// To the socket, as the answer to a submit. A client whose submit is refused throws its user's work away: where the
    /// refusal will pass, the socket is closed instead, and the client comes back and says it again. With it goes the room
    /// that the submit takes.
    Submit(Echo, Taken),
    /// Nowhere: nobody asked. A refusal closes the socket, and its client comes back and asks.
    Nobody,
    /// Into the answer to a bulk request, under this name.
    Bulk(Arc<Bulk>, Name),
}

impl ReplyTo {
    /// The frame that says the answer; none where nothing is to be said, or the answer is part of another.
    pub(super) fn answer(self, outbox: &Outbox, answer: Answer) -> Option<Bytes> {
        match (self, answer) {
            (Self::Bulk(bulk, name), answer) => {
                bulk.answer(outbox, name, answer);
                None
            }
            (reply @ (Self::Submit(..) | Self::Nobody), Answer::Refused(refusal))
                if refusal.will_pass() || matches!(reply, Self::Nobody) =>
            {
                outbox.close(TRY_AGAIN_LATER, &refusal.message);
                None
            }
            (Self::Nobody, _) | (Self::Socket(_) | Self::Submit(..), Answer::Committed) => None,
            (Self::Socket(echo) | Self::Submit(echo, _), Answer::Shown(shown)) => {
                Some(protocol::shown_reply(&echo, &shown))
            }
            (Self::Socket(echo) | Self::Submit(echo, _), Answer::Done) => {
                Some(protocol::done(&echo))
            }
            (Self::Socket(echo) | Self::Submit(echo, _), Answer::Refused(refusal)) => {
                Some(protocol::error(&echo, &refusal))
            }
        }
    }

    /// What holds this document's commits back until the answer is complete.
    pub(super) fn hold(&self) -> Option<Arc<Bulk>> {
        match self {
            Self::Socket(_) | Self::Submit(..) | Self::Nobody => None,
            Self::Bulk(bulk, _) => bulk.shows.then(|| bulk.clone()),
        }
    }
}

/// The answer to a bulk request, while its documents answer one by one.
///
/// Where it shows snapshots, the commits that follow them are held back until it is complete: a client that was sent a
/// commit before the snapshot would fetch the document again.
#[derive(Debug)]
pub struct Bulk {
    echo: Echo,
    /// Whether the answer shows snapshots; otherwise commits come first, and the answer says only that they came.
    shows: bool,
    inner: Mutex<Parts>,
}

#[derive(Debug)]
struct Parts {
    missing: usize,
    /// What each document answered: none where its commits were all it had to say.
    shown: BTreeMap<Name, Option<Arc<Shown>>>,
    shown_bytes: usize,
    refused: BTreeMap<Name, Refusal>,
    held: Vec<Bytes>,
    held_bytes: usize,
}

impl Bulk {
    /// An answer that is complete after `documents` have answered.
    #[must_use]
    pub fn new(echo: Echo, shows: bool, documents: usize) -> Arc<Self> {
        let parts = Parts {
            missing: documents,
            shown: BTreeMap::new(),
            shown_bytes: 0,
            refused: BTreeMap::new(),
            held: Vec::new(),
            held_bytes: 0,
        };
        Arc::new(Self {
            echo,
            shows,
            inner: Mutex::new(parts),
        })
    }

    /// Sends the answer if there is nothing to wait for.
    pub fn begin(&self, outbox: &Outbox) {
        let parts = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.missing == 0 {
            self.complete(outbox, parts);
        }
    }

    /// A document that was not asked: it will not answer.
    pub fn refuse(&self, outbox: &Outbox, name: Name, refusal: Refusal) {
        self.answer(outbox, name, Answer::Refused(refusal));
    }

    /// Whether the answer is not complete.
    pub(super) fn holds(&self) -> bool {
        let parts = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        parts.missing > 0
    }

    /// Holds frames back, no more of them than the outbox takes; `false`: the answer is complete, and they may go.
    pub(super) fn hold(&self, outbox: &Outbox, frames: &Bytes) -> bool {
        let mut parts = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = parts.missing > 0;
        if holds {
            parts.held_bytes += frames.len();
            parts.held.push(frames.clone());
            outbox.bear(parts.held_bytes);
            if outbox.is_closed() {
                parts.held.clear();
            }
        }
        holds
    }

    /// Takes in what one of the documents answered.
    pub fn answer(&self, outbox: &Outbox, name: Name, answer: Answer) {
        let mut parts = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Answer::Shown(shown) if parts.shown_bytes + shown.size() > BULK_BYTES_MAX => {
                parts.refused.insert(name, too_much());
            }
            Answer::Shown(shown) => {
                parts.shown_bytes += shown.size();
                parts.shown.insert(name, Some(shown));
            }
            Answer::Done | Answer::Committed => {
                parts.shown.insert(name, None);
            }
            Answer::Refused(refusal) => {
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
        let frame = if self.shows || !parts.refused.is_empty() {
            protocol::bulk_reply(&self.echo, &parts.shown, &parts.refused)
        } else {
            protocol::done(&self.echo)
        };
        let _ = outbox.push(frame);
        parts.shown.clear();
        for frames in parts.held.drain(..) {
            let _ = outbox.push(frames);
        }
    }
}

/// The most bytes of documents that one answer shows: it is one frame, made for one socket.
const BULK_BYTES_MAX: usize = 64 << 20;

fn too_much() -> Refusal {
    let message = format!("One answer shows at most {BULK_BYTES_MAX} bytes: ask for less at once");
    Refusal::new(Code::TooLarge, message)
}
