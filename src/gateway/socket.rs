//! One WebSocket's two ends: the response body that writes its outbox, and the knife for a peer that does not let go.

use std::any::Any;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use actix_web::web::Bytes;
use socket2::{SockRef, Socket};

use crate::node::Outbox;

/// The body of an upgrade's response: what is in the outbox, gathered for each write.
#[derive(Debug)]
pub(super) struct SocketBody {
    outbox: Arc<Outbox>,
    /// What the handshake made for its own way of sending. Its end tells the reading half that the connection is gone.
    _kept: BoxBody,
}

impl SocketBody {
    pub(super) fn new(outbox: Arc<Outbox>, kept: BoxBody) -> Self {
        Self {
            outbox,
            _kept: kept,
        }
    }
}

impl MessageBody for SocketBody {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.outbox.poll_take(cx).map(|frames| frames.map(Ok))
    }
}

impl Drop for SocketBody {
    fn drop(&mut self) {
        // The connection is gone, whoever ended it: nothing more need be queued.
        self.outbox.close(1006, "");
    }
}

/// A second handle on a connection, to end it where waiting for the peer would take for ever: a peer that does not read
/// lets neither a close frame nor the end of the stream through.
#[derive(Debug, Clone)]
pub(super) struct Knife(Arc<Socket>);

impl Knife {
    /// Ends the connection, whatever is still to be written.
    pub(super) fn cut(&self) {
        // It may have ended by itself.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// How long the network may leave what we sent unacknowledged.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// Prepares a fresh connection: no waiting to fill packets, no waiting for a peer that is gone, and a [`Knife`].
pub(super) fn accepted(connection: &dyn Any, extensions: &mut Extensions) {
    let encrypted = || {
        let stream = connection.downcast_ref::<TlsStream<TcpStream>>()?;
        Some(stream.get_ref().0)
    };
    let plain = connection.downcast_ref::<TcpStream>();
    let Some(tcp) = plain.or_else(encrypted) else {
        return;
    };
    let socket = SockRef::from(tcp);
    let prepared = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX)))
        .and_then(|()| socket.try_clone());
    match prepared {
        Ok(clone) => {
            extensions.insert(Knife(Arc::new(clone)));
        }
        Err(error) => tracing::warn!(%error, "connection not prepared"),
    }
}
