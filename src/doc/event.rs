//! All that can happen to a document, and all that it can want done.

use std::sync::Arc;
use std::time::Duration;

use super::peer_message::{Link, Submit};
use crate::id::{ClientId, NodeId, SessionId};
use crate::log::{Entry, Epoch, Fence, Revision, Snapshot, Tail};
use crate::protocol::{Presence, Refusal, Shown};
use crate::store::{AppendError, StoreError};

/// The time, as the shell tells it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Now {
    /// Since some moment before the document was opened; never goes back. What waits is measured by it.
    pub clock: Duration,
    /// Milliseconds since 1970 by the store's clock, or by the machine's if the store has none; may go back.
    pub wall_ms: u64,
}

/// Names a session's request until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What a session of this node asks.
#[derive(Debug)]
pub enum Ask {
    /// The document, or its commits since a revision.
    Fetch {
        /// What the client has, if it has anything.
        since: Option<Revision>,
    },
    /// As a fetch, and the commits from then on.
    Subscribe {
        /// What the client has, if it has anything.
        since: Option<Revision>,
    },
    /// As a fetch, or if `live` a subscription, of a client that has nothing. What is shown is not older than `min`, which the
    /// client knows to be committed; a `min` beyond the log is refused.
    ReadFrom {
        /// The least revision that is shown.
        min: Revision,
        /// Whether the commits from then on are wanted.
        live: bool,
    },
    /// No more commits.
    Unsubscribe,
    /// A change to be committed. It is answered by its commit, which is delivered to its session in any case.
    Submit(Submit),
    /// A position in the document, to be published when it has been brought up to the present revision.
    Publish {
        /// Whose it is.
        client: ClientId,
        /// The position.
        presence: Presence,
    },
}

/// Who asked the store for a page of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// This node's forwarder, for what is missing between what it delivered and what it was told of.
    Gap,
    /// This node's forwarder, for a client that is behind.
    Walker(SessionId),
    /// The sequencer of this epoch, for a submit that was made long ago.
    Sequencer(Epoch),
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// A session of this node asks.
    Asked {
        /// The session.
        session: SessionId,
        /// Under which it is answered.
        ticket: Ticket,
        /// What it asks.
        ask: Ask,
    },
    /// A session of this node ended.
    Left(SessionId),
    /// A session of this node may not change the document any more.
    Muted(SessionId),
    /// Another node says something.
    Linked {
        /// The node.
        from: NodeId,
        /// What it says.
        link: Link,
    },
    /// The ring names this owner.
    Ring(NodeId),
    /// The store says that the log has grown so far, and this node has not been told.
    Newer(Revision),
    /// The answer to [`Action::Show`] or [`Action::Encode`]: a snapshot, and the entries around it that came with it.
    Shown(Result<(Arc<Shown>, Vec<Arc<Entry>>), StoreError>),
    /// Instead of [`Event::Shown`] or [`Event::Claimed`]: only a part of the log can be folded.
    ReadOnly(ReadOnly),
    /// The store is away, or is back: while it is away readers are served from memory.
    StoreAway(bool),
    /// The answer to [`Action::Refold`]: the snapshot with the entries, with a notice that it may be old; `None` if they do
    /// not fit.
    Refolded(Option<Arc<Shown>>),
    /// The answer to [`Action::Page`].
    Paged {
        /// Who asked.
        asker: Asker,
        /// The revision asked from.
        since: Revision,
        /// The entries after it, as many as fit a page.
        page: Result<Vec<Arc<Entry>>, StoreError>,
    },
    /// The answer to [`Action::Claim`]: the right to append, the document at its head, and the newest entries.
    Claimed(Result<(Fence, Snapshot, Tail), StoreError>),
    /// The answer to [`Action::Append`].
    Appended {
        /// The right under which it was asked.
        fence: Fence,
        /// What came of it; the outer error: nobody knows.
        result: Result<Result<(), AppendError>, StoreError>,
    },
    /// The answer to [`Action::NextSlice`]: the sequencer of this epoch may work on.
    NextSlice(Epoch),
    /// The store says that this epoch is over.
    Deposed(Epoch),
    /// Messages pass again or go another way, or the store answers again: what waits for an answer is asked again now.
    Reopened,
    /// [`Document::timeout`](super::Document::timeout) has passed.
    Timeout,
}

/// A document of whose log only a part can be folded: that part is shown, and no change is accepted.
#[derive(Debug, Clone)]
pub struct ReadOnly {
    /// The newest state that can be shown; `None` if there is none.
    pub readable: Option<Arc<Shown>>,
    /// How many entries the log held.
    pub head: Revision,
    /// The answer to every change, and to every request that cannot be served from `readable`.
    pub refusal: Refusal,
    /// The cause.
    pub cause: ReadOnlyCause,
}

/// Why only a part of a document's log can be folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOnlyCause {
    /// The document becomes larger than [`CONTENT_BYTES_MAX`](crate::ot::CONTENT_BYTES_MAX).
    Oversized,
    /// An entry is missing or damaged.
    Damaged {
        /// The first that cannot be read; `None` if the database cannot tell.
        entry: Option<Revision>,
    },
}

impl ReadOnlyCause {
    /// The answer to requests that cannot be served while the document is shown as it was at `readable`.
    #[must_use]
    pub fn refusal(self, readable: Option<Revision>) -> Refusal {
        match self {
            Self::Oversized => Refusal::oversized(readable.unwrap_or_default()),
            Self::Damaged { entry } => Refusal::damaged(entry, readable),
        }
    }
}

/// Something that the document wants done. Nothing is answered in place: answers are events.
#[derive(Debug)]
pub enum Action {
    /// Answer a session's request.
    Reply {
        /// The session.
        session: SessionId,
        /// The request.
        ticket: Ticket,
        /// The answer.
        answer: Answer,
    },
    /// Send commits to sessions, in this order, behind all that was sent to them before.
    Deliver {
        /// The sessions.
        to: Arc<Vec<SessionId>>,
        /// The commits, without a gap.
        entries: Vec<Arc<Entry>>,
    },
    /// Publish a position.
    Publish {
        /// Whose request it is.
        session: SessionId,
        /// The request.
        ticket: Ticket,
        /// Whose position it is.
        client: ClientId,
        /// The position, at the present revision as far as it could be brought there.
        presence: Presence,
    },
    /// Say something to another node.
    Send {
        /// The node.
        to: NodeId,
        /// What to say.
        link: Link,
    },
    /// Load the document's head from the store and encode it.
    Show,
    /// Fold entries into an encoded snapshot, and add a notice that the store is away.
    Refold {
        /// The snapshot.
        shown: Arc<Shown>,
        /// The entries after it.
        entries: Vec<Arc<Entry>>,
    },
    /// Encode this snapshot.
    Encode(Snapshot),
    /// Load a page of the log.
    Page {
        /// Who asks.
        asker: Asker,
        /// The revision to start from.
        since: Revision,
    },
    /// Let the sequencer of this epoch go on with work that it has divided, when other documents have had their turn.
    NextSlice(Epoch),
    /// Claim the document.
    Claim,
    /// Append to the log.
    Append {
        /// The right to.
        fence: Fence,
        /// The entries, without a gap.
        entries: Vec<Arc<Entry>>,
    },
    /// Close the sockets of the document's sessions: what they are to be sent next cannot be read.
    Close,
    /// Keep a snapshot. Not answered: a lost snapshot costs the next opening some time.
    Save {
        /// The right to.
        fence: Fence,
        /// The snapshot.
        snapshot: Snapshot,
    },
}

/// What a session is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The document. Commits after it follow.
    Shown(Arc<Shown>),
    /// All that was asked for has been sent.
    Done,
    /// The submit is committed, and its commit has been sent: nothing is to be added.
    Committed,
    /// No.
    Refused(Refusal),
}
