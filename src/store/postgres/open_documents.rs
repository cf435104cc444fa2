//! The comparison of a node's open documents with the database, for when the feed of changes is incomplete.

use tokio_postgres::Row;

use super::error::PostgresError;
use super::number_cache::{self, NumberCache, place};
use super::pool::Pool;
use crate::id::DocId;
use crate::log::Revision;
use crate::store::{DocumentChanges, OpenDocuments};

/// The positions of the documents with another epoch. Each document is looked up by its key: a join could be planned as a
/// scan of the whole table.
const LOST: &str = "
SELECT asked.place
FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS asked (doc, epoch, place)
WHERE asked.epoch IS DISTINCT FROM (SELECT heads.epoch FROM heads WHERE heads.doc = asked.doc)";

/// The heads of the documents that have newer entries, also by key.
const NEWER: &str = "
SELECT asked.place, head.revision
FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS asked (doc, known, place)
CROSS JOIN LATERAL (
  SELECT revision FROM entries WHERE doc = asked.doc AND revision > asked.known ORDER BY revision DESC LIMIT 1
) AS head";

/// Compares the open documents of a node with the database, in statements of a bounded size.
pub(super) async fn compare_open(
    pool: &Pool,
    numbers: &NumberCache,
    open: &OpenDocuments,
) -> Result<DocumentChanges, PostgresError> {
    let mut changes = DocumentChanges::default();
    for owned in open.owned.chunks(DOCUMENTS_MAX) {
        let asked =
            ComparedDocuments::about(pool, numbers, owned, |epoch| epoch.0.cast_signed()).await?;
        let rows = asked.ask(pool, LOST).await?;
        let lost = rows.iter().map(|row| asked.docs[place(row)]);
        // A document without a row is lost as well.
        changes.lost.extend(lost.chain(asked.unknown).cloned());
    }
    for followed in open.followed.chunks(DOCUMENTS_MAX) {
        let asked =
            ComparedDocuments::about(pool, numbers, followed, |known| clamp(*known)).await?;
        let rows = asked.ask(pool, NEWER).await?;
        let newer = rows.iter().map(|row| {
            let head = Revision(row.get::<_, i64>(1).cast_unsigned());
            (asked.docs[place(row)].clone(), head)
        });
        changes.newer.extend(newer);
    }
    Ok(changes)
}

/// How many documents one statement compares.
const DOCUMENTS_MAX: usize = 10_000;

/// Documents to compare, as columns.
struct ComparedDocuments<'a> {
    docs: Vec<&'a DocId>,
    numbers: Vec<i64>,
    /// The epoch or the revision that the node has of each.
    known: Vec<i64>,
    /// The documents that were never claimed.
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

/// A revision as an integer of the tables, which have a smaller range.
pub(super) fn clamp(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}
