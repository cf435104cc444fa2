//! The feed of changes, read from the table `changes`.
//!
//! A cursor is a snapshot of Postgres, which is the set of the transactions that had ended. A call returns the rows of
//! the transactions that ended between two snapshots: each row once, however late its transaction ended.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::error::PostgresError;
use super::number_cache::NumberCache;
use super::pool::Pool;
use crate::id::DocId;
use crate::log::{Epoch, Revision};
use crate::store::{ChangeCursor, Changes, Continuity};

/// How many rows one call reads. With more, the node compares its open documents with the store instead.
const ROWS_MAX: usize = 4_096;

/// How often old rows are deleted within the time that rows are kept.
const TRIMS_IN_KEPT: u32 = 6;

/// After this multiple of `node_dead_after_ms`, a silent node is assumed not to append any more.
const SILENCES: f64 = 3.0;

/// How many documents' names one statement looks up.
const NAMES_MAX: usize = 10_000;

/// The state of the feed, and the rows of the transactions that have ended in the present snapshot and not in `$1`; at
/// least one row if there is a feed. `$2` limits the rows of changes. `$3` is the time in milliseconds for which a
/// silent node may still append.
///
/// The transactions of the rows began either after `$1` was taken, or are in its list of running transactions.
const CHANGES: &str = "
WITH cursor AS MATERIALIZED (
  SELECT $1::text::pg_snapshot AS seen, pg_current_snapshot() AS now
)
SELECT change_feed.id::text || '@' || extract(epoch FROM pg_postmaster_start_time())::text,
       cursor.now::text,
       coalesce(pg_snapshot_xmax(cursor.now) < pg_snapshot_xmax(cursor.seen), false),
       coalesce(
         pg_snapshot_xmax(change_feed.trimmed) >= pg_snapshot_xmax(cursor.seen)
           AND change_feed.trimmed::text <> cursor.seen::text,
         true)
         OR EXISTS (
           SELECT 1
           FROM nodes
           WHERE NOT records_changes AND beat_at >= clock_timestamp() - $3 * interval '1 millisecond'),
       change.docs, change.epochs, change.heads
FROM cursor
CROSS JOIN change_feed
LEFT JOIN LATERAL (
  (SELECT docs, epochs, heads
   FROM changes
   WHERE xid >= pg_snapshot_xmax(cursor.seen) AND xid < pg_snapshot_xmax(cursor.now))
  UNION ALL
  (SELECT docs, epochs, heads
   FROM changes
   WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip(cursor.seen))))
  LIMIT $2
) AS change ON true
WHERE change_feed.one";

/// Creates the feed if there is none: the tables are new, or were emptied by a crash.
const BEGIN: &str = "INSERT INTO change_feed DEFAULT VALUES ON CONFLICT DO NOTHING";

/// Deletes the rows that were visible in the snapshot `$1` and not in the one of the previous deletion. Returns the
/// present snapshot.
///
/// If the previous deletion is in the future, it was restored from another server: all rows are deleted, also those of
/// that server.
const TRIM: &str = "
WITH mark AS MATERIALIZED (
  SELECT trimmed, pg_snapshot_xmax(trimmed) > pg_snapshot_xmax(pg_current_snapshot()) AS is_foreign
  FROM change_feed
  WHERE one
    AND $1::text IS NOT NULL
    AND (pg_snapshot_xmax(trimmed) < pg_snapshot_xmax($1::text::pg_snapshot)
      OR pg_snapshot_xmax(trimmed) > pg_snapshot_xmax(pg_current_snapshot()))
  FOR UPDATE SKIP LOCKED
), old AS (
  DELETE FROM changes
  USING mark
  WHERE xid >= CASE WHEN is_foreign THEN '0'::xid8 ELSE pg_snapshot_xmax(trimmed) END
    AND xid < pg_snapshot_xmax($1::text::pg_snapshot)
    AND pg_visible_in_snapshot(xid, $1::text::pg_snapshot)
  RETURNING 1
), late AS (
  DELETE FROM changes
  WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip(trimmed) FROM mark WHERE NOT is_foreign))
    AND pg_visible_in_snapshot(xid, $1::text::pg_snapshot)
  RETURNING 1
), unborn AS (
  DELETE FROM changes
  USING mark
  WHERE is_foreign AND xid >= pg_snapshot_xmax(pg_current_snapshot())
  RETURNING 1
), marked AS (
  UPDATE change_feed
  SET trimmed = $1::text::pg_snapshot
  FROM mark
  WHERE is_foreign OR EXISTS (SELECT 1 FROM old) OR EXISTS (SELECT 1 FROM late) OR EXISTS (SELECT 1 FROM unborn)
)
SELECT pg_current_snapshot()::text";

/// The names of documents, by number.
const NAMES: &str = "
SELECT known.number, known.collection, known.id
FROM unnest($1::bigint[]) AS asked (number)
JOIN documents AS known ON known.number = asked.number";

/// The changes since a cursor. See [`crate::store::Store::changes`].
pub(super) async fn changes(
    pool: &Pool,
    numbers: &NumberCache,
    since: Option<&ChangeCursor>,
    node_dead_after: Duration,
) -> Result<Changes, PostgresError> {
    // A cursor has the id of the feed and a snapshot.
    let since = since.and_then(|cursor| cursor.0.split_once(' '));
    let rows = read(pool, since.map(|(_, snapshot)| snapshot), node_dead_after).await?;
    let first = rows.first().ok_or_else(no_feed)?;
    let (feed, now): (&str, &str) = (first.get(0), first.get(1));
    let (is_older, is_behind): (bool, bool) = (first.get(2), first.get(3));
    let continuity = match since {
        Some((seen, _)) if seen != feed || is_older => Continuity::OtherServer,
        Some(_) if !is_behind && rows.len() <= ROWS_MAX => Continuity::Complete,
        _ => Continuity::Incomplete,
    };
    if continuity == Continuity::OtherServer {
        numbers.clear();
    }
    let newest = match continuity {
        Continuity::Complete => Newest::of(&rows)?,
        Continuity::Incomplete | Continuity::OtherServer => Newest::default(),
    };
    let names = names(pool, numbers, &newest).await?;
    let named = |(number, newest): (&i64, &i64)| {
        let doc = names.get(number)?.clone();
        Some((doc, newest.cast_unsigned()))
    };
    let (claimed, appended) = (
        newest.epochs.iter().filter_map(named),
        newest.heads.iter().filter_map(named),
    );
    Ok(Changes {
        cursor: ChangeCursor(format!("{feed} {now}").into()),
        continuity,
        claimed: claimed.map(|(doc, it)| (doc, Epoch(it))).collect(),
        appended: appended.map(|(doc, it)| (doc, Revision(it))).collect(),
    })
}

fn no_feed() -> PostgresError {
    PostgresError::Other("change_feed has no row".to_owned())
}

async fn read(
    pool: &Pool,
    seen: Option<&str>,
    node_dead_after: Duration,
) -> Result<Vec<Row>, PostgresError> {
    let limit = ROWS_MAX as i64 + 1;
    let silence_ms = node_dead_after.as_secs_f64() * 1e3 * SILENCES;
    let values: [&(dyn ToSql + Sync); 3] = [&seen, &limit, &silence_ms];
    let rows = pool.query(CHANGES, &values).await?;
    if !rows.is_empty() {
        return Ok(rows);
    }
    pool.query(BEGIN, &[]).await?;
    pool.query(CHANGES, &values).await
}

/// The newest epoch and head of each document in some rows, by number.
#[derive(Default)]
struct Newest {
    epochs: HashMap<i64, i64>,
    heads: HashMap<i64, i64>,
}

impl Newest {
    fn of(rows: &[Row]) -> Result<Self, PostgresError> {
        let mut newest = Self::default();
        for row in rows {
            // The row with only the state of the feed has no change.
            let Some(docs) = row.get::<_, Option<Vec<i64>>>(4) else {
                continue;
            };
            let columns = [(5, &mut newest.epochs), (6, &mut newest.heads)];
            for (column, newest) in columns {
                let Some(values) = row.get::<_, Option<Vec<i64>>>(column) else {
                    continue;
                };
                if values.len() != docs.len() {
                    return Err(PostgresError::Other(
                        "a row of the table changes has arrays of different lengths".to_owned(),
                    ));
                }
                for (doc, value) in docs.iter().zip(values) {
                    let known = newest.entry(*doc).or_insert(value);
                    *known = value.max(*known);
                }
            }
        }
        Ok(newest)
    }
}

/// The names of the documents that changed. Documents without a row are omitted.
async fn names(
    pool: &Pool,
    numbers: &NumberCache,
    newest: &Newest,
) -> Result<HashMap<i64, DocId>, PostgresError> {
    let wanted = newest.epochs.keys().chain(newest.heads.keys()).copied();
    let (mut names, unknown) = numbers.names(wanted);
    for unknown in unknown.chunks(NAMES_MAX) {
        for row in pool.query(NAMES, &[&unknown]).await? {
            let (number, collection, id): (i64, &str, &str) = (row.get(0), row.get(1), row.get(2));
            let doc = DocId::parse(collection, id)
                .map_err(|error| PostgresError::Other(format!("{collection}/{id}: {error}")))?;
            numbers.insert_name(number, &doc);
            names.insert(number, doc);
        }
    }
    Ok(names)
}

/// Starts the task that deletes rows older than `kept`. Each node runs it; the row lock lets one delete at a time.
pub(super) fn start_trimming(pool: Pool, kept: Duration) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut trimmer = Trimmer {
            kept,
            snapshots: VecDeque::new(),
        };
        loop {
            sleep(kept / TRIMS_IN_KEPT).await;
            if let Err(error) = trimmer.trim(&pool, Instant::now()).await {
                tracing::debug!(%error, "old rows of the table changes were not deleted: retrying later");
            }
        }
    })
}

/// Deletes old rows.
struct Trimmer {
    kept: Duration,
    /// The snapshots of the last `kept`, oldest first, with the times at which they were taken.
    snapshots: VecDeque<(Instant, Arc<str>)>,
}

impl Trimmer {
    /// Deletes the rows that were visible `kept` before `now`.
    async fn trim(&mut self, pool: &Pool, now: Instant) -> Result<(), PostgresError> {
        let mut until = None;
        while let Some((at, _)) = self.snapshots.front()
            && now.duration_since(*at) >= self.kept
        {
            until = self.snapshots.pop_front().map(|(_, snapshot)| snapshot);
        }
        let rows = pool.query(TRIM, &[&until.as_deref()]).await?;
        if let Some(row) = rows.first() {
            let snapshot = row.get::<_, &str>(0).into();
            self.snapshots.push_back((now, snapshot));
        }
        Ok(())
    }
}
