//! The inputs of a document's state machine: requests of sessions, messages of other nodes, answers of the store, timers.

use std::sync::Arc;
use std::time::Duration;

use super::encoded_snapshot::EncodedSnapshot;
use super::peer_message::PeerMessage;
use super::presence::Presence;
use super::rejection::Rejection;
use super::submit::Submit;
use crate::id::{ClientId, NodeId, SessionId};
use crate::log::{Entry, Epoch, Fence, Revision, Snapshot, Tail};
use crate::store::{AppendError, StoreError};

/// The time at which an event is handled. The caller reads the clocks: the state machines have none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Now {
    /// A monotonic clock, counted from any moment before the document was opened. Timeouts are measured with it.
    pub clock: Duration,
    /// Milliseconds since 1970 by the store's clock, or by this computer's clock if the store has none. May go back.
    pub wall_ms: u64,
}

/// Identifies a session's request until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A request of a session on this node.
#[derive(Debug)]
pub enum SessionRequest {
    /// The document, or its commits since a revision.
    Fetch {
        /// The revision that the client has; `None` if it has nothing of the document.
        since: Option<Revision>,
    },
    /// As a fetch, and all later commits.
    Subscribe {
        /// The revision that the client has; `None` if it has nothing of the document.
        since: Option<Revision>,
    },
    /// A fetch or a subscription of a client that has nothing of the document but was told of a commit. The answer is not
    /// older than `min`; a `min` beyond the log is rejected.
    ReadFrom {
        /// The lowest revision that answers the request.
        min: Revision,
        /// Whether the later commits are wanted too.
        mode: ReadMode,
    },
    /// Ends the subscription.
    Unsubscribe,
    /// A change to be committed. The commit is the answer: it is delivered to the session, subscribed or not.
    Submit(Submit),
    /// A presence to be published after its position was transformed to the newest known revision.
    PublishPresence {
        /// The client that it belongs to.
        client: ClientId,
        /// The presence, at the revision that the client had.
        presence: Presence,
    },
}

/// Whether a read ends with its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadMode {
    /// The answer is all.
    Fetch,
    /// All later commits follow the answer.
    Subscribe,
}

/// The reader of a page of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageRequester {
    /// The forwarder, which fills a gap between the commits that it delivered and the newest known revision.
    Gap,
    /// The forwarder, which catches up a client of this session.
    CatchUp(SessionId),
    /// The sequencer of this epoch, which rebases a submit with an old base.
    Sequencer(Epoch),
}

/// Something that happened to the document.
#[derive(Debug)]
pub enum Event {
    /// A session of this node sent a request.
    Request {
        /// The session.
        session: SessionId,
        /// Identifies the request in its answer.
        ticket: Ticket,
        /// The request.
        request: SessionRequest,
    },
    /// A session of this node ended.
    SessionClosed(SessionId),
    /// A session of this node lost the permission to change the document.
    WriteAccessRevoked(SessionId),
    /// Another node sent a message about the document.
    PeerMessage {
        /// The sender.
        from: NodeId,
        /// The message.
        message: PeerMessage,
    },
    /// The hash ring names this owner, possibly the same as before.
    OwnerChanged(NodeId),
    /// The store's feed of changes has this head, which is newer than what this node was told.
    HeadAdvanced(Revision),
    /// The answer to [`Action::LoadSnapshot`](super::Action::LoadSnapshot) or
    /// [`Action::EncodeSnapshot`](super::Action::EncodeSnapshot): a snapshot, and the entries around it that were loaded with
    /// it.
    SnapshotEncoded(Result<(Arc<EncodedSnapshot>, Vec<Arc<Entry>>), StoreError>),
    /// Instead of [`Event::SnapshotEncoded`] or [`Event::Claimed`]: only a part of the log can be folded, or the document is in
    /// quarantine.
    ReadOnly(ReadOnly),
    /// The store does not answer. New readers are served from memory until [`Event::StoreAvailable`].
    StoreUnavailable,
    /// The store answers again.
    StoreAvailable,
    /// The answer to [`Action::RefoldSnapshot`](super::Action::RefoldSnapshot): the snapshot with the entries applied and a
    /// notice that it may be old; `None` if the entries do not fit it.
    SnapshotRefolded(Option<Arc<EncodedSnapshot>>),
    /// The answer to [`Action::LoadPage`](super::Action::LoadPage).
    PageLoaded {
        /// The reader that asked.
        requester: PageRequester,
        /// The revision that was asked from.
        since: Revision,
        /// The entries after it, as many as a page holds.
        page: Result<Vec<Arc<Entry>>, StoreError>,
    },
    /// The answer to [`Action::Claim`](super::Action::Claim): the fence to append under, the document at its head, and the
    /// newest entries.
    Claimed(Result<(Fence, Snapshot, Tail), StoreError>),
    /// The answer to [`Action::Append`](super::Action::Append).
    Appended {
        /// The fence of the append.
        fence: Fence,
        /// The inner error: the append was rejected. The outer error: the outcome of the append is unknown.
        result: Result<Result<(), AppendError>, StoreError>,
    },
    /// The answer to [`Action::RequestSlice`](super::Action::RequestSlice): the sequencer of this epoch may do a slice of work.
    SliceGranted(Epoch),
    /// The store reports that another node has claimed the document since this epoch.
    Superseded(Epoch),
    /// Messages to other nodes pass again or take another transport, or the store answers again. Everything that waits for an
    /// answer is sent again at once.
    Reconnected,
    /// The time of [`Document::timeout`](super::Document::timeout) has passed.
    Timeout,
}

/// A document of which only a part of the log can be folded, or that is in quarantine. What can be folded is served, and all
/// changes are rejected.
#[derive(Debug, Clone)]
pub struct ReadOnly {
    /// The newest readable state; `None` if there is none.
    pub readable: Option<Arc<EncodedSnapshot>>,
    /// The number of entries in the log.
    pub head: Revision,
    /// The answer to all changes, and to reads that `readable` cannot serve.
    pub rejection: Rejection,
    /// The cause.
    pub cause: ReadOnlyCause,
}

/// The reason why a document is read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOnlyCause {
    /// The document grows beyond [`CONTENT_BYTES_MAX`](crate::ot::CONTENT_BYTES_MAX).
    Oversized,
    /// An entry is missing or damaged.
    Damaged {
        /// The first unreadable entry; `None` if the database cannot tell.
        entry: Option<Revision>,
    },
    /// The whole log can be folded, but the document is in quarantine.
    Quarantined,
}

impl ReadOnlyCause {
    /// Returns true if an operator may end the state without a change of the log, so that the document is to be loaded again
    /// after a while.
    #[must_use]
    pub fn may_end(self) -> bool {
        match self {
            Self::Oversized => false,
            Self::Damaged { .. } | Self::Quarantined => true,
        }
    }

    /// The answer to requests that cannot be served while the document is shown as of `readable`.
    #[must_use]
    pub fn rejection(self, readable: Option<Revision>) -> Rejection {
        match self {
            Self::Oversized => Rejection::oversized(readable.unwrap_or_default()),
            Self::Damaged { entry } => Rejection::damaged(entry, readable),
            Self::Quarantined => Rejection::quarantined(),
        }
    }
}
