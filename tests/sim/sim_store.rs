//! The store of a scenario: a `MemoryStore`, and the faults of requests to it. Each node has one writer, which groups the
//! appends of all its documents while one is under way.

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

use super::world::{SimEvent, World};

/// The writer of a node: the appends of its documents.
#[derive(Debug, Default)]
pub(crate) struct SimWriter {
    under_way: bool,
    gathered: Vec<(usize, Batch)>,
}

/// A store that answers at once. The world delays and drops its answers.
#[derive(Default)]
pub(crate) struct SimStore {
    store: MemoryStore,
    /// Until when requests fail.
    pub(crate) away_until: Duration,
}

impl SimStore {
    pub(crate) fn load(&self, doc: &DocId, reach: LoadRange) -> Loaded {
        let loaded = self.store.load(doc, reach).now_or_never();
        loaded
            .expect("a MemoryStore is ready at once")
            .expect("a MemoryStore does not fail")
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
            .expect("a MemoryStore is ready at once")
            .expect("a MemoryStore does not fail");
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
            .expect("a MemoryStore is ready at once")
            .expect("a MemoryStore does not fail");
    }

    pub(crate) fn append(&self, batches: Vec<Batch>) -> Vec<Result<(), AppendError>> {
        let answers = self.store.append(batches).now_or_never();
        answers
            .expect("a MemoryStore is ready at once")
            .expect("a MemoryStore does not fail")
    }

    pub(crate) fn heartbeat(&self, beat: &Heartbeat) -> HeartbeatReply {
        let pulse = self.store.heartbeat(beat).now_or_never();
        pulse
            .expect("a MemoryStore is ready at once")
            .expect("a MemoryStore does not fail")
    }

    pub(crate) fn news(&self, open: &OpenDocuments) -> DocumentChanges {
        let news = self.store.compare_open(open).now_or_never();
        news.expect("a MemoryStore is ready at once")
            .expect("a MemoryStore does not fail")
    }
}

impl World {
    /// The answer of the store, unless it is unavailable.
    pub(crate) fn ask_store<T>(
        &mut self,
        ask: impl FnOnce(&SimStore) -> T,
    ) -> Result<T, StoreError> {
        if self.clock < self.store.away_until || self.fault(3) {
            Err(StoreError::new("ask", "unavailable"))
        } else {
            Ok(ask(&self.store))
        }
    }

    /// Adds an append of a document to the next group.
    pub(crate) fn gather(&mut self, node: usize, doc: usize, batch: Batch) {
        let writer = &mut self.nodes[node].writer;
        writer.gathered.push((doc, batch));
        if !writer.under_way {
            self.write(node);
        }
    }

    /// Sends the gathered appends. They are carried out now, later or never; the answer is their result or an unknown outcome.
    fn write(&mut self, node: usize) {
        let id = self.nodes[node].id;
        let writer = &mut self.nodes[node].writer;
        writer.under_way = true;
        let batches = std::mem::take(&mut writer.gathered);
        if self.clock < self.store.away_until || self.fault(3) {
            let unknown = |(doc, batch): &(usize, Batch)| {
                let result = Err(StoreError::new("append", "outcome unknown"));
                let fence = batch.fence;
                (*doc, Event::Appended { fence, result })
            };
            let answers = batches.iter().map(unknown).collect();
            self.within(30, SimEvent::AppendAnswer(id, answers));
            let batches = batches.into_iter().map(|(_, batch)| batch).collect();
            match self.rng.below(3) {
                0 => drop(self.store.append(batches)),
                1 => self.within(2_000, SimEvent::LateAppend(batches)),
                _ => {}
            }
            return;
        }
        let delay = if self.fault(3) { 2_000 } else { 8 };
        self.within(delay, SimEvent::Append(id, batches));
    }

    /// Carries out an append and sends its answer.
    pub(crate) fn append(&mut self, id: NodeId, batches: Vec<(usize, Batch)>) {
        let asked: Vec<_> = batches
            .iter()
            .map(|(doc, batch)| (*doc, batch.fence))
            .collect();
        let batches = batches.into_iter().map(|(_, batch)| batch).collect();
        let results = self.store.append(batches);
        let answer = |((doc, fence), result)| {
            let result = Ok(result);
            (doc, Event::Appended { fence, result })
        };
        let answers = asked.into_iter().zip(results).map(answer).collect();
        self.within(5, SimEvent::AppendAnswer(id, answers));
    }

    /// Handles the answer of an append, and sends what was gathered meanwhile.
    pub(crate) fn append_answered(&mut self, id: NodeId, answers: Vec<(usize, Event)>) {
        let Some(node) = self.node_of(id) else {
            return;
        };
        self.nodes[node].writer.under_way = false;
        for (doc, event) in answers {
            self.document_event(id, doc, event);
        }
        if let Some(node) = self.node_of(id)
            && !self.nodes[node].writer.under_way
            && !self.nodes[node].writer.gathered.is_empty()
        {
            self.write(node);
        }
    }
}

/// Encodes a snapshot; the content's JSON stands for the wire format.
pub(crate) fn encode(snapshot: &Snapshot) -> EncodedSnapshot {
    let mut json = Vec::new();
    if let Some(content) = &snapshot.content {
        content.write_json(&mut json);
    }
    let kind = snapshot.content.as_ref().map(Content::kind);
    let range = 0..json.len();
    EncodedSnapshot::new(snapshot.revision, kind, json.into(), range)
}
