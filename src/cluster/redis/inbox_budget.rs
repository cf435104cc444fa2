//! Bounds the length of inboxes: in entries for all writers, and in bytes for each writer.

#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

use std::collections::{BTreeMap, VecDeque};

use crate::id::NodeId;

/// Inboxes that are tracked. Node ids change with every restart: beyond this number all records are dropped.
const INBOXES_MAX: usize = 100;

/// Tracks what this node has written into other inboxes. Redis bounds a stream by entries only, so each writer trims to as
/// many entries as its own newest ones within its byte budget: an unread inbox holds at most that from each writer.
#[derive(Debug)]
pub(super) struct InboxBudget {
    entries_max: usize,
    bytes_max: usize,
    inboxes: BTreeMap<NodeId, WrittenEntries>,
}

/// The newest entries of this node in an inbox, assuming that none is read.
#[derive(Debug, Default)]
struct WrittenEntries {
    /// Their sizes in bytes, oldest first.
    sizes: VecDeque<usize>,
    bytes: usize,
    /// An older entry exceeded the budget: the inbox is trimmed to these entries.
    is_full: bool,
}

impl InboxBudget {
    pub(super) fn new(entries_max: u64, bytes_max: usize) -> Self {
        Self {
            entries_max: usize::try_from(entries_max).unwrap_or(usize::MAX).max(1),
            bytes_max,
            inboxes: BTreeMap::new(),
        }
    }

    /// Records an entry of `bytes` for an inbox. Returns the number of entries to trim the inbox to, this one included.
    pub(super) fn write(&mut self, to: NodeId, bytes: usize) -> usize {
        if self.inboxes.len() >= INBOXES_MAX && !self.inboxes.contains_key(&to) {
            self.inboxes.clear();
        }
        let written = self.inboxes.entry(to).or_default();
        written.push(bytes);
        while written.bytes > self.bytes_max && written.sizes.len() > 1 {
            written.pop();
            written.is_full = true;
        }
        if written.sizes.len() >= self.entries_max {
            written.is_full = false;
            while written.sizes.len() > self.entries_max {
                written.pop();
            }
        }
        match written.is_full {
            true => written.sizes.len(),
            false => self.entries_max,
        }
    }
}

impl WrittenEntries {
    fn push(&mut self, bytes: usize) {
        self.sizes.push_back(bytes);
        self.bytes += bytes;
    }

    fn pop(&mut self) {
        self.bytes -= self.sizes.pop_front().unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: NodeId = NodeId(1);
    const BOB: NodeId = NodeId(2);

    #[test]
    fn inbox_is_trimmed_to_the_entries_within_the_byte_budget() {
        let mut budget = InboxBudget::new(10, 100);
        for (to, bytes, entries) in [
            (ANN, 40, 10),
            (ANN, 40, 10),
            // The first exceeds the budget.
            (ANN, 40, 2),
            (ANN, 1, 3),
            // Inboxes are independent.
            (BOB, 1, 10),
            (ANN, 90, 2),
            // A single entry is always allowed.
            (ANN, 500, 1),
            (ANN, 1, 1),
            (ANN, 1, 2),
        ] {
            assert_eq!(budget.write(to, bytes), entries, "{to} {bytes}");
        }
        for _ in 0..20 {
            budget.write(ANN, 1);
        }
        assert_eq!(
            budget.write(ANN, 1),
            10,
            "small entries fill the entry bound again"
        );
        assert_eq!(budget.inboxes[&ANN].sizes.len(), 10);
    }

    #[test]
    fn number_of_tracked_inboxes_is_bounded() {
        let mut budget = InboxBudget::new(10, 100);
        for id in 0..1_000 {
            budget.write(NodeId(id), 1);
        }
        assert!(budget.inboxes.len() <= INBOXES_MAX);
    }
}
