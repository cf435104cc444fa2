//! Ends connections that hold the row of a document for too long.
//!
//! A process that is stopped in the middle of a statement keeps its locks; no timeout of the server applies. A claim of
//! the document ends that connection. Its statement would be fenced anyway.

use std::time::Duration;

use tokio::time::sleep;

use super::error::PostgresError;
use super::pool::{Pool, PooledConnection};

/// Ends the connections of nodes that block `$1`, and returns them and other blocking connections. Connections that
/// wait for a lock themselves are not ended, because their blockers block `$1` as well; nor are those that wait for the
/// standbys, because a claim would wait for the standbys next.
const FREE: &str = "
SELECT
  activity.pid,
  activity.application_name,
  CASE WHEN activity.application_name LIKE 'copydesk:%' THEN pg_terminate_backend(activity.pid) ELSE false END
FROM pg_stat_activity AS activity
WHERE activity.pid = ANY (pg_blocking_pids($1))
  AND activity.wait_event_type IS DISTINCT FROM 'Lock'
  AND activity.wait_event IS DISTINCT FROM 'SyncRep'";

/// The process id of this connection at the server.
pub(super) async fn backend_pid(connection: &mut PooledConnection) -> Result<i32, PostgresError> {
    let rows = connection.query("SELECT pg_backend_pid()", &[]).await?;
    let pid = rows.first().map(|row| row.get(0));
    pid.ok_or_else(|| PostgresError::Other("pg_backend_pid returned no row".to_owned()))
}

/// Ends the connections that block the connection `pid` after `patience`, and once more after that, because several may
/// hold the row.
pub(super) async fn break_locks(pool: &Pool, pid: i32, patience: Duration) {
    for _ in 0..2 {
        sleep(patience).await;
        let found = match pool.query(FREE, &[&pid]).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the connections that block a claim cannot be listed");
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
                    "ended a connection that blocked a claim by holding a document's row"
                );
            } else {
                tracing::error!(
                    holder,
                    name,
                    "a connection of another program blocks a claim by holding a document's row"
                );
            }
        }
    }
}
