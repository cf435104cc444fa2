//! The history of the log that a node serves, and the commits by which it notices that the log went back in time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, watch};

use crate::id::DocId;
use crate::log::Revision;
use crate::store::History;
use crate::sync::lock;

/// The newest commit that a node has of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::node) struct NewestCommit {
    pub(in crate::node) revision: Revision,
    /// The entry's fingerprint; `None` if the node has only a snapshot of that revision.
    pub(in crate::node) fingerprint: Option<u64>,
}

impl NewestCommit {
    /// Returns true if a log does not hold the commit: `found` is the fingerprint of its entry at the revision.
    pub(super) fn is_missing_in(&self, found: Option<u64>) -> bool {
        match (found, self.fingerprint) {
            (None, _) => true,
            (Some(found), Some(known)) => found != known,
            (Some(_), None) => false,
        }
    }
}

/// How many closed documents the newest commits are kept of.
const CLOSED_MAX: usize = 10_000;

/// What a node has of the log's history.
#[derive(Debug)]
pub(in crate::node) struct LogHistory {
    history: watch::Sender<History>,
    /// The server and tables that answered the last compared heartbeat; `None` before the first.
    place: Mutex<Option<Arc<str>>>,
    /// Whether the log is to be compared although the store answers from the same place.
    is_suspect: AtomicBool,
    /// Notified when `is_suspect` is set.
    suspicion: Notify,
    /// The newest commits of the documents that were closed last, and commits that other nodes contradict: they may be lost.
    closed: Mutex<VecDeque<(DocId, NewestCommit)>>,
}

impl Default for LogHistory {
    fn default() -> Self {
        Self {
            history: watch::Sender::new(History::default()),
            place: Mutex::default(),
            is_suspect: AtomicBool::new(false),
            suspicion: Notify::new(),
            closed: Mutex::default(),
        }
    }
}

impl LogHistory {
    pub(in crate::node) fn get(&self) -> History {
        *self.history.borrow()
    }

    pub(in crate::node) fn watch(&self) -> watch::Receiver<History> {
        self.history.subscribe()
    }

    /// Sets the history, before the first document is opened.
    pub(in crate::node) fn begin(&self, history: History) {
        self.history.send_replace(history);
    }

    /// Keeps a commit, to be compared with the log: the newest of a document that is closed, or one of which another node has
    /// another entry.
    pub(in crate::node) fn keep_commit(&self, doc: DocId, commit: NewestCommit) {
        let mut closed = lock(&self.closed);
        if closed.len() >= CLOSED_MAX {
            closed.pop_front();
        }
        let commit = (doc, commit);
        // A forwarder repeats a submit, and with it the same finding.
        if closed.back() != Some(&commit) {
            closed.push_back(commit);
        }
    }

    /// The newest commits of the documents that were closed last, and commits that other nodes contradict.
    pub(super) fn closed(&self) -> Vec<(DocId, NewestCommit)> {
        lock(&self.closed).iter().cloned().collect()
    }

    /// Has the log compared at once with what the node has.
    pub(in crate::node) fn suspect(&self) {
        self.is_suspect.store(true, Ordering::SeqCst);
        self.suspicion.notify_one();
    }

    /// Waits until the log is to be compared.
    pub(super) async fn suspected(&self) {
        self.suspicion.notified().await;
    }

    /// Returns true if the log is to be compared, and resets that.
    pub(super) fn take_suspicion(&self) -> bool {
        self.is_suspect.swap(false, Ordering::SeqCst)
    }

    /// Has the next heartbeat compare the log.
    pub(super) fn keep_suspicion(&self) {
        self.is_suspect.store(true, Ordering::SeqCst);
    }

    /// The place that answered the last compared heartbeat; `None` before the first.
    pub(super) fn place(&self) -> Option<Arc<str>> {
        lock(&self.place).clone()
    }

    pub(super) fn set_place(&self, place: &Arc<str>) {
        *lock(&self.place) = Some(place.clone());
    }

    /// Changes to another history. Documents and sockets of the former history end.
    pub(super) fn adopt(&self, history: History, place: &Arc<str>) {
        self.set_place(place);
        let is_changed = self
            .history
            .send_if_modified(|served| std::mem::replace(served, history) != history);
        if is_changed {
            lock(&self.closed).clear();
        }
    }
}
