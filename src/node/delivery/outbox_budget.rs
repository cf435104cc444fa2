//! Bounds the bytes that wait in the outboxes of a node.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The bytes that all outboxes of a node may hold beyond one write (64 KiB) each. When it is used up, the next outbox that
/// grows beyond one write is closed with 1013. Sockets that are read fast enough use nothing of it.
#[derive(Debug)]
pub struct OutboxBudget {
    bytes_max: usize,
    used: AtomicUsize,
}

impl OutboxBudget {
    /// A budget of this many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            used: AtomicUsize::new(0),
        }
    }

    /// Replaces what one outbox used by what it uses now. Returns true if all together are within the budget.
    pub(in crate::node) fn change(&self, before: usize, now: usize) -> bool {
        if before == now {
            return self.used() <= self.bytes_max;
        }
        // The difference may be negative. Wrapping twice gives the right sum.
        let used = self
            .used
            .fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        used.wrapping_add(now).wrapping_sub(before) <= self.bytes_max
    }

    /// The bytes in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}
