//! Sessions: signing in, renewal, signing out, changes of the password.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{AuthService, KNOWN_CALLER, now_seconds};
use crate::access::{Account, AuditAction, Renewal, SessionKey, Subject};
use crate::auth::credentials::{
    Credentials, SessionTokens, check_length, check_new_password, clean_login,
};
use crate::auth::device::KnownDevice;
use crate::auth::error::{AuthError, RejectedCredentials};
use crate::auth::identity::Identity;
use crate::auth::login_throttle::{AttemptKey, network};
use crate::auth::priority_queue::CallerClass;
use crate::auth::token_signer::{hashed, random_text};
use crate::id::DocId;
use crate::store::StoreError;

/// How long a session is valid, whether it is renewed or not.
pub const SESSION_LIFETIME: Duration = Duration::from_hours(30 * 24);

/// How long the previous refresh token is still accepted, because two tabs of one browser may renew at the same time.
const RENEWAL_GRACE: Duration = Duration::from_secs(10);

impl AuthService {
    /// Begins a session for the account with this login and password.
    ///
    /// # Errors
    /// If they are not accepted, the throttle rejects the attempt, or too many passwords wait to be checked.
    pub async fn sign_in(
        self: &Arc<Self>,
        login: &str,
        password: &str,
        credentials: &Credentials,
        address: IpAddr,
    ) -> Result<SessionTokens, AuthError> {
        const REJECTED: RejectedCredentials = RejectedCredentials::LoginOrPassword;
        let login = clean_login(login).map_err(|_| REJECTED)?;
        check_length(password, REJECTED)?;
        let account = self.accounts().account_by_login(login.clone()).await?;
        // A wrong password that is repeated is rejected without a hash and does not count as another attempt.
        let (class, keys) = self.sign_in_keys(&login, account.as_ref(), credentials, address);
        let hash = account.as_ref().map(|account| account.password.clone());
        let stored = hash.clone().unwrap_or_default();
        if self.throttle().is_known_wrong(&keys[1], password, &stored) {
            return Err(REJECTED.into());
        }
        // An unknown login costs as much time as a known one.
        let priority = self.throttle_attempt(class, &keys).await?;
        let is_correct = self
            .passwords
            .verify(priority, password.to_owned(), hash)
            .await?;
        if !is_correct {
            self.throttle().was_wrong(&keys[1], password, &stored);
        }
        match account {
            Some(account) if is_correct && !account.disabled => {
                self.throttle().succeeded(&keys);
                self.begin_session(account.id, credentials).await
            }
            Some(account) => {
                self.audit_later(account.id, AuditAction::FailToSignIn);
                Err(REJECTED.into())
            }
            None => Err(REJECTED.into()),
        }
    }

    /// The keys that a sign-in attempt counts towards: a device that has signed in to the account before has counts of its
    /// own, all other devices share those of their network. The second key is that of the account.
    fn sign_in_keys(
        &self,
        login: &str,
        account: Option<&Account>,
        credentials: &Credentials,
        address: IpAddr,
    ) -> (CallerClass, [AttemptKey; 2]) {
        let device = KnownDevice::open(&self.signer, credentials.device.as_deref());
        match account.filter(|account| device.has_signed_in(&account.id)) {
            Some(account) => {
                let user = account.id.0.clone();
                let keys = [
                    AttemptKey::KnownUser(user.clone()),
                    AttemptKey::Device(device.id, user),
                ];
                (CallerClass::Known, keys)
            }
            None => {
                let network = network(address);
                let keys = [
                    AttemptKey::Network(network),
                    AttemptKey::Account(network, format!("login {login}")),
                ];
                (CallerClass::Stranger, keys)
            }
        }
    }

    /// Renews a session by its refresh token.
    ///
    /// # Errors
    /// If the token is not the newest one of a valid session.
    pub async fn refresh(&self, token: &str) -> Result<SessionTokens, AuthError> {
        const REJECTED: RejectedCredentials = RejectedCredentials::RefreshToken;
        let key = self.signer.verify_refresh(token).ok_or(REJECTED)?;
        let next = self.signer.refresh_token(&key);
        let renewal = self
            .accounts()
            .renew_session(key.clone(), hashed(token), hashed(&next), RENEWAL_GRACE)
            .await?;
        match renewal {
            Renewal::Renewed => Ok(self.tokens(&key, Some(next))),
            Renewal::JustRenewed => Ok(self.tokens(&key, None)),
            Renewal::Ended => Err(REJECTED.into()),
            Renewal::Reused => {
                tracing::warn!(session = key.0, "refresh token reused: session ended");
                self.deliver_revocations_now();
                Err(REJECTED.into())
            }
        }
    }

    /// Ends the session that these tokens belong to, if there is one.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn sign_out(
        &self,
        access: Option<&str>,
        refresh: Option<&str>,
    ) -> Result<(), StoreError> {
        // An expired access token still names its session.
        let key = access
            .and_then(|token| self.signer.verify_access(token, 0))
            .or_else(|| refresh.and_then(|token| self.signer.verify_refresh(token)));
        if let Some(key) = key {
            self.accounts().end_session(key).await?;
            self.deliver_revocations_now();
        }
        Ok(())
    }

    /// Ends all sessions of a user.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn sign_out_everywhere(&self, user: &Subject) -> Result<(), StoreError> {
        self.accounts()
            .end_sessions_of(user.clone(), user.clone())
            .await?;
        self.deliver_revocations_now();
        Ok(())
    }

    /// Changes the password of a signed-in user and ends the user's other sessions.
    ///
    /// # Errors
    /// If the current password is wrong or the new one is not acceptable.
    pub async fn change_password(
        &self,
        identity: &Identity,
        current: &str,
        next: &str,
    ) -> Result<(), AuthError> {
        const REJECTED: RejectedCredentials = RejectedCredentials::Password;
        check_new_password(next)?;
        check_length(current, REJECTED)?;
        let id = identity.user_id().ok_or(REJECTED)?;
        let session = identity.session.clone().ok_or(REJECTED)?;
        let keys = [
            AttemptKey::KnownUser(id.0.clone()),
            AttemptKey::Device(session.0.clone(), id.0.clone()),
        ];
        let priority = self.throttle_attempt(CallerClass::Known, &keys).await?;
        let account = self.accounts().account(id.clone()).await?.ok_or(REJECTED)?;
        let is_correct =
            self.passwords
                .verify(priority, current.to_owned(), Some(account.password));
        if !is_correct.await? {
            return Err(REJECTED.into());
        }
        self.throttle().succeeded(&keys);
        let names = vec![account.login, account.name];
        let hash = self
            .passwords
            .hash(priority, next.to_owned(), names)
            .await?;
        self.accounts()
            .set_password(account.id, hash, Some(session))
            .await?;
        self.deliver_revocations_now();
        Ok(())
    }

    /// Sets a new password by the code of a reset and begins a session. All other sessions of the user end.
    ///
    /// # Errors
    /// If the code is not valid or the password is not acceptable.
    pub async fn reset_password(
        &self,
        code: &str,
        password: &str,
        credentials: &Credentials,
    ) -> Result<SessionTokens, AuthError> {
        const REJECTED: RejectedCredentials = RejectedCredentials::ResetCode;
        check_new_password(password)?;
        // A code has 128 random bits: the rate limit of requests is enough against guessing.
        let code = hashed(code);
        if !self.accounts().is_reset_valid(code).await? {
            return Err(REJECTED.into());
        }
        let hash = self
            .passwords
            .hash(KNOWN_CALLER, password.to_owned(), Vec::new())
            .await?;
        let user = self.accounts().reset_password(code, hash).await?;
        self.deliver_revocations_now();
        self.begin_session(user.ok_or(REJECTED)?, credentials).await
    }

    /// Begins a session and records the user in the cookie of the device.
    pub(super) async fn begin_session(
        &self,
        user: Subject,
        credentials: &Credentials,
    ) -> Result<SessionTokens, AuthError> {
        let key = SessionKey(random_text());
        let refresh = self.signer.refresh_token(&key);
        let device = KnownDevice::open(&self.signer, credentials.device.as_deref());
        let device = device.cookie_with(&self.signer, &user);
        self.accounts()
            .begin_session(
                key.clone(),
                user,
                hashed(&refresh),
                SESSION_LIFETIME,
                self.settings.user_sessions_max,
            )
            .await?;
        Ok(SessionTokens {
            device: Some(device),
            ..self.tokens(&key, Some(refresh))
        })
    }

    fn tokens(&self, key: &SessionKey, refresh: Option<String>) -> SessionTokens {
        let expires_at = now_seconds() + self.access_lifetime().as_secs();
        SessionTokens {
            access: self.signer.access_token(key, expires_at),
            refresh,
            device: None,
        }
    }

    /// Writes an audit event after the answer, so that the time of the answer does not reveal it. If the store is so slow
    /// that too many events wait, the event goes to the server's log instead.
    fn audit_later(self: &Arc<Self>, actor: Subject, action: AuditAction) {
        let Ok(permit) = self.pending_audits.clone().try_acquire_owned() else {
            tracing::warn!(
                actor = actor.0,
                action = action.as_str(),
                "audit event dropped: too many are pending"
            );
            return;
        };
        let service = self.clone();
        tokio::spawn(async move {
            if let Err(error) = service.audit(actor, action, None, None).await {
                tracing::warn!(%error, action = action.as_str(), "audit event was not written");
            }
            drop(permit);
        });
    }

    /// Writes an audit event.
    pub(super) async fn audit(
        &self,
        actor: Subject,
        action: AuditAction,
        doc: Option<&DocId>,
        subject: Option<&Subject>,
    ) -> Result<(), StoreError> {
        let (doc, subject) = (doc.cloned(), subject.cloned());
        self.accounts().audit(actor, action, doc, subject).await
    }
}
