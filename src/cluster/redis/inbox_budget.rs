//! How long an inbox may be: in entries for all who write to it, and in bytes for each of them.

#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

use std::collections::{BTreeMap, VecDeque};

use crate::id::NodeId;

/// How many inboxes are accounted for. Nodes come and go under ever other ids: when there are more, all are forgotten.
const INBOXES_MAX: usize = 100;

/// What this node has written into the others' inboxes. Redis bounds a stream by its entries alone, so each writer names
/// as many as its own newest are within its bytes: an inbox that nobody reads holds that from each of them, and no more.
#[derive(Debug)]
pub(super) struct InboxBudget {
    entries_max: usize,
    bytes_max: usize,
    inboxes: BTreeMap<NodeId, WrittenEntries>,
}

/// The newest entries of this node in an inbox, as if nobody read them.
#[derive(Debug, Default)]
struct WrittenEntries {
    /// How many bytes each has, oldest first.
    sizes: VecDeque<usize>,
    bytes: usize,
    /// Whether an older one did not fit: then the inbox holds no more entries than these.
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

    /// An entry of so many bytes goes into an inbox: how many may be in it then, this one included.
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
    fn inbox_is_as_long_as_its_writers_newest_entries_fit() {
        let mut budget = InboxBudget::new(10, 100);
        for (to, bytes, entries) in [
            (ANN, 40, 10),
            (ANN, 40, 10),
            // The first no longer fits.
            (ANN, 40, 2),
            (ANN, 1, 3),
            // One inbox says nothing of another.
            (BOB, 1, 10),
            (ANN, 90, 2),
            // However large it is, it is sent.
            (ANN, 500, 1),
            (ANN, 1, 1),
            (ANN, 1, 2),
        ] {
            assert_eq!(budget.write(to, bytes), entries, "{to} {bytes}");
        }
        for _ in 0..20 {
            budget.write(ANN, 1);
        }
        assert_eq!(budget.write(ANN, 1), 10, "small ones are counted again");
        assert_eq!(budget.inboxes[&ANN].sizes.len(), 10);
    }

    #[test]
    fn inboxes_of_nodes_that_are_gone_are_forgotten() {
        let mut budget = InboxBudget::new(10, 100);
        for id in 0..1_000 {
            budget.write(NodeId(id), 1);
        }
        assert!(budget.inboxes.len() <= INBOXES_MAX);
    }
}
