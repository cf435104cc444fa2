//! Who is let in.

use serde::Deserialize;

/// Who is let in.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthSettings {
    /// How people say who they are.
    pub mode: Mode,
}

/// How people say who they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They need not: whoever reaches the server may read and write everything. For tests and trials.
    Open,
    /// They have an account here and sign in.
    #[default]
    Accounts,
    /// The application that embeds the editor signs tokens for them.
    Tokens,
}

impl Mode {
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
