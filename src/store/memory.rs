//! A store in memory, for tests. It keeps the promises of the others behind one mutex; nothing outlives the process.

mod access;
mod faults;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use self::access::AccessRows;
use self::faults::FaultRows;
use super::change_feed::{self, ChangeFeed};
use super::revision_search::last_at;
use super::{
    AppendError, Batch, ChangeCursor, Changes, DocumentChanges, Heartbeat, HeartbeatReply, History,
    Lease, ListPage, ListQuery, ListedDocument, LiveNode, LoadRange, Loaded, OpenDocuments,
    PAGE_BYTES, PAGE_ENTRIES, Store, StoreError,
};
use crate::id::{DocId, NodeId};
use crate::log::{Change, Entry, Epoch, Fence, Revision, Snapshot, SubmitId};
use crate::sync::lock;

/// A store in memory. A clone is another handle on the same data.
///
/// Nothing in it is random except the secret: fencing tokens are counted, so that a simulation is determined by its seed.
///
/// ```
/// use copydesk::id::{DocId, NodeId};
/// use copydesk::log::Revision;
/// use copydesk::store::{MemoryStore, Store};
/// use futures_util::FutureExt;
///
/// let store = MemoryStore::new();
/// let doc = DocId::parse("documents", "plan")?;
/// // Its answers are ready at once. Each claim voids the fence of the one before.
/// let first = store.claim(&doc, NodeId(1)).now_or_never().unwrap()?;
/// let second = store.claim(&doc, NodeId(2)).now_or_never().unwrap()?;
/// assert!(second.fence.epoch > first.fence.epoch);
/// assert_eq!(second.head, Revision::ZERO);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Mutex<MemoryState>>);

#[derive(Debug, Default, Clone)]
struct MemoryState {
    documents: BTreeMap<DocId, StoredDocument>,
    feed: Arc<ChangeFeed>,
    /// The newest heartbeat of each node. No node is removed for its silence: the store has no clock.
    nodes: BTreeMap<NodeId, Heartbeat>,
    /// The newest token.
    token: u128,
    secret: Option<[u8; 32]>,
    history: History,
    /// How many times a backup was restored.
    restores: u64,
    access: AccessRows,
    faults: FaultRows,
    /// The time of the access rows, in milliseconds since 1970, if it was set; otherwise the system's clock tells it.
    clock_ms: Option<u64>,
}

#[derive(Debug, Default, Clone)]
struct StoredDocument {
    fence: Option<Fence>,
    log: Vec<Arc<Entry>>,
    /// The ids of the submits in the log, which holds none twice.
    submits: BTreeSet<SubmitId>,
    /// The newest two.
    snapshots: BTreeMap<Revision, Snapshot>,
    live: bool,
    title: String,
    created_at_ms: Option<u64>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the time that the access rows see, in milliseconds since 1970. From then on it stands still.
    pub fn set_clock_ms(&self, clock_ms: u64) {
        self.state().clock_ms = Some(clock_ms);
    }

    /// A separate store with a copy of the data.
    #[must_use]
    pub fn backup(&self) -> Self {
        Self(Arc::new(Mutex::new(self.state().clone())))
    }

    /// Replaces the data with that of `backup`, as if a server was restored or a lagging standby promoted. Fencing tokens are
    /// not repeated.
    pub fn restore(&self, backup: &Self) {
        let mut state = self.state();
        let (token, restores) = (state.token, state.restores + 1);
        *state = backup.state().clone();
        (state.token, state.restores) = (token, restores);
        state.feed.interrupt();
    }

    fn now_ms(&self) -> u64 {
        let clock_ms = self.state().clock_ms;
        clock_ms.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.unwrap_or_default().as_millis() as u64
        })
    }

    fn state(&self) -> MutexGuard<'_, MemoryState> {
        lock(&self.0)
    }
}

impl Store for MemoryStore {
    fn load<'a>(
        &'a self,
        doc: &'a DocId,
        reach: LoadRange,
    ) -> BoxFuture<'a, Result<Loaded, StoreError>> {
        let state = self.state();
        let loaded = state
            .documents
            .get(doc)
            .map(|document| document.load(reach));
        ready(Ok(loaded.unwrap_or_default())).boxed()
    }

    fn claim<'a>(&'a self, doc: &'a DocId, _: NodeId) -> BoxFuture<'a, Result<Lease, StoreError>> {
        let mut state = self.state();
        state.token += 1;
        let token = state.token;
        let document = state.documents.entry(doc.clone()).or_default();
        let epoch = Epoch(document.fence.map_or(1, |fence| fence.epoch.0 + 1));
        let fence = Fence { epoch, token };
        document.fence = Some(fence);
        let head = document.head();
        state
            .feed
            .record([(doc.clone(), change_feed::FeedChange::Claimed(epoch))]);
        ready(Ok(Lease { fence, head })).boxed()
    }

    fn append(
        &self,
        batches: Vec<Batch>,
    ) -> BoxFuture<'_, Result<Vec<Result<(), AppendError>>, StoreError>> {
        let mut state = self.state();
        let append = |batch: Batch| {
            let doc = batch.doc.clone();
            let document = state.documents.get_mut(&doc).ok_or(AppendError::Fenced)?;
            document.append(batch)?;
            let head = document.head();
            state
                .feed
                .record([(doc, change_feed::FeedChange::Appended(head))]);
            Ok(())
        };
        ready(Ok(batches.into_iter().map(append).collect())).boxed()
    }

    fn save_snapshot<'a>(
        &'a self,
        doc: &'a DocId,
        fence: Fence,
        snapshot: Snapshot,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let mut state = self.state();
        let document = state
            .documents
            .get_mut(doc)
            .filter(|it| it.fence == Some(fence));
        let kept = document.map_or(Ok(()), |document| document.save_snapshot(doc, snapshot));
        ready(kept).boxed()
    }

    fn heartbeat<'a>(
        &'a self,
        beat: &'a Heartbeat,
    ) -> BoxFuture<'a, Result<HeartbeatReply, StoreError>> {
        let mut state = self.state();
        state.nodes.insert(beat.me, beat.clone());
        let nodes = state.nodes.values().filter(|node| node.takes_part);
        let others = state.nodes.values().filter(|node| node.me != beat.me);
        let address = |node: &Heartbeat| Some((node.me, node.address.clone()?));
        let addresses = others.clone().filter_map(address).collect();
        ready(Ok(HeartbeatReply {
            nodes: nodes.map(|node| node.me).collect(),
            others: others.map(LiveNode::from).collect(),
            store_ms: None,
            history: state.history,
            place: state.restores.to_string().into(),
            addresses,
        }))
        .boxed()
    }

    fn changes<'a>(
        &'a self,
        since: Option<&'a ChangeCursor>,
    ) -> BoxFuture<'a, Result<Changes, StoreError>> {
        ready(Ok(self.state().feed.since(since))).boxed()
    }

    fn compare_open<'a>(
        &'a self,
        open: &'a OpenDocuments,
    ) -> BoxFuture<'a, Result<DocumentChanges, StoreError>> {
        let state = self.state();
        let epoch = |doc| state.documents.get(doc).and_then(StoredDocument::epoch);
        let lost = open
            .owned
            .iter()
            .filter(|(doc, mine)| epoch(doc) != Some(*mine));
        let newer = open.followed.iter().filter_map(|(doc, known)| {
            let head = state.documents.get(doc)?.head();
            (head > *known).then(|| (doc.clone(), head))
        });
        ready(Ok(DocumentChanges {
            lost: lost.map(|(doc, _)| doc.clone()).collect(),
            newer: newer.collect(),
        }))
        .boxed()
    }

    fn list<'a>(&'a self, query: ListQuery) -> BoxFuture<'a, Result<ListPage, StoreError>> {
        let state = self.state();
        ready(Ok(state.list(&query, |_| true))).boxed()
    }

    fn describe<'a>(
        &'a self,
        doc: &'a DocId,
    ) -> BoxFuture<'a, Result<Option<ListedDocument>, StoreError>> {
        let state = self.state();
        let listed = state
            .documents
            .get(doc)
            .and_then(|document| document.listed(doc));
        ready(Ok(listed)).boxed()
    }

    fn rename<'a>(
        &'a self,
        doc: &'a DocId,
        title: &'a str,
        was: Option<&'a str>,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let mut state = self.state();
        let document = state
            .documents
            .get_mut(doc)
            .filter(|document| document.live)
            .filter(|document| {
                was.is_none_or(|was| [was, title].contains(&document.title.as_str()))
            });
        let renamed = document.map(|document| title.clone_into(&mut document.title));
        ready(Ok(renamed.is_some())).boxed()
    }

    fn check_writes(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(Ok(())).boxed()
    }

    fn history(&self) -> BoxFuture<'_, Result<History, StoreError>> {
        ready(Ok(self.state().history)).boxed()
    }

    fn renew_history(
        &self,
        known: History,
        next: History,
    ) -> BoxFuture<'_, Result<History, StoreError>> {
        let mut state = self.state();
        if state.history == known {
            state.history = next;
        }
        ready(Ok(state.history)).boxed()
    }

    fn fingerprints<'a>(
        &'a self,
        entries: &'a [(DocId, Revision)],
    ) -> BoxFuture<'a, Result<Vec<Option<u64>>, StoreError>> {
        let state = self.state();
        let fingerprint = |(doc, revision): &(DocId, Revision)| {
            let place = usize::try_from(revision.0.checked_sub(1)?).ok()?;
            let entry = state.documents.get(doc)?.log.get(place)?;
            Some(entry.fingerprint())
        };
        ready(Ok(entries.iter().map(fingerprint).collect())).boxed()
    }

    fn highest_revision<'a>(
        &'a self,
        doc: &'a DocId,
    ) -> BoxFuture<'a, Result<Revision, StoreError>> {
        let state = self.state();
        let head = state.documents.get(doc).map(StoredDocument::head);
        ready(Ok(head.unwrap_or_default())).boxed()
    }

    fn restore_fence<'a>(&'a self, _: &'a DocId) -> BoxFuture<'a, Result<bool, StoreError>> {
        // What is in memory is not damaged.
        ready(Ok(false)).boxed()
    }

    fn secret(&self) -> BoxFuture<'_, Result<[u8; 32], StoreError>> {
        let mut state = self.state();
        if let Some(secret) = state.secret {
            return ready(Ok(secret)).boxed();
        }
        let mut secret = [0; 32];
        let drawn = getrandom::fill(&mut secret).map_err(|error| StoreError::new("secret", error));
        let answer = drawn.map(|()| *state.secret.insert(secret));
        ready(answer).boxed()
    }
}

impl MemoryState {
    /// A page of the list of the documents that `admits` returns true for.
    fn list(&self, query: &ListQuery, admits: impl Fn(&DocId) -> bool) -> ListPage {
        let mut documents: Vec<ListedDocument> = self
            .documents
            .iter()
            .filter(|(doc, _)| doc.collection == query.collection && admits(doc))
            .filter_map(|(doc, document)| document.listed(doc))
            .filter(|listed| query.admits(listed))
            .collect();
        documents.sort_by_key(|listed| Reverse(listed.place()));
        documents.truncate(query.limit);
        let last = documents.last().filter(|_| documents.len() >= query.limit);
        ListPage {
            next: last.map(ListedDocument::place),
            documents,
        }
    }
}

impl StoredDocument {
    fn append(&mut self, batch: Batch) -> Result<(), AppendError> {
        if self.fence != Some(batch.fence) {
            return Err(AppendError::Fenced);
        }
        let revisions = batch.entries.iter().map(|entry| entry.revision.0);
        let follows = revisions.eq((self.head().0 + 1..).take(batch.entries.len()));
        let submits: BTreeSet<_> = batch.entries.iter().map(|entry| entry.id.clone()).collect();
        if !follows || submits.len() < batch.entries.len() || !submits.is_disjoint(&self.submits) {
            return Err(AppendError::Gap);
        }
        self.submits.extend(submits);
        for entry in batch.entries {
            match entry.change {
                Change::Create(_) => {
                    self.live = true;
                    self.created_at_ms.get_or_insert(entry.at_ms);
                }
                Change::Delete => self.live = false,
                Change::Edit(_) | Change::Nothing => {}
            }
            self.log.push(entry);
        }
        Ok(())
    }

    fn save_snapshot(&mut self, doc: &DocId, snapshot: Snapshot) -> Result<(), StoreError> {
        let revision = snapshot.revision;
        if revision > self.head() {
            let reason = format!("{doc}: the log ends before {revision}");
            return Err(StoreError::new("save snapshot", reason));
        }
        self.snapshots.insert(revision, snapshot);
        while self.snapshots.len() > 2 {
            self.snapshots.pop_first();
        }
        Ok(())
    }

    fn load(&self, reach: LoadRange) -> Loaded {
        let until = match reach {
            LoadRange::Since(revision) => return self.page(revision),
            // What is in memory is not damaged.
            LoadRange::Head | LoadRange::BeforeDamage => self.head(),
            LoadRange::At(revision) => revision.min(self.head()),
            LoadRange::AtTime(at_ms) => {
                let at =
                    |revision: Revision| Ok::<_, ()>(self.log[revision.before().0 as usize].at_ms);
                last_at(self.head(), at_ms, at).unwrap_or_default()
            }
        };
        let snapshot = self.snapshots.range(..=until).next_back();
        let snapshot = snapshot
            .map(|(_, snapshot)| snapshot.clone())
            .unwrap_or_default();
        let entries = self.log[snapshot.revision.0 as usize..until.0 as usize].to_vec();
        Loaded {
            snapshot,
            entries,
            head: self.head(),
        }
    }

    fn page(&self, revision: Revision) -> Loaded {
        let mut bytes = 0;
        let fits = |entry: &&Arc<Entry>| {
            let before = bytes;
            bytes += entry.change.size();
            before < PAGE_BYTES
        };
        let since = self.log.iter().skip(revision.0 as usize);
        let entries = since.take(PAGE_ENTRIES).take_while(fits).cloned().collect();
        Loaded {
            snapshot: Snapshot::default(),
            entries,
            head: self.head(),
        }
    }

    fn listed(&self, doc: &DocId) -> Option<ListedDocument> {
        self.live.then(|| ListedDocument {
            doc: doc.clone(),
            title: self.title.clone(),
            created_at_ms: self.created_at_ms.unwrap_or_default(),
            updated_at_ms: self.log.last().map_or(0, |entry| entry.at_ms),
            revision: self.head(),
        })
    }

    fn epoch(&self) -> Option<Epoch> {
        self.fence.map(|fence| fence.epoch)
    }

    fn head(&self) -> Revision {
        Revision(self.log.len() as u64)
    }
}

impl ListQuery {
    fn admits(&self, listed: &ListedDocument) -> bool {
        let before = self
            .after
            .as_ref()
            .is_none_or(|after| listed.place() < *after);
        let title = self.title.as_deref().unwrap_or_default().to_lowercase();
        before && listed.title.to_lowercase().contains(&title)
    }
}
