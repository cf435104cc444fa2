//! Why a document rejects a request, independent of the wire: `protocol` maps a [`RejectionReason`] to a code of ShareDB.

use thiserror::Error;

use crate::log::Revision;
use crate::ot::{CONTENT_BYTES_MAX, OtError};

/// A kind of rejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectionReason {
    /// The op or the content cannot be parsed, or a `seq` was used for another submit.
    Malformed,
    /// The op does not fit the document.
    NotApplicable,
    /// A create where a document exists, or an edit made before the document was created anew.
    AlreadyExists,
    /// An edit where there is no document.
    DoesNotExist,
    /// An edit made before the document was deleted.
    Deleted,
    /// A revision that the log has not reached.
    FutureRevision,
    /// A base revision that is too old to be rebased.
    RevisionTooOld,
    /// An op or a document beyond its size limit.
    TooLarge,
    /// The document's type has no presence.
    PresenceUnsupported,
    /// The session may not change the document.
    Forbidden,
    /// A limit on concurrent requests is reached; a later attempt may succeed.
    Busy,
    /// The store does not answer; a later attempt may succeed.
    StoreUnavailable,
    /// The stored document is larger than what is held in memory.
    Oversized,
    /// The stored log is damaged.
    Damaged,
    /// The document is in quarantine after repeated faults of the server.
    Quarantined,
}

/// The rejection of a request: a reason for programs, and one sentence for a user.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason:?}: {message}")]
pub struct Rejection {
    /// The kind of rejection.
    pub reason: RejectionReason,
    /// One plain sentence.
    pub message: String,
}

impl Rejection {
    /// A rejection for `reason`, with its sentence.
    pub fn new(reason: RejectionReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// Returns true if the same request may succeed a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self.reason,
            RejectionReason::Busy | RejectionReason::StoreUnavailable
        )
    }

    /// A create where the document exists, or an edit made before the document was created anew.
    #[must_use]
    pub fn already_exists() -> Self {
        Self::new(RejectionReason::AlreadyExists, "Document already exists")
    }

    /// An edit where there is no document.
    #[must_use]
    pub fn does_not_exist() -> Self {
        Self::new(RejectionReason::DoesNotExist, "Document does not exist")
    }

    /// An edit made before the document was deleted.
    #[must_use]
    pub fn deleted() -> Self {
        Self::new(RejectionReason::Deleted, "Document was deleted")
    }

    /// A base or a wanted revision that the log has not reached.
    #[must_use]
    pub fn future_revision() -> Self {
        Self::new(
            RejectionReason::FutureRevision,
            "Version is newer than the document's current version",
        )
    }

    /// A base that is too old to be rebased.
    #[must_use]
    pub fn revision_too_old() -> Self {
        Self::new(
            RejectionReason::RevisionTooOld,
            "The op was made on a version that is too old",
        )
    }

    /// A change that makes the document larger than `bytes_max`.
    #[must_use]
    pub fn document_too_large(bytes_max: usize) -> Self {
        Self::new(
            RejectionReason::TooLarge,
            format!("A document has at most {bytes_max} bytes"),
        )
    }

    /// An op that takes too much memory.
    #[must_use]
    pub fn op_too_large() -> Self {
        Self::new(
            RejectionReason::TooLarge,
            "The op is too large: send smaller ones",
        )
    }

    /// An op that made the state machine panic.
    #[must_use]
    pub fn op_not_applied() -> Self {
        Self::new(
            RejectionReason::NotApplicable,
            "The op could not be applied",
        )
    }

    /// An op that the store refuses because of its values.
    #[must_use]
    pub fn not_stored() -> Self {
        Self::new(RejectionReason::NotApplicable, "The op cannot be stored")
    }

    /// A change of a document in quarantine.
    #[must_use]
    pub fn quarantined() -> Self {
        Self::new(
            RejectionReason::Quarantined,
            "This document caused repeated faults of the server. It can be read, and cannot be changed until an operator \
             releases it",
        )
    }

    /// A change by a session that may only read.
    #[must_use]
    pub fn read_only_access() -> Self {
        let message = "You may read this document, and not change it";
        Self::new(RejectionReason::Forbidden, message)
    }

    /// A submit with a `seq` that its client has used for another one.
    #[must_use]
    pub fn seq_used() -> Self {
        Self::new(RejectionReason::Malformed, "The seq was used before")
    }

    /// More concurrent requests than one client may have at one document.
    #[must_use]
    pub fn busy() -> Self {
        Self::new(RejectionReason::Busy, "Too much is under way: try again")
    }

    /// The store did not answer.
    #[must_use]
    pub fn store_unavailable() -> Self {
        Self::new(
            RejectionReason::StoreUnavailable,
            "The store does not answer: try again",
        )
    }

    /// A change of a document that is larger than what is held in memory, and shown as of `readable`.
    #[must_use]
    pub fn oversized(readable: Revision) -> Self {
        let message = format!(
            "This document is damaged: after version {readable} it is larger than {CONTENT_BYTES_MAX} bytes. It is shown as \
             it was at that version and cannot be changed until an operator runs `copydesk repair`"
        );
        Self::new(RejectionReason::Oversized, message)
    }

    /// A request that needs a damaged entry of the log, of a document that is shown as of `readable`.
    #[must_use]
    pub fn damaged(entry: Option<Revision>, readable: Option<Revision>) -> Self {
        let what = match entry {
            Some(entry) => {
                format!("The stored history of this document is damaged at version {entry}")
            }
            None => "The stored history of this document is damaged".to_owned(),
        };
        let shown = match readable {
            Some(readable) => format!(
                ". The document is shown as it was at version {readable} and cannot be changed"
            ),
            None => ", so what was asked for cannot be read".to_owned(),
        };
        Self::new(
            RejectionReason::Damaged,
            format!("{what}{shown} until an operator restores it"),
        )
    }
}

impl From<OtError> for Rejection {
    fn from(error: OtError) -> Self {
        let reason = match &error {
            OtError::Malformed(_) | OtError::BadData(_) => RejectionReason::Malformed,
            OtError::NotApplied(_) | OtError::KindsDiffer => RejectionReason::NotApplicable,
            OtError::TooLarge(_) | OtError::ContentTooLarge => RejectionReason::TooLarge,
            OtError::NoPresence => RejectionReason::PresenceUnsupported,
        };
        Self::new(reason, error.to_string())
    }
}
