//! Revocations: numbered notices to all nodes that a subject's permissions changed.

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
