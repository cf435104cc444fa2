//! Password hashing with Argon2id, a few at a time, on the threads for blocking work.

use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};

use zxcvbn::{Score, zxcvbn};

use super::priority_queue::{CallerClass, Overloaded, Priority, PriorityQueue};

/// The least strength of a new password by zxcvbn's estimate: a million guesses. zxcvbn recognises 30,000 common passwords,
/// names and words, their usual variations, keyboard patterns, dates and repetitions.
const SCORE_MIN: Score = Score::Two;

/// How many passwords are hashed at once. Each takes 19 MiB and about 20 ms of processor time.
const AT_ONCE: usize = 2;

/// How many callers may wait for that, and how many of them with the password of a share link. Those are checked one at a
/// time, so that guesses at links do not delay users that sign in. A waiting caller takes about 2 KiB.
const WAITING_MAX: usize = 1_000;
const LINKS_WAITING_MAX: usize = 200;

/// Why a new password was not hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PasswordError {
    /// It is common, or made of the user's names.
    Guessable,
    /// See [`Overloaded`].
    Overloaded,
}

impl From<Overloaded> for PasswordError {
    fn from(_: Overloaded) -> Self {
        Self::Overloaded
    }
}

/// Hashes and verifies passwords.
#[derive(Debug)]
pub(super) struct Passwords {
    queue: Arc<PriorityQueue>,
    /// Callers of [`CallerClass::Link`] take a permit here before they enter `queue`.
    links: Arc<PriorityQueue>,
    /// Compared with if there is no account, so that the check takes equally long.
    no_account: String,
}

impl Passwords {
    pub(super) fn new() -> Self {
        Self {
            queue: PriorityQueue::new(AT_ONCE, WAITING_MAX),
            links: PriorityQueue::new(1, LINKS_WAITING_MAX),
            no_account: hash("no account has this password"),
        }
    }

    /// Hashes a new password into the PHC form. `names`: the login and the name, which are guessed first.
    ///
    /// # Errors
    /// If the password is easy to guess, or too many callers wait.
    pub(super) async fn hash(
        &self,
        priority: Priority,
        password: String,
        names: Vec<String>,
    ) -> Result<String, PasswordError> {
        let hashed = self.work(priority, move || {
            is_hard_to_guess(&password, &names).then(|| hash(&password))
        });
        hashed.await?.ok_or(PasswordError::Guessable)
    }

    /// Returns true if `password` matches the hash. Without a hash it returns false after the same time.
    ///
    /// # Errors
    /// If too many callers wait.
    pub(super) async fn verify(
        &self,
        priority: Priority,
        password: String,
        hash: Option<String>,
    ) -> Result<bool, Overloaded> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.no_account.clone());
        let same = self
            .work(priority, move || verify(&password, &hash))
            .await?;
        Ok(known && same)
    }

    async fn work<T: Send + 'static>(
        &self,
        priority: Priority,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Overloaded> {
        let turn = match priority.class {
            CallerClass::Known | CallerClass::Stranger => None,
            CallerClass::Link => Some(self.links.permit(priority).await?),
        };
        let permit = self.queue.permit(priority).await?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            // Held until the work is done, even if the caller was dropped.
            drop((permit, turn));
            done
        });
        done.await.map_err(|_| Overloaded)
    }
}

fn is_hard_to_guess(password: &str, names: &[String]) -> bool {
    let names: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .chain(["copydesk"])
        .collect();
    zxcvbn(password, &names).score() >= SCORE_MIN
}

fn hash(password: &str) -> String {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.expect("the operating system has randomness, and the parameters are valid")
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
    use tokio::sync::Semaphore;

    use super::*;

    fn of(class: CallerClass) -> Priority {
        Priority { class, rank: 0 }
    }

    #[tokio::test]
    async fn password_is_verified_by_its_hash() {
        let passwords = Passwords::new();
        let hash = passwords.hash(
            of(CallerClass::Known),
            "correct horse".to_owned(),
            Vec::new(),
        );
        let hash = hash.await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$"), "{hash}");
        for (password, hash, same) in [
            ("correct horse", Some(hash.clone()), true),
            ("correct horse ", Some(hash), false),
            ("no account has this password", None, false),
            ("x", Some("not a hash".to_owned()), false),
        ] {
            for class in [CallerClass::Known, CallerClass::Stranger, CallerClass::Link] {
                let found = passwords.verify(of(class), password.to_owned(), hash.clone());
                assert_eq!(found.await, Ok(same), "{password}");
            }
        }
    }

    #[tokio::test]
    async fn common_passwords_and_names_are_rejected() {
        let passwords = Passwords::new();
        let names = || vec!["annabel@example.org".to_owned(), "Annabel Lee".to_owned()];
        for (password, is_taken) in [
            ("password", false),
            ("Password1", false),
            ("p@ssw0rd", false),
            ("12345678", false),
            ("qwertyuiop", false),
            ("letmein123", false),
            ("iloveyou", false),
            ("aaaaaaaaaaaaaaaa", false),
            ("passwordpassword", false),
            ("annabel@example.org", false),
            ("annabellee1", false),
            ("eelebanna", false),
            ("copydesk", false),
            ("correct horse", true),
            ("a long password", true),
            ("kT9#vq2L", true),
            ("пароль от стола", true),
        ] {
            let hashed = passwords.hash(of(CallerClass::Known), password.to_owned(), names());
            let hashed = hashed.await;
            assert_eq!(hashed.is_ok(), is_taken, "{password}: {hashed:?}");
        }
    }

    /// A crowd with passwords of share links leaves room in the queue and a permit for a user that signs in.
    #[tokio::test]
    async fn link_passwords_leave_room_for_sign_ins() {
        let passwords = Passwords::new();
        let (begun, ends) = (Semaphore::new(0), Arc::new(std::sync::Barrier::new(2)));
        let first = passwords.work(of(CallerClass::Link), {
            let ends = ends.clone();
            move || ends.wait().is_leader()
        });
        let others = (0..2 * WAITING_MAX).map(|_| passwords.work(of(CallerClass::Link), || false));
        let sign_in = async {
            begun.acquire().await.unwrap().forget();
            let signed_in = passwords.work(of(CallerClass::Stranger), || true).await;
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
        let refused = crowd.iter().filter(|it| **it == Err(Overloaded)).count();
        assert_eq!(refused, crowd.len() - LINKS_WAITING_MAX);
    }
}
