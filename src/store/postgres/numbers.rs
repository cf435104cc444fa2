//! The documents' numbers, remembered.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::id::DocId;

/// How many are remembered. When there are more, all are forgotten and looked up again.
const NUMBERS_MAX: usize = 100_000;

/// The numbers that stand for documents in the tables. They are used only beside a fence: should one be wrong, because
/// the database was replaced by another, the fence does not hold.
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

    pub(super) fn forget(&self, doc: &DocId) {
        self.lock().remove(doc);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<DocId, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
