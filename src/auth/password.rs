//! Passwords: hashed with Argon2id, a few at a time, away from the sockets' threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

/// How many passwords are hashed at once. Each takes 19 MiB and some 20 ms of a processor.
const AT_ONCE: usize = 2;

/// How many may wait for that. Whoever is turned away tries again.
const WAITING_MAX: usize = 100;

/// How many of those may wait with the password of a share link. One of them at a time is looked at: a link's password is
/// asked of strangers, and who signs in should not wait for many of them.
const LINKS_WAITING_MAX: usize = 20;

/// What a password is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Account,
    Link,
}

/// Hashes and compares passwords.
#[derive(Debug)]
pub(super) struct Passwords {
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Taken before a permit by who comes with the password of a link.
    links: Semaphore,
    links_waiting: AtomicUsize,
    /// What is compared with where there is nobody, so that it takes as long.
    nobodys: String,
}

/// Too many wait for their password to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany;

impl Passwords {
    pub(super) fn new() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: AtomicUsize::new(0),
            links: Semaphore::new(1),
            links_waiting: AtomicUsize::new(0),
            nobodys: hash("nobody signs in by this"),
        }
    }

    /// The hash to keep, in the PHC form.
    pub(super) async fn hash(&self, purpose: Purpose, password: String) -> Result<String, TooMany> {
        self.work(purpose, move || hash(&password)).await
    }

    /// Whether `password` is the one of this hash; where there is no hash, it takes as long to say no.
    pub(super) async fn verify(
        &self,
        purpose: Purpose,
        password: String,
        hash: Option<String>,
    ) -> Result<bool, TooMany> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobodys.clone());
        let same = self.work(purpose, move || verify(&password, &hash)).await?;
        Ok(known && same)
    }

    async fn work<T: Send + 'static>(
        &self,
        purpose: Purpose,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TooMany> {
        let _turn = match purpose {
            Purpose::Account => None,
            Purpose::Link => {
                let place = Place::take(&self.links_waiting, LINKS_WAITING_MAX).ok_or(TooMany)?;
                let turn = self.links.acquire().await.map_err(|_| TooMany)?;
                Some((place, turn))
            }
        };
        let _place = Place::take(&self.waiting, WAITING_MAX).ok_or(TooMany)?;
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| TooMany)?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        done.await.map_err(|_| TooMany)
    }
}

/// A place among those who wait, for as long as it is held.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, most: usize) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < most).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn hash(password: &str) -> String {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.expect("the machine has randomness, and the parameters are sound")
        .to_string()
}

fn verify(password: &str, hash: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| {
        let same = Argon2::default().verify_password(password.as_bytes(), &hash);
        same.is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_alone() {
        let passwords = Passwords::new();
        let hash = passwords.hash(Purpose::Account, "correct horse".to_owned());
        let hash = hash.await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$"), "{hash}");
        for (password, hash, same) in [
            ("correct horse", Some(hash.clone()), true),
            ("correct horse ", Some(hash), false),
            ("nobody signs in by this", None, false),
            ("x", Some("not a hash".to_owned()), false),
        ] {
            for purpose in [Purpose::Account, Purpose::Link] {
                let found = passwords.verify(purpose, password.to_owned(), hash.clone());
                assert_eq!(found.await, Ok(same), "{password}");
            }
        }
        for waiting in [&passwords.waiting, &passwords.links_waiting] {
            assert_eq!(waiting.load(Ordering::Relaxed), 0);
        }
    }

    /// However many come with the password of a link, who signs in has a place and a permit.
    #[tokio::test]
    async fn links_leave_room_for_who_signs_in() {
        let passwords = Passwords::new();
        let (begun, ends) = (Semaphore::new(0), Arc::new(std::sync::Barrier::new(2)));
        let first = passwords.work(Purpose::Link, {
            let ends = ends.clone();
            move || ends.wait().is_leader()
        });
        let others = (0..2 * WAITING_MAX).map(|_| passwords.work(Purpose::Link, || false));
        let sign_in = async {
            begun.acquire().await.unwrap().forget();
            let signed_in = passwords.work(Purpose::Account, || true).await;
            ends.wait();
            signed_in
        };
        let crowd = async {
            let crowd = futures_util::future::join_all(others);
            begun.add_permits(1);
            crowd.await
        };
        let (_, crowd, signed_in) = futures_util::future::join3(first, crowd, sign_in).await;
        assert_eq!(signed_in, Ok(true));
        let refused = crowd.iter().filter(|it| **it == Err(TooMany)).count();
        assert_eq!(refused, crowd.len() - (LINKS_WAITING_MAX - 1));
    }
}
