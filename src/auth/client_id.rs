//! Who may speak as which client. A client's id is shown to every reader of its documents, so it must prove nothing by
//! being known: it carries a MAC that binds it to the user it was minted for.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::id::{ClientId, UserId};
use crate::store::{History, HistoryMark};

/// Mints clients' ids and tells its own from others.
#[derive(Clone)]
pub struct ClientIdIssuer {
    key: Hmac<Sha256>,
    /// Marks ids as ours, whomever they were minted for.
    ours: Hmac<Sha256>,
    /// Derives the id of a client that another server gave another one.
    successors: Hmac<Sha256>,
}

/// How many random bytes an id has: two clients of one user never get the same by chance.
pub const NONCE_BYTES: usize = 8;

/// How many bytes say that an id is ours. Forged, they only make an id be refused.
const OURS_BYTES: usize = 4;

/// How many bytes of an id say of which history it is; an id of a store's first history has none of them.
const MARK_BYTES: usize = size_of::<HistoryMark>();

/// How many bytes of the MAC an id carries: 96 bits cannot be guessed over a socket.
const MAC_BYTES: usize = 12;

impl ClientIdIssuer {
    /// A mint whose ids every node with the same secret vouches for.
    ///
    /// # Panics
    /// Never: a MAC takes a key of any length.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self {
            key: derived(secret, "clients' ids"),
            ours: derived(secret, "clients' ids that are ours"),
            successors: derived(secret, "clients' ids from elsewhere"),
        }
    }

    /// Mints an id for `user` in `history` from fresh random bytes.
    ///
    /// # Panics
    /// Never: base64 is printable.
    #[must_use]
    pub fn issue(&self, user: &UserId, nonce: [u8; NONCE_BYTES], history: History) -> ClientId {
        let mut bytes = nonce.to_vec();
        bytes.extend(self.tag(&nonce));
        bytes.extend(history.mark().into_iter().flatten());
        let mac = self.mac(user, &bytes).finalize().into_bytes();
        bytes.extend(&mac[..MAC_BYTES]);
        ClientId::parse(&URL_SAFE_NO_PAD.encode(bytes)).expect("base64 is printable")
    }

    /// The id of a client that comes with one that another server gave it: the same each time it comes with that.
    ///
    /// # Panics
    /// Never: a MAC is longer than a nonce.
    #[must_use]
    pub fn replacement(&self, user: &UserId, foreign: &ClientId, history: History) -> ClientId {
        let mut mac = self.successors.clone();
        mac.update(foreign.unmarked().as_bytes());
        mac.update(b"\n");
        mac.update(user.as_str().as_bytes());
        let mac = mac.finalize().into_bytes();
        let nonce = mac[..NONCE_BYTES].try_into().expect("a MAC is longer");
        self.issue(user, nonce, history)
    }

    /// Returns true if the id was minted here in another history than `history`: what its client holds may not be what
    /// the log holds. Ids of other servers are of no history.
    #[must_use]
    pub fn is_of_another_history(&self, client: &ClientId, history: History) -> bool {
        self.is_issued_here(client) && decoded(client).is_some_and(|id| id.mark() != history.mark())
    }

    /// Whether the id was minted here, for whichever user.
    #[must_use]
    pub fn is_issued_here(&self, client: &ClientId) -> bool {
        decoded(client).is_some_and(|id| {
            let (nonce, rest) = id.body().split_at(NONCE_BYTES);
            rest[..OURS_BYTES] == self.tag(nonce)
        })
    }

    fn tag(&self, nonce: &[u8]) -> [u8; OURS_BYTES] {
        let mut mac = self.ours.clone();
        mac.update(nonce);
        let mut tag = [0; OURS_BYTES];
        tag.copy_from_slice(&mac.finalize().into_bytes()[..OURS_BYTES]);
        tag
    }

    /// Whether the id was minted for this very user.
    #[must_use]
    pub fn is_issued_to(&self, user: &UserId, client: &ClientId) -> bool {
        decoded(client).is_some_and(|id| {
            let (body, mac) = (id.body(), id.mac());
            self.mac(user, body).verify_truncated_left(mac).is_ok()
        })
    }

    fn mac(&self, user: &UserId, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.key.clone();
        mac.update(body);
        mac.update(user.as_str().as_bytes());
        mac
    }
}

/// The bytes that an id of our form is made of: a nonce, the tag that says that it is ours, the mark of its history if it has
/// one, and the MAC.
struct Decoded {
    bytes: [u8; WITHOUT_MARK_BYTES + MARK_BYTES],
    length: usize,
}

const WITHOUT_MARK_BYTES: usize = NONCE_BYTES + OURS_BYTES + MAC_BYTES;

impl Decoded {
    /// What the MAC is over, besides the user.
    fn body(&self) -> &[u8] {
        &self.bytes[..self.length - MAC_BYTES]
    }

    fn mac(&self) -> &[u8] {
        &self.bytes[self.length - MAC_BYTES..self.length]
    }

    fn mark(&self) -> Option<HistoryMark> {
        self.body()[NONCE_BYTES + OURS_BYTES..].try_into().ok()
    }
}

/// Decodes an id; `None` if it does not have our form.
fn decoded(client: &ClientId) -> Option<Decoded> {
    let mut bytes = [0; WITHOUT_MARK_BYTES + MARK_BYTES];
    let length = URL_SAFE_NO_PAD
        .decode_slice(client.as_str(), &mut bytes)
        .ok()?;
    [WITHOUT_MARK_BYTES, WITHOUT_MARK_BYTES + MARK_BYTES]
        .contains(&length)
        .then_some(Decoded { bytes, length })
}

/// A key for one purpose: what is made with it says nothing to who looks with that of another.
pub(super) fn derived(secret: &[u8; 32], purpose: &str) -> Hmac<Sha256> {
    let new = |key: &[u8]| Hmac::new_from_slice(key).expect("a MAC takes a key of any length");
    let mut mac: Hmac<Sha256> = new(secret);
    mac.update(purpose.as_bytes());
    new(&mac.finalize().into_bytes())
}

impl std::fmt::Debug for ClientIdIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientIdIssuer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_speaks_for_the_user_it_was_minted_for_and_no_other() {
        let mint = ClientIdIssuer::new(&[7; 32]);
        let (ann, bob) = (UserId::new("ann"), UserId::new("bob"));
        let client = mint.issue(&ann, [1; NONCE_BYTES], History::default());
        assert!(mint.is_issued_to(&ann, &client));
        assert!(!mint.is_issued_to(&bob, &client));
        assert!(!mint.is_issued_to(&UserId::anyone(), &client));
        assert!(!ClientIdIssuer::new(&[8; 32]).is_issued_to(&ann, &client));
        assert!(
            mint.is_issued_here(&client) && !ClientIdIssuer::new(&[8; 32]).is_issued_here(&client)
        );
        for forged in [
            "A",
            "ann",
            "0123456789abcdef0123456789abcdef",
            &"A".repeat(33),
            &"A".repeat(64),
        ] {
            assert!(
                !mint.is_issued_to(&ann, &ClientId::parse(forged).unwrap()),
                "{forged}"
            );
        }
    }

    #[test]
    fn an_id_is_of_the_history_that_it_was_minted_in() {
        let mint = ClientIdIssuer::new(&[7; 32]);
        let ann = UserId::new("ann");
        let first = History::default();
        let [second, third] = [1 << 120, 2 << 120].map(|id| first.after(first, id));
        let histories = [first, second, third];
        for minted in histories {
            let client = mint.issue(&ann, [1; NONCE_BYTES], minted);
            assert!(
                mint.is_issued_to(&ann, &client)
                    && !mint.is_issued_to(&UserId::new("bob"), &client)
            );
            for history in histories {
                let is_of_another = mint.is_of_another_history(&client, history);
                assert_eq!(is_of_another, minted != history, "{minted:?} {history:?}");
            }
        }
        // Taken out of an id, or changed, the mark makes the id one that nobody vouches for.
        let id = mint.issue(&ann, [1; NONCE_BYTES], second);
        let bytes = URL_SAFE_NO_PAD.decode(id.as_str()).unwrap();
        let (before, rest) = bytes.split_at(NONCE_BYTES + OURS_BYTES);
        for forged in [
            [before, &rest[MARK_BYTES..]].concat(),
            [before, &third.mark().unwrap(), &rest[MARK_BYTES..]].concat(),
        ] {
            let forged = ClientId::parse(&URL_SAFE_NO_PAD.encode(forged)).unwrap();
            assert!(mint.is_issued_here(&forged) && !mint.is_issued_to(&ann, &forged));
        }
        let elsewhere = ClientId::parse("0123456789abcdef0123456789abcdef").unwrap();
        assert!(!mint.is_of_another_history(&elsewhere, second));
    }

    #[test]
    fn a_client_from_elsewhere_has_one_id_here_and_each_user_another() {
        let mint = ClientIdIssuer::new(&[7; 32]);
        let (ann, bob) = (UserId::new("ann"), UserId::new("bob"));
        let foreign =
            ClientIdIssuer::new(&[8; 32]).issue(&ann, [1; NONCE_BYTES], History::default());
        assert!(!mint.is_issued_here(&foreign) && !mint.is_issued_to(&ann, &foreign));
        let here = mint.replacement(&ann, &foreign, History::default());
        assert!(mint.is_issued_to(&ann, &here));
        assert_eq!(here, mint.replacement(&ann, &foreign, History::default()));
        assert_ne!(here, mint.replacement(&bob, &foreign, History::default()));
        let marked = foreign.as_foreign().unwrap();
        assert_eq!(marked, foreign, "it is the same client");
        assert_ne!(marked.as_str(), foreign.as_str());
        assert_eq!(marked.unmarked(), foreign.as_str());
        let twice = marked.as_foreign().unwrap();
        assert_ne!(twice, foreign, "a mark that was said is no mark");
    }
}
