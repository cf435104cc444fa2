//! The roles of one socket's user, cached by document and refreshed when they may have changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep_until, timeout};

use crate::access::{DocumentRegistration, Permission, Role, tenant_of};
use crate::auth::{AccessChange, AuthService, Identity, PermissionScope, RevocationSubscription};
use crate::id::{DocId, Name};
use crate::outage::LineLimit;
use crate::protocol::{Code, Refusal};
use crate::store::StoreError;

/// The permissions of one socket's user. A role is read from the store once and cached until a revocation names it or it
/// expires, so that checking an op costs a map look-up.
///
/// The owner waits for [`access_changed`](Self::access_changed) and for the time of [`next_refresh`](Self::next_refresh),
/// and then calls [`refresh`](Self::refresh).
#[derive(Debug)]
pub(super) struct PermissionCache {
    auth: Arc<AuthService>,
    identity: Identity,
    revocations: RevocationSubscription,
    roles: BTreeMap<DocId, CachedRole>,
    /// When the identity must be checked again. `None`: only after a revocation.
    refresh_at: Option<Instant>,
    /// When the first of the share links expires that cached roles depend on.
    link_expires_at: Option<Instant>,
    /// Since when cached roles may be outdated: a change is known that has not been read from the store.
    stale_since: Option<Instant>,
    /// The earliest time of the next refresh, which bounds the load on the store.
    next_full_refresh: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct CachedRole {
    role: Option<Role>,
    /// When the share link that gives the role expires.
    until: Option<Instant>,
    /// Whether edits were submitted under this role. They may still be waiting, so it is refreshed like one in use.
    used_to_write: bool,
}

/// A role as a refresh has read it.
#[derive(Debug)]
pub(super) struct RefreshedRole {
    pub(super) doc: DocId,
    pub(super) role: Option<Role>,
    /// Whether the role differs from the cached one, or none was cached.
    pub(super) has_changed: bool,
}

/// Why a socket must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AccessLost {
    /// The session or token has ended.
    SignedOut,
    /// Permissions have changed, and the store has not returned them for [`STALE_MAX`].
    LookupFailed,
}

/// How many roles are cached. One more removes all of them.
const CACHED_ROLES_MAX: usize = 4_000;

/// The pause after a refresh, for each role that it read. Without it, changing one role again and again would make the store
/// read all roles of that user all the time.
const REFRESH_PAUSE_EACH: Duration = Duration::from_micros(200);

/// The pause before a failed refresh is retried.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// How long a socket stays open after a change of permissions that cannot be read from the store. Without a change it stays
/// open for as long as the store is away.
const STALE_MAX: Duration = Duration::from_secs(4);

impl PermissionCache {
    /// An empty cache. `generation` is that of the revocations before `identity` was authenticated.
    pub(super) fn new(auth: Arc<AuthService>, identity: Identity, generation: u64) -> Self {
        let revocations = auth.subscribe_revocations(&identity, generation);
        let refresh_at = identity.valid_for.and_then(after);
        Self {
            auth,
            identity,
            revocations,
            roles: BTreeMap::new(),
            refresh_at,
            link_expires_at: None,
            stale_since: None,
            next_full_refresh: None,
        }
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Takes the pending change of the user's access, if there is one. While an earlier change is unread the scope is
    /// everything: reading a part would not show what the earlier change was.
    pub(super) fn take_access_change(&mut self) -> Option<AccessChange> {
        let AccessChange::Permissions(scope) = self.revocations.take()? else {
            return Some(AccessChange::SessionEnded);
        };
        let was_stale = self.stale_since.is_some();
        self.stale_since.get_or_insert_with(Instant::now);
        let scope = if was_stale {
            PermissionScope::Everything
        } else {
            scope
        };
        Some(AccessChange::Permissions(scope))
    }

    /// Waits until a change of the user's access is pending. Cancel-safe.
    pub(super) async fn access_changed(&self) {
        while !self.revocations.has_change() {
            self.revocations.notified().await;
        }
    }

    /// When [`refresh`](Self::refresh) is due without a change.
    pub(super) fn next_refresh(&self) -> Option<Instant> {
        self.refresh_at
            .into_iter()
            .chain(self.link_expires_at)
            .min()
    }

    /// Reads the roles within `scope` on documents that are `in_use` or were written to and, if the scope is everything,
    /// checks the identity. Other roles within the scope are removed from the cache.
    ///
    /// # Errors
    /// If the socket must be closed. A failed read is no error before [`STALE_MAX`]: it returns no roles and is retried.
    pub(super) async fn refresh(
        &mut self,
        mut scope: PermissionScope,
        mut in_use: BTreeSet<DocId>,
    ) -> Result<Vec<RefreshedRole>, AccessLost> {
        if let Some(next) = self.next_full_refresh {
            sleep_until(next.into()).await;
        }
        // An expired link may have given any of the roles.
        let now = Instant::now();
        if self.link_expires_at.is_some_and(|at| at <= now) {
            self.stale_since.get_or_insert(now);
            scope = PermissionScope::Everything;
        }
        // Select the documents to read, and remove the other roles within the scope.
        let in_scope = |doc: &DocId| match &scope {
            PermissionScope::Everything => true,
            PermissionScope::Documents(docs) => docs.contains(doc),
        };
        self.roles
            .retain(|doc, cached| !in_scope(doc) || cached.used_to_write || in_use.contains(doc));
        in_use.extend(self.roles.keys().cloned());
        in_use.retain(in_scope);
        let count = u32::try_from(in_use.len()).unwrap_or(u32::MAX);
        self.next_full_refresh = Some(now + REFRESH_PAUSE_EACH.saturating_mul(count));
        // A store that does not answer must not keep the socket open for longer than one that fails.
        let time_limit = self.stale_since.map_or(STALE_MAX, |since| {
            let left = STALE_MAX.saturating_sub(now.saturating_duration_since(since));
            left.max(RETRY_DELAY)
        });
        let read = self.try_refresh(&scope, in_use.into_iter().collect());
        let timed_out = |_| Err(StoreError::new("read permissions", "no answer in time"));
        match timeout(time_limit, read).await.unwrap_or_else(timed_out) {
            Ok(refreshed) => {
                self.stale_since = None;
                refreshed.ok_or(AccessLost::SignedOut)
            }
            Err(error) => {
                // A change may have been announced while the store was read.
                if self.revocations.has_change() {
                    self.stale_since.get_or_insert(now);
                }
                self.refresh_failed(&error)
            }
        }
    }

    /// Empties the cache and schedules a retry.
    ///
    /// # Errors
    /// If permissions have been stale for [`STALE_MAX`] at the time of the retry.
    fn refresh_failed(&mut self, error: &StoreError) -> Result<Vec<RefreshedRole>, AccessLost> {
        log_lookup_failure(error);
        self.roles.clear();
        self.link_expires_at = None;
        let retry = Instant::now() + RETRY_DELAY;
        self.refresh_at = Some(retry);
        match self.stale_since {
            Some(since) if retry.saturating_duration_since(since) >= STALE_MAX => {
                Err(AccessLost::LookupFailed)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Reads the roles on `docs`. `None` if the session or token has ended.
    async fn try_refresh(
        &mut self,
        scope: &PermissionScope,
        docs: Vec<DocId>,
    ) -> Result<Option<Vec<RefreshedRole>>, StoreError> {
        let is_everything = *scope == PermissionScope::Everything;
        if !is_everything && docs.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let lasts = if is_everything {
            let Some(lasts) = self.auth.revalidate(&self.identity).await? else {
                return Ok(None);
            };
            Some(lasts)
        } else {
            None
        };
        let permissions = self.auth.permissions(&self.identity, docs.clone()).await?;
        if let Some(lasts) = lasts {
            self.refresh_at = after(lasts);
            self.link_expires_at = None;
        }
        let mut refreshed = Vec::new();
        for (doc, permission) in docs.into_iter().zip(permissions) {
            let mut cached = CachedRole::new(permission);
            cached.used_to_write = self.roles.get(&doc).is_some_and(|role| role.used_to_write);
            let before = self.insert(doc.clone(), cached);
            refreshed.push(RefreshedRole {
                doc,
                role: cached.role,
                has_changed: before.is_none_or(|before| before.role != cached.role),
            });
        }
        Ok(Some(refreshed))
    }

    /// Caches the roles on `docs`, which are read from the store together.
    ///
    /// # Errors
    /// If the store fails.
    pub(super) async fn load(&mut self, docs: impl Iterator<Item = &DocId>) -> Result<(), Refusal> {
        if self.identity.is_unrestricted() {
            return Ok(());
        }
        let missing: Vec<DocId> = docs
            .filter(|doc| !self.roles.contains_key(*doc))
            .cloned()
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        if self.roles.len() + missing.len() > CACHED_ROLES_MAX {
            self.roles.clear();
        }
        let permissions = self.auth.permissions(&self.identity, missing.clone()).await;
        let permissions = permissions.map_err(|error| lookup_failed(&error))?;
        for (doc, permission) in missing.into_iter().zip(permissions) {
            self.insert(doc, CachedRole::new(permission));
        }
        Ok(())
    }

    fn insert(&mut self, doc: DocId, cached: CachedRole) -> Option<CachedRole> {
        if let Some(until) = cached.until {
            self.link_expires_at = Some(self.link_expires_at.map_or(until, |at| at.min(until)));
        }
        self.roles.insert(doc, cached)
    }

    /// The user's role on a document. `None`: no access.
    ///
    /// # Errors
    /// If the role is not cached and the store fails.
    pub(super) async fn role(&mut self, doc: &DocId) -> Result<Option<Role>, Refusal> {
        if self.identity.is_unrestricted() {
            return Ok(Some(Role::Owner));
        }
        if let Some(cached) = self.roles.get(doc) {
            if cached.until.is_none_or(|until| until > Instant::now()) {
                return Ok(cached.role);
            }
            self.roles.remove(doc);
        }
        self.load(std::iter::once(doc)).await?;
        Ok(self.roles.get(doc).and_then(|cached| cached.role))
    }

    /// Checks that the user has at least the role `least` on a document.
    ///
    /// # Errors
    /// If the user has a lower role, no access, or the store fails. Without access the error does not tell whether the
    /// document exists.
    pub(super) async fn require_role(&mut self, doc: &DocId, least: Role) -> Result<(), Refusal> {
        match self.role(doc).await? {
            Some(role) if role >= least => {
                if let Some(cached) = self.roles.get_mut(doc) {
                    cached.used_to_write |= least >= Role::Editor;
                }
                Ok(())
            }
            Some(_) => Err(role_required(least)),
            None => Err(no_access()),
        }
    }

    /// Registers the user as the owner of a document that is not registered yet. Returns false if it is.
    ///
    /// # Errors
    /// If the tenant has as many documents as it may have, or the store fails.
    pub(super) async fn claim_ownership(&mut self, doc: &DocId) -> Result<bool, Refusal> {
        if self.identity.is_unrestricted() {
            return Ok(false);
        }
        let registered = self.auth.claim_ownership(&self.identity, doc).await;
        match registered.map_err(|error| lookup_failed(&error))? {
            DocumentRegistration::Registered => {}
            DocumentRegistration::Exists => return Ok(false),
            DocumentRegistration::QuotaReached => {
                return Err(Refusal::new(Code::Quota, "Tenant document quota reached"));
            }
        }
        let mut cached = CachedRole::new(Permission {
            role: Some(Role::Owner),
            lasts: None,
        });
        cached.used_to_write = true;
        self.insert(doc.clone(), cached);
        Ok(true)
    }

    /// Counts `bytes` towards the storage quota of the document's tenant.
    ///
    /// # Errors
    /// If the quota is exceeded.
    pub(super) fn require_storage(&self, doc: &DocId, bytes: usize) -> Result<(), Refusal> {
        if self.identity.is_unrestricted()
            || self.auth.try_add_bytes(tenant_of(&doc.collection), bytes)
        {
            return Ok(());
        }
        Err(Refusal::new(Code::Quota, "Tenant storage quota reached"))
    }

    /// Checks that the user may read the document that a presence channel belongs to.
    ///
    /// # Errors
    /// If not, or if the name is not that of a document's channel.
    pub(super) async fn require_channel(&mut self, channel: &Name) -> Result<(), Refusal> {
        if self.identity.is_unrestricted() {
            return Ok(());
        }
        match document_of_channel(channel) {
            Some(doc) => self.require_role(&doc, Role::Viewer).await,
            None => Err(Refusal::new(
                Code::Forbidden,
                "The name of a presence channel must be a collection, a dot and a document id",
            )),
        }
    }
}

impl CachedRole {
    fn new(permission: Permission) -> Self {
        Self {
            role: permission.role,
            until: permission.lasts.and_then(after),
            used_to_write: false,
        }
    }
}

/// The time after `lasts` from now. `None` if it is later than an [`Instant`] can be.
fn after(lasts: Duration) -> Option<Instant> {
    Instant::now().checked_add(lasts)
}

/// The document that a presence channel belongs to. Names of collections contain no dot where permissions are checked.
pub(super) fn document_of_channel(channel: &Name) -> Option<DocId> {
    let (collection, id) = channel.as_str().split_once('.')?;
    DocId::parse(collection, id).ok()
}

/// The error for a document without access. It is the same whether the document exists or not.
pub(super) fn no_access() -> Refusal {
    Refusal::new(
        Code::Forbidden,
        "There is no such document, or it is not shared with you",
    )
}

fn role_required(least: Role) -> Refusal {
    match least {
        Role::Owner => Refusal::new(Code::Forbidden, "Document owner role required"),
        Role::Editor | Role::Commenter | Role::Viewer => Refusal::may_not_change(),
    }
}

fn lookup_failed(error: &StoreError) -> Refusal {
    log_lookup_failure(error);
    Refusal::store_unavailable()
}

/// Logs a failed look-up. Limited, because an outage of the store affects each socket of the node.
fn log_lookup_failure(error: &StoreError) {
    static LIMIT: LineLimit = LineLimit::new();
    if let Some(left_out) = LIMIT.pass() {
        tracing::warn!(%error, left_out, "permission lookup failed: retrying");
    }
}

#[cfg(test)]
mod tests;
