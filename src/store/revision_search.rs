//! The search for the revision that a document had at a time.

use crate::log::Revision;

/// The last revision up to `head` whose entry was sequenced at or before `at_ms`; zero if there is none. A binary
/// search: in logs of early versions, in which times may fall, the result is approximate.
pub(super) fn last_at<E>(
    head: Revision,
    at_ms: u64,
    mut time: impl FnMut(Revision) -> Result<u64, E>,
) -> Result<Revision, E> {
    let mut search = RevisionSearch::new(head);
    while let Some(revision) = search.probe() {
        search.narrow(revision, time(revision)? <= at_ms);
    }
    Ok(search.result())
}

/// The binary search of [`last_at`], for stores with asynchronous look-ups.
pub(super) struct RevisionSearch {
    at_or_before: u64,
    after: u64,
}

impl RevisionSearch {
    pub(super) fn new(head: Revision) -> Self {
        Self {
            at_or_before: 0,
            after: head.0 + 1,
        }
    }

    /// The revision to look up next; `None` if the search is done.
    pub(super) fn probe(&self) -> Option<Revision> {
        let distance = self.after - self.at_or_before;
        (distance > 1).then_some(Revision(self.at_or_before + distance / 2))
    }

    pub(super) fn narrow(&mut self, Revision(middle): Revision, is_at_or_before: bool) {
        if is_at_or_before {
            self.at_or_before = middle;
        } else {
            self.after = middle;
        }
    }

    pub(super) fn result(&self) -> Revision {
        Revision(self.at_or_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_entry_at_or_before_the_time_is_found() {
        // Entries 1 to 5.
        let times = [10, 20, 20, 20, 30];
        for (at_ms, expected) in [(9, 0), (10, 1), (19, 1), (20, 4), (29, 4), (30, 5), (99, 5)] {
            let time = |revision: Revision| Ok::<_, ()>(times[revision.before().0 as usize]);
            assert_eq!(
                last_at(Revision(5), at_ms, time),
                Ok(Revision(expected)),
                "{at_ms}"
            );
        }
        assert_eq!(last_at(Revision::ZERO, 7, |_| Err(())), Ok(Revision::ZERO));
    }
}
