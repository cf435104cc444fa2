//! Queue of unsent messages, bounded for each target and in total.

#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::id::NodeId;

/// Charged for each message besides its length, so that empty messages are bounded as well.
const OVERHEAD_BYTES: usize = 64;

/// Unsent messages by target node. A target that accepts nothing fills its own share only.
#[derive(Debug)]
pub(super) struct SendQueue {
    /// Bound for one target, in bytes.
    target_bytes_max: usize,
    /// Bound for all targets, in bytes.
    bytes_max: usize,
    /// Messages by target, oldest first; no queue is empty.
    queues: BTreeMap<NodeId, Queue>,
    /// Cost of all queues, in bytes.
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

    /// Queues a message; returns false if a bound is reached.
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

    /// Removes the next messages to send: the oldest of every target, up to `share` bytes each, but at least one message. So
    /// a flood to one target does not delay the others.
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

    /// Drops all messages; returns their number.
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
    fn target_and_total_are_bounded() {
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
    fn flood_is_taken_in_shares_and_in_order() {
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
