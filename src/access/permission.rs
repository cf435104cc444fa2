//! Roles, tenants, principals, and the permissions that follow from them.

use std::time::Duration;

use super::Subject;
use crate::id::{DocId, Name};

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

    /// What [`from_number`](Self::from_number) reads.
    pub(crate) fn number(role: Option<Self>) -> i64 {
        role.map_or(0, |role| i64::from(role as u8))
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

/// The stored facts about a principal and a document from which its permission follows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StoredRoles {
    /// The user's role on every document of the tenant.
    pub(crate) tenant_role: Option<Role>,
    /// The user's own role on the document.
    pub(crate) grant: Option<Role>,
    /// The roles of the opened share links of the document that have not expired, in the order in which the principal names
    /// them, each with the time until it expires.
    pub(crate) links: Vec<Permission>,
}

impl Principal {
    /// The user, if it belongs to the tenant. Only share links reach into another tenant.
    pub(crate) fn member_of(&self, tenant: &str) -> Option<&Subject> {
        let is_member = self.tenant.as_deref() == Some(tenant);
        self.user.as_ref().filter(|_| is_member)
    }

    /// The permission on a document: the highest role that the tenant, the token, a grant or a share link gives. Of equal
    /// roles those that do not expire take precedence, then the first link.
    pub(crate) fn permission(&self, doc: &DocId, stored: &StoredRoles) -> Permission {
        let mut permission = Permission::default();
        if self.member_of(tenant_of(&doc.collection)).is_some() {
            permission.role = self.role.max(stored.tenant_role).max(stored.grant);
        }
        for link in &stored.links {
            if link.role > permission.role {
                permission = *link;
            }
        }
        permission
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(tenant: &str) -> Principal {
        Principal {
            user: Some(Subject("ann".to_owned())),
            tenant: Some(tenant.to_owned()),
            role: None,
            links: Vec::new(),
        }
    }

    fn link(role: Role, seconds: Option<u64>) -> Permission {
        Permission {
            role: Some(role),
            lasts: seconds.map(Duration::from_secs),
        }
    }

    #[test]
    fn the_highest_role_counts() {
        let doc = DocId::parse("notes", "plan").expect("a valid id");
        let stored = |tenant_role, grant, links: &[Permission]| StoredRoles {
            tenant_role,
            grant,
            links: links.to_vec(),
        };
        let (viewer, editor) = (Some(Role::Viewer), Some(Role::Editor));
        let (short, long) = (link(Role::Editor, Some(1)), link(Role::Editor, Some(9)));
        let cases = [
            (stored(None, None, &[]), Permission::default()),
            (stored(viewer, editor, &[]), link(Role::Editor, None)),
            (stored(editor, viewer, &[]), link(Role::Editor, None)),
            (stored(editor, None, &[short]), link(Role::Editor, None)),
            (stored(viewer, None, &[short, long]), short),
            (stored(None, None, &[link(Role::Viewer, None), long]), long),
        ];
        for (stored, expected) in cases {
            assert_eq!(
                principal("home").permission(&doc, &stored),
                expected,
                "{stored:?}"
            );
        }
        let vouched = Principal {
            role: Some(Role::Owner),
            ..principal("home")
        };
        let permission = vouched.permission(&doc, &stored(viewer, None, &[]));
        assert_eq!(permission.role, Some(Role::Owner));
    }

    #[test]
    fn only_share_links_reach_into_another_tenant() {
        let doc = DocId::parse("acme:notes", "plan").expect("a valid id");
        let stranger = Principal {
            role: Some(Role::Owner),
            ..principal("home")
        };
        let mut stored = StoredRoles {
            tenant_role: Some(Role::Owner),
            grant: Some(Role::Editor),
            links: Vec::new(),
        };
        assert_eq!(stranger.permission(&doc, &stored), Permission::default());
        stored.links.push(link(Role::Viewer, None));
        let permission = stranger.permission(&doc, &stored);
        assert_eq!(permission.role, Some(Role::Viewer));
    }
}
