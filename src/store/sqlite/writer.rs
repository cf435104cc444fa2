//! The writer: one thread that gathers what everybody wants written into one transaction after the other.
//!
//! While a transaction is on its way to the disk, work gathers in the queue; then all of it becomes the next one. There
//! is no timer: an idle store commits at once, a busy one in groups as large as its disk is slow.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder as RuntimeBuilder, Runtime};
use tokio::sync::{mpsc, oneshot};

use super::write_connection::WriteConnection;
use crate::outage::Outage;
use crate::store::StoreError;
use crate::sync::lock;

/// How many pieces of work may wait. When the queue is full, whoever asks waits.
const QUEUE_MAX: usize = 1_024;

/// A transaction takes no more work once it weighs this many bytes: nobody should wait long for what others write.
const WEIGHT_MAX: usize = 256 << 10;

/// Something to be done within a transaction. It is run again when the transaction came to nothing.
pub(super) trait WriteJob: Send + 'static {
    /// What whoever asked is told.
    type Output: Send + 'static;

    /// What is asked, for errors.
    const VERB: &'static str;

    /// About how many bytes it writes.
    fn weight(&self) -> usize {
        200
    }

    /// Does it, within the connection's open transaction.
    fn run(&self, connection: &mut WriteConnection) -> rusqlite::Result<Self::Output>;
}

/// What the writer has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriterCounts {
    /// Durable transactions.
    pub transactions: u64,
    /// Pieces of work in them: appends, claims, snapshots, renames.
    pub jobs: u64,
    /// Transactions of which nothing was acknowledged.
    pub failures: u64,
}

#[derive(Debug, Default)]
struct WriterCounters {
    transactions: AtomicU64,
    jobs: AtomicU64,
    failures: AtomicU64,
    /// When the last transaction was written, unless one failed since.
    written: Mutex<Option<Instant>>,
}

/// The way to the writing thread. Dropped or closed, it lets the thread finish what is queued, and waits for it.
pub(super) struct WriterThread {
    /// `None` once it is closed.
    jobs: Mutex<Option<mpsc::Sender<Box<dyn QueuedJob>>>>,
    counters: Arc<WriterCounters>,
    thread: Mutex<Option<JoinHandle<Result<(), rusqlite::Error>>>>,
}

impl WriterThread {
    /// Starts the thread.
    pub(super) fn start(connection: WriteConnection) -> std::io::Result<Self> {
        let runtime = RuntimeBuilder::new_current_thread().enable_time().build()?;
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let counters = Arc::new(WriterCounters::default());
        let shared = Arc::clone(&counters);
        let thread = Builder::new()
            .name("store-writer".into())
            .spawn(move || write(connection, receiver, &runtime, &shared))?;
        Ok(Self {
            jobs: Mutex::new(Some(sender)),
            counters,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Has `work` done durably and returns what came of it. When the future is dropped, it may be done all the same.
    pub(super) async fn execute<W: WriteJob>(&self, work: W) -> Result<W::Output, StoreError> {
        let closed = || StoreError::new(W::VERB, "the store is closed");
        let (answer, answered) = oneshot::channel();
        let jobs = lock(&self.jobs).clone();
        let job = PendingJob {
            work,
            outcome: None,
            answer,
        };
        jobs.ok_or_else(closed)?
            .send(Box::new(job))
            .await
            .map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// Lets the thread finish what is queued and waits for its end.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        drop(lock(&self.jobs).take());
        let thread = lock(&self.thread).take();
        let Some(thread) = thread else { return Ok(()) };
        match thread.join() {
            Ok(end) => end.map_err(|error| StoreError::new("close", error)),
            Err(_) => Err(StoreError::new("close", "the writer panicked")),
        }
    }

    /// Whether the last transaction was written, and not longer ago than `age`.
    pub(super) fn wrote_within(&self, age: Duration) -> bool {
        let written = lock(&self.counters.written);
        written.is_some_and(|at| at.elapsed() <= age)
    }

    /// What was done so far.
    pub(super) fn counts(&self) -> WriterCounts {
        WriterCounts {
            transactions: self.counters.transactions.load(Ordering::Relaxed),
            jobs: self.counters.jobs.load(Ordering::Relaxed),
            failures: self.counters.failures.load(Ordering::Relaxed),
        }
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the store did not close cleanly; the next start recovers it");
        }
    }
}

impl fmt::Debug for WriterThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriterThread")
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

/// The thread: runs until the last sender is gone and the queue is empty.
fn write(
    mut connection: WriteConnection,
    mut queue: mpsc::Receiver<Box<dyn QueuedJob>>,
    runtime: &Runtime,
    counters: &WriterCounters,
) -> rusqlite::Result<()> {
    let outage = Outage::new();
    loop {
        let mut jobs = match next(&mut queue, runtime, connection.due()) {
            Next::Job(job) => gather(job, &mut queue),
            Next::Due => Vec::new(),
            Next::End => return connection.close(),
        };
        let outcome = connection.commit(&mut jobs);
        let counter = if outcome.is_ok() {
            &counters.transactions
        } else {
            &counters.failures
        };
        counter.fetch_add(1, Ordering::Relaxed);
        *lock(&counters.written) = outcome.is_ok().then(Instant::now);
        counters
            .jobs
            .fetch_add(jobs.len() as u64, Ordering::Relaxed);
        match outcome {
            Ok(()) => {
                if let Some(past) = outage.ends() {
                    let (failures, seconds) = (past.failures, past.lasted.as_secs());
                    tracing::info!(failures, seconds, "the store can write again");
                }
                jobs.into_iter().for_each(|job| job.answer(None));
            }
            Err(error) => {
                let reason = error.to_string();
                if outage.begins() {
                    tracing::error!(%error, "the store cannot write: nothing is acknowledged until it can");
                }
                jobs.into_iter().for_each(|job| job.answer(Some(&reason)));
            }
        }
        connection.checkpoint_if_due();
    }
}

/// What the thread does next.
enum Next {
    Job(Box<dyn QueuedJob>),
    /// The connection wants a transaction of its own.
    Due,
    End,
}

fn next(
    queue: &mut mpsc::Receiver<Box<dyn QueuedJob>>,
    runtime: &Runtime,
    due: Option<Instant>,
) -> Next {
    let job = match due {
        None => queue.blocking_recv(),
        Some(due) => {
            let wait = async { tokio::time::timeout_at(due.into(), queue.recv()).await };
            match runtime.block_on(wait) {
                Ok(job) => job,
                Err(_) => return Next::Due,
            }
        }
    };
    job.map_or(Next::End, Next::Job)
}

/// Takes what else is queued, as much as one transaction should carry.
fn gather(
    first: Box<dyn QueuedJob>,
    queue: &mut mpsc::Receiver<Box<dyn QueuedJob>>,
) -> Vec<Box<dyn QueuedJob>> {
    let mut weight = first.weight();
    let mut jobs = vec![first];
    while weight < WEIGHT_MAX
        && let Ok(job) = queue.try_recv()
    {
        weight += job.weight();
        jobs.push(job);
    }
    jobs
}

/// Some [`WriteJob`] and where its outcome goes.
pub(super) trait QueuedJob: Send {
    fn weight(&self) -> usize;

    /// Does the work and keeps its outcome.
    fn run(&mut self, connection: &mut WriteConnection) -> rusqlite::Result<()>;

    /// Answers: with the outcome, or with why the transaction came to nothing.
    fn answer(self: Box<Self>, failure: Option<&str>);
}

struct PendingJob<W: WriteJob> {
    work: W,
    /// What came of its last run; on an error, of this work alone and not of the whole transaction.
    outcome: Option<rusqlite::Result<W::Output>>,
    answer: oneshot::Sender<Result<W::Output, StoreError>>,
}

impl<W: WriteJob> QueuedJob for PendingJob<W> {
    fn weight(&self) -> usize {
        self.work.weight()
    }

    fn run(&mut self, connection: &mut WriteConnection) -> rusqlite::Result<()> {
        self.outcome = Some(connection.isolated(|connection| self.work.run(connection))?);
        Ok(())
    }

    fn answer(self: Box<Self>, failure: Option<&str>) {
        let answer = match (failure, self.outcome) {
            (None, Some(outcome)) => outcome.map_err(|error| StoreError::new(W::VERB, error)),
            (failure, _) => Err(StoreError::new(
                W::VERB,
                failure.unwrap_or("it was not run"),
            )),
        };
        // Whoever asked may have gone away.
        let _ = self.answer.send(answer);
    }
}
