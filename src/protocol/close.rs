//! Why the server closes a WebSocket: the close code (RFC 6455, section 7.4) and the reason text of the close frame.

use std::borrow::Cow;

use super::refusal::Code;

/// The close codes that the server uses. Codes from 4000 on are specific to this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    /// The connection has served its purpose.
    Normal = 1000,
    /// The client does not answer.
    GoingAway = 1001,
    /// The client violates RFC 6455.
    ProtocolError = 1002,
    /// The client sends data of a kind that the server does not accept.
    UnsupportedData = 1003,
    /// The connection is lost. Never sent in a frame.
    Abnormal = 1006,
    /// The content of a message is invalid.
    InvalidPayload = 1007,
    /// A message is larger than `gateway.message_refused_bytes_max`.
    MessageTooBig = 1009,
    /// The client should reconnect at once, possibly to another node.
    ServiceRestart = 1012,
    /// The client should reconnect after a pause.
    TryAgainLater = 1013,
    /// The session or token of the user has ended.
    SignedOut = 4401,
    /// The user may no longer read a document that the socket is subscribed to.
    AccessLost = 4403,
    /// The server was restored from a backup: the client must discard its documents and load them again.
    HistoryChanged = 4409,
}

/// Why a socket is closed. Each reason has one code and one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed the socket, or its connection is gone.
    Normal,
    /// Nothing arrived within the idle timeout, in spite of pings.
    IdleTimeout,
    /// A frame has a reserved bit or opcode.
    ReservedBits,
    /// The bytes are not WebSocket frames.
    MalformedFrame,
    /// A binary message: the protocol is text only.
    BinaryMessage,
    /// The writer of the socket has ended.
    ConnectionLost,
    /// A text message is not UTF-8.
    InvalidUtf8,
    /// A message is not a JSON object, so that it cannot be answered.
    NotAnObject,
    /// A message is too large to be read to its end.
    MessageTooLarge,
    /// The server stops, or the node hands its documents over.
    Restarting,
    /// Another node has fewer sockets.
    Rebalanced,
    /// The task of a document that the socket is subscribed to has ended.
    DocumentClosed,
    /// Edits could not be accepted within the time limit for edits.
    Overloaded,
    /// More bytes wait for the client than its outbox may hold, or a write makes no progress.
    ReadsTooSlowly,
    /// A subscription could not be made for the client: it must subscribe again.
    SubscriptionFailed,
    /// Permissions have changed and the store does not return the new ones.
    PermissionsUnknown,
    /// A request was rejected that cannot be answered with an error: the client would discard its edit, or expects no
    /// answer.
    RequestRejected(Code),
    /// The session or token of the user has ended.
    SignedOut,
    /// The user may no longer read a document that the socket is subscribed to.
    AccessLost,
    /// The history of the log has changed.
    HistoryChanged,
}

impl CloseReason {
    /// The code in the close frame.
    #[must_use]
    pub fn code(self) -> CloseCode {
        match self {
            Self::Normal => CloseCode::Normal,
            Self::IdleTimeout => CloseCode::GoingAway,
            Self::ReservedBits | Self::MalformedFrame => CloseCode::ProtocolError,
            Self::BinaryMessage => CloseCode::UnsupportedData,
            Self::ConnectionLost => CloseCode::Abnormal,
            Self::InvalidUtf8 | Self::NotAnObject => CloseCode::InvalidPayload,
            Self::MessageTooLarge => CloseCode::MessageTooBig,
            Self::Restarting | Self::Rebalanced | Self::DocumentClosed => CloseCode::ServiceRestart,
            Self::Overloaded
            | Self::ReadsTooSlowly
            | Self::SubscriptionFailed
            | Self::PermissionsUnknown
            | Self::RequestRejected(_) => CloseCode::TryAgainLater,
            Self::SignedOut => CloseCode::SignedOut,
            Self::AccessLost => CloseCode::AccessLost,
            Self::HistoryChanged => CloseCode::HistoryChanged,
        }
    }

    /// The text in the close frame, at most 123 bytes.
    #[must_use]
    pub fn text(self) -> Cow<'static, str> {
        let text = match self {
            Self::Normal | Self::ConnectionLost => "",
            Self::IdleTimeout => "idle timeout: no message and no pong received",
            Self::ReservedBits => "frame with a reserved bit or opcode",
            Self::MalformedFrame => "malformed WebSocket frame",
            Self::BinaryMessage => "binary messages are not supported",
            Self::InvalidUtf8 => "text message is not UTF-8",
            Self::NotAnObject => "message is not a JSON object",
            Self::MessageTooLarge => "message is too large",
            Self::Restarting => "server is restarting: reconnect",
            Self::Rebalanced => "rebalancing to a node with fewer sockets: reconnect",
            Self::DocumentClosed => "document was closed: reconnect with your version",
            Self::Overloaded => {
                "ERR_BUSY: too many edits are waiting: reconnect in 5 s and send them again"
            }
            Self::ReadsTooSlowly => "client reads too slowly: reconnect with your version",
            Self::SubscriptionFailed => "subscription failed: reconnect with your version",
            Self::PermissionsUnknown => "permissions changed and could not be read: reconnect",
            Self::RequestRejected(code) => {
                return Cow::Owned(format!(
                    "{}: request rejected: reconnect and send it again",
                    code.as_str()
                ));
            }
            Self::SignedOut => "session has ended: sign in again",
            Self::AccessLost => "a document is no longer shared with you",
            Self::HistoryChanged => {
                "ERR_HISTORY_CHANGED: server was restored to an earlier state: load the document again"
            }
        };
        Cow::Borrowed(text)
    }
}
