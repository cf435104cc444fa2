//! Settings of sign-in, quotas and tokens.

use serde::Deserialize;

use super::{origin, token_verifier};
use crate::setting::settings;

settings! {
    /// Sign-in, quotas and tokens.
    pub struct AuthSettings {
        /// How users identify themselves.
        pub mode: AuthMode = AuthMode::Accounts;
        /// Which users may create an account, after the first.
        pub registration: Registration = Registration::Invite;
        /// Origins besides the server's own from which pages may send requests with credentials: `https://app.example.org`.
        pub origins: Vec<String> = Vec::new();
        /// Lifetime of an access token, and of a session that is not renewed, in seconds.
        pub access_seconds: u64 = 600, in 2..=86_400;
        /// Documents that one tenant may create; 0: unlimited.
        pub tenant_documents_max: u64 = 0, in 0..=1 << 40;
        /// MiB of ops that one tenant may store; 0: unlimited.
        pub tenant_mib_max: u64 = 0, in 0..=1 << 40;
        /// Unexpired share links of one document.
        pub document_links_max: u64 = 100, in 1..=1_000_000;
        /// Users with a role of their own on one document.
        pub document_people_max: u64 = 1_000, in 1..=1_000_000;
        /// Open invitations of one tenant.
        pub tenant_invitations_max: u64 = 1_000, in 1..=1_000_000;
        /// Accounts after which new ones need an invitation.
        pub accounts_max: u64 = 100_000, in 1..=100_000_000;
        /// Sessions of one user. One more ends the session that was renewed longest ago.
        pub user_sessions_max: u64 = 100, in 1..=10_000;
        /// True if a proxy in front appends the client's address to X-Forwarded-For.
        pub behind_proxy: bool = false;
        /// The public keys of tokens: a file (PEM or JWK set), or the URL of a JWK set.
        pub token_keys: String = String::new();
        /// The secret of tokens that are signed with HS256, instead of keys.
        pub token_secret: Secret = Secret::default() => self_redacting;
        /// The issuer that a token must name; empty: any.
        pub token_issuer: String = String::new();
        /// The audience that a token must name; empty: any.
        pub token_audience: String = String::new();
    }
}

impl AuthSettings {
    /// Checks what the ranges of the single settings do not express.
    ///
    /// # Errors
    /// The name of the setting, and the reason.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        for origin in &self.origins {
            if !origin::is_origin(origin) {
                let message = format!(
                    "auth.origins has {origin:?}, but an origin is http:// or https://, a name and perhaps a port, without a path"
                );
                return Err(("auth.origins", message));
            }
        }
        if self.mode != AuthMode::Tokens {
            return Ok(());
        }
        token_verifier::check(self).map_err(|(key, error)| (key, error.to_string()))
    }
}

/// A setting that is not printed.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() {
            "none"
        } else {
            "set, not shown"
        })
    }
}

/// How requests are authenticated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Not at all: every client may read and write every document. For tests and trials.
    Open,
    /// By accounts of this server and sessions.
    #[default]
    Accounts,
    /// By tokens that the application signs that embeds the editor.
    Tokens,
}

impl AuthMode {
    /// The mode as the settings write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Accounts => "accounts",
            Self::Tokens => "tokens",
        }
    }
}

/// Which users may create an account, after the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// Every user.
    Open,
    /// Users with an invitation.
    Invite,
}

impl Registration {
    /// The choice as the settings write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Invite => "invite",
        }
    }
}
