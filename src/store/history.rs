//! Histories: what tells a store's logs from the same logs after they went back in time.

/// Identifies one history of a store's logs.
///
/// Within one history, a log only grows: revision `r` names one entry for ever. A restored backup, or a failover that lost
/// commits, ends that; the store then gets a new history, and whatever was learned from the one before (open documents,
/// clients' revisions, messages of other nodes) is not resumed in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// How often the history was renewed; 0: the one that the tables were made with.
    pub generation: u64,
    /// Random, drawn at each renewal: two restores of one backup are two histories.
    pub id: u128,
}

/// What client ids and messages between nodes carry of a [`History`]: the first bytes of its id.
pub type HistoryMark = [u8; 6];

impl History {
    /// The mark of what belongs to this history; `None` in a store whose history was never renewed, where nothing carries
    /// a mark.
    #[must_use]
    pub fn mark(&self) -> Option<HistoryMark> {
        let [a, b, c, d, e, f, ..] = self.id.to_be_bytes();
        (self.generation > 0).then_some([a, b, c, d, e, f])
    }

    /// The history that follows both this one and `other`, with the random id `id`.
    #[must_use]
    pub fn after(self, other: Self, id: u128) -> Self {
        Self {
            generation: self.generation.max(other.generation) + 1,
            id,
        }
    }

    /// Returns true if a store that has this history can have had `other` before. A store that went back in time to before
    /// a renewal has a history of a smaller or equal generation.
    #[must_use]
    pub fn follows(self, other: Self) -> bool {
        self.generation > other.generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_history_has_no_mark_and_each_renewal_has_its_own() {
        let first = History {
            generation: 0,
            id: 7,
        };
        let [second, third] = [1 << 127, 1 << 120].map(|id| first.after(History::default(), id));
        assert_eq!(first.mark(), None);
        assert_ne!(second.mark(), third.mark());
        assert!(second.follows(first) && !second.follows(third) && !first.follows(second));
        assert_eq!(first.after(second, 9).generation, 2);
    }
}
