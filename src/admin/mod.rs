//! The admin listener: metrics for the operators of a node, on an address of its own that the clients of documents do not reach.

mod access_check;
mod server;
mod settings;

pub use server::{AdminServer, ListenError};
pub use settings::AdminSettings;
