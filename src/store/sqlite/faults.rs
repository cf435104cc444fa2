//! Dead letters and quarantine in the embedded database.

use std::fmt;
use std::path::Path;
use std::sync::Mutex;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params, params_from_iter};

use super::SqliteStore;
use super::data_dir::DataDir;
use super::error::SqliteError;
use super::write_connection::WriteConnection;
use super::writer::WriteJob;
use crate::id::{DocId, NodeId, UserId};
use crate::store::faults::{DEAD_LETTERS_PAGE, DeadLetterColumns, PANICS_MAX, QuarantineColumns};
use crate::store::{
    DeadLetter, DeadLetterFilter, DeadLetterSize, FaultStore, PANIC_WINDOW_MS, PanicOutcome,
    PanicRecord, QUARANTINED_MAX, QuarantinedDocument, StoreError, StoredDeadLetter,
};
use crate::sync::lock;

impl FaultStore for SqliteStore {
    fn add_dead_letters(&self, letters: Vec<DeadLetter>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.writer
            .execute(FaultJob::Add(letters))
            .map(done)
            .boxed()
    }

    fn dead_letters(
        &self,
        filter: DeadLetterFilter,
        before: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredDeadLetter>, StoreError>> {
        self.readers
            .read("read dead letters", move |db| {
                Ok(select(db, &filter, before, limit)?)
            })
            .map(decoded)
            .boxed()
    }

    fn dead_letter_sizes(&self) -> BoxFuture<'_, Result<Vec<DeadLetterSize>, StoreError>> {
        self.readers
            .read("read dead letters", |db| Ok(sizes(db)?))
            .boxed()
    }

    fn remove_dead_letters(&self, ids: Vec<u64>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.writer.execute(FaultJob::Remove(ids)).map(done).boxed()
    }

    fn purge_dead_letters(
        &self,
        filter: DeadLetterFilter,
    ) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.writer
            .execute(FaultJob::Purge(filter))
            .map(|it| it.map(FaultResult::count))
            .boxed()
    }

    fn record_panic(&self, panic: PanicRecord) -> BoxFuture<'_, Result<PanicOutcome, StoreError>> {
        self.writer
            .execute(FaultJob::Panic(panic))
            .map(|it| it.map(FaultResult::panic))
            .boxed()
    }

    fn quarantined(&self) -> BoxFuture<'_, Result<Vec<QuarantinedDocument>, StoreError>> {
        self.readers
            .read("read the quarantine", |db| Ok(quarantined(db)?))
            .map(decoded)
            .boxed()
    }

    fn release_quarantine<'a>(&'a self, doc: &'a DocId) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.writer
            .execute(FaultJob::Release(doc.clone()))
            .map(|it| it.map(|released| released.count() > 0))
            .boxed()
    }
}

/// The dead letters and the quarantine of a data folder, for the command line. A server may be using the folder: each call is
/// one short transaction. Blocks on the disk.
pub struct SqliteFaults(Mutex<Connection>);

impl SqliteFaults {
    /// Opens the database of a folder beside the process that may have locked it.
    ///
    /// # Errors
    /// If there is no database, it cannot be written, or it is of another version.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        Ok(Self(Mutex::new(DataDir::open_beside(folder)?)))
    }

    /// Runs `work` in one transaction.
    fn transact<T>(
        &self,
        verb: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut db = lock(&self.0);
        let done = || -> rusqlite::Result<T> {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        };
        done().map_err(|error| SqliteError::from(error).into_store_error(verb))
    }

    fn run(&self, job: &FaultJob) -> Result<FaultResult, StoreError> {
        self.transact(FaultJob::VERB, |db| job.run_on(db))
    }
}

impl fmt::Debug for SqliteFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteFaults").finish_non_exhaustive()
    }
}

impl FaultStore for SqliteFaults {
    fn add_dead_letters(&self, letters: Vec<DeadLetter>) -> BoxFuture<'_, Result<(), StoreError>> {
        async move { done(self.run(&FaultJob::Add(letters))) }.boxed()
    }

    fn dead_letters(
        &self,
        filter: DeadLetterFilter,
        before: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredDeadLetter>, StoreError>> {
        let select = move |db: &Connection| select(db, &filter, before, limit);
        async move { decoded(self.transact("read dead letters", select)) }.boxed()
    }

    fn dead_letter_sizes(&self) -> BoxFuture<'_, Result<Vec<DeadLetterSize>, StoreError>> {
        async move { self.transact("read dead letters", sizes) }.boxed()
    }

    fn remove_dead_letters(&self, ids: Vec<u64>) -> BoxFuture<'_, Result<(), StoreError>> {
        async move { done(self.run(&FaultJob::Remove(ids))) }.boxed()
    }

    fn purge_dead_letters(
        &self,
        filter: DeadLetterFilter,
    ) -> BoxFuture<'_, Result<u64, StoreError>> {
        async move { self.run(&FaultJob::Purge(filter)).map(FaultResult::count) }.boxed()
    }

    fn record_panic(&self, panic: PanicRecord) -> BoxFuture<'_, Result<PanicOutcome, StoreError>> {
        async move { self.run(&FaultJob::Panic(panic)).map(FaultResult::panic) }.boxed()
    }

    fn quarantined(&self) -> BoxFuture<'_, Result<Vec<QuarantinedDocument>, StoreError>> {
        async move { decoded(self.transact("read the quarantine", quarantined)) }.boxed()
    }

    fn release_quarantine<'a>(&'a self, doc: &'a DocId) -> BoxFuture<'a, Result<bool, StoreError>> {
        let job = FaultJob::Release(doc.clone());
        async move { self.run(&job).map(|released| released.count() > 0) }.boxed()
    }
}

/// A write.
enum FaultJob {
    Add(Vec<DeadLetter>),
    Remove(Vec<u64>),
    Purge(DeadLetterFilter),
    Panic(PanicRecord),
    Release(DocId),
}

/// The result of a [`FaultJob`].
enum FaultResult {
    /// How many rows were written.
    Count(u64),
    Panic(PanicOutcome),
}

impl FaultResult {
    fn count(self) -> u64 {
        match self {
            Self::Count(rows) => rows,
            Self::Panic(_) => 0,
        }
    }

    fn panic(self) -> PanicOutcome {
        match self {
            Self::Panic(outcome) => outcome,
            Self::Count(_) => PanicOutcome::Recorded,
        }
    }
}

impl WriteJob for FaultJob {
    type Output = FaultResult;
    const VERB: &'static str = "write dead letters";

    fn bytes(&self) -> usize {
        match self {
            Self::Add(letters) => letters.iter().map(|it| it.payload.len() + 500).sum(),
            Self::Remove(_) | Self::Purge(_) | Self::Panic(_) | Self::Release(_) => 500,
        }
    }

    fn run(&self, connection: &mut WriteConnection) -> rusqlite::Result<FaultResult> {
        self.run_on(connection.db())
    }
}

impl FaultJob {
    fn run_on(&self, db: &Connection) -> rusqlite::Result<FaultResult> {
        let rows = match self {
            Self::Add(letters) => add(db, letters)?,
            Self::Remove(ids) => remove(db, ids)?,
            Self::Purge(filter) => purge(db, filter)?,
            Self::Panic(panic) => return record_panic(db, panic).map(FaultResult::Panic),
            Self::Release(doc) => db.execute(
                "DELETE FROM quarantine
                 WHERE collection = ?1 AND doc = ?2 AND quarantined_at_ms IS NOT NULL",
                [doc.collection.as_str(), doc.id.as_str()],
            )?,
        };
        Ok(FaultResult::Count(rows as u64))
    }
}

fn done(result: Result<FaultResult, StoreError>) -> Result<(), StoreError> {
    result.map(drop)
}

/// Rows of the database, which may be damaged.
type DecodedRows<T> = Result<Vec<T>, String>;

fn decoded<T>(rows: Result<DecodedRows<T>, StoreError>) -> Result<Vec<T>, StoreError> {
    rows?.map_err(|why| StoreError::new("read dead letters", why))
}

fn add(db: &Connection, letters: &[DeadLetter]) -> rusqlite::Result<usize> {
    let mut insert = db.prepare_cached(
        "INSERT OR IGNORE INTO dead_letters (reason, detail, collection, doc, author, client, seq, base, head, node,
           node_name, at_ms, payload, payload_bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?;
    let mut rows = 0;
    for letter in letters {
        let submit = &letter.submit;
        rows += insert.execute(params![
            letter.reason.as_str(),
            letter.detail.as_bytes(),
            letter.doc.collection.as_str(),
            letter.doc.id.as_str(),
            submit.author.as_str().as_bytes(),
            submit.client.as_str(),
            submit.seq.cast_signed(),
            letter.base.map(|base| base.0.cast_signed()),
            letter.head.0.cast_signed(),
            letter.node.0.cast_signed(),
            letter.node_name.as_bytes(),
            letter.at_ms.cast_signed(),
            letter.payload.as_bytes(),
            letter.payload_bytes.cast_signed(),
        ])?;
    }
    Ok(rows)
}

fn remove(db: &Connection, ids: &[u64]) -> rusqlite::Result<usize> {
    let mut delete = db.prepare_cached("DELETE FROM dead_letters WHERE id = ?1")?;
    let mut rows = 0;
    for id in ids {
        rows += delete.execute([id.cast_signed()])?;
    }
    Ok(rows)
}

/// The conditions of a filter, with the parameters `?1` to `?5`.
const SELECTED: &str = "(?1 IS NULL OR id = ?1)
   AND (?2 IS NULL OR (collection = ?2 AND doc = ?3))
   AND (?4 IS NULL OR at_ms >= ?4)
   AND (?5 IS NULL OR at_ms < ?5)";

fn values(filter: &DeadLetterFilter) -> Vec<Value> {
    let number = |it: Option<u64>| it.map(u64::cast_signed).into();
    let doc = filter.doc.as_ref();
    vec![
        number(filter.id),
        doc.map(|doc| doc.collection.as_str().to_owned()).into(),
        doc.map(|doc| doc.id.as_str().to_owned()).into(),
        number(filter.from_ms),
        number(filter.until_ms),
    ]
}

fn purge(db: &Connection, filter: &DeadLetterFilter) -> rusqlite::Result<usize> {
    let sql = format!("DELETE FROM dead_letters WHERE {SELECTED}");
    db.execute(&sql, params_from_iter(values(filter)))
}

fn select(
    db: &Connection,
    filter: &DeadLetterFilter,
    before: Option<u64>,
    limit: usize,
) -> rusqlite::Result<DecodedRows<StoredDeadLetter>> {
    let sql = format!(
        "SELECT id, reason, detail, collection, doc, author, client, seq, base, head, node, node_name, at_ms, payload,
           payload_bytes
         FROM dead_letters
         WHERE {SELECTED} AND (?6 IS NULL OR id < ?6)
         ORDER BY id DESC
         LIMIT ?7"
    );
    let mut values = values(filter);
    values.push(before.map(u64::cast_signed).into());
    values.push((limit.min(DEAD_LETTERS_PAGE) as i64).into());
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), columns)?;
    let rows: Vec<DeadLetterColumns> = rows.collect::<rusqlite::Result<_>>()?;
    Ok(rows.into_iter().map(DeadLetterColumns::decode).collect())
}

fn columns(row: &Row<'_>) -> rusqlite::Result<DeadLetterColumns> {
    Ok(DeadLetterColumns {
        id: row.get(0)?,
        reason: row.get(1)?,
        detail: row.get(2)?,
        collection: row.get(3)?,
        doc: row.get(4)?,
        author: row.get(5)?,
        client: row.get(6)?,
        seq: row.get(7)?,
        base: row.get(8)?,
        head: row.get(9)?,
        node: row.get(10)?,
        node_name: row.get(11)?,
        at_ms: row.get(12)?,
        payload: row.get(13)?,
        payload_bytes: row.get(14)?,
    })
}

/// A row with a document that cannot be parsed is left out: the letters beside it are still to be bounded.
fn sizes(db: &Connection) -> rusqlite::Result<Vec<DeadLetterSize>> {
    let mut statement = db.prepare_cached(
        "SELECT id, collection, doc, author, at_ms, length(payload) + length(detail)
         FROM dead_letters
         ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    let mut sizes = Vec::new();
    while let Some(row) = rows.next()? {
        let (collection, doc): (String, String) = (row.get(1)?, row.get(2)?);
        let author: Vec<u8> = row.get(3)?;
        if let Ok(doc) = DocId::parse(&collection, &doc) {
            let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            let author = UserId::new(&String::from_utf8_lossy(&author));
            sizes.push(DeadLetterSize::new(
                number(0)?,
                doc,
                author,
                number(4)?,
                number(5)?,
            ));
        }
    }
    Ok(sizes)
}

fn record_panic(db: &Connection, panic: &PanicRecord) -> rusqlite::Result<PanicOutcome> {
    let (collection, doc) = (panic.doc.collection.as_str(), panic.doc.id.as_str());
    let at_ms = panic.at_ms.cast_signed();
    db.execute(
        "DELETE FROM quarantine
         WHERE quarantined_at_ms IS NULL AND panicked_at_ms < ?1 - ?2 AND NOT (collection = ?3 AND doc = ?4)",
        params![at_ms, PANIC_WINDOW_MS.cast_signed(), collection, doc],
    )?;
    let known = db
        .query_row(
            "SELECT panicked_at_ms, quarantined_at_ms, node
             FROM quarantine
             WHERE collection = ?1 AND doc = ?2",
            [collection, doc],
            |row| {
                let at_ms: i64 = row.get(0)?;
                let since: Option<i64> = row.get(1)?;
                let node: i64 = row.get(2)?;
                let node = NodeId(node.cast_unsigned());
                Ok((at_ms.cast_unsigned(), since, node))
            },
        )
        .optional()?;
    let (rows, quarantined): (i64, i64) = db.query_row(
        "SELECT count(*), count(quarantined_at_ms) FROM quarantine",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if known.is_none() && rows >= PANICS_MAX as i64 {
        return Ok(PanicOutcome::Full);
    }
    let repeats = known.map_or(panic.is_repeated, |(at_ms, _, node)| {
        panic.quarantines_after(node, at_ms)
    });
    let has_room = quarantined < QUARANTINED_MAX as i64;
    let since = known.and_then(|(_, since, _)| since);
    let since = since.or((repeats && has_room).then_some(at_ms));
    db.execute(
        "INSERT OR REPLACE INTO quarantine (collection, doc, panicked_at_ms, quarantined_at_ms, node, node_name)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            collection,
            doc,
            at_ms,
            since,
            panic.node.0.cast_signed(),
            panic.node_name.as_bytes()
        ],
    )?;
    Ok(match (since, has_room) {
        (Some(_), _) => PanicOutcome::Quarantined,
        (None, true) => PanicOutcome::Recorded,
        (None, false) => PanicOutcome::Full,
    })
}

fn quarantined(db: &Connection) -> rusqlite::Result<DecodedRows<QuarantinedDocument>> {
    let mut statement = db.prepare_cached(
        "SELECT collection, doc, quarantined_at_ms, node_name
         FROM quarantine
         WHERE quarantined_at_ms IS NOT NULL
         ORDER BY collection, doc
         LIMIT ?1",
    )?;
    let rows = statement.query_map([QUARANTINED_MAX as i64], |row| {
        Ok(QuarantineColumns {
            collection: row.get(0)?,
            doc: row.get(1)?,
            since_ms: row.get(2)?,
            node_name: row.get(3)?,
        })
    })?;
    let rows: Vec<QuarantineColumns> = rows.collect::<rusqlite::Result<_>>()?;
    Ok(rows.into_iter().map(QuarantineColumns::decode).collect())
}
