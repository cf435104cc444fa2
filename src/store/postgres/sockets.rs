//! What nodes state about themselves besides heartbeats: their sockets and names.

use std::time::Duration;

use tokio_postgres::types::ToSql;

use super::error::PostgresError;
use super::pool::Pool;
use crate::id::NodeId;

/// Writes the number of this node's sockets, and returns those of the other live nodes that take part.
const SHARE: &str = "
WITH told AS (
  UPDATE nodes
  SET sockets = $2
  WHERE id = $1
)
SELECT sockets
FROM nodes
WHERE id <> $1
  AND takes_part
  AND sockets IS NOT NULL
  AND beat_at >= clock_timestamp() - $3 * interval '1 millisecond'";

pub(super) async fn share(
    pool: &Pool,
    me: NodeId,
    sockets: u64,
    dead_after: Duration,
) -> Result<Vec<u64>, PostgresError> {
    let me = me.0.cast_signed();
    let sockets = i64::try_from(sockets).unwrap_or(i64::MAX);
    let dead_after = dead_after.as_secs_f64() * 1e3;
    let values: [&(dyn ToSql + Sync); 3] = [&me, &sockets, &dead_after];
    let rows = pool.query(SHARE, &values).await?;
    let others = rows.iter().map(|row| row.get::<_, i64>(0));
    Ok(others.map(|it| u64::try_from(it).unwrap_or(0)).collect())
}

/// The name of a node.
pub(super) async fn name_of(pool: &Pool, id: NodeId) -> Result<Option<String>, PostgresError> {
    let id = id.0.cast_signed();
    let rows = pool
        .query("SELECT name FROM nodes WHERE id = $1", &[&id])
        .await?;
    let name = rows.first().map(|row| row.get::<_, &[u8]>(0));
    Ok(name.map(|name| String::from_utf8_lossy(name).into_owned()))
}
