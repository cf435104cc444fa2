//! Revocations: numbered notices to all nodes that a subject's permissions changed.

use std::time::Duration;

use super::{SessionKey, Subject};
use crate::id::DocId;

/// A stored revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Its sequence number. Numbers grow in the order of the commits.
    pub sequence: u64,
    /// The subject that is affected.
    pub subject: Subject,
    /// The only session that is affected; `None`: all sessions of the subject.
    pub session: Option<SessionKey>,
    /// Whether the sockets close. Otherwise permissions are looked up again.
    pub ends: bool,
    /// The only document that is affected; `None`: permissions may have changed on every document.
    pub doc: Option<DocId>,
}

impl Revocation {
    /// The document of a stored row. A row without a valid document id counts for every document, so that no change is
    /// missed.
    pub(crate) fn document(collection: Option<&str>, id: Option<&str>) -> Option<DocId> {
        DocId::parse(collection?, id?).ok()
    }
}

/// A revocation to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewRevocation {
    pub(crate) subject: Subject,
    pub(crate) session: Option<SessionKey>,
    pub(crate) ends: bool,
    pub(crate) doc: Option<DocId>,
}

impl NewRevocation {
    /// The subject's permission on one document changed.
    pub(crate) fn on(subject: &Subject, doc: &DocId) -> Self {
        Self {
            doc: Some(doc.clone()),
            ..Self::everywhere(subject)
        }
    }

    /// The subject's permissions may have changed on every document.
    pub(crate) fn everywhere(subject: &Subject) -> Self {
        Self {
            subject: subject.clone(),
            session: None,
            ends: false,
            doc: None,
        }
    }

    /// One session of the subject ended.
    pub(crate) fn session_ended(subject: &Subject, session: SessionKey) -> Self {
        Self {
            session: Some(session),
            ..Self::all_sessions_ended(subject)
        }
    }

    /// All sessions of the subject ended, and its tokens of another application.
    pub(crate) fn all_sessions_ended(subject: &Subject) -> Self {
        Self {
            ends: true,
            ..Self::everywhere(subject)
        }
    }
}

/// How long stored revocations are kept. A node that could not read them for that long closed its sockets long before.
pub(crate) const REVOCATIONS_KEPT: Duration = Duration::from_hours(24);
