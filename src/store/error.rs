//! Errors of the store.

use std::sync::Arc;

use thiserror::Error;

use crate::log::Revision;

/// Why a batch was rejected. None of its entries was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AppendError {
    /// The document was claimed since.
    #[error("fenced: the document was claimed since")]
    Fenced,
    /// The first entry is not the next one of the log, or one of its submits is in the log already, which not every
    /// store checks. What the appender holds of the log is wrong.
    #[error("the entries do not follow the log")]
    Gap,
    /// The values of an entry violate a constraint of the table. The same entries would be refused again.
    #[error("the store refuses the values of an entry")]
    Refused,
}

/// A call to the store failed.
#[derive(Debug, Clone, Error)]
#[error("{verb}: {reason}")]
pub struct StoreError {
    /// The operation that failed.
    pub verb: &'static str,
    /// The reason, for the log.
    pub reason: Arc<str>,
    /// What the failure means for the caller.
    pub kind: StoreErrorKind,
}

/// What a failed call means for its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The store failed or did not answer. A later attempt may succeed; a write may or may not have happened.
    Unavailable,
    /// The store is known not to answer, so the request was given less time. A later attempt may succeed.
    Away,
    /// Stored rows of the document are missing or fail their checks. Each attempt fails until the rows are restored.
    Damaged {
        /// The first entry that cannot be read; `None` if the database cannot name it.
        entry: Option<Revision>,
    },
}

impl StoreError {
    /// An error of an operation, of the kind [`StoreErrorKind::Unavailable`].
    #[expect(
        clippy::needless_pass_by_value,
        reason = "errors are handed over, texts are lent"
    )]
    pub fn new(verb: &'static str, reason: impl ToString) -> Self {
        Self {
            verb,
            reason: reason.to_string().into(),
            kind: StoreErrorKind::Unavailable,
        }
    }

    /// An error of an operation while the store is known not to answer.
    #[must_use]
    pub fn away(verb: &'static str) -> Self {
        Self {
            kind: StoreErrorKind::Away,
            ..Self::new(verb, "the store is away")
        }
    }

    /// An error of an operation on a document with damaged rows.
    pub fn damaged(verb: &'static str, entry: Option<Revision>, reason: impl ToString) -> Self {
        Self {
            kind: StoreErrorKind::Damaged { entry },
            ..Self::new(verb, reason)
        }
    }
}
