//! How many bytes the outboxes of a node may hold together.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How many bytes all outboxes of a node may hold beyond one write (64 KiB) each. When it is used up, the next reader that
/// falls behind is closed with 1013; readers that keep up use nothing of it.
#[derive(Debug)]
pub struct OutboxBudget {
    bytes_max: usize,
    used: AtomicUsize,
}

impl OutboxBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            used: AtomicUsize::new(0),
        }
    }

    /// Replaces what one outbox used by what it uses now; returns whether all together are within the budget.
    pub(in crate::node) fn change(&self, before: usize, now: usize) -> bool {
        if before == now {
            return self.used() <= self.bytes_max;
        }
        // Both wrap around: what is added first is taken away later.
        let used = self
            .used
            .fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        used.wrapping_add(now).wrapping_sub(before) <= self.bytes_max
    }

    /// How many bytes are used.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}
