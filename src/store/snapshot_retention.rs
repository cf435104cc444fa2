//! Which of a document's snapshots are kept: the two newest that can be read, and older ones at growing distances.

/// How many snapshots that can be read are kept besides the older ones.
const READABLE_MIN: usize = 2;

/// Decides which snapshots of one document are removed.
///
/// The caller reads the snapshots that [`next_unchecked`](Self::next_unchecked) names and reports each by
/// [`record`](Self::record), until none is named; then it deletes those of [`removable`](Self::removable).
#[derive(Debug)]
pub(super) struct Retention {
    /// The revisions of the snapshots, newest first.
    revisions: Vec<u64>,
    /// How many of them were checked.
    checked: usize,
    /// How many of those can be read.
    readable: usize,
}

impl Retention {
    /// The snapshots at `revisions`, newest first.
    pub(super) fn new(revisions: Vec<u64>) -> Self {
        Self {
            revisions,
            checked: 0,
            readable: 0,
        }
    }

    /// The revision of the next snapshot to check; `None` if enough are known to be readable or all were checked.
    pub(super) fn next_unchecked(&self) -> Option<u64> {
        let next = self.revisions.get(self.checked);
        next.copied().filter(|_| self.readable < READABLE_MIN)
    }

    /// Records whether the snapshot that was named last can be read.
    pub(super) fn record(&mut self, is_readable: bool) {
        self.checked += 1;
        self.readable += usize::from(is_readable);
    }

    /// The revisions that are removed from a log that ends at `head`. A damaged snapshot among the checked ones is kept: it
    /// is evidence, and `copydesk verify` reports it.
    pub(super) fn removable(&self, head: u64) -> Vec<u64> {
        let (checked, older) = self.revisions.split_at(self.checked);
        removable(head, checked.last().copied().unwrap_or(head), older)
    }
}

/// Which of the `older` snapshots, newest first, are removed; `newer` is the one before them that is kept. The distances
/// between the others are such that reading the document as it was `n` entries ago reads about `n` entries at most, and
/// their number grows with the logarithm of the log's length.
fn removable(head: u64, mut newer: u64, older: &[u64]) -> Vec<u64> {
    let mut removable = Vec::new();
    for (at, revision) in older.iter().enumerate() {
        let next = older.get(at + 1).copied().unwrap_or(0);
        if head - next <= 2 * (head - newer) {
            removable.push(*revision);
        } else {
            newer = *revision;
        }
    }
    removable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_grow_rarer_with_their_age() {
        let mut kept: Vec<u64> = Vec::new();
        for head in (100..=100_000).step_by(100) {
            kept.insert(0, head);
            let mut retention = Retention::new(kept.clone());
            while retention.next_unchecked().is_some() {
                retention.record(true);
            }
            let removed = retention.removable(head);
            kept.retain(|revision| !removed.contains(revision));
            for pair in kept.windows(2) {
                assert!(
                    pair[0] - pair[1] <= 100 + head - pair[0],
                    "{pair:?} at {head}"
                );
            }
        }
        assert!(kept.len() < 24, "{kept:?}");
    }

    #[test]
    fn two_readable_snapshots_are_kept_before_older_ones_are_removed() {
        let mut retention = Retention::new(vec![100, 90, 80, 70, 60]);
        let mut checked = Vec::new();
        while let Some(revision) = retention.next_unchecked() {
            checked.push(revision);
            retention.record(revision != 90);
        }
        assert_eq!(checked, [100, 90, 80]);
        let removed = retention.removable(100);
        assert!(removed.iter().all(|it| *it < 80), "{removed:?}");
    }

    #[test]
    fn all_snapshots_are_checked_if_none_can_be_read() {
        let mut retention = Retention::new(vec![30, 20, 10]);
        while retention.next_unchecked().is_some() {
            retention.record(false);
        }
        assert_eq!(retention.removable(30), [0; 0]);
    }
}
