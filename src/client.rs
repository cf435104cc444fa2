//! The client's half of the protocol: one document in one open editor. Local changes apply at once; one of them is with
//! the server, the rest wait and are composed; what others did is transformed past both.
#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use thiserror::Error;

use crate::id::ClientId;
use crate::log::{Change, Entry, Revision, Snapshot};
use crate::ot::{Content, Op, OtError, Side};

/// What the server says about the document.
#[derive(Debug, Clone)]
pub enum ServerMessage {
    /// The document as it stands.
    Snapshot(Snapshot),
    /// All commits since the revision that was asked from have been sent.
    Done,
    /// A commit. The client's own one is its ack.
    Commit(Arc<Entry>),
    /// The bare ack: what the client submitted under `seq` became this revision.
    Acked {
        /// The client's count.
        seq: u64,
        /// The revision that it led to.
        revision: Revision,
    },
    /// What the client submitted under `seq` was refused.
    Rejected {
        /// The client's count.
        seq: u64,
    },
}

/// What the client asks of the server.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientRequest {
    /// The document, or its commits since a revision, and its commits from then on.
    Subscribe {
        /// What the client has, if it has anything.
        since: Option<Revision>,
    },
    /// The document, or its commits since a revision.
    Fetch {
        /// What the client has, if it has anything.
        since: Option<Revision>,
    },
    /// Commit this.
    Submit {
        /// The client's count of its submits.
        seq: u64,
        /// The revision that the change applies to.
        base: Revision,
        /// The change.
        change: Change,
        /// Whether it may have been said before: then it names its client.
        is_resend: bool,
    },
}

/// Why a change could not be made or taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidEdit {
    /// The document is not known yet, or its local changes were just thrown away.
    #[error("the document is not known yet")]
    Unknown,
    /// The document exists already.
    #[error("the document exists already")]
    Exists,
    /// There is no document.
    #[error("there is no document")]
    Missing,
    /// The op does not fit the content.
    #[error("{0}")]
    Op(#[from] OtError),
}

/// One document in one open editor.
///
/// Driven like this: make a change ([`edit`](Self::edit), [`create`](Self::create), [`delete`](Self::delete)), hand in
/// what the server said ([`received`](Self::received)) or what became of the socket ([`connected`](Self::connected),
/// [`disconnected`](Self::disconnected)), then [`poll`](Self::poll) until it is empty and send what it gave.
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
    /// The newest revision that is known, local changes apart. None: nothing is known, and a snapshot is awaited.
    revision: Option<Revision>,
    /// What the user sees: the document at `revision` with the local changes.
    content: Option<Content>,
    /// What is with the server, as it applies to `revision`.
    in_flight: Option<InFlight>,
    /// What waits to be sent, in order. Neighbouring edits are composed, so there are at most a few.
    pending: VecDeque<Change>,
    /// How many submits there have been.
    seq: u64,
    /// Every ack: the count of the submit, and the revision that it led to.
    acknowledged: Vec<(u64, Revision)>,
    connection: ConnectionState,
    /// Whether the document or its commits were asked for and have not all come.
    asked: bool,
    /// Whether commits are missing that nobody has been asked for.
    missing: bool,
    anomalies: Anomalies,
}

#[derive(Debug)]
struct InFlight {
    seq: u64,
    change: Change,
    /// Whether it has to be said (again).
    needs_send: bool,
    /// Whether it may have been said on an earlier socket.
    is_resend: bool,
}

#[derive(Debug, PartialEq)]
enum ConnectionState {
    /// There is no socket.
    Down,
    /// There is a socket, on which the subscription has not been asked for.
    Up,
    /// The subscription was asked for.
    Subscribed,
}

/// What should not happen, counted: a client heals from it, so the final texts alone do not show it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Anomalies {
    /// How often a commit or an ack came too early, and the ones before it had to be fetched.
    pub gaps: u64,
    /// How often local changes were thrown away: refused, or made on a document that others created or deleted.
    pub rollbacks: u64,
}

impl Client {
    /// An editor that has not been connected yet.
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
            asked: false,
            missing: false,
            anomalies: Anomalies::default(),
        }
    }

    /// Begins the document.
    ///
    /// # Errors
    /// When it exists already or nothing is known of it.
    pub fn create(&mut self, content: Content) -> Result<(), InvalidEdit> {
        self.revision.ok_or(InvalidEdit::Unknown)?;
        if self.content.is_some() {
            return Err(InvalidEdit::Exists);
        }
        self.content = Some(content.clone());
        self.pending.push_back(Change::Create(content));
        Ok(())
    }

    /// Edits the document. On an error all is as it was.
    ///
    /// # Errors
    /// When there is no document, or the op does not fit it.
    pub fn edit(&mut self, op: Op) -> Result<(), InvalidEdit> {
        self.revision.ok_or(InvalidEdit::Unknown)?;
        let content = self.content.as_mut().ok_or(InvalidEdit::Missing)?;
        content.apply(&op)?;
        match self.pending.back_mut() {
            Some(Change::Edit(last)) => match last.compose(&op) {
                Ok(both) => *last = both,
                // The two are sound one after the other: so they stay.
                Err(_) => self.pending.push_back(Change::Edit(op)),
            },
            Some(Change::Create(created)) => created.apply(&op)?,
            Some(Change::Delete | Change::Nothing) | None => {
                self.pending.push_back(Change::Edit(op))
            }
        }
        Ok(())
    }

    /// Ends the document.
    ///
    /// # Errors
    /// When there is none.
    pub fn delete(&mut self) -> Result<(), InvalidEdit> {
        self.revision.ok_or(InvalidEdit::Unknown)?;
        self.content.take().ok_or(InvalidEdit::Missing)?;
        self.pending.push_back(Change::Delete);
        Ok(())
    }

    /// A socket is there, and its handshake is done.
    pub fn connected(&mut self) {
        self.connection = ConnectionState::Up;
        self.missing = false;
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.is_resend |= !in_flight.needs_send;
            in_flight.needs_send = true;
        }
    }

    /// The socket is gone. Editing goes on.
    pub fn disconnected(&mut self) {
        self.connection = ConnectionState::Down;
    }

    /// Takes in what the server said.
    ///
    /// # Errors
    /// When a commit does not fit the content: the two halves no longer agree, and nothing will mend it.
    pub fn received(&mut self, message: ServerMessage) -> Result<(), InvalidEdit> {
        match message {
            ServerMessage::Snapshot(snapshot) => self.shown(snapshot),
            ServerMessage::Done => self.asked = false,
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

    /// The next thing to say. On a new socket the unanswered submit comes first, then the subscription.
    pub fn poll(&mut self) -> Option<ClientRequest> {
        if self.connection == ConnectionState::Down {
            return None;
        }
        if let Some(submit) = self.submit() {
            return Some(submit);
        }
        if self.connection == ConnectionState::Up {
            self.connection = ConnectionState::Subscribed;
            self.asked = true;
            return Some(ClientRequest::Subscribe {
                since: self.revision,
            });
        }
        if (self.missing || self.revision.is_none()) && !self.asked {
            self.asked = true;
            self.missing = false;
            return Some(ClientRequest::Fetch {
                since: self.revision,
            });
        }
        None
    }

    /// Who it is.
    #[must_use]
    pub fn id(&self) -> &ClientId {
        &self.id
    }

    /// The newest revision that is known.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// What the user sees, while there is a document.
    #[must_use]
    pub fn content(&self) -> Option<&Content> {
        self.content.as_ref()
    }

    /// What is with the server: its count, and the change as it applies now.
    #[must_use]
    pub fn in_flight(&self) -> Option<(u64, &Change)> {
        self.in_flight.as_ref().map(|it| (it.seq, &it.change))
    }

    /// Whether every local change has been acknowledged.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.in_flight.is_none() && self.pending.is_empty()
    }

    /// How many submits there have been: their counts are 1 to this.
    #[must_use]
    pub fn submits(&self) -> u64 {
        self.seq
    }

    /// Every ack so far: the count of the submit, and the revision that it led to.
    #[must_use]
    pub fn acknowledged(&self) -> &[(u64, Revision)] {
        &self.acknowledged
    }

    /// What should not have happened.
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

    /// A snapshot is taken only by who has nothing: over local changes it would be another document.
    fn shown(&mut self, snapshot: Snapshot) {
        self.asked = false;
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
            // What was caught up with may come live as well.
            return Ok(());
        }
        if entry.revision != revision.next() {
            self.gap();
            return Ok(());
        }
        let own = |it: &InFlight| it.seq == entry.id.seq && self.id == entry.id.client;
        if self.in_flight.as_ref().is_some_and(own) {
            self.settle(entry.id.seq, entry.revision);
            return Ok(());
        }
        self.revision = Some(entry.revision);
        self.absorb(&entry.change)
    }

    fn acked(&mut self, seq: u64, acked: Revision) {
        let Some(revision) = self.revision else {
            return;
        };
        if self.in_flight.as_ref().is_none_or(|it| it.seq != seq) {
            return;
        }
        if acked == revision.next() {
            self.settle(seq, acked);
        } else {
            // The op itself will come among the commits that are missing.
            self.gap();
        }
    }

    fn settle(&mut self, seq: u64, revision: Revision) {
        self.in_flight = None;
        self.revision = Some(revision);
        self.acknowledged.push((seq, revision));
    }

    fn gap(&mut self) {
        self.missing = true;
        self.anomalies.gaps += 1;
    }

    /// Takes in what another did: past each local change in turn, never past their composition.
    fn absorb(&mut self, change: &Change) -> Result<(), InvalidEdit> {
        let mut theirs = Cow::Borrowed(change);
        let in_flight = self.in_flight.iter_mut().map(|it| &mut it.change);
        for ours in in_flight.chain(&mut self.pending) {
            match pass(ours, &theirs)? {
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

    /// Throws the local changes away and asks for the document anew, as the JavaScript clients do.
    fn roll_back(&mut self) {
        self.in_flight = None;
        self.pending.clear();
        self.revision = None;
        self.content = None;
        self.anomalies.rollbacks += 1;
    }
}

/// What became of another's change on its way past a local one.
enum RebaseOutcome {
    /// It is this now.
    Theirs(Change),
    /// It is what it was.
    Same,
    /// Both cannot be.
    Conflict,
}

/// Takes another's commit past a local change, and the local change past the commit.
fn pass(ours: &mut Change, theirs: &Change) -> Result<RebaseOutcome, OtError> {
    match (&*ours, theirs) {
        (_, Change::Nothing) | (Change::Nothing, _) => Ok(RebaseOutcome::Same),
        (Change::Edit(own), Change::Edit(other)) => {
            let past = other.transform(own, Side::Right)?;
            *ours = Change::Edit(own.transform(other, Side::Left)?);
            Ok(RebaseOutcome::Theirs(Change::Edit(past)))
        }
        // The user has deleted it: what others do to it until then is not seen.
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
mod tests {
    use super::*;
    use crate::id::UserId;
    use crate::log::{Epoch, SubmitId};
    use crate::ot::Kind;

    /// A server of one document that does nothing but its duty.
    struct Server {
        log: Vec<Arc<Entry>>,
        head: Snapshot,
    }

    fn text(data: &str) -> Content {
        Content::create(
            Kind::TextUnicode,
            Some(&serde_json::to_string(data).unwrap()),
        )
        .unwrap()
    }

    fn op(json: &str) -> Op {
        Op::parse(Kind::TextUnicode, json).unwrap()
    }

    fn client(name: &str) -> Client {
        let mut client = Client::new(ClientId::parse(name).unwrap());
        client.connected();
        client
    }

    fn seen(client: &Client) -> String {
        client.content().map_or("-".to_owned(), Content::to_text)
    }

    impl Server {
        fn of(data: &str) -> Self {
            let mut server = Self {
                log: Vec::new(),
                head: Snapshot::default(),
            };
            let maker = ClientId::parse("maker").unwrap();
            server
                .submit(&maker, 1, Revision::ZERO, Change::Create(text(data)))
                .unwrap();
            server
        }

        /// Commits, or finds the first copy.
        fn submit(
            &mut self,
            by: &ClientId,
            seq: u64,
            base: Revision,
            mut change: Change,
        ) -> Result<(), ()> {
            for entry in &self.log[usize::try_from(base.0).unwrap()..] {
                if entry.id.client == *by && entry.id.seq == seq {
                    return Ok(());
                }
                change = match (change, &entry.change) {
                    (Change::Edit(op), Change::Edit(other)) => {
                        Change::Edit(op.transform(other, Side::Left).unwrap())
                    }
                    (Change::Delete, _) => Change::Delete,
                    _ => return Err(()),
                };
            }
            let id = SubmitId {
                author: UserId::anyone(),
                client: by.clone(),
                seq,
            };
            let revision = self.head.revision.next();
            let entry = Entry {
                revision,
                epoch: Epoch(1),
                id,
                at_ms: 0,
                change,
            };
            self.head.fold(&entry).map_err(drop)?;
            self.log.push(Arc::new(entry));
            Ok(())
        }

        /// Hears all that a client has to say; answers what is no subscription.
        fn hear(&mut self, client: &mut Client) {
            while let Some(request) = client.poll() {
                match request {
                    ClientRequest::Subscribe { since: None }
                    | ClientRequest::Fetch { since: None } => {
                        client
                            .received(ServerMessage::Snapshot(self.head.clone()))
                            .unwrap();
                    }
                    ClientRequest::Subscribe { .. } | ClientRequest::Fetch { .. } => {
                        self.tell(client)
                    }
                    ClientRequest::Submit {
                        seq, base, change, ..
                    } => {
                        let id = client.id().clone();
                        if self.submit(&id, seq, base, change).is_err() {
                            client.received(ServerMessage::Rejected { seq }).unwrap();
                        }
                    }
                }
            }
        }

        fn tell(&self, client: &mut Client) {
            let since = usize::try_from(client.revision().unwrap_or_default().0).unwrap();
            for entry in &self.log[since..] {
                client
                    .received(ServerMessage::Commit(Arc::clone(entry)))
                    .unwrap();
            }
            client.received(ServerMessage::Done).unwrap();
        }
    }

    #[test]
    fn later_insert_at_one_place_goes_first_everywhere() {
        let mut server = Server::of("ab");
        let (mut ann, mut bob) = (client("ann"), client("bob"));
        server.hear(&mut ann);
        server.hear(&mut bob);
        ann.edit(op(r#"[1,"X"]"#)).unwrap();
        bob.edit(op(r#"[1,"Y"]"#)).unwrap();
        server.hear(&mut ann);
        server.hear(&mut bob);
        server.tell(&mut ann);
        server.tell(&mut bob);
        assert_eq!((seen(&ann).as_str(), seen(&bob).as_str()), ("aYXb", "aYXb"));
        assert_eq!(server.head.content, Some(text("aYXb")));
        assert_eq!(bob.acknowledged(), [(1, Revision(3))]);
        assert!(ann.is_settled() && bob.is_settled());
    }

    #[test]
    fn one_is_in_flight_and_the_rest_is_composed() {
        let mut server = Server::of("");
        let mut ann = client("ann");
        server.hear(&mut ann);
        ann.edit(op(r#"["a"]"#)).unwrap();
        assert!(matches!(
            ann.poll(),
            Some(ClientRequest::Submit { seq: 1, .. })
        ));
        ann.edit(op(r#"[1,"b"]"#)).unwrap();
        ann.edit(op(r#"[2,"c"]"#)).unwrap();
        assert_eq!(ann.poll(), None);
        ann.received(ServerMessage::Acked {
            seq: 1,
            revision: Revision(2),
        })
        .unwrap();
        let (seq, base, change) = (2, Revision(2), Change::Edit(op(r#"[1,"bc"]"#)));
        assert_eq!(
            ann.poll(),
            Some(ClientRequest::Submit {
                seq,
                base,
                change,
                is_resend: false
            })
        );
    }

    #[test]
    fn unanswered_submit_is_said_again_and_committed_once() {
        let mut server = Server::of("ab");
        let (mut ann, mut bob) = (client("ann"), client("bob"));
        server.hear(&mut ann);
        server.hear(&mut bob);
        bob.edit(op(r#"["Y"]"#)).unwrap();
        server.hear(&mut bob);
        ann.edit(op(r#"[1,"X"]"#)).unwrap();
        server.hear(&mut ann); // the ack is lost
        ann.disconnected();
        ann.edit(op(r#"["Z"]"#)).unwrap();
        assert_eq!(ann.poll(), None);
        ann.connected();
        let again = ann.poll();
        assert!(matches!(
            again,
            Some(ClientRequest::Submit {
                seq: 1,
                base: Revision(1),
                is_resend: true,
                ..
            })
        ));
        server.hear(&mut ann);
        server.hear(&mut ann);
        server.tell(&mut ann);
        server.tell(&mut bob);
        assert_eq!(
            (seen(&ann), seen(&ann)),
            (seen(&bob), server.head.content.as_ref().unwrap().to_text())
        );
        assert_eq!(ann.acknowledged(), [(1, Revision(3)), (2, Revision(4))]);
    }

    #[test]
    fn gap_is_fetched_once_and_counted() {
        let mut server = Server::of("");
        let (mut ann, mut bob) = (client("ann"), client("bob"));
        server.hear(&mut ann);
        server.hear(&mut bob);
        for text in [r#"["a"]"#, r#"["b"]"#, r#"["c"]"#] {
            bob.edit(op(text)).unwrap();
            server.hear(&mut bob);
            server.tell(&mut bob);
        }
        ann.received(ServerMessage::Commit(Arc::clone(&server.log[2])))
            .unwrap();
        ann.received(ServerMessage::Commit(Arc::clone(&server.log[3])))
            .unwrap();
        assert_eq!(
            ann.poll(),
            Some(ClientRequest::Fetch {
                since: Some(Revision(1))
            })
        );
        assert_eq!(ann.poll(), None);
        server.tell(&mut ann);
        assert_eq!((seen(&ann).as_str(), ann.poll()), ("cba", None));
        assert_eq!(
            ann.anomalies(),
            Anomalies {
                gaps: 2,
                rollbacks: 0
            }
        );
    }

    #[test]
    fn deleted_under_local_changes_is_rolled_back() {
        let mut server = Server::of("ab");
        let (mut ann, mut bob) = (client("ann"), client("bob"));
        server.hear(&mut ann);
        server.hear(&mut bob);
        bob.delete().unwrap();
        server.hear(&mut bob);
        ann.edit(op(r#"["X"]"#)).unwrap();
        server.hear(&mut ann); // refused
        assert_eq!((ann.content(), ann.revision()), (None, Some(Revision(2))));
        assert_eq!(ann.anomalies().rollbacks, 1);
        ann.create(text("new")).unwrap();
        ann.edit(op(r#"["a "]"#)).unwrap();
        server.hear(&mut ann);
        server.tell(&mut ann);
        server.tell(&mut bob);
        assert_eq!(
            (seen(&ann), seen(&bob)),
            ("a new".to_owned(), "a new".to_owned())
        );
        assert_eq!(
            ann.edit(op(r#"[9,"x"]"#)),
            Err(InvalidEdit::Op(OtError::NotApplied(
                "The op is too long for this document"
            )))
        );
    }
}
