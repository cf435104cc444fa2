//! The store of a story: a real store's rules, and what may befall whoever asks it. Each node has one writer, which
//! gathers the appends of all its documents while one is under way.

use std::sync::Arc;
use std::time::Duration;

use copydesk::doc::{EncodedSnapshot, Event};
use copydesk::id::{DocId, NodeId};
use copydesk::log::{Entry, Fence, Revision, Snapshot, Tail};
use copydesk::ot::Content;
use copydesk::store::{
    AppendError, Batch, DocumentChanges, Heartbeat, HeartbeatReply, LoadRange, Loaded, MemoryStore,
    OpenDocuments, Store, StoreError,
};
use futures_util::FutureExt;

use super::world::{Happening, World};

/// What a node's documents want appended.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    under_way: bool,
    gathered: Vec<(usize, Batch)>,
}

/// A store that answers at once. Whether its answers arrive is the world's affair.
#[derive(Default)]
pub(crate) struct Depot {
    store: MemoryStore,
    /// Until when nobody is answered.
    pub(crate) away_until: Duration,
}

impl Depot {
    pub(crate) fn load(&self, doc: &DocId, reach: LoadRange) -> Loaded {
        let loaded = self.store.load(doc, reach).now_or_never();
        loaded
            .expect("memory answers")
            .expect("memory does not fail")
    }

    /// The whole log.
    pub(crate) fn log(&self, doc: &DocId) -> Vec<Arc<Entry>> {
        let mut log = Vec::new();
        loop {
            let page = self.load(doc, LoadRange::Since(Revision(log.len() as u64)));
            if page.entries.is_empty() {
                return log;
            }
            log.extend(page.entries);
        }
    }

    fn head(&self, doc: &DocId) -> (Snapshot, Vec<Arc<Entry>>) {
        let Loaded {
            mut snapshot,
            entries,
            ..
        } = self.load(doc, LoadRange::Head);
        for entry in &entries {
            snapshot.fold(entry).expect("the log folds");
        }
        (snapshot, entries)
    }

    pub(crate) fn show(&self, doc: &DocId) -> (Arc<EncodedSnapshot>, Vec<Arc<Entry>>) {
        let (head, entries) = self.head(doc);
        (Arc::new(encode(&head)), entries)
    }

    pub(crate) fn claim(&self, doc: &DocId, node: NodeId) -> (Fence, Snapshot, Tail) {
        let lease = self.store.claim(doc, node).now_or_never();
        let lease = lease
            .expect("memory answers")
            .expect("memory does not fail");
        let (head, entries) = self.head(doc);
        let first = entries.first();
        let mut tail = Tail::new(first.map_or(head.revision, |entry| entry.revision.before()));
        entries.into_iter().for_each(|entry| tail.push(entry));
        (lease.fence, head, tail)
    }

    pub(crate) fn save(&self, doc: &DocId, fence: Fence, snapshot: Snapshot) {
        let saved = self
            .store
            .save_snapshot(doc, fence, snapshot)
            .now_or_never();
        saved
            .expect("memory answers")
            .expect("memory does not fail");
    }

    pub(crate) fn append(&self, batches: Vec<Batch>) -> Vec<Result<(), AppendError>> {
        let answers = self.store.append(batches).now_or_never();
        answers
            .expect("memory answers")
            .expect("memory does not fail")
    }

    pub(crate) fn heartbeat(&self, beat: &Heartbeat) -> HeartbeatReply {
        let pulse = self.store.heartbeat(beat).now_or_never();
        pulse
            .expect("memory answers")
            .expect("memory does not fail")
    }

    pub(crate) fn news(&self, open: &OpenDocuments) -> DocumentChanges {
        let news = self.store.compare_open(open).now_or_never();
        news.expect("memory answers").expect("memory does not fail")
    }
}

impl World {
    /// What the store answers, unless it is away.
    pub(crate) fn ask_store<T>(&mut self, ask: impl FnOnce(&Depot) -> T) -> Result<T, StoreError> {
        if self.clock < self.depot.away_until || self.storm(3) {
            Err(StoreError::new("ask", "away"))
        } else {
            Ok(ask(&self.depot))
        }
    }

    /// A document of a node wants something appended.
    pub(crate) fn gather(&mut self, node: usize, doc: usize, batch: Batch) {
        let writer = &mut self.nodes[node].writer;
        writer.gathered.push((doc, batch));
        if !writer.under_way {
            self.write(node);
        }
    }

    /// Sends all that gathered in one append: it happens now, later or never, and its answer comes, or says that nobody
    /// knows.
    fn write(&mut self, node: usize) {
        let id = self.nodes[node].id;
        let writer = &mut self.nodes[node].writer;
        writer.under_way = true;
        let batches = std::mem::take(&mut writer.gathered);
        if self.clock < self.depot.away_until || self.storm(3) {
            let unknown = |(doc, batch): &(usize, Batch)| {
                let result = Err(StoreError::new("append", "nobody knows"));
                let fence = batch.fence;
                (*doc, Event::Appended { fence, result })
            };
            let answers = batches.iter().map(unknown).collect();
            self.within(30, Happening::Written(id, answers));
            let batches = batches.into_iter().map(|(_, batch)| batch).collect();
            match self.dice.below(3) {
                0 => drop(self.depot.append(batches)),
                1 => self.within(2_000, Happening::LateAppend(batches)),
                _ => {}
            }
            return;
        }
        let delay = if self.storm(3) { 2_000 } else { 8 };
        self.within(delay, Happening::Append(id, batches));
    }

    /// An append happens, and its answer is on its way.
    pub(crate) fn append(&mut self, id: NodeId, batches: Vec<(usize, Batch)>) {
        let asked: Vec<_> = batches
            .iter()
            .map(|(doc, batch)| (*doc, batch.fence))
            .collect();
        let batches = batches.into_iter().map(|(_, batch)| batch).collect();
        let results = self.depot.append(batches);
        let answer = |((doc, fence), result)| {
            let result = Ok(result);
            (doc, Event::Appended { fence, result })
        };
        let answers = asked.into_iter().zip(results).map(answer).collect();
        self.within(5, Happening::Written(id, answers));
    }

    /// An append is answered, or nobody knows; what gathered meanwhile goes.
    pub(crate) fn written(&mut self, id: NodeId, answers: Vec<(usize, Event)>) {
        let Some(node) = self.node_of(id) else {
            return;
        };
        self.nodes[node].writer.under_way = false;
        for (doc, event) in answers {
            self.event(id, doc, event);
        }
        if let Some(node) = self.node_of(id)
            && !self.nodes[node].writer.under_way
            && !self.nodes[node].writer.gathered.is_empty()
        {
            self.write(node);
        }
    }
}

/// The content's JSON stands for the wire's encoding of a snapshot.
pub(crate) fn encode(snapshot: &Snapshot) -> EncodedSnapshot {
    let mut json = Vec::new();
    if let Some(content) = &snapshot.content {
        content.write_json(&mut json);
    }
    let kind = snapshot.content.as_ref().map(Content::kind);
    let range = 0..json.len();
    EncodedSnapshot::new(snapshot.revision, kind, json.into(), range)
}
