//! What the tasks of documents report of faults.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::dead_letter_writer::{DeadLetterWriter, QueueItem};
use super::panics::Panics;
use super::payload::{Payload, message_of};
use super::quarantine_sync::QuarantineSync;
use super::settings::DeadLetterSettings;
use crate::doc::PoisonSubmit;
use crate::id::{DocId, NodeId};
use crate::log::{Entry, Revision, SubmitId};
use crate::node::document::mailbox::Mailboxes;
use crate::node::metrics::{DeadLetterResult, NodeMetrics};
use crate::outage::LineLimit;
use crate::store::{DeadLetter, DeadLetterReason, Store};
use crate::sync::lock;

/// The most dead letters that wait to be written. Further ones are dropped and counted.
const QUEUE_MAX: usize = 64;

/// How long a document's first load waits until the quarantine was read for the first time.
const FIRST_READ_PATIENCE: Duration = Duration::from_secs(2);

/// How long a stop waits until the dead letters in the queue are written.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// Keeps dead letters and the quarantine. Its methods do not wait for the store, except for
/// [`is_quarantined`](Self::is_quarantined) at the start.
#[derive(Debug)]
pub(in crate::node) struct FaultService {
    node: (NodeId, Arc<str>),
    settings: DeadLetterSettings,
    queue: mpsc::Sender<QueueItem>,
    panics: Arc<Mutex<Panics>>,
    /// Notified when a panic is to be stored.
    panicked: Arc<Notify>,
    /// Whether the quarantine was read from the store.
    was_read: watch::Receiver<bool>,
    metrics: Arc<NodeMetrics>,
}

/// A document at the time of a fault.
#[derive(Debug)]
pub(in crate::node) struct FaultyDocument<'a> {
    pub(in crate::node) doc: &'a DocId,
    /// Its newest durable revision, as far as the node knows.
    pub(in crate::node) head: Revision,
    /// The time, in milliseconds since 1970.
    pub(in crate::node) at_ms: u64,
}

impl FaultService {
    /// Starts the service and its background tasks, which end when it is dropped.
    pub(in crate::node) fn start(
        node: (NodeId, Arc<str>),
        settings: DeadLetterSettings,
        (store, documents): (Arc<dyn Store>, Arc<Mailboxes>),
        (metrics, runtime): (Arc<NodeMetrics>, &Handle),
    ) -> Self {
        let (queue, queued) = mpsc::channel(QUEUE_MAX);
        let (panics, panicked): (Arc<Mutex<Panics>>, Arc<Notify>) = Default::default();
        let (read, was_read) = watch::channel(false);
        let writer =
            DeadLetterWriter::new(store.clone(), settings.bounds(), queued, metrics.clone());
        let sync = QuarantineSync::new(
            (store, documents),
            &panics,
            panicked.clone(),
            (metrics.clone(), read),
        );
        runtime.spawn(writer.run());
        runtime.spawn(sync.run());
        Self {
            node,
            settings,
            queue,
            panics,
            panicked,
            was_read,
            metrics,
        }
    }

    /// Returns true if the document is in quarantine. Waits until the quarantine was read from the store, at most
    /// [`FIRST_READ_PATIENCE`].
    pub(in crate::node) async fn is_quarantined(&self, doc: &DocId) -> bool {
        let mut was_read = self.was_read.clone();
        if !*was_read.borrow_and_update() {
            let read = was_read.wait_for(|it| *it);
            let _ = timeout(FIRST_READ_PATIENCE, read).await;
        }
        self.panics().is_quarantined(doc)
    }

    /// The submits that made this document panic on this node.
    pub(in crate::node) fn poison_of(&self, doc: &DocId) -> Vec<SubmitId> {
        self.panics().poison_of(doc)
    }

    /// Takes note of a panic of a document, and of the submit that caused it, if one did.
    pub(in crate::node) fn panicked(
        &self,
        document: &FaultyDocument<'_>,
        cause: &(dyn Any + Send),
        poison: Option<&PoisonSubmit>,
    ) {
        let doc = document.doc;
        if let Some(poison) = poison {
            self.panics().add_poison(doc, poison.id.clone());
            let payload = poison
                .proposal
                .as_ref()
                .map(|proposal| Payload::of_proposal(proposal, self.settings.payload_bytes_max));
            let letter = DeadLetter {
                detail: message_of(cause),
                base: poison.base,
                ..self.letter(
                    DeadLetterReason::Panic,
                    document,
                    poison.id.clone(),
                    payload.unwrap_or_default(),
                )
            };
            self.add_dead_letter(letter);
        }
        let quarantines = self
            .panics()
            .panicked(doc, self.node.clone(), document.at_ms);
        if quarantines {
            tracing::error!(
                "the document panicked twice within a minute: it is in quarantine, and read-only until `copydesk quarantine release` is run"
            );
        }
        self.panicked.notify_one();
    }

    /// Takes note of an entry that the store refuses because of its values.
    pub(in crate::node) fn entry_refused(&self, document: &FaultyDocument<'_>, entry: &Entry) {
        let payload = Payload::of_change(&entry.change, self.settings.payload_bytes_max);
        let submit = entry.id.clone();
        self.add_dead_letter(DeadLetter {
            base: Some(entry.revision.before()),
            ..self.letter(DeadLetterReason::Refused, document, submit, payload)
        });
    }

    /// Waits until the dead letters that were added before are written or dropped, at most [`FLUSH_PATIENCE`].
    pub(in crate::node) async fn flush(&self) {
        let (sender, flushed) = oneshot::channel();
        let flush = async {
            if self.queue.send(QueueItem::Flush(sender)).await.is_ok() {
                let _ = flushed.await;
            }
        };
        let _ = timeout(FLUSH_PATIENCE, flush).await;
    }

    fn letter(
        &self,
        reason: DeadLetterReason,
        document: &FaultyDocument<'_>,
        submit: SubmitId,
        payload: Payload,
    ) -> DeadLetter {
        DeadLetter {
            reason,
            detail: String::new(),
            doc: document.doc.clone(),
            submit,
            base: None,
            head: document.head,
            node: self.node.0,
            node_name: self.node.1.clone(),
            at_ms: document.at_ms,
            payload: payload.json,
            payload_bytes: payload.bytes,
        }
    }

    fn add_dead_letter(&self, letter: DeadLetter) {
        if self.settings.count_max == 0 {
            return;
        }
        if self.queue.try_send(QueueItem::Letter(letter)).is_err() {
            static LIMIT: LineLimit = LineLimit::new();
            self.metrics
                .dead_letters
                .of(DeadLetterResult::Dropped)
                .inc();
            if let Some(left_out) = LIMIT.pass() {
                tracing::warn!(left_out, "dead letter dropped: too many wait to be written");
            }
        }
    }

    fn panics(&self) -> MutexGuard<'_, Panics> {
        lock(&self.panics)
    }
}
