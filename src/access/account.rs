//! Accounts, invitations and password resets.

use std::time::Duration;

use super::Role;

/// Identifies the holder of a permission: a user or a share link. Share links, invitations and users share one id space.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(pub String);

/// SHA-256 of a secret. The secret itself is never stored.
pub type SecretHash = [u8; 32];

/// An account to create.
#[derive(Debug, Clone)]
pub struct AccountDraft {
    /// Random.
    pub id: Subject,
    /// The tenant, unless an invitation names another.
    pub tenant: String,
    /// The name for signing in, in lower case.
    pub login: String,
    /// The name that other users see.
    pub name: String,
    /// The password's Argon2id hash, in the PHC form.
    pub password: String,
}

/// What admits a new account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is the first account. It becomes an owner of its tenant.
    First,
    /// Open registration: admitted while there are fewer than this many accounts, closed ones included.
    Open {
        /// The limit.
        accounts_max: u64,
    },
    /// The invitation with this code.
    Invited(SecretHash),
}

/// Why an account was not created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateAccountError {
    /// [`Admission::First`], and there is an account already.
    NotFirst,
    /// Another account has this login.
    LoginTaken,
    /// There is no such invitation, or it is no longer valid.
    NotInvited,
    /// [`Admission::Open`], and the limit is reached.
    QuotaReached,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user's id.
    pub id: Subject,
    /// The tenant that it belongs to.
    pub tenant: String,
    /// The name for signing in, in lower case.
    pub login: String,
    /// The name that other users see.
    pub name: String,
    /// The password's Argon2id hash, in the PHC form.
    pub password: String,
    /// The role on every document of the tenant.
    pub role: Option<Role>,
    /// A disabled account cannot sign in and has no valid session.
    pub disabled: bool,
}

/// A password reset to create: its code sets a new password once.
#[derive(Debug, Clone)]
pub struct PasswordReset {
    /// The hash of the code.
    pub code: SecretHash,
    /// The account.
    pub user: Subject,
    /// How long the code is valid.
    pub lasts: Duration,
}

/// The user that created an invitation or a password reset, as stored when the code is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Issuer {
    pub(crate) tenant: String,
    pub(crate) role: Option<Role>,
    pub(crate) disabled: bool,
}

impl Issuer {
    /// Returns true if the user may still admit accounts to `tenant` and reset their passwords: codes lose their effect when
    /// their issuer loses that permission.
    pub(crate) fn may_issue_for(&self, tenant: &str) -> bool {
        self.tenant == tenant && self.role == Some(Role::Owner) && !self.disabled
    }
}

/// A stored password reset, with the facts that decide whether it is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredReset {
    /// The account that gets the new password.
    pub(crate) user: Subject,
    /// The account's tenant.
    pub(crate) tenant: String,
    pub(crate) issuer: Issuer,
    pub(crate) expires_at_ms: u64,
}

impl StoredReset {
    /// Returns true if its code sets a new password.
    pub(crate) fn is_valid(&self, now_ms: u64) -> bool {
        self.expires_at_ms > now_ms && self.issuer.may_issue_for(&self.tenant)
    }
}

/// A stored invitation, with the facts that decide whether it is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredInvitation {
    pub(crate) tenant: String,
    pub(crate) role: Option<Role>,
    pub(crate) issuer: Issuer,
    pub(crate) expires_at_ms: u64,
}

impl StoredInvitation {
    /// Returns true if its code creates an account.
    pub(crate) fn is_valid(&self, now_ms: u64) -> bool {
        self.expires_at_ms > now_ms && self.issuer.may_issue_for(&self.tenant)
    }
}

/// An invitation that has not expired and was not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingInvitation {
    /// Its id, which is no secret.
    pub id: Subject,
    /// The role that the account gets on every document of the tenant.
    pub role: Option<Role>,
    /// The user that created it.
    pub maker: Subject,
    /// When it expires, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

/// An invitation to create: its code creates one account.
#[derive(Debug, Clone)]
pub struct NewInvitation {
    /// The hash of the code.
    pub code: SecretHash,
    /// Its id: random, no secret.
    pub id: Subject,
    /// The tenant of the account.
    pub tenant: String,
    /// The role that the account gets on every document of the tenant.
    pub role: Option<Role>,
    /// How long the code is valid.
    pub lasts: Duration,
    /// How many pending invitations the tenant may have.
    pub invitations_max: u64,
}
