//! Histories: they distinguish the logs of a store before and after it went back in time.

use crate::id::{ClientId, UserId};
use crate::log::{Epoch, SubmitId, fingerprint};

/// Identifies one history of a store's logs.
///
/// Within one history a log only grows: revision `r` identifies one entry. A restored backup or a failover that lost
/// commits ends the history, and the store gets a new one. State of the previous history (open documents, revisions of
/// clients, messages of other nodes) is not resumed in the new one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// How often the history was renewed; 0 for the one that was created with the tables.
    pub generation: u64,
    /// Random, so that two restores of one backup are two histories.
    pub id: u128,
}

/// Identifies a [`History`] in client ids and in messages between nodes: the first bytes of its id.
pub type HistoryMark = [u8; 6];

impl History {
    /// The mark of this history; `None` for the first history of a store, in which client ids and messages have none.
    #[must_use]
    pub fn mark(&self) -> Option<HistoryMark> {
        let [a, b, c, d, e, f, ..] = self.id.to_be_bytes();
        (self.generation > 0).then_some([a, b, c, d, e, f])
    }

    /// The history that follows both this one and `other`, with the random `id`.
    #[must_use]
    pub fn after(self, other: Self, id: u128) -> Self {
        Self {
            generation: self.generation.max(other.generation) + 1,
            id,
        }
    }

    /// Returns true if a store with this history may have had `other` before. A store that went back to a time before a
    /// renewal has a smaller or equal generation.
    #[must_use]
    pub fn follows(self, other: Self) -> bool {
        self.generation > other.generation
    }
}

/// The fingerprint of a stored entry, from its columns. An entry with a client id that cannot be parsed was not written by
/// this program; its fingerprint is 0, so it differs from that of any entry that a node has seen.
pub(super) fn stored_fingerprint(epoch: Epoch, author: &str, client: &str, seq: u64) -> u64 {
    let author = UserId::new(author);
    ClientId::parse(client).map_or(0, |client| {
        let id = SubmitId {
            author,
            client,
            seq,
        };
        fingerprint(epoch, &id)
    })
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
