//! Why a request was refused: ShareDB's codes, which its clients know.

use thiserror::Error;

use crate::log::Revision;
use crate::ot::{CONTENT_BYTES_MAX, OtError};

/// ShareDB's name for a kind of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "each is the code that it is written as, explained at its refusal"
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
}

impl Code {
    /// The code of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == name)
    }

    const ALL: [Self; 21] = [
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
    ];

    /// The code as it goes over the wire. Those that ShareDB has no name for are ours.
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
        }
    }
}

/// A request's refusal: a code that a program can act on, and one sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}: {message}", code.as_str())]
pub struct Refusal {
    /// What kind of refusal.
    pub code: Code,
    /// One plain sentence.
    pub message: String,
}

impl Refusal {
    /// A refusal of a kind, with its sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// Whether the same request may be granted a little later.
    #[must_use]
    pub fn will_pass(&self) -> bool {
        matches!(self.code, Code::Busy | Code::StoreUnavailable)
    }

    /// A create where the document exists, or an edit whose document was created anew since its base.
    #[must_use]
    pub fn already_created() -> Self {
        Self::new(Code::AlreadyCreated, "Document already exists")
    }

    /// An edit where there is no document.
    #[must_use]
    pub fn does_not_exist() -> Self {
        Self::new(Code::DoesNotExist, "Document does not exist")
    }

    /// An edit whose document was deleted since its base.
    #[must_use]
    pub fn was_deleted() -> Self {
        Self::new(Code::WasDeleted, "Document was deleted")
    }

    /// A base or a wanted revision that the log has not reached.
    #[must_use]
    pub fn future_version() -> Self {
        Self::new(
            Code::FutureVersion,
            "Version is newer than the document's current version",
        )
    }

    /// A base so old that the way from it to the present is not walked for a client.
    #[must_use]
    pub fn ops_not_found() -> Self {
        Self::new(
            Code::OpsNotFound,
            "The op was made on a version that is too old",
        )
    }

    /// The document would outgrow what one may be.
    #[must_use]
    pub fn document_too_large(bytes_max: usize) -> Self {
        Self::new(
            Code::TooLarge,
            format!("A document has at most {bytes_max} bytes"),
        )
    }

    /// A change of a document that is larger than what may be held, and shown as it was at `readable`.
    #[must_use]
    pub fn oversized(readable: Revision) -> Self {
        let message = format!(
            "This document is damaged: after version {readable} it is larger than {CONTENT_BYTES_MAX} bytes. It is shown as \
             it was at that version and cannot be changed until an operator runs `copydesk repair`"
        );
        Self::new(Code::DocOversized, message)
    }

    /// A request of a client that holds the document as it was in another history of the log.
    #[must_use]
    pub fn history_changed() -> Self {
        let message = "The server was restored to an earlier state: this client holds changes that it no longer has. \
             Keep unsent text and load the document anew";
        Self::new(Code::HistoryChanged, message)
    }

    /// A request that needs a damaged entry of the log, of a document that is shown as it was at `readable`.
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
            Code::DocDamaged,
            format!("{what}{shown} until an operator restores it"),
        )
    }

    /// A document that a bulk request named beyond the first `docs_max`.
    #[must_use]
    pub fn bulk_too_long(docs_max: usize) -> Self {
        let message = format!(
            "A bulk request names at most {docs_max} documents: ask for the others in another one"
        );
        Self::new(Code::TooMany, message)
    }

    /// An op that takes too much memory.
    #[must_use]
    pub fn op_too_large() -> Self {
        Self::new(Code::TooLarge, "The op is too large: send smaller ones")
    }

    /// A change by somebody who may read and not change.
    #[must_use]
    pub fn may_not_change() -> Self {
        let message = "You may read this document, and not change it";
        Self::new(Code::Forbidden, message)
    }

    /// A submit whose `seq` its client has used for another one before.
    #[must_use]
    pub fn seq_used() -> Self {
        Self::new(Code::OpBadlyFormed, "The seq was used before")
    }

    /// More at once than one client may ask of one document.
    #[must_use]
    pub fn busy() -> Self {
        Self::new(Code::Busy, "Too much is under way: try again")
    }

    /// The store did not answer.
    #[must_use]
    pub fn store_unavailable() -> Self {
        Self::new(
            Code::StoreUnavailable,
            "The store does not answer: try again",
        )
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
        let code = match &error {
            OtError::Malformed(_) | OtError::BadData(_) => Code::OpBadlyFormed,
            OtError::NotApplied(_) | OtError::KindsDiffer => Code::OpNotApplied,
            OtError::TooLarge(_) | OtError::ContentTooLarge => Code::TooLarge,
            OtError::NoPresence => Code::NoPresence,
        };
        Self::new(code, error.to_string())
    }
}
