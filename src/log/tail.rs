//! The newest entries of a log, in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Entry, Revision};

/// The newest entries of the log, without a gap. Older entries are read from the store.
///
/// ```
/// use copydesk::log::{Revision, Tail};
///
/// // The log up to revision 7 is not in memory: a client that has revision 6 must read the store.
/// let tail = Tail::new(Revision(7));
/// assert_eq!(tail.head(), Revision(7));
/// assert!(tail.since(Revision(7)).is_some());
/// assert!(tail.since(Revision(6)).is_none());
/// ```
#[derive(Debug, Clone)]
pub struct Tail {
    /// The revision that the first entry applies to; with no entries, the head.
    start: Revision,
    entries: VecDeque<Arc<Entry>>,
    /// The entries' sizes, summed.
    bytes: usize,
}

impl Tail {
    /// A tail that ends at `head` and holds nothing yet.
    #[must_use]
    pub fn new(head: Revision) -> Self {
        Self {
            start: head,
            entries: VecDeque::new(),
            bytes: 0,
        }
    }

    /// The revision that the newest entry leads to.
    #[must_use]
    pub fn head(&self) -> Revision {
        Revision(self.start.0 + self.entries.len() as u64)
    }

    /// The newest entry, if any is held.
    #[must_use]
    pub fn newest(&self) -> Option<&Arc<Entry>> {
        self.entries.back()
    }

    /// The entry that leads to `revision`; `None` if it is not held.
    #[must_use]
    pub fn entry(&self, revision: Revision) -> Option<&Arc<Entry>> {
        let place = revision.0.checked_sub(self.start.0 + 1)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    /// The oldest revision after which all entries are held.
    #[must_use]
    pub fn start(&self) -> Revision {
        self.start
    }

    /// The number of entries held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true if no entries are held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds the next entry.
    ///
    /// # Panics
    /// If it is not the next entry, which the caller must check.
    pub fn push(&mut self, entry: Arc<Entry>) {
        assert_eq!(entry.revision, self.head().next(), "the log has no gaps");
        self.bytes += entry.size();
        self.entries.push_back(entry);
    }

    /// The entries after `revision`, oldest first; `None` if some of them are not held (any more or yet).
    #[must_use]
    pub fn since(
        &self,
        revision: Revision,
    ) -> Option<impl ExactSizeIterator<Item = &Arc<Entry>> + Clone> {
        let skip = revision.0.checked_sub(self.start.0)?;
        let skip = usize::try_from(skip)
            .ok()
            .filter(|skip| *skip <= self.entries.len())?;
        Some(self.entries.range(skip..))
    }

    /// Drops the oldest entries until at most `entries_max` entries and `bytes_max` bytes are held. The newest is always kept.
    /// Passes each dropped entry to `forgotten`.
    pub fn trim(
        &mut self,
        entries_max: usize,
        bytes_max: usize,
        mut forgotten: impl FnMut(&Entry),
    ) {
        while self.entries.len() > entries_max || (self.bytes > bytes_max && self.entries.len() > 1)
        {
            let Some(entry) = self.entries.pop_front() else {
                return;
            };
            self.bytes -= entry.size();
            self.start = entry.revision;
            forgotten(&entry);
        }
    }
}
