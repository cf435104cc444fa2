//! The task that fills the index over titles in a database that is older than the index, while nodes serve.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::error::PostgresError;
use super::pool::Pool;

/// How many documents one statement indexes.
const BATCH: i64 = 500;

/// The pause between two statements, for other users of the connection and of Postgres.
const PAUSE: Duration = Duration::from_millis(20);

/// How long to wait while another node fills the index, or after an error.
const RETRY: Duration = Duration::from_secs(10);

/// Indexes the titles of the next documents. Returns a row if this node did so: the number of the last document, and
/// whether it was the last of all. A title that was changed meanwhile is in the index already.
const ADD: &str = "
WITH progress AS MATERIALIZED (
  SELECT number
  FROM titles_progress
  WHERE one AND NOT is_complete
  FOR UPDATE SKIP LOCKED
), next AS MATERIALIZED (
  SELECT documents.number, documents.collection, documents.title_folded
  FROM progress
  CROSS JOIN LATERAL (
    SELECT * FROM documents WHERE documents.number > progress.number ORDER BY documents.number LIMIT $1
  ) AS documents
), added AS (
  INSERT INTO titles (doc, collection, folded)
  SELECT number, collection, title_folded
  FROM next
  WHERE title_folded <> ''
  ON CONFLICT DO NOTHING
)
UPDATE titles_progress
SET number = coalesce((SELECT max(next.number) FROM next), titles_progress.number),
    is_complete = (SELECT count(*) FROM next) < $1
FROM progress
RETURNING titles_progress.number, titles_progress.is_complete";

const IS_COMPLETE: &str = "SELECT is_complete FROM titles_progress WHERE one";

/// Starts the task that fills the index and then ends. Each node runs it; one at a time indexes titles.
pub(super) fn start_indexing(pool: Pool) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            match fill(&pool).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%error, "the index over titles is not complete: retrying in 10 s");
                }
            }
            sleep(RETRY).await;
        }
    })
}

/// Indexes titles until all are done. Returns false if another node does it.
async fn fill(pool: &Pool) -> Result<bool, PostgresError> {
    let rows = pool.query(IS_COMPLETE, &[]).await?;
    if rows.first().is_none_or(|row| row.get(0)) {
        return Ok(true);
    }
    tracing::info!(
        "indexing the titles of older documents; until this is done, searches find recently edited documents only"
    );
    loop {
        let rows = pool.query(ADD, &[&BATCH]).await?;
        let Some(row) = rows.first() else {
            return Ok(false);
        };
        if row.get(1) {
            tracing::info!("the index over titles is complete");
            return Ok(true);
        }
        sleep(PAUSE).await;
    }
}
