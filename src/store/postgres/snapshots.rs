//! Snapshots: kept under the fence, and thinned out.

use super::error::PostgresError;
use super::load::run_blocking;
use super::pool::{Pool, PooledConnection};
use crate::id::DocId;
use crate::log::{Fence, Revision, Snapshot};
use crate::store::snapshot_codec::{Packing, pack, verify};
use crate::store::snapshot_retention::superfluous;

/// Keeps a snapshot where the fence holds and the log is as long. Says which document that is, and how long its log is.
const KEEP: &str = "
WITH mine AS (
  SELECT heads.doc, coalesce(
    (SELECT entries.revision FROM entries WHERE entries.doc = heads.doc ORDER BY entries.revision DESC LIMIT 1),
    0) AS head
  FROM documents
  JOIN heads ON heads.doc = documents.number
  WHERE documents.collection = $1 AND documents.id = $2 AND heads.epoch = $3 AND heads.token = $4
  FOR SHARE OF heads
), kept AS (
  INSERT INTO snapshots (doc, revision, epoch, data)
  SELECT mine.doc, $5, $3, $6
  FROM mine
  WHERE $5 <= mine.head
  ON CONFLICT (doc, revision) DO UPDATE
  SET epoch = excluded.epoch, data = excluded.data
)
SELECT doc, head FROM mine";

/// Keeps a snapshot, unless the fence is void.
pub(super) async fn save(
    pool: &Pool,
    doc: &DocId,
    fence: Fence,
    snapshot: Snapshot,
    packing: Packing,
) -> Result<(), PostgresError> {
    let revision = snapshot.revision;
    if revision == Revision::ZERO {
        // What every document is before its first entry.
        return Ok(());
    }
    let packed = run_blocking(move || pack(&snapshot, packing)).await?;
    let (collection, id) = (doc.collection.as_str(), doc.id.as_str());
    let (epoch, token) = (fence.epoch.0.cast_signed(), fence.token.to_be_bytes());
    let (token, at) = (token.as_slice(), revision.0.cast_signed());
    let mut connection = pool.acquire().await?;
    let rows = connection
        .query(KEEP, &[&collection, &id, &epoch, &token, &at, &packed])
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
    thin_out(&mut connection, number, at, head.cast_unsigned()).await
}

/// Forgets the snapshots that are no longer worth their place: see [`superfluous`]. The two newest good ones stay; the one
/// that was just `kept` is good without being read.
async fn thin_out(
    connection: &mut PooledConnection,
    number: i64,
    kept: i64,
    head: u64,
) -> Result<(), PostgresError> {
    let rows = connection
        .query(
            "SELECT revision FROM snapshots WHERE doc = $1 ORDER BY revision DESC",
            &[&number],
        )
        .await?;
    let revisions: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    let (mut good, mut newest) = (0, 0);
    while good < 2 && newest < revisions.len() {
        let revision = revisions[newest];
        let is_good = revision == kept || is_good(connection, number, revision).await?;
        good += usize::from(is_good);
        newest += 1;
    }
    let unsigned = |revision: &i64| revision.cast_unsigned();
    let older: Vec<u64> = revisions[newest..].iter().map(unsigned).collect();
    let newer = newest
        .checked_sub(1)
        .map_or(head, |at| unsigned(&revisions[at]));
    let gone = superfluous(head, newer, &older);
    let gone: Vec<i64> = gone.into_iter().map(u64::cast_signed).collect();
    if !gone.is_empty() {
        connection
            .query(
                "DELETE FROM snapshots WHERE doc = $1 AND revision = ANY ($2)",
                &[&number, &gone],
            )
            .await?;
    }
    Ok(())
}

async fn is_good(
    connection: &mut PooledConnection,
    number: i64,
    revision: i64,
) -> Result<bool, PostgresError> {
    let rows = connection
        .query(
            "SELECT data FROM snapshots WHERE doc = $1 AND revision = $2",
            &[&number, &revision],
        )
        .await?;
    let is_good = move || {
        let row = rows.first()?;
        verify(Revision(revision.cast_unsigned()), row.get(0)).ok()?;
        Some(())
    };
    Ok(run_blocking(is_good).await?.is_some())
}
