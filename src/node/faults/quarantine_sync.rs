//! The task that stores panics, and reads the documents in quarantine. The store has no feed of the quarantine: each node reads
//! the whole list, which is bounded, once a second.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::panics::Panics;
use crate::id::DocId;
use crate::metrics::set_gauge;
use crate::node::document::mailbox::Mailboxes;
use crate::node::metrics::NodeMetrics;
use crate::outage::{LineLimit, Outage};
use crate::store::{PanicOutcome, Store, StoreError};
use crate::sync::lock;

/// How often the quarantine is read: so long it may take until a node notices that a document was quarantined on another node
/// or released.
const READ_INTERVAL: Duration = Duration::from_secs(1);

/// The time limit of one call of the store.
const STORE_PATIENCE: Duration = Duration::from_secs(10);

/// Exchanges panics and the quarantine with the store.
#[derive(Debug)]
pub(super) struct QuarantineSync {
    store: Arc<dyn Store>,
    documents: Arc<Mailboxes>,
    /// Dropped with the node: then the task ends.
    panics: Weak<Mutex<Panics>>,
    panicked: Arc<Notify>,
    metrics: Arc<NodeMetrics>,
    read: watch::Sender<bool>,
    /// Open documents that are to be loaded again, and whose mailboxes were full.
    unsent: BTreeSet<DocId>,
    outage: Outage,
}

impl QuarantineSync {
    pub(super) fn new(
        (store, documents): (Arc<dyn Store>, Arc<Mailboxes>),
        panics: &Arc<Mutex<Panics>>,
        panicked: Arc<Notify>,
        (metrics, read): (Arc<NodeMetrics>, watch::Sender<bool>),
    ) -> Self {
        Self {
            store,
            documents,
            panics: Arc::downgrade(panics),
            panicked,
            metrics,
            read,
            unsent: BTreeSet::new(),
            outage: Outage::new(),
        }
    }

    /// Runs until the node is dropped.
    pub(super) async fn run(mut self) {
        let mut ticks = interval(READ_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.panicked.notified() => {}
            }
            let Some(panics) = self.panics.upgrade() else {
                return;
            };
            match self.exchange(&panics).await {
                Err(error) if self.outage.begins() => {
                    tracing::warn!(%error, "the store did not answer which documents are in quarantine");
                }
                Err(_) => {}
                Ok(()) => {
                    self.read
                        .send_if_modified(|read| !std::mem::replace(read, true));
                    if let Some(past) = self.outage.ends() {
                        let (failures, seconds) = (past.failures, past.lasted.as_secs());
                        tracing::info!(
                            failures,
                            seconds,
                            "the store answers which documents are in quarantine again"
                        );
                    }
                }
            }
        }
    }

    /// Stores the pending panics, reads the quarantine, and lets the open documents load again that it concerns.
    async fn exchange(&mut self, panics: &Mutex<Panics>) -> Result<(), StoreError> {
        let stored = self.store_pending(panics).await;
        let listed = within_patience(self.store.quarantined()).await?;
        set_gauge(&self.metrics.documents_quarantined, listed.len());
        let changes = lock_panics(panics).refreshed(listed);
        for doc in &changes.begun {
            tracing::warn!(%doc, "a document is in quarantine: it is read-only on this node");
        }
        for doc in &changes.ended {
            tracing::info!(%doc, "a document is not in quarantine any more");
        }
        self.unsent
            .extend(changes.begun.into_iter().chain(changes.ended));
        self.unsent.retain(|doc| !self.documents.reload(doc));
        stored
    }

    async fn store_pending(&self, panics: &Mutex<Panics>) -> Result<(), StoreError> {
        loop {
            let Some(pending) = lock_panics(panics).next_pending() else {
                return Ok(());
            };
            let doc = pending.doc.clone();
            let stored = within_patience(self.store.record_panic(pending)).await;
            match stored {
                Ok(outcome) => {
                    lock_panics(panics).pending_stored();
                    if outcome == PanicOutcome::Full {
                        warn_full(&doc);
                    }
                }
                Err(error) => {
                    lock_panics(panics).pending_failed();
                    return Err(error);
                }
            }
        }
    }
}

fn warn_full(doc: &DocId) {
    static LIMIT: LineLimit = LineLimit::new();
    if let Some(left_out) = LIMIT.pass() {
        tracing::warn!(%doc, left_out, "too many documents are in quarantine: this one stays writable");
    }
}

fn lock_panics(panics: &Mutex<Panics>) -> MutexGuard<'_, Panics> {
    lock(panics)
}

async fn within_patience<T>(
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let answer = timeout(STORE_PATIENCE, answer).await;
    answer.unwrap_or_else(|_| Err(StoreError::new("quarantine", "no answer in time")))
}
