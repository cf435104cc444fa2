//! Sessions and their refresh tokens.

use std::time::Duration;

use super::Account;

/// Identifies a session. It is no secret: using a session takes a token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub String);

/// The outcome of presenting a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The token was exchanged for the next one.
    Renewed,
    /// Another tab of the same browser exchanged the token within the grace period. The session stays valid; that tab has
    /// the next token.
    JustRenewed,
    /// The token was exchanged before: two clients have it, so the session was ended.
    Reused,
    /// The session has ended or expired.
    Ended,
}

/// A session that has neither ended nor expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveSession {
    /// The account that signed in.
    pub user: Account,
    /// Time since the session began or was last renewed.
    pub age: Duration,
}
