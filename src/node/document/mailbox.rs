//! The open documents of a node: the mailbox of each document's task, by name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::ownership::{Ownership, OwnershipStatus};
use crate::doc::{Event, PeerMessage, SessionRequest};
use crate::id::{DocId, NodeId, SessionId};
use crate::node::cluster::log_history::NewestCommit;
use crate::node::delivery::outbox::Outbox;
use crate::node::delivery::reply::ReplyTo;
use crate::node::presence::registry::PresenceUpdate;
use crate::store::{self, History};
use crate::sync::lock;

/// A message to a document's task.
#[derive(Debug)]
pub(in crate::node) enum DocumentMessage {
    /// A request of a session of this node.
    Request {
        session: SessionId,
        outbox: Arc<Outbox>,
        reply_to: ReplyTo,
        request: SessionRequest,
    },
    /// A session of this node ended.
    SessionClosed(SessionId),
    /// A session of this node lost the permission to change the document.
    WriteAccessRevoked(SessionId),
    /// A message of another node about the document.
    Peer { from: NodeId, message: PeerMessage },
    /// A change that the store or the cluster reports.
    Changed(Event),
    /// A position in the document that no session of this node publishes.
    Presence(PresenceUpdate),
    /// The quarantine of the document began or ended: the task ends, so that the document is opened anew.
    Reload,
    /// The node stops: the task ends as soon as everything that was accepted is durable.
    Finish,
}

/// The way to an open document's task.
#[derive(Debug)]
pub(super) struct Mailbox {
    /// Identifies the task: a document that is closed and opened again has another.
    pub(super) incarnation: u64,
    /// The history of the log in which the document was opened.
    pub(super) history: History,
    pub(super) sender: mpsc::Sender<DocumentMessage>,
    pub(super) status: Arc<OwnershipStatus>,
}

/// The mailboxes of the open documents, by name.
///
/// The mutex is locked for look-ups only. A thread that sends holds a clone of the [`Mailbox`] while it does, and a document
/// is closed only while there is no clone: so no message is lost in the mailbox of a task that has ended.
#[derive(Debug)]
pub(in crate::node) struct Mailboxes {
    mailboxes: Mutex<HashMap<DocId, Arc<Mailbox>>>,
    /// Notified when documents without sessions are to be closed at once.
    evictions: watch::Sender<()>,
    evicted_at: Mutex<Option<Instant>>,
}

/// The shortest time between two evictions: each wakes all documents.
const EVICTION_INTERVAL: Duration = Duration::from_secs(1);

impl Mailboxes {
    pub(in crate::node) fn new() -> Self {
        Self {
            mailboxes: Mutex::default(),
            evictions: watch::Sender::new(()),
            evicted_at: Mutex::default(),
        }
    }

    /// How many documents are open.
    pub(in crate::node) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Sends a message to an open document, and waits while its mailbox is full. A document that is not open does not need
    /// the message.
    pub(super) async fn send(&self, doc: &DocId, message: DocumentMessage) {
        if let Some(mailbox) = self.get(doc) {
            let _ = mailbox.sender.send(message).await;
        }
    }

    /// Sends a message to an open document. Returns the message if the document is not open or its mailbox is full.
    pub(in crate::node) fn try_send(
        &self,
        doc: &DocId,
        message: DocumentMessage,
    ) -> Option<DocumentMessage> {
        let Some(mailbox) = self.get(doc) else {
            return Some(message);
        };
        let sent = mailbox.sender.try_send(message);
        sent.err().map(mpsc::error::TrySendError::into_inner)
    }

    /// Lets a document be opened anew if it is open: its sockets are closed, and their clients reconnect with their revisions.
    /// Returns false if its mailbox is full.
    pub(in crate::node) fn reload(&self, doc: &DocId) -> bool {
        let open = self.get(doc);
        open.is_none_or(|mailbox| {
            let sent = mailbox.sender.try_send(DocumentMessage::Reload);
            !matches!(sent, Err(mpsc::error::TrySendError::Full(_)))
        })
    }

    /// Reports a change to a document if it is open. A report that does not fit into its mailbox is dropped: it is made again
    /// with the next heartbeat.
    pub(in crate::node) fn report_change(&self, doc: &DocId, event: Event) {
        let _ = self.try_send(doc, DocumentMessage::Changed(event));
    }

    /// Makes this node give up all documents that it owns, whatever is under way. What is unanswered is sent again, to their
    /// next owners.
    pub(in crate::node) fn step_down_all(&self) {
        for (doc, epoch) in self.followed_and_owned().owned {
            self.report_change(&doc, Event::Superseded(epoch));
        }
    }

    /// Calls `visit` with each of these documents that is open, the caller's value for it, and what the node has of it. Locks
    /// the map for all of them.
    pub(in crate::node) fn visit<'a, T>(
        &self,
        docs: impl IntoIterator<Item = (&'a DocId, T)>,
        mut visit: impl FnMut(&'a DocId, T, Ownership),
    ) {
        let mailboxes = self.lock();
        for (doc, value) in docs {
            if let Some(mailbox) = mailboxes.get(doc) {
                visit(doc, value, mailbox.status.get());
            }
        }
    }

    /// The open documents that the store may have more of than this node: those that it owns or follows.
    pub(in crate::node) fn followed_and_owned(&self) -> store::OpenDocuments {
        let mut open = store::OpenDocuments::default();
        for (doc, mailbox) in &*self.lock() {
            let Ownership {
                owned, followed, ..
            } = mailbox.status.get();
            open.owned.extend(owned.map(|epoch| (doc.clone(), epoch)));
            let followed = followed.map(|head| (doc.clone(), head));
            open.followed.extend(followed);
        }
        open
    }

    /// The newest commits that this node has of its open documents.
    pub(in crate::node) fn newest_commits(&self) -> Vec<(DocId, NewestCommit)> {
        let mailboxes = self.lock();
        let newest = |(doc, mailbox): (&DocId, &Arc<Mailbox>)| {
            Some((doc.clone(), mailbox.status.newest_commit()?))
        };
        mailboxes.iter().filter_map(newest).collect()
    }

    /// Makes documents without sessions close at once instead of after a while, and all documents drop the snapshots that
    /// they cache.
    pub(in crate::node) fn evict_idle(&self) {
        let mut last = lock(&self.evicted_at);
        if last.is_none_or(|last| last.elapsed() >= EVICTION_INTERVAL) {
            *last = Some(Instant::now());
            self.evictions.send_replace(());
        }
    }

    /// Notified by [`evict_idle`](Self::evict_idle).
    pub(super) fn watch_evictions(&self) -> watch::Receiver<()> {
        self.evictions.subscribe()
    }

    /// Removes the mailbox of this task, unless another thread is about to send to it or it is not empty. Returns true if the
    /// task may end.
    pub(super) fn close_if_unused(
        &self,
        doc: &DocId,
        incarnation: u64,
        mailbox_is_empty: impl FnOnce() -> bool,
    ) -> bool {
        let mut mailboxes = self.lock();
        // `get_mut` succeeds if there is no clone, and synchronises with the drop of the last one: a message that was sent
        // through it is in the mailbox by now. The count alone would not show that.
        let is_unused = mailboxes.get_mut(doc).is_some_and(|mailbox| {
            mailbox.incarnation == incarnation && Arc::get_mut(mailbox).is_some()
        });
        let closes = is_unused && mailbox_is_empty();
        if closes {
            mailboxes.remove(doc);
        }
        closes
    }

    /// Removes the mailbox of a task that ends, unless the document has been opened again.
    pub(super) fn remove(&self, doc: &DocId, incarnation: u64) {
        let mut mailboxes = self.lock();
        let is_same = |mailbox: &Arc<Mailbox>| mailbox.incarnation == incarnation;
        if mailboxes.get(doc).is_some_and(is_same) {
            mailboxes.remove(doc);
        }
    }

    pub(super) fn get(&self, doc: &DocId) -> Option<Arc<Mailbox>> {
        self.lock().get(doc).cloned()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<DocId, Arc<Mailbox>>> {
        lock(&self.mailboxes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_not_closed_while_a_message_is_sent_to_it() {
        let documents = Mailboxes::new();
        let doc = DocId::parse("c", "d").unwrap();
        let (sender, mut receiver) = mpsc::channel(1);
        let mailbox = Arc::new(Mailbox {
            incarnation: 1,
            history: History::default(),
            sender,
            status: Arc::default(),
        });
        documents.lock().insert(doc.clone(), mailbox.clone());
        assert!(!documents.close_if_unused(&doc, 1, || receiver.is_empty()));
        mailbox.sender.try_send(DocumentMessage::Finish).unwrap();
        drop(mailbox);
        assert!(!documents.close_if_unused(&doc, 1, || receiver.is_empty()));
        receiver.try_recv().unwrap();
        assert!(documents.close_if_unused(&doc, 1, || receiver.is_empty()));
        assert_eq!(documents.len(), 0);
    }
}
