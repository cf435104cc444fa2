//! The embedded store: SQLite in a data folder. One thread writes; a few connections read beside it.

mod access;
mod checkpoint;
mod data_dir;
mod documents;
mod error;
mod faults;
mod history;
mod jobs;
mod list;
mod load;
mod updated_at_queue;
mod verify;
mod write_connection;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, params};
use serde::Deserialize;
use tokio::sync::Semaphore;

use self::data_dir::{AccessMode, DataDir};
use self::error::SqliteError;
pub use self::faults::SqliteFaults;
use self::history::{HistoryFile, RenewHistoryJob};
use self::jobs::{
    AheadOfTheLog, AppendJob, CheckWritesJob, ClaimJob, LimitSizeJob, RenameJob, RestoreFenceJob,
    SaveSnapshotJob,
};
use self::verify::SqliteRows;
use self::write_connection::WriteConnection;
pub use self::writer::WriterCounts;
use self::writer::WriterThread;
use super::change_feed::ChangeFeed;
use super::damage::ReportedSnapshots;
use super::snapshot_codec::{Packing, pack};
use super::verify::{verify, verify_document};
use super::{
    AppendError, Batch, ChangeCursor, Changes, DocumentChanges, DocumentLocation, Heartbeat,
    HeartbeatReply, History, Lease, ListPage, ListQuery, ListedDocument, LoadRange, Loaded,
    MigrationStatus, OpenDocuments, Store, StoreError, StoreMetrics, VerifyEvent, VerifyRange,
    VerifyTotals,
};
use crate::id::{DocId, NodeId};
use crate::log::{Fence, Revision, Snapshot};
use crate::sync::lock;

/// Settings of the embedded store.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SqliteSettings {
    /// The data folder. It is created if it does not exist, and serves one process at a time.
    pub folder: PathBuf,
    /// The largest size of the database in MiB; 0: no limit. When it is reached, writes fail and reads go on.
    pub size_max_mib: u64,
    /// How many reads may run at once; further reads wait.
    pub readers: usize,
}

impl Default for SqliteSettings {
    fn default() -> Self {
        Self {
            folder: "data".into(),
            size_max_mib: 0,
            readers: 4,
        }
    }
}

/// A store in a data folder. Its methods need a tokio runtime: reads run on its blocking threads.
///
/// When dropped, it blocks until the queued writes are done; [`SqliteStore::close`] waits without blocking.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Arc<WriterThread>,
    readers: ReadPool,
    feed: Arc<ChangeFeed>,
    secret: [u8; 32],
    /// The damaged snapshots that were logged.
    reported: Arc<ReportedSnapshots>,
}

impl SqliteStore {
    /// Opens the data folder and applies pending migrations to its database. Blocks on the disk.
    ///
    /// # Errors
    /// If another process uses the folder, it cannot be written, or its database is of another program, damaged or newer.
    pub fn open(settings: &SqliteSettings) -> Result<Self, StoreError> {
        Self::open_measured(settings, StoreMetrics::default())
    }

    /// The same, with the metrics that the store measures into.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_measured(
        settings: &SqliteSettings,
        metrics: StoreMetrics,
    ) -> Result<Self, StoreError> {
        let error = |error: rusqlite::Error| StoreError::new("open", error);
        let (folder, lock) = DataDir::lock(&settings.folder)?;
        let db = folder.open()?;
        documents::report_orphans(&db).map_err(error)?;
        let secret = secret(&db)?;
        let history_file = HistoryFile::compare(&folder, &db)?;
        let feed = Arc::<ChangeFeed>::default();
        let mut connection =
            WriteConnection::new(folder.clone(), lock, db, history_file, Arc::clone(&feed))
                .map_err(error)?;
        if settings.size_max_mib > 0 {
            connection
                .limit(settings.size_max_mib.saturating_mul(1 << 20))
                .map_err(error)?;
        }
        let writer = WriterThread::start(connection, metrics)
            .map_err(|error| StoreError::new("open", error))?;
        Ok(Self {
            writer: Arc::new(writer),
            readers: ReadPool::new(folder, settings.readers.max(1)),
            feed,
            secret,
            reported: Arc::default(),
        })
    }

    /// The migrations that were applied to the database of a folder. Changes nothing; a server may be using the folder.
    ///
    /// # Errors
    /// If there is no database, it cannot be read, or it is newer than this program can use.
    pub fn migration_status(folder: &Path) -> Result<MigrationStatus, StoreError> {
        DataDir::status(folder)
    }

    /// Where a document of a folder is; `None` if it was never claimed. Changes nothing; a server may be using the
    /// folder.
    ///
    /// # Errors
    /// If there is no database, or it cannot be read.
    pub fn locate(folder: &Path, doc: &DocId) -> Result<Option<DocumentLocation>, StoreError> {
        let db = DataDir::open_read_only(folder)?;
        documents::locate(&db, doc).map_err(|error| error.into_store_error("locate"))
    }

    /// Verifies the database of a folder without changing it. A server may be using it. Blocks on the disk.
    ///
    /// # Errors
    /// If there is no database, or it cannot be read to its end.
    pub async fn verify(
        folder: &Path,
        range: VerifyRange,
        report: &mut (dyn FnMut(VerifyEvent) + Send),
    ) -> Result<VerifyTotals, StoreError> {
        let mut rows = SqliteRows(DataDir::open_read_only(folder)?);
        verify(&mut rows, range, report).await
    }

    /// Verifies one document of a folder without changing it, and returns its faults. Blocks on the disk.
    ///
    /// # Errors
    /// If there is no database, or it cannot be read to its end.
    pub async fn verify_document(folder: &Path, doc: &DocId) -> Result<Vec<String>, StoreError> {
        let mut rows = SqliteRows(DataDir::open_read_only(folder)?);
        verify_document(&mut rows, doc).await
    }

    /// Limits the database's size in bytes from now on. See [`SqliteSettings::size_max_mib`].
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn limit_size(&self, bytes: u64) -> Result<(), StoreError> {
        self.writer.execute(LimitSizeJob(bytes)).await
    }

    /// What was written so far, for metrics.
    #[must_use]
    pub fn counts(&self) -> WriterCounts {
        self.writer.counts()
    }

    /// Completes the queued writes, moves the write-ahead log into the database file and unlocks the folder. Later
    /// calls fail.
    ///
    /// # Errors
    /// If the queued writes could not be completed. What was acknowledged is durable nevertheless.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.readers.close();
        let writer = Arc::clone(&self.writer);
        let closed = tokio::task::spawn_blocking(move || writer.close()).await;
        closed.map_err(|error| StoreError::new("close", error))?
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // Before the writer: the last connection that is closed moves the write-ahead log into the database.
        self.readers.close();
    }
}

impl Store for SqliteStore {
    fn load<'a>(
        &'a self,
        doc: &'a DocId,
        range: LoadRange,
    ) -> BoxFuture<'a, Result<Loaded, StoreError>> {
        let (doc, reported) = (doc.clone(), Arc::clone(&self.reported));
        self.readers
            .read("load", move |db| load::load(db, &doc, range, &reported))
            .boxed()
    }

    fn claim<'a>(&'a self, doc: &'a DocId, _: NodeId) -> BoxFuture<'a, Result<Lease, StoreError>> {
        async {
            let token = u128::from_be_bytes(random("claim")?);
            let job = ClaimJob {
                doc: doc.clone(),
                token,
            };
            self.writer.execute(job).await?.map_err(|damage| {
                damage.report(doc);
                damage.into_store_error("claim", doc)
            })
        }
        .boxed()
    }

    fn append(
        &self,
        batches: Vec<Batch>,
    ) -> BoxFuture<'_, Result<Vec<Result<(), AppendError>>, StoreError>> {
        async { self.writer.execute(AppendJob::new(batches)).await }.boxed()
    }

    fn save_snapshot<'a>(
        &'a self,
        doc: &'a DocId,
        fence: Fence,
        snapshot: Snapshot,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let revision = snapshot.revision;
            // Packing a large document takes long.
            let packed = tokio::task::spawn_blocking(move || pack(&snapshot, Packing::Zstd)).await;
            let packed = packed.map_err(|error| StoreError::new("save snapshot", error))?;
            let saved = self.writer.execute(SaveSnapshotJob {
                doc: doc.clone(),
                fence,
                revision,
                packed,
            });
            saved.await?.map_err(|AheadOfTheLog| {
                StoreError::new(
                    "save snapshot",
                    format!("{doc}: the log ends before {revision}"),
                )
            })
        }
        .boxed()
    }

    fn heartbeat<'a>(
        &'a self,
        beat: &'a Heartbeat,
    ) -> BoxFuture<'a, Result<HeartbeatReply, StoreError>> {
        // The folder is locked, so there is no other node.
        let nodes = beat.takes_part.then_some(beat.me).into_iter().collect();
        async {
            Ok(HeartbeatReply {
                nodes,
                others: Vec::new(),
                store_ms: None,
                history: self.history().await?,
                // A database that is open cannot be replaced by another process.
                place: "".into(),
                addresses: Vec::new(),
            })
        }
        .boxed()
    }

    fn changes<'a>(
        &'a self,
        since: Option<&'a ChangeCursor>,
    ) -> BoxFuture<'a, Result<Changes, StoreError>> {
        async move { Ok(self.feed.since(since)) }.boxed()
    }

    fn compare_open<'a>(
        &'a self,
        open: &'a OpenDocuments,
    ) -> BoxFuture<'a, Result<DocumentChanges, StoreError>> {
        let open = open.clone();
        self.readers
            .read("compare open documents", move |db| {
                documents::compare_open(db, &open)
            })
            .boxed()
    }

    fn list<'a>(&'a self, query: ListQuery) -> BoxFuture<'a, Result<ListPage, StoreError>> {
        self.readers
            .read("list", move |db| list::list(db, &query))
            .boxed()
    }

    fn describe<'a>(
        &'a self,
        doc: &'a DocId,
    ) -> BoxFuture<'a, Result<Option<ListedDocument>, StoreError>> {
        let doc = doc.clone();
        self.readers
            .read("describe", move |db| list::describe(db, &doc))
            .boxed()
    }

    fn rename<'a>(
        &'a self,
        doc: &'a DocId,
        title: &'a str,
        was: Option<&'a str>,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.writer
            .execute(RenameJob {
                doc: doc.clone(),
                title: title.to_owned(),
                was: was.map(str::to_owned),
            })
            .boxed()
    }

    fn check_writes(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async {
            if self.writer.wrote_within(WRITTEN_LATELY) {
                return Ok(());
            }
            self.writer.execute(CheckWritesJob).await
        }
        .boxed()
    }

    fn history(&self) -> BoxFuture<'_, Result<History, StoreError>> {
        self.readers
            .read("history", |db| Ok(history::read(db)?))
            .boxed()
    }

    fn renew_history(
        &self,
        known: History,
        next: History,
    ) -> BoxFuture<'_, Result<History, StoreError>> {
        async move {
            self.writer.execute(RenewHistoryJob { known, next }).await?;
            self.history().await
        }
        .boxed()
    }

    fn fingerprints<'a>(
        &'a self,
        entries: &'a [(DocId, Revision)],
    ) -> BoxFuture<'a, Result<Vec<Option<u64>>, StoreError>> {
        let entries = entries.to_vec();
        self.readers
            .read("fingerprints", move |db| {
                Ok(history::fingerprints(db, &entries)?)
            })
            .boxed()
    }

    fn highest_revision<'a>(
        &'a self,
        doc: &'a DocId,
    ) -> BoxFuture<'a, Result<Revision, StoreError>> {
        let doc = doc.clone();
        self.readers
            .read("highest revision", move |db| {
                documents::highest_revision(db, &doc)
            })
            .boxed()
    }

    fn restore_fence<'a>(&'a self, doc: &'a DocId) -> BoxFuture<'a, Result<bool, StoreError>> {
        async {
            let token = u128::from_be_bytes(random("restore fence")?);
            let doc = doc.clone();
            self.writer.execute(RestoreFenceJob { doc, token }).await
        }
        .boxed()
    }

    fn secret(&self) -> BoxFuture<'_, Result<[u8; 32], StoreError>> {
        async { Ok(self.secret) }.boxed()
    }
}

/// How long a committed transaction proves that the next one can be committed.
const WRITTEN_LATELY: Duration = Duration::from_secs(5);

/// The connections that read. They are opened when they are needed.
struct ReadPool {
    folder: DataDir,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl ReadPool {
    fn new(folder: DataDir, max: usize) -> Self {
        Self {
            folder,
            idle: Arc::default(),
            permits: Arc::new(Semaphore::new(max)),
        }
    }

    /// Runs `read` in one read transaction on a blocking thread. If all connections are busy, it waits for one.
    async fn read<T: Send + 'static>(
        &self,
        verb: &'static str,
        read: impl FnOnce(&Connection) -> Result<T, SqliteError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let closed = |_| StoreError::new(verb, "the store is closed");
        // Released with the work: if the caller drops the future, the permit is not free before the read is done.
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(closed)?;
        let (folder, idle) = (self.folder.clone(), Arc::clone(&self.idle));
        let work = move || {
            let pooled = lock(&idle).pop();
            let mut db = pooled.map_or_else(|| folder.connect(AccessMode::Read), Ok)?;
            let transaction = db.transaction()?;
            let answer = read(&transaction)?;
            transaction.finish()?;
            if !permit.semaphore().is_closed() {
                lock(&idle).push(db);
            }
            drop(permit);
            Ok::<T, SqliteError>(answer)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(answer) => answer.map_err(|error| error.into_store_error(verb)),
            Err(error) => Err(StoreError::new(verb, error)),
        }
    }

    fn close(&self) {
        self.permits.close();
        lock(&self.idle).clear();
    }
}

impl fmt::Debug for ReadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadPool")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// The secret of this store, created if there is none.
fn secret(db: &Connection) -> Result<[u8; 32], StoreError> {
    let error = |error| StoreError::new("open", error);
    db.execute(
        "INSERT OR IGNORE INTO secrets (name, value) VALUES ('shared', ?1)",
        params![random::<32>("open")?],
    )
    .map_err(error)?;
    let secret = db
        .query_row(
            "SELECT value FROM secrets WHERE name = 'shared'",
            [],
            |row| row.get(0),
        )
        .optional()
        .map_err(error)?;
    secret.ok_or_else(|| StoreError::new("open", "the secret cannot be stored"))
}

/// Random bytes from the operating system.
fn random<const BYTES: usize>(verb: &'static str) -> Result<[u8; BYTES], StoreError> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::new(verb, error))?;
    Ok(bytes)
}
