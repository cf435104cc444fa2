//! Delivery of frames to sockets: outboxes, replies, when sockets are woken, and the budgets that bound what waits.

pub(in crate::node) mod byte_budget;
pub(in crate::node) mod encoder;
pub(in crate::node) mod outbox;
pub(in crate::node) mod outbox_budget;
pub(in crate::node) mod probe;
pub(in crate::node) mod reply;
pub(in crate::node) mod snapshot_budget;
pub(in crate::node) mod throttle;
pub(in crate::node) mod timer;
#[cfg(test)]
mod wake_counter;
pub(in crate::node) mod wake_queue;
