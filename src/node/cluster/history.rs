//! How a node notices that the store went back in time, and what it does then.
//!
//! A restored backup, or a failover that lost commits, leaves a log that ends before what this node holds, or goes on
//! otherwise. Each heartbeat says which history the store has and from where it answers. If the place changed, or a claim
//! found less than this node knows, the node compares the log with what it holds. If something is missing, the history is
//! renewed in the store; every node learns that with its next heartbeat. A node with a new history drops all documents and
//! sockets: what they hold may never have been.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, watch};

use crate::id::DocId;
use crate::log::Revision;
use crate::node::Node;
use crate::store::{HeartbeatReply, History, StoreError};
use crate::sync::lock;

/// The newest commit that a node knows of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::node) struct Known {
    pub(in crate::node) revision: Revision,
    /// The entry's fingerprint; `None` if the node has only a snapshot of that revision.
    pub(in crate::node) fingerprint: Option<u64>,
}

impl Known {
    /// Returns true if a log that has an entry of this fingerprint at the revision, or none, does not hold the commit.
    fn is_missing_in(&self, found: Option<u64>) -> bool {
        match (found, self.fingerprint) {
            (None, _) => true,
            (Some(found), Some(known)) => found != known,
            (Some(_), None) => false,
        }
    }
}

/// A commit that the store has lost.
#[derive(Debug)]
struct Lost {
    doc: DocId,
    revision: Revision,
}

/// How many documents that were closed are remembered with their newest commit.
const CLOSED_MAX: usize = 10_000;

/// How many lost commits are logged one by one.
const LOGGED_MAX: usize = 10;

/// What a node knows of the log's history.
#[derive(Debug)]
pub(in crate::node) struct LogHistory {
    history: watch::Sender<History>,
    /// What answered the last heartbeat that was compared; `None` before the first.
    place: Mutex<Option<Arc<str>>>,
    /// Whether the log is to be compared with what the node holds, wherever the store answers from.
    is_suspect: AtomicBool,
    /// Told when `is_suspect` is set.
    suspicion: Notify,
    /// The newest commits of the documents that were closed last: more may be lost than what is open.
    closed: Mutex<VecDeque<(DocId, Known)>>,
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

    /// A document was closed, of which this was the newest commit.
    pub(in crate::node) fn closed(&self, doc: DocId, known: Known) {
        let mut closed = lock(&self.closed);
        if closed.len() >= CLOSED_MAX {
            closed.pop_front();
        }
        closed.push_back((doc, known));
    }

    /// Has the log compared with what the node holds, at once.
    pub(in crate::node) fn suspect(&self) {
        self.is_suspect.store(true, Ordering::SeqCst);
        self.suspicion.notify_one();
    }

    /// Waits until the log is to be compared.
    pub(in crate::node) async fn suspected(&self) {
        self.suspicion.notified().await;
    }
}

impl Node {
    /// The history of the log that this node serves.
    #[must_use]
    pub fn log_history(&self) -> History {
        self.histories().get()
    }

    /// Told when the history of the log changes: sockets of another one are closed with [`HistoryChanged`](crate::protocol::CloseReason::HistoryChanged).
    #[must_use]
    pub fn watch_log_history(&self) -> watch::Receiver<History> {
        self.histories().history.subscribe()
    }

    /// Serves this history. To be called before the first document is opened.
    pub fn begin_log_history(&self, history: History) {
        self.histories().history.send_replace(history);
    }

    /// Compares the history and the place that a heartbeat told with those before, and the log with what this node holds
    /// if there is a reason.
    ///
    /// # Errors
    /// If the store does not answer; the next heartbeat compares again.
    pub(in crate::node) async fn compare_history(
        &self,
        pulse: &HeartbeatReply,
    ) -> Result<(), StoreError> {
        let (histories, known) = (self.histories(), self.log_history());
        let place = lock(&histories.place).clone();
        let Some(place) = place else {
            self.adopt(pulse.history, &pulse.place);
            return Ok(());
        };
        if pulse.history != known {
            if pulse.history.follows(known) {
                tracing::error!(
                    generation = pulse.history.generation,
                    "the history of the store was renewed by another node or by `copydesk restored`: all documents are loaded anew and all sockets closed"
                );
                self.adopt(pulse.history, &pulse.place);
                return Ok(());
            }
            tracing::error!(
                known = known.generation,
                found = pulse.history.generation,
                "the store has a history from before the one that this node knows: an older backup was restored"
            );
            return self.renew_history(pulse).await;
        }
        let is_suspect = histories.is_suspect.swap(false, Ordering::SeqCst);
        if place == pulse.place && !is_suspect {
            return Ok(());
        }
        let compared = self.compare_log(pulse).await;
        if compared.is_err() {
            histories.is_suspect.store(true, Ordering::SeqCst);
        }
        compared
    }

    /// Compares the log with what this node holds.
    async fn compare_log(&self, pulse: &HeartbeatReply) -> Result<(), StoreError> {
        let (held, lost) = self.find_lost().await?;
        if lost.is_empty() {
            tracing::info!(
                documents = held,
                "the store was restarted or another server was promoted: it holds all that this node knows"
            );
            self.store()
                .renew_history(pulse.history, pulse.history)
                .await?;
            *lock(&self.histories().place) = Some(pulse.place.clone());
            return Ok(());
        }
        for Lost { doc, revision } in lost.iter().take(LOGGED_MAX) {
            tracing::error!(
                %doc, %revision,
                "the store has lost a commit: the log ends before this revision or has another entry there"
            );
        }
        tracing::error!(
            documents = lost.len(),
            of = held,
            "the store went back in time: acknowledged edits of these documents are lost; the history is renewed, all documents are loaded anew and all sockets closed"
        );
        self.renew_history(pulse).await
    }

    async fn renew_history(&self, pulse: &HeartbeatReply) -> Result<(), StoreError> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| StoreError::new("renew history", error))?;
        let next = pulse
            .history
            .after(self.log_history(), u128::from_le_bytes(id));
        let renewed = self.store().renew_history(pulse.history, next).await?;
        self.adopt(renewed, &pulse.place);
        Ok(())
    }

    /// How many documents this node knows commits of, and which of their newest ones the log does not hold.
    async fn find_lost(&self) -> Result<(usize, Vec<Lost>), StoreError> {
        let mut known = self.known_commits();
        known.extend(lock(&self.histories().closed).iter().cloned());
        let asked: Vec<_> = known
            .iter()
            .map(|(doc, known)| (doc.clone(), known.revision))
            .collect();
        let found = self.store().fingerprints(&asked).await?;
        let missing = known.iter().zip(found);
        let missing = missing.filter(|((_, known), found)| known.is_missing_in(*found));
        let lost = missing.map(|((doc, known), _)| Lost {
            doc: doc.clone(),
            revision: known.revision,
        });
        Ok((known.len(), lost.collect()))
    }

    /// Goes over to a history. Documents of another one end with their sockets, and are opened anew.
    fn adopt(&self, history: History, place: &Arc<str>) {
        let histories = self.histories();
        *lock(&histories.place) = Some(place.clone());
        let changed = histories
            .history
            .send_if_modified(|served| std::mem::replace(served, history) != history);
        if changed {
            lock(&histories.closed).clear();
        }
    }
}
