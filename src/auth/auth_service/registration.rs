//! Registration of accounts, invitations and the set-up code.

use std::time::Duration;

use super::{AuthService, KNOWN_CALLER};
use crate::access::{
    AccountDraft, Admission, CreateAccountError, HOME_TENANT, NewInvitation, Role, Subject,
};
use crate::auth::credentials::{
    Credentials, NewAccount, RequestSource, SessionTokens, check_new_password, clean_login,
    clean_name,
};
use crate::auth::error::{AuthError, InvalidInput, QuotaReached, RejectedCredentials};
use crate::auth::identity::Identity;
use crate::auth::login_throttle::{AttemptKey, network};
use crate::auth::priority_queue::CallerClass;
use crate::auth::settings::Registration;
use crate::auth::token_signer::{hashed, random_text};

/// How long an invitation is valid.
const INVITATION_LIFETIME: Duration = Duration::from_hours(7 * 24);

impl AuthService {
    /// Creates an account and begins a session: the first account, an invited one, or any if registration is open.
    ///
    /// # Errors
    /// If the input is invalid, the request is not admitted, or a quota is reached.
    pub async fn register(
        &self,
        account: &NewAccount,
        credentials: &Credentials,
        source: RequestSource,
    ) -> Result<SessionTokens, AuthError> {
        let (login, name) = (clean_login(&account.login)?, clean_name(&account.name)?);
        check_new_password(&account.password)?;
        let admission = self
            .admission(account.invitation.as_deref(), source)
            .await?;
        let priority = match admission {
            Admission::First | Admission::Invited(_) => KNOWN_CALLER,
            // No success clears this count: it limits the accounts that one network creates.
            Admission::Open { .. } => {
                let keys = [AttemptKey::Network(network(source.address))];
                self.throttle_attempt(CallerClass::Stranger, &keys).await?
            }
        };
        let names = vec![login.clone(), name.clone()];
        let hash = self
            .passwords
            .hash(priority, account.password.clone(), names);
        let draft = AccountDraft {
            id: Subject(random_text()),
            tenant: HOME_TENANT.to_owned(),
            login,
            name,
            password: hash.await?,
        };
        let id = draft.id.clone();
        match self.accounts().create_account(draft, admission).await? {
            Ok(()) => self.begin_session(id, credentials).await,
            Err(CreateAccountError::LoginTaken) => Err(InvalidInput::LoginTaken.into()),
            Err(CreateAccountError::NotFirst | CreateAccountError::NotInvited) => {
                Err(RejectedCredentials::Invitation.into())
            }
            Err(CreateAccountError::QuotaReached) => Err(QuotaReached::Accounts.into()),
        }
    }

    /// What admits the account. Checked before a password is hashed, and before the answer reveals whether a login exists.
    async fn admission(
        &self,
        code: Option<&str>,
        source: RequestSource,
    ) -> Result<Admission, AuthError> {
        let is_set_up = self.accounts().has_accounts().await?;
        match code {
            Some(code) if !is_set_up && hashed(code) == hashed(&self.setup_code()) => {
                Ok(Admission::First)
            }
            Some(code) if self.accounts().is_invitation_valid(hashed(code)).await? => {
                Ok(Admission::Invited(hashed(code)))
            }
            _ if !is_set_up && !source.is_own_machine => Err(RejectedCredentials::SetupCode.into()),
            None if !is_set_up => Ok(Admission::First),
            None if self.registration() == Registration::Open => Ok(Admission::Open {
                accounts_max: self.settings.accounts_max,
            }),
            _ => Err(RejectedCredentials::Invitation.into()),
        }
    }

    /// The code that admits the first account from another machine. Not valid once there is an account.
    #[must_use]
    pub fn setup_code(&self) -> String {
        self.signer.setup_code()
    }

    /// Creates an invitation to the tenant of `by` and returns its code.
    ///
    /// # Errors
    /// If the tenant's quota of invitations is reached or the store does not answer.
    pub async fn invite(&self, by: &Identity, role: Option<Role>) -> Result<String, AuthError> {
        let user = by.user_id().ok_or(RejectedCredentials::SignedOut)?.clone();
        let code = random_text();
        let invitation = NewInvitation {
            code: hashed(&code),
            id: Subject(random_text()),
            tenant: by.tenant_or_home().to_owned(),
            role,
            lasts: INVITATION_LIFETIME,
            invitations_max: self.settings.tenant_invitations_max,
        };
        if self.accounts().create_invitation(invitation, user).await? {
            Ok(code)
        } else {
            Err(QuotaReached::Invitations.into())
        }
    }
}
