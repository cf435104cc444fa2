//! Dead letters and quarantine in Postgres.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::PostgresStore;
use super::error::PostgresError;
use crate::id::{DocId, UserId};
use crate::store::faults::{DEAD_LETTERS_PAGE, DeadLetterColumns, PANICS_MAX, QuarantineColumns};
use crate::store::{
    DeadLetter, DeadLetterFilter, DeadLetterSize, FaultStore, PANIC_WINDOW_MS, PanicOutcome,
    PanicRecord, QUARANTINED_MAX, QuarantinedDocument, StoreError, StoredDeadLetter,
};

const ADD: &str = "
INSERT INTO dead_letters (reason, detail, collection, doc, author, client, seq, base, head, node, node_name, at_ms,
  payload, payload_bytes)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
ON CONFLICT (collection, doc, at_ms, client, seq, reason) DO NOTHING";

/// The conditions of a filter, with the parameters `$1` to `$5`.
macro_rules! selected {
    () => {
        "($1::bigint IS NULL OR id = $1)
  AND ($2::text IS NULL OR (collection = $2 AND doc = $3::text))
  AND ($4::bigint IS NULL OR at_ms >= $4)
  AND ($5::bigint IS NULL OR at_ms < $5)"
    };
}

const SELECT: &str = concat!(
    "
SELECT id, reason, detail, collection, doc, author, client, seq, base, head, node, node_name, at_ms, payload, payload_bytes
FROM dead_letters
WHERE ",
    selected!(),
    "
  AND ($6::bigint IS NULL OR id < $6)
ORDER BY id DESC
LIMIT $7"
);

const PURGE: &str = concat!(
    "
WITH purged AS (
  DELETE FROM dead_letters
  WHERE ",
    selected!(),
    "
  RETURNING 1
)
SELECT count(*) FROM purged"
);

/// `octet_length` does not read the payloads.
const SIZES: &str = "
SELECT id, collection, doc, author, at_ms, (octet_length(payload) + octet_length(detail))::bigint
FROM dead_letters
ORDER BY id";

const REMOVE: &str = "DELETE FROM dead_letters WHERE id = ANY ($1::bigint[])";

/// Stores a panic, and deletes those that are over. `$3` is its time, `$6` whether the node has seen another panic of the
/// document, `$7` the window, `$8` the most rows and `$9` the most documents in quarantine. A row for the same node and time is
/// the same panic. Returns no row if there is no room.
const RECORD_PANIC: &str = "
WITH old AS (
  DELETE FROM quarantine
  WHERE quarantined_at_ms IS NULL AND panicked_at_ms < $3::bigint - $7::bigint AND NOT (collection = $1 AND doc = $2)
), room AS (
  SELECT count(*) FILTER (WHERE quarantined_at_ms IS NOT NULL OR panicked_at_ms >= $3::bigint - $7::bigint) AS documents,
         count(quarantined_at_ms) AS quarantined,
         count(*) FILTER (WHERE collection = $1 AND doc = $2) AS known
  FROM quarantine
)
INSERT INTO quarantine AS stored (collection, doc, panicked_at_ms, quarantined_at_ms, node, node_name)
SELECT $1::text, $2::text, $3::bigint, CASE WHEN $6::boolean AND quarantined < $9::bigint THEN $3::bigint END,
       $4::bigint, $5::bytea
FROM room
WHERE documents < $8::bigint OR known > 0
ON CONFLICT (collection, doc) DO UPDATE
SET quarantined_at_ms = coalesce(
      stored.quarantined_at_ms,
      CASE WHEN (SELECT quarantined FROM room) < $9::bigint AND ($6::boolean OR (
        abs(excluded.panicked_at_ms - stored.panicked_at_ms) < $7::bigint
          AND (excluded.node, excluded.panicked_at_ms) <> (stored.node, stored.panicked_at_ms)))
        THEN excluded.panicked_at_ms END),
    panicked_at_ms = excluded.panicked_at_ms,
    node = excluded.node,
    node_name = excluded.node_name
RETURNING quarantined_at_ms IS NOT NULL, (SELECT quarantined FROM room) >= $9::bigint";

const QUARANTINED: &str = "
SELECT collection, doc, quarantined_at_ms, node_name
FROM quarantine
WHERE quarantined_at_ms IS NOT NULL
ORDER BY collection, doc
LIMIT $1";

const RELEASE: &str = "
DELETE FROM quarantine
WHERE collection = $1 AND doc = $2 AND quarantined_at_ms IS NOT NULL
RETURNING 1";

impl FaultStore for PostgresStore {
    fn add_dead_letters(&self, letters: Vec<DeadLetter>) -> BoxFuture<'_, Result<(), StoreError>> {
        let added = async move {
            let mut connection = self.reads.acquire().await?;
            for letter in &letters {
                add(&mut connection, letter).await?;
            }
            Ok(())
        };
        answer("write dead letters", added)
    }

    fn dead_letters(
        &self,
        filter: DeadLetterFilter,
        before: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredDeadLetter>, StoreError>> {
        let selected = async move {
            let values = FilterValues::of(&filter);
            let before = before.map(u64::cast_signed);
            let limit = limit.min(DEAD_LETTERS_PAGE) as i64;
            let mut parameters = values.parameters();
            parameters.extend([&before as &(dyn ToSql + Sync), &limit]);
            let rows = self.reads.query(SELECT, &parameters).await?;
            let letters = rows.iter().map(|row| columns(row).decode());
            letters
                .collect::<Result<_, _>>()
                .map_err(PostgresError::Other)
        };
        answer("read dead letters", selected)
    }

    fn dead_letter_sizes(&self) -> BoxFuture<'_, Result<Vec<DeadLetterSize>, StoreError>> {
        let sizes = async move {
            let rows = self.reads.query(SIZES, &[]).await?;
            // A row with a document that cannot be parsed is left out: the letters beside it are still to be bounded.
            Ok(rows.iter().filter_map(size).collect())
        };
        answer("read dead letters", sizes)
    }

    fn remove_dead_letters(&self, ids: Vec<u64>) -> BoxFuture<'_, Result<(), StoreError>> {
        let removed = async move {
            let ids: Vec<i64> = ids.into_iter().map(u64::cast_signed).collect();
            self.reads.query(REMOVE, &[&ids]).await.map(drop)
        };
        answer("delete dead letters", removed)
    }

    fn purge_dead_letters(
        &self,
        filter: DeadLetterFilter,
    ) -> BoxFuture<'_, Result<u64, StoreError>> {
        let purged = async move {
            let values = FilterValues::of(&filter);
            let rows = self.reads.query(PURGE, &values.parameters()).await?;
            let count = rows.first().map_or(0, |row| row.get::<_, i64>(0));
            Ok(count.cast_unsigned())
        };
        answer("delete dead letters", purged)
    }

    fn record_panic(&self, panic: PanicRecord) -> BoxFuture<'_, Result<PanicOutcome, StoreError>> {
        let recorded = async move {
            let (collection, doc) = (panic.doc.collection.as_str(), panic.doc.id.as_str());
            let (at_ms, node) = (panic.at_ms.cast_signed(), panic.node.0.cast_signed());
            let name = panic.node_name.as_bytes();
            let window = PANIC_WINDOW_MS.cast_signed();
            let (rows_max, quarantined_max) = (PANICS_MAX as i64, QUARANTINED_MAX as i64);
            let values: [&(dyn ToSql + Sync); 9] = [
                &collection,
                &doc,
                &at_ms,
                &node,
                &name,
                &panic.is_repeated,
                &window,
                &rows_max,
                &quarantined_max,
            ];
            let rows = self.urgent.query(RECORD_PANIC, &values).await?;
            Ok(rows.first().map_or(PanicOutcome::Full, panic_outcome))
        };
        answer("record a panic", recorded)
    }

    fn quarantined(&self) -> BoxFuture<'_, Result<Vec<QuarantinedDocument>, StoreError>> {
        let quarantined = async move {
            let rows = self
                .urgent
                .query(QUARANTINED, &[&(QUARANTINED_MAX as i64)])
                .await?;
            let documents = rows.iter().map(|row| {
                let columns = QuarantineColumns {
                    collection: row.get(0),
                    doc: row.get(1),
                    since_ms: row.get(2),
                    node_name: row.get(3),
                };
                columns.decode()
            });
            documents
                .collect::<Result<_, _>>()
                .map_err(PostgresError::Other)
        };
        answer("read the quarantine", quarantined)
    }

    fn release_quarantine<'a>(&'a self, doc: &'a DocId) -> BoxFuture<'a, Result<bool, StoreError>> {
        let released = async move {
            let names = (doc.collection.as_str(), doc.id.as_str());
            let rows = self.urgent.query(RELEASE, &[&names.0, &names.1]).await?;
            Ok(!rows.is_empty())
        };
        answer("release a document", released)
    }
}

/// The result of a call, with an error that names its verb.
fn answer<'a, T>(
    verb: &'static str,
    call: impl Future<Output = Result<T, PostgresError>> + Send + 'a,
) -> BoxFuture<'a, Result<T, StoreError>> {
    call.map(move |it| it.map_err(|error| error.into_store_error(verb)))
        .boxed()
}

async fn add(
    connection: &mut super::pool::PooledConnection,
    letter: &DeadLetter,
) -> Result<(), PostgresError> {
    let submit = &letter.submit;
    let (reason, detail) = (letter.reason.as_str(), letter.detail.as_bytes());
    let (collection, doc) = (letter.doc.collection.as_str(), letter.doc.id.as_str());
    let (author, client) = (submit.author.as_str().as_bytes(), submit.client.as_str());
    let (seq, node) = (submit.seq.cast_signed(), letter.node.0.cast_signed());
    let base = letter.base.map(|base| base.0.cast_signed());
    let (head, at_ms) = (letter.head.0.cast_signed(), letter.at_ms.cast_signed());
    let (node_name, payload) = (letter.node_name.as_bytes(), letter.payload.as_bytes());
    let payload_bytes = letter.payload_bytes.cast_signed();
    let values: [&(dyn ToSql + Sync); 14] = [
        &reason,
        &detail,
        &collection,
        &doc,
        &author,
        &client,
        &seq,
        &base,
        &head,
        &node,
        &node_name,
        &at_ms,
        &payload,
        &payload_bytes,
    ];
    connection.query(ADD, &values).await.map(drop)
}

/// The parameters of a filter.
struct FilterValues<'a> {
    id: Option<i64>,
    collection: Option<&'a str>,
    doc: Option<&'a str>,
    from_ms: Option<i64>,
    until_ms: Option<i64>,
}

impl<'a> FilterValues<'a> {
    fn of(filter: &'a DeadLetterFilter) -> Self {
        let doc = filter.doc.as_ref();
        Self {
            id: filter.id.map(u64::cast_signed),
            collection: doc.map(|doc| doc.collection.as_str()),
            doc: doc.map(|doc| doc.id.as_str()),
            from_ms: filter.from_ms.map(u64::cast_signed),
            until_ms: filter.until_ms.map(u64::cast_signed),
        }
    }

    fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        vec![
            &self.id,
            &self.collection,
            &self.doc,
            &self.from_ms,
            &self.until_ms,
        ]
    }
}

fn columns(row: &Row) -> DeadLetterColumns {
    DeadLetterColumns {
        id: row.get(0),
        reason: row.get(1),
        detail: row.get(2),
        collection: row.get(3),
        doc: row.get(4),
        author: row.get(5),
        client: row.get(6),
        seq: row.get(7),
        base: row.get(8),
        head: row.get(9),
        node: row.get(10),
        node_name: row.get(11),
        at_ms: row.get(12),
        payload: row.get(13),
        payload_bytes: row.get(14),
    }
}

fn size(row: &Row) -> Option<DeadLetterSize> {
    let doc = DocId::parse(row.get(1), row.get(2)).ok()?;
    let author = UserId::new(&String::from_utf8_lossy(row.get(3)));
    let number = |column: usize| row.get::<_, i64>(column).cast_unsigned();
    Some(DeadLetterSize::new(
        number(0),
        doc,
        author,
        number(4),
        number(5),
    ))
}

fn panic_outcome(row: &Row) -> PanicOutcome {
    match (row.get(0), row.get(1)) {
        (true, _) => PanicOutcome::Quarantined,
        (false, false) => PanicOutcome::Recorded,
        (false, true) => PanicOutcome::Full,
    }
}
