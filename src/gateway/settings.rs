//! What bounds a socket.

use std::time::Duration;

use serde::Deserialize;

use super::frame_limiter::MessageLimits;

/// What bounds a socket. Sizes are bytes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewaySettings {
    /// How many sockets may be open at once.
    pub sockets_max: usize,
    /// The largest message that a client may send, whether in one frame or in many.
    pub message_bytes_max: usize,
    /// The largest message that is read to its end and refused with `ERR_TOO_LARGE`; a larger one closes its socket.
    pub message_refused_bytes_max: usize,
    /// How much may wait to be written to a socket before its reader counts as too slow.
    pub outbox_bytes_max: usize,
    /// How many bytes of submits one socket may have without an answer before it is not read.
    pub submits_bytes_max: usize,
    /// How many documents one socket may subscribe to.
    pub documents_max: usize,
    /// How many presence channels one socket may use.
    pub channels_max: usize,
    /// The largest presence value.
    pub presence_bytes_max: usize,
    /// How many messages a second a socket is read for; a flood waits in the client's network stack.
    pub messages_per_second: u32,
    /// How many messages a quiet socket may send at once before that rate holds.
    pub messages_burst: u32,
    /// How many messages a second all sockets of one user are read for.
    pub user_messages_per_second: u32,
    /// How many messages a second all sockets of one tenant are read for.
    pub tenant_messages_per_second: u32,
    /// How many sockets a second may be asked for from one address.
    pub address_handshakes_per_second: u32,
    /// How many sockets a second one user, and one session, may ask for with a request that proves who they are.
    pub user_handshakes_per_second: u32,
    /// How many requests a second one address may make.
    pub address_requests_per_second: u32,
    /// How many bytes of answers a second one address is sent.
    pub address_answer_bytes_per_second: u32,
    /// How many requests a second one user may make.
    pub user_requests_per_second: u32,
    /// How many sockets one user may have open on this node; 0: any number.
    pub user_sockets_max: usize,
    /// How many sockets those of one tenant may have open on this node; 0: any number.
    pub tenant_sockets_max: usize,
    /// How many ops a second all sockets of one tenant are read for; 0: any number.
    pub tenant_ops_per_second: u32,
    /// How many ops a second all sockets are read for that change one document.
    pub document_ops_per_second: u32,
    /// The largest body of a request of the API.
    pub request_bytes_max: usize,
    /// How many connections may be open that are not WebSockets, TLS handshakes included.
    pub connections_max: usize,
    /// How many of those one address may have open; not behind a proxy.
    pub address_connections_max: usize,
    /// How long a client may take to send a request's head, and then its body, in milliseconds.
    pub request_timeout_ms: u64,
    /// How long the network may take nothing more of an answer, in milliseconds; each 4 KiB taken adds a second.
    pub answer_timeout_ms: u64,
    /// The path of the WebSockets below the base path. From `server.socket_path`.
    #[serde(skip)]
    pub socket_path: String,
    /// The path that all routes are below; empty: none. From `server.base_path`.
    #[serde(skip)]
    pub base_path: String,
    /// How long a socket may be silent before it is pinged, in milliseconds.
    pub ping_interval_ms: u64,
    /// How long a socket may be silent, pings unanswered, before it is closed, in milliseconds.
    pub idle_timeout_ms: u64,
    /// In how long a node that stops sends its sockets to the other nodes, in milliseconds.
    pub hand_over_ms: u64,
    /// How many sockets a second a node with clearly more than the others sends to them; 0: none.
    pub rebalance_per_second: u32,
    /// How long a socket that is being closed may take to read the rest, in milliseconds.
    pub close_patience_ms: u64,
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

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            sockets_max: 50_000,
            message_bytes_max: 2 << 20,
            message_refused_bytes_max: 64 << 20,
            outbox_bytes_max: 4 << 20,
            submits_bytes_max: 8 << 20,
            documents_max: 1_000,
            channels_max: 1_000,
            presence_bytes_max: 8 << 10,
            messages_per_second: 5_000,
            messages_burst: 10_000,
            user_messages_per_second: 10_000,
            tenant_messages_per_second: 50_000,
            address_handshakes_per_second: 100,
            user_handshakes_per_second: 250,
            address_requests_per_second: 100,
            address_answer_bytes_per_second: 32 << 20,
            user_requests_per_second: 50,
            user_sockets_max: 500,
            tenant_sockets_max: 0,
            tenant_ops_per_second: 0,
            document_ops_per_second: 20_000,
            request_bytes_max: 16 << 10,
            connections_max: 4_000,
            address_connections_max: 500,
            request_timeout_ms: 10_000,
            answer_timeout_ms: 10_000,
            socket_path: "/ws".to_owned(),
            base_path: String::new(),
            ping_interval_ms: 20_000,
            idle_timeout_ms: 45_000,
            hand_over_ms: 3_000,
            rebalance_per_second: 5,
            close_patience_ms: 2_000,
        }
    }
}
