//! HTTP and WebSockets: the API, the sessions of sockets, and the checks of permissions and limits.

mod api;
mod api_error;
mod assets;
mod builtin_responses;
mod connection_deadlines;
mod connections;
mod cookies;
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
mod metrics;
mod origin_check;
mod permission_cache;
mod rate_limits;
mod rebalance;
mod request_auth;
mod request_id;
mod request_limits;
mod request_metrics;
mod request_source;
mod server;
mod session;
mod settings;
mod socket;
mod socket_admission;
mod store_availability;
mod tls;
mod upgrade;

#[cfg(feature = "echo")]
pub use echo::echo;
pub use frame_encoder::ShareDbEncoder;
pub use gateway::{Gateway, Phase};
pub use http::serve;
pub use metrics::GatewayMetrics;
pub use settings::{GatewaySettings, TlsSettings};
pub use tls::{Certificate, TlsError};
