//! Heartbeats: the nodes that are live.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::error::PostgresError;
use super::history;
use super::migrate::NEWEST;
use super::pool::Pool;
use crate::id::NodeId;
use crate::store::{Heartbeat, HeartbeatReply, LiveNode};
use crate::version::{Capabilities, NodeVersion, WireRange};

/// How long the row of a silent node is kept, for operators.
const KEPT: Duration = Duration::from_secs(600);

/// Writes this node's heartbeat, deletes the rows of nodes that have been silent for long, and returns the other live
/// nodes (NULLs if there are none) with the server's time, the history, and an identifier of the server, the database
/// and the tables. It needs no special privileges. Liveness is decided by the server's clock alone.
const BEAT: &str = "
WITH beat AS (
  INSERT INTO nodes (id, name, takes_part, beat_at, wire_oldest, wire_newest, capabilities, program, schema, address,
    records_changes)
  VALUES ($1, $2, $3, clock_timestamp(), $6, $7, $8, $9, $10, $11, true)
  ON CONFLICT (id) DO UPDATE
  SET name = excluded.name, takes_part = excluded.takes_part, beat_at = excluded.beat_at, address = excluded.address,
      wire_oldest = excluded.wire_oldest, wire_newest = excluded.wire_newest,
      capabilities = excluded.capabilities, program = excluded.program, schema = excluded.schema,
      records_changes = excluded.records_changes
), forgotten AS (
  DELETE FROM nodes
  WHERE id <> $1 AND beat_at < clock_timestamp() - $5 * interval '1 millisecond'
)
SELECT others.id, others.takes_part, history.generation, history.id,
  concat_ws('/', extract(epoch FROM pg_postmaster_start_time()),
    (SELECT oid FROM pg_database WHERE datname = current_database()), to_regclass('history')::oid),
  (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
  others.name, others.wire_oldest, others.wire_newest, others.capabilities, others.program, others.address
FROM history
LEFT JOIN (
  SELECT id, takes_part, name, wire_oldest, wire_newest, capabilities, program, address
  FROM nodes
  WHERE id <> $1 AND beat_at >= clock_timestamp() - $4 * interval '1 millisecond'
) AS others ON true";

/// Sends a heartbeat.
pub(super) async fn heartbeat(
    pool: &Pool,
    beat: &Heartbeat,
    dead_after: Duration,
) -> Result<HeartbeatReply, PostgresError> {
    let me = beat.me.0.cast_signed();
    let name = beat.name.as_bytes();
    let [dead_after, kept] =
        [dead_after, KEPT.max(dead_after * 2)].map(|it| it.as_secs_f64() * 1e3);
    let address = beat.address.as_deref();
    let NodeVersion {
        wire,
        capabilities,
        program,
    } = &beat.version;
    let [oldest, newest] = [wire.oldest, wire.newest].map(i16::from);
    let (capabilities, program) = (capabilities.0.cast_signed(), &**program);
    let values: [&(dyn ToSql + Sync); 11] = [
        &me,
        &name,
        &beat.takes_part,
        &dead_after,
        &kept,
        &oldest,
        &newest,
        &capabilities,
        &program,
        &NEWEST,
        &address,
    ];
    let rows = pool.query(BEAT, &values).await?;
    let first = rows.first().ok_or_else(history::is_missing)?;
    let mut others: Vec<_> = rows.iter().filter_map(live_node).collect();
    others.sort_unstable_by_key(|node| node.id);
    let taking = others.iter().filter(|node| node.takes_part);
    let taking = taking.map(|node| node.id);
    let mut nodes: Vec<_> = taking.chain(beat.takes_part.then_some(beat.me)).collect();
    nodes.sort_unstable();
    let address = |row: &Row| {
        let id = row.get::<_, Option<i64>>(0)?;
        let address = row.get::<_, Option<&str>>(11)?;
        Some((NodeId(id.cast_unsigned()), address.into()))
    };
    Ok(HeartbeatReply {
        nodes,
        others,
        store_ms: u64::try_from(first.get::<_, i64>(5)).ok(),
        history: history::read(first, 2)?,
        place: first.get::<_, String>(4).into(),
        addresses: rows.iter().filter_map(address).collect(),
    })
}

/// The other node of a row of [`BEAT`]; `None` if there is none. Versions out of range are read as the nearest valid
/// one.
fn live_node(row: &Row) -> Option<LiveNode> {
    let id: Option<i64> = row.get(0);
    let wire_version = |at: usize| u8::try_from(row.get::<_, i16>(at).max(0)).unwrap_or(u8::MAX);
    Some(LiveNode {
        id: NodeId(id?.cast_unsigned()),
        takes_part: row.get(1),
        name: String::from_utf8_lossy(row.get(6)).into(),
        version: NodeVersion {
            wire: WireRange {
                oldest: wire_version(7),
                newest: wire_version(8),
            },
            capabilities: Capabilities(row.get::<_, i64>(9).cast_unsigned()),
            program: row.get::<_, &str>(10).into(),
        },
    })
}

/// Fails if the server or its user is read-only. Changes nothing.
const CHECK_WRITES: &str = "
UPDATE nodes
SET beat_at = beat_at
WHERE id = (SELECT id FROM nodes ORDER BY id LIMIT 1)";

/// Checks that the server accepts writes, by one that changes nothing.
pub(super) async fn check_writes(pool: &Pool) -> Result<(), PostgresError> {
    pool.query(CHECK_WRITES, &[]).await.map(drop)
}
