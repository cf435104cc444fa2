//! Devices that have signed in before: their sign-in attempts are counted apart from those of other devices.

use super::token_signer::{TokenSigner, random_text};
use crate::access::Subject;

/// The signed content of the device cookie.
///
/// It proves that these accounts signed in with this browser before. It grants no access: its holder gets a separate
/// count in the [login throttle](super::login_throttle).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownDevice {
    /// Random.
    pub(super) id: String,
    /// The accounts, the most recent one first.
    pub(super) users: Vec<Subject>,
}

/// How many accounts a device records; the oldest one is dropped first.
const USERS_MAX: usize = 10;

impl KnownDevice {
    /// Verifies a cookie. Without a valid one it returns a new device that has no accounts.
    pub(super) fn open(signer: &TokenSigner, cookie: Option<&str>) -> Self {
        let known = cookie.and_then(|cookie| signer.verify_device(cookie));
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

    /// Returns true if this user has signed in with the device.
    pub(super) fn has_signed_in(&self, user: &Subject) -> bool {
        self.users.contains(user)
    }

    /// The cookie after `user` signed in.
    pub(super) fn cookie_with(mut self, signer: &TokenSigner, user: &Subject) -> String {
        self.users.retain(|known| known != user);
        self.users.insert(0, user.clone());
        self.users.truncate(USERS_MAX);
        let users = self.users.iter().map(|user| user.0.as_str());
        let parts: Vec<&str> = std::iter::once(self.id.as_str()).chain(users).collect();
        signer.device(&parts.join("~"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_records_the_users_that_signed_in() {
        let signer = TokenSigner::new(&[1; 32]);
        let [ann, bob] = ["ann", "bob"].map(|name| Subject(name.to_owned()));
        let fresh = KnownDevice::open(&signer, None);
        assert!(!fresh.has_signed_in(&ann));
        let id = fresh.id.clone();
        let cookie = fresh.cookie_with(&signer, &ann);
        let device = KnownDevice::open(&signer, Some(&cookie));
        assert_eq!((device.id.clone(), device.has_signed_in(&ann)), (id, true));
        assert!(!device.has_signed_in(&bob));
        let mut cookie = device.cookie_with(&signer, &bob);
        for n in 0..USERS_MAX - 1 {
            assert!(KnownDevice::open(&signer, Some(&cookie)).has_signed_in(&bob));
            cookie = KnownDevice::open(&signer, Some(&cookie))
                .cookie_with(&signer, &Subject(n.to_string()));
        }
        assert_eq!(
            KnownDevice::open(&signer, Some(&cookie)).users.len(),
            USERS_MAX
        );
        assert!(!KnownDevice::open(&signer, Some(&cookie)).has_signed_in(&ann));
        // Cookies of another secret, of another kind, and forged ones are ignored.
        let links = signer.links(std::slice::from_ref(&ann));
        for forged in [
            KnownDevice::open(&TokenSigner::new(&[2; 32]), None)
                .cookie_with(&TokenSigner::new(&[2; 32]), &ann),
            links,
            "x~ann.AAAA".to_owned(),
        ] {
            assert!(!KnownDevice::open(&signer, Some(&forged)).has_signed_in(&ann));
        }
    }
}
