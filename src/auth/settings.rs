//! Who is let in.

use serde::Deserialize;

use super::{origin, token_verifier};

/// Who is let in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthSettings {
    /// How people say who they are.
    pub mode: AuthMode,
    /// Who may make an account, after the first.
    pub registration: Registration,
    /// The pages, besides our own, that may speak for their users: `https://app.example.org`.
    pub origins: Vec<String>,
    /// How long an access token is good, and a session that is not renewed, in seconds.
    pub access_seconds: u64,
    /// How many documents one tenant may make; 0: any number.
    pub tenant_documents_max: u64,
    /// How many MiB of ops one tenant may keep; 0: any number.
    pub tenant_mib_max: u64,
    /// How many share links that have not expired one document may have.
    pub document_links_max: u64,
    /// How many people may have a role of their own on one document.
    pub document_people_max: u64,
    /// How many invitations that have been neither used nor ended one tenant may have.
    pub tenant_invitations_max: u64,
    /// How many accounts there may be before none is made without an invitation.
    pub accounts_max: u64,
    /// How many sessions one user may have; one more ends the one that was renewed longest ago.
    pub user_sessions_max: u64,
    /// Whether a proxy in front says each client's address, as the last in X-Forwarded-For.
    pub behind_proxy: bool,
    /// The public keys that tokens are signed with: a file (PEM or JWK set), or the address of a JWK set.
    pub token_keys: String,
    /// The secret that tokens are signed with (HS256), instead of keys.
    pub token_secret: Secret,
    /// Who must have issued a token; empty: whoever has the key.
    pub token_issuer: String,
    /// Whom a token must be meant for; empty: whoever reads it.
    pub token_audience: String,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            mode: AuthMode::Accounts,
            registration: Registration::Invite,
            origins: Vec::new(),
            access_seconds: 600,
            tenant_documents_max: 0,
            tenant_mib_max: 0,
            document_links_max: 100,
            document_people_max: 1_000,
            tenant_invitations_max: 1_000,
            accounts_max: 100_000,
            user_sessions_max: 100,
            behind_proxy: false,
            token_keys: String::new(),
            token_secret: Secret::default(),
            token_issuer: String::new(),
            token_audience: String::new(),
        }
    }
}

impl AuthSettings {
    /// What the types do not say of settings that belong together.
    ///
    /// # Errors
    /// The setting's name, and what is wrong with it.
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

/// A setting that is not shown.
#[derive(Clone, Default, Deserialize)]
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

/// How people say who they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// They need not: whoever reaches the server may read and write everything. For tests and trials.
    Open,
    /// They have an account here and sign in.
    #[default]
    Accounts,
    /// The application that embeds the editor signs tokens for them.
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

/// Who may make an account, after the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// Everybody.
    Open,
    /// Who was invited.
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
