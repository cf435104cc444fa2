//! SessionTokens of another application: it has its own users, signs who they are, and we believe its key.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::origin;
use super::settings::AuthSettings;

/// What a token says of its bearer.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct TokenClaims {
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
    /// When it was issued, in seconds since 1970.
    #[serde(default)]
    pub(super) iat: Option<u64>,
}

impl TokenClaims {
    /// How long the token holds.
    pub(super) fn lasts(&self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Duration::from_secs(self.exp).saturating_sub(now.unwrap_or_default())
    }
}

/// Why tokens cannot be looked at.
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
    /// Whoever is in between could give us keys of their own.
    #[error("auth.token_keys {0}: keys are fetched by https, or by http from this machine")]
    Plain(String),
    /// The address does not answer with keys.
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

/// Looks at tokens.
pub(super) struct TokenVerifier {
    keys: ArcSwap<Vec<VerificationKey>>,
    source: KeySource,
    issuer: Option<String>,
    audience: Option<String>,
    /// A token names a key that is not known: there may be new ones.
    missing: Notify,
}

enum KeySource {
    Secret,
    File(String),
    Address(String),
}

/// A key is good for one algorithm: a token cannot choose how it is looked at.
#[derive(Clone)]
struct VerificationKey {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// How often the keys are fetched anew: at least, at most, and while there are none.
const FETCH_INTERVAL: Duration = Duration::from_mins(10);
const FETCH_PAUSE: Duration = Duration::from_secs(10);
const FETCH_FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How often a file of keys is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// How far the application's clock may be off.
const LEEWAY_SECONDS: u64 = 60;

/// The most that an address may answer with.
const KEYS_BYTES_MAX: u64 = 1 << 20;

impl TokenVerifier {
    /// Reads the keys that the settings name, or fetches them: where their address does not answer, nobody comes in until
    /// it does. Blocks.
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
    pub(super) fn claims(&self, token: &str) -> Option<TokenClaims> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        // Parts that must be understood (RFC 7515, 4.1.11): none of those that exist is.
        if header.crit.is_some() {
            tracing::debug!(
                "a token names critical extensions, of which none is known: it is refused"
            );
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

    /// Takes new keys. Never ends.
    pub(super) async fn keep_fresh(&self) {
        match &self.source {
            KeySource::Secret => std::future::pending().await,
            KeySource::File(file) => self.keep_read(file).await,
            KeySource::Address(address) => self.keep_fetched(address).await,
        }
    }

    /// Reads the file anew when it changes.
    async fn keep_read(&self, file: &str) {
        let changed_at = || std::fs::metadata(file).and_then(|it| it.modified()).ok();
        let mut seen = changed_at();
        loop {
            sleep(LOOK_INTERVAL).await;
            let now = changed_at();
            if now != seen {
                seen = now;
                self.take(read(file));
            }
        }
    }

    /// Fetches the keys anew, now and then and when one is missing.
    async fn keep_fetched(&self, address: &str) {
        loop {
            let pause = if self.keys.load().is_empty() {
                FETCH_FIRST_PAUSE
            } else {
                FETCH_PAUSE
            };
            let next = Instant::now() + pause;
            if !self.keys.load().is_empty() {
                // Woken or not: both are a reason.
                let _ = timeout(FETCH_INTERVAL, self.missing.notified()).await;
            }
            sleep_until(next).await;
            let address = address.to_owned();
            let fetched = tokio::task::spawn_blocking(move || fetch(&address)).await;
            if let Ok(fetched) = fetched {
                self.take(fetched);
            }
        }
    }

    fn take(&self, keys: Result<Vec<VerificationKey>, TokenKeyError>) {
        match keys {
            Ok(keys) => self.keys.store(keys.into()),
            Err(error) => tracing::error!(%error, "the keys of tokens stay as they are"),
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

/// Whether the settings name a key, as far as can be said without reading files or asking anybody.
///
/// # Errors
/// What is wrong, with the name of the setting.
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

/// The least that a secret has, in bytes: shorter ones are guessed from one token.
const SECRET_BYTES_MIN: usize = 32;

fn secret(settings: &AuthSettings) -> Option<&[u8]> {
    let secret = settings.token_secret.0.as_bytes();
    (secret.len() >= SECRET_BYTES_MIN).then_some(secret)
}

/// Keys that come without TLS from another machine are whoever's is in between.
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

fn read(file: &str) -> Result<Vec<VerificationKey>, TokenKeyError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| TokenKeyError::File(file.to_owned(), error))?;
    parse(&text, file)
}

fn fetch(address: &str) -> Result<Vec<VerificationKey>, TokenKeyError> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(5)))
        // Who else could answer for that address is not whom the settings name.
        .max_redirects(0)
        .build()
        .into();
    let error = |error: ureq::Error| TokenKeyError::Fetch(address.to_owned(), error.to_string());
    let mut response = agent.get(address).call().map_err(error)?;
    let body = response.body_mut().with_config().limit(KEYS_BYTES_MAX);
    parse(&body.read_to_string().map_err(error)?, address)
}

/// Reads a JWK set, a JWK or a public key in PEM.
fn parse(text: &str, source: &str) -> Result<Vec<VerificationKey>, TokenKeyError> {
    let keys: Vec<VerificationKey> = if text.trim_start().starts_with('{') {
        let set = serde_json::from_str::<JwkSet>(text)
            .map(|set| set.keys)
            .or_else(|_| serde_json::from_str::<Jwk>(text).map(|key| vec![key]))
            .unwrap_or_default();
        set.iter().filter_map(of_jwk).collect()
    } else {
        of_pem(text.as_bytes()).into_iter().collect()
    };
    if keys.is_empty() {
        return Err(TokenKeyError::Nothing(source.to_owned()));
    }
    Ok(keys)
}

/// The key, if it is one that tokens can be verified with; a log line says why not.
fn of_jwk(jwk: &Jwk) -> Option<VerificationKey> {
    let id = jwk.common.key_id.clone();
    let refuse = |reason: &str| {
        tracing::warn!(
            key = id.as_deref().unwrap_or("without kid"),
            reason,
            "a key of the JWK set is not used"
        );
        None
    };
    if matches!(&jwk.common.public_key_use, Some(it) if *it != PublicKeyUse::Signature) {
        return refuse("its \"use\" is not \"sig\"");
    }
    let operations = jwk.common.key_operations.as_ref();
    if operations.is_some_and(|all| !all.contains(&KeyOperations::Verify)) {
        return refuse("its \"key_ops\" have no \"verify\"");
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let modulus = URL_SAFE_NO_PAD.decode(&rsa.n).unwrap_or_default();
            if !RSA_BITS.contains(&bits(&modulus)) {
                return refuse("an RSA key has 2,048 to 8,192 bits");
            }
            Algorithm::RS256
        }
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        // A secret in a public set is none.
        _ => return refuse("it is not RSA, P-256 or Ed25519"),
    };
    let named = jwk.common.key_algorithm.map(|named| named.to_string());
    if named.is_some_and(|named| named != format!("{algorithm:?}")) {
        return refuse("its \"alg\" is not RS256, ES256 or EdDSA, whichever it can be");
    }
    match DecodingKey::from_jwk(jwk) {
        Ok(key) => Some(VerificationKey { id, algorithm, key }),
        Err(_) => refuse("it cannot be read"),
    }
}

/// How many bits an RSA key has: fewer are broken, more only make each token slow.
const RSA_BITS: RangeInclusive<usize> = 2_048..=8_192;

/// The length of a number.
fn bits(number: &[u8]) -> usize {
    let leading = number.iter().take_while(|byte| **byte == 0).count();
    let first = number
        .get(leading)
        .map_or(8, |byte| byte.leading_zeros() as usize);
    (number.len() - leading)
        .saturating_mul(8)
        .saturating_sub(first % 8)
}

fn of_pem(pem: &[u8]) -> Option<VerificationKey> {
    let found = DecodingKey::from_ed_pem(pem)
        .map(|key| (Algorithm::EdDSA, key))
        .or_else(|_| DecodingKey::from_ec_pem(pem).map(|key| (Algorithm::ES256, key)))
        .or_else(|_| DecodingKey::from_rsa_pem(pem).map(|key| (Algorithm::RS256, key)));
    let (algorithm, key) = found.ok()?;
    if algorithm == Algorithm::RS256
        && !key
            .try_get_as_bytes()
            .ok()
            .and_then(rsa_bits)
            .is_some_and(|it| RSA_BITS.contains(&it))
    {
        tracing::warn!(
            "the RSA key of auth.token_keys is not used: it has not 2,048 to 8,192 bits"
        );
        return None;
    }
    Some(VerificationKey {
        id: None,
        algorithm,
        key,
    })
}

/// The bits of the modulus of a public key as PKCS #1 has it: a sequence whose first part is that number.
fn rsa_bits(der: &[u8]) -> Option<usize> {
    let (0x30, sequence, _) = der_part(der)? else {
        return None;
    };
    let (0x02, modulus, _) = der_part(sequence)? else {
        return None;
    };
    Some(bits(modulus))
}

/// The kind and the content of the first part, and what follows it.
fn der_part(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[kind, length], rest) = der.split_first_chunk()?;
    let (length, rest) = match length {
        0..0x80 => (usize::from(length), rest),
        // So many bytes of length follow.
        _ => {
            let (length, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let length = length.iter().try_fold(0_usize, |sum, byte| {
                sum.checked_mul(256)?.checked_add(usize::from(*byte))
            })?;
            (length, rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((kind, content, rest))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    use super::*;
    use crate::auth::Secret;

    const SECRET: &str = "a secret of more than thirty-two bytes";

    fn host(change: impl FnOnce(&mut AuthSettings)) -> TokenVerifier {
        let mut settings = AuthSettings {
            token_secret: Secret(SECRET.to_owned()),
            ..AuthSettings::default()
        };
        change(&mut settings);
        TokenVerifier::open(&settings).unwrap()
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

    /// A pair of keys, and the public one as a set has it.
    struct Pair {
        id: &'static str,
        algorithm: Algorithm,
        private: EncodingKey,
        public: serde_json::Value,
    }

    impl Pair {
        fn token(&self) -> String {
            let mut header = Header::new(self.algorithm);
            header.kid = Some(self.id.to_owned());
            let claims = json!({ "sub": "7", "exp": in_seconds(60) });
            jsonwebtoken::encode(&header, &claims, &self.private).unwrap()
        }
    }

    fn es256(id: &'static str) -> Pair {
        use rcgen::PublicKeyData;
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        // An uncompressed point: a byte, x, y.
        let point = pair.der_bytes().to_owned();
        let coordinate = |from: usize| URL_SAFE_NO_PAD.encode(&point[from..from + 32]);
        Pair {
            id,
            algorithm: Algorithm::ES256,
            private: EncodingKey::from_ec_der(&pair.serialize_der()),
            public: json!({
                "kty": "EC", "crv": "P-256", "kid": id, "x": coordinate(1), "y": coordinate(33),
            }),
        }
    }

    /// Made for this test: `openssl genrsa -traditional 2048`.
    fn rs256(id: &'static str) -> Pair {
        let (pem, modulus) = (
            include_str!("token_verifier/rsa.pem"),
            include_str!("token_verifier/rsa.txt"),
        );
        Pair {
            id,
            algorithm: Algorithm::RS256,
            private: EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap(),
            public: json!({ "kty": "RSA", "kid": id, "e": "AQAB", "n": modulus.trim() }),
        }
    }

    /// Serves a set of keys, or an answer of another kind, on this machine.
    #[derive(Clone, Default)]
    struct Site {
        answer: std::sync::Arc<std::sync::Mutex<String>>,
        asked: std::sync::Arc<std::sync::atomic::AtomicUsize>,
    }

    impl Site {
        fn set(&self, keys: &[&Pair]) {
            let keys: Vec<_> = keys.iter().map(|pair| &pair.public).collect();
            let body = json!({ "keys": keys }).to_string();
            let length = body.len();
            self.say(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"
            ));
        }

        fn say(&self, answer: String) {
            *self.answer.lock().unwrap() = answer;
        }

        fn asked(&self) -> usize {
            self.asked.load(std::sync::atomic::Ordering::SeqCst)
        }

        /// Begins to serve; the address.
        fn open(&self, listener: std::net::TcpListener) -> String {
            use std::io::{Read, Write};
            let site = self.clone();
            let address = listener.local_addr().unwrap();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let _ = stream.read(&mut [0; 4_096]);
                    site.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    let answer = site.answer.lock().unwrap().clone();
                    let _ = stream.write_all(answer.as_bytes());
                }
            });
            format!("http://{address}/keys")
        }
    }

    fn fetching(address: &str) -> TokenVerifier {
        host(|settings| {
            settings.token_secret = Secret::default();
            settings.token_keys = address.to_owned();
        })
    }

    fn knows(host: &TokenVerifier, pair: &Pair) -> bool {
        host.claims(&pair.token()).is_some()
    }

    /// Waits until a token holds, while time runs as fast as it may.
    async fn comes_to_know(host: &TokenVerifier, pair: &Pair) {
        let fetched = async {
            while !knows(host, pair) {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::select! {
            () = host.keep_fresh() => {}
            () = fetched => {}
            () = tokio::time::sleep(FETCH_INTERVAL) => panic!("it never does"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_fetched_and_new_ones_soon() {
        let site = Site::default();
        let (old, new, rsa) = (es256("old"), es256("new"), rs256("rsa"));
        site.set(&[&old, &rsa]);
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let host = fetching(&site.open(listener));
        assert!(knows(&host, &old) && knows(&host, &rsa) && !knows(&host, &new));
        // The same name makes it no other key.
        assert!(!knows(&host, &es256("old")));
        site.set(&[&new]);
        comes_to_know(&host, &new).await;
        assert!(!knows(&host, &old));
        // However many tokens name keys that are not there, they are asked for at most every so often.
        let before = site.asked();
        let begun = Instant::now();
        let flood = async {
            while begun.elapsed() < FETCH_PAUSE * 5 {
                assert!(!knows(&host, &old));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = host.keep_fresh() => {}
            () = flood => {}
        }
        assert!(site.asked() - before <= 5, "{}", site.asked() - before);
    }

    #[tokio::test(start_paused = true)]
    async fn a_site_that_is_away_at_the_start_is_asked_again() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let host = fetching(&format!("http://{address}/keys"));
        let (site, pair) = (Site::default(), es256("a"));
        assert!(!knows(&host, &pair));
        site.set(&[&pair]);
        site.open(std::net::TcpListener::bind(address).unwrap());
        comes_to_know(&host, &pair).await;
    }

    #[test]
    fn keys_come_from_where_they_are_said_to_be() {
        let (site, other, pair) = (Site::default(), Site::default(), es256("a"));
        other.set(&[&pair]);
        let listen = || std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let elsewhere = other.open(listen());
        site.say(format!(
            "HTTP/1.1 302 Found\r\nlocation: {elsewhere}\r\ncontent-length: 0\r\n\r\n"
        ));
        assert!(!knows(&fetching(&site.open(listen())), &pair));
        assert_eq!(other.asked(), 0);
        assert!(knows(&fetching(&elsewhere), &pair));
        for address in [
            "http://keys.example.org/",
            "http://127.0.0.1@keys.example.org/",
            "http://localhost.example.org/",
            "ftp://keys.example.org/",
        ] {
            let settings = AuthSettings {
                token_keys: address.to_owned(),
                ..AuthSettings::default()
            };
            let error = TokenVerifier::open(&settings).unwrap_err().to_string();
            assert!(error.contains("by https"), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_read_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.json");
        let (old, new) = (es256("old"), es256("new"));
        let write = |pair: &Pair| std::fs::write(&file, pair.public.to_string()).unwrap();
        write(&old);
        let host = fetching(&file.display().to_string());
        assert!(knows(&host, &old));
        let changes = async {
            tokio::time::sleep(LOOK_INTERVAL / 2).await;
            write(&new);
            let later = SystemTime::now() + Duration::from_secs(2);
            let changed = std::fs::File::options().append(true).open(&file).unwrap();
            changed.set_modified(later).unwrap();
            std::future::pending().await
        };
        tokio::select! {
            () = comes_to_know(&host, &new) => {}
            () = changes => {}
        }
        assert!(!knows(&host, &old));
    }

    #[test]
    fn only_strong_keys_for_signatures_are_used() {
        let with = |pair: &Pair, name: &str, value: serde_json::Value| {
            let mut public = pair.public.clone();
            public[name] = value;
            parse(&public.to_string(), "x").is_ok()
        };
        let (rsa, curve) = (rs256("a"), es256("b"));
        for (pair, name, value, is_used) in [
            (&rsa, "use", json!("sig"), true),
            (&rsa, "use", json!("enc"), false),
            (&curve, "use", json!("enc"), false),
            (&curve, "use", json!("other"), false),
            (&curve, "key_ops", json!(["verify"]), true),
            (&curve, "key_ops", json!(["encrypt", "wrapKey"]), false),
            (&curve, "key_ops", json!([]), false),
            (&rsa, "alg", json!("RS256"), true),
            (&rsa, "alg", json!("RS512"), false),
            (&rsa, "alg", json!("RSA-OAEP"), false),
            (&curve, "alg", json!("ES256"), true),
            // 1,024 bits, 2,040 bits with zeros before them, and 16,384.
            (&rsa, "n", json!(URL_SAFE_NO_PAD.encode([0xff; 128])), false),
            (
                &rsa,
                "n",
                json!(URL_SAFE_NO_PAD.encode([&[0][..], &[0xff; 255]].concat())),
                false,
            ),
            (
                &rsa,
                "n",
                json!(URL_SAFE_NO_PAD.encode(vec![0xff; 2_048])),
                false,
            ),
        ] {
            assert_eq!(with(pair, name, value.clone()), is_used, "{name}: {value}");
        }
        // Of a set, only the keys that will not do are left out.
        let set = json!({ "keys": [with_use(&rsa, "enc"), curve.public] });
        assert_eq!(parse(&set.to_string(), "x").unwrap().len(), 1);
        let set = json!({ "keys": [with_use(&rsa, "enc")] });
        assert!(parse(&set.to_string(), "x").is_err());
    }

    fn with_use(pair: &Pair, purpose: &str) -> serde_json::Value {
        let mut public = pair.public.clone();
        public["use"] = json!(purpose);
        public
    }

    #[test]
    fn an_rsa_key_in_pem_is_as_long_as_one_in_a_set() {
        use base64::engine::general_purpose::STANDARD;
        let pem = |modulus: &[u8]| {
            let part = |kind: u8, content: &[u8]| {
                let length = u16::try_from(content.len()).unwrap().to_be_bytes();
                [&[kind, 0x82][..], &length, content].concat()
            };
            let numbers = [part(2, &[&[0], modulus].concat()), part(2, &[1, 0, 1])].concat();
            let text = STANDARD.encode(part(0x30, &numbers));
            format!("-----BEGIN RSA PUBLIC KEY-----\n{text}\n-----END RSA PUBLIC KEY-----\n")
        };
        assert!(of_pem(pem(&[0xff; 256]).as_bytes()).is_some());
        assert!(of_pem(pem(&[0xff; 128]).as_bytes()).is_none());
        assert!(of_pem(pem(&[0xff; 255]).as_bytes()).is_none());
        assert_eq!(rsa_bits(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(rsa_bits(&[]), None);
    }

    #[test]
    fn a_token_with_critical_extensions_is_refused() {
        let host = host(|_| {});
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let claims = json!({ "sub": "7", "exp": in_seconds(60) });
        let sign = |header: serde_json::Value| {
            let [header, claims] =
                [header, claims.clone()].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
            let text = format!("{header}.{claims}");
            let mac = jsonwebtoken::crypto::sign(text.as_bytes(), &key, Algorithm::HS256).unwrap();
            format!("{text}.{mac}")
        };
        assert!(host.claims(&sign(json!({ "alg": "HS256" }))).is_some());
        for crit in [json!(["exp"]), json!(["b64"]), json!(["urn:x"]), json!([])] {
            let token = sign(json!({ "alg": "HS256", "crit": crit, "urn:x": 1 }));
            assert!(host.claims(&token).is_none(), "{crit}");
        }
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
            let error = TokenVerifier::open(&settings).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!(parse(r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#, "x").is_err());
    }
}
