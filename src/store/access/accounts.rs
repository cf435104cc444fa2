//! Operations on accounts, invitations and password resets.

use super::audit::audit;
use super::sessions::end_sessions;
use super::{
    AccessLock, AccessTransaction, AccountChange, Counted, Expired, Operation, SessionFilter,
};
use crate::access::{
    AccountDraft, Admission, AuditAction, CreateAccountError, NewAuditEvent, NewInvitation,
    NewRevocation, PasswordReset, Role, SecretHash, SessionKey, Subject, later,
};

/// [`AccessStore::create_account`](super::AccessStore::create_account).
pub(super) struct CreateAccount {
    pub(super) account: AccountDraft,
    pub(super) admission: Admission,
}

impl Operation for CreateAccount {
    type Output = Result<(), CreateAccountError>;

    async fn run<T: AccessTransaction>(&self, tx: &mut T) -> Result<Self::Output, T::Error> {
        let account = &self.account;
        // Before the login is looked at: a caller that is not admitted must not learn which logins exist.
        let (tenant, role) = match admit(tx, account, self.admission).await? {
            Ok(admitted) => admitted,
            Err(error) => return Ok(Err(error)),
        };
        if !tx.insert_account(account, &tenant, role).await? {
            return Ok(Err(CreateAccountError::LoginTaken));
        }
        let event = NewAuditEvent::new(&account.id, AuditAction::CreateAccount);
        audit(tx, event.to_role(role)).await?;
        Ok(Ok(()))
    }

    /// An account that is not created uses up no invitation.
    fn commits(output: &Self::Output) -> bool {
        output.is_ok()
    }
}

/// The tenant and the role of an admitted account.
async fn admit<T: AccessTransaction>(
    tx: &mut T,
    account: &AccountDraft,
    admission: Admission,
) -> Result<Result<(String, Option<Role>), CreateAccountError>, T::Error> {
    match admission {
        Admission::First => {
            tx.lock(AccessLock::Accounts).await?;
            if tx.count(Counted::Accounts { at_most: 1 }).await? > 0 {
                return Ok(Err(CreateAccountError::NotFirst));
            }
            Ok(Ok((account.tenant.clone(), Some(Role::Owner))))
        }
        Admission::Open { accounts_max } => {
            let at_most = accounts_max;
            if tx.count(Counted::Accounts { at_most }).await? >= accounts_max {
                return Ok(Err(CreateAccountError::QuotaReached));
            }
            Ok(Ok((account.tenant.clone(), None)))
        }
        Admission::Invited(code) => {
            let invitation = tx.take_invitation(code).await?;
            let valid = invitation.filter(|it| it.is_valid(tx.now_ms()));
            let admitted = valid.map(|it| (it.tenant, it.role));
            Ok(admitted.ok_or(CreateAccountError::NotInvited))
        }
    }
}

/// [`AccessStore::set_password`](super::AccessStore::set_password).
pub(super) struct SetPassword {
    pub(super) user: Subject,
    pub(super) password: String,
    pub(super) keep: Option<SessionKey>,
}

impl Operation for SetPassword {
    type Output = ();

    async fn run<T: AccessTransaction>(&self, tx: &mut T) -> Result<(), T::Error> {
        let user = &self.user;
        let change = AccountChange::Password(&self.password);
        tx.update_account(user, change).await?;
        let event = NewAuditEvent::new(user, AuditAction::ChangePassword);
        audit(tx, event.about(user)).await?;
        end_sessions(tx, user, SessionFilter::AllExcept(self.keep.as_ref())).await
    }
}

/// [`AccessStore::set_tenant_role`](super::AccessStore::set_tenant_role).
pub(super) struct SetTenantRole {
    pub(super) user: Subject,
    pub(super) role: Option<Role>,
    pub(super) by: Subject,
}

impl Operation for SetTenantRole {
    type Output = bool;

    async fn run<T: AccessTransaction>(&self, tx: &mut T) -> Result<bool, T::Error> {
        let change = AccountChange::TenantRole(self.role);
        let exists = tx.update_account(&self.user, change).await?;
        let event = NewAuditEvent::new(&self.by, AuditAction::SetTenantRole);
        audit(tx, event.about(&self.user).to_role(self.role)).await?;
        tx.revoke(NewRevocation::everywhere(&self.user));
        Ok(exists)
    }
}

/// [`AccessStore::set_disabled`](super::AccessStore::set_disabled).
pub(super) struct SetDisabled {
    pub(super) user: Subject,
    pub(super) disabled: bool,
    pub(super) by: Subject,
}

impl Operation for SetDisabled {
    type Output = bool;

    async fn run<T: AccessTransaction>(&self, tx: &mut T) -> Result<bool, T::Error> {
        let change = AccountChange::Disabled(self.disabled);
        let exists = tx.update_account(&self.user, change).await?;
        let action = if self.disabled {
            AuditAction::DisableAccount
        } else {
            AuditAction::EnableAccount
        };
        let event = NewAuditEvent::new(&self.by, action);
        audit(tx, event.about(&self.user)).await?;
        if self.disabled {
            end_sessions(tx, &self.user, SessionFilter::AllExcept(None)).await?;
            tx.revoke(NewRevocation::all_sessions_ended(&self.user));
        }
        Ok(exists)
    }
}

/// [`AccessStore::create_reset`](super::AccessStore::create_reset).
pub(super) struct CreateReset {
    pub(super) reset: PasswordReset,
    pub(super) by: Subject,
}

impl Operation for CreateReset {
    type Output = ();

    async fn run<T: AccessTransaction>(&self, tx: &mut T) -> Result<(), T::Error> {
        let expires_at_ms = later(tx.now_ms(), self.reset.lasts);
        tx.put_reset(&self.reset, &self.by, expires_at_ms).await?;
        let event = NewAuditEvent::new(&self.by, AuditAction::CreateReset);
        audit(tx, event.about(&self.reset.user)).await
    }
}

/// [`AccessStore::reset_password`](super::AccessStore::reset_password).
pub(super) struct ResetPassword {
    pub(super) code: SecretHash,
    pub(super) password: String,
}

impl Operation for ResetPassword {
    type Output = Option<Subject>;

    async fn run<T: AccessTransaction>(&self, tx: &mut T) -> Result<Self::Output, T::Error> {
        let reset = tx.take_reset(self.code).await?;
        let Some(reset) = reset.filter(|it| it.is_valid(tx.now_ms())) else {
            return Ok(None);
        };
        let user = reset.user;
        let change = AccountChange::Password(&self.password);
        tx.update_account(&user, change).await?;
        let event = NewAuditEvent::new(&user, AuditAction::ResetPassword);
        audit(tx, event.about(&user)).await?;
        end_sessions(tx, &user, SessionFilter::AllExcept(None)).await?;
        Ok(Some(user))
    }

    /// A code that is not valid stays: its issuer may get the permission back.
    fn commits(output: &Self::Output) -> bool {
        output.is_some()
    }
}

/// [`AccessStore::create_invitation`](super::AccessStore::create_invitation).
pub(super) struct CreateInvitation {
    pub(super) invitation: NewInvitation,
    pub(super) by: Subject,
}

impl Operation for CreateInvitation {
    type Output = bool;

    async fn run<T: AccessTransaction>(&self, tx: &mut T) -> Result<bool, T::Error> {
        let invitation = &self.invitation;
        let tenant = invitation.tenant.as_str();
        tx.delete_expired(Expired::Invitations).await?;
        // One at a time, so that the count holds.
        tx.lock(AccessLock::InvitationsOf(tenant)).await?;
        let pending = tx.count(Counted::InvitationsOf(tenant)).await?;
        if pending >= invitation.invitations_max {
            return Ok(false);
        }
        let expires_at_ms = later(tx.now_ms(), invitation.lasts);
        tx.insert_invitation(invitation, &self.by, expires_at_ms)
            .await?;
        let event = NewAuditEvent::new(&self.by, AuditAction::CreateInvitation);
        audit(tx, event.to_role(invitation.role)).await?;
        Ok(true)
    }

    fn commits(output: &bool) -> bool {
        *output
    }
}

/// [`AccessStore::delete_invitation`](super::AccessStore::delete_invitation).
pub(super) struct DeleteInvitation {
    pub(super) tenant: String,
    pub(super) id: Subject,
    pub(super) by: Subject,
}

impl Operation for DeleteInvitation {
    type Output = bool;

    async fn run<T: AccessTransaction>(&self, tx: &mut T) -> Result<bool, T::Error> {
        let exists = tx.delete_invitation(&self.tenant, &self.id).await?;
        if exists {
            let event = NewAuditEvent::new(&self.by, AuditAction::DeleteInvitation);
            audit(tx, event).await?;
        }
        Ok(exists)
    }
}
