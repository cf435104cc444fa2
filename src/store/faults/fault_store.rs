//! The [`FaultStore`] trait: dead letters and quarantine.

use std::fmt::Debug;

use futures_util::future::BoxFuture;

use super::{
    DeadLetter, DeadLetterFilter, DeadLetterSize, PanicOutcome, PanicRecord, QuarantinedDocument,
    StoredDeadLetter,
};
use crate::id::DocId;
use crate::store::StoreError;

/// The most dead letters that one call returns.
pub const DEAD_LETTERS_PAGE: usize = 100;

/// Stores dead letters, and the documents in quarantine. What it returns survives a restart.
///
/// All methods may be called concurrently from any thread. If a call fails, its outcome is unknown; each write may be repeated
/// without an effect beyond that of the first time.
///
/// # Errors
/// Each method returns an error if the store does not answer.
pub trait FaultStore: Debug + Send + Sync {
    /// Adds dead letters. A letter of the same submit, document, reason and time as a stored one is that letter.
    fn add_dead_letters(&self, letters: Vec<DeadLetter>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The newest dead letters that the filter selects, newest first: those with numbers below `before`, at most `limit` and
    /// at most [`DEAD_LETTERS_PAGE`].
    fn dead_letters(
        &self,
        filter: DeadLetterFilter,
        before: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredDeadLetter>, StoreError>>;

    /// The sizes of all dead letters, oldest first. Their number is bounded by the retention.
    fn dead_letter_sizes(&self) -> BoxFuture<'_, Result<Vec<DeadLetterSize>, StoreError>>;

    /// Deletes dead letters by their numbers.
    fn remove_dead_letters(&self, ids: Vec<u64>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Deletes the dead letters that the filter selects, and returns how many.
    fn purge_dead_letters(
        &self,
        filter: DeadLetterFilter,
    ) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Stores a panic of a document. The second one within [`PANIC_WINDOW_MS`](super::PANIC_WINDOW_MS), on whichever node,
    /// puts the document into quarantine. Panics that are older than that are forgotten.
    fn record_panic(&self, panic: PanicRecord) -> BoxFuture<'_, Result<PanicOutcome, StoreError>>;

    /// The documents in quarantine, in the order of their names: at most [`QUARANTINED_MAX`](super::QUARANTINED_MAX).
    fn quarantined(&self) -> BoxFuture<'_, Result<Vec<QuarantinedDocument>, StoreError>>;

    /// Ends the quarantine of a document. Returns false if it was not in quarantine.
    fn release_quarantine<'a>(&'a self, doc: &'a DocId) -> BoxFuture<'a, Result<bool, StoreError>>;
}
