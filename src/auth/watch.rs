//! Tells open sockets that their rights changed: each is found by whom it speaks for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::store::{Revocation, SessionKey, Subject};

/// The open sockets of this node, by the subjects whose rights they use.
#[derive(Debug, Default)]
pub struct Watchers {
    /// Locked for look-ups only.
    sockets: Mutex<HashMap<Subject, Vec<Arc<Socket>>>>,
    /// How often anybody was told anything.
    told: AtomicU64,
}

#[derive(Debug)]
struct Socket {
    session: Option<SessionKey>,
    news: AtomicU8,
    notify: Notify,
}

const NOTHING: u8 = 0;
const CHANGED: u8 = 1;
const ENDED: u8 = 2;

/// What a socket is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Rights are to be looked up anew.
    Changed,
    /// The socket is to be closed.
    Ended,
}

/// One socket's ear. Dropped, it is told nothing more.
#[derive(Debug)]
pub struct Watch {
    watchers: Arc<Watchers>,
    subjects: Vec<Subject>,
    socket: Arc<Socket>,
}

impl Watchers {
    /// How often anybody was told anything. Asked for before somebody's rights are looked up, and handed to
    /// [`enter`](Self::enter) after: so nothing is missed between the two.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::SeqCst)
    }

    /// Listens for what happens to these subjects' rights from `told` on.
    #[must_use]
    pub fn enter(
        self: &Arc<Self>,
        subjects: Vec<Subject>,
        session: Option<SessionKey>,
        told: u64,
    ) -> Watch {
        let socket = Arc::new(Socket {
            session,
            news: AtomicU8::new(NOTHING),
            notify: Notify::new(),
        });
        let mut sockets = self.lock();
        for subject in &subjects {
            let of_subject = sockets.entry(subject.clone()).or_default();
            of_subject.push(socket.clone());
        }
        drop(sockets);
        if self.told() != told {
            socket.tell(CHANGED);
        }
        Watch {
            watchers: self.clone(),
            subjects,
            socket,
        }
    }

    /// Tells those whom it is about.
    pub fn tell(&self, revocation: &Revocation) {
        self.told.fetch_add(1, Ordering::SeqCst);
        let sockets = self.lock();
        let about = sockets.get(&revocation.subject).into_iter().flatten();
        let meant = |socket: &&Arc<Socket>| {
            revocation.session.is_none() || revocation.session == socket.session
        };
        for socket in about.filter(meant) {
            socket.tell(if revocation.ends { ENDED } else { CHANGED });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Subject, Vec<Arc<Socket>>>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Socket {
    fn tell(&self, news: u8) {
        self.news.fetch_max(news, Ordering::SeqCst);
        self.notify.notify_one();
    }
}

impl Watch {
    /// Takes what there is to be told.
    #[must_use]
    pub fn take(&self) -> Option<News> {
        if !self.has_news() {
            return None;
        }
        match self.socket.news.swap(NOTHING, Ordering::SeqCst) {
            CHANGED => Some(News::Changed),
            ENDED => Some(News::Ended),
            _ => None,
        }
    }

    /// Whether there is something to be told.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.socket.news.load(Ordering::SeqCst) != NOTHING
    }

    /// Waits until there is something to be told. May be woken for nothing.
    pub async fn told(&self) {
        self.socket.notify.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut sockets = self.watchers.lock();
        for subject in &self.subjects {
            let Some(of_subject) = sockets.get_mut(subject) else {
                continue;
            };
            of_subject.retain(|socket| !Arc::ptr_eq(socket, &self.socket));
            if of_subject.is_empty() {
                sockets.remove(subject);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(name: &str) -> Subject {
        Subject(name.to_owned())
    }

    fn revocation(name: &str, session: Option<&str>, ends: bool) -> Revocation {
        Revocation {
            sequence: 1,
            subject: subject(name),
            session: session.map(|key| SessionKey(key.to_owned())),
            ends,
        }
    }

    #[test]
    fn those_whom_it_is_about_are_told() {
        let watchers = Arc::new(Watchers::default());
        let enter = |names: &[&str], session: &str| {
            let subjects = names.iter().copied().map(subject).collect();
            let session = Some(SessionKey(session.to_owned()));
            watchers.enter(subjects, session, watchers.told())
        };
        let (desk, phone) = (enter(&["ann", "link"], "desk"), enter(&["ann"], "phone"));
        let bob = enter(&["bob"], "bob");
        let heard = || [desk.take(), phone.take(), bob.take()];
        watchers.tell(&revocation("ann", None, false));
        assert_eq!(heard(), [Some(News::Changed), Some(News::Changed), None]);
        assert_eq!(heard(), [None, None, None]);
        watchers.tell(&revocation("ann", Some("desk"), true));
        watchers.tell(&revocation("ann", None, false));
        assert_eq!(heard(), [Some(News::Ended), Some(News::Changed), None]);
        watchers.tell(&revocation("link", None, false));
        assert_eq!(heard(), [Some(News::Changed), None, None]);
        drop((desk, phone, bob));
        assert!(watchers.lock().is_empty());
    }

    #[test]
    fn what_was_told_meanwhile_is_not_missed() {
        let watchers = Arc::new(Watchers::default());
        let told = watchers.told();
        watchers.tell(&revocation("ann", None, true));
        let watch = watchers.enter(vec![subject("ann")], None, told);
        assert_eq!(watch.take(), Some(News::Changed));
    }
}
