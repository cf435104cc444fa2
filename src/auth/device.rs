//! Devices that have signed in before: strangers' attempts do not count towards theirs.

use super::token_signer::{TokenSigner, random_text};
use crate::access::Subject;

/// What the cookie of a browser that has signed in says, sealed.
///
/// It proves that somebody signed in to these accounts with this browser, and nothing else: it signs nobody in, and a
/// copy of it is worth attempts that are counted apart from those of strangers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownDevice {
    /// Drawn at random.
    pub(super) id: String,
    /// The accounts, the newest first.
    pub(super) users: Vec<Subject>,
}

/// How many accounts are remembered; the oldest is forgotten first.
const USERS_MAX: usize = 10;

impl KnownDevice {
    /// Reads a cookie; a device that nothing is known of, if it is none of ours.
    pub(super) fn open(seal: &TokenSigner, cookie: Option<&str>) -> Self {
        let known = cookie.and_then(|cookie| seal.open_device(cookie));
        let known = known.and_then(|text| {
            let mut parts = text.split('~').map(str::to_owned);
            let id = parts.next()?;
            Some(Self {
                id,
                users: parts.map(Subject).collect(),
            })
        });
        known.unwrap_or_else(|| Self {
            id: random_text(),
            users: Vec::new(),
        })
    }

    /// Whether this user has signed in with it.
    pub(super) fn knows(&self, user: &Subject) -> bool {
        self.users.contains(user)
    }

    /// The cookie after `user` has signed in.
    pub(super) fn with(mut self, seal: &TokenSigner, user: &Subject) -> String {
        self.users.retain(|known| known != user);
        self.users.insert(0, user.clone());
        self.users.truncate(USERS_MAX);
        let users = self.users.iter().map(|user| user.0.as_str());
        let parts: Vec<&str> = std::iter::once(self.id.as_str()).chain(users).collect();
        seal.device(&parts.join("~"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_knows_those_who_signed_in_with_it() {
        let seal = TokenSigner::new(&[1; 32]);
        let [ann, bob] = ["ann", "bob"].map(|name| Subject(name.to_owned()));
        let fresh = KnownDevice::open(&seal, None);
        assert!(!fresh.knows(&ann));
        let id = fresh.id.clone();
        let cookie = fresh.with(&seal, &ann);
        let device = KnownDevice::open(&seal, Some(&cookie));
        assert_eq!((device.id.clone(), device.knows(&ann)), (id, true));
        assert!(!device.knows(&bob));
        let mut cookie = device.with(&seal, &bob);
        for n in 0..USERS_MAX - 1 {
            assert!(KnownDevice::open(&seal, Some(&cookie)).knows(&bob));
            cookie = KnownDevice::open(&seal, Some(&cookie)).with(&seal, &Subject(n.to_string()));
        }
        assert_eq!(
            KnownDevice::open(&seal, Some(&cookie)).users.len(),
            USERS_MAX
        );
        assert!(!KnownDevice::open(&seal, Some(&cookie)).knows(&ann));
        // What another server sealed, or a client wrote, says nothing.
        let links = seal.links(std::slice::from_ref(&ann));
        for forged in [
            KnownDevice::open(&TokenSigner::new(&[2; 32]), None)
                .with(&TokenSigner::new(&[2; 32]), &ann),
            links,
            "x~ann.AAAA".to_owned(),
        ] {
            assert!(!KnownDevice::open(&seal, Some(&forged)).knows(&ann));
        }
    }
}
