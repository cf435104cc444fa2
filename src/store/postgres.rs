//! The shared store: Postgres. Many nodes use one database, and the fence decides which of them may append.

mod access;
mod address;
mod append;
mod append_worker;
mod change_feed;
mod claim_queue;
mod connect;
mod damaged;
mod error;
mod faults;
mod heartbeat;
mod history;
mod list;
mod load;
mod locate;
mod lock_breaker;
mod migrate;
mod number_cache;
mod open_documents;
mod outages;
mod pool;
mod schema;
mod server_clock;
mod settings;
mod snapshots;
mod sockets;
mod title_index;
mod tls;
mod updated_at_queue;
mod verify;

use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::append_worker::AppendWorker;
use self::claim_queue::{ClaimQueue, Claimer};
use self::connect::{PostgresConnector, SessionPurpose};
use self::error::PostgresError;
use self::load::DocumentReader;
use self::number_cache::NumberCache;
use self::pool::Pool;
pub use self::settings::PostgresSettings;
use self::updated_at_queue::UpdatedAtQueue;
use self::verify::PostgresRows;
use super::metrics::PoolName;
use super::snapshot_codec::Packing;
use super::stored_entry::EncodedBatch;
use super::verify::{verify, verify_document};
use super::{
    AppendError, Batch, ChangeCursor, Changes, DocumentChanges, DocumentLocation, Heartbeat,
    HeartbeatReply, History, Lease, ListPage, ListQuery, ListedDocument, LiveNode, LoadRange,
    Loaded, MigrationPhase, MigrationStatus, OpenDocuments, Store, StoreError, StoreMetrics,
    VerifyEvent, VerifyRange, VerifyTotals,
};
use crate::id::{DocId, NodeId};
use crate::log::{Fence, Revision, Snapshot};
use crate::metrics::set_gauge;
use crate::sync::lock;
use crate::version::Capabilities;

/// How long a written heartbeat proves that Postgres accepts writes.
const BEAT_HOLDS: Duration = Duration::from_secs(1);

/// How long a close waits for queued writes.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// A store in a Postgres database. It has a fixed number of connections.
pub struct PostgresStore {
    /// A document always uses the same worker, so its appends run one after the other.
    append_workers: Vec<AppendWorker>,
    claims: ClaimQueue,
    /// For claims, heartbeats and updates of the list.
    urgent: Pool,
    /// For documents.
    reads: Pool,
    /// For the list of documents and the index over titles.
    lists: Pool,
    list_timeout: Duration,
    /// For accounts and permissions: loads of documents cannot delay a revocation.
    people: Pool,
    /// For reading revocations.
    watch: Pool,
    reader: DocumentReader,
    numbers: Arc<NumberCache>,
    updated_at: Arc<UpdatedAtQueue>,
    /// The task that writes `updated_at`.
    updated_at_task: JoinHandle<()>,
    /// The task that deletes old rows of the feed of changes.
    trimmer: JoinHandle<()>,
    /// The task that fills the index over titles.
    indexer: JoinHandle<()>,
    secret: [u8; 32],
    metrics: StoreMetrics,
    node_dead_after: Duration,
    /// The place that answered the last heartbeat.
    place: Mutex<Arc<str>>,
    /// When the last heartbeat was written.
    beat_at: Mutex<Option<Instant>>,
    /// Whether all nodes that were live at the last heartbeat can read snapshots that are compressed by zstd.
    all_read_zstd: AtomicBool,
}

impl PostgresStore {
    /// Connects the node `me` with the given name, and migrates the tables. Waits for a Postgres that is away.
    ///
    /// # Errors
    /// If Postgres stays away, rejects the connection or is too old, or its tables are newer than this program.
    pub async fn open(
        settings: &PostgresSettings,
        me: NodeId,
        name: &str,
    ) -> Result<Self, StoreError> {
        Self::open_measured(settings, me, name, StoreMetrics::default()).await
    }

    /// The same, with the metrics that the store measures into.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_measured(
        settings: &PostgresSettings,
        me: NodeId,
        name: &str,
        metrics: StoreMetrics,
    ) -> Result<Self, StoreError> {
        let connector =
            |url: &str, purpose| PostgresConnector::new(url, settings, (me, name), purpose);
        let pool = |name, connector, size| {
            Pool::new((name, metrics.clone()), connector, size, settings)
                .map_err(|error| error.into_store_error("open"))
        };
        let ms = Duration::from_millis;
        let claiming = connector(&settings.url, SessionPurpose::Claim)?;
        let reading = connector(&settings.url, SessionPurpose::Read)?;
        let appending = connector(&settings.url, SessionPurpose::Append)?;
        schema::prepare(&claiming, ms(settings.open_patience_ms)).await?;
        let claim_connections = settings.claim_connections.max(3);
        let urgent = pool(PoolName::Claim, claiming, claim_connections)?;
        let people = pool(
            PoolName::People,
            reading.clone(),
            settings.people_connections,
        )?;
        let watch = pool(PoolName::Revocations, reading.clone(), 1)?;
        let reads = pool(PoolName::Read, reading, settings.read_connections)?;
        let listing = connector(&settings.url, SessionPurpose::List)?;
        let lists = pool(PoolName::List, listing, settings.list_connections)?;
        let replica = match settings.replica_url.as_str() {
            "" => None,
            url => Some(pool(
                PoolName::Replica,
                connector(url, SessionPurpose::Past)?,
                settings.read_connections,
            )?),
        };
        let secret = secret(&urgent).await?;
        let node_dead_after = ms(settings.node_dead_after_ms);
        history::compare(&urgent, node_dead_after)
            .await
            .map_err(|error| error.into_store_error("open"))?;
        let (numbers, updated_at): (Arc<NumberCache>, Arc<UpdatedAtQueue>) = Default::default();
        let patience = ms(settings.statement_timeout_ms);
        let lane = |_| {
            let (numbers, updated_at) = (Arc::clone(&numbers), Arc::clone(&updated_at));
            let written = (numbers, updated_at);
            AppendWorker::start(appending.clone(), patience, written, metrics.clone())
        };
        Ok(Self {
            append_workers: (0..settings.append_connections.max(1)).map(lane).collect(),
            claims: ClaimQueue::start(Claimer {
                pool: urgent.clone(),
                name: name.into(),
                numbers: Arc::clone(&numbers),
                updated_at: Arc::clone(&updated_at),
                lock_timeout: ms(settings.lock_timeout_ms),
                waits: Semaphore::new(1),
                patience: ms(settings.acquire_timeout_ms),
            }),
            reader: DocumentReader::new(reads.clone(), replica, Arc::clone(&numbers)),
            updated_at_task: updated_at.start(urgent.clone()),
            trimmer: change_feed::start_trimming(urgent.clone(), ms(settings.changes_kept_ms)),
            indexer: title_index::start_indexing(lists.clone()),
            urgent,
            reads,
            lists,
            list_timeout: ms(settings.list_timeout_ms),
            people,
            watch,
            numbers,
            updated_at,
            secret,
            metrics,
            node_dead_after,
            place: Mutex::default(),
            beat_at: Mutex::default(),
            all_read_zstd: AtomicBool::new(false),
        })
    }

    /// Applies a phase of the migrations, or only returns what is pending (`None`). Takes time in proportion to the
    /// size of the tables, which nodes may use meanwhile. It may be interrupted and repeated.
    ///
    /// # Errors
    /// If Postgres does not answer, the tables are newer than this program can use, or the phase must wait.
    pub async fn migrate(
        settings: &PostgresSettings,
        phase: Option<MigrationPhase>,
    ) -> Result<MigrationStatus, StoreError> {
        let no_node = (NodeId(0), "migrate");
        let connector =
            PostgresConnector::new(&settings.url, settings, no_node, SessionPurpose::Claim)?;
        let (applied, pending) = schema::migrate_tables(&connector, phase).await?;
        Ok(MigrationStatus { applied, pending })
    }

    /// Where a document is; `None` if it was never claimed. Changes nothing, and does not wait for a Postgres that is
    /// away.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn locate(
        settings: &PostgresSettings,
        doc: &DocId,
    ) -> Result<Option<DocumentLocation>, StoreError> {
        let no_node = (NodeId(0), "locate");
        let connector =
            PostgresConnector::new(&settings.url, settings, no_node, SessionPurpose::Read)?;
        let dead_after = Duration::from_millis(settings.node_dead_after_ms);
        let found = locate::locate(&connector, doc, dead_after).await;
        found.map_err(|error| error.into_store_error("locate"))
    }

    /// Verifies the database without changing it. Nodes may be using it, and it may be a standby.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn verify(
        settings: &PostgresSettings,
        range: VerifyRange,
        report: &mut (dyn FnMut(VerifyEvent) + Send),
    ) -> Result<VerifyTotals, StoreError> {
        let no_node = (NodeId(0), "verify");
        let connector =
            PostgresConnector::new(&settings.url, settings, no_node, SessionPurpose::Past)?;
        let mut rows = PostgresRows::connect(&connector).await?;
        verify(&mut rows, range, report).await
    }

    /// Verifies one document without changing it, and returns its faults.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn verify_document(
        settings: &PostgresSettings,
        doc: &DocId,
    ) -> Result<Vec<String>, StoreError> {
        let no_node = (NodeId(0), "verify");
        let connector =
            PostgresConnector::new(&settings.url, settings, no_node, SessionPurpose::Past)?;
        let mut rows = PostgresRows::connect(&connector).await?;
        verify_document(&mut rows, doc).await
    }

    /// Completes the queued writes, updates the list and closes all connections. Later calls fail.
    ///
    /// # Errors
    /// If the list could not be updated; the next claims do that. What was acknowledged is durable nevertheless.
    pub async fn close(&self) -> Result<(), StoreError> {
        let deadline = Instant::now() + CLOSE_PATIENCE;
        for lane in &self.append_workers {
            lane.close(deadline).await;
        }
        self.claims.close(deadline).await;
        self.updated_at_task.abort();
        self.trimmer.abort();
        self.indexer.abort();
        let finished = self.updated_at.finish(&self.urgent, deadline).await;
        self.urgent.close();
        self.reads.close();
        self.lists.close();
        self.people.close();
        self.watch.close();
        self.reader.close();
        finished.map_err(|error| error.into_store_error("close"))
    }

    /// The error of a list or search. It distinguishes a slow search from a Postgres that is away.
    fn list_error(&self, error: PostgresError) -> StoreError {
        if error.is_timeout() {
            let reason = format!(
                "the list took longer than {} ms (postgres.list_timeout_ms)",
                self.list_timeout.as_millis()
            );
            return StoreError::new("list", reason);
        }
        error.into_store_error("list")
    }

    fn lock_beat_at(&self) -> MutexGuard<'_, Option<Instant>> {
        lock(&self.beat_at)
    }

    /// The worker of a document.
    fn append_worker(&self, doc: &DocId) -> usize {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(doc);
        (hash % self.append_workers.len() as u64) as usize
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.updated_at_task.abort();
        self.trimmer.abort();
        self.indexer.abort();
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}

impl Store for PostgresStore {
    fn sample_metrics(&self) {
        for pool in [
            &self.urgent,
            &self.reads,
            &self.lists,
            &self.people,
            &self.watch,
        ] {
            pool.sample_metrics();
        }
        self.reader.sample_metrics();
        let queued: usize = self.append_workers.iter().map(AppendWorker::queued).sum();
        set_gauge(&self.metrics.store_queued_jobs, queued);
    }

    fn load<'a>(
        &'a self,
        doc: &'a DocId,
        range: LoadRange,
    ) -> BoxFuture<'a, Result<Loaded, StoreError>> {
        let loaded = self.reader.load(doc, range);
        loaded
            .map(|it| it.map_err(|error| error.into_store_error("load")))
            .boxed()
    }

    fn claim<'a>(&'a self, doc: &'a DocId, me: NodeId) -> BoxFuture<'a, Result<Lease, StoreError>> {
        self.claims.claim(doc, me).boxed()
    }

    fn append(
        &self,
        batches: Vec<Batch>,
    ) -> BoxFuture<'_, Result<Vec<Result<(), AppendError>>, StoreError>> {
        async move {
            let mut answers = Vec::with_capacity(batches.len());
            let mut asked: Vec<_> = self.append_workers.iter().map(|_| Vec::new()).collect();
            for batch in batches {
                let (answer, answered) = oneshot::channel();
                asked[self.append_worker(&batch.doc)].push((EncodedBatch::new(batch), answer));
                answers.push(answered);
            }
            for (lane, asked) in self.append_workers.iter().zip(asked) {
                if !asked.is_empty() {
                    lane.send(asked).await?;
                }
            }
            let mut outcomes = Vec::with_capacity(answers.len());
            for answer in answers {
                let answer = answer.await;
                let answer =
                    answer.map_err(|_| PostgresError::Closed.into_store_error("append"))?;
                outcomes.push(answer.map_err(|why| StoreError::new("append", why))?);
            }
            Ok(outcomes)
        }
        .boxed()
    }

    fn save_snapshot<'a>(
        &'a self,
        doc: &'a DocId,
        fence: Fence,
        snapshot: Snapshot,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let packing = if self.all_read_zstd.load(Ordering::Relaxed) {
            Packing::Zstd
        } else {
            Packing::Lz4
        };
        let kept = snapshots::save(&self.reads, doc, fence, snapshot, packing);
        kept.map(|it| it.map_err(|error| error.into_store_error("save snapshot")))
            .boxed()
    }

    fn node_name(&self, id: NodeId) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        sockets::name_of(&self.urgent, id)
            .map(|it| it.map_err(|error| error.into_store_error("read a node's name")))
            .boxed()
    }

    fn share_sockets(
        &self,
        me: NodeId,
        sockets: u64,
    ) -> BoxFuture<'_, Result<Vec<u64>, StoreError>> {
        let shared = sockets::share(&self.urgent, me, sockets, self.node_dead_after);
        shared
            .map(|it| it.map_err(|error| error.into_store_error("share sockets")))
            .boxed()
    }

    fn heartbeat<'a>(
        &'a self,
        beat: &'a Heartbeat,
    ) -> BoxFuture<'a, Result<HeartbeatReply, StoreError>> {
        async move {
            let pulse = heartbeat::heartbeat(&self.urgent, beat, self.node_dead_after).await;
            let pulse = pulse.map_err(|error| error.into_store_error("heartbeat"))?;
            *self.lock_beat_at() = Some(Instant::now());
            let reads_zstd = |node: &LiveNode| {
                let capabilities = node.version.capabilities;
                capabilities.contain(Capabilities::ZSTD_SNAPSHOTS)
            };
            let all_read_zstd = pulse.others.iter().all(reads_zstd);
            self.all_read_zstd.store(all_read_zstd, Ordering::Relaxed);
            let mut place = lock(&self.place);
            if *place != pulse.place {
                *place = pulse.place.clone();
                self.numbers.clear();
            }
            Ok(pulse)
        }
        .boxed()
    }

    fn changes<'a>(
        &'a self,
        since: Option<&'a ChangeCursor>,
    ) -> BoxFuture<'a, Result<Changes, StoreError>> {
        let changes =
            change_feed::changes(&self.urgent, &self.numbers, since, self.node_dead_after);
        changes
            .map(|it| it.map_err(|error| error.into_store_error("changes")))
            .boxed()
    }

    fn compare_open<'a>(
        &'a self,
        open: &'a OpenDocuments,
    ) -> BoxFuture<'a, Result<DocumentChanges, StoreError>> {
        let changes = open_documents::compare_open(&self.urgent, &self.numbers, open);
        changes
            .map(|it| it.map_err(|error| error.into_store_error("compare open documents")))
            .boxed()
    }

    fn list<'a>(&'a self, query: ListQuery) -> BoxFuture<'a, Result<ListPage, StoreError>> {
        async move {
            let list = list::list(&self.lists, &query).await;
            list.map_err(|error| self.list_error(error))
        }
        .boxed()
    }

    fn describe<'a>(
        &'a self,
        doc: &'a DocId,
    ) -> BoxFuture<'a, Result<Option<ListedDocument>, StoreError>> {
        let listed = list::describe(&self.reads, doc);
        listed
            .map(|it| it.map_err(|error| error.into_store_error("describe")))
            .boxed()
    }

    fn rename<'a>(
        &'a self,
        doc: &'a DocId,
        title: &'a str,
        was: Option<&'a str>,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let renamed = list::rename(&self.reads, doc, title, was);
        renamed
            .map(|it| it.map_err(|error| error.into_store_error("rename")))
            .boxed()
    }

    fn check_writes(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async {
            for lane in &self.append_workers {
                lane.check().await?;
            }
            // While heartbeats are written, a probe does not wait for a connection.
            let beat_at = *self.lock_beat_at();
            if beat_at.is_some_and(|at| at.elapsed() < BEAT_HOLDS) {
                return Ok(());
            }
            let written = heartbeat::check_writes(&self.urgent).await;
            written.map_err(|error| error.into_store_error("check writes"))
        }
        .boxed()
    }

    fn history(&self) -> BoxFuture<'_, Result<History, StoreError>> {
        let history = history::current(&self.urgent);
        history
            .map(|it| it.map_err(|error| error.into_store_error("history")))
            .boxed()
    }

    fn renew_history(
        &self,
        known: History,
        next: History,
    ) -> BoxFuture<'_, Result<History, StoreError>> {
        async move {
            let renewed = history::renew(&self.urgent, known, next).await;
            renewed.map_err(|error| error.into_store_error("renew history"))
        }
        .boxed()
    }

    fn fingerprints<'a>(
        &'a self,
        entries: &'a [(DocId, Revision)],
    ) -> BoxFuture<'a, Result<Vec<Option<u64>>, StoreError>> {
        let found = history::fingerprints(&self.urgent, entries);
        found
            .map(|it| it.map_err(|error| error.into_store_error("fingerprints")))
            .boxed()
    }

    fn highest_revision<'a>(
        &'a self,
        doc: &'a DocId,
    ) -> BoxFuture<'a, Result<Revision, StoreError>> {
        let highest = self.reader.highest_revision(doc);
        highest
            .map(|it| it.map_err(|error| error.into_store_error("highest revision")))
            .boxed()
    }

    fn restore_fence<'a>(&'a self, doc: &'a DocId) -> BoxFuture<'a, Result<bool, StoreError>> {
        let restored = claim_queue::restore_fence(&self.urgent, doc);
        restored
            .map(|it| it.map_err(|error| error.into_store_error("restore fence")))
            .boxed()
    }

    fn secret(&self) -> BoxFuture<'_, Result<[u8; 32], StoreError>> {
        async { Ok(self.secret) }.boxed()
    }
}

/// The secret of this store, created if there is none.
async fn secret(pool: &Pool) -> Result<[u8; 32], StoreError> {
    let mut drawn = [0; 32];
    getrandom::fill(&mut drawn).map_err(|error| StoreError::new("open", error))?;
    let secret = schema::secret(pool, drawn).await;
    secret.map_err(|error| error.into_store_error("open"))
}
