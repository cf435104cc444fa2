//! Sessions and their refresh tokens.

use std::time::Duration;

use super::{Account, SecretHash};

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

/// A stored session with its account.
#[derive(Debug, Clone)]
pub(crate) struct StoredSession {
    pub(crate) user: Account,
    pub(crate) renewed_at_ms: u64,
    pub(crate) expires_at_ms: u64,
}

impl StoredSession {
    /// The session if it has not expired and its account is not disabled.
    pub(crate) fn live(self, now_ms: u64) -> Option<LiveSession> {
        let is_live = self.expires_at_ms > now_ms && !self.user.disabled;
        is_live.then(|| LiveSession {
            age: Duration::from_millis(now_ms.saturating_sub(self.renewed_at_ms)),
            user: self.user,
        })
    }
}

/// The stored refresh tokens of a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RefreshTokens {
    /// The only token that can be exchanged.
    pub(crate) newest: SecretHash,
    /// The token before it.
    pub(crate) previous: Option<SecretHash>,
    pub(crate) renewed_at_ms: u64,
    pub(crate) expires_at_ms: u64,
}

impl RefreshTokens {
    /// What follows when a client presents a token. A token that was exchanged is accepted for `grace`, because another tab of
    /// the same browser may have exchanged it; after that it counts as stolen.
    pub(crate) fn present(&self, token: SecretHash, now_ms: u64, grace: Duration) -> Renewal {
        if self.expires_at_ms <= now_ms {
            return Renewal::Ended;
        }
        if self.newest == token {
            return Renewal::Renewed;
        }
        let is_recent = now_ms < later(self.renewed_at_ms, grace);
        if self.previous == Some(token) && is_recent {
            Renewal::JustRenewed
        } else {
            Renewal::Reused
        }
    }
}

/// The time `lasts` after `at_ms`, in milliseconds; the latest possible one if that overflows.
pub(crate) fn later(at_ms: u64, lasts: Duration) -> u64 {
    at_ms.saturating_add(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX))
}
