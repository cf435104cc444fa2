//! The errors of requests: ShareDB's error codes, further codes of this server, and their messages.

use thiserror::Error;

use crate::doc::{Rejection, RejectionReason};
use crate::log::Revision;
use crate::ot::OtError;

/// An error code of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "each is named after its wire form in as_str; the constructors of Refusal explain them"
)]
pub enum Code {
    MessageBadlyFormed,
    OpBadlyFormed,
    OpNotApplied,
    AlreadyCreated,
    DoesNotExist,
    WasDeleted,
    TypeNotRecognized,
    FutureVersion,
    OpsNotFound,
    SeqOverflow,
    NoPresence,
    NotServed,
    TooLarge,
    TooMany,
    Busy,
    StoreUnavailable,
    Forbidden,
    Quota,
    DocOversized,
    HistoryChanged,
    DocDamaged,
    DocQuarantined,
}

impl Code {
    /// The code with this wire form.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == name)
    }

    const ALL: [Self; 22] = [
        Self::MessageBadlyFormed,
        Self::OpBadlyFormed,
        Self::OpNotApplied,
        Self::AlreadyCreated,
        Self::DoesNotExist,
        Self::WasDeleted,
        Self::TypeNotRecognized,
        Self::FutureVersion,
        Self::OpsNotFound,
        Self::SeqOverflow,
        Self::NoPresence,
        Self::NotServed,
        Self::TooLarge,
        Self::TooMany,
        Self::Busy,
        Self::StoreUnavailable,
        Self::Forbidden,
        Self::Quota,
        Self::DocOversized,
        Self::HistoryChanged,
        Self::DocDamaged,
        Self::DocQuarantined,
    ];

    /// The reason that a document rejects a request for with this code; `None` if documents do not use the code.
    #[must_use]
    pub fn rejection_reason(self) -> Option<RejectionReason> {
        match self {
            Self::OpBadlyFormed => Some(RejectionReason::Malformed),
            Self::OpNotApplied => Some(RejectionReason::NotApplicable),
            Self::AlreadyCreated => Some(RejectionReason::AlreadyExists),
            Self::DoesNotExist => Some(RejectionReason::DoesNotExist),
            Self::WasDeleted => Some(RejectionReason::Deleted),
            Self::FutureVersion => Some(RejectionReason::FutureRevision),
            Self::OpsNotFound => Some(RejectionReason::RevisionTooOld),
            Self::TooLarge => Some(RejectionReason::TooLarge),
            Self::NoPresence => Some(RejectionReason::PresenceUnsupported),
            Self::Forbidden => Some(RejectionReason::Forbidden),
            Self::Busy => Some(RejectionReason::Busy),
            Self::StoreUnavailable => Some(RejectionReason::StoreUnavailable),
            Self::DocOversized => Some(RejectionReason::Oversized),
            Self::DocDamaged => Some(RejectionReason::Damaged),
            Self::DocQuarantined => Some(RejectionReason::Quarantined),
            Self::MessageBadlyFormed
            | Self::TypeNotRecognized
            | Self::SeqOverflow
            | Self::NotServed
            | Self::TooMany
            | Self::Quota
            | Self::HistoryChanged => None,
        }
    }

    /// The wire form. Codes for which ShareDB has no name are specific to this server.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MessageBadlyFormed => "ERR_MESSAGE_BADLY_FORMED",
            Self::OpBadlyFormed => "ERR_OT_OP_BADLY_FORMED",
            Self::OpNotApplied => "ERR_OT_OP_NOT_APPLIED",
            Self::AlreadyCreated => "ERR_DOC_ALREADY_CREATED",
            Self::DoesNotExist => "ERR_DOC_DOES_NOT_EXIST",
            Self::WasDeleted => "ERR_DOC_WAS_DELETED",
            Self::TypeNotRecognized => "ERR_DOC_TYPE_NOT_RECOGNIZED",
            Self::FutureVersion => "ERR_OP_VERSION_NEWER_THAN_CURRENT_SNAPSHOT",
            Self::OpsNotFound => "ERR_SUBMIT_TRANSFORM_OPS_NOT_FOUND",
            Self::SeqOverflow => "ERR_CONNECTION_SEQ_INTEGER_OVERFLOW",
            Self::NoPresence => "ERR_TYPE_DOES_NOT_SUPPORT_PRESENCE",
            Self::NotServed => "ERR_NOT_SERVED",
            Self::TooLarge => "ERR_TOO_LARGE",
            Self::TooMany => "ERR_TOO_MANY",
            Self::Busy => "ERR_BUSY",
            Self::StoreUnavailable => "ERR_STORE_UNAVAILABLE",
            Self::Forbidden => "ERR_FORBIDDEN",
            Self::Quota => "ERR_QUOTA",
            Self::DocOversized => "ERR_DOC_OVERSIZED",
            Self::HistoryChanged => "ERR_HISTORY_CHANGED",
            Self::DocDamaged => "ERR_DOC_DAMAGED",
            Self::DocQuarantined => "ERR_DOC_QUARANTINED",
        }
    }
}

/// The error of a request: a code for programs and one sentence for users.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}: {message}", code.as_str())]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// One plain sentence.
    pub message: String,
}

impl Refusal {
    /// An error with this code and message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// Returns true if the cause is temporary: the same request may succeed later.
    #[must_use]
    pub fn will_pass(&self) -> bool {
        matches!(self.code, Code::Busy | Code::StoreUnavailable)
    }

    /// A request of a client that loaded the document in another history of the log.
    #[must_use]
    pub fn history_changed() -> Self {
        let message = "The server was restored to an earlier state: this client holds changes that it no longer has. \
             Keep unsent text and load the document anew";
        Self::new(Code::HistoryChanged, message)
    }

    /// A document that a bulk request named beyond the first `docs_max`.
    #[must_use]
    pub fn bulk_too_long(docs_max: usize) -> Self {
        let message = format!(
            "A bulk request names at most {docs_max} documents: ask for the others in another one"
        );
        Self::new(Code::TooMany, message)
    }

    /// An edit of a document that does not exist.
    #[must_use]
    pub fn does_not_exist() -> Self {
        Rejection::does_not_exist().into()
    }

    /// A change by a user with a read-only role.
    #[must_use]
    pub fn may_not_change() -> Self {
        Rejection::read_only_access().into()
    }

    /// More concurrent requests than are allowed.
    #[must_use]
    pub fn busy() -> Self {
        Rejection::busy().into()
    }

    /// The store did not answer.
    #[must_use]
    pub fn store_unavailable() -> Self {
        Rejection::store_unavailable().into()
    }

    /// The notice in a document that is shown from memory, as it was at `revision`, while the store does not answer.
    #[must_use]
    pub fn store_away(revision: Revision) -> Self {
        let message = format!(
            "The store does not answer: the document is shown as it was at version {revision}, and changes are not saved"
        );
        Self::new(Code::StoreUnavailable, message)
    }
}

impl From<OtError> for Refusal {
    fn from(error: OtError) -> Self {
        Rejection::from(error).into()
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self {
            code: rejection.reason.into(),
            message: rejection.message,
        }
    }
}

impl From<RejectionReason> for Code {
    fn from(reason: RejectionReason) -> Self {
        match reason {
            RejectionReason::Malformed => Self::OpBadlyFormed,
            RejectionReason::NotApplicable => Self::OpNotApplied,
            RejectionReason::AlreadyExists => Self::AlreadyCreated,
            RejectionReason::DoesNotExist => Self::DoesNotExist,
            RejectionReason::Deleted => Self::WasDeleted,
            RejectionReason::FutureRevision => Self::FutureVersion,
            RejectionReason::RevisionTooOld => Self::OpsNotFound,
            RejectionReason::TooLarge => Self::TooLarge,
            RejectionReason::PresenceUnsupported => Self::NoPresence,
            RejectionReason::Forbidden => Self::Forbidden,
            RejectionReason::Busy => Self::Busy,
            RejectionReason::StoreUnavailable => Self::StoreUnavailable,
            RejectionReason::Oversized => Self::DocOversized,
            RejectionReason::Damaged => Self::DocDamaged,
            RejectionReason::Quarantined => Self::DocQuarantined,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejections_of_documents_map_to_their_error_codes() {
        let revision = Some(Revision(3));
        for (rejection, code) in [
            (Rejection::already_exists(), "ERR_DOC_ALREADY_CREATED"),
            (Rejection::does_not_exist(), "ERR_DOC_DOES_NOT_EXIST"),
            (Rejection::deleted(), "ERR_DOC_WAS_DELETED"),
            (
                Rejection::future_revision(),
                "ERR_OP_VERSION_NEWER_THAN_CURRENT_SNAPSHOT",
            ),
            (
                Rejection::revision_too_old(),
                "ERR_SUBMIT_TRANSFORM_OPS_NOT_FOUND",
            ),
            (Rejection::document_too_large(9), "ERR_TOO_LARGE"),
            (Rejection::op_too_large(), "ERR_TOO_LARGE"),
            (Rejection::op_not_applied(), "ERR_OT_OP_NOT_APPLIED"),
            (Rejection::read_only_access(), "ERR_FORBIDDEN"),
            (Rejection::seq_used(), "ERR_OT_OP_BADLY_FORMED"),
            (Rejection::busy(), "ERR_BUSY"),
            (Rejection::store_unavailable(), "ERR_STORE_UNAVAILABLE"),
            (Rejection::oversized(Revision(3)), "ERR_DOC_OVERSIZED"),
            (Rejection::damaged(revision, None), "ERR_DOC_DAMAGED"),
            (Rejection::quarantined(), "ERR_DOC_QUARANTINED"),
            (Rejection::not_stored(), "ERR_OT_OP_NOT_APPLIED"),
            (
                OtError::NoPresence.into(),
                "ERR_TYPE_DOES_NOT_SUPPORT_PRESENCE",
            ),
        ] {
            let refusal = Refusal::from(rejection.clone());
            assert_eq!(refusal.code.as_str(), code);
            assert_eq!(refusal.message, rejection.message);
            assert_eq!(refusal.will_pass(), rejection.is_transient());
            assert_eq!(refusal.code.rejection_reason(), Some(rejection.reason));
        }
        assert_eq!(Code::Quota.rejection_reason(), None);
    }
}
