//! The documents' numbers, remembered.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio_postgres::Row;

use crate::id::DocId;

/// The numbers of documents that were ever claimed, by their places in the question, which is [`names`].
pub(super) const FIND: &str = "
SELECT asked.place, known.number
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (collection, id, place)
CROSS JOIN LATERAL (
  SELECT number FROM documents WHERE collection = asked.collection AND id = asked.id LIMIT 1
) AS known";

/// The documents' collections, and their names in those.
pub(super) fn names<'a>(docs: &[&'a DocId]) -> (Vec<&'a str>, Vec<&'a str>) {
    let names = docs
        .iter()
        .map(|doc| (doc.collection.as_str(), doc.id.as_str()));
    names.unzip()
}

/// The place in a list that a statement counts from one.
pub(super) fn place(row: &Row) -> usize {
    usize::try_from(row.get::<_, i64>(0) - 1).unwrap_or(0)
}

/// How many are remembered. When there are more, all are forgotten and looked up again.
const NUMBERS_MAX: usize = 100_000;

/// The numbers that stand for documents in the tables. What is written by them is written under a fence: should one be
/// wrong, because the database was replaced by another, the fence does not hold.
#[derive(Debug, Default)]
pub(super) struct Numbers(Mutex<HashMap<DocId, i64>>);

impl Numbers {
    pub(super) fn of(&self, doc: &DocId) -> Option<i64> {
        self.lock().get(doc).copied()
    }

    pub(super) fn remember(&self, doc: &DocId, number: i64) {
        let mut numbers = self.lock();
        if numbers.len() >= NUMBERS_MAX {
            numbers.clear();
        }
        numbers.insert(doc.clone(), number);
    }

    /// Remembers what [`FIND`] found.
    pub(super) fn learn(&self, docs: &[&DocId], found: &[Row]) {
        for row in found {
            self.remember(docs[place(row)], row.get(1));
        }
    }

    pub(super) fn forget(&self, doc: &DocId) {
        self.lock().remove(doc);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<DocId, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
