//! What the gateway measures.

use std::time::Duration;

use actix_web::http::StatusCode;

use super::api_error::ApiError;
use crate::auth::AuthError;
use crate::metrics::{Counter, Gauge, Labelled, Seconds, labels, metrics};
use crate::protocol::CloseReason;

labels! {
    /// Why a socket was closed.
    pub enum SocketClose: "reason" {
        /// The client closed it, or its connection ended in order.
        Client = "client",
        /// The connection was lost.
        Lost = "lost",
        /// The client did not answer pings.
        Idle = "idle",
        /// The client sent what no client may send.
        Malformed = "malformed",
        /// Another node is to serve it: this one stops, or has more sockets, or closed one of its documents.
        Moved = "moved",
        /// The client reads too slowly.
        Slow = "slow",
        /// A request could not be served now: the client reconnects and repeats it.
        Overloaded = "overloaded",
        /// The user signed out, or lost access to a document.
        Access = "access",
        /// The log has another history.
        History = "history",
    }
}

labels! {
    /// Why a socket was not opened.
    pub enum SocketRefusal: "reason" {
        /// The node stops or hands its documents over.
        Restarting = "restarting",
        /// The page is of another origin.
        Origin = "origin",
        /// Too many handshakes of one address or user.
        Rate = "rate",
        /// The request proves no identity.
        SignIn = "sign_in",
        /// The node has as many sockets as it may have.
        Full = "full",
        /// The user or the tenant has as many sockets as it may have.
        Quota = "quota",
        /// Anything else, such as a store that does not answer.
        Other = "other",
    }
}

labels! {
    /// What a request is for.
    pub enum RequestKind: "route" {
        /// The API of documents and their sharing.
        Documents = "/api/documents",
        /// The API of sessions and accounts.
        Accounts = "/api/accounts",
        /// The upgrade to a WebSocket.
        Socket = "/ws",
        /// A health check.
        Probe = "/healthz",
        /// The page and its files.
        Page = "/",
        /// No route.
        Unknown = "unknown",
    }
}

labels! {
    /// The class of a status.
    pub enum StatusClass: "status" {
        /// An upgrade.
        Informational = "1xx",
        /// Success.
        Success = "2xx",
        /// A redirect, or content that has not changed.
        Redirect = "3xx",
        /// Too many requests.
        TooMany = "429",
        /// Another fault of the request.
        Client = "4xx",
        /// A fault or a limit of the server.
        Server = "5xx",
    }
}

labels! {
    /// How an attempt to sign in with a password ended.
    pub enum SignInResult: "result" {
        /// The user is signed in.
        Succeeded = "ok",
        /// The name or the password is wrong, or the account is disabled.
        Rejected = "rejected",
        /// Too many attempts of the account or the address.
        Throttled = "throttled",
        /// Too many passwords wait to be checked, or the store does not answer.
        Unavailable = "unavailable",
    }
}

labels! {
    /// What delayed a socket's messages.
    pub enum ThrottleLimit: "limit" {
        /// The messages of the socket itself.
        Socket = "socket",
        /// The messages of all sockets of a user or tenant, or the ops on a document.
        Shared = "shared",
    }
}

metrics! {
    /// The metrics of the gateway.
    pub struct GatewayMetrics {
        /// Open WebSockets.
        pub sockets_open: Gauge;
        /// WebSockets that were opened.
        pub sockets_accepted: Counter;
        /// WebSockets that were not opened.
        pub sockets_refused: Labelled<SocketRefusal, Counter>;
        /// WebSockets that were closed.
        pub sockets_closed: Labelled<SocketClose, Counter>;
        /// Messages of clients.
        pub client_messages: Counter;
        /// Bytes of text messages of clients.
        pub client_message_bytes: Counter;
        /// Times that a socket was not read for a while because of a rate limit.
        pub messages_throttled: Labelled<ThrottleLimit, Counter>;
        /// Responses to HTTP requests.
        pub http_requests: Labelled<(RequestKind, StatusClass), Counter>;
        /// Time to answer an HTTP request, without the time to write it.
        pub http_request_seconds: Labelled<RequestKind, Seconds>;
        /// Attempts to sign in with a password.
        pub sign_ins: Labelled<SignInResult, Counter>;
        /// Requests and sockets with a token or cookie that proves no identity.
        pub credentials_refused: Counter;
        /// 1 while the node accepts sockets and edits, 0 while it starts or stops.
        pub serving: Gauge;
    }
}

impl GatewayMetrics {
    /// A socket was closed for this reason; `None` if its connection ended first.
    pub(super) fn socket_closed(&self, reason: Option<CloseReason>) {
        let reason = reason.map_or(SocketClose::Lost, SocketClose::of);
        self.sockets_closed.of(reason).inc();
    }

    /// A socket was not opened.
    pub(super) fn socket_refused(&self, error: &ApiError) {
        let reason = match error {
            ApiError::Restarting => SocketRefusal::Restarting,
            ApiError::OtherOrigin => SocketRefusal::Origin,
            ApiError::SocketRate => SocketRefusal::Rate,
            ApiError::SignInRequired => SocketRefusal::SignIn,
            ApiError::SocketsExhausted => SocketRefusal::Full,
            ApiError::SocketQuota => SocketRefusal::Quota,
            _ => SocketRefusal::Other,
        };
        self.sockets_refused.of(reason).inc();
    }

    /// A message of a client arrived.
    pub(super) fn message_received(&self, bytes: usize) {
        self.client_messages.inc();
        self.client_message_bytes.inc_by(bytes as u64);
    }

    /// A socket is not read for this time. Nothing is counted if it is zero.
    pub(super) fn throttled(&self, limit: ThrottleLimit, wait: Duration) {
        if !wait.is_zero() {
            self.messages_throttled.of(limit).inc();
        }
    }
}

impl SignInResult {
    /// The result of an attempt.
    pub(super) fn of<T>(attempt: &Result<T, AuthError>) -> Self {
        match attempt {
            Ok(_) => Self::Succeeded,
            Err(AuthError::Throttled(_)) => Self::Throttled,
            Err(AuthError::Overloaded | AuthError::Store(_)) => Self::Unavailable,
            Err(AuthError::Rejected(_) | AuthError::Invalid(_) | AuthError::Quota(_)) => {
                Self::Rejected
            }
        }
    }
}

impl SocketClose {
    fn of(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Normal => Self::Client,
            CloseReason::ConnectionLost => Self::Lost,
            CloseReason::IdleTimeout => Self::Idle,
            CloseReason::ReservedBits
            | CloseReason::MalformedFrame
            | CloseReason::BinaryMessage
            | CloseReason::InvalidUtf8
            | CloseReason::NotAnObject
            | CloseReason::MessageTooLarge => Self::Malformed,
            CloseReason::Restarting | CloseReason::Rebalanced | CloseReason::DocumentClosed => {
                Self::Moved
            }
            CloseReason::ReadsTooSlowly => Self::Slow,
            CloseReason::Overloaded
            | CloseReason::SubscriptionFailed
            | CloseReason::PermissionsUnknown
            | CloseReason::RequestRejected(_) => Self::Overloaded,
            CloseReason::SignedOut | CloseReason::AccessLost => Self::Access,
            CloseReason::HistoryChanged => Self::History,
        }
    }
}

impl RequestKind {
    /// The kind of a request by the pattern of its route, below the base path.
    pub(super) fn of(pattern: Option<&str>, socket_path: &str) -> Self {
        let Some(pattern) = pattern else {
            return Self::Unknown;
        };
        match pattern {
            "/healthz" | "/readyz" => Self::Probe,
            "/api/{rest:.*}" => Self::Unknown,
            _ if pattern.starts_with("/api/documents") || pattern.starts_with("/api/links") => {
                Self::Documents
            }
            _ if pattern.starts_with("/api/") => Self::Accounts,
            _ if pattern.trim_end_matches('/') == socket_path => Self::Socket,
            _ => Self::Page,
        }
    }
}

impl StatusClass {
    pub(super) fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            100..=199 => Self::Informational,
            200..=299 => Self::Success,
            300..=399 => Self::Redirect,
            429 => Self::TooMany,
            400..=499 => Self::Client,
            _ => Self::Server,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_counted_by_its_kind() {
        for (pattern, kind) in [
            (Some("/"), RequestKind::Page),
            (Some("/d/{id}"), RequestKind::Page),
            (Some("/{path:.*}"), RequestKind::Page),
            (Some("/ws"), RequestKind::Socket),
            (Some("/ws/"), RequestKind::Socket),
            (Some("/healthz"), RequestKind::Probe),
            (Some("/readyz"), RequestKind::Probe),
            (
                Some("/api/documents/{collection}/{id}"),
                RequestKind::Documents,
            ),
            (Some("/api/links"), RequestKind::Documents),
            (Some("/api/sign-in"), RequestKind::Accounts),
            (Some("/api/{rest:.*}"), RequestKind::Unknown),
            (None, RequestKind::Unknown),
        ] {
            assert_eq!(RequestKind::of(pattern, "/ws"), kind, "{pattern:?}");
        }
    }
}
