//! Fills the index over titles of a database that is older than the index, bit by bit and while nodes serve.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::error::PostgresError;
use super::pool::Pool;

/// How many documents one statement adds.
const BATCH: i64 = 500;

/// How long the others have the connection and Postgres to themselves between two statements.
const PAUSE: Duration = Duration::from_millis(20);

/// How long to wait while another node does it, or Postgres does not answer.
const RETRY: Duration = Duration::from_secs(10);

/// Adds the titles of the next documents. Answers with a row if this node did so: the number of the last document, and
/// whether it was the last of all. A title that was changed meanwhile is there already.
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

/// Starts the task that fills the index, and ends once it is full. Each node has it; one at a time adds titles.
pub(super) fn start_indexing(pool: Pool) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            match fill(&pool).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%error, "the index over titles is not full yet: retrying in 10 s");
                }
            }
            sleep(RETRY).await;
        }
    })
}

/// Adds titles until there are no more; `false`: another node does.
async fn fill(pool: &Pool) -> Result<bool, PostgresError> {
    let rows = pool.query(IS_COMPLETE, &[]).await?;
    if rows.first().is_none_or(|row| row.get(0)) {
        return Ok(true);
    }
    tracing::info!(
        "adding the titles of older documents to the index; searches look at the newest documents first meanwhile"
    );
    loop {
        let rows = pool.query(ADD, &[&BATCH]).await?;
        let Some(row) = rows.first() else {
            return Ok(false);
        };
        if row.get(1) {
            tracing::info!("the index over titles is full");
            return Ok(true);
        }
        sleep(PAUSE).await;
    }
}
