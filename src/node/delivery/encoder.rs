//! The frames that sockets are sent, as the node asks for them. The gateway knows the protocol and implements the traits.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;

use crate::doc::{EncodedSnapshot, Presence, Rejection};
use crate::id::{ClientId, DocId, Name, UserId};
use crate::log::{Entry, Snapshot};
use crate::protocol::{CloseReason, Refusal};

/// Encodes what is sent to sockets without being asked for. All methods return whole frames, which are sent to any number of
/// sockets: a delivery is encoded once.
pub trait FrameEncoder: Debug + Send + Sync {
    /// Commits of a document, in order. For the client `reader`, its own commits name it by the id that it knows.
    fn commits(&self, doc: &DocId, entries: &[Arc<Entry>], reader: Option<&CommitAuthor>) -> Bytes;

    /// A client's presence value.
    fn presence(&self, client: &ClientId, presence: &Presence) -> Bytes;

    /// The request to publish the values of a presence channel again.
    fn presence_request(&self, channel: &Name) -> Bytes;

    /// The close frame with the code and text of a reason.
    fn close(&self, reason: CloseReason) -> Bytes;

    /// A snapshot in the form in which replies hold it.
    fn snapshot(&self, snapshot: &Snapshot) -> EncodedSnapshot;

    /// The same with a notice why it may not be the newest state of the document.
    fn snapshot_with_notice(&self, snapshot: &Snapshot, notice: &SnapshotNotice)
    -> EncodedSnapshot;
}

/// Encodes the reply to one request: it has what the reply repeats of the request.
pub trait ReplyEncoder: Debug + Send + Sync {
    /// A snapshot, in pieces that share its memory.
    fn snapshot(&self, snapshot: &EncodedSnapshot) -> Vec<Bytes>;

    /// Success without further content.
    fn done(&self) -> Bytes;

    /// The rejection of the request.
    fn rejection(&self, rejection: Rejection) -> Bytes;

    /// The documents of a bulk request, by name: those that are read, with a snapshot unless their commits were sent instead,
    /// and those that are rejected. In pieces that share the snapshots' memory.
    fn bulk(
        &self,
        read: &BTreeMap<Name, Option<Arc<EncodedSnapshot>>>,
        rejected: &BTreeMap<Name, Refusal>,
    ) -> Vec<Bytes>;
}

/// Why a snapshot may not be the newest state of the document.
#[derive(Debug, Clone)]
pub enum SnapshotNotice {
    /// The document is read-only, and rejects changes with this rejection.
    ReadOnly(Rejection),
    /// The store is away, and this is the newest state in memory.
    StoreAway,
}

/// A client that submits, and its user. The log may have its id with the mark of another server's ids, which the client does
/// not know: also an id of this server, if the client was at another one when its op was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitAuthor {
    /// The user.
    pub user: UserId,
    /// The id of its submits.
    pub client: ClientId,
}

impl CommitAuthor {
    /// Returns true if the entry is a commit of this client that has the marked id.
    #[must_use]
    pub fn is_marked_in(&self, entry: &Entry) -> bool {
        entry.id.client.is_foreign()
            && entry.id.author == self.user
            && entry.id.client == self.client
    }
}
