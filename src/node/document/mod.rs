//! Documents: a task for each open one, loading, and repair.
//!
//! The registry opens a document and spawns its task; the mailboxes are how the rest of the node reaches the task. The task
//! drives the state machine of `doc` and performs its actions with the loader and the other services.

mod blocking;
mod damage;
mod fold;
pub(in crate::node) mod loader;
pub(in crate::node) mod mailbox;
mod ownership;
pub(in crate::node) mod registry;
pub(in crate::node) mod repair;
mod session;
pub(in crate::node) mod slices;
mod task;

pub(in crate::node) use ownership::Ownership;
