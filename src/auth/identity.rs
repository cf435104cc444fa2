//! The identity that a request or a socket acts with.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::token_signer::hashed;
use super::token_verifier::TokenClaims;
use crate::access::{
    HOME_TENANT, LiveSession, Permission, Principal, Role, SessionKey, Subject, tenant_of,
};
use crate::id::{DocId, UserId};

/// An authenticated user, a guest with share links, or, in open mode, any client.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The author recorded with its ops.
    pub author: UserId,
    /// The names and the tenant role of a user; `None` for guests and in open mode.
    pub profile: Option<Profile>,
    /// The principal of permission look-ups; `None` in open mode, where every client may do everything.
    pub principal: Option<Principal>,
    /// The session of an access token of this server.
    pub session: Option<SessionKey>,
    /// How long it is valid before it must be checked again; `None`: until a revocation.
    pub valid_for: Option<Duration>,
    /// When the token of another application expires.
    pub(super) expires_at: Option<Instant>,
    /// The roles on single documents that the token grants.
    token_roles: BTreeMap<DocId, Role>,
}

/// The names of a user and the role on the whole tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The name for signing in; empty for users of another application.
    pub login: String,
    /// The name that other users see.
    pub name: String,
    /// The role on every document of the tenant.
    pub role: Option<Role>,
}

/// Returns true if a token may use this text as the name of a user or a tenant.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

impl Identity {
    /// Any client in open mode. The log distinguishes guests by their cookie, which proves nothing.
    pub(super) fn unrestricted(guest: Option<&str>) -> Self {
        Self {
            author: guest_author(guest),
            profile: None,
            principal: None,
            session: None,
            valid_for: None,
            expires_at: None,
            token_roles: BTreeMap::new(),
        }
    }

    /// A client without an account that has opened share links.
    pub(super) fn guest(guest: Option<&str>, links: Vec<Subject>) -> Self {
        Self {
            principal: Some(Principal {
                user: None,
                tenant: None,
                role: None,
                links,
            }),
            ..Self::unrestricted(guest)
        }
    }

    /// The user of a session.
    pub(super) fn from_session(
        session: SessionKey,
        live: LiveSession,
        links: Vec<Subject>,
        lifetime: Duration,
    ) -> Self {
        let user = live.user;
        Self {
            author: UserId::new(&user.id.0),
            profile: Some(Profile {
                login: user.login,
                name: user.name,
                role: user.role,
            }),
            principal: Some(Principal {
                user: Some(user.id),
                tenant: Some(user.tenant),
                role: None,
                links,
            }),
            session: Some(session),
            valid_for: Some(lifetime.saturating_sub(live.age)),
            expires_at: None,
            token_roles: BTreeMap::new(),
        }
    }

    /// The user of another application's token; `None` if the token's user or tenant is not a valid name.
    pub(super) fn from_claims(claims: TokenClaims, links: Vec<Subject>) -> Option<Self> {
        let tenant = claims
            .tenant
            .clone()
            .unwrap_or_else(|| HOME_TENANT.to_owned());
        if !is_name(&claims.sub) || !is_name(&tenant) || tenant.contains([':', '.', '/']) {
            return None;
        }
        let role = claims.role.as_deref().and_then(Role::parse);
        let token_roles = claims.documents.iter().filter_map(|(doc, role)| {
            let (collection, id) = doc.split_once('/')?;
            let doc = DocId::parse(collection, id).ok()?;
            (tenant_of(&doc.collection) == tenant).then_some((doc, Role::parse(role)?))
        });
        let token_roles = token_roles.collect();
        let valid_for = claims.valid_for();
        // The prefix keeps the users of two tenants, and those of accounts here, apart.
        let subject = Subject(format!("{tenant}:{}", claims.sub));
        let name = claims.name.filter(|name| is_name(name));
        Some(Self {
            author: UserId::new(&subject.0),
            profile: Some(Profile {
                login: String::new(),
                name: name.unwrap_or(claims.sub),
                role,
            }),
            principal: Some(Principal {
                user: Some(subject),
                tenant: Some(tenant),
                role,
                links,
            }),
            session: None,
            valid_for: Some(valid_for),
            expires_at: Instant::now().checked_add(valid_for),
            token_roles,
        })
    }

    /// A user of a tenant, for tests.
    #[cfg(test)]
    pub(crate) fn of_tenant(name: &str, tenant: &str) -> Self {
        let mut identity = Self::guest(None, Vec::new());
        if let Some(principal) = &mut identity.principal {
            principal.user = Some(Subject(name.to_owned()));
            principal.tenant = Some(tenant.to_owned());
        }
        identity
    }

    /// A guest with a share link, for tests.
    #[cfg(test)]
    pub(crate) fn of_link(cookie: &str, link: &str) -> Self {
        Self::guest(Some(cookie), vec![Subject(link.to_owned())])
    }

    /// Returns true in open mode: the client may do everything.
    #[must_use]
    pub fn is_unrestricted(&self) -> bool {
        self.principal.is_none()
    }

    /// The user; `None` for guests and in open mode.
    #[must_use]
    pub fn user_id(&self) -> Option<&Subject> {
        self.principal.as_ref()?.user.as_ref()
    }

    /// The user's tenant, or the home tenant for an identity without one.
    #[must_use]
    pub fn tenant_or_home(&self) -> &str {
        self.tenant().unwrap_or(HOME_TENANT)
    }

    /// The user's tenant.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.principal.as_ref()?.tenant.as_deref()
    }

    /// Returns true if the identity may create a document of this name.
    #[must_use]
    pub fn may_create(&self, doc: &DocId) -> bool {
        let collection = &doc.collection;
        // A presence channel is `collection.id`: a second dot would make it ambiguous.
        self.user_id().is_some()
            && self.tenant() == Some(tenant_of(collection))
            && !collection.as_str().contains('.')
    }

    /// The principal for operations on one document, with the role that the token grants on it.
    #[must_use]
    pub fn principal_on(&self, doc: &DocId) -> Option<Principal> {
        let mut principal = self.principal.clone()?;
        principal.role = principal.role.max(self.token_roles.get(doc).copied());
        Some(principal)
    }

    /// The subjects that this identity depends on: the user and the opened share links.
    #[must_use]
    pub fn subjects(&self) -> Vec<Subject> {
        let Some(principal) = &self.principal else {
            return Vec::new();
        };
        principal
            .user
            .iter()
            .chain(&principal.links)
            .cloned()
            .collect()
    }

    /// The stored permission, raised to the role that the token grants on the document.
    pub(super) fn with_token_role(&self, doc: &DocId, right: Permission) -> Permission {
        match self.token_roles.get(doc) {
            Some(role) if right.role < Some(*role) => Permission {
                role: Some(*role),
                lasts: None,
            },
            _ => right,
        }
    }
}

/// The longest name that a token may give, in characters.
const NAME_CHARS_MAX: usize = 200;

/// How many bytes of the hash of a guest's cookie identify the guest in the log.
const GUEST_BYTES: usize = 16;

/// The author name of a guest: a hash, because a reader of the log could otherwise reuse the cookie.
fn guest_author(guest: Option<&str>) -> UserId {
    match guest {
        None => UserId::anyone(),
        Some(cookie) => {
            let name = URL_SAFE_NO_PAD.encode(&hashed(cookie)[..GUEST_BYTES]);
            UserId::new(&format!("guest:{name}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(text: &str) -> TokenClaims {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn token_grants_roles_only_in_its_own_tenant() {
        let said = r#"{"sub":"7","exp":9,"tenant":"acme","documents":
            {"acme:notes/plan":"editor","notes/plan":"owner","acme:notes/odd":"king","nonsense":"editor"}}"#;
        let identity = Identity::from_claims(claims(said), Vec::new()).unwrap();
        let role = |collection, id| {
            let doc = DocId::parse(collection, id).unwrap();
            identity.with_token_role(&doc, Permission::default()).role
        };
        assert_eq!(role("acme:notes", "plan"), Some(Role::Editor));
        assert_eq!(role("notes", "plan"), None);
        assert_eq!(role("acme:notes", "odd"), None);
        let may = |collection| identity.may_create(&DocId::parse(collection, "x").unwrap());
        assert!(may("acme:notes"));
        assert!(!may("notes") && !may("other:notes") && !may("acme:a.b"));
    }

    #[test]
    fn token_with_an_invalid_user_or_tenant_is_rejected() {
        for said in [
            r#"{"sub":"","exp":9}"#,
            r#"{"sub":"a\nb","exp":9}"#,
            r#"{"sub":"7","exp":9,"tenant":""}"#,
            r#"{"sub":"7","exp":9,"tenant":"a:b"}"#,
            r#"{"sub":"7","exp":9,"tenant":"a.b"}"#,
        ] {
            assert!(
                Identity::from_claims(claims(said), Vec::new()).is_none(),
                "{said}"
            );
        }
    }

    #[test]
    fn guest_author_does_not_reveal_the_cookie() {
        let (one, two) = (guest_author(Some("one")), guest_author(Some("two")));
        assert_ne!(one, two);
        assert!(!one.as_str().contains("one"));
        assert_eq!(guest_author(None), UserId::anyone());
    }
}
