//! Rows that are held for too long.
//!
//! A process that is stopped between the parts of a statement holds its rows for ever: no timeout of the server applies
//! to it. Whoever wants to claim such a document ends that connection. What it was about to write is fenced anyway.

use std::time::Duration;

use tokio::time::sleep;

use super::error::PostgresError;
use super::pool::{Pool, PooledConnection};

/// Ends the connections of ours that stand in the way of `$1`; names the others. Not those that wait themselves: who
/// holds what they wait for stands in their way too. And not those that wait for the standbys: a claim would wait next.
const FREE: &str = "
SELECT
  activity.pid,
  activity.application_name,
  CASE WHEN activity.application_name LIKE 'copydesk:%' THEN pg_terminate_backend(activity.pid) ELSE false END
FROM pg_stat_activity AS activity
WHERE activity.pid = ANY (pg_blocking_pids($1))
  AND activity.wait_event_type IS DISTINCT FROM 'Lock'
  AND activity.wait_event IS DISTINCT FROM 'SyncRep'";

/// By which number the server knows this connection.
pub(super) async fn backend_pid(connection: &mut PooledConnection) -> Result<i32, PostgresError> {
    let rows = connection.query("SELECT pg_backend_pid()", &[]).await?;
    let pid = rows.first().map(|row| row.get(0));
    pid.ok_or_else(|| PostgresError::Other("a connection has no number".to_owned()))
}

/// Ends who stands in the way of the connection `pid`, after `patience`; then looks once more, for a row may be held by
/// several.
pub(super) async fn break_locks(pool: &Pool, pid: i32, patience: Duration) {
    for _ in 0..2 {
        sleep(patience).await;
        let found = match pool.query(FREE, &[&pid]).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "cannot see who holds a row");
                continue;
            }
        };
        for row in found {
            let (holder, name): (i32, Option<String>) = (row.get(0), row.get(1));
            let name = name.unwrap_or_default();
            if row.get(2) {
                tracing::warn!(
                    holder,
                    name,
                    "ended a connection that held a document's row"
                );
            } else {
                tracing::error!(holder, name, "a stranger holds a document's row");
            }
        }
    }
}
