//! Tokens (JWT) of another application, which has users of its own: verified with its public keys or a shared secret.

mod keys;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::keys::{VerificationKey, fetch, read};
use super::origin;
use super::settings::AuthSettings;

/// The claims of a token.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct TokenClaims {
    /// The user's name in the application.
    pub(super) sub: String,
    /// The name that other users see.
    #[serde(default)]
    pub(super) name: Option<String>,
    /// The user's tenant.
    #[serde(default)]
    pub(super) tenant: Option<String>,
    /// The role on every document of the tenant.
    #[serde(default)]
    pub(super) role: Option<String>,
    /// Roles on single documents: `{"notes/plan": "editor"}`.
    #[serde(default)]
    pub(super) documents: BTreeMap<String, String>,
    /// When it expires, in seconds since 1970.
    pub(super) exp: u64,
    /// When it was issued, in seconds since 1970.
    #[serde(default)]
    pub(super) iat: Option<u64>,
}

impl TokenClaims {
    /// How long the token is still valid.
    pub(super) fn valid_for(&self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Duration::from_secs(self.exp).saturating_sub(now.unwrap_or_default())
    }
}

/// Why no keys are available to verify tokens.
#[derive(Debug, Error)]
pub enum TokenKeyError {
    /// The settings name no key.
    #[error(
        "auth.mode is tokens: auth.token_keys must name a file or an address of public keys, or auth.token_secret a secret of at least 32 bytes"
    )]
    None,
    /// The file cannot be read.
    #[error("read the keys of tokens {0}: {1}")]
    File(String, std::io::Error),
    /// Without TLS an attacker on the network could replace the keys.
    #[error("auth.token_keys {0}: keys are fetched by https, or by http from this machine")]
    Plain(String),
    /// The URL does not answer with keys.
    #[error("fetch the keys of tokens {0}: {1}")]
    Fetch(String, String),
    /// The secret is too short.
    #[error("auth.token_secret must have at least {SECRET_BYTES_MIN} bytes")]
    ShortSecret,
    /// There is no public key for EdDSA, RS256 or ES256.
    #[error(
        "{0} holds no public key for EdDSA, RS256 (2,048 to 8,192 bits) or ES256 that is for signatures"
    )]
    Nothing(String),
}

/// Verifies tokens. A token is accepted if one of the keys signed it and it is valid now.
pub(super) struct TokenVerifier {
    keys: ArcSwap<Vec<VerificationKey>>,
    source: KeySource,
    issuer: Option<String>,
    audience: Option<String>,
    /// Notified when a token names an unknown key: the application may have new keys.
    missing: Notify,
}

/// Where the keys come from.
enum KeySource {
    Secret,
    File(String),
    Address(String),
}

/// The interval between fetches of the keys: the longest, the shortest, and while no keys are loaded.
const FETCH_INTERVAL: Duration = Duration::from_mins(10);
const FETCH_PAUSE: Duration = Duration::from_secs(10);
const FETCH_FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How often the modification time of a key file is checked.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// The tolerated skew of the application's clock.
const LEEWAY_SECONDS: u64 = 60;

impl TokenVerifier {
    /// Reads or fetches the keys that the settings name. If their URL does not answer, all tokens are rejected until it does.
    /// Blocks.
    pub(super) fn open(settings: &AuthSettings) -> Result<Self, TokenKeyError> {
        let (source, keys) = if let Some(secret) = secret(settings) {
            let key = VerificationKey {
                id: None,
                algorithm: Algorithm::HS256,
                key: DecodingKey::from_secret(secret),
            };
            (KeySource::Secret, vec![key])
        } else if settings.token_keys.contains("://") {
            let address = settings.token_keys.clone();
            check_address(&address)?;
            let keys = fetch(&address).unwrap_or_else(|error| {
                tracing::error!(%error, "no JWKS keys loaded: rejecting all tokens until there are");
                Vec::new()
            });
            (KeySource::Address(address), keys)
        } else if settings.token_keys.is_empty() {
            return Err(TokenKeyError::None);
        } else {
            let file = settings.token_keys.clone();
            let keys = read(&file)?;
            (KeySource::File(file), keys)
        };
        let non_empty = |text: &String| (!text.is_empty()).then(|| text.clone());
        Ok(Self {
            keys: ArcSwap::from_pointee(keys),
            source,
            issuer: non_empty(&settings.token_issuer),
            audience: non_empty(&settings.token_audience),
            missing: Notify::new(),
        })
    }

    /// The claims of a token, if one of the keys signed it and it is valid now.
    pub(super) fn verify(&self, token: &str) -> Option<TokenClaims> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        // RFC 7515, 4.1.11: a critical extension that is not supported makes the token invalid; none is supported.
        if header.crit.is_some() {
            tracing::debug!("token rejected: it has critical extensions");
            return None;
        }
        let keys = self.keys.load();
        let fits = |key: &&VerificationKey| {
            let same_id = key.id.is_none() || header.kid.is_none() || key.id == header.kid;
            same_id && key.algorithm == header.alg
        };
        let mut fitting = keys.iter().filter(fits).peekable();
        if fitting.peek().is_none() {
            self.missing.notify_one();
        }
        fitting.find_map(|key| {
            let rules = self.rules(key.algorithm);
            let data = jsonwebtoken::decode::<TokenClaims>(token, &key.key, &rules).ok()?;
            Some(data.claims)
        })
    }

    /// What a token signed with this algorithm must fulfil.
    fn rules(&self, algorithm: Algorithm) -> Validation {
        let mut rules = Validation::new(algorithm);
        rules.leeway = LEEWAY_SECONDS;
        rules.validate_nbf = true;
        let mut required = vec!["exp", "sub"];
        match &self.audience {
            Some(audience) => {
                rules.set_audience(&[audience]);
                required.push("aud");
            }
            None => rules.validate_aud = false,
        }
        if let Some(issuer) = &self.issuer {
            rules.set_issuer(&[issuer]);
            required.push("iss");
        }
        rules.set_required_spec_claims(&required);
        rules
    }

    /// Reloads the keys when they change. Never ends.
    pub(super) async fn refresh_keys(&self) {
        match &self.source {
            KeySource::Secret => std::future::pending().await,
            KeySource::File(file) => self.watch_file(file).await,
            KeySource::Address(address) => self.fetch_repeatedly(address).await,
        }
    }

    /// Reads the file again when it changes.
    async fn watch_file(&self, file: &str) {
        let changed_at = || std::fs::metadata(file).and_then(|it| it.modified()).ok();
        let mut seen = changed_at();
        loop {
            sleep(LOOK_INTERVAL).await;
            let now = changed_at();
            if now != seen {
                seen = now;
                self.replace_keys(read(file));
            }
        }
    }

    /// Fetches the keys at an interval and when one is missing.
    async fn fetch_repeatedly(&self, address: &str) {
        loop {
            let pause = if self.keys.load().is_empty() {
                FETCH_FIRST_PAUSE
            } else {
                FETCH_PAUSE
            };
            let next = Instant::now() + pause;
            if !self.keys.load().is_empty() {
                // Both the end of the interval and a missing key are a reason to fetch.
                let _ = timeout(FETCH_INTERVAL, self.missing.notified()).await;
            }
            sleep_until(next).await;
            let address = address.to_owned();
            let fetched = tokio::task::spawn_blocking(move || fetch(&address)).await;
            if let Ok(fetched) = fetched {
                self.replace_keys(fetched);
            }
        }
    }

    fn replace_keys(&self, keys: Result<Vec<VerificationKey>, TokenKeyError>) {
        match keys {
            Ok(keys) => self.keys.store(keys.into()),
            Err(error) => {
                tracing::error!(%error, "token keys were not reloaded: using the previous ones")
            }
        }
    }
}

impl std::fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let source = match &self.source {
            KeySource::Secret => "a secret",
            KeySource::File(name) | KeySource::Address(name) => name,
        };
        f.debug_tuple("TokenVerifier").field(&source).finish()
    }
}

/// Checks the settings of the keys without reading files or the network.
///
/// # Errors
/// The name of the setting, and the reason.
pub(super) fn check(settings: &AuthSettings) -> Result<(), (&'static str, TokenKeyError)> {
    let (secret, keys) = (&settings.token_secret.0, &settings.token_keys);
    if !secret.is_empty() && secret.len() < SECRET_BYTES_MIN {
        return Err(("auth.token_secret", TokenKeyError::ShortSecret));
    }
    if keys.contains("://") {
        return check_address(keys).map_err(|error| ("auth.token_keys", error));
    }
    if secret.is_empty() && keys.is_empty() {
        return Err(("auth.mode", TokenKeyError::None));
    }
    Ok(())
}

/// The shortest secret, in bytes: a shorter one can be found from one token by trying.
const SECRET_BYTES_MIN: usize = 32;

fn secret(settings: &AuthSettings) -> Option<&[u8]> {
    let secret = settings.token_secret.0.as_bytes();
    (secret.len() >= SECRET_BYTES_MIN).then_some(secret)
}

/// Requires TLS for keys from another machine: otherwise an attacker on the network could replace them.
fn check_address(address: &str) -> Result<(), TokenKeyError> {
    let plain = || {
        let rest = address.strip_prefix("http://")?;
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        (!host.contains('@') && origin::is_loopback(host)).then_some(())
    };
    if address.starts_with("https://") || plain().is_some() {
        return Ok(());
    }
    Err(TokenKeyError::Plain(address.to_owned()))
}

#[cfg(test)]
mod tests;
