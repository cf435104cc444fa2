//! The door: HTTP and WebSockets. Frames in, frames out; rights are checked here.

mod guard;
mod http;
mod page;
mod session;
mod settings;
mod socket;

pub use http::{Gateway, Phase, serve};
pub use settings::GatewaySettings;
