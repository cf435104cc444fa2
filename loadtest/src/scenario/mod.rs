//! The scenarios, each with its own options.

pub(crate) mod cluster;
pub(crate) mod crowd;
pub(crate) mod fanout;
pub(crate) mod handshake_flood;
pub(crate) mod hot;
pub(crate) mod idle;
pub(crate) mod many;
pub(crate) mod open;
pub(crate) mod ramp;
pub(crate) mod replay;
mod session;
pub(crate) mod soak;
pub(crate) mod storm;
