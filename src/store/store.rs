//! What a store promises: six verbs for documents, and three for the list of them.

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use thiserror::Error;

use super::History;
use crate::id::{DocId, NodeId};
use crate::log::{Entry, Epoch, Fence, Revision, Snapshot};
use crate::version::NodeVersion;

/// Where the truth is kept. All verbs may be called at once from any thread; when a call itself fails, its fate is
/// unknown. Nothing is tried again in here: whoever asked knows what to do.
pub trait Store: Debug + Send + Sync {
    /// Reads a document: what [`LoadRange`] names.
    ///
    /// A snapshot that does not verify is passed over for the one before it, down to the empty log.
    ///
    /// # Errors
    /// [`StoreErrorKind::Damaged`] if a row that is needed is missing or fails its checks; otherwise the store did not answer.
    fn load<'a>(
        &'a self,
        doc: &'a DocId,
        reach: LoadRange,
    ) -> BoxFuture<'a, Result<Loaded, StoreError>>;

    /// Takes the right to append: epoch + 1 and a new token. Every older fence is void from then on, and the head that
    /// is returned is final for them. A document that nobody knew is known from then on, at revision zero.
    ///
    /// # Errors
    /// When the store does not answer; the claim may or may not have happened.
    fn claim<'a>(&'a self, doc: &'a DocId, me: NodeId) -> BoxFuture<'a, Result<Lease, StoreError>>;

    /// Appends many documents' entries in one durable transaction. Each batch is appended wholly or, when its fence
    /// is void or its first entry is not the next one, not at all, without disturbing the others.
    ///
    /// Answers batch by batch in the order given.
    ///
    /// # Errors
    /// When the fate of all of them is unknown.
    fn append(
        &self,
        batches: Vec<Batch>,
    ) -> BoxFuture<'_, Result<Vec<Result<(), AppendError>>, StoreError>>;

    /// Keeps a snapshot, unless the fence is void; the two newest good ones are kept, older ones may go.
    ///
    /// # Errors
    /// When the store does not answer.
    fn save_snapshot<'a>(
        &'a self,
        doc: &'a DocId,
        fence: Fence,
        snapshot: Snapshot,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Says "I live", and learns who else does. Waits for nothing that grows with the number of documents.
    ///
    /// # Errors
    /// When the store does not answer.
    fn heartbeat<'a>(
        &'a self,
        beat: &'a Heartbeat,
    ) -> BoxFuture<'a, Result<HeartbeatReply, StoreError>>;

    /// Says how many sockets a node has, and learns how many each other live node has that takes documents. A store that no
    /// nodes share names none.
    ///
    /// # Errors
    /// When the store does not answer.
    fn share_sockets(
        &self,
        _me: NodeId,
        _sockets: u64,
    ) -> BoxFuture<'_, Result<Vec<u64>, StoreError>> {
        ready(Ok(Vec::new())).boxed()
    }

    /// The name that people gave a node; `None` if the store knows no such node.
    ///
    /// # Errors
    /// When the store does not answer.
    fn node_name(&self, _id: NodeId) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        ready(Ok(None)).boxed()
    }

    /// Returns what changed in all documents since a cursor, which an earlier call returned. Costs as much as there are
    /// changes, however many documents a node has open. Without a cursor it returns one and no changes.
    ///
    /// A change is returned once it is durable, also if its transaction ended long after later ones.
    ///
    /// # Errors
    /// If the store does not answer. The same cursor can be used again.
    fn changes<'a>(
        &'a self,
        since: Option<&'a ChangeCursor>,
    ) -> BoxFuture<'a, Result<Changes, StoreError>>;

    /// Compares the documents that a node has open with the store. Costs as much as there are open documents, so it is
    /// for [`Continuity::Incomplete`] and [`Continuity::OtherServer`] only.
    ///
    /// # Errors
    /// If the store does not answer.
    fn compare_open<'a>(
        &'a self,
        open: &'a OpenDocuments,
    ) -> BoxFuture<'a, Result<DocumentChanges, StoreError>>;

    /// Returns a page of a collection's documents that exist, newest edit first. It reads a bounded number of rows, so a
    /// page of a search may be short, or empty, although there is more: see [`ListPage::next`].
    ///
    /// # Errors
    /// If the store does not answer, or not in the time that it gives to lists.
    fn list<'a>(&'a self, query: ListQuery) -> BoxFuture<'a, Result<ListPage, StoreError>>;

    /// What the list says of one document; `None` when it does not exist.
    ///
    /// # Errors
    /// When the store does not answer.
    fn describe<'a>(
        &'a self,
        doc: &'a DocId,
    ) -> BoxFuture<'a, Result<Option<ListedDocument>, StoreError>>;

    /// Gives a document a title; `false` when it does not exist.
    ///
    /// # Errors
    /// When the store does not answer.
    fn rename<'a>(
        &'a self,
        doc: &'a DocId,
        title: &'a str,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Whether an edit could be saved now: takes every way that an append takes, and writes something that nothing reads.
    /// A store that has just written answers without that.
    ///
    /// # Errors
    /// When an append would fail or wait: the disk is full, the database is read-only, a connection is missing.
    fn check_writes(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The history that the store has now.
    ///
    /// # Errors
    /// If the store does not answer.
    fn history(&self) -> BoxFuture<'_, Result<History, StoreError>>;

    /// Replaces the history `known` by `next`, and returns the history that the store has then: `next`, or that of
    /// another node which was first. Of several nodes that find at once that the store went back in time, one renews.
    /// With `next` equal to `known` it confirms that the store lost nothing where it is now, after a promotion.
    ///
    /// # Errors
    /// If the store does not answer; the history may or may not have been replaced.
    fn renew_history(
        &self,
        known: History,
        next: History,
    ) -> BoxFuture<'_, Result<History, StoreError>>;

    /// The fingerprint ([`Entry::fingerprint`]) of the entry at each of these revisions, in this order; `None` where the
    /// log has no such entry.
    ///
    /// # Errors
    /// If the store does not answer.
    fn fingerprints<'a>(
        &'a self,
        entries: &'a [(DocId, Revision)],
    ) -> BoxFuture<'a, Result<Vec<Option<u64>>, StoreError>>;

    /// The secret that all nodes of this store share: drawn at random when it was first asked for.
    ///
    /// # Errors
    /// When the store does not answer.
    fn secret(&self) -> BoxFuture<'_, Result<[u8; 32], StoreError>>;
}

/// How much of a document to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadRange {
    /// The newest good snapshot and every entry after it.
    Head,
    /// The entries after a revision, oldest first, at most [`PAGE_ENTRIES`] and about [`PAGE_BYTES`]; no snapshot.
    Since(Revision),
    /// What the document was at a revision: a snapshot at or before it, and the entries from there to it.
    At(Revision),
    /// What the document was at a time, in milliseconds since 1970: as `At`, for the last entry at or before it.
    AtTime(u64),
    /// The newest state of a damaged document that can be read: the newest good snapshot, and the entries after it up to the
    /// first that is missing or damaged. If the entries reach the head, only a snapshot was damaged.
    BeforeDamage,
}

/// The most entries that one load `Since` returns.
pub const PAGE_ENTRIES: usize = 2_000;

/// About how many bytes of payload one load `Since` returns at most.
pub const PAGE_BYTES: usize = 4 << 20;

/// What a load found.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// What the entries follow; the empty document where the load asked for none.
    pub snapshot: Snapshot,
    /// The entries after it, without a gap.
    pub entries: Vec<Arc<Entry>>,
    /// How many entries the log held at that moment.
    pub head: Revision,
}

/// The right to append, as a claim returns it.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    /// What each append must present.
    pub fence: Fence,
    /// The log's head, final for all older fences.
    pub head: Revision,
}

/// One document's part of an append.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The document.
    pub doc: DocId,
    /// The right under which it is appended.
    pub fence: Fence,
    /// The entries, contiguous; never empty.
    pub entries: Vec<Arc<Entry>>,
}

/// Why a batch was surely not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AppendError {
    /// Another claim was made since.
    #[error("fenced: the document was claimed since")]
    Fenced,
    /// The first entry is not the next one, or, where the store looks for that, a submit in it is in the log already: the
    /// appender is wrong about the log.
    #[error("the entries do not follow the log")]
    Gap,
}

/// Why a request to the store failed.
#[derive(Debug, Clone, Error)]
#[error("{verb}: {reason}")]
pub struct StoreError {
    /// What was asked.
    pub verb: &'static str,
    /// What came of it, for the log.
    pub reason: Arc<str>,
    /// What the failure means for the caller.
    pub kind: StoreErrorKind,
}

/// What a failed request to the store means for its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The store failed or did not answer. A later attempt may succeed; a write may or may not have happened.
    Unavailable,
    /// The store is known not to answer, so the request was given less time. A later attempt may succeed.
    Away,
    /// Stored rows of the document are missing or fail their checks. Every attempt fails until they are restored.
    Damaged {
        /// The first entry that cannot be read; `None` if the database cannot tell.
        entry: Option<Revision>,
    },
}

impl StoreError {
    /// An error of `verb` with what is known of its reason.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "errors are handed over, texts are lent"
    )]
    pub fn new(verb: &'static str, reason: impl ToString) -> Self {
        Self {
            verb,
            reason: reason.to_string().into(),
            kind: StoreErrorKind::Unavailable,
        }
    }

    /// An error of `verb` while the store is known not to answer.
    #[must_use]
    pub fn away(verb: &'static str) -> Self {
        Self {
            kind: StoreErrorKind::Away,
            ..Self::new(verb, "the store is away")
        }
    }

    /// An error of `verb` about a document whose stored rows are damaged.
    pub fn damaged(verb: &'static str, entry: Option<Revision>, reason: impl ToString) -> Self {
        Self {
            kind: StoreErrorKind::Damaged { entry },
            ..Self::new(verb, reason)
        }
    }
}

/// What a heartbeat says.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// Who says it: drawn anew at every start.
    pub me: NodeId,
    /// What people call the node.
    pub name: Arc<str>,
    /// Whether it takes documents: not while it cannot be reached, and no more when it is about to end.
    pub takes_part: bool,
    /// The address at which other nodes reach it without a server in between.
    pub address: Option<Arc<str>>,
    /// The versions that the node understands.
    pub version: NodeVersion,
}

/// A live node, as its newest heartbeat states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveNode {
    /// The node's incarnation.
    pub id: NodeId,
    /// What people call the node.
    pub name: Arc<str>,
    /// Whether it takes documents.
    pub takes_part: bool,
    /// The versions that it understands.
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
    /// The documents that it owns, for all it knows.
    pub owned: Vec<(DocId, Epoch)>,
    /// The documents that it has readers of and does not own, with the newest revision that it knows of each.
    pub followed: Vec<(DocId, Revision)>,
}

/// What a heartbeat learns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// The nodes that live and take documents, sorted. Who lives is told by the store's clock.
    pub nodes: Vec<NodeId>,
    /// The other live nodes, whether they take documents or not, sorted by id.
    pub others: Vec<LiveNode>,
    /// The store's clock while it answered, in milliseconds since 1970; `None` if the store has no clock of its own.
    pub store_ms: Option<u64>,
    /// The history that the store has now.
    pub history: History,
    /// Which server, database and tables answered. If it changes, the store may have gone back in time: it was restored,
    /// or another server was promoted.
    pub place: Arc<str>,
    /// The other nodes that live and have an address, and the address, as in [`Heartbeat::address`].
    pub addresses: Vec<(NodeId, Arc<str>)>,
}

/// What is new of the documents that a node has open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DocumentChanges {
    /// Which of the documents that were named as owned have been claimed by others.
    pub lost: Vec<DocId>,
    /// Which of the documents that were named as followed have a newer head, and which.
    pub newer: Vec<(DocId, Revision)>,
}

/// A position in a store's feed of changes. Only the store that returned it can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeCursor(pub(super) Arc<str>);

/// What changed in a store since a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Where the next call goes on.
    pub cursor: ChangeCursor,
    /// Whether these are all the changes since the cursor.
    pub continuity: Continuity,
    /// The documents that were claimed, each with the epoch of its newest claim.
    pub claimed: Vec<(DocId, Epoch)>,
    /// The documents that were appended to, each with its newest revision.
    pub appended: Vec<(DocId, Revision)>,
}

/// Whether a feed of changes lists all that happened since a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// It does.
    Complete,
    /// Changes are missing: there was no cursor, it is older than what the store keeps, there were more changes than one
    /// call returns, or a node lives whose program does not record its changes. The open documents must be compared with
    /// the store.
    Incomplete,
    /// As `Incomplete`; besides, another server answers than the one that returned the cursor, or the same after a
    /// restart or with an older history: what is remembered of the store may be wrong.
    OtherServer,
}

/// Where a document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentLocation {
    /// The node that claimed it last, where the store keeps that.
    pub owner: Option<NodeId>,
    /// What people call that node.
    pub owner_name: Option<String>,
    /// Whether that node lives.
    pub owner_lives: bool,
    /// How often it was claimed.
    pub epoch: Epoch,
    /// How many entries its log holds.
    pub head: Revision,
}

/// Which documents to list.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// The collection.
    pub collection: crate::id::Name,
    /// At most so many.
    pub limit: usize,
    /// Only those after this place in the list: the `next` of the page before.
    pub after: Option<(u64, String)>,
    /// Only those whose title holds this text, whatever the case.
    pub title: Option<String>,
}

/// A page of the list of documents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// The documents, newest edit first.
    pub documents: Vec<ListedDocument>,
    /// Where the next page begins, by time and then id; `None` if there is none. It is present also if fewer documents than
    /// the limit were found among those that one page looks at.
    pub next: Option<(u64, String)>,
}

/// What the list says of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedDocument {
    /// The document.
    pub doc: DocId,
    /// Its title; empty when it has none.
    pub title: String,
    /// When it was first created, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When it was last edited, in milliseconds since 1970. While it is being edited it is up to a minute old.
    pub updated_at_ms: u64,
    /// How many entries its log holds.
    pub revision: Revision,
}

impl ListedDocument {
    /// Its place in the list, which is sorted by it.
    pub(super) fn place(&self) -> (u64, String) {
        (self.updated_at_ms, self.doc.id.as_str().to_owned())
    }
}

/// The last revision up to `head` whose entry was sequenced at `at_ms` or before, by search: where the clocks of two
/// owners disagree it is one of those near it.
pub(super) fn last_at<E>(
    head: Revision,
    at_ms: u64,
    mut time: impl FnMut(Revision) -> Result<u64, E>,
) -> Result<Revision, E> {
    let mut search = RevisionSearch::new(head);
    while let Some(revision) = search.probe() {
        search.narrow(revision, time(revision)? <= at_ms);
    }
    Ok(search.result())
}

/// What [`last_at`] knows, for a store that must wait for each answer.
pub(super) struct RevisionSearch {
    at_or_before: u64,
    after: u64,
}

impl RevisionSearch {
    pub(super) fn new(head: Revision) -> Self {
        Self {
            at_or_before: 0,
            after: head.0 + 1,
        }
    }

    /// The revision whose time is asked for next; `None` once it is found.
    pub(super) fn probe(&self) -> Option<Revision> {
        let distance = self.after - self.at_or_before;
        (distance > 1).then_some(Revision(self.at_or_before + distance / 2))
    }

    pub(super) fn narrow(&mut self, Revision(middle): Revision, is_at_or_before: bool) {
        if is_at_or_before {
            self.at_or_before = middle;
        } else {
            self.after = middle;
        }
    }

    pub(super) fn result(&self) -> Revision {
        Revision(self.at_or_before)
    }
}
