//! What a tenant owner does with the other users of the tenant.

use std::time::Duration;

use super::AuthService;
use crate::access::{PasswordReset, Role, Subject};
use crate::auth::credentials::clean_login;
use crate::auth::error::{AuthError, RejectedCredentials};
use crate::auth::identity::Identity;
use crate::auth::settings::AuthMode;
use crate::auth::token_signer::{hashed, random_text};

/// How long the code of a password reset is valid.
const RESET_LIFETIME: Duration = Duration::from_hours(24);

impl AuthService {
    /// Gives another user a role on every document of the tenant, or removes it. Returns false if the account is gone.
    ///
    /// # Errors
    /// If the tenant has no other user with this login or the store does not answer.
    pub async fn set_tenant_role(
        &self,
        by: &Identity,
        login: &str,
        role: Option<Role>,
    ) -> Result<bool, AuthError> {
        let (by, user) = self.other_user(by, login).await?;
        let changed = self.accounts().set_tenant_role(user, role, by).await?;
        self.deliver_revocations_now();
        Ok(changed)
    }

    /// Ends all sessions of another user.
    ///
    /// # Errors
    /// If the tenant has no other user with this login or the store does not answer.
    pub async fn end_user_sessions(&self, by: &Identity, login: &str) -> Result<(), AuthError> {
        let (by, user) = self.other_user(by, login).await?;
        self.accounts().end_sessions_of(user, by).await?;
        self.deliver_revocations_now();
        Ok(())
    }

    /// Disables another user's account or enables it again.
    ///
    /// # Errors
    /// If the tenant has no other user with this login or the store does not answer.
    pub async fn set_disabled(
        &self,
        by: &Identity,
        login: &str,
        disabled: bool,
    ) -> Result<(), AuthError> {
        let (by, user) = self.other_user(by, login).await?;
        self.accounts().set_disabled(user, disabled, by).await?;
        self.deliver_revocations_now();
        Ok(())
    }

    /// Creates a password reset for another user and returns its code.
    ///
    /// # Errors
    /// If the tenant has no other user with this login or the store does not answer.
    pub async fn allow_reset(&self, by: &Identity, login: &str) -> Result<String, AuthError> {
        let (by, user) = self.other_user(by, login).await?;
        let code = random_text();
        let reset = PasswordReset {
            code: hashed(&code),
            user,
            lasts: RESET_LIFETIME,
        };
        self.accounts().create_reset(reset, by).await?;
        Ok(code)
    }

    /// The ids of the user that acts and of another user of the same tenant.
    async fn other_user(
        &self,
        by: &Identity,
        login: &str,
    ) -> Result<(Subject, Subject), AuthError> {
        const REJECTED: RejectedCredentials = RejectedCredentials::OtherUser;
        let actor = by.user_id().ok_or(REJECTED)?;
        let tenant = by.tenant().ok_or(REJECTED)?;
        let user = if self.mode() == AuthMode::Tokens {
            // The application has the users: this server cannot check that the user exists.
            Subject(format!("{tenant}:{login}"))
        } else {
            let account = self
                .accounts()
                .account_by_login(clean_login(login)?)
                .await?
                .filter(|account| account.tenant == tenant);
            account.ok_or(REJECTED)?.id
        };
        if user == *actor {
            return Err(REJECTED.into());
        }
        Ok((actor.clone(), user))
    }
}
