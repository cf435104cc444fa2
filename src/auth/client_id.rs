//! Client ids. Every reader of a document sees the ids of its authors, so knowing an id must prove nothing: an id carries a
//! MAC that binds it to the user to which it was issued.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::id::{ClientId, UserId};
use crate::store::{History, HistoryMark};

/// Issues client ids and recognises them.
#[derive(Clone)]
pub struct ClientIdIssuer {
    key: Hmac<Sha256>,
    /// Tags ids as issued by this cluster, for any user.
    tags: Hmac<Sha256>,
    /// Derives replacements of ids that another server issued.
    replacements: Hmac<Sha256>,
}

/// The random bytes of an id: 64 bits keep the clients of one user apart.
pub const NONCE_BYTES: usize = 8;

/// The bytes of the tag that marks an id as issued here. A forged tag only makes the id be rejected.
const TAG_BYTES: usize = 4;

/// The bytes that mark the history in which an id was issued; absent for a store's first history.
const MARK_BYTES: usize = size_of::<HistoryMark>();

/// The bytes of the truncated MAC: 96 bits cannot be guessed over a socket.
const MAC_BYTES: usize = 12;

impl ClientIdIssuer {
    /// An issuer. Every node with the same secret recognises its ids.
    ///
    /// # Panics
    /// Never: a MAC takes a key of any length.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self {
            key: derived(secret, "clients' ids"),
            tags: derived(secret, "clients' ids that are ours"),
            replacements: derived(secret, "clients' ids from elsewhere"),
        }
    }

    /// Issues an id to `user` in `history`. `nonce`: fresh random bytes.
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

    /// Replaces an id that another server issued. The result is the same for every call with the same id and user.
    ///
    /// # Panics
    /// Never: a MAC is longer than a nonce.
    #[must_use]
    pub fn replacement(&self, user: &UserId, foreign: &ClientId, history: History) -> ClientId {
        let mut mac = self.replacements.clone();
        mac.update(foreign.unmarked().as_bytes());
        mac.update(b"\n");
        mac.update(user.as_str().as_bytes());
        let mac = mac.finalize().into_bytes();
        let nonce = mac[..NONCE_BYTES].try_into().expect("a MAC is longer");
        self.issue(user, nonce, history)
    }

    /// The id under which a submit of `user` that names the client `src` is stored; `None` if `src` belongs to a client of
    /// another user, or the client of the socket has not been connected before (`has_returned`).
    ///
    /// An id that this server did not issue is stored in its marked form. The socket need not have named it in its handshake:
    /// a client that moves gets a new id at each server, and the op that it sends again still names the id that it had when
    /// the op was made, any number of moves ago.
    #[must_use]
    pub fn submit_client(
        &self,
        user: &UserId,
        src: ClientId,
        has_returned: bool,
    ) -> Option<ClientId> {
        if self.is_issued_to(user, &src) {
            return Some(src);
        }
        let may_be_foreign = has_returned && !self.is_issued_here(&src);
        may_be_foreign.then(|| src.as_foreign()).flatten()
    }

    /// Returns true if the id was issued here in another history than `history`: the state of its client may differ from
    /// the log. Ids of other servers belong to no history.
    #[must_use]
    pub fn is_of_another_history(&self, client: &ClientId, history: History) -> bool {
        self.is_issued_here(client) && decoded(client).is_some_and(|id| id.mark() != history.mark())
    }

    /// Returns true if the id was issued here, to any user.
    #[must_use]
    pub fn is_issued_here(&self, client: &ClientId) -> bool {
        decoded(client).is_some_and(|id| {
            let (nonce, rest) = id.body().split_at(NONCE_BYTES);
            rest[..TAG_BYTES] == self.tag(nonce)
        })
    }

    fn tag(&self, nonce: &[u8]) -> [u8; TAG_BYTES] {
        let mut mac = self.tags.clone();
        mac.update(nonce);
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&mac.finalize().into_bytes()[..TAG_BYTES]);
        tag
    }

    /// Returns true if the id was issued to this user.
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

/// The bytes of an id in the form that this issuer makes: nonce, tag, the mark of the history if it has one, MAC.
struct Decoded {
    bytes: [u8; WITHOUT_MARK_BYTES + MARK_BYTES],
    length: usize,
}

const WITHOUT_MARK_BYTES: usize = NONCE_BYTES + TAG_BYTES + MAC_BYTES;

impl Decoded {
    /// The bytes that the MAC covers, besides the user.
    fn body(&self) -> &[u8] {
        &self.bytes[..self.length - MAC_BYTES]
    }

    fn mac(&self) -> &[u8] {
        &self.bytes[self.length - MAC_BYTES..self.length]
    }

    fn mark(&self) -> Option<HistoryMark> {
        self.body()[NONCE_BYTES + TAG_BYTES..].try_into().ok()
    }
}

/// Decodes an id; `None` if it has another form.
fn decoded(client: &ClientId) -> Option<Decoded> {
    let mut bytes = [0; WITHOUT_MARK_BYTES + MARK_BYTES];
    let length = URL_SAFE_NO_PAD
        .decode_slice(client.as_str(), &mut bytes)
        .ok()?;
    [WITHOUT_MARK_BYTES, WITHOUT_MARK_BYTES + MARK_BYTES]
        .contains(&length)
        .then_some(Decoded { bytes, length })
}

/// Derives a key for one purpose: a MAC made with it is invalid under the keys of other purposes.
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
    fn id_is_valid_for_its_user_only() {
        let issuer = ClientIdIssuer::new(&[7; 32]);
        let (ann, bob) = (UserId::new("ann"), UserId::new("bob"));
        let client = issuer.issue(&ann, [1; NONCE_BYTES], History::default());
        assert!(issuer.is_issued_to(&ann, &client));
        assert!(!issuer.is_issued_to(&bob, &client));
        assert!(!issuer.is_issued_to(&UserId::anyone(), &client));
        assert!(!ClientIdIssuer::new(&[8; 32]).is_issued_to(&ann, &client));
        assert!(
            issuer.is_issued_here(&client)
                && !ClientIdIssuer::new(&[8; 32]).is_issued_here(&client)
        );
        for forged in [
            "A",
            "ann",
            "0123456789abcdef0123456789abcdef",
            &"A".repeat(33),
            &"A".repeat(64),
        ] {
            assert!(
                !issuer.is_issued_to(&ann, &ClientId::parse(forged).unwrap()),
                "{forged}"
            );
        }
    }

    #[test]
    fn id_belongs_to_the_history_in_which_it_was_issued() {
        let issuer = ClientIdIssuer::new(&[7; 32]);
        let ann = UserId::new("ann");
        let first = History::default();
        let [second, third] = [1 << 120, 2 << 120].map(|id| first.after(first, id));
        let histories = [first, second, third];
        for issued in histories {
            let client = issuer.issue(&ann, [1; NONCE_BYTES], issued);
            assert!(
                issuer.is_issued_to(&ann, &client)
                    && !issuer.is_issued_to(&UserId::new("bob"), &client)
            );
            for history in histories {
                let is_of_another = issuer.is_of_another_history(&client, history);
                assert_eq!(is_of_another, issued != history, "{issued:?} {history:?}");
            }
        }
        // Without its mark, or with another one, the id is issued to no user.
        let id = issuer.issue(&ann, [1; NONCE_BYTES], second);
        let bytes = URL_SAFE_NO_PAD.decode(id.as_str()).unwrap();
        let (before, rest) = bytes.split_at(NONCE_BYTES + TAG_BYTES);
        for forged in [
            [before, &rest[MARK_BYTES..]].concat(),
            [before, &third.mark().unwrap(), &rest[MARK_BYTES..]].concat(),
        ] {
            let forged = ClientId::parse(&URL_SAFE_NO_PAD.encode(forged)).unwrap();
            assert!(issuer.is_issued_here(&forged) && !issuer.is_issued_to(&ann, &forged));
        }
        let elsewhere = ClientId::parse("0123456789abcdef0123456789abcdef").unwrap();
        assert!(!issuer.is_of_another_history(&elsewhere, second));
    }

    #[test]
    fn foreign_id_has_one_replacement_per_user() {
        let issuer = ClientIdIssuer::new(&[7; 32]);
        let (ann, bob) = (UserId::new("ann"), UserId::new("bob"));
        let foreign =
            ClientIdIssuer::new(&[8; 32]).issue(&ann, [1; NONCE_BYTES], History::default());
        assert!(!issuer.is_issued_here(&foreign) && !issuer.is_issued_to(&ann, &foreign));
        let here = issuer.replacement(&ann, &foreign, History::default());
        assert!(issuer.is_issued_to(&ann, &here));
        assert_eq!(here, issuer.replacement(&ann, &foreign, History::default()));
        assert_ne!(here, issuer.replacement(&bob, &foreign, History::default()));
        let marked = foreign.as_foreign().unwrap();
        assert_eq!(marked, foreign, "the mark does not distinguish clients");
        assert_ne!(marked.as_str(), foreign.as_str());
        assert_eq!(marked.unmarked(), foreign.as_str());
        let twice = marked.as_foreign().unwrap();
        assert_ne!(twice, foreign, "the mark of a marked id is part of the id");
    }
    #[test]
    fn submit_names_its_client_after_any_number_of_moves() {
        let [here, before, long_before] = [7, 8, 9].map(|key| ClientIdIssuer::new(&[key; 32]));
        let (ann, bob) = (UserId::new("ann"), UserId::new("bob"));
        let history = History::default();
        let first = long_before.issue(&ann, [1; NONCE_BYTES], history);
        let second = before.replacement(&ann, &first, history);
        let third = here.replacement(&ann, &second, history);
        let sharedb = ClientId::parse("0123456789abcdef0123456789abcdef").unwrap();
        let too_long = ClientId::parse(&"x".repeat(crate::id::CLIENT_BYTES_MAX)).unwrap();
        let stored = |src: &ClientId| Some(src.as_str().to_owned());
        let marked = |src: &ClientId| Some(format!("{}~", src.as_str()));
        for (case, user, src, has_returned, expected) in [
            ("its own id", &ann, &third, true, stored(&third)),
            (
                "its own id, on its first socket",
                &ann,
                &third,
                false,
                stored(&third),
            ),
            (
                "the id of the last server",
                &ann,
                &second,
                true,
                marked(&second),
            ),
            (
                "the id of the server before",
                &ann,
                &first,
                true,
                marked(&first),
            ),
            (
                "the id of a ShareDB server",
                &ann,
                &sharedb,
                true,
                marked(&sharedb),
            ),
            (
                "a client that was never connected",
                &ann,
                &first,
                false,
                None,
            ),
            ("another user's id", &bob, &third, true, None),
            (
                "an id without room for the mark",
                &ann,
                &too_long,
                true,
                None,
            ),
        ] {
            let client = here.submit_client(user, src.clone(), has_returned);
            let client = client.map(|client| client.as_str().to_owned());
            assert_eq!(client, expected, "{case}");
        }
        // Back at an earlier server: the op names an id that this server issued.
        let client = long_before.submit_client(&ann, first.clone(), true);
        assert_eq!(client.as_ref().map(ClientId::as_str), Some(first.as_str()));
    }
}
