//! Signed tokens and cookies: texts with a MAC, which only nodes with the same secret can make.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use super::client_id::derived;
use crate::access::{SecretHash, SessionKey, Subject};

/// Signs texts for one purpose each, and verifies them.
#[derive(Clone)]
pub(super) struct TokenSigner {
    key: Hmac<Sha256>,
}

impl TokenSigner {
    /// A signer. Every node with the same secret accepts its tokens.
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        Self {
            key: derived(secret, "sealed texts"),
        }
    }

    /// An access token of a session that is valid until a time, in seconds since 1970.
    pub(super) fn access_token(&self, session: &SessionKey, until: u64) -> String {
        self.sign("access", &format!("{}.{until}", session.0))
    }

    /// The session of an access token that is genuine and has not expired.
    pub(super) fn verify_access(&self, token: &str, now: u64) -> Option<SessionKey> {
        let text = self.verify("access", token)?;
        let (session, until) = text.rsplit_once('.')?;
        (until.parse::<u64>().ok()? > now).then(|| SessionKey(session.to_owned()))
    }

    /// A token that renews a session once.
    pub(super) fn refresh_token(&self, session: &SessionKey) -> String {
        self.sign("refresh", &format!("{}.{}", session.0, random_text()))
    }

    /// The session of a genuine refresh token.
    pub(super) fn verify_refresh(&self, token: &str) -> Option<SessionKey> {
        let text = self.verify("refresh", token)?;
        let (session, _) = text.rsplit_once('.')?;
        Some(SessionKey(session.to_owned()))
    }

    /// The cookie of a browser that has opened these share links.
    pub(super) fn links(&self, links: &[Subject]) -> String {
        let ids: Vec<&str> = links.iter().map(|link| link.0.as_str()).collect();
        self.sign("links", &ids.join("~"))
    }

    /// The share links in a cookie; none if it is not genuine.
    pub(super) fn verify_links(&self, token: &str) -> Vec<Subject> {
        let text = self.verify("links", token).unwrap_or_default();
        let ids = text.split('~').filter(|id| !id.is_empty());
        ids.map(|id| Subject(id.to_owned())).collect()
    }

    /// The cookie of a device: see [`Device`](super::device::Device).
    pub(super) fn device(&self, text: &str) -> String {
        self.sign("device", text)
    }

    /// The text of a genuine device cookie.
    pub(super) fn verify_device<'a>(&self, cookie: &'a str) -> Option<&'a str> {
        self.verify("device", cookie)
    }

    /// The code that admits the first account: the same on every node with the same secret.
    pub(super) fn setup_code(&self) -> String {
        let mac = self.mac("set-up", "first account").finalize().into_bytes();
        URL_SAFE_NO_PAD.encode(&mac[..16])
    }

    fn sign(&self, kind: &str, text: &str) -> String {
        let mac = self.mac(kind, text).finalize().into_bytes();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac))
    }

    fn verify<'a>(&self, kind: &str, signed: &'a str) -> Option<&'a str> {
        let (text, mac) = signed.rsplit_once('.')?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        self.mac(kind, text).verify_slice(&mac).ok()?;
        Some(text)
    }

    /// The MAC covers the kind, so a token of one kind is not accepted as another.
    fn mac(&self, kind: &str, text: &str) -> Hmac<Sha256> {
        let mut mac = self.key.clone();
        mac.update(kind.as_bytes());
        mac.update(b"\0");
        mac.update(text.as_bytes());
        mac
    }
}

impl std::fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenSigner")
    }
}

/// The hash that the store keeps instead of a secret.
pub(super) fn hashed(secret: &str) -> SecretHash {
    Sha256::digest(secret.as_bytes()).into()
}

/// 128 random bits as text.
///
/// # Panics
/// If the operating system has no randomness: no secret could be generated then.
pub(super) fn random_text() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Client ids are public and are made with another key of the same secret: an id must not be usable as a token.
    #[test]
    fn tokens_and_client_ids_use_different_keys() {
        let secret = [1; 32];
        let (signer, keys) = (TokenSigner::new(&secret), ["sealed texts", "clients' ids"]);
        let of = |key: &str| {
            let mut mac = derived(&secret, key);
            mac.update(b"access\0text");
            mac.finalize().into_bytes()
        };
        assert_ne!(of(keys[0]), of(keys[1]));
        assert_eq!(
            signer.mac("access", "text").finalize().into_bytes(),
            of(keys[0])
        );
    }

    #[test]
    fn token_is_accepted_only_for_its_kind_and_key() {
        let (signer, other) = (TokenSigner::new(&[1; 32]), TokenSigner::new(&[2; 32]));
        let session = SessionKey(random_text());
        let access = signer.access_token(&session, 100);
        assert_eq!(signer.verify_access(&access, 99), Some(session.clone()));
        assert_eq!(signer.verify_access(&access, 100), None);
        assert_eq!(other.verify_access(&access, 99), None);
        assert_eq!(signer.verify_refresh(&access), None);
        let refresh = signer.refresh_token(&session);
        assert_eq!(signer.verify_refresh(&refresh), Some(session));
        assert_eq!(signer.verify_access(&refresh, 0), None);
        assert_ne!(
            refresh,
            signer.refresh_token(&signer.verify_refresh(&refresh).unwrap())
        );
        let later = access.replacen(".100.", ".999.", 1);
        assert_eq!(signer.verify_access(&later, 99), None);
        for forged in ["", ".", "a", "a.b", "a.100.AAAA", "..."] {
            assert_eq!(signer.verify_access(forged, 0), None, "{forged}");
        }
        let links = [Subject("a".to_owned()), Subject("b".to_owned())];
        assert_eq!(signer.verify_links(&signer.links(&links)), links);
        assert_eq!(signer.verify_links(&other.links(&links)), []);
        assert_eq!(signer.verify_links(&signer.links(&[])), []);
    }
}
