//! The [`Store`] trait: documents and their logs, the list of documents, and the membership of nodes.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::{AppendError, FaultStore, History, ListPage, ListQuery, ListedDocument, StoreError};
use crate::id::{DocId, NodeId};
use crate::log::{Entry, Epoch, Fence, Revision, Snapshot};
use crate::version::NodeVersion;

/// Stores documents and what the nodes of a cluster share.
///
/// All methods may be called concurrently from any thread. If a call fails, its outcome is unknown: a write may or may
/// not have happened. The store does not retry; the caller decides whether to.
pub trait Store: FaultStore {
    /// Loads a document, or the part of it that `range` names. A document that was never claimed is empty.
    ///
    /// A damaged snapshot is skipped: an older one and more of the log give the same document.
    ///
    /// # Errors
    /// [`StoreErrorKind::Damaged`] if a row that is needed is missing or fails its checks; otherwise the store did not answer.
    fn load<'a>(
        &'a self,
        doc: &'a DocId,
        range: LoadRange,
    ) -> BoxFuture<'a, Result<Loaded, StoreError>>;

    /// Claims a document: grants the right to append to it, under a new fence with the next epoch. From then on appends
    /// under older fences are rejected, so the returned head is final for them. A document that does not exist in the
    /// store yet is added at revision zero.
    ///
    /// # Errors
    /// [`StoreErrorKind::Damaged`] if the fence is missing or has a smaller epoch than the last entry, or if the document was
    /// lost since this process used it: nothing was changed. Otherwise the store did not answer; the document may or may not
    /// be claimed.
    fn claim<'a>(&'a self, doc: &'a DocId, me: NodeId) -> BoxFuture<'a, Result<Lease, StoreError>>;

    /// Appends entries to many documents in one durable transaction. Each batch is appended completely, or not at all
    /// if its fence is void or its first entry is not the next one of the log; the other batches are not affected.
    ///
    /// Returns the result of each batch, in their order.
    ///
    /// # Errors
    /// If the outcome of all batches is unknown.
    fn append(
        &self,
        batches: Vec<Batch>,
    ) -> BoxFuture<'_, Result<Vec<Result<(), AppendError>>, StoreError>>;

    /// Saves a snapshot, unless the fence is void. The two newest readable snapshots are kept; older ones may be
    /// removed.
    ///
    /// # Errors
    /// If the store does not answer.
    fn save_snapshot<'a>(
        &'a self,
        doc: &'a DocId,
        fence: Fence,
        snapshot: Snapshot,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Records that a node lives, and returns the other live nodes. The cost does not depend on the number of
    /// documents.
    ///
    /// # Errors
    /// If the store does not answer.
    fn heartbeat<'a>(
        &'a self,
        beat: &'a Heartbeat,
    ) -> BoxFuture<'a, Result<HeartbeatReply, StoreError>>;

    /// Records how many sockets a node has. Returns the number of sockets of each other live node that takes part; none
    /// in a store that serves one node.
    ///
    /// # Errors
    /// If the store does not answer.
    /// When the store does not answer.
    fn share_sockets(
        &self,
        _me: NodeId,
        _sockets: u64,
    ) -> BoxFuture<'_, Result<Vec<u64>, StoreError>> {
        ready(Ok(Vec::new())).boxed()
    }

    /// Sets the gauges of the store's metrics to its current state. Does not wait.
    fn sample_metrics(&self) {}

    /// The name of a node; `None` if the store has no such node.
    ///
    /// # Errors
    /// If the store does not answer.
    fn node_name(&self, _id: NodeId) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        ready(Ok(None)).boxed()
    }

    /// Returns the changes of all documents since a cursor that an earlier call returned. The cost depends on the
    /// number of changes and not on the number of open documents. Without a cursor it returns no changes and a cursor
    /// of the present.
    ///
    /// A change is returned once it is durable, also if its transaction ended long after later ones.
    ///
    /// # Errors
    /// If the store does not answer. The same cursor can be used again.
    fn changes<'a>(
        &'a self,
        since: Option<&'a ChangeCursor>,
    ) -> BoxFuture<'a, Result<Changes, StoreError>>;

    /// Compares the documents that a node has open with the store. The cost depends on the number of open documents, so
    /// this is used only after [`Continuity::Incomplete`] and [`Continuity::OtherServer`].
    ///
    /// # Errors
    /// If the store does not answer.
    fn compare_open<'a>(
        &'a self,
        open: &'a OpenDocuments,
    ) -> BoxFuture<'a, Result<DocumentChanges, StoreError>>;

    /// Returns a page of the documents of a collection that exist, newest edit first. The number of rows that it reads
    /// is bounded, so a page of a search may be short or empty although there is more: see [`ListPage::next`].
    ///
    /// # Errors
    /// If the store does not answer within the time limit of lists.
    fn list<'a>(&'a self, query: ListQuery) -> BoxFuture<'a, Result<ListPage, StoreError>>;

    /// The list's entry of one document; `None` if the document does not exist.
    ///
    /// # Errors
    /// If the store does not answer.
    fn describe<'a>(
        &'a self,
        doc: &'a DocId,
    ) -> BoxFuture<'a, Result<Option<ListedDocument>, StoreError>>;

    /// Sets the title of a document. Returns false if the document does not exist, or if `was` is given and the title is
    /// neither `was` nor `title`: a copy of a request that has succeeded succeeds again.
    ///
    /// # Errors
    /// If the store does not answer.
    fn rename<'a>(
        &'a self,
        doc: &'a DocId,
        title: &'a str,
        was: Option<&'a str>,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Checks whether an append would succeed now, by a write that has no effect. If the store has written a short time
    /// ago, that proves it.
    ///
    /// # Errors
    /// If an append would fail or wait: the disk is full, the database is read-only, a connection is missing.
    fn check_writes(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The history that the store has now.
    ///
    /// # Errors
    /// If the store does not answer.
    fn history(&self) -> BoxFuture<'_, Result<History, StoreError>>;

    /// Replaces the history `known` by `next`. Returns the history that the store has then: `next`, or the one of
    /// another node that was first. If several nodes detect at once that the store went back in time, one of them
    /// renews its history. With `next` equal to `known` it records that nothing was lost at the place where the store
    /// is now, after a promotion.
    ///
    /// # Errors
    /// If the store does not answer; the history may or may not have been replaced.
    fn renew_history(
        &self,
        known: History,
        next: History,
    ) -> BoxFuture<'_, Result<History, StoreError>>;

    /// The fingerprint ([`Entry::fingerprint`]) of the entry at each of these revisions, in the same order; `None` if
    /// the log has no such entry.
    ///
    /// # Errors
    /// If the store does not answer.
    fn fingerprints<'a>(
        &'a self,
        entries: &'a [(DocId, Revision)],
    ) -> BoxFuture<'a, Result<Vec<Option<u64>>, StoreError>>;

    /// The highest revision of a document that any row of the store names: its log, its snapshots, the feed of changes, and one
    /// more than its log if the list has the time of a later entry. If it is higher than the last revision of the log, entries
    /// were lost that may have been acknowledged. For repairs: it may take long.
    ///
    /// # Errors
    /// If the store does not answer.
    fn highest_revision<'a>(
        &'a self,
        doc: &'a DocId,
    ) -> BoxFuture<'a, Result<Revision, StoreError>>;

    /// Restores the fence of a document of which it is missing or has a smaller epoch than the last entry, so that it can be
    /// claimed. Fences of earlier claims stay void. Returns true if it was restored, and false if it is sound or the store has
    /// no such document.
    ///
    /// # Errors
    /// If the store does not answer.
    fn restore_fence<'a>(&'a self, doc: &'a DocId) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// The secret that all nodes of this store share, created at random by the first call.
    ///
    /// # Errors
    /// If the store does not answer.
    fn secret(&self) -> BoxFuture<'_, Result<[u8; 32], StoreError>>;
}

/// The part of a document that [`Store::load`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadRange {
    /// The newest readable snapshot and all entries after it.
    Head,
    /// The entries after a revision, oldest first, without a snapshot: at most [`PAGE_ENTRIES`], and about
    /// [`PAGE_BYTES`].
    Since(Revision),
    /// The document at a revision: a snapshot at or before it, and the entries from there to the revision.
    At(Revision),
    /// The document at a time in milliseconds since 1970: as `At`, with the last entry that was sequenced at or before
    /// it.
    AtTime(u64),
    /// The readable part of a damaged document: the newest readable snapshot, and the entries after it up to the first
    /// that is missing or damaged. If the entries reach the head, only a snapshot is damaged.
    BeforeDamage,
}

/// The largest number of entries that one load of [`LoadRange::Since`] returns.
pub const PAGE_ENTRIES: usize = 2_000;

/// About the largest number of bytes of payload that one load of [`LoadRange::Since`] returns.
pub const PAGE_BYTES: usize = 4 << 20;

/// A document, or a part of it.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The state before the entries. The empty document if the load asked for entries only.
    pub snapshot: Snapshot,
    /// The entries after the snapshot, without a gap.
    pub entries: Vec<Arc<Entry>>,
    /// The revision of the last entry of the log at the time of the load.
    pub head: Revision,
}

/// The right to append to a document, as a claim returns it.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    /// Passed to each append.
    pub fence: Fence,
    /// The head of the log at the claim. Appends under older fences cannot change it any more.
    pub head: Revision,
}

/// The entries that are appended to one document.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The document.
    pub doc: DocId,
    /// The fence of the claim.
    pub fence: Fence,
    /// The entries in order, without a gap. Never empty.
    pub entries: Vec<Arc<Entry>>,
}

/// What a node states in a heartbeat.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// The node's id, which is new at each start.
    pub me: NodeId,
    /// The node's name, for operators.
    pub name: Arc<str>,
    /// Whether the hash ring has the node: not while it is unreachable or shutting down.
    pub takes_part: bool,
    /// The address at which other nodes connect to it directly.
    pub address: Option<Arc<str>>,
    /// The versions that the node supports.
    pub version: NodeVersion,
}

/// A live node, as its newest heartbeat states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveNode {
    /// The node's id.
    pub id: NodeId,
    /// The node's name, for operators.
    pub name: Arc<str>,
    /// Whether the hash ring has the node.
    pub takes_part: bool,
    /// The versions that the node supports.
    pub version: NodeVersion,
}

impl From<&Heartbeat> for LiveNode {
    fn from(beat: &Heartbeat) -> Self {
        Self {
            id: beat.me,
            name: beat.name.clone(),
            takes_part: beat.takes_part,
            version: beat.version.clone(),
        }
    }
}

/// The documents that a node has open.
#[derive(Debug, Clone, Default)]
pub struct OpenDocuments {
    /// The documents that the node owns, with the epochs of its claims.
    pub owned: Vec<(DocId, Epoch)>,
    /// The documents that the node has subscribers of and does not own, with the newest revision that it has of each.
    pub followed: Vec<(DocId, Revision)>,
}

/// The reply to a heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// The live nodes that take part, sorted. Liveness is decided by the clock of the store.
    pub nodes: Vec<NodeId>,
    /// The other live nodes, whether or not they take part, sorted by id.
    pub others: Vec<LiveNode>,
    /// The clock of the store, in milliseconds since 1970; `None` if it has no clock of its own.
    pub store_ms: Option<u64>,
    /// The history that the store has.
    pub history: History,
    /// Identifies the server, database and tables that answered. A change means that the store may have gone back in
    /// time: it was restored, or another server was promoted.
    pub place: Arc<str>,
    /// The other live nodes that have an address, with the address. See [`Heartbeat::address`].
    pub addresses: Vec<(NodeId, Arc<str>)>,
}

/// How the open documents of a node differ from the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DocumentChanges {
    /// The owned documents that other nodes have claimed since.
    pub lost: Vec<DocId>,
    /// The followed documents that have a newer head, with the head.
    pub newer: Vec<(DocId, Revision)>,
}

/// A position in the feed of changes of a store. Only the store that returned it can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeCursor(pub(super) Arc<str>);

/// The changes since a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The cursor for the next call.
    pub cursor: ChangeCursor,
    /// Whether these are all changes since the cursor.
    pub continuity: Continuity,
    /// The documents that were claimed, each with the epoch of its newest claim.
    pub claimed: Vec<(DocId, Epoch)>,
    /// The documents that were appended to, each with its newest revision.
    pub appended: Vec<(DocId, Revision)>,
}

/// Whether a feed of changes is complete since a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// It has all changes.
    Complete,
    /// Changes are missing: there was no cursor, it is older than the changes that the store keeps, there were more
    /// changes than one call returns, or a live node runs a version that does not record its changes. The open
    /// documents must be compared with the store.
    Incomplete,
    /// As `Incomplete`. Besides, another server answered than the one that returned the cursor, or the same server
    /// after a restart or with an older history: what was cached of the store may be wrong.
    OtherServer,
}

/// Where a document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentLocation {
    /// The node that claimed it last; `None` if the store does not record it.
    pub owner: Option<NodeId>,
    /// The name of that node.
    pub owner_name: Option<String>,
    /// Whether that node lives.
    pub owner_lives: bool,
    /// The number of claims.
    pub epoch: Epoch,
    /// The revision of the last entry of its log.
    pub head: Revision,
}
