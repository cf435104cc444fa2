//! Delivery of frames to sockets: outboxes, the budgets that bound them, and when their sockets are woken.

pub(in crate::node) mod byte_budget;
pub(in crate::node) mod outbox;
pub(in crate::node) mod outbox_budget;
pub(in crate::node) mod reply;
pub(in crate::node) mod snapshot_budget;
pub(in crate::node) mod throttle;
pub(in crate::node) mod timer;
pub(in crate::node) mod wake_queue;
