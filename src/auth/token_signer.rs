//! What we hand out and take back: texts with a MAC, so that only what we wrote is believed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use super::client_id::derived;
use crate::access::{SecretHash, SessionKey, Subject};

/// Seals texts, and opens what it has sealed.
#[derive(Clone)]
pub(super) struct TokenSigner {
    key: Hmac<Sha256>,
}

impl TokenSigner {
    /// A seal that every node with the same secret knows.
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        Self {
            key: derived(secret, "sealed texts"),
        }
    }

    /// Lets a session's bearer in until a time, in seconds since 1970.
    pub(super) fn access(&self, session: &SessionKey, until: u64) -> String {
        self.seal("access", &format!("{}.{until}", session.0))
    }

    /// The session of an access token that is ours and has not expired.
    pub(super) fn open_access(&self, token: &str, now: u64) -> Option<SessionKey> {
        let text = self.open("access", token)?;
        let (session, until) = text.rsplit_once('.')?;
        (until.parse::<u64>().ok()? > now).then(|| SessionKey(session.to_owned()))
    }

    /// A token that is good once, to renew a session.
    pub(super) fn refresh(&self, session: &SessionKey) -> String {
        self.seal("refresh", &format!("{}.{}", session.0, random_text()))
    }

    /// The session of a refresh token that is ours.
    pub(super) fn open_refresh(&self, token: &str) -> Option<SessionKey> {
        let text = self.open("refresh", token)?;
        let (session, _) = text.rsplit_once('.')?;
        Some(SessionKey(session.to_owned()))
    }

    /// Says that its bearer has opened these share links.
    pub(super) fn links(&self, links: &[Subject]) -> String {
        let ids: Vec<&str> = links.iter().map(|link| link.0.as_str()).collect();
        self.seal("links", &ids.join("~"))
    }

    /// The share links that its bearer has opened.
    pub(super) fn open_links(&self, token: &str) -> Vec<Subject> {
        let text = self.open("links", token).unwrap_or_default();
        let ids = text.split('~').filter(|id| !id.is_empty());
        ids.map(|id| Subject(id.to_owned())).collect()
    }

    /// The cookie of a device: see [`Device`](super::device::Device).
    pub(super) fn device(&self, text: &str) -> String {
        self.seal("device", text)
    }

    /// What such a cookie says, if it is ours.
    pub(super) fn open_device<'a>(&self, cookie: &'a str) -> Option<&'a str> {
        self.open("device", cookie)
    }

    /// The code that makes the first account: every node with the same secret has the same one.
    pub(super) fn setup_code(&self) -> String {
        let mac = self.mac("set-up", "first account").finalize().into_bytes();
        URL_SAFE_NO_PAD.encode(&mac[..16])
    }

    fn seal(&self, kind: &str, text: &str) -> String {
        let mac = self.mac(kind, text).finalize().into_bytes();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac))
    }

    fn open<'a>(&self, kind: &str, sealed: &'a str) -> Option<&'a str> {
        let (text, mac) = sealed.rsplit_once('.')?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        self.mac(kind, text).verify_slice(&mac).ok()?;
        Some(text)
    }

    /// What was sealed for one purpose opens nothing for another.
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

/// What is kept of a secret that its bearer has.
pub(super) fn hashed(secret: &str) -> SecretHash {
    Sha256::digest(secret.as_bytes()).into()
}

/// 128 bits that nobody guesses, as text.
///
/// # Panics
/// When the machine has no randomness: nothing here could be kept secret then.
pub(super) fn random_text() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the machine has randomness");
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's id is shown to everybody, and who chooses its random bytes must not get a seal out of it.
    #[test]
    fn a_seal_is_no_clients_id() {
        let secret = [1; 32];
        let (seal, keys) = (TokenSigner::new(&secret), ["sealed texts", "clients' ids"]);
        let of = |key: &str| {
            let mut mac = derived(&secret, key);
            mac.update(b"access\0text");
            mac.finalize().into_bytes()
        };
        assert_ne!(of(keys[0]), of(keys[1]));
        assert_eq!(
            seal.mac("access", "text").finalize().into_bytes(),
            of(keys[0])
        );
    }

    #[test]
    fn only_what_was_sealed_for_the_purpose_is_opened() {
        let (seal, other) = (TokenSigner::new(&[1; 32]), TokenSigner::new(&[2; 32]));
        let session = SessionKey(random_text());
        let access = seal.access(&session, 100);
        assert_eq!(seal.open_access(&access, 99), Some(session.clone()));
        assert_eq!(seal.open_access(&access, 100), None);
        assert_eq!(other.open_access(&access, 99), None);
        assert_eq!(seal.open_refresh(&access), None);
        let refresh = seal.refresh(&session);
        assert_eq!(seal.open_refresh(&refresh), Some(session));
        assert_eq!(seal.open_access(&refresh, 0), None);
        assert_ne!(refresh, seal.refresh(&seal.open_refresh(&refresh).unwrap()));
        let later = access.replacen(".100.", ".999.", 1);
        assert_eq!(seal.open_access(&later, 99), None);
        for forged in ["", ".", "a", "a.b", "a.100.AAAA", "..."] {
            assert_eq!(seal.open_access(forged, 0), None, "{forged}");
        }
        let links = [Subject("a".to_owned()), Subject("b".to_owned())];
        assert_eq!(seal.open_links(&seal.links(&links)), links);
        assert_eq!(seal.open_links(&other.links(&links)), []);
        assert_eq!(seal.open_links(&seal.links(&[])), []);
    }
}
