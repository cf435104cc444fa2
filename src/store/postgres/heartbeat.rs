//! Who lives, what was lost, and what is newer.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::error::PostgresError;
use super::history;
use super::migrate::NEWEST;
use super::number_cache::{self, NumberCache, place};
use super::pool::Pool;
use crate::id::{DocId, NodeId};
use crate::log::Revision;
use crate::store::{DocumentChanges, Heartbeat, HeartbeatReply, LiveNode, OpenDocuments};
use crate::version::{Capabilities, NodeVersion, WireRange};

/// How long the row of a node that says nothing more is kept, for people.
const KEPT: Duration = Duration::from_secs(600);

/// Writes this node's heartbeat, deletes the rows of nodes that have long been silent, and returns the other live nodes, or
/// NULLs if there is none, with this server's time, the history of the logs, and which server, database and tables answer.
/// Every user may ask for these. Who lives is decided by this server's clock alone.
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

/// Each document is looked up by itself: a plan that joins would read the tables whole, twice a second.
const LOST: &str = "
SELECT asked.place
FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS asked (doc, epoch, place)
WHERE asked.epoch IS DISTINCT FROM (SELECT heads.epoch FROM heads WHERE heads.doc = asked.doc)";

/// As above. Of a log that has nothing newer nothing is read.
const NEWER: &str = "
SELECT asked.place, head.revision
FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS asked (doc, known, place)
CROSS JOIN LATERAL (
  SELECT revision FROM entries WHERE doc = asked.doc AND revision > asked.known ORDER BY revision DESC LIMIT 1
) AS head";

/// One heartbeat.
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

/// The other node of a row of [`BEAT`]; `None` if there is none. A version that no node can have stated is read as the
/// nearest possible one.
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

/// Fails if this Postgres, or this user of it, takes no writes. Nothing is changed.
const CHECK_WRITES: &str = "
UPDATE nodes
SET beat_at = beat_at
WHERE id = (SELECT id FROM nodes ORDER BY id LIMIT 1)";

/// Writes something that changes nothing.
pub(super) async fn check_writes(pool: &Pool) -> Result<(), PostgresError> {
    pool.query(CHECK_WRITES, &[]).await.map(drop)
}

/// What is new of a node's open documents. So many at a time that a statement takes no longer than it may.
pub(super) async fn compare_open(
    pool: &Pool,
    numbers: &NumberCache,
    open: &OpenDocuments,
) -> Result<DocumentChanges, PostgresError> {
    let mut news = DocumentChanges::default();
    for owned in open.owned.chunks(NEWS_MAX) {
        let asked =
            ComparedDocuments::about(pool, numbers, owned, |epoch| epoch.0.cast_signed()).await?;
        let rows = asked.ask(pool, LOST).await?;
        let lost = rows.iter().map(|row| asked.docs[place(row)]);
        // What the tables know nothing of was lost with them.
        news.lost.extend(lost.chain(asked.unknown).cloned());
    }
    for followed in open.followed.chunks(NEWS_MAX) {
        let asked =
            ComparedDocuments::about(pool, numbers, followed, |known| clamp(*known)).await?;
        let rows = asked.ask(pool, NEWER).await?;
        let newer = rows.iter().map(|row| {
            let head = Revision(row.get::<_, i64>(1).cast_unsigned());
            (asked.docs[place(row)].clone(), head)
        });
        news.newer.extend(newer);
    }
    Ok(news)
}

/// How many documents one statement asks about.
const NEWS_MAX: usize = 10_000;

/// Documents that something is asked of, column by column.
struct ComparedDocuments<'a> {
    docs: Vec<&'a DocId>,
    numbers: Vec<i64>,
    /// What is known of each.
    known: Vec<i64>,
    /// Those that nobody ever claimed.
    unknown: Vec<&'a DocId>,
}

impl<'a> ComparedDocuments<'a> {
    async fn about<T>(
        pool: &Pool,
        numbers: &NumberCache,
        docs: &'a [(DocId, T)],
        known: impl Fn(&T) -> i64,
    ) -> Result<Self, PostgresError> {
        let mut lookup = numbers.look_up(docs.iter().map(|(doc, _)| doc));
        if let Some((collections, ids)) = lookup.missing() {
            let found = pool
                .query(number_cache::FIND, &[&collections, &ids])
                .await?;
            lookup.add(numbers, &found);
        }
        let mut asked = Self {
            docs: Vec::with_capacity(docs.len()),
            numbers: Vec::with_capacity(docs.len()),
            known: Vec::with_capacity(docs.len()),
            unknown: Vec::new(),
        };
        for ((doc, about), number) in docs.iter().zip(lookup.numbers()) {
            let Some(number) = number else {
                asked.unknown.push(doc);
                continue;
            };
            asked.docs.push(doc);
            asked.numbers.push(number);
            asked.known.push(known(about));
        }
        Ok(asked)
    }

    async fn ask(&self, pool: &Pool, sql: &'static str) -> Result<Vec<Row>, PostgresError> {
        if self.docs.is_empty() {
            return Ok(Vec::new());
        }
        pool.query(sql, &[&self.numbers, &self.known]).await
    }
}

/// A revision as the tables' integers, which end earlier.
pub(super) fn clamp(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}
