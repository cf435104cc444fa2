//! Roles, tenants, principals, and the permissions that follow from them.

use std::time::Duration;

use super::Subject;
use crate::id::Name;

/// What a subject may do with a document. Each role includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// May read it.
    Viewer = 1,
    /// May comment on it.
    Commenter = 2,
    /// May change it.
    Editor = 3,
    /// May share it and delete it.
    Owner = 4,
}

impl Role {
    /// All roles, in ascending order.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Commenter, Self::Editor, Self::Owner];

    /// The name on the wire and in the audit log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Commenter => "commenter",
            Self::Editor => "editor",
            Self::Owner => "owner",
        }
    }

    /// Parses what [`as_str`](Self::as_str) returns.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// Reads a role from its number in the database; 0 is no role.
    pub(crate) fn from_number(number: i64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|role| i64::from(*role as u8) == number)
    }
}

/// The tenant of the accounts and collections that name no other.
pub const HOME_TENANT: &str = "home";

/// The tenant of a collection: `acme:notes` belongs to `acme`, `notes` to [`HOME_TENANT`]. The tenant is part of the name,
/// so no name leads from one tenant into another.
#[must_use]
pub fn tenant_of(collection: &Name) -> &str {
    match collection.as_str().split_once(':') {
        Some((tenant, _)) => tenant,
        None => HOME_TENANT,
    }
}

/// The tenant of a user that another application vouches for: the prefix of the user's id.
pub(crate) fn tenant_of_subject(subject: &Subject) -> Option<&str> {
    subject.0.split_once(':').map(|(tenant, _)| tenant)
}

/// The party on behalf of which a request accesses documents: a signed-in user, a guest, or either with opened share links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The user; `None` for a guest.
    pub user: Option<Subject>,
    /// The user's tenant.
    pub tenant: Option<String>,
    /// The role on every document of the tenant according to the token, besides the stored one.
    pub role: Option<Role>,
    /// The share links that it has opened.
    pub links: Vec<Subject>,
}

/// What a principal may do with a document.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Permission {
    /// The role; `None`: no access.
    pub role: Option<Role>,
    /// How long the role is valid, if it comes from a share link that expires.
    pub lasts: Option<Duration>,
}
