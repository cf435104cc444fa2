//! The connection as HTTP sees it.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_web::rt::time::Sleep;
use actix_web::web::Bytes;
use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{ClientStream, ConnectionHandle, ConnectionOwner, SharedConnection};
use crate::gateway::builtin_responses;
use crate::gateway::connection_deadlines::ConnectionDeadlines;

/// The connection as HTTP sees it: a stream that fails if the client is overdue, and that ends when a WebSocket takes the
/// connection over.
#[derive(Debug)]
pub(in crate::gateway) struct HttpStream {
    shared: Rc<SharedConnection>,
    /// Wakes HTTP when the client is overdue. Created when HTTP waits for the first time.
    timer: Option<Pin<Box<Sleep>>>,
    /// What is left to write of the connection's last response if headers were added to it.
    last_response: Bytes,
}

impl HttpStream {
    /// The HTTP side of a new connection, and the address of its peer.
    pub(in crate::gateway) fn new(
        stream: ClientStream,
        deadlines: ConnectionDeadlines,
    ) -> (Self, Option<SocketAddr>) {
        stream.set_options();
        let peer = stream.tcp().peer_addr().ok();
        let shared = SharedConnection {
            stream: RefCell::new(stream),
            deadlines,
            owner: Cell::new(ConnectionOwner::Http),
            waiting: RefCell::default(),
        };
        let stream = Self {
            shared: Rc::new(shared),
            timer: None,
            last_response: Bytes::new(),
        };
        (stream, peer)
    }

    /// The side of a WebSocket.
    pub(in crate::gateway) fn handle(&self) -> ConnectionHandle {
        ConnectionHandle(self.shared.clone())
    }

    /// Writes as much as the network takes.
    fn poll_write_some(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.shared.stream.borrow_mut().poll_write(cx, bytes);
        let Poll::Ready(written) = written else {
            self.shared.deadlines.write_blocked();
            return self.poll_overdue(cx);
        };
        if let Ok(written) = written {
            self.shared.deadlines.bytes_written(written);
        }
        Poll::Ready(written)
    }

    /// Writes the rest of the last response.
    fn poll_last_response(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.last_response.is_empty() {
            let bytes = self.last_response.clone();
            let written = ready!(self.poll_write_some(cx, &bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.last_response.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Pending until the client is overdue; then fails.
    fn poll_overdue<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if !self.shared.deadlines.poll_overdue(&mut self.timer, cx) {
            return Poll::Pending;
        }
        self.shared.stream.borrow().reset_on_drop();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for HttpStream {
    fn drop(&mut self) {
        if self.shared.is_owned_by_http() {
            self.shared.pass_to(ConnectionOwner::Ended);
        }
    }
}

impl AsyncRead for HttpStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.shared.is_owned_by_http() {
            return Poll::Ready(Ok(()));
        }
        // Checked first, so that a client that sends without end is overdue too.
        if let Poll::Ready(overdue) = self.poll_overdue(cx) {
            return Poll::Ready(overdue);
        }
        self.shared.stream.borrow_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for HttpStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.shared.is_owned_by_http() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_last_response(cx))?;
        if let Some(completed) = builtin_responses::add_headers(bytes) {
            self.last_response = completed.into();
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(self.poll_write_some(cx, bytes))?;
        if let ConnectionOwner::HttpUntilWritten { .. } = self.shared.owner.get() {
            let owner = ConnectionOwner::HttpUntilWritten { has_written: true };
            self.shared.owner.set(owner);
        }
        Poll::Ready(Ok(written))
    }

    /// HTTP flushes when it has written a whole response, so the WebSocket takes over here.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shared.is_owned_by_http() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_last_response(cx))?;
        let flushed = self.shared.stream.borrow_mut().poll_flush(cx)?;
        if flushed.is_pending() {
            self.shared.deadlines.write_blocked();
            return self.poll_overdue(cx);
        }
        self.shared.deadlines.all_written();
        if self.shared.owner.get() == (ConnectionOwner::HttpUntilWritten { has_written: true }) {
            self.shared.pass_to(ConnectionOwner::WebSocket);
            // HTTP is polled again and reads the end of the stream.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shared.is_owned_by_http() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_last_response(cx))?;
        let ended = self.shared.stream.borrow_mut().poll_shutdown(cx)?;
        if ended.is_pending() {
            self.shared.deadlines.write_blocked();
            return self.poll_overdue(cx);
        }
        Poll::Ready(Ok(()))
    }
}
