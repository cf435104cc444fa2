//! Dead letters and quarantine in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::MemoryStore;
use crate::id::{DocId, NodeId};
use crate::store::faults::{DEAD_LETTERS_PAGE, PANICS_MAX};
use crate::store::{
    DeadLetter, DeadLetterFilter, DeadLetterSize, FaultStore, PANIC_WINDOW_MS, PanicOutcome,
    PanicRecord, QUARANTINED_MAX, QuarantinedDocument, StoreError, StoredDeadLetter,
};

/// The dead letters, and the documents that panicked.
#[derive(Debug, Default, Clone)]
pub(super) struct FaultRows {
    letters: BTreeMap<u64, DeadLetter>,
    /// The number of the newest letter.
    newest: u64,
    panics: BTreeMap<DocId, PanickedDocument>,
}

/// The newest panic of a document.
#[derive(Debug, Clone)]
struct PanickedDocument {
    at_ms: u64,
    quarantined_at_ms: Option<u64>,
    node: NodeId,
    node_name: Arc<str>,
}

impl FaultStore for MemoryStore {
    fn add_dead_letters(&self, letters: Vec<DeadLetter>) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = self.state();
        let rows = &mut state.faults;
        let key = |it: &DeadLetter| {
            let submit = (it.submit.client.clone(), it.submit.seq);
            (it.doc.clone(), it.at_ms, submit, it.reason.as_str())
        };
        for letter in letters {
            if rows.letters.values().all(|it| key(it) != key(&letter)) {
                rows.newest += 1;
                rows.letters.insert(rows.newest, letter);
            }
        }
        ready(Ok(())).boxed()
    }

    fn dead_letters(
        &self,
        filter: DeadLetterFilter,
        before: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredDeadLetter>, StoreError>> {
        let state = self.state();
        let letters = state.faults.letters.range(..before.unwrap_or(u64::MAX));
        let selected = letters
            .rev()
            .filter(|(id, letter)| filter.selects(**id, letter));
        let page = selected.take(limit.min(DEAD_LETTERS_PAGE));
        let page = page.map(|(id, letter)| StoredDeadLetter {
            id: *id,
            letter: letter.clone(),
        });
        ready(Ok(page.collect())).boxed()
    }

    fn dead_letter_sizes(&self) -> BoxFuture<'_, Result<Vec<DeadLetterSize>, StoreError>> {
        let state = self.state();
        let size = |(id, letter): (&u64, &DeadLetter)| {
            let (doc, author) = (letter.doc.clone(), letter.submit.author.clone());
            let text_bytes = letter.payload.len() + letter.detail.len();
            DeadLetterSize::new(*id, doc, author, letter.at_ms, text_bytes as u64)
        };
        ready(Ok(state.faults.letters.iter().map(size).collect())).boxed()
    }

    fn remove_dead_letters(&self, ids: Vec<u64>) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = self.state();
        for id in ids {
            state.faults.letters.remove(&id);
        }
        ready(Ok(())).boxed()
    }

    fn purge_dead_letters(
        &self,
        filter: DeadLetterFilter,
    ) -> BoxFuture<'_, Result<u64, StoreError>> {
        let mut state = self.state();
        let letters = &mut state.faults.letters;
        let before = letters.len();
        letters.retain(|id, letter| !filter.selects(*id, letter));
        ready(Ok((before - letters.len()) as u64)).boxed()
    }

    fn record_panic(&self, panic: PanicRecord) -> BoxFuture<'_, Result<PanicOutcome, StoreError>> {
        let outcome = self.state().faults.record_panic(panic);
        ready(Ok(outcome)).boxed()
    }

    fn quarantined(&self) -> BoxFuture<'_, Result<Vec<QuarantinedDocument>, StoreError>> {
        let state = self.state();
        let quarantined = state.faults.panics.iter().filter_map(|(doc, panicked)| {
            Some(QuarantinedDocument {
                doc: doc.clone(),
                since_ms: panicked.quarantined_at_ms?,
                node_name: panicked.node_name.clone(),
            })
        });
        ready(Ok(quarantined.take(QUARANTINED_MAX).collect())).boxed()
    }

    fn release_quarantine<'a>(&'a self, doc: &'a DocId) -> BoxFuture<'a, Result<bool, StoreError>> {
        let mut state = self.state();
        let panics = &mut state.faults.panics;
        let is_quarantined = panics
            .get(doc)
            .is_some_and(|it| it.quarantined_at_ms.is_some());
        if is_quarantined {
            panics.remove(doc);
        }
        ready(Ok(is_quarantined)).boxed()
    }
}

impl FaultRows {
    fn record_panic(&mut self, panic: PanicRecord) -> PanicOutcome {
        let is_old = |it: &PanickedDocument| it.at_ms.saturating_add(PANIC_WINDOW_MS) < panic.at_ms;
        self.panics
            .retain(|doc, it| it.quarantined_at_ms.is_some() || *doc == panic.doc || !is_old(it));
        let quarantined = self.panics.values();
        let quarantined = quarantined.filter(|it| it.quarantined_at_ms.is_some());
        let has_room = quarantined.count() < QUARANTINED_MAX;
        let known = self.panics.get(&panic.doc);
        if known.is_none() && self.panics.len() >= PANICS_MAX {
            return PanicOutcome::Full;
        }
        let repeats = known.map_or(panic.is_repeated, |it| {
            panic.quarantines_after(it.node, it.at_ms)
        });
        let since = known.and_then(|it| it.quarantined_at_ms);
        let quarantined_at_ms = since.or((repeats && has_room).then_some(panic.at_ms));
        let row = PanickedDocument {
            at_ms: panic.at_ms,
            quarantined_at_ms,
            node: panic.node,
            node_name: panic.node_name,
        };
        self.panics.insert(panic.doc, row);
        match (quarantined_at_ms, has_room) {
            (Some(_), _) => PanicOutcome::Quarantined,
            (None, true) => PanicOutcome::Recorded,
            (None, false) => PanicOutcome::Full,
        }
    }
}
