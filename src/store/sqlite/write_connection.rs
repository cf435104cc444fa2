//! The connection: the one connection that writes, and its transactions.

use std::sync::Arc;
use std::time::Instant;

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::checkpoint::Checkpointer;
use super::data_dir::{AccessMode, DataDir, DataDirLock};
use super::history::HistoryFile;
use super::updated_at_queue::UpdatedAtQueue;
use super::writer::QueuedJob;
use crate::id::DocId;
use crate::log::{Epoch, Fence, Revision};
use crate::store::bounded_cache::BoundedCache;
use crate::store::change_feed::{ChangeFeed, FeedChange};

/// How many documents' numbers are cached. Beyond that the least recently used one is dropped.
const NUMBERS_MAX: usize = 100_000;

/// The connection that writes. It belongs to the writer's thread.
#[derive(Debug)]
pub(super) struct WriteConnection {
    /// For opening the database anew.
    folder: DataDir,
    /// Held to the end: the last that is let go.
    lock: DataDirLock,
    db: Connection,
    numbers: BoundedCache<DocId, i64>,
    /// The documents whose time of the last edit the table does not tell yet.
    touches: UpdatedAtQueue,
    history_file: HistoryFile,
    /// The changes of the open transaction.
    changes: Vec<(DocId, FeedChange)>,
    feed: Arc<ChangeFeed>,
    isolation: BatchIsolation,
    /// The most pages that the database may have.
    pages_max: u32,
    checkpointer: Checkpointer,
}

/// How the jobs of a transaction share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BatchIsolation {
    /// A data error ends the transaction for all. Costs nothing, and data errors are bugs.
    Shared,
    /// A data error undoes what is guarded, and the others go on.
    PerJob,
}

impl WriteConnection {
    /// Takes over the open database.
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
            touches: UpdatedAtQueue::default(),
            history_file,
            changes: Vec::new(),
            feed,
            isolation: BatchIsolation::Shared,
            pages_max: u32::MAX - 1,
            checkpointer,
        })
    }

    /// Bounds the database's size in bytes from now on. It does not shrink what is there.
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
        // It answers with what it is now, which is never less than what the database has.
        self.db.query_row(
            &format!("PRAGMA max_page_count = {}", self.pages_max),
            [],
            |_| Ok(()),
        )
    }

    /// Does all of `jobs` in one durable transaction. After an error nothing of them may be acknowledged.
    pub(super) fn commit(&mut self, jobs: &mut [Box<dyn QueuedJob>]) -> rusqlite::Result<()> {
        match self.attempt(jobs, BatchIsolation::Shared) {
            Err(error) if is_about_the_data(&error) => self.attempt(jobs, BatchIsolation::PerJob),
            outcome => outcome,
        }
    }

    /// When the connection wants a transaction of its own, without a job.
    pub(super) fn due(&self) -> Option<Instant> {
        self.touches.due()
    }

    /// What is done between transactions, when everybody has been answered.
    pub(super) fn checkpoint_if_due(&mut self) {
        self.checkpointer.checkpoint_if_due(&self.db);
    }

    /// Writes what was put off, moves the write-ahead log into the database and closes it.
    pub(super) fn close(mut self) -> rusqlite::Result<()> {
        self.touches.flush_now(Instant::now());
        let mut touched = Ok(());
        while touched.is_ok() && !self.touches.is_empty() {
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
        let done = self.work(jobs, now);
        match done {
            Ok(written) => {
                self.touches.committed(written, now);
                if written > 0 {
                    self.history_file.update(&self.db);
                }
                self.feed.record(self.changes.drain(..));
            }
            Err(_) => self.roll_back(now),
        }
        done.map(drop)
    }

    /// The transaction. Returns how many touches it has written.
    fn work(&mut self, jobs: &mut [Box<dyn QueuedJob>], now: Instant) -> rusqlite::Result<usize> {
        self.execute("BEGIN IMMEDIATE")?;
        for job in jobs {
            job.run(self)?;
        }
        let written = self.touches.write(&self.db, now)?;
        if written > 0 {
            self.execute("UPDATE history SET writes = writes + 1")?;
        }
        self.execute("COMMIT")?;
        Ok(written)
    }

    /// Forgets the transaction and what was learned in it.
    fn roll_back(&mut self, now: Instant) {
        self.numbers.clear();
        self.touches.rolled_back(now);
        self.changes.clear();
        // What an error of the disk during a commit has left there is unknown.
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
            // The next transaction fails at its beginning and comes here again.
            tracing::error!(%error, "cannot open the store's database anew");
        }
    }

    /// Does `run` so that an error which is about its data, and not about the store, can be undone alone: it is then
    /// the inner result. All other errors end the transaction.
    pub(super) fn isolated<T>(
        &mut self,
        run: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<rusqlite::Result<T>> {
        if self.isolation == BatchIsolation::Shared {
            return run(self).map(Ok);
        }
        self.execute("SAVEPOINT apart")?;
        let (staged, changes) = (self.touches.staged(), self.changes.len());
        match run(self) {
            Err(error) if is_about_the_data(&error) => {
                self.execute("ROLLBACK TO apart")?;
                self.execute("RELEASE apart")?;
                self.numbers.clear();
                self.touches.truncate(staged);
                self.changes.truncate(changes);
                Ok(Err(error))
            }
            outcome => {
                let outcome = outcome?;
                self.execute("RELEASE apart")?;
                Ok(Ok(outcome))
            }
        }
    }

    /// The connection, within the open transaction.
    pub(super) fn db(&self) -> &Connection {
        &self.db
    }

    /// Remembers that a document was edited, for the list.
    pub(super) fn stage_updated_at(&mut self, number: i64, at_ms: u64) {
        self.touches.stage(number, at_ms);
    }

    /// Adds a change of a document to the feed, once the open transaction is durable.
    pub(super) fn record_change(&mut self, doc: &DocId, change: FeedChange) {
        self.changes.push((doc.clone(), change));
    }

    /// The document's number, if a claim has made it known.
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

    /// Remembers a document's number.
    pub(super) fn cache_number(&mut self, doc: &DocId, number: i64) {
        self.numbers.put(doc.clone(), number);
    }

    /// The document's number if `fence` is the newest claim's.
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

/// The document's number, if a claim has made it known.
pub(super) fn number(db: &Connection, doc: &DocId) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT number FROM documents WHERE collection = ?1 AND id = ?2")?
        .query_row([doc.collection.as_str(), doc.id.as_str()], |row| row.get(0))
        .optional()
}

/// How many entries the document's log holds.
pub(super) fn head(db: &Connection, number: i64) -> rusqlite::Result<Revision> {
    let newest: Option<i64> = db
        .prepare_cached("SELECT max(revision) FROM entries WHERE doc = ?1")?
        .query_row([number], |row| row.get(0))?;
    Ok(Revision(newest.unwrap_or(0).cast_unsigned()))
}

/// Whether an error is the fault of what was to be written. It would come again, and whoever shares the transaction
/// has no part in it.
fn is_about_the_data(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::ToSqlConversionFailure(_) => true,
        _ => matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch)
        ),
    }
}
