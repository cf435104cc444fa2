//! Who may speak as which client. A client's id is shown to every reader of its documents, so it must prove nothing by
//! being known: it carries a MAC that binds it to the user it was minted for.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::id::{ClientId, UserId};

/// Mints clients' ids and tells its own from others.
#[derive(Clone)]
pub struct Mint {
    key: Hmac<Sha256>,
}

/// How many random bytes an id has: two clients of one user never get the same by chance.
pub const NONCE_BYTES: usize = 12;

/// How many bytes of the MAC an id carries: 96 bits cannot be guessed over a socket.
const MAC_BYTES: usize = 12;

impl Mint {
    /// A mint whose ids every node with the same secret vouches for.
    ///
    /// # Panics
    /// Never: a MAC takes a key of any length.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self {
            key: derived(secret, "clients' ids"),
        }
    }

    /// Mints an id for `user` from fresh random bytes.
    ///
    /// # Panics
    /// Never: base64 is printable.
    #[must_use]
    pub fn mint(&self, user: &UserId, nonce: [u8; NONCE_BYTES]) -> ClientId {
        let mac = self.mac(user, &nonce).finalize().into_bytes();
        let mut bytes = [0; NONCE_BYTES + MAC_BYTES];
        bytes[..NONCE_BYTES].copy_from_slice(&nonce);
        bytes[NONCE_BYTES..].copy_from_slice(&mac[..MAC_BYTES]);
        ClientId::parse(&URL_SAFE_NO_PAD.encode(bytes)).expect("base64 is printable")
    }

    /// Whether the id was minted for this very user.
    #[must_use]
    pub fn vouches(&self, user: &UserId, client: &ClientId) -> bool {
        let mut bytes = [0; NONCE_BYTES + MAC_BYTES];
        match URL_SAFE_NO_PAD.decode_slice(client.as_str(), &mut bytes) {
            Ok(length) if length == bytes.len() => {
                let (nonce, mac) = bytes.split_at(NONCE_BYTES);
                self.mac(user, nonce).verify_truncated_left(mac).is_ok()
            }
            _ => false,
        }
    }

    fn mac(&self, user: &UserId, nonce: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.key.clone();
        mac.update(nonce);
        mac.update(user.as_str().as_bytes());
        mac
    }
}

/// A key for one purpose: what is made with it says nothing to who looks with that of another.
pub(super) fn derived(secret: &[u8; 32], purpose: &str) -> Hmac<Sha256> {
    let new = |key: &[u8]| Hmac::new_from_slice(key).expect("a MAC takes a key of any length");
    let mut mac: Hmac<Sha256> = new(secret);
    mac.update(purpose.as_bytes());
    new(&mac.finalize().into_bytes())
}

impl std::fmt::Debug for Mint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mint")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_speaks_for_the_user_it_was_minted_for_and_no_other() {
        let mint = Mint::new(&[7; 32]);
        let (ann, bob) = (UserId::new("ann"), UserId::new("bob"));
        let client = mint.mint(&ann, [1; NONCE_BYTES]);
        assert!(mint.vouches(&ann, &client));
        assert!(!mint.vouches(&bob, &client));
        assert!(!mint.vouches(&UserId::anyone(), &client));
        assert!(!Mint::new(&[8; 32]).vouches(&ann, &client));
        for forged in [
            "A",
            "ann",
            "0123456789abcdef0123456789abcdef",
            &"A".repeat(33),
            &"A".repeat(64),
        ] {
            assert!(
                !mint.vouches(&ann, &ClientId::parse(forged).unwrap()),
                "{forged}"
            );
        }
    }
}
