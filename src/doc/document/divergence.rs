//! Entries that differ from those of another node or of the log: the store went back in time, and one side does not know it yet.

use std::sync::Arc;

use super::{Contradiction, Document};
use crate::doc::peer_message::PeerMessage;
use crate::id::NodeId;
use crate::log::{Entry, Revision};

impl Document {
    /// This node has the entry `mine`, and another node or the log has another one at its revision; `None` if this node no
    /// longer has the entry. The caller compares it with the log.
    pub(super) fn entry_differs(&mut self, mine: Option<Arc<Entry>>) {
        if let Some(mine) = mine {
            self.contradiction = Some(Contradiction::EntryDiffers(mine));
        }
    }

    /// Compares commits with the ones of the same revisions that were delivered.
    pub(super) fn compare_commits(&mut self, entries: &[Arc<Entry>]) {
        let differs = |entry: &&Arc<Entry>| {
            let mine = self.forwarder.entry(entry.revision);
            mine.is_some_and(|mine| mine.fingerprint() != entry.fingerprint())
        };
        let found = entries.iter().find(differs);
        let mine = found.and_then(|entry| self.forwarder.entry(entry.revision));
        self.entry_differs(mine.cloned());
    }

    /// A submit of `from` has a base of which this node's sequencer has another entry, `mine`: positions of the submit mean
    /// another text. It is not sequenced, and its forwarder keeps it until one of the nodes has compared with the log.
    pub(super) fn submit_diverged(&mut self, from: NodeId, mine: Arc<Entry>) {
        let revision: Revision = mine.revision;
        self.entry_differs(Some(mine));
        self.effects.send(from, PeerMessage::Diverged { revision });
    }
}
