//! The newest commits and what is staged after them.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::doc::settings::DocumentSettings;
use crate::log::{Entry, Revision, Tail};

/// The log as the sequencer holds it: the tail of durable entries, then the staged entries. The first of the staged entries may
/// be on their way to the store.
#[derive(Debug)]
pub(super) struct StagedLog {
    /// The newest commits. Older ones are read from the store.
    tail: Tail,
    /// Sequenced and not yet durable: later submits are rebased over them, and no session is sent them.
    staged: VecDeque<Arc<Entry>>,
    /// The approximate size of `staged` in bytes.
    staged_bytes: usize,
    /// The number of staged entries in the append under way; zero if there is none.
    appending: usize,
    /// The number of entries that are still appended one by one.
    one_by_one: usize,
}

impl StagedLog {
    pub(super) fn new(tail: Tail) -> Self {
        Self {
            tail,
            staged: VecDeque::new(),
            staged_bytes: 0,
            appending: 0,
            one_by_one: 0,
        }
    }

    pub(super) fn tail(&self) -> &Tail {
        &self.tail
    }

    /// The newest durable revision.
    pub(super) fn durable(&self) -> Revision {
        self.tail.head()
    }

    /// Returns true if every sequenced entry is durable.
    pub(super) fn is_durable(&self) -> bool {
        self.staged.is_empty()
    }

    /// Returns true if no more may be staged.
    pub(super) fn is_full(&self, settings: &DocumentSettings) -> bool {
        self.staged.len() >= settings.staged_entries_max
            || self.staged_bytes >= settings.staged_bytes_max
    }

    /// The entry after `at`, if the tail or the staged entries hold it.
    pub(super) fn next(&self, at: Revision) -> Option<&Arc<Entry>> {
        if at >= self.tail.head() {
            self.staged.get(distance(self.tail.head(), at))
        } else {
            self.tail.since(at)?.next()
        }
    }

    /// Appends the next entries one by one.
    pub(super) fn append_one_by_one(&mut self, entries: usize) {
        self.one_by_one = entries;
    }

    /// Adds an entry.
    pub(super) fn stage(&mut self, entry: Entry) {
        self.staged_bytes += entry.size();
        self.staged.push_back(Arc::new(entry));
    }

    /// Returns true if an append may begin: none is under way, and entries wait for one.
    pub(super) fn may_append(&self) -> bool {
        self.appending == 0 && !self.staged.is_empty()
    }

    /// Begins an append of everything that is staged.
    pub(super) fn begin_append(&mut self) {
        self.appending = match self.one_by_one {
            0 => self.staged.len(),
            _ => 1,
        };
    }

    /// The entries of the append under way.
    pub(super) fn appending(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.staged.range(..self.appending)
    }

    /// Returns true if the append under way leads to the newest staged revision.
    pub(super) fn is_appending_all(&self) -> bool {
        self.appending == self.staged.len()
    }

    /// The append under way is durable: returns its entries, which are in the tail now.
    pub(super) fn appended(&mut self) -> Vec<Arc<Entry>> {
        let commits: Vec<Arc<Entry>> = self.staged.drain(..self.appending).collect();
        self.appending = 0;
        self.one_by_one = self.one_by_one.saturating_sub(commits.len());
        for entry in &commits {
            self.staged_bytes -= entry.size();
            self.tail.push(entry.clone());
        }
        commits
    }

    /// Drops the tail's oldest entries beyond its limits.
    pub(super) fn trim(&mut self, settings: &DocumentSettings, dropped: impl FnMut(&Entry)) {
        let (entries_max, bytes_max) = (settings.tail_entries_max, settings.tail_bytes_max);
        self.tail.trim(entries_max, bytes_max, dropped);
    }
}

/// The number of revisions from one to a later one.
pub(super) fn distance(from: Revision, to: Revision) -> usize {
    usize::try_from(to.0 - from.0).unwrap_or(usize::MAX)
}
