//! Who lives, what was lost, and what is newer.

use std::time::Duration;

use tokio_postgres::types::ToSql;

use super::fault::Fault;
use super::pool::{Lease, Pool};
use crate::id::{DocId, NodeId};
use crate::log::{Epoch, Revision};
use crate::store::{Beat, News, Open, Pulse};

/// How long the row of a node that says nothing more is kept, for people.
const KEPT: Duration = Duration::from_secs(600);

/// Says "I live", forgets who has not for long, and returns who else lives, and whether it takes documents. All by this
/// server's clock: nodes' clocks are not compared.
const BEAT: &str = "
WITH beat AS (
  INSERT INTO nodes (id, name, takes_part, beat_at)
  VALUES ($1, $2, $3, clock_timestamp())
  ON CONFLICT (id) DO UPDATE
  SET name = excluded.name, takes_part = excluded.takes_part, beat_at = excluded.beat_at
), forgotten AS (
  DELETE FROM nodes
  WHERE id <> $1 AND beat_at < clock_timestamp() - $5 * interval '1 millisecond'
)
SELECT id, takes_part
FROM nodes
WHERE id <> $1 AND beat_at >= clock_timestamp() - $4 * interval '1 millisecond'";

const LOST: &str = "
SELECT asked.place
FROM unnest($1::text[], $2::text[], $3::bigint[]) WITH ORDINALITY AS asked (collection, id, epoch, place)
WHERE NOT EXISTS (
  SELECT 1
  FROM documents
  JOIN heads ON heads.doc = documents.number
  WHERE documents.collection = asked.collection AND documents.id = asked.id AND heads.epoch = asked.epoch)
ORDER BY asked.place";

const NEWER: &str = "
SELECT asked.place, head.revision
FROM unnest($1::text[], $2::text[], $3::bigint[]) WITH ORDINALITY AS asked (collection, id, known, place)
JOIN documents USING (collection, id)
CROSS JOIN LATERAL (
  SELECT entries.revision FROM entries WHERE entries.doc = documents.number ORDER BY entries.revision DESC LIMIT 1
) AS head
WHERE head.revision > asked.known
ORDER BY asked.place";

/// One heartbeat.
pub(super) async fn beat(pool: &Pool, beat: &Beat, dead_after: Duration) -> Result<Pulse, Fault> {
    let me = beat.me.0.cast_signed();
    let name = beat.name.as_bytes();
    let [dead_after, kept] =
        [dead_after, KEPT.max(dead_after * 2)].map(|it| it.as_secs_f64() * 1e3);
    let values: [&(dyn ToSql + Sync); 5] = [&me, &name, &beat.takes_part, &dead_after, &kept];
    let others = pool.query(BEAT, &values).await?;
    let taking = others.iter().filter(|row| row.get(1));
    let taking = taking.map(|row| NodeId(row.get::<_, i64>(0).cast_unsigned()));
    let mut nodes: Vec<_> = taking.chain(beat.takes_part.then_some(beat.me)).collect();
    nodes.sort_unstable();
    Ok(Pulse {
        nodes,
        others: others.len(),
    })
}

/// What is new of a node's open documents. So many at a time that a statement takes no longer than it may.
pub(super) async fn news(pool: &Pool, open: &Open) -> Result<News, Fault> {
    let mut news = News::default();
    for owned in open.owned.chunks(NEWS_MAX) {
        news.lost
            .extend(lost(&mut pool.lease().await?, owned).await?);
    }
    for followed in open.followed.chunks(NEWS_MAX) {
        news.newer
            .extend(newer(&mut pool.lease().await?, followed).await?);
    }
    Ok(news)
}

/// How many documents one statement asks about.
const NEWS_MAX: usize = 10_000;

/// Which of these documents have been claimed by others.
async fn lost(connection: &mut Lease, owned: &[(DocId, Epoch)]) -> Result<Vec<DocId>, Fault> {
    let epochs = owned.iter().map(|(_, epoch)| epoch.0.cast_signed());
    let rows = ask(connection, LOST, owned, epochs.collect()).await?;
    let places = rows.iter().map(|row| place(row.get(0)));
    Ok(places.map(|at| owned[at].0.clone()).collect())
}

/// Which of `followed` have a newer head, and which.
async fn newer(
    connection: &mut Lease,
    followed: &[(DocId, Revision)],
) -> Result<Vec<(DocId, Revision)>, Fault> {
    let known = followed.iter().map(|(_, known)| clamp(*known));
    let rows = ask(connection, NEWER, followed, known.collect()).await?;
    let newer = rows.iter().map(|row| {
        let head = Revision(row.get::<_, i64>(1).cast_unsigned());
        (followed[place(row.get(0))].0.clone(), head)
    });
    Ok(newer.collect())
}

async fn ask<T>(
    connection: &mut Lease,
    sql: &'static str,
    docs: &[(DocId, T)],
    numbers: Vec<i64>,
) -> Result<Vec<tokio_postgres::Row>, Fault> {
    let collections: Vec<_> = docs
        .iter()
        .map(|(doc, _)| doc.collection.as_str())
        .collect();
    let ids: Vec<_> = docs.iter().map(|(doc, _)| doc.id.as_str()).collect();
    connection.query(sql, &[&collections, &ids, &numbers]).await
}

/// The place in a list that the statement counts from one.
fn place(place: i64) -> usize {
    usize::try_from(place - 1).unwrap_or(0)
}

/// A revision as the tables' integers, which end earlier.
pub(super) fn clamp(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}
