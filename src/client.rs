//! The client's half of the protocol: one document in one open editor. Local changes apply at once. At most one of them is in
//! flight; the later ones are composed and wait. Commits of other clients are transformed against both.
#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use thiserror::Error;

use crate::id::ClientId;
use crate::log::{Change, Entry, Revision, Snapshot};
use crate::ot::{Content, Op, OtError, Side};

/// A message from the server about the document.
#[derive(Debug, Clone)]
pub enum ServerMessage {
    /// The current document.
    Snapshot(Snapshot),
    /// All commits after the requested revision have been sent.
    Done,
    /// A commit. For the submit in flight it is the ack.
    Commit(Arc<Entry>),
    /// The ack of a submit, without its op.
    Acked {
        /// The number of the submit.
        seq: u64,
        /// The revision that it led to.
        revision: Revision,
    },
    /// A submit was rejected.
    Rejected {
        /// The number of the submit.
        seq: u64,
    },
}

/// A request to the server.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientRequest {
    /// The document, or its commits since a revision, and all later commits.
    Subscribe {
        /// The revision that the client has, if any.
        since: Option<Revision>,
    },
    /// The document, or its commits since a revision.
    Fetch {
        /// The revision that the client has, if any.
        since: Option<Revision>,
    },
    /// A change to be committed.
    Submit {
        /// The number of the submit among those of the client.
        seq: u64,
        /// The revision that the change applies to.
        base: Revision,
        /// The change.
        change: Change,
        /// It may have been sent before: the message has to name the client, so that a duplicate is detected.
        is_resend: bool,
    },
}

/// A change cannot be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidEdit {
    /// The document is not loaded yet, or is being reloaded after a rollback.
    #[error("the document is not known yet")]
    Unknown,
    /// The document already exists.
    #[error("the document exists already")]
    Exists,
    /// The document does not exist.
    #[error("there is no document")]
    Missing,
    /// The op does not fit the content.
    #[error("{0}")]
    Op(#[from] OtError),
}

/// One document in one open editor.
///
/// A pure state machine. After each input, call [`poll`](Self::poll) until it returns `None`, and send what it returns. Inputs
/// are changes of the user ([`edit`](Self::edit), [`create`](Self::create), [`delete`](Self::delete)), messages of the server
/// ([`received`](Self::received)) and the state of the socket ([`connected`](Self::connected),
/// [`disconnected`](Self::disconnected)).
///
/// ```
/// use copydesk::client::{Client, ClientRequest, ServerMessage};
/// use copydesk::id::ClientId;
/// use copydesk::log::Snapshot;
/// use copydesk::ot::{Content, Kind};
///
/// let mut client = Client::new(ClientId::parse("ann")?);
/// client.connected();
/// assert_eq!(client.poll(), Some(ClientRequest::Subscribe { since: None }));
/// // The answer: the document does not exist.
/// client.received(ServerMessage::Snapshot(Snapshot::default()))?;
/// client.create(Content::create(Kind::TextUnicode, Some("\"Hello\""))?)?;
/// assert!(matches!(client.poll(), Some(ClientRequest::Submit { seq: 1, .. })));
/// assert!(!client.is_settled());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Client {
    id: ClientId,
    /// The newest known revision, without local changes. `None`: the document is not loaded, and a snapshot is awaited.
    revision: Option<Revision>,
    /// The content shown to the user: the document at `revision` with the local changes.
    content: Option<Content>,
    /// The submit that the server has not answered, as it applies to `revision`.
    in_flight: Option<InFlight>,
    /// The changes that wait to be sent, in order. Neighbouring edits are composed, so there are few.
    pending: VecDeque<Change>,
    /// The number of submits so far.
    seq: u64,
    /// Every ack: the number of the submit, and the revision that it led to.
    acknowledged: Vec<(u64, Revision)>,
    connection: ConnectionState,
    /// A snapshot or commits were requested and have not all arrived.
    requested: bool,
    /// Commits are missing and have not been requested.
    missing: bool,
    anomalies: Anomalies,
}

#[derive(Debug)]
struct InFlight {
    seq: u64,
    change: Change,
    /// It has to be sent on the current socket.
    needs_send: bool,
    /// It may have been sent on an earlier socket.
    is_resend: bool,
}

#[derive(Debug, PartialEq)]
enum ConnectionState {
    /// No socket.
    Down,
    /// A socket without a subscription.
    Up,
    /// The subscription was requested.
    Subscribed,
}

/// Counts of events that the client recovers from, so that tests cannot see them in the final content.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Anomalies {
    /// Commits or acks that arrived before commits with lower revisions, which had to be fetched.
    pub gaps: u64,
    /// Discarded local changes: rejected, or made on a document that another client created or deleted.
    pub rollbacks: u64,
}

impl Client {
    /// Returns a client without a connection and a document.
    #[must_use]
    pub fn new(id: ClientId) -> Self {
        Self {
            id,
            revision: None,
            content: None,
            in_flight: None,
            pending: VecDeque::new(),
            seq: 0,
            acknowledged: Vec::new(),
            connection: ConnectionState::Down,
            requested: false,
            missing: false,
            anomalies: Anomalies::default(),
        }
    }

    /// Creates the document.
    ///
    /// # Errors
    /// If it already exists or is not loaded.
    pub fn create(&mut self, content: Content) -> Result<(), InvalidEdit> {
        self.revision.ok_or(InvalidEdit::Unknown)?;
        if self.content.is_some() {
            return Err(InvalidEdit::Exists);
        }
        self.content = Some(content.clone());
        self.pending.push_back(Change::Create(content));
        Ok(())
    }

    /// Edits the document. If it fails, nothing is changed.
    ///
    /// # Errors
    /// If the document does not exist or is not loaded, or the op does not fit its content.
    pub fn edit(&mut self, op: Op) -> Result<(), InvalidEdit> {
        self.revision.ok_or(InvalidEdit::Unknown)?;
        let content = self.content.as_mut().ok_or(InvalidEdit::Missing)?;
        content.apply(&op)?;
        match self.pending.back_mut() {
            Some(Change::Edit(last)) => match last.compose(&op) {
                Ok(both) => *last = both,
                // Each op is valid by itself, so they are sent one after the other.
                Err(_) => self.pending.push_back(Change::Edit(op)),
            },
            Some(Change::Create(created)) => created.apply(&op)?,
            Some(Change::Delete | Change::Nothing) | None => {
                self.pending.push_back(Change::Edit(op))
            }
        }
        Ok(())
    }

    /// Deletes the document.
    ///
    /// # Errors
    /// If it does not exist or is not loaded.
    pub fn delete(&mut self) -> Result<(), InvalidEdit> {
        self.revision.ok_or(InvalidEdit::Unknown)?;
        self.content.take().ok_or(InvalidEdit::Missing)?;
        self.pending.push_back(Change::Delete);
        Ok(())
    }

    /// A socket was opened, and its handshake is complete. The unanswered submit will be sent again.
    pub fn connected(&mut self) {
        self.connection = ConnectionState::Up;
        self.missing = false;
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.is_resend |= !in_flight.needs_send;
            in_flight.needs_send = true;
        }
    }

    /// The socket was closed. Local edits remain possible.
    pub fn disconnected(&mut self) {
        self.connection = ConnectionState::Down;
    }

    /// Handles a message of the server.
    ///
    /// # Errors
    /// If a commit does not fit the content: client and server have diverged, and the client cannot continue.
    pub fn received(&mut self, message: ServerMessage) -> Result<(), InvalidEdit> {
        match message {
            ServerMessage::Snapshot(snapshot) => self.load(snapshot),
            ServerMessage::Done => self.requested = false,
            ServerMessage::Commit(entry) => return self.committed(&entry),
            ServerMessage::Acked { seq, revision } => self.acked(seq, revision),
            ServerMessage::Rejected { seq } => {
                if self.in_flight.as_ref().is_some_and(|it| it.seq == seq) {
                    self.roll_back();
                }
            }
        }
        Ok(())
    }

    /// The next request to send. On a new socket the unanswered submit is first, then the subscription.
    pub fn poll(&mut self) -> Option<ClientRequest> {
        if self.connection == ConnectionState::Down {
            return None;
        }
        if let Some(submit) = self.submit() {
            return Some(submit);
        }
        if self.connection == ConnectionState::Up {
            self.connection = ConnectionState::Subscribed;
            self.requested = true;
            return Some(ClientRequest::Subscribe {
                since: self.revision,
            });
        }
        if (self.missing || self.revision.is_none()) && !self.requested {
            self.requested = true;
            self.missing = false;
            return Some(ClientRequest::Fetch {
                since: self.revision,
            });
        }
        None
    }

    /// The id of the client.
    #[must_use]
    pub fn id(&self) -> &ClientId {
        &self.id
    }

    /// The newest known revision.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// The content with the local changes; `None` while the document does not exist or is not loaded.
    #[must_use]
    pub fn content(&self) -> Option<&Content> {
        self.content.as_ref()
    }

    /// The submit in flight: its number, and the change as it applies to the current revision.
    #[must_use]
    pub fn in_flight(&self) -> Option<(u64, &Change)> {
        self.in_flight.as_ref().map(|it| (it.seq, &it.change))
    }

    /// Returns true if every local change has been acknowledged.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.in_flight.is_none() && self.pending.is_empty()
    }

    /// The number of submits so far. Their numbers begin at 1.
    #[must_use]
    pub fn submits(&self) -> u64 {
        self.seq
    }

    /// Every ack so far: the number of the submit, and the revision that it led to.
    #[must_use]
    pub fn acknowledged(&self) -> &[(u64, Revision)] {
        &self.acknowledged
    }

    /// The counts of gaps and rollbacks.
    #[must_use]
    pub fn anomalies(&self) -> Anomalies {
        self.anomalies
    }

    fn submit(&mut self) -> Option<ClientRequest> {
        let base = self.revision?;
        if self.in_flight.is_none() {
            let change = self.pending.pop_front()?;
            self.seq += 1;
            self.in_flight = Some(InFlight {
                seq: self.seq,
                change,
                needs_send: true,
                is_resend: false,
            });
        }
        let in_flight = self.in_flight.as_mut().filter(|it| it.needs_send)?;
        in_flight.needs_send = false;
        let (seq, change, is_resend) =
            (in_flight.seq, in_flight.change.clone(), in_flight.is_resend);
        Some(ClientRequest::Submit {
            seq,
            base,
            change,
            is_resend,
        })
    }

    /// Takes a snapshot, unless the document is loaded: a snapshot would drop the local changes.
    fn load(&mut self, snapshot: Snapshot) {
        self.requested = false;
        if self.revision.is_none() {
            self.revision = Some(snapshot.revision);
            self.content = snapshot.content;
        }
    }

    fn committed(&mut self, entry: &Entry) -> Result<(), InvalidEdit> {
        let Some(revision) = self.revision else {
            return Ok(());
        };
        if entry.revision <= revision {
            // The commit was also in a catch-up.
            return Ok(());
        }
        if entry.revision != revision.next() {
            self.gap();
            return Ok(());
        }
        let own = |it: &InFlight| it.seq == entry.id.seq && self.id == entry.id.client;
        if self.in_flight.as_ref().is_some_and(own) {
            self.acknowledge(entry.id.seq, entry.revision);
            return Ok(());
        }
        self.revision = Some(entry.revision);
        self.apply_remote(&entry.change)
    }

    fn acked(&mut self, seq: u64, acked: Revision) {
        let Some(revision) = self.revision else {
            return;
        };
        if self.in_flight.as_ref().is_none_or(|it| it.seq != seq) {
            return;
        }
        if acked == revision.next() {
            self.acknowledge(seq, acked);
        } else {
            // The op will arrive among the missing commits.
            self.gap();
        }
    }

    fn acknowledge(&mut self, seq: u64, revision: Revision) {
        self.in_flight = None;
        self.revision = Some(revision);
        self.acknowledged.push((seq, revision));
    }

    fn gap(&mut self) {
        self.missing = true;
        self.anomalies.gaps += 1;
    }

    /// Applies a commit of another client. It is transformed against each local change in turn, never against their
    /// composition, because the results differ.
    fn apply_remote(&mut self, change: &Change) -> Result<(), InvalidEdit> {
        let mut theirs = Cow::Borrowed(change);
        let in_flight = self.in_flight.iter_mut().map(|it| &mut it.change);
        for ours in in_flight.chain(&mut self.pending) {
            match transform_both(ours, &theirs)? {
                RebaseOutcome::Theirs(past) => theirs = Cow::Owned(past),
                RebaseOutcome::Same => {}
                RebaseOutcome::Conflict => {
                    self.roll_back();
                    return Ok(());
                }
            }
        }
        match &*theirs {
            Change::Create(content) => self.content = Some(content.clone()),
            Change::Edit(op) => self
                .content
                .as_mut()
                .ok_or(InvalidEdit::Missing)?
                .apply(op)?,
            Change::Delete => self.content = None,
            Change::Nothing => {}
        }
        Ok(())
    }

    /// Discards the local changes and loads the document again, as the JavaScript clients do.
    fn roll_back(&mut self) {
        self.in_flight = None;
        self.pending.clear();
        self.revision = None;
        self.content = None;
        self.anomalies.rollbacks += 1;
    }
}

/// The result of transforming a commit against a local change.
enum RebaseOutcome {
    /// The transformed commit.
    Theirs(Change),
    /// The commit is unchanged.
    Same,
    /// The two exclude each other.
    Conflict,
}

/// Transforms a commit of another client and a local change against each other.
fn transform_both(ours: &mut Change, theirs: &Change) -> Result<RebaseOutcome, OtError> {
    match (&*ours, theirs) {
        (_, Change::Nothing) | (Change::Nothing, _) => Ok(RebaseOutcome::Same),
        (Change::Edit(own), Change::Edit(other)) => {
            let past = other.transform(own, Side::Right)?;
            *ours = Change::Edit(own.transform(other, Side::Left)?);
            Ok(RebaseOutcome::Theirs(Change::Edit(past)))
        }
        // The document is deleted locally, so that commits before the delete have no effect.
        (Change::Delete, Change::Create(_) | Change::Edit(_) | Change::Delete) => {
            Ok(RebaseOutcome::Theirs(Change::Nothing))
        }
        (Change::Edit(_), Change::Create(_) | Change::Delete)
        | (Change::Create(_), Change::Create(_) | Change::Edit(_) | Change::Delete) => {
            Ok(RebaseOutcome::Conflict)
        }
    }
}

#[cfg(test)]
mod tests;
