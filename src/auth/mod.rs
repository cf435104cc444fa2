//! Who may come in, and as whom: the modes of the door, and the ids that clients are given.

mod mint;
mod settings;

pub use mint::{Mint, NONCE_BYTES};
pub use settings::{AuthSettings, Mode};
