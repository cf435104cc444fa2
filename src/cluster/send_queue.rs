//! What waits to be sent, by target and bounded: a target that takes nothing has its own share and no more.

#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::id::NodeId;

/// What a message costs besides its bytes, so that many empty ones count too.
const OVERHEAD_BYTES: usize = 64;

/// Messages that wait to be sent.
#[derive(Debug)]
pub(super) struct SendQueue {
    /// The most bytes for one target.
    target_bytes_max: usize,
    /// The most bytes for all of them.
    bytes_max: usize,
    /// What waits for each target, oldest first; no queue is empty.
    queues: BTreeMap<NodeId, Queue>,
    /// What all queues cost.
    bytes: usize,
}

#[derive(Debug, Default)]
struct Queue {
    messages: Vec<Bytes>,
    bytes: usize,
}

impl SendQueue {
    pub(super) fn new(target_bytes_max: usize, bytes_max: usize) -> Self {
        Self {
            target_bytes_max,
            bytes_max,
            queues: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Queues a message; `false` when there is no room for it.
    #[must_use]
    pub(super) fn push(&mut self, to: NodeId, message: Bytes) -> bool {
        let cost = cost(&message);
        let waiting = self.queues.get(&to).map_or(0, |queue| queue.bytes);
        if waiting + cost > self.target_bytes_max || self.bytes + cost > self.bytes_max {
            return false;
        }
        let queue = self.queues.entry(to).or_default();
        queue.messages.push(message);
        queue.bytes += cost;
        self.bytes += cost;
        true
    }

    /// Takes what goes next: of every target the oldest, up to `share` bytes, but one message at least. So nobody waits
    /// for another's flood.
    pub(super) fn take(&mut self, share: usize) -> Vec<(NodeId, Vec<Bytes>)> {
        let mut taken = Vec::with_capacity(self.queues.len());
        for (&to, queue) in &mut self.queues {
            let mut bytes = 0;
            let fitting = queue.messages.iter().take_while(|message| {
                bytes += cost(message);
                bytes <= share
            });
            let count = fitting.count().max(1);
            let messages: Vec<Bytes> = queue.messages.drain(..count).collect();
            let bytes: usize = messages.iter().map(cost).sum();
            queue.bytes -= bytes;
            self.bytes -= bytes;
            taken.push((to, messages));
        }
        self.queues.retain(|_, queue| !queue.messages.is_empty());
        taken
    }

    /// Returns true if nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Drops everything; how many messages that were.
    pub(super) fn clear(&mut self) -> usize {
        let queues = std::mem::take(&mut self.queues);
        self.bytes = 0;
        queues.values().map(|queue| queue.messages.len()).sum()
    }
}

fn cost(message: &Bytes) -> usize {
    message.len() + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: NodeId = NodeId(1);
    const BOB: NodeId = NodeId(2);

    fn message(bytes: usize) -> Bytes {
        vec![7; bytes - OVERHEAD_BYTES].into()
    }

    #[test]
    fn a_target_has_its_share_and_all_have_theirs() {
        let mut outgoing = SendQueue::new(300, 500);
        assert!(outgoing.push(ANN, message(300)));
        assert!(!outgoing.push(ANN, message(64)), "Ann's share is full");
        assert!(outgoing.push(BOB, message(200)));
        assert!(!outgoing.push(BOB, message(64)), "all is full");
        assert_eq!(outgoing.take(usize::MAX).len(), 2);
        assert!(outgoing.queues.is_empty() && outgoing.bytes == 0);
        assert!(outgoing.push(BOB, message(300)));
    }

    #[test]
    fn a_flood_goes_in_shares_in_its_order() {
        let mut outgoing = SendQueue::new(10_000, 10_000);
        for byte in 0..5_u8 {
            assert!(outgoing.push(ANN, vec![byte; 36].into()));
        }
        assert!(outgoing.push(BOB, message(1_000)));
        let first = |taken: Vec<(NodeId, Vec<Bytes>)>| -> Vec<(NodeId, Vec<u8>)> {
            let firsts = |messages: Vec<Bytes>| messages.iter().map(|m| m[0]).collect();
            taken.into_iter().map(|(to, m)| (to, firsts(m))).collect()
        };
        assert_eq!(
            first(outgoing.take(250)),
            [(ANN, vec![0, 1]), (BOB, vec![7])]
        );
        assert_eq!(first(outgoing.take(250)), [(ANN, vec![2, 3])]);
        assert_eq!(outgoing.clear(), 1);
        assert_eq!((outgoing.bytes, outgoing.take(250).len()), (0, 0));
    }
}
