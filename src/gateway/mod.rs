//! The door: HTTP and WebSockets. Frames in, frames out; rights are checked here.

mod accounts;
mod assets;
mod builtin_responses;
mod connection_deadlines;
mod connections;
mod documents;
#[cfg(feature = "echo")]
mod echo;
mod frame_encoder;
mod frame_limiter;
#[expect(
    clippy::module_inception,
    reason = "the gateway is the main type of `gateway`"
)]
mod gateway;
mod health;
mod http;
mod permission_cache;
mod rate_limits;
mod rebalance;
mod request_auth;
mod request_limits;
mod responses;
mod server;
mod session;
mod settings;
mod sharing;
mod socket;
mod store_availability;
mod text_ops;
mod tls;
mod upgrade;

#[cfg(feature = "echo")]
pub use echo::echo;
pub use frame_encoder::ShareDbEncoder;
pub use gateway::{Gateway, Phase};
pub use http::serve;
pub use settings::{GatewaySettings, TlsSettings};
pub use tls::{Certificate, TlsError};
