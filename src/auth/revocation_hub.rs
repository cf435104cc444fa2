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
pub struct RevocationHub {
    /// Locked for look-ups only.
    sockets: Mutex<HashMap<Subject, Vec<Arc<Subscriber>>>>,
    /// How often anybody was told anything.
    generation: AtomicU64,
}

#[derive(Debug)]
struct Subscriber {
    session: Option<SessionKey>,
    /// What it has not taken yet. Locked to be merged into or taken.
    news: Mutex<Option<AccessChange>>,
    notify: Notify,
}

/// What a socket is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessChange {
    /// Rights are to be looked up anew.
    Permissions(PermissionScope),
    /// The socket is to be closed.
    SessionEnded,
}

/// On which documents rights may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PermissionScope {
    /// On every document.
    Everything,
    /// On these, at most [`DOCUMENTS_MAX`].
    Documents(BTreeSet<DocId>),
}

/// How many documents are named to a socket that has not looked yet. If there are more, it looks everything up anew.
const DOCUMENTS_MAX: usize = 64;

impl AccessChange {
    /// What a revocation says to a socket that it is about.
    fn of(revocation: &Revocation) -> Self {
        if revocation.ends {
            return Self::SessionEnded;
        }
        Self::Permissions(match &revocation.doc {
            Some(doc) => PermissionScope::Documents(BTreeSet::from([doc.clone()])),
            None => PermissionScope::Everything,
        })
    }

    /// Both of them.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::SessionEnded, _) | (_, Self::SessionEnded) => Self::SessionEnded,
            (Self::Permissions(one), Self::Permissions(other)) => Self::Permissions(one.and(other)),
        }
    }
}

impl PermissionScope {
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
pub struct RevocationSubscription {
    hub: Arc<RevocationHub>,
    subjects: Vec<Subject>,
    socket: Arc<Subscriber>,
}

impl RevocationHub {
    /// How often anybody was told anything. Asked for before somebody's rights are looked up, and handed to
    /// [`subscribe`](Self::subscribe) after: so nothing is missed between the two.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Listens for what happens to these subjects' rights from `told` on.
    #[must_use]
    pub fn subscribe(
        self: &Arc<Self>,
        subjects: Vec<Subject>,
        session: Option<SessionKey>,
        told: u64,
    ) -> RevocationSubscription {
        let socket = Arc::new(Subscriber {
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
        if self.generation() != told {
            socket.notify(AccessChange::Permissions(PermissionScope::Everything));
        }
        RevocationSubscription {
            hub: self.clone(),
            subjects,
            socket,
        }
    }

    /// Tells those whom it is about.
    pub fn publish(&self, revocation: &Revocation) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        let sockets = self.lock();
        let about = sockets.get(&revocation.subject).into_iter().flatten();
        let meant = |socket: &&Arc<Subscriber>| {
            revocation.session.is_none() || revocation.session == socket.session
        };
        for socket in about.filter(meant) {
            socket.notify(AccessChange::of(revocation));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Subject, Vec<Arc<Subscriber>>>> {
        lock(&self.sockets)
    }
}

impl Subscriber {
    fn notify(&self, news: AccessChange) {
        let mut waiting = self.lock();
        *waiting = Some(match waiting.take() {
            Some(before) => before.and(news),
            None => news,
        });
        drop(waiting);
        self.notify.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Option<AccessChange>> {
        lock(&self.news)
    }
}

impl RevocationSubscription {
    /// Takes what there is to be told.
    #[must_use]
    pub fn take(&self) -> Option<AccessChange> {
        self.socket.lock().take()
    }

    /// Whether there is something to be told.
    #[must_use]
    pub fn has_change(&self) -> bool {
        self.socket.lock().is_some()
    }

    /// Waits until there is something to be told. May be woken for nothing.
    pub async fn notified(&self) {
        self.socket.notify.notified().await;
    }
}

impl Drop for RevocationSubscription {
    fn drop(&mut self) {
        let mut sockets = self.hub.lock();
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

    fn changed() -> Option<AccessChange> {
        Some(AccessChange::Permissions(PermissionScope::Everything))
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
        let hub = Arc::new(RevocationHub::default());
        let watch = hub.subscribe(vec![subject("ann")], None, hub.generation());
        let docs: BTreeSet<DocId> = (0..DOCUMENTS_MAX).map(|n| plan(&n.to_string())).collect();
        for doc in &docs {
            hub.publish(&on("ann", doc));
        }
        let all = AccessChange::Permissions(PermissionScope::Documents(docs.clone()));
        assert_eq!(watch.take(), Some(all), "as many as are named");
        for doc in docs.iter().chain([&plan("one more")]) {
            hub.publish(&on("ann", doc));
        }
        let everything = AccessChange::Permissions(PermissionScope::Everything);
        assert_eq!(watch.take(), Some(everything.clone()), "one more");
        hub.publish(&on("ann", &plan("0")));
        hub.publish(&revocation("ann", None, false));
        hub.publish(&on("ann", &plan("1")));
        assert_eq!(watch.take(), Some(everything));
        hub.publish(&revocation("ann", None, true));
        hub.publish(&on("ann", &plan("1")));
        assert_eq!(watch.take(), Some(AccessChange::SessionEnded));
        assert_eq!(watch.take(), None);
    }

    #[test]
    fn those_whom_it_is_about_are_told() {
        let hub = Arc::new(RevocationHub::default());
        let enter = |names: &[&str], session: &str| {
            let subjects = names.iter().copied().map(subject).collect();
            let session = Some(SessionKey(session.to_owned()));
            hub.subscribe(subjects, session, hub.generation())
        };
        let (desk, phone) = (enter(&["ann", "link"], "desk"), enter(&["ann"], "phone"));
        let bob = enter(&["bob"], "bob");
        let heard = || [desk.take(), phone.take(), bob.take()];
        hub.publish(&revocation("ann", None, false));
        assert_eq!(heard(), [changed(), changed(), None]);
        assert_eq!(heard(), [None, None, None]);
        hub.publish(&revocation("ann", Some("desk"), true));
        hub.publish(&revocation("ann", None, false));
        assert_eq!(heard(), [Some(AccessChange::SessionEnded), changed(), None]);
        hub.publish(&revocation("link", None, false));
        assert_eq!(heard(), [changed(), None, None]);
        drop((desk, phone, bob));
        assert!(hub.lock().is_empty());
    }

    #[test]
    fn what_was_told_meanwhile_is_not_missed() {
        let hub = Arc::new(RevocationHub::default());
        let told = hub.generation();
        hub.publish(&revocation("ann", None, true));
        let watch = hub.subscribe(vec![subject("ann")], None, told);
        assert_eq!(watch.take(), changed());
    }
}
