//! The documents' numbers, remembered.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio_postgres::Row;

use crate::id::DocId;

/// The numbers of documents that were ever claimed, by their places in the question, which is [`Lookup::question`].
pub(super) const FIND: &str = "
SELECT asked.place, known.number
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (collection, id, place)
CROSS JOIN LATERAL (
  SELECT number FROM documents WHERE collection = asked.collection AND id = asked.id LIMIT 1
) AS known";

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
    /// Begins to look for the numbers of documents: among those that are remembered.
    pub(super) fn look_up<'a>(&self, docs: impl Iterator<Item = &'a DocId>) -> Lookup<'a> {
        let remembered = self.lock();
        let found = docs.map(|doc| (doc, remembered.get(doc).copied()));
        Lookup(found.collect())
    }

    pub(super) fn remember(&self, doc: &DocId, number: i64) {
        let mut numbers = self.lock();
        if numbers.len() >= NUMBERS_MAX {
            numbers.clear();
        }
        numbers.insert(doc.clone(), number);
    }

    /// Forgets all numbers: the database went back in time or was replaced, and may give them to other documents.
    pub(super) fn forget_all(&self) {
        self.lock().clear();
    }

    pub(super) fn forget(&self, doc: &DocId) {
        self.lock().remove(doc);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<DocId, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Documents in their order, and their numbers as far as they are known. What is found stays found, whatever is forgotten
/// meanwhile.
pub(super) struct Lookup<'a>(Vec<(&'a DocId, Option<i64>)>);

impl<'a> Lookup<'a> {
    /// The collections and the names that [`FIND`] is to be asked about; `None`: all are known.
    pub(super) fn question(&self) -> Option<(Vec<&'a str>, Vec<&'a str>)> {
        let unknown = self.0.iter().filter(|(_, number)| number.is_none());
        let names = unknown.map(|(doc, _)| (doc.collection.as_str(), doc.id.as_str()));
        let question: (Vec<_>, Vec<_>) = names.unzip();
        (!question.0.is_empty()).then_some(question)
    }

    /// Takes in what [`FIND`] found, and has it remembered.
    pub(super) fn learn(&mut self, numbers: &Numbers, found: &[Row]) {
        let unknown = self.0.iter_mut().filter(|(_, number)| number.is_none());
        let mut unknown: Vec<_> = unknown.collect();
        for row in found {
            let (doc, number) = &mut *unknown[place(row)];
            *number = Some(row.get(1));
            numbers.remember(doc, row.get(1));
        }
    }

    /// The numbers, in the documents' order; `None`: nobody ever claimed that one.
    pub(super) fn numbers(&self) -> impl Iterator<Item = Option<i64>> {
        self.0.iter().map(|(_, number)| *number)
    }
}
