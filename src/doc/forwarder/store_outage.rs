//! Readers while the store does not answer: they are served from memory with a notice, or rejected at once.

use std::sync::Arc;

use super::Forwarder;
use super::read::{MinRevision, PendingRead};
use crate::doc::action::{Action, SessionReply};
use crate::doc::effects::Effects;
use crate::doc::encoded_snapshot::EncodedSnapshot;
use crate::doc::event::ReadMode;
use crate::doc::rejection::Rejection;

/// What new readers are served while the store does not answer.
#[derive(Debug, Default)]
pub(super) struct StoreOutage {
    /// The document as this node knows it, with a notice.
    snapshot: Option<Arc<EncodedSnapshot>>,
    /// Whether a newer one was requested and has not arrived.
    is_refolding: bool,
}

impl Forwarder {
    /// Returns true while the store is known not to answer.
    pub(in crate::doc) fn is_store_unavailable(&self) -> bool {
        self.store_outage.is_some()
    }

    /// The store does not answer: pending reads are served from memory as far as possible.
    pub(in crate::doc) fn store_unavailable(&mut self, effects: &mut Effects) {
        self.store_outage.get_or_insert_default();
        self.serve_from_memory(effects);
    }

    /// The store answers again: pending reads are served from it.
    pub(in crate::doc) fn store_available(&mut self, effects: &mut Effects) {
        if self.store_outage.take().is_some() && !self.pending_reads.is_empty() {
            self.snapshot.request(effects);
        }
    }

    /// While the store does not answer: serves pending reads from memory as far as possible.
    pub(super) fn serve_from_memory(&mut self, effects: &mut Effects) {
        if self.store_outage.is_none() {
            return;
        }
        for read in std::mem::take(&mut self.pending_reads) {
            if let Some(read) = self.serve_one_from_memory(read, effects) {
                self.pending_reads.push(read);
            }
        }
        if self.pending_reads.iter().any(|read| read.since.is_none()) {
            self.refold(effects);
        }
    }

    /// Serves a read, or returns it if memory does not hold what it asks for.
    fn serve_one_from_memory(
        &mut self,
        read: PendingRead,
        effects: &mut Effects,
    ) -> Option<PendingRead> {
        let Some(tail) = &self.tail else {
            return Some(read);
        };
        let head = tail.head();
        if let Some(has) = read.since {
            let is_held = has <= head && tail.since(has).is_some();
            let freshness = match is_held {
                true => MinRevision::Known(head),
                false => read.freshness,
            };
            return self.serve(PendingRead { freshness, ..read }, effects);
        }
        let outage = self.store_outage.as_ref();
        let snapshot = outage.and_then(|outage| outage.snapshot.as_ref());
        let is_new_enough =
            |it: &&Arc<EncodedSnapshot>| it.revision >= head && it.revision >= read.min;
        let Some(snapshot) = snapshot.filter(is_new_enough) else {
            return Some(read);
        };
        let snapshot = SessionReply::Snapshot(snapshot.clone());
        effects.reply(read.session, read.ticket, snapshot);
        if read.mode == ReadMode::Subscribe {
            self.subscribers.add(read.session);
        }
        None
    }

    /// Requests the document at the tail's head, made of the newest snapshot in memory and the entries after it.
    fn refold(&mut self, effects: &mut Effects) {
        let (Some(outage), Some(tail)) = (&mut self.store_outage, &self.tail) else {
            return;
        };
        let current = outage.snapshot.as_ref();
        let is_newest = current.is_some_and(|it| it.revision >= tail.head());
        if outage.is_refolding || is_newest {
            return;
        }
        let held = [&self.snapshot.newest, &outage.snapshot];
        let newest = held.into_iter().flatten().max_by_key(|it| it.revision);
        let Some(snapshot) = newest else {
            return;
        };
        let Some(entries) = tail.since(snapshot.revision.min(tail.head())) else {
            return;
        };
        outage.is_refolding = true;
        effects.action(Action::RefoldSnapshot {
            snapshot: snapshot.clone(),
            entries: entries.cloned().collect(),
        });
    }

    /// The document at the tail's head arrived; `None` if what is in memory does not fit together.
    pub(in crate::doc) fn snapshot_refolded(
        &mut self,
        snapshot: Option<Arc<EncodedSnapshot>>,
        effects: &mut Effects,
    ) {
        let Some(outage) = &mut self.store_outage else {
            return;
        };
        outage.is_refolding = false;
        if snapshot.is_none() {
            return self.reject_new_readers(effects);
        }
        outage.snapshot = snapshot;
        self.serve_from_memory(effects);
    }

    /// Rejects the reads of clients that have nothing of the document, unless they are about to be served from memory. Clients
    /// that reconnect go on waiting: they have the document and their unsent changes.
    pub(in crate::doc) fn reject_new_readers(&mut self, effects: &mut Effects) {
        let outage = self.store_outage.as_ref();
        if outage.is_some_and(|outage| outage.is_refolding) {
            return;
        }
        self.pending_reads.retain(|read| {
            let has_nothing = read.since.is_none();
            if has_nothing {
                let rejected = SessionReply::Rejected(Rejection::store_unavailable());
                effects.reply(read.session, read.ticket, rejected);
            }
            !has_nothing
        });
    }
}
