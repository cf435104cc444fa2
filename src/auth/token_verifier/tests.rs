//! Tests of token verification and of the keys.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

use super::keys::{of_pem, parse, rsa_bits};
use super::*;
use crate::auth::Secret;

const SECRET: &str = "a secret of more than thirty-two bytes";

fn verifier(change: impl FnOnce(&mut AuthSettings)) -> TokenVerifier {
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
fn token_is_valid_if_signed_and_within_its_time() {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let wrong = EncodingKey::from_secret(b"another secret of thirty-two bytes");
    let (plain, strict) = (
        verifier(|_| {}),
        verifier(|settings| {
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
    for (verifier, claims, holds) in rows {
        let signed = token(Algorithm::HS256, claims, &key);
        assert_eq!(verifier.verify(&signed).is_some(), holds, "{claims}");
        let forged = token(Algorithm::HS256, claims, &wrong);
        assert!(verifier.verify(&forged).is_none(), "{claims}");
    }
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        assert!(plain.verify(&token(algorithm, &good, &key)).is_none());
    }
    // {"alg":"none"}
    let signed = token(Algorithm::HS256, &good, &key);
    let body = signed.split('.').nth(1).unwrap();
    assert!(
        plain
            .verify(&format!("eyJhbGciOiJub25lIn0.{body}."))
            .is_none()
    );
}

#[test]
fn public_key_is_not_accepted_as_a_secret() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.pem");
    std::fs::write(&file, pair.public_key_pem()).unwrap();
    let verifier = verifier(|settings| {
        settings.token_secret = Secret::default();
        settings.token_keys = file.display().to_string();
    });
    let claims = json!({ "sub": "7", "exp": in_seconds(60) });
    let private = EncodingKey::from_ed_der(&pair.serialize_der());
    let signed = token(Algorithm::EdDSA, &claims, &private);
    assert_eq!(verifier.verify(&signed).unwrap().sub, "7");
    let public = EncodingKey::from_secret(pair.public_key_pem().as_bytes());
    let confused = token(Algorithm::HS256, &claims, &public);
    assert!(verifier.verify(&confused).is_none());
}

/// A key pair, the public key as a JWK.
struct SigningKeyPair {
    id: &'static str,
    algorithm: Algorithm,
    private: EncodingKey,
    public: serde_json::Value,
}

impl SigningKeyPair {
    fn token(&self) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.id.to_owned());
        let claims = json!({ "sub": "7", "exp": in_seconds(60) });
        jsonwebtoken::encode(&header, &claims, &self.private).unwrap()
    }
}

fn es256(id: &'static str) -> SigningKeyPair {
    use rcgen::PublicKeyData;
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    // An uncompressed point: a byte, x, y.
    let point = pair.der_bytes().to_owned();
    let coordinate = |from: usize| URL_SAFE_NO_PAD.encode(&point[from..from + 32]);
    SigningKeyPair {
        id,
        algorithm: Algorithm::ES256,
        private: EncodingKey::from_ec_der(&pair.serialize_der()),
        public: json!({
            "kty": "EC", "crv": "P-256", "kid": id, "x": coordinate(1), "y": coordinate(33),
        }),
    }
}

/// Made for this test: `openssl genrsa -traditional 2048`.
fn rs256(id: &'static str) -> SigningKeyPair {
    let (pem, modulus) = (include_str!("rsa.pem"), include_str!("rsa.txt"));
    SigningKeyPair {
        id,
        algorithm: Algorithm::RS256,
        private: EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap(),
        public: json!({ "kty": "RSA", "kid": id, "e": "AQAB", "n": modulus.trim() }),
    }
}

/// An HTTP server on this machine that answers with a JWK set, or with other text.
#[derive(Clone, Default)]
struct Site {
    answer: std::sync::Arc<std::sync::Mutex<String>>,
    requests: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Site {
    fn set(&self, keys: &[&SigningKeyPair]) {
        let keys: Vec<_> = keys.iter().map(|pair| &pair.public).collect();
        let body = json!({ "keys": keys }).to_string();
        let length = body.len();
        self.answer_with(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"
        ));
    }

    fn answer_with(&self, answer: String) {
        *self.answer.lock().unwrap() = answer;
    }

    /// The number of requests so far.
    fn requests(&self) -> usize {
        self.requests.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Starts to serve; returns the URL.
    fn open(&self, listener: std::net::TcpListener) -> String {
        use std::io::{Read, Write};
        let site = self.clone();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4_096]);
                site.requests
                    .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let answer = site.answer.lock().unwrap().clone();
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        format!("http://{address}/keys")
    }
}

fn fetching(address: &str) -> TokenVerifier {
    verifier(|settings| {
        settings.token_secret = Secret::default();
        settings.token_keys = address.to_owned();
    })
}

fn accepts(verifier: &TokenVerifier, pair: &SigningKeyPair) -> bool {
    verifier.verify(&pair.token()).is_some()
}

/// Waits in paused time until a token is accepted.
async fn until_accepted(verifier: &TokenVerifier, pair: &SigningKeyPair) {
    let fetched = async {
        while !accepts(verifier, pair) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = verifier.refresh_keys() => {}
        () = fetched => {}
        () = tokio::time::sleep(FETCH_INTERVAL) => panic!("the token is never accepted"),
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_key_triggers_a_fetch() {
    let site = Site::default();
    let (old, new, rsa) = (es256("old"), es256("new"), rs256("rsa"));
    site.set(&[&old, &rsa]);
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let verifier = fetching(&site.open(listener));
    assert!(accepts(&verifier, &old) && accepts(&verifier, &rsa) && !accepts(&verifier, &new));
    // Another key with the same id does not match.
    assert!(!accepts(&verifier, &es256("old")));
    site.set(&[&new]);
    until_accepted(&verifier, &new).await;
    assert!(!accepts(&verifier, &old));
    // Tokens with unknown keys do not trigger more fetches than the shortest interval allows.
    let before = site.requests();
    let begun = Instant::now();
    let flood = async {
        while begun.elapsed() < FETCH_PAUSE * 5 {
            assert!(!accepts(&verifier, &old));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = verifier.refresh_keys() => {}
        () = flood => {}
    }
    assert!(
        site.requests() - before <= 5,
        "{}",
        site.requests() - before
    );
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_when_the_url_answers_later() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let verifier = fetching(&format!("http://{address}/keys"));
    let (site, pair) = (Site::default(), es256("a"));
    assert!(!accepts(&verifier, &pair));
    site.set(&[&pair]);
    site.open(std::net::TcpListener::bind(address).unwrap());
    until_accepted(&verifier, &pair).await;
}

#[test]
fn keys_come_only_from_the_configured_host() {
    let (site, other, pair) = (Site::default(), Site::default(), es256("a"));
    other.set(&[&pair]);
    let listen = || std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let elsewhere = other.open(listen());
    site.answer_with(format!(
        "HTTP/1.1 302 Found\r\nlocation: {elsewhere}\r\ncontent-length: 0\r\n\r\n"
    ));
    assert!(!accepts(&fetching(&site.open(listen())), &pair));
    assert_eq!(other.requests(), 0);
    assert!(accepts(&fetching(&elsewhere), &pair));
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
async fn changed_key_file_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let (old, new) = (es256("old"), es256("new"));
    let write = |pair: &SigningKeyPair| std::fs::write(&file, pair.public.to_string()).unwrap();
    write(&old);
    let verifier = fetching(&file.display().to_string());
    assert!(accepts(&verifier, &old));
    let changes = async {
        tokio::time::sleep(LOOK_INTERVAL / 2).await;
        write(&new);
        let later = SystemTime::now() + Duration::from_secs(2);
        let changed = std::fs::File::options().append(true).open(&file).unwrap();
        changed.set_modified(later).unwrap();
        std::future::pending().await
    };
    tokio::select! {
        () = until_accepted(&verifier, &new) => {}
        () = changes => {}
    }
    assert!(!accepts(&verifier, &old));
}

#[test]
fn only_strong_signature_keys_are_used() {
    let with = |pair: &SigningKeyPair, name: &str, value: serde_json::Value| {
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
    // Unusable keys of a set are ignored, the others are used.
    let set = json!({ "keys": [with_use(&rsa, "enc"), curve.public] });
    assert_eq!(parse(&set.to_string(), "x").unwrap().len(), 1);
    let set = json!({ "keys": [with_use(&rsa, "enc")] });
    assert!(parse(&set.to_string(), "x").is_err());
}

fn with_use(pair: &SigningKeyPair, purpose: &str) -> serde_json::Value {
    let mut public = pair.public.clone();
    public["use"] = json!(purpose);
    public
}

#[test]
fn rsa_key_in_pem_has_the_required_size() {
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
fn token_with_critical_extensions_is_rejected() {
    let verifier = verifier(|_| {});
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let claims = json!({ "sub": "7", "exp": in_seconds(60) });
    let sign = |header: serde_json::Value| {
        let [header, claims] =
            [header, claims.clone()].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let text = format!("{header}.{claims}");
        let mac = jsonwebtoken::crypto::sign(text.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{text}.{mac}")
    };
    assert!(verifier.verify(&sign(json!({ "alg": "HS256" }))).is_some());
    for crit in [json!(["exp"]), json!(["b64"]), json!(["urn:x"]), json!([])] {
        let token = sign(json!({ "alg": "HS256", "crit": crit, "urn:x": 1 }));
        assert!(verifier.verify(&token).is_none(), "{crit}");
    }
}

#[test]
fn missing_keys_are_an_error() {
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
