//! The connection that writes, and its transactions.

use std::sync::Arc;
use std::time::Instant;

use rusqlite::{Connection, params};

use super::checkpoint::Checkpointer;
use super::data_dir::{AccessMode, DataDir, DataDirLock};
use super::documents::number;
use super::error::is_data_error;
use super::history::HistoryFile;
use super::updated_at_queue::UpdatedAtQueue;
use super::writer::QueuedJob;
use crate::id::DocId;
use crate::log::{Epoch, Fence};
use crate::store::bounded_cache::BoundedCache;
use crate::store::change_feed::{ChangeFeed, FeedChange};

/// How many documents' numbers are cached. Beyond that the least recently used one is dropped.
const NUMBERS_MAX: usize = 100_000;

/// The only connection that writes, used by the writer thread.
#[derive(Debug)]
pub(super) struct WriteConnection {
    /// For reconnecting after a failed rollback.
    folder: DataDir,
    /// Released last, when the connection is closed.
    lock: DataDirLock,
    db: Connection,
    numbers: BoundedCache<DocId, i64>,
    /// The values of `updated_at_ms` that are not written yet.
    updated_at: UpdatedAtQueue,
    history_file: HistoryFile,
    /// The changes of the open transaction, for the feed.
    changes: Vec<(DocId, FeedChange)>,
    feed: Arc<ChangeFeed>,
    isolation: BatchIsolation,
    /// The largest number of pages of the database.
    pages_max: u32,
    checkpointer: Checkpointer,
}

/// How the jobs of a transaction are isolated from each other's data errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BatchIsolation {
    /// They are not: a data error rolls back the transaction. This costs nothing, and data errors are rare.
    Shared,
    /// Each job runs in a savepoint: a data error rolls back that job alone.
    PerJob,
}

impl WriteConnection {
    /// Takes over an open database.
    pub(super) fn new(
        folder: DataDir,
        lock: DataDirLock,
        db: Connection,
        history_file: HistoryFile,
        feed: Arc<ChangeFeed>,
    ) -> rusqlite::Result<Self> {
        let checkpointer = Checkpointer::start(folder.connect(AccessMode::Write)?);
        Ok(Self {
            folder,
            lock,
            db,
            numbers: BoundedCache::new(NUMBERS_MAX),
            updated_at: UpdatedAtQueue::default(),
            history_file,
            changes: Vec::new(),
            feed,
            isolation: BatchIsolation::Shared,
            pages_max: u32::MAX - 1,
            checkpointer,
        })
    }

    /// Limits the database's size, in bytes. It does not shrink an existing database.
    pub(super) fn limit(&mut self, bytes: u64) -> rusqlite::Result<()> {
        let page: u64 = self
            .db
            .query_row("PRAGMA page_size", [], |row| row.get::<_, i64>(0))?
            .cast_unsigned();
        self.pages_max = u32::try_from(bytes / page.max(1))
            .unwrap_or(u32::MAX - 1)
            .max(1);
        self.apply_limit()
    }

    fn apply_limit(&self) -> rusqlite::Result<()> {
        // The statement returns the limit that applies, which is at least the present size.
        self.db.query_row(
            &format!("PRAGMA max_page_count = {}", self.pages_max),
            [],
            |_| Ok(()),
        )
    }

    /// Runs the jobs in one durable transaction. After an error, none of them may be acknowledged.
    pub(super) fn commit(&mut self, jobs: &mut [Box<dyn QueuedJob>]) -> rusqlite::Result<()> {
        match self.attempt(jobs, BatchIsolation::Shared) {
            Err(error) if is_data_error(&error) => self.attempt(jobs, BatchIsolation::PerJob),
            outcome => outcome,
        }
    }

    /// When staged updates are due, which need a transaction also without a job.
    pub(super) fn due(&self) -> Option<Instant> {
        self.updated_at.due()
    }

    /// Starts or finishes a checkpoint if one is due. Called between transactions, after the callers were answered.
    pub(super) fn checkpoint_if_due(&mut self) {
        self.checkpointer.checkpoint_if_due(&self.db);
    }

    /// Writes the staged updates, moves the write-ahead log into the database and closes it.
    pub(super) fn close(mut self) -> rusqlite::Result<()> {
        self.updated_at.flush_now(Instant::now());
        let mut touched = Ok(());
        while touched.is_ok() && !self.updated_at.is_empty() {
            touched = self.commit(&mut []);
        }
        self.history_file.update(&self.db);
        self.checkpointer.stop();
        let moved = self
            .db
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        let closed = self.db.close().map_err(|(_, error)| error);
        drop(self.lock);
        touched.and(moved).and(closed)
    }

    fn attempt(
        &mut self,
        jobs: &mut [Box<dyn QueuedJob>],
        isolation: BatchIsolation,
    ) -> rusqlite::Result<()> {
        self.isolation = isolation;
        let now = Instant::now();
        let done = self.transact(jobs, now);
        match done {
            Ok(written) => {
                self.updated_at.committed(written, now);
                if written > 0 {
                    self.history_file.update(&self.db);
                }
                self.feed.record(self.changes.drain(..));
            }
            Err(_) => self.roll_back(now),
        }
        done.map(drop)
    }

    /// Runs the transaction. Returns how many rows of `updated_at_ms` it has written.
    fn transact(
        &mut self,
        jobs: &mut [Box<dyn QueuedJob>],
        now: Instant,
    ) -> rusqlite::Result<usize> {
        self.execute("BEGIN IMMEDIATE")?;
        for job in jobs {
            job.run(self)?;
        }
        let written = self.updated_at.write(&self.db, now)?;
        if written > 0 {
            self.execute("UPDATE history SET writes = writes + 1")?;
        }
        self.execute("COMMIT")?;
        Ok(written)
    }

    /// Rolls back the transaction and drops what was cached or staged in it.
    fn roll_back(&mut self, now: Instant) {
        self.numbers.clear();
        self.updated_at.rolled_back(now);
        self.changes.clear();
        // A disk error during the commit leaves its outcome unknown.
        self.feed.interrupt();
        // Some errors, such as a full disk, have rolled back already.
        if self.db.is_autocommit() || self.execute("ROLLBACK").is_ok() {
            return;
        }
        let opened = self.folder.connect(AccessMode::Write).and_then(|db| {
            self.db = db;
            self.apply_limit()
        });
        if let Err(error) = opened {
            // The next transaction fails at its beginning and reconnects.
            tracing::error!(%error, "cannot reconnect to the database after a failed rollback: retrying with the next transaction");
        }
    }

    /// Runs `run` such that a data error rolls back only its changes; that error is the inner result. All other errors
    /// fail the transaction.
    pub(super) fn isolated<T>(
        &mut self,
        run: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<rusqlite::Result<T>> {
        if self.isolation == BatchIsolation::Shared {
            return run(self).map(Ok);
        }
        self.execute("SAVEPOINT job")?;
        let (staged, changes) = (self.updated_at.staged(), self.changes.len());
        match run(self) {
            Err(error) if is_data_error(&error) => {
                self.execute("ROLLBACK TO job")?;
                self.execute("RELEASE job")?;
                self.numbers.clear();
                self.updated_at.truncate(staged);
                self.changes.truncate(changes);
                Ok(Err(error))
            }
            outcome => {
                let outcome = outcome?;
                self.execute("RELEASE job")?;
                Ok(Ok(outcome))
            }
        }
    }

    /// The database, within the open transaction.
    pub(super) fn db(&self) -> &Connection {
        &self.db
    }

    /// Stages the time of a document's last edit for the list.
    pub(super) fn stage_updated_at(&mut self, number: i64, at_ms: u64) {
        self.updated_at.stage(number, at_ms);
    }

    /// Adds a change to the feed once the transaction is committed.
    pub(super) fn record_change(&mut self, doc: &DocId, change: FeedChange) {
        self.changes.push((doc.clone(), change));
    }

    /// The number of a document, from the cache if it is there; `None` if the document was never claimed.
    pub(super) fn number(&mut self, doc: &DocId) -> rusqlite::Result<Option<i64>> {
        if let Some(number) = self.numbers.get(doc) {
            return Ok(Some(*number));
        }
        let number = number(&self.db, doc)?;
        if let Some(number) = number {
            self.cache_number(doc, number);
        }
        Ok(number)
    }

    /// Adds the number of a document to the cache.
    pub(super) fn cache_number(&mut self, doc: &DocId, number: i64) {
        self.numbers.put(doc.clone(), number);
    }

    /// The number of a document if `fence` is the one of its newest claim; otherwise `None`.
    pub(super) fn fenced(&mut self, doc: &DocId, fence: Fence) -> rusqlite::Result<Option<i64>> {
        let Some(number) = self.number(doc)? else {
            return Ok(None);
        };
        let mut statement = self.db.prepare_cached(
            "SELECT 1 FROM documents WHERE number = ?1 AND epoch = ?2 AND token = ?3",
        )?;
        let Fence {
            epoch: Epoch(epoch),
            token,
        } = fence;
        let holds = statement.exists(params![number, epoch.cast_signed(), token.to_be_bytes()])?;
        Ok(holds.then_some(number))
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.db.prepare_cached(sql)?.execute([]).map(drop)
    }
}
