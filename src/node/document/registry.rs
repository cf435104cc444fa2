//! Opens documents, and passes requests and messages to their tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::timeout;
use tracing::Instrument;

use super::mailbox::{DocumentMessage, Mailbox, Mailboxes};
use super::ownership::OwnershipStatus;
use super::task::DocumentTask;
use crate::doc::{PeerMessage, SessionRequest};
use crate::id::{DocId, NodeId, SessionId};
use crate::node::delivery::outbox::Outbox;
use crate::node::delivery::reply::ReplyTo;
use crate::node::metrics::MessageDrop;
use crate::node::services::NodeServices;

/// Opens documents on demand: each gets a task, which closes the document when it is idle.
#[derive(Debug)]
pub(in crate::node) struct DocumentRegistry {
    services: Arc<NodeServices>,
    next_incarnation: AtomicU64,
    is_stopping: AtomicBool,
}

/// Why a document was not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AskError {
    /// The node stops.
    #[error("the node stops")]
    Stopping,
    /// `documents_max` documents are open, and none of them can be closed now.
    #[error("too many documents are open")]
    Full,
}

impl DocumentRegistry {
    pub(in crate::node) fn new(services: Arc<NodeServices>) -> Self {
        Self {
            services,
            next_incarnation: AtomicU64::new(1),
            is_stopping: AtomicBool::new(false),
        }
    }

    /// Sends a session's request to a document, which is opened if it is not open. Waits while its mailbox is full. The answer
    /// goes to `reply_to`.
    pub(in crate::node) async fn ask(
        &self,
        doc: &DocId,
        (session, outbox): (SessionId, &Arc<Outbox>),
        request: SessionRequest,
        reply_to: ReplyTo,
    ) -> Result<(), AskError> {
        let mut message = DocumentMessage::Request {
            session,
            outbox: outbox.clone(),
            reply_to,
            request,
        };
        loop {
            let mailbox = self.open(doc)?;
            match mailbox.sender.send(message).await {
                Ok(()) => return Ok(()),
                // The task ended by a panic, without removing its mailbox first. The document is opened anew.
                Err(unsent) => message = unsent.0,
            }
        }
    }

    /// Reports that a session ended.
    pub(in crate::node) async fn end_session(&self, doc: &DocId, session: SessionId) {
        let message = DocumentMessage::SessionClosed(session);
        self.documents().send(doc, message).await;
    }

    /// Reports that a session lost the permission to change a document.
    pub(in crate::node) async fn revoke_write(&self, doc: &DocId, session: SessionId) {
        let message = DocumentMessage::WriteAccessRevoked(session);
        self.documents().send(doc, message).await;
    }

    /// Passes on a message of another node about a document. A submit or a subscription opens the document; other messages
    /// concern it only if it is open. Never waits: a message that does not fit into the mailbox is dropped, and its sender
    /// repeats it.
    pub(in crate::node) fn receive(&self, from: NodeId, doc: &DocId, message: PeerMessage) {
        let opens = matches!(
            message,
            PeerMessage::Submit(..) | PeerMessage::Subscribe { .. }
        );
        let mailbox = if opens {
            self.open(doc).ok()
        } else {
            self.documents().get(doc)
        };
        if let Some(mailbox) = mailbox {
            let message = DocumentMessage::Peer { from, message };
            if let Err(TrySendError::Full(_)) = mailbox.sender.try_send(message) {
                let dropped = &self.services.metrics.peer_messages_dropped;
                dropped.of(MessageDrop::MailboxFull).inc();
            }
        }
    }

    /// Opens no more documents, and waits until everything that was accepted is durable. Returns false if that takes longer
    /// than `patience`.
    pub(in crate::node) async fn stop(&self, patience: Duration) -> bool {
        self.is_stopping.store(true, Ordering::SeqCst);
        let mailboxes: Vec<_> = self.documents().lock().values().cloned().collect();
        let finish = async {
            // All tasks are told before the first is waited for: the store collects their appends.
            for mailbox in &mailboxes {
                // An error: the task has ended already.
                let _ = mailbox.sender.send(DocumentMessage::Finish).await;
            }
            for mailbox in &mailboxes {
                mailbox.sender.closed().await;
            }
        };
        timeout(patience, finish).await.is_ok()
    }

    fn documents(&self) -> &Mailboxes {
        &self.services.documents
    }

    /// The mailbox of a document, which is opened if it is not open.
    fn open(&self, doc: &DocId) -> Result<Arc<Mailbox>, AskError> {
        let mut mailboxes = self.documents().lock();
        // Read under the lock: a document of an older history never replaces one of a newer history.
        let history = self.services.log_history.get();
        // A task of another history ends by itself. The document is opened anew beside it.
        let open = mailboxes.get(doc).filter(|it| it.history == history);
        if let Some(mailbox) = open {
            return Ok(mailbox.clone());
        }
        if self.is_stopping.load(Ordering::SeqCst) {
            return Err(AskError::Stopping);
        }
        let settings = &self.services.settings;
        // Before the limit is reached: documents without sessions must not keep out those that are asked for.
        if mailboxes.len() >= settings.documents_max - settings.documents_max / 8 {
            self.documents().evict_idle();
        }
        if mailboxes.len() >= settings.documents_max {
            return Err(AskError::Full);
        }

        let (sender, receiver) = mpsc::channel(settings.mailbox_max);
        let incarnation = self.next_incarnation.fetch_add(1, Ordering::Relaxed);
        let status = Arc::new(OwnershipStatus::default());
        let mailbox = Arc::new(Mailbox {
            incarnation,
            history,
            sender,
            status: status.clone(),
        });
        mailboxes.insert(doc.clone(), mailbox.clone());
        let opened = (incarnation, history);
        let services = self.services.clone();
        let task = DocumentTask::new(doc.clone(), opened, services, receiver, status);
        // Of the level of errors: lines of all levels have its fields.
        let span = tracing::error_span!(parent: None, "document", %doc);
        self.services.runtime.spawn(task.run().instrument(span));
        Ok(mailbox)
    }
}
