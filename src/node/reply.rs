//! Where a document's answer goes: straight to the socket, or into an answer about many documents.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::outbox::Outbox;
use crate::doc::Answer;
use crate::id::Name;
use crate::protocol::{self, Echo, Refusal, Shown};

/// Where a document's answer goes.
#[derive(Debug)]
pub enum ReplyTo {
    /// To the socket, as the answer to this request.
    Socket(Echo),
    /// Into the answer to a bulk request, under this name.
    Bulk(Arc<Bulk>, Name),
}

impl ReplyTo {
    /// Sends the answer on its way.
    pub(super) fn answer(self, outbox: &Outbox, answer: Answer) {
        match self {
            Self::Socket(echo) => {
                let frame = match answer {
                    Answer::Committed => return,
                    Answer::Shown(shown) => protocol::shown_reply(&echo, &shown),
                    Answer::Done => protocol::done(&echo),
                    Answer::Refused(refusal) => protocol::error(&echo, &refusal),
                };
                // A full outbox closes itself; its session ends by that.
                let _ = outbox.push(frame);
            }
            Self::Bulk(bulk, name) => bulk.answer(outbox, name, answer),
        }
    }

    /// What holds this document's commits back until the answer is complete.
    pub(super) fn hold(&self) -> Option<Arc<Bulk>> {
        match self {
            Self::Socket(_) => None,
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
    shown: BTreeMap<Name, Result<Arc<Shown>, Refusal>>,
    refused: Option<Refusal>,
    held: Vec<Bytes>,
}

impl Bulk {
    /// An answer that is complete after `documents` have answered.
    #[must_use]
    pub fn new(echo: Echo, shows: bool, documents: usize) -> Arc<Self> {
        let parts = Parts {
            missing: documents,
            shown: BTreeMap::new(),
            refused: None,
            held: Vec::new(),
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

    /// Holds commits back; `false`: the answer is complete, and they may go.
    pub(super) fn hold(&self, frames: &Bytes) -> bool {
        let mut parts = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = parts.missing > 0;
        if holds {
            parts.held.push(frames.clone());
        }
        holds
    }

    fn answer(&self, outbox: &Outbox, name: Name, answer: Answer) {
        let mut parts = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Answer::Shown(shown) => {
                parts.shown.insert(name, Ok(shown));
            }
            Answer::Done | Answer::Committed => {}
            Answer::Refused(refusal) if self.shows => {
                parts.shown.insert(name, Err(refusal));
            }
            Answer::Refused(refusal) => parts.refused = Some(refusal),
        }
        parts.missing = parts.missing.saturating_sub(1);
        if parts.missing == 0 {
            self.complete(outbox, parts);
        }
    }

    /// Sends the answer and what was held back, under the lock: whoever finds it complete comes behind.
    fn complete(&self, outbox: &Outbox, mut parts: std::sync::MutexGuard<'_, Parts>) {
        let frame = match &parts.refused {
            Some(refusal) => protocol::error(&self.echo, refusal),
            None if self.shows => protocol::bulk_reply(&self.echo, parts.shown.iter()),
            None => protocol::done(&self.echo),
        };
        let _ = outbox.push(frame);
        parts.shown.clear();
        for frames in parts.held.drain(..) {
            let _ = outbox.push(frames);
        }
    }
}
