//! Which of a document's older snapshots are worth their place.

/// Which of the `older` snapshots, newest first, are not needed: the others are spaced so that to read the document as
/// it was `n` entries ago takes about `n` entries at most, and they are as few as the logarithm of the log's length.
pub(super) fn superfluous(head: u64, mut newer: u64, older: &[u64]) -> Vec<u64> {
    let mut gone = Vec::new();
    for (at, revision) in older.iter().enumerate() {
        let next = older.get(at + 1).copied().unwrap_or(0);
        if head - next <= 2 * (head - newer) {
            gone.push(*revision);
        } else {
            newer = *revision;
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_grow_rarer_with_their_age() {
        let mut kept: Vec<u64> = Vec::new();
        for head in (100..=100_000).step_by(100) {
            kept.insert(0, head);
            let newest = kept.len().min(2);
            let gone = superfluous(head, kept[newest - 1], &kept[newest..]);
            kept.retain(|revision| !gone.contains(revision));
            for pair in kept.windows(2) {
                assert!(
                    pair[0] - pair[1] <= 100 + head - pair[0],
                    "{pair:?} at {head}"
                );
            }
        }
        assert!(kept.len() < 24, "{kept:?}");
    }
}
