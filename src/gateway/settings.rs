//! Limits of HTTP and of sockets, and the files of the TLS certificate.

use std::path::PathBuf;
use std::time::Duration;

use super::frame_limiter::MessageLimits;
use crate::setting::settings;

settings! {
    /// Limits of HTTP and of sockets. Sizes are bytes, times are milliseconds.
    pub struct GatewaySettings {
        /// Sockets that may be open at once.
        pub sockets_max: usize = 50_000, in 1..=10_000_000;
        /// The largest message of a client, whether in one frame or in several.
        pub message_bytes_max: usize = 2 << 20, in 1 << 10..=256 << 20;
        /// The largest message that is read to its end and refused with `ERR_TOO_LARGE`; a larger one closes its socket.
        pub message_refused_bytes_max: usize = 64 << 20, in 1 << 10..=1 << 32;
        /// Bytes that may wait to be written to a socket before it is closed as too slow.
        pub outbox_bytes_max: usize = 4 << 20, in 64 << 10..=1 << 30;
        /// Bytes of submits that one socket may have without an answer. A socket that has more is not read.
        pub submits_bytes_max: usize = 8 << 20, in 1 << 10..=u32::MAX as usize;
        /// Documents that one socket may subscribe to.
        pub documents_max: usize = 1_000, in 1..=1_000_000;
        /// Presence channels that one socket may use.
        pub channels_max: usize = 1_000, in 1..=1_000_000;
        /// The largest presence value.
        pub presence_bytes_max: usize = 8 << 10, in 64..=1 << 20;
        /// Messages a second that one socket is read for. More wait in the client's network stack.
        pub messages_per_second: u32 = 5_000, in 1..=1_000_000_000;
        /// Messages that a socket may send at once after a quiet time.
        pub messages_burst: u32 = 10_000, in 1..=1_000_000_000;
        /// Messages a second that all sockets of one user are read for.
        pub user_messages_per_second: u32 = 10_000, in 1..=1_000_000_000;
        /// Messages a second that all sockets of one tenant are read for.
        pub tenant_messages_per_second: u32 = 50_000, in 1..=1_000_000_000;
        /// WebSocket handshakes a second from one address, for requests without credentials.
        pub address_handshakes_per_second: u32 = 100, in 1..=1_000_000_000;
        /// WebSocket handshakes a second of one user, and of one session, for requests with credentials.
        pub user_handshakes_per_second: u32 = 250, in 1..=1_000_000_000;
        /// HTTP requests a second from one address.
        pub address_requests_per_second: u32 = 100, in 1..=1_000_000_000;
        /// HTTP requests a second of one user.
        pub user_requests_per_second: u32 = 50, in 1..=1_000_000_000;
        /// Bytes a second of HTTP responses above 16 KiB to one address.
        pub address_answer_bytes_per_second: u32 = 32 << 20, in 1 << 20..=1_000_000_000;
        /// Sockets that one user may have open on this node; 0: unlimited.
        pub user_sockets_max: usize = 500, in 0..=10_000_000;
        /// Sockets that one tenant may have open on this node; 0: unlimited.
        pub tenant_sockets_max: usize = 0, in 0..=10_000_000;
        /// Ops a second that all sockets of one tenant are read for; 0: unlimited.
        pub tenant_ops_per_second: u32 = 0, in 0..=1_000_000_000;
        /// Ops a second on one document that all sockets of this node are read for.
        pub document_ops_per_second: u32 = 20_000, in 1..=1_000_000_000;
        /// The largest body of an HTTP request.
        pub request_bytes_max: usize = 16 << 10, in 8 << 10..=1 << 20;
        /// Open connections that are not WebSockets, TLS handshakes included.
        pub connections_max: usize = 4_000, in 10..=1_000_000;
        /// Open connections of one address that are not WebSockets. Not applied behind a proxy.
        pub address_connections_max: usize = 500, in 1..=1_000_000;
        /// How long a client may take to send the head of a request, and then its body.
        pub request_timeout_ms: u64 = 10_000, in 500..=600_000;
        /// How long a client may read nothing of a response; each 4 KiB that it reads adds a second.
        pub answer_timeout_ms: u64 = 10_000, in 500..=600_000;
        /// How long a socket may be silent before it is pinged.
        pub ping_interval_ms: u64 = 20_000, in 100..=3_600_000;
        /// How long a socket may be silent, pings unanswered, before it is closed. Longer than `ping_interval_ms`.
        pub idle_timeout_ms: u64 = 45_000, in 200..=7_200_000;
        /// Time over which a stopping node spreads the moving of its sockets to other nodes.
        pub hand_over_ms: u64 = 3_000, in 0..=600_000;
        /// Sockets a second that a node with more than its share sends to other nodes; 0: none.
        pub rebalance_per_second: u32 = 5, in 0..=10_000;
        /// How long a socket that is being closed may take to read what is left.
        pub close_patience_ms: u64 = 2_000, in 10..=60_000;
        derived {
            /// The path of the WebSockets below the base path: the value of `server.socket_path`.
            pub socket_path: String = "/ws".to_owned();
            /// The path that all routes are below; empty: the root. The value of `server.base_path`.
            pub base_path: String = String::new();
        }
    }
}

settings! {
    /// Files of the TLS certificate.
    pub struct TlsSettings {
        /// The certificate with its chain, in PEM; empty: no TLS.
        pub cert: PathBuf = PathBuf::new();
        /// The certificate's private key, in PEM.
        pub key: PathBuf = PathBuf::new();
    }
}

impl GatewaySettings {
    pub(super) fn message_limits(&self) -> MessageLimits {
        MessageLimits {
            bytes_max: self.message_bytes_max,
            refused_bytes_max: self.message_refused_bytes_max.max(self.message_bytes_max),
        }
    }

    pub(super) fn ping_interval(&self) -> Duration {
        Duration::from_millis(self.ping_interval_ms)
    }

    pub(super) fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }

    pub(super) fn hand_over(&self) -> Duration {
        Duration::from_millis(self.hand_over_ms)
    }

    pub(super) fn close_patience(&self) -> Duration {
        Duration::from_millis(self.close_patience_ms)
    }
}
