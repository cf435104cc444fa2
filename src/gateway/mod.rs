//! The door: HTTP and WebSockets. Frames in, frames out; rights are checked here.

mod accounts;
mod assets;
mod bare;
mod connections;
mod documents;
#[cfg(feature = "echo")]
mod echo;
mod exchange;
#[expect(
    clippy::module_inception,
    reason = "the gateway is the main type of `gateway`"
)]
mod gateway;
mod guard;
mod health;
mod http;
mod intake;
mod limits;
mod outdated;
mod rebalance;
mod request_auth;
mod responses;
mod rights;
mod server;
mod session;
mod settings;
mod sharing;
mod socket;
mod store_watch;
mod tls;
mod upgrade;

#[cfg(feature = "echo")]
pub use echo::echo;
pub use gateway::{Gateway, Phase};
pub use http::serve;
pub use settings::GatewaySettings;
pub use tls::{Certificate, TlsError, TlsSettings};
