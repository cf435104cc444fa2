//! The history of the shared database, and how the start of a node detects that the database went back in time.
//!
//! Running nodes compare the log with what they hold ([`fingerprints`]). If no node runs, the identity of the server is
//! compared with the recorded one: a restored dump is in another cluster of Postgres, another database or other tables,
//! and a promotion or a point-in-time recovery begins a new timeline. The rollback of a whole volume changes none of
//! them, so an operator must report it with `copydesk restored`.

use std::time::Duration;

use tokio_postgres::Row;

use super::error::PostgresError;
use super::number_cache::place;
use super::open_documents::clamp;
use super::pool::Pool;
use crate::id::DocId;
use crate::log::{Epoch, Revision};
use crate::store::History;
use crate::store::history::stored_fingerprint;

const CURRENT: &str = "SELECT generation, id FROM history";

/// The history that the database has.
pub(super) async fn current(pool: &Pool) -> Result<History, PostgresError> {
    let rows = pool.query(CURRENT, &[]).await?;
    read(rows.first().ok_or_else(is_missing)?, 0)
}

/// Reads a history from the columns `generation`, at `column`, and `id` after it.
pub(super) fn read(row: &Row, column: usize) -> Result<History, PostgresError> {
    let id: &[u8] = row.get(column + 1);
    let id = id.try_into();
    let id =
        id.map_err(|_| PostgresError::Other("history.id does not have 16 bytes".to_owned()))?;
    Ok(History {
        generation: row.get::<_, i64>(column).cast_unsigned(),
        id: u128::from_be_bytes(id),
    })
}

/// The error if the table `history` is empty.
pub(super) fn is_missing() -> PostgresError {
    PostgresError::Other("the table `history` has no row: restore it from a backup".to_owned())
}

const RENEW: &str = "
UPDATE history
SET generation = $1, id = $2, place = $3
WHERE id = $4";

/// Replaces the history `known` by `next` if the database has `known`, and records its place. Returns the history that
/// the database has then.
pub(super) async fn renew(
    pool: &Pool,
    known: History,
    next: History,
) -> Result<History, PostgresError> {
    let (new, old) = (next.id.to_be_bytes(), known.id.to_be_bytes());
    let generation = next.generation.cast_signed();
    let here = where_it_is(pool).await?;
    let mut connection = pool.acquire().await?;
    connection
        .query(RENEW, &[&generation, &&new[..], &here, &&old[..]])
        .await?;
    let rows = connection.query(CURRENT, &[]).await?;
    read(rows.first().ok_or_else(is_missing)?, 0)
}

/// The cluster of Postgres, the timeline, the database and the tables. Unlike the place in a heartbeat, it survives a
/// restart of the server. Not each user or provider has access to it; then `TABLES` is used.
const PLACE: &str = "
SELECT concat_ws('/', (SELECT system_identifier FROM pg_control_system()),
  left(pg_walfile_name(pg_current_wal_lsn()), 8),
  (SELECT oid FROM pg_database WHERE datname = current_database()), to_regclass('history')::oid)";

const TABLES: &str = "
SELECT concat_ws('/', (SELECT oid FROM pg_database WHERE datname = current_database()), to_regclass('history')::oid)";

/// Records the place of the history. If it was recorded at another place and no node lives, the history is renewed with
/// the id `$2`: nothing can show whether entries were lost. A live node compares the logs and then records the place
/// itself.
const COMPARE: &str = "
UPDATE history
SET place = $1,
  generation = CASE WHEN history.place IN ('', $1) THEN history.generation ELSE history.generation + 1 END,
  id = CASE WHEN history.place IN ('', $1) THEN history.id ELSE $2 END
FROM (SELECT place AS before FROM history FOR UPDATE) AS locked
WHERE history.place <> $1 AND (history.place = '' OR NOT EXISTS (
  SELECT 1
  FROM nodes
  WHERE beat_at >= clock_timestamp() - $3 * interval '1 millisecond'))
RETURNING locked.before, history.generation";

/// Compares the place of the database with the recorded one. Called at the start of a node.
pub(super) async fn compare(pool: &Pool, dead_after: Duration) -> Result<(), PostgresError> {
    let here = where_it_is(pool).await?;
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| PostgresError::Other(error.to_string()))?;
    let dead_after = dead_after.as_secs_f64() * 1e3;
    let rows = pool.query(COMPARE, &[&here, &&id[..], &dead_after]).await?;
    let Some(row) = rows.first() else {
        return Ok(());
    };
    let (before, generation): (&str, i64) = (row.get(0), row.get(1));
    if !before.is_empty() {
        tracing::error!(
            before,
            here,
            generation,
            "the database was restored or another server was promoted while no node ran: its history was renewed, and clients of the previous history must reload"
        );
    }
    Ok(())
}

async fn where_it_is(pool: &Pool) -> Result<String, PostgresError> {
    let rows = match pool.query(PLACE, &[]).await {
        Err(PostgresError::Sql(error)) if error.code().is_some() => pool.query(TABLES, &[]).await?,
        other => other?,
    };
    Ok(rows.first().ok_or_else(is_missing)?.get(0))
}

/// Each entry is looked up by its key: a join could be planned as a scan of the whole table.
const ENTRIES: &str = "
SELECT asked.place, entry.epoch, entry.author, entry.client, entry.seq
FROM unnest($1::text[], $2::text[], $3::bigint[]) WITH ORDINALITY AS asked (collection, id, revision, place)
CROSS JOIN LATERAL (
  SELECT number FROM documents WHERE collection = asked.collection AND id = asked.id LIMIT 1
) AS document
CROSS JOIN LATERAL (
  SELECT epoch, author, client, seq FROM entries WHERE doc = document.number AND revision = asked.revision LIMIT 1
) AS entry";

/// How many entries one statement looks up.
const ENTRIES_MAX: usize = 10_000;

/// The fingerprint of the entry at each of these revisions; `None` if there is no such entry. Documents are looked up
/// by name, because their numbers may have changed in a database that went back in time.
pub(super) async fn fingerprints(
    pool: &Pool,
    entries: &[(DocId, Revision)],
) -> Result<Vec<Option<u64>>, PostgresError> {
    let mut found = Vec::with_capacity(entries.len());
    for chunk in entries.chunks(ENTRIES_MAX) {
        let collections: Vec<_> = chunk
            .iter()
            .map(|(doc, _)| doc.collection.as_str())
            .collect();
        let ids: Vec<_> = chunk.iter().map(|(doc, _)| doc.id.as_str()).collect();
        let revisions: Vec<_> = chunk.iter().map(|(_, revision)| clamp(*revision)).collect();
        let mut answers = vec![None; chunk.len()];
        let rows = pool
            .query(ENTRIES, &[&collections, &ids, &revisions])
            .await?;
        for row in rows {
            answers[place(&row)] = Some(fingerprint_in(&row));
        }
        found.append(&mut answers);
    }
    Ok(found)
}

fn fingerprint_in(row: &Row) -> u64 {
    let epoch = Epoch(row.get::<_, i64>(1).cast_unsigned());
    let author = String::from_utf8_lossy(row.get(2));
    stored_fingerprint(
        epoch,
        &author,
        row.get(3),
        row.get::<_, i64>(4).cast_unsigned(),
    )
}
