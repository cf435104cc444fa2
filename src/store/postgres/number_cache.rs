//! The cache of the numbers that stand for documents in the tables.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio_postgres::Row;

use crate::id::DocId;
use crate::store::bounded_cache::BoundedCache;
use crate::sync::lock;

/// The numbers of documents, with their positions in the query, which is [`Lookup::missing`]. Documents that were never
/// claimed have none.
pub(super) const FIND: &str = "
SELECT asked.place, known.number
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (collection, id, place)
CROSS JOIN LATERAL (
  SELECT number FROM documents WHERE collection = asked.collection AND id = asked.id LIMIT 1
) AS known";

/// The zero-based position from the first column, which counts from one.
pub(super) fn place(row: &Row) -> usize {
    usize::try_from(row.get::<_, i64>(0) - 1).unwrap_or(0)
}

/// How many numbers are cached: more than a node has documents open (`documents_max`).
const NUMBERS_MAX: usize = 262_144;

/// How many names are cached by number, for the feed of changes: some 10 MB.
const NAMES_MAX: usize = 131_072;

/// Caches the numbers of documents, and the documents of numbers. A write by a number is under a fence; if the number
/// is wrong because the database was replaced, the fence does not match.
#[derive(Debug)]
pub(super) struct NumberCache(Mutex<Caches>);

#[derive(Debug)]
struct Caches {
    numbers: BoundedCache<DocId, i64>,
    names: BoundedCache<i64, DocId>,
}

impl Default for NumberCache {
    fn default() -> Self {
        Self(Mutex::new(Caches {
            numbers: BoundedCache::new(NUMBERS_MAX),
            names: BoundedCache::new(NAMES_MAX),
        }))
    }
}

impl NumberCache {
    /// Looks documents up in the cache.
    pub(super) fn look_up<'a>(&self, docs: impl Iterator<Item = &'a DocId>) -> Lookup<'a> {
        let mut caches = self.lock();
        let found = docs.map(|doc| (doc, caches.numbers.get(doc).copied()));
        Lookup(found.collect())
    }

    /// Returns true if the document was in the database before. Its row is never deleted.
    pub(super) fn contains(&self, doc: &DocId) -> bool {
        self.lock().numbers.get(doc).is_some()
    }

    pub(super) fn insert(&self, doc: &DocId, number: i64) {
        self.lock().numbers.put(doc.clone(), number);
    }

    /// Removes all numbers: the database went back in time or was replaced, and may assign them to other documents.
    pub(super) fn clear(&self) {
        let mut caches = self.lock();
        caches.numbers.clear();
        caches.names.clear();
    }

    /// The cached names of some numbers, and the numbers that are not cached.
    pub(super) fn names(
        &self,
        numbers: impl Iterator<Item = i64>,
    ) -> (HashMap<i64, DocId>, Vec<i64>) {
        let mut caches = self.lock();
        let (mut names, mut unknown) = (HashMap::new(), Vec::new());
        for number in numbers {
            match caches.names.get(&number) {
                Some(doc) => drop(names.insert(number, doc.clone())),
                None => unknown.push(number),
            }
        }
        (names, unknown)
    }

    pub(super) fn insert_name(&self, number: i64, doc: &DocId) {
        self.lock().names.put(number, doc.clone());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Caches> {
        lock(&self.0)
    }
}

/// Documents in their order, with the numbers that were found. Not affected by later changes of the cache.
pub(super) struct Lookup<'a>(Vec<(&'a DocId, Option<i64>)>);

impl<'a> Lookup<'a> {
    /// The collections and ids for [`FIND`]; `None` if all numbers were found.
    pub(super) fn missing(&self) -> Option<(Vec<&'a str>, Vec<&'a str>)> {
        let unknown = self.0.iter().filter(|(_, number)| number.is_none());
        let names = unknown.map(|(doc, _)| (doc.collection.as_str(), doc.id.as_str()));
        let question: (Vec<_>, Vec<_>) = names.unzip();
        (!question.0.is_empty()).then_some(question)
    }

    /// Adds the rows of [`FIND`], also to the cache.
    pub(super) fn add(&mut self, numbers: &NumberCache, found: &[Row]) {
        let unknown = self.0.iter_mut().filter(|(_, number)| number.is_none());
        let mut unknown: Vec<_> = unknown.collect();
        for row in found {
            let (doc, number) = &mut *unknown[place(row)];
            *number = Some(row.get(1));
            numbers.insert(doc, row.get(1));
        }
    }

    /// The numbers in the order of the documents; `None` if the document was never claimed.
    pub(super) fn numbers(&self) -> impl Iterator<Item = Option<i64>> {
        self.0.iter().map(|(_, number)| *number)
    }
}
