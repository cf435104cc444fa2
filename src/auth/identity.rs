//! Somebody who has come in: as whom, for how long, and what was vouched for.

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

/// Somebody who has come in.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Who is responsible for what they write.
    pub author: UserId,
    /// What they sign in by and what others see, where we know it.
    pub profile: Option<Profile>,
    /// As far as rights go; none where everybody may do everything.
    pub principal: Option<Principal>,
    /// The session they are signed in by.
    pub session: Option<SessionKey>,
    /// How long this may be believed before it is looked at again.
    pub lasts: Option<Duration>,
    /// When a token that vouches for them ends.
    pub(super) until: Option<Instant>,
    /// The roles that a token gives.
    grants: BTreeMap<DocId, Role>,
}

/// A name to us and to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// What they sign in by; empty where they do so elsewhere.
    pub login: String,
    /// What others see.
    pub name: String,
    /// The role on every document of their tenant.
    pub role: Option<Role>,
}

/// Whether another application may call a user, or a tenant, so.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

impl Identity {
    /// Somebody where everybody may do everything. The log tells guests apart, and what it says proves nothing.
    pub(super) fn unrestricted(guest: Option<&str>) -> Self {
        Self {
            author: guest_author(guest),
            profile: None,
            principal: None,
            session: None,
            lasts: None,
            until: None,
            grants: BTreeMap::new(),
        }
    }

    /// Somebody without an account who has opened share links.
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

    /// Somebody with a session here.
    pub(super) fn from_session(
        session: SessionKey,
        live: LiveSession,
        links: Vec<Subject>,
        lasts: Duration,
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
            lasts: Some(lasts.saturating_sub(live.age)),
            until: None,
            grants: BTreeMap::new(),
        }
    }

    /// Somebody whom another application vouches for; none where the token names a tenant or a user that cannot be.
    pub(super) fn from_claims(claims: TokenClaims, links: Vec<Subject>) -> Option<Self> {
        let tenant = claims
            .tenant
            .clone()
            .unwrap_or_else(|| HOME_TENANT.to_owned());
        if !is_name(&claims.sub) || !is_name(&tenant) || tenant.contains([':', '.', '/']) {
            return None;
        }
        let role = claims.role.as_deref().and_then(Role::parse);
        let grants = claims.documents.iter().filter_map(|(doc, role)| {
            let (collection, id) = doc.split_once('/')?;
            let doc = DocId::parse(collection, id).ok()?;
            (tenant_of(&doc.collection) == tenant).then_some((doc, Role::parse(role)?))
        });
        let grants = grants.collect();
        let lasts = claims.lasts();
        // The application's names and ours never meet, nor do those of two tenants.
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
            lasts: Some(lasts),
            until: Instant::now().checked_add(lasts),
            grants,
        })
    }

    /// Somebody of a tenant, for tests.
    #[cfg(test)]
    pub(crate) fn of_tenant(name: &str, tenant: &str) -> Self {
        let mut identity = Self::guest(None, Vec::new());
        if let Some(who) = &mut identity.principal {
            who.user = Some(Subject(name.to_owned()));
            who.tenant = Some(tenant.to_owned());
        }
        identity
    }

    /// A guest with a share link, for tests.
    #[cfg(test)]
    pub(crate) fn of_link(cookie: &str, link: &str) -> Self {
        Self::guest(Some(cookie), vec![Subject(link.to_owned())])
    }

    /// Whether they may do everything.
    #[must_use]
    pub fn is_unrestricted(&self) -> bool {
        self.principal.is_none()
    }

    /// The user, if they are one.
    #[must_use]
    pub fn user_id(&self) -> Option<&Subject> {
        self.principal.as_ref()?.user.as_ref()
    }

    /// The tenant they belong to.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.principal.as_ref()?.tenant.as_deref()
    }

    /// Whether they may make documents of such a name.
    #[must_use]
    pub fn may_create(&self, doc: &DocId) -> bool {
        let collection = &doc.collection;
        // A presence channel is a collection and an id with a dot between: with two dots it could be two documents'.
        self.user_id().is_some()
            && self.tenant() == Some(tenant_of(collection))
            && !collection.as_str().contains('.')
    }

    /// As far as rights on one document go, with what a token vouches for.
    #[must_use]
    pub fn principal_on(&self, doc: &DocId) -> Option<Principal> {
        let mut who = self.principal.clone()?;
        who.role = who.role.max(self.grants.get(doc).copied());
        Some(who)
    }

    /// Everybody whose change of rights changes theirs.
    #[must_use]
    pub fn subjects(&self) -> Vec<Subject> {
        let Some(who) = &self.principal else {
            return Vec::new();
        };
        who.user.iter().chain(&who.links).cloned().collect()
    }

    /// What the store says, and what a token says beyond it.
    pub(super) fn with_grants(&self, doc: &DocId, right: Permission) -> Permission {
        match self.grants.get(doc) {
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

/// How many bytes of a guest's hash name them.
const GUEST_BYTES: usize = 16;

/// The name of a guest in the log: not what the cookie says, for whoever reads the log could then be them.
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
    fn a_token_gives_roles_in_its_own_tenant_only() {
        let said = r#"{"sub":"7","exp":9,"tenant":"acme","documents":
            {"acme:notes/plan":"editor","notes/plan":"owner","acme:notes/odd":"king","nonsense":"editor"}}"#;
        let identity = Identity::from_claims(claims(said), Vec::new()).unwrap();
        let role = |collection, id| {
            let doc = DocId::parse(collection, id).unwrap();
            identity.with_grants(&doc, Permission::default()).role
        };
        assert_eq!(role("acme:notes", "plan"), Some(Role::Editor));
        assert_eq!(role("notes", "plan"), None);
        assert_eq!(role("acme:notes", "odd"), None);
        let may = |collection| identity.may_create(&DocId::parse(collection, "x").unwrap());
        assert!(may("acme:notes"));
        assert!(!may("notes") && !may("other:notes") && !may("acme:a.b"));
    }

    #[test]
    fn a_token_for_nobody_or_nowhere_is_none() {
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
    fn a_guest_is_not_named_by_the_cookie() {
        let (one, two) = (guest_author(Some("one")), guest_author(Some("two")));
        assert_ne!(one, two);
        assert!(!one.as_str().contains("one"));
        assert_eq!(guest_author(None), UserId::anyone());
    }
}
