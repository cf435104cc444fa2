//! How an HTTP request becomes a WebSocket.

use std::cell::OnceCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::ws::ProtocolError;
use actix_web::body::BoxBody;
use actix_web::dev::Payload;
use actix_web::error::{ErrorInternalServerError, PayloadError};
use actix_web::rt;
use actix_web::rt::task::JoinHandle;
use actix_web::rt::time::timeout;
use actix_web::{FromRequest, HttpRequest, HttpResponse, web};
use actix_ws::{AggregatedMessage, AggregatedMessageStream};
use futures_util::{Stream, StreamExt};

use super::frame_limiter::{FrameLimiter, MessageLimits, ReadGate};
use super::request_auth;
use super::socket::{ConnectionHandle, Incoming, NoBody};
use crate::node::{Outbox, SnapshotBudget, WakeQueue};
use crate::protocol::CloseReason;

/// Shakes hands. From the answer on, what is in the outbox is written to the socket, and the stream is what the client
/// says in messages within `limits`.
///
/// # Errors
/// When the request is not one for a WebSocket.
pub(super) async fn accept(
    request: &HttpRequest,
    payload: web::Payload,
    limits: MessageLimits,
    outbox: Arc<Outbox>,
    snapshots: Arc<SnapshotBudget>,
) -> actix_web::Result<(HttpResponse, MessageStream)> {
    let socket = request.conn_data::<ConnectionHandle>().cloned();
    let socket = socket.ok_or_else(|| ErrorInternalServerError("no connection to take over"))?;
    let incoming = Incoming::new(socket.clone(), payload);
    let watched = FrameLimiter::new(incoming, limits, outbox.clone());
    let passage = watched.passage();
    let mut watched = Payload::Stream {
        payload: Box::pin(watched) as Pin<Box<dyn Stream<Item = Result<web::Bytes, PayloadError>>>>,
    };
    let payload = web::Payload::from_request(request, &mut watched).await?;
    // The handshake's own way of sending encodes each frame for each socket; ours sends the same bytes to all.
    let (response, _, stream) =
        actix_ws::handle_with_protocols(request, payload, &[request_auth::SUBPROTOCOL])?;
    let stream = stream
        .max_frame_size(limits.bytes_max)
        .aggregate_continuations()
        .max_continuation_size(limits.bytes_max);
    let (response, answer) = response.into_parts();
    socket.take_over();
    let writer = rt::spawn(socket.clone().write(outbox, snapshots));
    let messages = MessageStream {
        stream,
        is_over: false,
        passage,
        writer,
        socket: socket.clone(),
        _answer: answer,
    };
    let response = response.set_body(NoBody::new(socket));
    Ok((response.map_into_boxed_body(), messages))
}

/// What a client says, message by message.
pub(super) struct MessageStream {
    stream: AggregatedMessageStream,
    /// Whether the client has closed, or said what cannot be gone on from.
    is_over: bool,
    /// What lets its bytes pass.
    passage: Rc<ReadGate>,
    /// Writes what is in the outbox.
    writer: JoinHandle<()>,
    socket: ConnectionHandle,
    /// What the handshake would have sent by: its end would tell the stream that the connection is gone.
    _answer: BoxBody,
}

impl MessageStream {
    /// The next one; `None`: the connection is at its end. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Result<AggregatedMessage, ProtocolError>> {
        loop {
            let message = poll_fn(|cx| self.poll_next(cx)).await;
            let is_data = match &message {
                Some(Ok(AggregatedMessage::Text(_) | AggregatedMessage::Binary(_))) => true,
                Some(Err(error)) => is_bad_text(error),
                Some(Ok(_)) | None => false,
            };
            // The rest of a message that was refused.
            if is_data && self.passage.takes_broken() {
                continue;
            }
            self.is_over |= match &message {
                Some(Ok(said)) => matches!(said, AggregatedMessage::Close(_)),
                Some(Err(_)) | None => true,
            };
            return message;
        }
    }

    /// Takes what has passed; only when there is nothing more, one more portion of bytes passes.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<AggregatedMessage, ProtocolError>>> {
        loop {
            if let Poll::Ready(message) = self.stream.poll_next_unpin(cx) {
                return Poll::Ready(message);
            }
            if self.passage.is_wanted() {
                // Nothing more has come.
                return Poll::Pending;
            }
            self.passage.want();
        }
    }

    /// How many frames the client has sent since this was asked last, besides one for each message.
    pub(super) fn take_extra_frames(&self) -> u32 {
        self.passage.take_extra_frames()
    }

    /// Ends a socket whose outbox is closed, as RFC 6455 has it in 7.1.1: what is queued, the close frame last, is written
    /// while the peer reads; when both have said that they close, the server is the first to end the connection. All of it
    /// takes at most so long: a peer that does not read is cut off.
    pub(super) async fn end(mut self, outbox: &Outbox, patience: Duration) {
        let rest = async {
            while !self.is_over && !self.passage.is_over() {
                self.next().await;
            }
            outbox.release();
            let _ = (&mut self.writer).await;
            while matches!(self.next().await, Some(Ok(_))) {}
        };
        let _ = timeout(patience, rest).await;
        self.socket.cut();
    }
}

/// What a socket closes with on which something came that is no message; `None`: there is nobody to tell.
pub(super) fn close_reason(error: &ProtocolError) -> Option<CloseReason> {
    match error {
        ProtocolError::Overflow => Some(CloseReason::MessageTooLarge),
        error if is_bad_text(error) => Some(CloseReason::InvalidUtf8),
        ProtocolError::Io(_) => None,
        _ => Some(CloseReason::MalformedFrame),
    }
}

/// Whether a message was no text.
fn is_bad_text(error: &ProtocolError) -> bool {
    matches!(error, ProtocolError::Io(error) if error.kind() == io::ErrorKind::InvalidData)
}

/// The bell of this worker's sockets: a worker is one thread.
pub(super) fn wake_queue() -> WakeQueue {
    thread_local! {
        static QUEUE: OnceCell<WakeQueue> = const { OnceCell::new() };
    }
    QUEUE.with(|cell| {
        let ring = || {
            let (queue, task) = WakeQueue::new();
            rt::spawn(task.run());
            queue
        };
        cell.get_or_init(ring).clone()
    })
}
