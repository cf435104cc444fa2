//! Tells open sockets that their rights changed: each is found by whom it speaks for.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::access::{Revocation, SessionKey, Subject};
use crate::id::DocId;
use crate::sync::lock;

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
    /// What it has not taken yet. Locked to be merged into or taken.
    news: Mutex<Option<News>>,
    notify: Notify,
}

/// What a socket is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Rights are to be looked up anew.
    Changed(Scope),
    /// The socket is to be closed.
    Ended,
}

/// On which documents rights may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// On every document.
    Everything,
    /// On these, at most [`DOCUMENTS_MAX`].
    Documents(BTreeSet<DocId>),
}

/// How many documents are named to a socket that has not looked yet. If there are more, it looks everything up anew.
const DOCUMENTS_MAX: usize = 64;

impl News {
    /// What a revocation says to a socket that it is about.
    fn of(revocation: &Revocation) -> Self {
        if revocation.ends {
            return Self::Ended;
        }
        Self::Changed(match &revocation.doc {
            Some(doc) => Scope::Documents(BTreeSet::from([doc.clone()])),
            None => Scope::Everything,
        })
    }

    /// Both of them.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Ended, _) | (_, Self::Ended) => Self::Ended,
            (Self::Changed(one), Self::Changed(other)) => Self::Changed(one.and(other)),
        }
    }
}

impl Scope {
    /// Both of them; [`Everything`](Self::Everything) if that names too many documents.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Documents(mut docs), Self::Documents(others)) => {
                docs.extend(others);
                if docs.len() <= DOCUMENTS_MAX {
                    return Self::Documents(docs);
                }
                Self::Everything
            }
            _ => Self::Everything,
        }
    }
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
            news: Mutex::default(),
            notify: Notify::new(),
        });
        let mut sockets = self.lock();
        for subject in &subjects {
            let of_subject = sockets.entry(subject.clone()).or_default();
            of_subject.push(socket.clone());
        }
        drop(sockets);
        if self.told() != told {
            socket.tell(News::Changed(Scope::Everything));
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
            socket.tell(News::of(revocation));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Subject, Vec<Arc<Socket>>>> {
        lock(&self.sockets)
    }
}

impl Socket {
    fn tell(&self, news: News) {
        let mut waiting = self.lock();
        *waiting = Some(match waiting.take() {
            Some(before) => before.and(news),
            None => news,
        });
        drop(waiting);
        self.notify.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Option<News>> {
        lock(&self.news)
    }
}

impl Watch {
    /// Takes what there is to be told.
    #[must_use]
    pub fn take(&self) -> Option<News> {
        self.socket.lock().take()
    }

    /// Whether there is something to be told.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.socket.lock().is_some()
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
            doc: None,
        }
    }

    fn changed() -> Option<News> {
        Some(News::Changed(Scope::Everything))
    }

    fn plan(name: &str) -> DocId {
        DocId::parse("notes", name).unwrap()
    }

    fn on(name: &str, doc: &DocId) -> Revocation {
        Revocation {
            doc: Some(doc.clone()),
            ..revocation(name, None, false)
        }
    }

    #[test]
    fn documents_of_waiting_changes_are_named_together() {
        let watchers = Arc::new(Watchers::default());
        let watch = watchers.enter(vec![subject("ann")], None, watchers.told());
        let docs: BTreeSet<DocId> = (0..DOCUMENTS_MAX).map(|n| plan(&n.to_string())).collect();
        for doc in &docs {
            watchers.tell(&on("ann", doc));
        }
        let all = News::Changed(Scope::Documents(docs.clone()));
        assert_eq!(watch.take(), Some(all), "as many as are named");
        for doc in docs.iter().chain([&plan("one more")]) {
            watchers.tell(&on("ann", doc));
        }
        let everything = News::Changed(Scope::Everything);
        assert_eq!(watch.take(), Some(everything.clone()), "one more");
        watchers.tell(&on("ann", &plan("0")));
        watchers.tell(&revocation("ann", None, false));
        watchers.tell(&on("ann", &plan("1")));
        assert_eq!(watch.take(), Some(everything));
        watchers.tell(&revocation("ann", None, true));
        watchers.tell(&on("ann", &plan("1")));
        assert_eq!(watch.take(), Some(News::Ended));
        assert_eq!(watch.take(), None);
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
        assert_eq!(heard(), [changed(), changed(), None]);
        assert_eq!(heard(), [None, None, None]);
        watchers.tell(&revocation("ann", Some("desk"), true));
        watchers.tell(&revocation("ann", None, false));
        assert_eq!(heard(), [Some(News::Ended), changed(), None]);
        watchers.tell(&revocation("link", None, false));
        assert_eq!(heard(), [changed(), None, None]);
        drop((desk, phone, bob));
        assert!(watchers.lock().is_empty());
    }

    #[test]
    fn what_was_told_meanwhile_is_not_missed() {
        let watchers = Arc::new(Watchers::default());
        let told = watchers.told();
        watchers.tell(&revocation("ann", None, true));
        let watch = watchers.enter(vec![subject("ann")], None, told);
        assert_eq!(watch.take(), changed());
    }
}
