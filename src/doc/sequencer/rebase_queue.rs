//! The submits that are rebased in slices of work: those with a large op, and those with a base before the tail.

use std::collections::VecDeque;
use std::sync::Arc;

use super::rebase::Rebase;
use super::staged_log::distance;
use crate::doc::settings::DocumentSettings;
use crate::id::NodeId;
use crate::log::{Entry, Revision, SubmitId};

/// Waiting submits, oldest first. Only the first is worked on: in slices of work, and page by page of the stored log.
#[derive(Debug, Default)]
pub(super) struct RebaseQueue {
    submits: VecDeque<Rebase>,
    /// Entries before the tail that were loaded for the first submit, without a gap.
    page: Vec<Arc<Entry>>,
    /// Whether a slice of work was requested and has not been granted.
    is_slice_requested: bool,
}

impl RebaseQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.submits.is_empty()
    }

    /// The first submit.
    pub(super) fn first(&self) -> Option<&Rebase> {
        self.submits.front()
    }

    /// Returns true if a copy of this submit waits. If that one came from another node and this one comes from `me`, the answer
    /// goes to `me`.
    pub(super) fn has_copy(&mut self, from: NodeId, id: &SubmitId, me: NodeId) -> bool {
        let copy = self.submits.iter_mut().find(|waiting| waiting.id == *id);
        match copy {
            Some(copy) => {
                copy.from = if from == me { me } else { copy.from };
                true
            }
            None => false,
        }
    }

    /// Adds a submit at the end. Returns false if too many submits wait, or too many bytes of them.
    pub(super) fn add(&mut self, rebase: Rebase, settings: &DocumentSettings) -> bool {
        let bytes: usize = self.submits.iter().map(|waiting| waiting.bytes).sum();
        let has_room =
            self.submits.len() < settings.late_submits_max && bytes < settings.staged_bytes_max;
        if has_room {
            self.submits.push_back(rebase);
        }
        has_room
    }

    /// The number of waiting submits.
    pub(super) fn len(&self) -> usize {
        self.submits.len()
    }

    /// Takes out the first submit.
    pub(super) fn take_first(&mut self) -> Option<Rebase> {
        self.submits.pop_front()
    }

    /// Takes out the first submit if it has been rebased to `at`.
    pub(super) fn take_first_at(&mut self, at: Revision) -> Option<Rebase> {
        self.submits.pop_front_if(|first| first.at == at)
    }

    /// Puts the first submit back, which needs more work.
    pub(super) fn put_back(&mut self, rebase: Rebase) {
        self.submits.push_front(rebase);
    }

    /// Replaces the loaded entries.
    pub(super) fn set_page(&mut self, page: &[Arc<Entry>]) {
        self.page = page.to_vec();
    }

    /// The first submit is done with: its entries are dropped.
    pub(super) fn clear_page(&mut self) {
        self.page.clear();
    }

    /// The loaded entry after `at`.
    pub(super) fn loaded(&self, at: Revision) -> Option<&Arc<Entry>> {
        let first = self.page.first()?.revision.before();
        let place = (first <= at).then(|| distance(first, at))?;
        self.page.get(place)
    }

    /// Returns true if a slice is to be requested: none is under way.
    pub(super) fn request_slice(&mut self) -> bool {
        !std::mem::replace(&mut self.is_slice_requested, true)
    }

    /// The requested slice was granted.
    pub(super) fn slice_granted(&mut self) {
        self.is_slice_requested = false;
    }

    /// The waiting submits.
    #[cfg(test)]
    pub(super) fn ids(&self) -> impl Iterator<Item = &SubmitId> {
        self.submits.iter().map(|waiting| &waiting.id)
    }

    /// Returns true if a slice of work was requested and has not been granted.
    #[cfg(test)]
    pub(super) fn is_slice_requested(&self) -> bool {
        self.is_slice_requested
    }
}
