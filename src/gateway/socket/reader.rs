//! The bytes that a WebSocket's client sends.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, MessageBody};
use actix_web::error::PayloadError;
use actix_web::web::{Bytes, Payload};
use futures_util::Stream;
use tokio::io::ReadBuf;

use super::{ConnectionHandle, ConnectionOwner};

/// The bytes that the client sends: first those that HTTP had read before the WebSocket took over, then those of the
/// connection.
pub(in crate::gateway) struct SocketReader {
    connection: ConnectionHandle,
    early: Option<Payload>,
}

impl SocketReader {
    /// `early` is the body of the upgrade request.
    pub(in crate::gateway) fn new(connection: ConnectionHandle, early: Payload) -> Self {
        Self {
            connection,
            early: Some(early),
        }
    }
}

/// The most bytes of one read.
const READ_BYTES: usize = 16 << 10;

thread_local! {
    /// The buffer that all sockets of a thread read into, one after the other.
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

impl Stream for SocketReader {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let shared = &this.connection.0;
        if let Some(early) = &mut this.early {
            match Pin::new(early).poll_next(cx) {
                // Copied, because a slice would keep the whole buffer of HTTP alive.
                Poll::Ready(Some(Ok(bytes))) => {
                    return Poll::Ready(Some(Ok(Bytes::copy_from_slice(&bytes))));
                }
                Poll::Ready(Some(Err(_)) | None) => this.early = None,
                Poll::Pending if shared.owner.get() == ConnectionOwner::Ended => {
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    // HTTP ends the body when it is released, but not when it is dropped: wait for that too.
                    let _ = shared.poll_owned(cx);
                    return Poll::Pending;
                }
            }
        }
        if !ready!(shared.poll_owned(cx)) {
            return Poll::Ready(None);
        }
        READ_BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            let read = ready!(shared.stream.borrow_mut().poll_read(cx, &mut buffer));
            let bytes = buffer.filled();
            let has_ended = read.is_err() || bytes.is_empty();
            Poll::Ready((!has_ended).then(|| Ok(Bytes::copy_from_slice(bytes))))
        })
    }
}

/// The body of the response to an upgrade. It is empty, and ends when HTTP no longer owns the connection.
#[derive(Debug)]
pub(in crate::gateway) struct UpgradeBody(ConnectionHandle);

impl UpgradeBody {
    pub(in crate::gateway) fn new(connection: ConnectionHandle) -> Self {
        Self(connection)
    }
}

impl MessageBody for UpgradeBody {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        // HTTP wakes itself when it loses the connection.
        if self.0.0.is_owned_by_http() {
            Poll::Pending
        } else {
            Poll::Ready(None)
        }
    }
}
