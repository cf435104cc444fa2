//! Delivers revocations to the open sockets of this node, by the subjects that each socket depends on.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::access::{Revocation, SessionKey, Subject};
use crate::id::DocId;
use crate::sync::lock;

/// The subscriptions of this node's open sockets, by the subjects that their permissions depend on.
#[derive(Debug, Default)]
pub struct RevocationHub {
    /// Locked for look-ups only.
    subscribers: Mutex<HashMap<Subject, Vec<Arc<RevocationSubscriber>>>>,
    /// The number of revocations published so far.
    generation: AtomicU64,
}

#[derive(Debug)]
struct RevocationSubscriber {
    session: Option<SessionKey>,
    /// The change that was not taken yet. Locked to merge into it or to take it.
    pending: Mutex<Option<AccessChange>>,
    notify: Notify,
}

/// A change that a socket must react to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessChange {
    /// Permissions must be looked up again.
    Permissions(PermissionScope),
    /// The session has ended: the socket must be closed.
    SessionEnded,
}

/// The documents on which permissions may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PermissionScope {
    /// Every document.
    Everything,
    /// These documents, at most [`DOCUMENTS_MAX`].
    Documents(BTreeSet<DocId>),
}

/// The most documents of a pending change. Beyond that the change becomes [`PermissionScope::Everything`].
const DOCUMENTS_MAX: usize = 64;

impl AccessChange {
    /// The change that a revocation means for a socket that it concerns.
    fn of(revocation: &Revocation) -> Self {
        if revocation.ends {
            return Self::SessionEnded;
        }
        Self::Permissions(match &revocation.doc {
            Some(doc) => PermissionScope::Documents(BTreeSet::from([doc.clone()])),
            None => PermissionScope::Everything,
        })
    }

    /// Merges two changes.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::SessionEnded, _) | (_, Self::SessionEnded) => Self::SessionEnded,
            (Self::Permissions(one), Self::Permissions(other)) => Self::Permissions(one.and(other)),
        }
    }
}

impl PermissionScope {
    /// The union; [`Everything`](Self::Everything) if it has too many documents.
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

/// The subscription of one socket, which ends when it is dropped.
#[derive(Debug)]
pub struct RevocationSubscription {
    hub: Arc<RevocationHub>,
    subjects: Vec<Subject>,
    subscriber: Arc<RevocationSubscriber>,
}

impl RevocationHub {
    /// The number of revocations published so far. Read it before permissions are looked up and pass it to
    /// [`subscribe`](Self::subscribe) afterwards, so that no revocation in between is missed.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Subscribes to the revocations of these subjects since `generation`.
    #[must_use]
    pub fn subscribe(
        self: &Arc<Self>,
        subjects: Vec<Subject>,
        session: Option<SessionKey>,
        generation: u64,
    ) -> RevocationSubscription {
        let subscriber = Arc::new(RevocationSubscriber {
            session,
            pending: Mutex::default(),
            notify: Notify::new(),
        });
        let mut subscribers = self.lock();
        for subject in &subjects {
            let of_subject = subscribers.entry(subject.clone()).or_default();
            of_subject.push(subscriber.clone());
        }
        drop(subscribers);
        if self.generation() != generation {
            subscriber.notify(AccessChange::Permissions(PermissionScope::Everything));
        }
        RevocationSubscription {
            hub: self.clone(),
            subjects,
            subscriber,
        }
    }

    /// Delivers a revocation to the sockets that it concerns.
    pub fn publish(&self, revocation: &Revocation) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        let subscribers = self.lock();
        let of_subject = subscribers.get(&revocation.subject).into_iter().flatten();
        let is_concerned = |subscriber: &&Arc<RevocationSubscriber>| {
            revocation.session.is_none() || revocation.session == subscriber.session
        };
        for subscriber in of_subject.filter(is_concerned) {
            subscriber.notify(AccessChange::of(revocation));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Subject, Vec<Arc<RevocationSubscriber>>>> {
        lock(&self.subscribers)
    }
}

impl RevocationSubscriber {
    /// Merges a change into the pending one and wakes the socket.
    fn notify(&self, change: AccessChange) {
        let mut pending = self.lock();
        *pending = Some(match pending.take() {
            Some(earlier) => earlier.and(change),
            None => change,
        });
        drop(pending);
        self.notify.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Option<AccessChange>> {
        lock(&self.pending)
    }
}

impl RevocationSubscription {
    /// Takes the pending change.
    #[must_use]
    pub fn take(&self) -> Option<AccessChange> {
        self.subscriber.lock().take()
    }

    /// Returns true if a change is pending.
    #[must_use]
    pub fn has_change(&self) -> bool {
        self.subscriber.lock().is_some()
    }

    /// Waits for a change. May return although none is pending.
    pub async fn notified(&self) {
        self.subscriber.notify.notified().await;
    }
}

impl Drop for RevocationSubscription {
    fn drop(&mut self) {
        let mut subscribers = self.hub.lock();
        for subject in &self.subjects {
            let Some(of_subject) = subscribers.get_mut(subject) else {
                continue;
            };
            of_subject.retain(|other| !Arc::ptr_eq(other, &self.subscriber));
            if of_subject.is_empty() {
                subscribers.remove(subject);
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
    fn documents_of_pending_changes_are_merged() {
        let hub = Arc::new(RevocationHub::default());
        let subscription = hub.subscribe(vec![subject("ann")], None, hub.generation());
        let docs: BTreeSet<DocId> = (0..DOCUMENTS_MAX).map(|n| plan(&n.to_string())).collect();
        for doc in &docs {
            hub.publish(&on("ann", doc));
        }
        let all = AccessChange::Permissions(PermissionScope::Documents(docs.clone()));
        assert_eq!(subscription.take(), Some(all), "at the limit");
        for doc in docs.iter().chain([&plan("beyond the limit")]) {
            hub.publish(&on("ann", doc));
        }
        let everything = AccessChange::Permissions(PermissionScope::Everything);
        assert_eq!(
            subscription.take(),
            Some(everything.clone()),
            "beyond the limit"
        );
        hub.publish(&on("ann", &plan("0")));
        hub.publish(&revocation("ann", None, false));
        hub.publish(&on("ann", &plan("1")));
        assert_eq!(subscription.take(), Some(everything));
        hub.publish(&revocation("ann", None, true));
        hub.publish(&on("ann", &plan("1")));
        assert_eq!(subscription.take(), Some(AccessChange::SessionEnded));
        assert_eq!(subscription.take(), None);
    }

    #[test]
    fn revocation_reaches_the_sockets_of_its_subject() {
        let hub = Arc::new(RevocationHub::default());
        let subscribe = |names: &[&str], session: &str| {
            let subjects = names.iter().copied().map(subject).collect();
            let session = Some(SessionKey(session.to_owned()));
            hub.subscribe(subjects, session, hub.generation())
        };
        let (desk, phone) = (
            subscribe(&["ann", "link"], "desk"),
            subscribe(&["ann"], "phone"),
        );
        let bob = subscribe(&["bob"], "bob");
        let changes = || [desk.take(), phone.take(), bob.take()];
        hub.publish(&revocation("ann", None, false));
        assert_eq!(changes(), [changed(), changed(), None]);
        assert_eq!(changes(), [None, None, None]);
        hub.publish(&revocation("ann", Some("desk"), true));
        hub.publish(&revocation("ann", None, false));
        assert_eq!(
            changes(),
            [Some(AccessChange::SessionEnded), changed(), None]
        );
        hub.publish(&revocation("link", None, false));
        assert_eq!(changes(), [changed(), None, None]);
        drop((desk, phone, bob));
        assert!(hub.lock().is_empty());
    }

    #[test]
    fn revocation_before_the_subscription_is_not_missed() {
        let hub = Arc::new(RevocationHub::default());
        let generation = hub.generation();
        hub.publish(&revocation("ann", None, true));
        let subscription = hub.subscribe(vec![subject("ann")], None, generation);
        assert_eq!(subscription.take(), changed());
    }
}
