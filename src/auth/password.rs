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

/// Hashes and compares passwords.
#[derive(Debug)]
pub(super) struct Passwords {
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
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
            nobodys: hash("nobody signs in by this"),
        }
    }

    /// The hash to keep, in the PHC form.
    pub(super) async fn hash(&self, password: String) -> Result<String, TooMany> {
        self.work(move || hash(&password)).await
    }

    /// Whether `password` is the one of this hash; where there is no hash, it takes as long to say no.
    pub(super) async fn verify(
        &self,
        password: String,
        hash: Option<String>,
    ) -> Result<bool, TooMany> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobodys.clone());
        let same = self.work(move || verify(&password, &hash)).await?;
        Ok(known && same)
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TooMany> {
        let _place = Place::take(&self.waiting).ok_or(TooMany)?;
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
    fn take(waiting: &'a AtomicUsize) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < WAITING_MAX).then_some(place)
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
        let hash = passwords.hash("correct horse".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$"), "{hash}");
        for (password, hash, same) in [
            ("correct horse", Some(hash.clone()), true),
            ("correct horse ", Some(hash), false),
            ("nobody signs in by this", None, false),
            ("x", Some("not a hash".to_owned()), false),
        ] {
            let found = passwords.verify(password.to_owned(), hash).await;
            assert_eq!(found, Ok(same), "{password}");
        }
        assert_eq!(passwords.waiting.load(Ordering::Relaxed), 0);
    }
}
