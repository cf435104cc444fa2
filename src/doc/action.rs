//! The outputs of a document's state machine. Nothing is answered in place: answers come back as events.

use std::sync::Arc;

use super::encoded_snapshot::EncodedSnapshot;
use super::event::{PageRequester, Ticket};
use super::peer_message::PeerMessage;
use super::presence::Presence;
use super::rejection::Rejection;
use crate::id::{ClientId, NodeId, SessionId};
use crate::log::{Entry, Epoch, Fence, Revision, Snapshot};

/// Something for the caller of the state machine to do.
#[derive(Debug)]
pub enum Action {
    /// SessionReply a session's request.
    Reply {
        /// The session.
        session: SessionId,
        /// The request.
        ticket: Ticket,
        /// The answer.
        reply: SessionReply,
    },
    /// Send commits to sessions, in this order, after everything that was sent to them before.
    Deliver {
        /// The sessions.
        to: Arc<Vec<SessionId>>,
        /// The commits, without a gap.
        entries: Vec<Arc<Entry>>,
    },
    /// Publish a presence, which answers the request.
    PublishPresence {
        /// The session that sent it.
        session: SessionId,
        /// The request.
        ticket: Ticket,
        /// The client that it belongs to.
        client: ClientId,
        /// The presence, transformed to the newest known revision as far as the tail reaches.
        presence: Presence,
    },
    /// Send a message to another node.
    Send {
        /// The receiver.
        to: NodeId,
        /// The message.
        message: PeerMessage,
    },
    /// Load the document's head from the store and encode it. Answered by
    /// [`Event::SnapshotEncoded`](super::Event::SnapshotEncoded).
    LoadSnapshot,
    /// Apply entries to an encoded snapshot, and add a notice that the store is unavailable. Answered by
    /// [`Event::SnapshotRefolded`](super::Event::SnapshotRefolded).
    RefoldSnapshot {
        /// The snapshot.
        snapshot: Arc<EncodedSnapshot>,
        /// The entries after it.
        entries: Vec<Arc<Entry>>,
    },
    /// Encode this snapshot. Answered by [`Event::SnapshotEncoded`](super::Event::SnapshotEncoded).
    EncodeSnapshot(Snapshot),
    /// Load a page of the log. Answered by [`Event::PageLoaded`](super::Event::PageLoaded).
    LoadPage {
        /// The reader.
        requester: PageRequester,
        /// The revision before the first entry of the page.
        since: Revision,
    },
    /// Let the sequencer of this epoch do a slice of work after other documents had their turn. Answered by
    /// [`Event::SliceGranted`](super::Event::SliceGranted).
    RequestSlice(Epoch),
    /// Claim the document. Answered by [`Event::Claimed`](super::Event::Claimed).
    Claim,
    /// Append to the log. Answered by [`Event::Appended`](super::Event::Appended).
    Append {
        /// The fence to append under.
        fence: Fence,
        /// The entries, without a gap.
        entries: Vec<Arc<Entry>>,
    },
    /// Close the sockets of all sessions of the document: the commits that they need next cannot be read.
    CloseSessions,
    /// Report that the store refuses this entry because of its values. Its submit is rejected. Not answered.
    ReportRefused(Arc<Entry>),
    /// Save a snapshot. Not answered: without the snapshot, the next load reads more of the log.
    SaveSnapshot {
        /// The fence to save under.
        fence: Fence,
        /// The snapshot.
        snapshot: Snapshot,
    },
}

/// The answer to a session's request.
#[derive(Debug, Clone)]
pub enum SessionReply {
    /// The document. The commits after it follow.
    Snapshot(Arc<EncodedSnapshot>),
    /// Everything that was asked for has been delivered.
    Done,
    /// The submit is committed as this entry, and the entry has been delivered: the client is sent nothing more.
    Committed(Arc<Entry>),
    /// The request was rejected.
    Rejected(Rejection),
}
