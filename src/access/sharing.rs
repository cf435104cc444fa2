//! Ownership of documents, grants and share links.

use std::time::Duration;

use super::{Role, SecretHash, Subject};
use crate::id::DocId;

/// The outcome of registering a document to its first owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentRegistration {
    /// The document was new and now has this owner.
    Registered,
    /// The document has a log or a grant already.
    Exists,
    /// The tenant has as many documents as it may.
    QuotaReached,
}

impl DocumentRegistration {
    /// Decides on registering a document in a tenant that has `documents` documents.
    pub(crate) fn decide(is_known: bool, documents: u64, documents_max: Option<u64>) -> Self {
        match documents_max {
            _ if is_known => Self::Exists,
            Some(most) if documents >= most => Self::QuotaReached,
            _ => Self::Registered,
        }
    }
}

/// Why the sharing of a document was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareError {
    /// The principal does not own the document.
    NotOwner,
    /// The owner's role changes only by a transfer of the ownership.
    OwnerMustTransfer,
    /// The document has no such share link.
    LinkNotFound,
    /// The document has as many share links, or is shared with as many users, as it may.
    QuotaReached,
}

/// A subject's own role on a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The user.
    pub subject: Subject,
    /// The login and the displayed name, if the user has an account here.
    pub account: Option<(String, String)>,
    /// The role.
    pub role: Role,
}

/// A share link to create.
#[derive(Debug, Clone)]
pub struct NewShareLink {
    /// Its id: random, no secret.
    pub id: Subject,
    /// The document that it opens.
    pub doc: DocId,
    /// The role that it gives. A link never gives ownership.
    pub role: Role,
    /// The hash of the secret in its address.
    pub secret: SecretHash,
    /// The Argon2id hash of its password, in the PHC form, if it has one.
    pub password: Option<String>,
    /// How long it is valid; `None`: until it is deleted.
    pub lasts: Option<Duration>,
    /// How many links the document may have, expired ones not counted.
    pub links_max: u64,
}

/// A share link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareLink {
    /// Its id.
    pub id: Subject,
    /// The document that it opens.
    pub doc: DocId,
    /// The role that it gives.
    pub role: Role,
    /// The Argon2id hash of its password, in the PHC form, if it has one.
    pub password: Option<String>,
    /// When it expires, in milliseconds since 1970.
    pub expires_at_ms: Option<u64>,
}

/// The number of grants on a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GrantCount {
    /// All grants, the owner's included.
    pub(crate) total: u64,
    /// Whether the subject in question has one of them.
    pub(crate) includes_subject: bool,
}

impl GrantCount {
    /// Returns true if the subject may get a role while at most `people_max` subjects may have one. Changing a role adds no
    /// subject.
    pub(crate) fn admits(self, people_max: u64) -> bool {
        self.includes_subject || self.total < people_max
    }
}
