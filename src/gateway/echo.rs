//! An echo server on the WebSocket code of this server, for the conformance suite (`tests/autobahn`).

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, rt, web};
use actix_ws::AggregatedMessage;
use tokio::select;

use super::connection_deadlines::ConnectionTimeouts;
use super::frame_encoder::ShareDbEncoder;
use super::frame_limiter::MessageLimits;
use super::server::{self, Bounds};
use super::upgrade::{self, MessageStream};
use crate::node::{Outbox, SnapshotBudget};
use crate::protocol::{CloseReason, Frames, binary_frame, pong_frame};

/// The largest message of the suite has 16 MiB.
const MESSAGE_BYTES_MAX: usize = 17 << 20;

const BOUNDS: Bounds = Bounds {
    sockets_max: 1_000,
    connections_max: 1_000,
    address_connections_max: None,
    timeouts: ConnectionTimeouts {
        request: Duration::from_secs(10),
        response: Duration::from_secs(10),
    },
};

const LIMITS: MessageLimits = MessageLimits {
    bytes_max: MESSAGE_BYTES_MAX,
    refused_bytes_max: MESSAGE_BYTES_MAX,
};

/// How long the suite may take to close its side.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends each message on the sockets of `listener` back, until the future is dropped.
///
/// # Errors
/// If the listener cannot be used.
pub async fn echo(listener: TcpListener) -> io::Result<()> {
    let app = || App::new().default_service(web::get().to(open));
    server::serve(app, listener, None, &BOUNDS)?.await
}

async fn open(request: HttpRequest, payload: web::Payload) -> actix_web::Result<HttpResponse> {
    let outbox = Arc::new(Outbox::new(
        2 * MESSAGE_BYTES_MAX,
        &ShareDbEncoder,
        Some(upgrade::wake_queue()),
    ));
    let snapshots = Arc::new(SnapshotBudget::new(usize::MAX));
    let open = upgrade::accept(&request, payload, LIMITS, outbox.clone(), snapshots);
    let (response, messages) = open.await?;
    rt::spawn(answer(messages, outbox));
    Ok(response)
}

async fn answer(mut messages: MessageStream, outbox: Arc<Outbox>) {
    let reason = loop {
        let message = select! {
            () = outbox.closed() => break CloseReason::Normal,
            message = messages.next() => message,
        };
        let reply = match message {
            Some(Ok(AggregatedMessage::Text(text))) => Frames::one(text.as_bytes()),
            Some(Ok(AggregatedMessage::Binary(bytes))) => binary_frame(&bytes),
            Some(Ok(AggregatedMessage::Ping(payload))) => pong_frame(&payload),
            Some(Ok(AggregatedMessage::Pong(_))) => continue,
            Some(Ok(AggregatedMessage::Close(_))) | None => break CloseReason::Normal,
            Some(Err(error)) => break upgrade::close_reason(&error).unwrap_or(CloseReason::Normal),
        };
        if outbox.push(reply).is_err() {
            break CloseReason::ReadsTooSlowly;
        }
    };
    outbox.close(reason);
    messages.end(&outbox, CLOSE_TIMEOUT).await;
}
