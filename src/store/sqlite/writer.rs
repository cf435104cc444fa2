//! The writer thread: runs jobs on the one connection that writes, many in one transaction.
//!
//! While a transaction is being committed, further jobs gather in the queue; they become the next transaction. There is
//! no timer: an idle store commits each job at once, and under load a transaction has as many jobs as arrive during a
//! commit.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder as RuntimeBuilder, Runtime};
use tokio::sync::{mpsc, oneshot};

use super::write_connection::WriteConnection;
use crate::metrics::set_gauge;
use crate::outage::Outage;
use crate::store::{StoreError, StoreMetrics};
use crate::sync::lock;

/// How many jobs may wait. While the queue is full, callers wait.
const QUEUE_MAX: usize = 1_024;

/// A transaction takes no more jobs once they write this many bytes. This bounds the wait for the jobs in it.
const BYTES_MAX: usize = 256 << 10;

/// A job of the writer thread, run within a transaction. It is run again if the transaction was rolled back.
pub(super) trait WriteJob: Send + 'static {
    /// What the caller gets.
    type Output: Send + 'static;

    /// What the job does, for error messages.
    const VERB: &'static str;

    /// About how many bytes it writes.
    fn bytes(&self) -> usize {
        200
    }

    /// Runs within the connection's open transaction.
    fn run(&self, connection: &mut WriteConnection) -> rusqlite::Result<Self::Output>;
}

/// What the writer thread has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriterCounts {
    /// Transactions that were committed.
    pub transactions: u64,
    /// Jobs: appends, claims, snapshots, renames.
    pub jobs: u64,
    /// Transactions that failed. None of their jobs was acknowledged.
    pub failures: u64,
}

#[derive(Debug, Default)]
struct WriterCounters {
    transactions: AtomicU64,
    jobs: AtomicU64,
    failures: AtomicU64,
    /// When the last transaction was committed; `None` if it failed.
    written: Mutex<Option<Instant>>,
}

/// The handle of the writer thread. When it is closed or dropped, it waits until the thread has run the jobs in the
/// queue.
pub(super) struct WriterThread {
    /// `None` once it is closed.
    jobs: Mutex<Option<mpsc::Sender<Box<dyn QueuedJob>>>>,
    counters: Arc<WriterCounters>,
    thread: Mutex<Option<JoinHandle<Result<(), rusqlite::Error>>>>,
}

impl WriterThread {
    /// Starts the thread.
    pub(super) fn start(
        connection: WriteConnection,
        metrics: StoreMetrics,
    ) -> std::io::Result<Self> {
        let runtime = RuntimeBuilder::new_current_thread().enable_time().build()?;
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let counters = Arc::new(WriterCounters::default());
        let shared = Arc::clone(&counters);
        let thread = Builder::new()
            .name("store-writer".into())
            .spawn(move || write(connection, receiver, &runtime, (&shared, &metrics)))?;
        Ok(Self {
            jobs: Mutex::new(Some(sender)),
            counters,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Runs a job durably and returns its result. If the future is dropped, the job may run nevertheless.
    pub(super) async fn execute<W: WriteJob>(&self, job: W) -> Result<W::Output, StoreError> {
        let closed = || StoreError::new(W::VERB, "the store is closed");
        let (answer, answered) = oneshot::channel();
        let jobs = lock(&self.jobs).clone();
        let job = PendingJob {
            job,
            outcome: None,
            answer,
        };
        jobs.ok_or_else(closed)?
            .send(Box::new(job))
            .await
            .map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// Waits until the thread has run the jobs in the queue and has ended.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        drop(lock(&self.jobs).take());
        let thread = lock(&self.thread).take();
        let Some(thread) = thread else { return Ok(()) };
        match thread.join() {
            Ok(end) => end.map_err(|error| StoreError::new("close", error)),
            Err(_) => Err(StoreError::new("close", "the writer panicked")),
        }
    }

    /// Returns true if the last transaction succeeded, at most `age` ago.
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
            tracing::error!(%error, "the database was not closed cleanly: the next start recovers it");
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

/// The thread. It runs until all senders are dropped and the queue is empty.
fn write(
    mut connection: WriteConnection,
    mut queue: mpsc::Receiver<Box<dyn QueuedJob>>,
    runtime: &Runtime,
    (counters, metrics): (&WriterCounters, &StoreMetrics),
) -> rusqlite::Result<()> {
    let outage = Outage::new();
    loop {
        let mut jobs = match next(&mut queue, runtime, connection.due()) {
            Next::Job(job) => gather(job, &mut queue),
            Next::Due => Vec::new(),
            Next::End => return connection.close(),
        };
        set_gauge(&metrics.store_queued_jobs, queue.len());
        let begun = Instant::now();
        let outcome = connection.commit(&mut jobs);
        metrics.transaction_ended(jobs.len(), begun.elapsed(), &outcome);
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
    /// Commits without a job: the connection has staged updates that are due.
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

/// Takes further jobs from the queue, up to the size of one transaction.
fn gather(
    first: Box<dyn QueuedJob>,
    queue: &mut mpsc::Receiver<Box<dyn QueuedJob>>,
) -> Vec<Box<dyn QueuedJob>> {
    let mut bytes = first.bytes();
    let mut jobs = vec![first];
    while bytes < BYTES_MAX
        && let Ok(job) = queue.try_recv()
    {
        bytes += job.bytes();
        jobs.push(job);
    }
    jobs
}

/// A [`WriteJob`] with the channel for its result.
pub(super) trait QueuedJob: Send {
    fn bytes(&self) -> usize;

    /// Runs the job and stores its result.
    fn run(&mut self, connection: &mut WriteConnection) -> rusqlite::Result<()>;

    /// Sends the result, or the reason why the transaction failed.
    fn answer(self: Box<Self>, failure: Option<&str>);
}

struct PendingJob<W: WriteJob> {
    job: W,
    /// The result of the last run. An error concerns this job and not the whole transaction.
    outcome: Option<rusqlite::Result<W::Output>>,
    answer: oneshot::Sender<Result<W::Output, StoreError>>,
}

impl<W: WriteJob> QueuedJob for PendingJob<W> {
    fn bytes(&self) -> usize {
        self.job.bytes()
    }

    fn run(&mut self, connection: &mut WriteConnection) -> rusqlite::Result<()> {
        self.outcome = Some(connection.isolated(|connection| self.job.run(connection))?);
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
        // The caller may have dropped the receiver.
        let _ = self.answer.send(answer);
    }
}
