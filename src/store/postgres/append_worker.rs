//! An append worker: one connection that appends, and its queue.
//!
//! While a statement runs, batches gather in the queue; they become the next statement. The batches of a document
//! always use the same worker, one statement after the other. Under load a worker pauses between two statements so that
//! more batches gather: a statement costs Postgres as much as many batches.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::append::{AppendConnection, AppendOutcome};
use super::connect::PostgresConnector;
use super::error::{FailureKind, PostgresError};
use super::number_cache::NumberCache;
use super::outages::Outages;
use super::updated_at_queue::UpdatedAtQueue;
use crate::id::DocId;
use crate::store::stored_entry::EncodedBatch;
use crate::store::{AppendError, StoreError, StoreMetrics};
use crate::sync::lock;

/// How many appends may wait in the inbox of a worker, and about how many batches in its queue. If both are full,
/// callers wait.
const QUEUE_MAX: usize = 512;

/// How many documents one statement has. With more, the latency grows and the throughput does not.
const DOCUMENTS_MAX: usize = 200;

/// A statement takes no more batches once they have this many bytes.
const BYTES_MAX: usize = 2 << 20;

/// A worker pauses one millisecond for this many documents of its last statement. With few writers there is no pause.
const DOCUMENTS_A_MS: usize = 2;

/// The longest pause, in milliseconds.
const PAUSE_MAX_MS: usize = 5;

/// How long an append is retried while its document is being claimed. Most claims take a few milliseconds.
const BUSY_MAX: Duration = Duration::from_secs(1);

/// The pause between two of these retries.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// The result of a batch; the reason if its outcome is unknown.
pub(super) type AppendReply = Result<Result<(), AppendError>, Arc<str>>;

/// A batch, and the channel for its result.
pub(super) type AppendRequest = (EncodedBatch, oneshot::Sender<AppendReply>);

/// A batch in the queue.
struct PendingAppend {
    batch: EncodedBatch,
    answer: oneshot::Sender<AppendReply>,
    /// When it is tried.
    due: Instant,
    /// Until when it is retried while its document is being claimed.
    until: Instant,
}

/// The handle of an append worker. When it is closed or dropped, the worker completes its queue and ends.
pub(super) struct AppendWorker {
    /// `None` once it is closed.
    inbox: Mutex<Option<mpsc::Sender<Vec<PendingAppend>>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl AppendWorker {
    pub(super) fn start(
        connector: PostgresConnector,
        patience: Duration,
        (numbers, updated_at): (Arc<NumberCache>, Arc<UpdatedAtQueue>),
        metrics: StoreMetrics,
    ) -> Self {
        let (inbox, outbox) = mpsc::channel(QUEUE_MAX);
        let runner = AppendTask {
            inbox: outbox,
            queue: VecDeque::new(),
            connection: None,
            connector,
            patience,
            numbers,
            updated_at,
            outages: Outages::new("append"),
            metrics,
        };
        Self {
            inbox: Mutex::new(Some(inbox)),
            task: Mutex::new(Some(tokio::spawn(runner.run()))),
        }
    }

    /// How many requests wait for the worker.
    pub(super) fn queued(&self) -> usize {
        let inbox = lock(&self.inbox);
        let inbox = inbox.as_ref();
        inbox.map_or(0, |inbox| inbox.max_capacity() - inbox.capacity())
    }

    /// Queues batches together; they share a statement if it has room. Each is answered, unless the worker ends before.
    pub(super) async fn send(&self, requests: Vec<AppendRequest>) -> Result<(), StoreError> {
        let closed = || PostgresError::Closed.into_store_error("append");
        let now = Instant::now();
        let pending = requests.into_iter().map(|(batch, answer)| PendingAppend {
            batch,
            answer,
            due: now,
            until: now + BUSY_MAX,
        });
        let inbox = lock(&self.inbox).clone().ok_or_else(closed)?;
        inbox.send(pending.collect()).await.map_err(|_| closed())
    }

    /// Checks that the worker can append: queues a batch of a document that does not exist, which is answered once the
    /// worker has a connection and has written the batches before it.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        let doc =
            DocId::parse("check", "check").map_err(|error| StoreError::new("check", error))?;
        let (answer, answered) = oneshot::channel();
        self.send(vec![(EncodedBatch::empty(doc), answer)]).await?;
        let answer = answered
            .await
            .map_err(|_| PostgresError::Closed.into_store_error("check"))?;
        answer
            .map(drop)
            .map_err(|why| StoreError::new("append", why))
    }

    /// Waits until the worker has completed its queue, at most until `deadline`.
    pub(super) async fn close(&self, deadline: Instant) {
        drop(lock(&self.inbox).take());
        let Some(mut task) = lock(&self.task).take() else {
            return;
        };
        if timeout_at(deadline, &mut task).await.is_err() {
            task.abort();
        }
    }
}

struct AppendTask {
    inbox: mpsc::Receiver<Vec<PendingAppend>>,
    /// In the order of arrival. At most one statement of retried batches, and the ones that arrived meanwhile.
    queue: VecDeque<PendingAppend>,
    /// `None` before the first append and after a failure.
    connection: Option<AppendConnection>,
    connector: PostgresConnector,
    patience: Duration,
    numbers: Arc<NumberCache>,
    updated_at: Arc<UpdatedAtQueue>,
    outages: Outages,
    metrics: StoreMetrics,
}

impl AppendTask {
    async fn run(mut self) {
        while let Some(picked) = self.next().await {
            let pause_ms = (picked.len() / DOCUMENTS_A_MS).min(PAUSE_MAX_MS);
            self.commit(picked).await;
            if pause_ms > 0 {
                sleep(Duration::from_millis(pause_ms as u64)).await;
            }
        }
    }

    /// Waits for the batches of the next statement. Returns `None` once the handle is closed and the queue is empty.
    async fn next(&mut self) -> Option<Vec<PendingAppend>> {
        loop {
            while self.queue.len() < QUEUE_MAX
                && let Ok(pending) = self.inbox.try_recv()
            {
                self.queue.extend(pending);
            }
            let now = Instant::now();
            let picked = self.pick(now);
            if !picked.is_empty() {
                return Some(picked);
            }
            let later = self.queue.iter().map(|it| it.due).filter(|it| *it > now);
            let Some(due) = later.min() else {
                self.queue.extend(self.inbox.recv().await?);
                continue;
            };
            if self.queue.len() >= QUEUE_MAX || self.inbox.is_closed() {
                sleep_until(due).await;
            } else if let Ok(Some(pending)) = timeout_at(due, self.inbox.recv()).await {
                self.queue.extend(pending);
            }
        }
    }

    /// Takes the batches that are due, at most one of each document, in the order of arrival.
    fn pick(&mut self, now: Instant) -> Vec<PendingAppend> {
        let (mut picked, mut bytes) = (Vec::new(), 0);
        let mut kept = VecDeque::new();
        let mut met = HashSet::new();
        for pending in self.queue.drain(..) {
            let is_first = met.insert(pending.batch.doc.clone());
            let has_room = picked.len() < DOCUMENTS_MAX && bytes < BYTES_MAX;
            if is_first && has_room && pending.due <= now {
                bytes += pending.batch.bytes();
                picked.push(pending);
            } else {
                kept.push_back(pending);
            }
        }
        self.queue = kept;
        picked
    }

    /// Appends the batches in one statement. After a data error each is appended by its own statement, so that only the
    /// faulty one is rejected. After a lock timeout all fail: each would wait for the same lock in turn.
    async fn commit(&mut self, picked: Vec<PendingAppend>) {
        match self.attempt(&picked).await {
            Ok(outcomes) => {
                self.outages.record_success();
                self.answer(picked, outcomes);
            }
            Err(error) if error.kind() == FailureKind::Unknown => self.fail(picked, &error),
            Err(error) if error.kind() == FailureKind::Data && picked.len() > 1 => {
                tracing::warn!(%error, documents = picked.len(), "append of several documents failed: appending each by itself");
                for pending in picked {
                    self.commit_alone(pending).await;
                }
            }
            Err(error) => picked
                .into_iter()
                .for_each(|pending| reject(pending, &error)),
        }
    }

    async fn commit_alone(&mut self, pending: PendingAppend) {
        let picked = vec![pending];
        match self.attempt(&picked).await {
            Ok(outcomes) => self.answer(picked, outcomes),
            Err(error) if error.kind() == FailureKind::Unknown => self.fail(picked, &error),
            Err(error) => picked
                .into_iter()
                .for_each(|pending| reject(pending, &error)),
        }
    }

    /// A connection is not used again after a statement with an unknown outcome.
    async fn attempt(
        &mut self,
        picked: &[PendingAppend],
    ) -> Result<Vec<AppendOutcome>, PostgresError> {
        let connection = match self
            .connection
            .take()
            .filter(|connection| !connection.is_closed())
        {
            Some(connection) => connection,
            None => AppendConnection::open(&self.connector, self.patience).await?,
        };
        let begun = Instant::now();
        let outcome = self.append(&connection, picked).await;
        let metrics = &self.metrics;
        metrics.transaction_ended(picked.len(), begun.elapsed(), &outcome);
        let is_known = outcome
            .as_ref()
            .map_or_else(|error| error.kind() != FailureKind::Unknown, |_| true);
        if is_known {
            self.connection = Some(connection);
        }
        outcome
    }

    async fn append(
        &self,
        connection: &AppendConnection,
        picked: &[PendingAppend],
    ) -> Result<Vec<AppendOutcome>, PostgresError> {
        let docs = picked.iter().map(|pending| &pending.batch.doc);
        let mut lookup = self.numbers.look_up(docs);
        if let Some(question) = lookup.missing() {
            lookup.add(&self.numbers, &connection.find_numbers(question).await?);
        }
        let batches: Vec<_> = lookup
            .numbers()
            .zip(picked)
            .filter_map(|(number, pending)| Some((number?, &pending.batch)))
            .collect();
        let outcomes = connection.append(&batches).await?;
        let written = batches.iter().zip(&outcomes);
        let written = written.filter(|(_, outcome)| **outcome == AppendOutcome::Done(Ok(())));
        let numbers = written.map(|((number, _), _)| *number);
        self.updated_at.stage(numbers, Instant::now());
        let mut outcomes = outcomes.into_iter();
        // A document without a number was never claimed.
        let outcome = |number: Option<i64>| {
            number
                .and_then(|_| outcomes.next())
                .unwrap_or(AppendOutcome::Done(Err(AppendError::Fenced)))
        };
        Ok(lookup.numbers().map(outcome).collect())
    }

    fn answer(&mut self, picked: Vec<PendingAppend>, outcomes: Vec<AppendOutcome>) {
        let now = Instant::now();
        for (mut pending, outcome) in picked.into_iter().zip(outcomes).rev() {
            match outcome {
                AppendOutcome::Done(outcome) => {
                    // If the database was replaced by another, the number may have changed. The batch is fenced then, and
                    // the next claim reads the number again. The caller may have dropped the receiver.
                    let _ = pending.answer.send(Ok(outcome));
                }
                AppendOutcome::Busy if now < pending.until => {
                    // Before later batches of the same document.
                    pending.due = now + BUSY_PAUSE;
                    self.queue.push_front(pending);
                }
                AppendOutcome::Busy => {
                    let why = format!("{}: the document is being claimed", pending.batch.doc);
                    let _ = pending.answer.send(Err(why.into()));
                }
            }
        }
    }

    fn fail(&mut self, picked: Vec<PendingAppend>, error: &PostgresError) {
        if error.is_outage() {
            self.outages.record_failure(error);
        } else {
            tracing::error!(%error, documents = picked.len(), "append failed with an unknown outcome that is not an outage");
        }
        let why: Arc<str> = error.to_string().into();
        for pending in picked {
            let _ = pending.answer.send(Err(Arc::clone(&why)));
        }
    }
}

/// What a data error means. A revision that the log has already violates the primary key.
fn refusal(error: &PostgresError) -> AppendError {
    if error.is_duplicate() {
        AppendError::Gap
    } else {
        AppendError::Refused
    }
}

/// Answers a batch that was certainly not appended: its data is faulty, or the row of its document was locked.
fn reject(pending: PendingAppend, error: &PostgresError) {
    let answer = match error.kind() {
        FailureKind::Data => {
            tracing::error!(doc = %pending.batch.doc, %error, "append rejected: its values violate a constraint of the table");
            Ok(Err(refusal(error)))
        }
        FailureKind::Lock | FailureKind::Unknown => Err(error.to_string().into()),
    };
    let _ = pending.answer.send(answer);
}
