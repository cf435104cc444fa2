//! Tokens of another application: it has its own users, signs who they are, and we believe its key.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::settings::AuthSettings;

/// What a token says of its bearer.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Claims {
    /// The user, as the application names it.
    pub(super) sub: String,
    /// What others see.
    #[serde(default)]
    pub(super) name: Option<String>,
    /// Where the user belongs.
    #[serde(default)]
    pub(super) tenant: Option<String>,
    /// The role on every document of the tenant.
    #[serde(default)]
    pub(super) role: Option<String>,
    /// The role on some documents: `{"notes/plan": "editor"}`.
    #[serde(default)]
    pub(super) documents: BTreeMap<String, String>,
    /// When it expires, in seconds since 1970.
    pub(super) exp: u64,
}

impl Claims {
    /// How long the token holds.
    pub(super) fn lasts(&self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Duration::from_secs(self.exp).saturating_sub(now.unwrap_or_default())
    }
}

/// Why tokens cannot be looked at.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The settings name no key.
    #[error(
        "auth.mode is tokens: auth.token_keys must name a file or an address of public keys, or auth.token_secret a secret of at least 32 bytes"
    )]
    None,
    /// The file cannot be read.
    #[error("read the keys of tokens {0}: {1}")]
    File(String, std::io::Error),
    /// The address does not answer with keys.
    #[error("fetch the keys of tokens {0}: {1}")]
    Fetch(String, String),
    /// There is no public key for EdDSA, RS256 or ES256.
    #[error("{0} holds no public key for EdDSA, RS256 or ES256")]
    Nothing(String),
}

/// Looks at tokens.
pub(super) struct Host {
    keys: ArcSwap<Vec<Key>>,
    source: Source,
    issuer: Option<String>,
    audience: Option<String>,
    /// A token names a key that is not known: there may be new ones.
    missing: Notify,
}

enum Source {
    Secret,
    File(String),
    Address(String),
}

/// A key is good for one algorithm: a token cannot choose how it is looked at.
#[derive(Clone)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// How often the keys are fetched anew, at least and at most.
const FETCH_INTERVAL: Duration = Duration::from_mins(10);
const FETCH_PAUSE: Duration = Duration::from_secs(10);

/// How far the application's clock may be off.
const LEEWAY_SECONDS: u64 = 60;

/// The most that an address may answer with.
const KEYS_BYTES_MAX: u64 = 1 << 20;

impl Host {
    /// Reads or fetches the keys that the settings name. Blocks.
    pub(super) fn open(settings: &AuthSettings) -> Result<Self, KeyError> {
        let (source, keys) = if let Some(secret) = secret(settings) {
            let key = Key {
                id: None,
                algorithm: Algorithm::HS256,
                key: DecodingKey::from_secret(secret),
            };
            (Source::Secret, vec![key])
        } else if settings.token_keys.starts_with("http") {
            let address = settings.token_keys.clone();
            let keys = fetch(&address)?;
            (Source::Address(address), keys)
        } else if settings.token_keys.is_empty() {
            return Err(KeyError::None);
        } else {
            let file = settings.token_keys.clone();
            let text = std::fs::read_to_string(&file)
                .map_err(|error| KeyError::File(file.clone(), error))?;
            let keys = parse(&text, &file)?;
            (Source::File(file), keys)
        };
        let said = |text: &String| (!text.is_empty()).then(|| text.clone());
        Ok(Self {
            keys: ArcSwap::from_pointee(keys),
            source,
            issuer: said(&settings.token_issuer),
            audience: said(&settings.token_audience),
            missing: Notify::new(),
        })
    }

    /// What a token says, if it is signed by one of the keys and holds now.
    pub(super) fn claims(&self, token: &str) -> Option<Claims> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        let keys = self.keys.load();
        let fits = |key: &&Key| {
            let same_id = key.id.is_none() || header.kid.is_none() || key.id == header.kid;
            same_id && key.algorithm == header.alg
        };
        let mut fitting = keys.iter().filter(fits).peekable();
        if fitting.peek().is_none() {
            self.missing.notify_one();
        }
        fitting.find_map(|key| {
            let rules = self.rules(key.algorithm);
            let data = jsonwebtoken::decode::<Claims>(token, &key.key, &rules).ok()?;
            Some(data.claims)
        })
    }

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

    /// Fetches the keys anew, now and then and when one is missing. Never ends.
    pub(super) async fn keep_fresh(&self) {
        let Source::Address(address) = &self.source else {
            return std::future::pending().await;
        };
        loop {
            let next = Instant::now() + FETCH_PAUSE;
            // Woken or not: both are a reason.
            let _ = timeout(FETCH_INTERVAL, self.missing.notified()).await;
            sleep_until(next).await;
            let address = address.clone();
            match tokio::task::spawn_blocking(move || fetch(&address)).await {
                Ok(Ok(keys)) => self.keys.store(keys.into()),
                Ok(Err(error)) => tracing::warn!(%error, "the keys of tokens stay as they are"),
                Err(_) => sleep(FETCH_PAUSE).await,
            }
        }
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let source = match &self.source {
            Source::Secret => "a secret",
            Source::File(name) | Source::Address(name) => name,
        };
        f.debug_tuple("Host").field(&source).finish()
    }
}

/// The least that a secret has, in bytes: shorter ones are guessed from one token.
const SECRET_BYTES_MIN: usize = 32;

fn secret(settings: &AuthSettings) -> Option<&[u8]> {
    let secret = settings.token_secret.0.as_bytes();
    (secret.len() >= SECRET_BYTES_MIN).then_some(secret)
}

fn fetch(address: &str) -> Result<Vec<Key>, KeyError> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(5)))
        .build()
        .into();
    let error = |error: ureq::Error| KeyError::Fetch(address.to_owned(), error.to_string());
    let mut response = agent.get(address).call().map_err(error)?;
    let body = response.body_mut().with_config().limit(KEYS_BYTES_MAX);
    parse(&body.read_to_string().map_err(error)?, address)
}

/// Reads a JWK set, a JWK or a public key in PEM.
fn parse(text: &str, source: &str) -> Result<Vec<Key>, KeyError> {
    let keys: Vec<Key> = if text.trim_start().starts_with('{') {
        let set = serde_json::from_str::<JwkSet>(text)
            .map(|set| set.keys)
            .or_else(|_| serde_json::from_str::<Jwk>(text).map(|key| vec![key]))
            .unwrap_or_default();
        set.iter().filter_map(of_jwk).collect()
    } else {
        of_pem(text.as_bytes()).into_iter().collect()
    };
    if keys.is_empty() {
        return Err(KeyError::Nothing(source.to_owned()));
    }
    Ok(keys)
}

fn of_jwk(jwk: &Jwk) -> Option<Key> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(_) => Algorithm::EdDSA,
        // A secret in a public set is none.
        _ => return None,
    };
    Some(Key {
        id: jwk.common.key_id.clone(),
        algorithm,
        key: DecodingKey::from_jwk(jwk).ok()?,
    })
}

fn of_pem(pem: &[u8]) -> Option<Key> {
    let found = DecodingKey::from_ed_pem(pem)
        .map(|key| (Algorithm::EdDSA, key))
        .or_else(|_| DecodingKey::from_ec_pem(pem).map(|key| (Algorithm::ES256, key)))
        .or_else(|_| DecodingKey::from_rsa_pem(pem).map(|key| (Algorithm::RS256, key)));
    let (algorithm, key) = found.ok()?;
    Some(Key {
        id: None,
        algorithm,
        key,
    })
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    use super::*;
    use crate::auth::Secret;

    const SECRET: &str = "a secret of more than thirty-two bytes";

    fn host(change: impl FnOnce(&mut AuthSettings)) -> Host {
        let mut settings = AuthSettings {
            token_secret: Secret(SECRET.to_owned()),
            ..AuthSettings::default()
        };
        change(&mut settings);
        Host::open(&settings).unwrap()
    }

    fn token(algorithm: Algorithm, claims: &serde_json::Value, key: &EncodingKey) -> String {
        jsonwebtoken::encode(&Header::new(algorithm), claims, key).unwrap()
    }

    fn in_seconds(seconds: i64) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_secs().cast_signed() + seconds
    }

    #[test]
    fn a_token_holds_when_it_is_signed_and_in_its_time() {
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let wrong = EncodingKey::from_secret(b"another secret of thirty-two bytes");
        let (plain, strict) = (
            host(|_| {}),
            host(|settings| {
                settings.token_audience = "desk".to_owned();
                settings.token_issuer = "app".to_owned();
            }),
        );
        let good = json!({ "sub": "7", "exp": in_seconds(60) });
        let full = json!({ "sub": "7", "exp": in_seconds(60), "aud": "desk", "iss": "app" });
        let rows = [
            (&plain, &good, true),
            (&plain, &full, true),
            (&strict, &full, true),
            (&strict, &good, false),
            (
                &strict,
                &json!({ "sub": "7", "exp": in_seconds(60), "aud": "other", "iss": "app" }),
                false,
            ),
            (&plain, &json!({ "sub": "7" }), false),
            (&plain, &json!({ "exp": in_seconds(60) }), false),
            (
                &plain,
                &json!({ "sub": "7", "exp": in_seconds(-61) }),
                false,
            ),
            (
                &plain,
                &json!({ "sub": "7", "exp": in_seconds(600), "nbf": in_seconds(120) }),
                false,
            ),
        ];
        for (host, claims, holds) in rows {
            let signed = token(Algorithm::HS256, claims, &key);
            assert_eq!(host.claims(&signed).is_some(), holds, "{claims}");
            let forged = token(Algorithm::HS256, claims, &wrong);
            assert!(host.claims(&forged).is_none(), "{claims}");
        }
        for algorithm in [Algorithm::HS384, Algorithm::HS512] {
            assert!(plain.claims(&token(algorithm, &good, &key)).is_none());
        }
        // {"alg":"none"}
        let signed = token(Algorithm::HS256, &good, &key);
        let body = signed.split('.').nth(1).unwrap();
        assert!(
            plain
                .claims(&format!("eyJhbGciOiJub25lIn0.{body}."))
                .is_none()
        );
    }

    #[test]
    fn a_public_key_is_no_secret() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.pem");
        std::fs::write(&file, pair.public_key_pem()).unwrap();
        let host = host(|settings| {
            settings.token_secret = Secret::default();
            settings.token_keys = file.display().to_string();
        });
        let claims = json!({ "sub": "7", "exp": in_seconds(60) });
        let private = EncodingKey::from_ed_der(&pair.serialize_der());
        let signed = token(Algorithm::EdDSA, &claims, &private);
        assert_eq!(host.claims(&signed).unwrap().sub, "7");
        let public = EncodingKey::from_secret(pair.public_key_pem().as_bytes());
        let confused = token(Algorithm::HS256, &claims, &public);
        assert!(host.claims(&confused).is_none());
    }

    #[test]
    fn keys_must_be_named() {
        for (secret, keys, words) in [
            ("", "", "must name"),
            ("short", "", "at least 32 bytes"),
            ("", "/no/such/file", "read the keys"),
        ] {
            let settings = AuthSettings {
                token_secret: Secret(secret.to_owned()),
                token_keys: keys.to_owned(),
                ..AuthSettings::default()
            };
            let error = Host::open(&settings).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!(parse(r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#, "x").is_err());
    }
}
