//! Saving snapshots.

use super::error::PostgresError;
use super::load::run_blocking;
use super::pool::{Pool, PooledConnection};
use crate::id::DocId;
use crate::log::{Fence, Revision, Snapshot};
use crate::store::snapshot_codec::{Packing, pack, verify};
use crate::store::snapshot_retention::Retention;

/// Saves a snapshot if the fence is valid and the log reaches its revision. Returns the number and the head of the document
/// if the fence is valid.
const SAVE: &str = "
WITH mine AS (
  SELECT heads.doc, coalesce(
    (SELECT entries.revision FROM entries WHERE entries.doc = heads.doc ORDER BY entries.revision DESC LIMIT 1),
    0) AS head
  FROM documents
  JOIN heads ON heads.doc = documents.number
  WHERE documents.collection = $1 AND documents.id = $2 AND heads.epoch = $3 AND heads.token = $4
  FOR SHARE OF heads
), saved AS (
  INSERT INTO snapshots (doc, revision, epoch, data)
  SELECT mine.doc, $5, $3, $6
  FROM mine
  WHERE $5 <= mine.head
  ON CONFLICT (doc, revision) DO UPDATE
  SET epoch = excluded.epoch, data = excluded.data
)
SELECT doc, head FROM mine";

/// Saves a snapshot, unless the fence is void.
pub(super) async fn save(
    pool: &Pool,
    doc: &DocId,
    fence: Fence,
    snapshot: Snapshot,
    packing: Packing,
) -> Result<(), PostgresError> {
    let revision = snapshot.revision;
    if revision == Revision::ZERO {
        // Every document is empty at revision zero.
        return Ok(());
    }
    let packed = run_blocking(move || pack(&snapshot, packing)).await?;
    let (collection, id) = (doc.collection.as_str(), doc.id.as_str());
    let (epoch, token) = (fence.epoch.0.cast_signed(), fence.token.to_be_bytes());
    let (token, at) = (token.as_slice(), revision.0.cast_signed());
    let mut connection = pool.acquire().await?;
    let rows = connection
        .query(SAVE, &[&collection, &id, &epoch, &token, &at, &packed])
        .await?;
    let Some(row) = rows.first() else {
        return Ok(());
    };
    let (number, head): (i64, i64) = (row.get(0), row.get(1));
    if at > head {
        return Err(PostgresError::Other(format!(
            "{doc}: the log ends before {revision}"
        )));
    }
    remove_old_snapshots(&mut connection, number, revision, head.cast_unsigned()).await
}

/// Deletes the snapshots that are no longer needed; see [`Retention`]. The one that was just `saved` is readable.
async fn remove_old_snapshots(
    connection: &mut PooledConnection,
    number: i64,
    saved: Revision,
    head: u64,
) -> Result<(), PostgresError> {
    let rows = connection
        .query(
            "SELECT revision FROM snapshots WHERE doc = $1 ORDER BY revision DESC",
            &[&number],
        )
        .await?;
    let revisions = rows.iter().map(|row| row.get::<_, i64>(0).cast_unsigned());
    let mut retention = Retention::new(revisions.collect());
    while let Some(revision) = retention.next_unchecked() {
        let revision = Revision(revision);
        let is_readable = revision == saved || is_readable(connection, number, revision).await?;
        retention.record(is_readable);
    }
    let removable = retention.removable(head);
    let removable: Vec<i64> = removable.into_iter().map(u64::cast_signed).collect();
    if !removable.is_empty() {
        connection
            .query(
                "DELETE FROM snapshots WHERE doc = $1 AND revision = ANY ($2)",
                &[&number, &removable],
            )
            .await?;
    }
    Ok(())
}

async fn is_readable(
    connection: &mut PooledConnection,
    number: i64,
    revision: Revision,
) -> Result<bool, PostgresError> {
    let rows = connection
        .query(
            "SELECT data FROM snapshots WHERE doc = $1 AND revision = $2",
            &[&number, &revision.0.cast_signed()],
        )
        .await?;
    let verify = move || {
        let row = rows.first();
        row.is_some_and(|row| verify(revision, row.get(0)).is_ok())
    };
    run_blocking(verify).await
}
