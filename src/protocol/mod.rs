//! The ShareDB wire protocol 1.2, as the npm client of sharedb 7 implements it. Requests are validated here while they are
//! parsed; other modules rely on that. Replies are encoded here as whole WebSocket frames, once for all their recipients.

mod close;
mod frame;
mod oversized_message;
mod refusal;
mod reply;
mod request;

pub use close::{CloseCode, CloseReason};
#[cfg(feature = "echo")]
pub use frame::binary_frame;
pub use frame::{Frames, close_frame, ping_frame, pong_frame};
pub use oversized_message::OversizedMessage;
pub use refusal::{Code, Refusal};
pub use reply::{
    bulk_reply, commit, done, encode_snapshot, encode_snapshot_with_notice, error, handshake,
    history, presence, presence_requested, presence_subscribed, rights, slowed, snapshot_reply,
};
pub use request::{
    BadRequest, BulkRequest, ClientMessage, EchoedFields, SEQ_MAX, SubmitRequest, parse,
};
