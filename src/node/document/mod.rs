//! Documents: a task for each open one, loading and repair.

pub(in crate::node) mod damage;
mod refold;
pub(in crate::node) mod repair;
pub(in crate::node) mod slices;
pub(in crate::node) mod task;
