//! The upgrade of an HTTP request to a WebSocket, and the messages of its client.

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
use super::socket::{ConnectionHandle, SocketReader, UpgradeBody};
use crate::node::{Outbox, SnapshotBudget, WakeQueue};
use crate::protocol::CloseReason;

/// Accepts a WebSocket handshake. Returns the response, and the messages of the client within `limits`. A task writes the
/// frames of the outbox to the connection once the response is written.
///
/// # Errors
/// If the request is no WebSocket handshake.
pub(super) async fn accept(
    request: &HttpRequest,
    payload: web::Payload,
    limits: MessageLimits,
    outbox: Arc<Outbox>,
    snapshots: Arc<SnapshotBudget>,
) -> actix_web::Result<(HttpResponse, MessageStream)> {
    let connection = request.conn_data::<ConnectionHandle>().cloned();
    let connection =
        connection.ok_or_else(|| ErrorInternalServerError("no connection to take over"))?;
    // Put the frame limiter between the connection and the codec.
    let reader = SocketReader::new(connection.clone(), payload);
    let limited = FrameLimiter::new(reader, limits, outbox.clone());
    let gate = limited.gate();
    let mut limited = Payload::Stream {
        payload: Box::pin(limited) as Pin<Box<dyn Stream<Item = Result<web::Bytes, PayloadError>>>>,
    };
    let payload = web::Payload::from_request(request, &mut limited).await?;
    // The sender of actix-ws is not used: it encodes each frame for each socket, and the outbox sends the same bytes to all.
    let (response, _, stream) =
        actix_ws::handle_with_protocols(request, payload, &[request_auth::SUBPROTOCOL])?;
    let stream = stream
        .max_frame_size(limits.bytes_max)
        .aggregate_continuations()
        .max_continuation_size(limits.bytes_max);
    let (response, body) = response.into_parts();
    // Take the connection over.
    connection.take_over();
    let writer = rt::spawn(connection.clone().write(outbox, snapshots));
    let messages = MessageStream {
        stream,
        has_ended: false,
        gate,
        writer,
        connection: connection.clone(),
        _body: body,
    };
    let response = response.set_body(UpgradeBody::new(connection));
    Ok((response.map_into_boxed_body(), messages))
}

/// The messages of a WebSocket's client.
pub(super) struct MessageStream {
    stream: AggregatedMessageStream,
    /// Whether the client has closed the socket or has sent invalid frames.
    has_ended: bool,
    gate: Rc<ReadGate>,
    /// The task that writes the frames of the outbox.
    writer: JoinHandle<()>,
    connection: ConnectionHandle,
    /// The body that actix-ws made for the response. If it were dropped, the stream would end.
    _body: BoxBody,
}

impl MessageStream {
    /// The next message; `None` if the connection has ended. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Result<AggregatedMessage, ProtocolError>> {
        loop {
            let message = poll_fn(|cx| self.poll_next(cx)).await;
            let is_data = match &message {
                Some(Ok(AggregatedMessage::Text(_) | AggregatedMessage::Binary(_))) => true,
                Some(Err(error)) => is_invalid_utf8(error),
                Some(Ok(_)) | None => false,
            };
            // Skip what the codec received of a message that the frame limiter has rejected.
            if is_data && self.gate.is_rest_of_rejected() {
                continue;
            }
            self.has_ended |= match &message {
                Some(Ok(message)) => matches!(message, AggregatedMessage::Close(_)),
                Some(Err(_)) | None => true,
            };
            return message;
        }
    }

    /// Takes the messages of the bytes that have passed the gate. Opens it for more bytes when there are none left.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<AggregatedMessage, ProtocolError>>> {
        loop {
            if let Poll::Ready(message) = self.stream.poll_next_unpin(cx) {
                return Poll::Ready(message);
            }
            if self.gate.is_open() {
                // No bytes have arrived.
                return Poll::Pending;
            }
            self.gate.open();
        }
    }

    /// How many frames have arrived since the last call, without the last frame of each message.
    pub(super) fn take_extra_frames(&self) -> u32 {
        self.gate.take_extra_frames()
    }

    /// Ends a socket after its outbox was closed, as in RFC 6455, section 7.1.1: queued frames are written while the client
    /// reads, the close frame last. When both sides have sent a close frame, the server ends the connection. Takes at most
    /// `close_timeout`: then the connection is aborted.
    pub(super) async fn end(mut self, outbox: &Outbox, close_timeout: Duration) {
        let close = async {
            while !self.has_ended && !self.gate.is_closed() {
                self.next().await;
            }
            outbox.release();
            let _ = (&mut self.writer).await;
            while matches!(self.next().await, Some(Ok(_))) {}
        };
        let _ = timeout(close_timeout, close).await;
        self.connection.abort();
    }
}

/// The close reason for invalid frames. `None` if the connection has ended.
pub(super) fn close_reason(error: &ProtocolError) -> Option<CloseReason> {
    match error {
        ProtocolError::Overflow => Some(CloseReason::MessageTooLarge),
        error if is_invalid_utf8(error) => Some(CloseReason::InvalidUtf8),
        ProtocolError::Io(_) => None,
        _ => Some(CloseReason::MalformedFrame),
    }
}

/// Whether a text message is not UTF-8: the codec reports it as an IO error.
fn is_invalid_utf8(error: &ProtocolError) -> bool {
    matches!(error, ProtocolError::Io(error) if error.kind() == io::ErrorKind::InvalidData)
}

/// The queue that wakes the sockets of this thread.
pub(super) fn wake_queue() -> WakeQueue {
    thread_local! {
        static WAKE_QUEUE: OnceCell<WakeQueue> = const { OnceCell::new() };
    }
    WAKE_QUEUE.with(|cell| {
        let start = || {
            let (queue, task) = WakeQueue::new();
            rt::spawn(task.run());
            queue
        };
        cell.get_or_init(start).clone()
    })
}
