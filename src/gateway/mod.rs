//! The door: HTTP and WebSockets. Frames in, frames out; rights are checked here.

mod bearer;
#[cfg(feature = "echo")]
mod echo;
mod guard;
mod http;
mod limits;
mod page;
mod patience;
mod people;
mod rights;
mod server;
mod session;
mod settings;
mod sharing;
mod socket;
mod tls;
mod upgrade;

#[cfg(feature = "echo")]
pub use echo::echo;
pub use http::{Gateway, Phase, serve};
pub use settings::GatewaySettings;
pub use tls::{Certificate, TlsError, TlsSettings};
