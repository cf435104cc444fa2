//! Errors of authentication and of operations on accounts.

use std::time::Duration;

use thiserror::Error;

use super::credentials::{LOGIN_CHARS_MAX, PASSWORD_CHARS_MIN};
use super::password::PasswordError;
use super::priority_queue::Overloaded;
use super::token_verifier::TokenKeyError;
use crate::store::StoreError;

/// Why the authentication service cannot start.
#[derive(Debug, Error)]
pub enum AuthSetupError {
    /// The keys that verify tokens are missing or unusable.
    #[error(transparent)]
    TokenKeys(#[from] TokenKeyError),
    /// The mode needs accounts, and the store has none.
    #[error("auth.mode is {0}, and this store keeps no accounts: serve with --open")]
    NoAccounts(&'static str),
}

/// Why an operation on accounts, sessions or share links failed.
#[derive(Debug, Error)]
pub enum AuthError {
    /// The login throttle rejects the attempt; the next one is accepted after this time.
    #[error("too many attempts: try again in {} s", .0.as_secs().max(1))]
    Throttled(Duration),
    /// Too many passwords wait to be checked.
    #[error("the server is busy: try again")]
    Overloaded,
    /// The credentials or the code are not accepted.
    #[error(transparent)]
    Rejected(#[from] RejectedCredentials),
    /// A field of the request is not acceptable.
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
    /// A quota is reached.
    #[error(transparent)]
    Quota(#[from] QuotaReached),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Credentials or codes that are not accepted. The text does not tell which part of a pair is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RejectedCredentials {
    /// The login, the password or both.
    #[error("the name or the password is not right")]
    LoginOrPassword,
    /// The password of a signed-in user or of a share link.
    #[error("the password is not right")]
    Password,
    /// The refresh token is not the newest one of a valid session.
    #[error("the session is over: sign in again")]
    RefreshToken,
    /// Registration requires an invitation, and the code is not a valid one.
    #[error("an invitation is required to create an account")]
    Invitation,
    /// The first account requires the server's own machine or the set-up code.
    #[error(
        "the first account is created on the server's own machine, or with the set-up code in the server's log"
    )]
    SetupCode,
    /// The code of a password reset.
    #[error("reset code invalid or expired")]
    ResetCode,
    /// The secret of a share link.
    #[error("share link invalid or expired")]
    ShareLink,
    /// The tenant has no other user with this login.
    #[error("no other user of this tenant has this login")]
    OtherUser,
    /// The operation requires a signed-in user.
    #[error("sign in first")]
    SignedOut,
    /// The principal does not own the document.
    #[error("only the owner can share a document")]
    NotDocumentOwner,
}

/// Input that is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidInput {
    /// A login with white space.
    #[error("a login has no spaces")]
    LoginWithSpaces,
    /// A login or a name that is empty, too long or has control characters.
    #[error("a name has 1 to {LOGIN_CHARS_MAX} characters, none of them control characters")]
    Name,
    /// Another account has this login.
    #[error("this login is taken")]
    LoginTaken,
    /// A password that is too short or too long.
    #[error("a password has at least {PASSWORD_CHARS_MIN} characters")]
    PasswordLength,
    /// A common password, or one made of the user's names.
    #[error("this password is easy to guess: choose a longer one, or several unusual words")]
    GuessablePassword,
    /// The share link has a password, and the request has none.
    #[error("this share link requires a password")]
    LinkPasswordMissing,
}

/// A quota of accounts, invitations or share links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum QuotaReached {
    /// `auth.accounts_max`.
    #[error("account quota reached: ask the tenant owner for an invitation")]
    Accounts,
    /// `auth.tenant_invitations_max`.
    #[error("invitation quota of the tenant reached: delete pending invitations first")]
    Invitations,
    /// `auth.document_links_max`.
    #[error("share link quota of the document reached: delete share links first")]
    ShareLinks,
}

impl From<Overloaded> for AuthError {
    fn from(_: Overloaded) -> Self {
        Self::Overloaded
    }
}

impl From<PasswordError> for AuthError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Overloaded => Self::Overloaded,
            PasswordError::Guessable => InvalidInput::GuessablePassword.into(),
        }
    }
}
