//! The authentication service: identifies requests and looks up what an identity may do.

mod administration;
mod registration;
mod revocations;
mod sharing;
mod sign_in;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, Semaphore};
use tokio::time::sleep;

use super::credentials::{Credentials, RateLimitKey};
use super::device::KnownDevice;
use super::error::{AuthError, AuthSetupError};
use super::identity::Identity;
use super::login_throttle::{AttemptKey, LoginThrottle};
use super::origin;
use super::password::Passwords;
use super::priority_queue::{CallerClass, Priority};
use super::revocation_hub::RevocationHub;
use super::settings::{AuthMode, AuthSettings, Registration};
use super::token_signer::TokenSigner;
use super::token_verifier::{TokenClaims, TokenVerifier};
use super::usage_quota::UsageQuota;
use crate::access::{DocumentRegistration, Permission, Role, SessionKey, Subject};
use crate::id::DocId;
use crate::store::{AccessStore, StoreError};
use crate::sync::lock;

pub use sign_in::SESSION_LIFETIME;

/// How many attempts may wait at once because the login throttle delays them.
const DELAYED_ATTEMPTS_MAX: usize = 1_000;

/// How many audit events may wait at once to be written after the answer.
const PENDING_AUDITS_MAX: usize = 100;

/// The priority of password work for callers that proved a session, a code or an invitation.
const KNOWN_CALLER: Priority = Priority {
    class: CallerClass::Known,
    rank: 0,
};

/// Authenticates requests, manages sessions and accounts, and looks up permissions.
///
/// Cheap parts (signatures, throttles, quotas) are decided in memory; everything else is a query to the [`AccessStore`].
/// [`run`](Self::run) must be running: it delivers revocations to open sockets, refreshes the keys of another application
/// and exchanges usage counts with the store.
pub struct AuthService {
    settings: AuthSettings,
    /// `None` only in open mode.
    accounts: Option<Arc<dyn AccessStore>>,
    /// Verifies the tokens of another application; `None` unless the mode is [`AuthMode::Tokens`].
    verifier: Option<TokenVerifier>,
    signer: TokenSigner,
    passwords: Passwords,
    throttle: Mutex<LoginThrottle>,
    /// Permits for attempts that the throttle delays.
    delayed_attempts: Semaphore,
    /// Permits for audit events that are written after the answer.
    pending_audits: Arc<Semaphore>,
    revocations: Arc<RevocationHub>,
    usage: UsageQuota,
    /// Wakes the reader of revocations before its interval ends.
    poll_now: Notify,
    /// Set when the store went back to an earlier state, and the sequence numbers of its revocations with it.
    is_rewound: AtomicBool,
    started_at: Instant,
}

impl AuthService {
    /// Starts the service over `accounts`. Reads the keys of tokens, which may block for some seconds.
    ///
    /// # Errors
    /// If the mode needs accounts or keys that are missing.
    pub fn open(
        settings: AuthSettings,
        accounts: Option<Arc<dyn AccessStore>>,
        secret: &[u8; 32],
    ) -> Result<Arc<Self>, AuthSetupError> {
        if settings.mode != AuthMode::Open && accounts.is_none() {
            return Err(AuthSetupError::NoAccounts(settings.mode.as_str()));
        }
        let verifier = match settings.mode {
            AuthMode::Tokens => Some(TokenVerifier::open(&settings)?),
            AuthMode::Open | AuthMode::Accounts => None,
        };
        Ok(Arc::new(Self {
            usage: UsageQuota::new(settings.tenant_mib_max << 20),
            settings,
            accounts,
            verifier,
            signer: TokenSigner::new(secret),
            passwords: Passwords::new(),
            throttle: Mutex::default(),
            delayed_attempts: Semaphore::new(DELAYED_ATTEMPTS_MAX),
            pending_audits: Arc::new(Semaphore::new(PENDING_AUDITS_MAX)),
            revocations: Arc::default(),
            poll_now: Notify::new(),
            is_rewound: AtomicBool::new(false),
            started_at: Instant::now(),
        }))
    }

    /// How requests are authenticated.
    #[must_use]
    pub fn mode(&self) -> AuthMode {
        self.settings.mode
    }

    /// Which users can register an account.
    #[must_use]
    pub fn registration(&self) -> Registration {
        self.settings.registration
    }

    /// How long an access token is valid, and how long a session can be used without being renewed.
    #[must_use]
    pub fn access_lifetime(&self) -> Duration {
        Duration::from_secs(self.settings.access_seconds)
    }

    /// Returns true if a proxy in front states the clients' addresses and protocols.
    #[must_use]
    pub fn is_behind_proxy(&self) -> bool {
        self.settings.behind_proxy
    }

    /// Returns true if a page of `origin` may act for its user. In open mode a page of the same machine may do so too: a
    /// proxy in front may drop the port from the `Host` header.
    #[must_use]
    pub fn allows_origin(&self, origin: Option<&str>, host: &str, is_tls: bool) -> bool {
        let is_trial = self.mode() == AuthMode::Open && origin::may_be_ours(origin, host);
        is_trial || origin::may_act(origin, host, is_tls, &self.settings.origins)
    }

    /// Returns true if a request with this `Host` header may be meant for this server. `is_local`: it comes from this
    /// machine.
    ///
    /// A page of another site can point a DNS name of its own at this machine (DNS rebinding). Requests by such a name are
    /// rejected: in open mode, and because they could create the first account. If a proxy in front is configured, the
    /// proxy checks the names.
    #[must_use]
    pub fn allows_host(&self, host: Option<&str>, is_local: bool) -> bool {
        !is_local
            || (self.settings.behind_proxy && self.mode() != AuthMode::Open)
            || host.is_none_or(|host| origin::is_here(host, &self.settings.origins))
    }

    /// The store of accounts and permissions.
    ///
    /// # Panics
    /// In open mode, which has no accounts: callers check the mode first.
    #[must_use]
    pub fn accounts(&self) -> &dyn AccessStore {
        self.accounts
            .as_deref()
            .expect("only open mode goes without accounts")
    }

    /// The identity that `credentials` prove; `None` if they prove none and no share link is open.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn identify(
        &self,
        credentials: &Credentials,
    ) -> Result<Option<Identity>, StoreError> {
        let guest = credentials.guest.as_deref();
        let links = self
            .signer
            .verify_links(credentials.links.as_deref().unwrap_or_default());
        let access = credentials.access.as_deref().unwrap_or_default();
        let identity = match self.mode() {
            AuthMode::Open => Some(Identity::unrestricted(guest)),
            AuthMode::Accounts => self.identify_session(access, &links).await?,
            AuthMode::Tokens => self.identify_token(access, &links).await?,
        };
        let has_links = !links.is_empty();
        Ok(identity.or_else(|| has_links.then(|| Identity::guest(guest, links))))
    }

    /// The identity of an access token of this server. A session that was not renewed within
    /// [`access_lifetime`](Self::access_lifetime) has not ended, but cannot be used until it is renewed.
    async fn identify_session(
        &self,
        access: &str,
        links: &[Subject],
    ) -> Result<Option<Identity>, StoreError> {
        let Some(key) = self.signer.verify_access(access, now_seconds()) else {
            return Ok(None);
        };
        let session = self.accounts().session(key.clone()).await?;
        let lifetime = self.access_lifetime();
        Ok(session
            .filter(|session| session.age < lifetime)
            .map(|session| Identity::from_session(key, session, links.to_vec(), lifetime)))
    }

    /// The identity of another application's token, unless the tokens issued for its user until then were revoked.
    async fn identify_token(
        &self,
        access: &str,
        links: &[Subject],
    ) -> Result<Option<Identity>, StoreError> {
        let Some(claims) = self.verified_claims(access) else {
            return Ok(None);
        };
        let issued_at = claims.iat.unwrap_or(0);
        // The verifier tolerates clock skew, this check does not: the socket of an expired token would be closed at once.
        let identity = Identity::from_claims(claims, links.to_vec())
            .filter(|identity| identity.valid_for != Some(Duration::ZERO));
        let Some(identity) = identity else {
            return Ok(None);
        };
        let revoked_until = match identity.user_id() {
            None => None,
            Some(user) => self.accounts().tokens_ended(user.clone()).await?,
        };
        let is_valid = revoked_until.is_none_or(|until| issued_at > until);
        Ok(is_valid.then_some(identity))
    }

    fn verified_claims(&self, access: &str) -> Option<TokenClaims> {
        let verifier = self.verifier.as_ref().filter(|_| !access.is_empty())?;
        verifier.verify(access)
    }

    /// Checks an identity again: how much longer it is valid; `None` if it is no longer valid.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn revalidate(&self, identity: &Identity) -> Result<Option<Duration>, StoreError> {
        match (&identity.session, identity.expires_at) {
            (Some(key), _) => {
                let session = self.accounts().session(key.clone()).await?;
                let left =
                    session.and_then(|session| self.access_lifetime().checked_sub(session.age));
                Ok(left.filter(|left| !left.is_zero()))
            }
            // A token cannot be extended.
            (None, Some(expires_at)) => {
                let left = expires_at.saturating_duration_since(Instant::now());
                Ok((!left.is_zero()).then_some(left))
            }
            (None, None) => Ok(Some(Duration::MAX)),
        }
    }

    /// What an identity may do with each of these documents, in the same order.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn permissions(
        &self,
        identity: &Identity,
        docs: Vec<DocId>,
    ) -> Result<Vec<Permission>, StoreError> {
        let Some(principal) = &identity.principal else {
            let all = Permission {
                role: Some(Role::Owner),
                lasts: None,
            };
            return Ok(vec![all; docs.len()]);
        };
        let stored = self
            .accounts()
            .permissions(principal.clone(), docs.clone())
            .await?;
        Ok(docs
            .iter()
            .zip(stored)
            .map(|(doc, permission)| identity.with_token_role(doc, permission))
            .collect())
    }

    /// The role of an identity on a document.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn role(&self, identity: &Identity, doc: &DocId) -> Result<Option<Role>, StoreError> {
        let permissions = self.permissions(identity, vec![doc.clone()]).await?;
        Ok(permissions.first().and_then(|permission| permission.role))
    }

    /// Makes the identity the owner of a document that does not exist yet, if it may create documents of this name.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn claim_ownership(
        &self,
        identity: &Identity,
        doc: &DocId,
    ) -> Result<DocumentRegistration, StoreError> {
        let Some(user) = identity.user_id().filter(|_| identity.may_create(doc)) else {
            return Ok(DocumentRegistration::Exists);
        };
        let documents_max = self.settings.tenant_documents_max;
        let documents_max = (documents_max > 0).then_some(documents_max);
        self.accounts()
            .register_document(doc.clone(), user.clone(), documents_max)
            .await
    }

    /// Counts bytes towards the usage of a tenant. Returns false, and does not count them, if they exceed its quota.
    #[must_use]
    pub fn try_add_bytes(&self, tenant: &str, bytes: usize) -> bool {
        self.usage.try_add(tenant, bytes as u64)
    }

    /// The user that signed in last with the browser of this device cookie.
    #[must_use]
    pub fn last_user_of_device(&self, device: &str) -> Option<Subject> {
        let device = KnownDevice::open(&self.signer, Some(device));
        device.users.into_iter().next()
    }

    /// The rate limit key that a request's cookies prove by their signatures, without a query to the store: the session of
    /// an access token that has not expired, or the user that signed in last with this browser.
    ///
    /// The session may have ended: the key selects a rate limit and grants no access.
    #[must_use]
    pub fn rate_limit_key_from_cookies(&self, credentials: &Credentials) -> Option<RateLimitKey> {
        let access = credentials.access.as_deref().unwrap_or_default();
        let session = match self.mode() {
            AuthMode::Accounts => self.signer.verify_access(access, now_seconds()),
            AuthMode::Open | AuthMode::Tokens => None,
        };
        if let Some(SessionKey(session)) = session {
            return Some(RateLimitKey(format!("session {session}")));
        }
        let user = self.last_user_of_device(credentials.device.as_deref()?)?;
        Some(RateLimitKey(format!("device of {}", user.0)))
    }

    /// The rate limit key that another application's token proves. Verifying the signature takes up to 0.1 ms of processor
    /// time, so the caller limits the rate.
    #[must_use]
    pub fn rate_limit_key_from_token(&self, credentials: &Credentials) -> Option<RateLimitKey> {
        let claims = self.verified_claims(credentials.access.as_deref()?)?;
        let tenant = claims.tenant.unwrap_or_default();
        Some(RateLimitKey(format!("user {tenant}/{}", claims.sub)))
    }

    /// Counts an attempt, waits as long as the throttle requires, and returns the priority of the password check.
    async fn throttle_attempt(
        &self,
        class: CallerClass,
        keys: &[AttemptKey],
    ) -> Result<Priority, AuthError> {
        let attempt = self.throttle().attempt(keys, self.started_at.elapsed());
        let admitted = attempt.map_err(AuthError::Throttled)?;
        if !admitted.wait.is_zero() {
            let permit = self.delayed_attempts.try_acquire();
            let _permit = permit.map_err(|_| AuthError::Overloaded)?;
            sleep(admitted.wait).await;
        }
        let rank = admitted.rank;
        Ok(Priority { class, rank })
    }

    fn throttle(&self) -> MutexGuard<'_, LoginThrottle> {
        lock(&self.throttle)
    }
}

impl std::fmt::Debug for AuthService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthService")
            .field("mode", &self.mode())
            .finish_non_exhaustive()
    }
}

/// Seconds since 1970.
fn now_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
