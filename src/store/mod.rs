//! Where the truth is kept.
mod store;
pub use store::*;
