//! A connection that HTTP serves first and a WebSocket then has alone.
//!
//! HTTP's dispatcher keeps two buffers of 8 KiB for as long as it lives, and copies all that it writes. So it lives only
//! until its answer to the upgrade is written: then it finds its end of the connection at an end and goes, and the two
//! tasks of the WebSocket read and write the connection itself. A silent socket has no buffer at all.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use actix_web::error::PayloadError;
use actix_web::rt::net::TcpStream;
use actix_web::rt::time::{Instant, Sleep, timeout};
use actix_web::web::{Bytes, Payload};
use bytes::Buf;
use futures_util::Stream;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::builtin_responses;
use super::connection_deadlines::ConnectionDeadlines;
use crate::node::{Outbox, SnapshotBudget};
use crate::protocol::CloseReason;

/// A client's connection.
pub(super) enum ClientStream {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

/// The connection as HTTP has it.
#[derive(Debug)]
pub(super) struct HttpStream {
    shared: Rc<Shared>,
    /// Wakes HTTP when its client is overdue; made when HTTP first waits.
    alarm: Option<Pin<Box<Sleep>>>,
    /// The rest of the connection's last answer, where that was written in other words than HTTP gave.
    last: Bytes,
}

/// The connection as its WebSocket has it. Two tasks of one thread use it: one reads, one writes.
#[derive(Debug, Clone)]
pub(super) struct ConnectionHandle(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    connection: RefCell<ClientStream>,
    /// How long HTTP waits for its client.
    deadlines: ConnectionDeadlines,
    holder: Cell<Holder>,
    /// The socket's two tasks, while HTTP has the connection.
    waiting: RefCell<Vec<Waker>>,
}

/// Who has the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Http,
    /// HTTP, until its last answer is written; whether the first of that is.
    HttpForNow {
        has_written: bool,
    },
    ConnectionHandle,
    Nobody,
}

/// How long the network may leave what we sent unacknowledged.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// How many bytes the kernel keeps for a connection before the network can take them. Without a bound, a client that
/// does not read has the kernel keep megabytes.
const UNSENT_BYTES_MAX: u32 = 128 << 10;

impl fmt::Debug for ClientStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tcp().fmt(f)
    }
}

impl ClientStream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Encrypted(tls) => tls.get_ref().0,
        }
    }

    /// Has the kernel discard what is not sent when the connection is dropped, instead of keeping it for a client that
    /// does not read.
    fn reset_on_drop(&self) {
        // It may have ended by itself.
        let _ = SockRef::from(self.tcp()).set_linger(Some(Duration::ZERO));
    }
}

impl HttpStream {
    /// Prepares a fresh connection: no waiting to fill packets, no waiting for a peer that is gone.
    pub(super) fn new(
        connection: ClientStream,
        deadlines: ConnectionDeadlines,
    ) -> (Self, Option<SocketAddr>) {
        let tcp = connection.tcp();
        let socket = SockRef::from(tcp);
        let prepared = socket
            .set_tcp_nodelay(true)
            .and_then(|()| socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX)))
            .and_then(|()| socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX));
        if let Err(error) = prepared {
            tracing::warn!(%error, "connection not prepared");
        }
        let peer = tcp.peer_addr().ok();
        let shared = Shared {
            connection: RefCell::new(connection),
            deadlines,
            holder: Cell::new(Holder::Http),
            waiting: RefCell::default(),
        };
        let end = Self {
            shared: Rc::new(shared),
            alarm: None,
            last: Bytes::new(),
        };
        (end, peer)
    }

    pub(super) fn socket(&self) -> ConnectionHandle {
        ConnectionHandle(self.shared.clone())
    }

    /// Writes what the network takes.
    fn poll_some(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.shared.connection.borrow_mut().poll_write(cx, bytes);
        let Poll::Ready(written) = written else {
            self.shared.deadlines.blocked();
            return self.poll_waiting(cx);
        };
        if let Ok(written) = written {
            self.shared.deadlines.written(written);
        }
        Poll::Ready(written)
    }

    /// Writes the rest of the last answer.
    fn poll_last(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.last.is_empty() {
            let last = self.last.clone();
            let written = ready!(self.poll_some(cx, &last))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.last.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// What HTTP waits for is not there: fails if the client is overdue.
    fn poll_waiting<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if !self.shared.deadlines.poll_overdue(&mut self.alarm, cx) {
            return Poll::Pending;
        }
        self.shared.connection.borrow().reset_on_drop();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Whether HTTP still has the connection.
    fn holds(&self) -> bool {
        matches!(
            self.shared.holder.get(),
            Holder::Http | Holder::HttpForNow { .. }
        )
    }
}

impl Shared {
    fn pass_to(&self, holder: Holder) {
        self.holder.set(holder);
        self.deadlines.release();
        self.waiting.take().into_iter().for_each(Waker::wake);
    }
}

impl Drop for HttpStream {
    fn drop(&mut self) {
        if self.holds() {
            self.shared.pass_to(Holder::Nobody);
        }
    }
}

impl AsyncRead for HttpStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.holds() {
            return Poll::Ready(Ok(()));
        }
        // Looked at first: a client that sends without end must not keep its connection by that.
        if let Poll::Ready(overdue) = self.poll_waiting(cx) {
            return Poll::Ready(overdue);
        }
        self.shared.connection.borrow_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for HttpStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.holds() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_last(cx))?;
        if let Some(completed) = builtin_responses::complete(bytes) {
            self.last = completed.into();
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(self.poll_some(cx, bytes))?;
        if let Holder::HttpForNow { .. } = self.shared.holder.get() {
            self.shared
                .holder
                .set(Holder::HttpForNow { has_written: true });
        }
        Poll::Ready(Ok(written))
    }

    /// HTTP flushes when all that it had to say is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.holds() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_last(cx))?;
        let flushed = self.shared.connection.borrow_mut().poll_flush(cx)?;
        if flushed.is_pending() {
            self.shared.deadlines.blocked();
            return self.poll_waiting(cx);
        }
        self.shared.deadlines.flushed();
        if self.shared.holder.get() == (Holder::HttpForNow { has_written: true }) {
            self.shared.pass_to(Holder::ConnectionHandle);
            // So that it comes to see its end.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.holds() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_last(cx))?;
        let ended = self.shared.connection.borrow_mut().poll_shutdown(cx)?;
        if ended.is_pending() {
            self.shared.deadlines.blocked();
            return self.poll_waiting(cx);
        }
        Poll::Ready(Ok(()))
    }
}

impl ConnectionHandle {
    /// How long HTTP waits for the client.
    pub(super) fn deadlines(&self) -> &ConnectionDeadlines {
        &self.0.deadlines
    }

    /// Has HTTP let go of the connection when its next answer is written.
    pub(super) fn take_over(&self) {
        if self.0.holder.get() == Holder::Http {
            self.0.holder.set(Holder::HttpForNow { has_written: false });
        }
    }

    /// Whether the client's end speaks TLS.
    pub(super) fn is_encrypted(&self) -> bool {
        matches!(&*self.0.connection.borrow(), ClientStream::Encrypted(_))
    }

    /// Whether the client is on this machine, or a proxy in front is.
    pub(super) fn is_local(&self) -> bool {
        let connection = self.0.connection.borrow();
        let to = connection.tcp().local_addr();
        to.is_ok_and(|to| to.ip().to_canonical().is_loopback())
    }

    /// Ends the connection, whatever is still to be written: a peer that does not read lets neither a close frame nor the
    /// end of the stream through.
    pub(super) fn cut(&self) {
        let connection = self.0.connection.borrow();
        // It may have ended by itself.
        let _ = SockRef::from(connection.tcp()).shutdown(Shutdown::Both);
    }

    /// Writes what is in the outbox until that ends, gathered for each write.
    pub(super) async fn write(self, outbox: Arc<Outbox>, snapshots: Arc<SnapshotBudget>) {
        let mut end = WriteEnd(self.0, outbox);
        if !poll_fn(|cx| end.0.poll_held(cx)).await {
            return;
        }
        while let Some(frames) = poll_fn(|cx| end.1.poll_take(cx)).await {
            if end.write_all(&frames, &snapshots).await.is_err() {
                return;
            }
        }
        // The peer may be gone; nothing more is said in any case.
        let _ = poll_fn(|cx| end.0.connection.borrow_mut().poll_shutdown(cx)).await;
    }
}

impl Shared {
    /// Waits until the socket has the connection; `false`: it ended before.
    fn poll_held(&self, cx: &Context<'_>) -> Poll<bool> {
        match self.holder.get() {
            Holder::Http | Holder::HttpForNow { .. } => {
                let mut waiting = self.waiting.borrow_mut();
                if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                    waiting.push(cx.waker().clone());
                }
                Poll::Pending
            }
            Holder::ConnectionHandle => Poll::Ready(true),
            Holder::Nobody => Poll::Ready(false),
        }
    }
}

/// The writing task's hold on its socket: when it ends, whatever ends it, nothing more need be queued.
struct WriteEnd(Rc<Shared>, Arc<Outbox>);

/// How long a write may make no progress until its reader counts as gone.
const STALLED_MAX: Duration = Duration::from_secs(30);

/// How often a write that makes no progress looks whether the node is short of memory.
const STALL_CHECK: Duration = Duration::from_secs(1);

/// While the node is short of memory for snapshots: how long a write may make no progress, and how many bytes a second
/// must be read after that.
const SHORT_STALLED_MAX: Duration = Duration::from_secs(3);
const SHORT_BYTES_PER_SECOND: u64 = 128 << 10;

impl WriteEnd {
    /// Writes all of `bytes`, as fast as the peer reads.
    ///
    /// # Errors
    /// When the connection is at its end, or the peer reads too slowly: then the outbox is closed.
    async fn write_all(&mut self, bytes: &[u8], short: &SnapshotBudget) -> io::Result<()> {
        let (begun, mut moved, mut done) = (Instant::now(), None, 0);
        while done < bytes.len() {
            let write = poll_fn(|cx| {
                self.0
                    .connection
                    .borrow_mut()
                    .poll_write(cx, &bytes[done..])
            });
            match timeout(STALL_CHECK, write).await {
                Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    done += written?;
                    moved = None;
                }
                Err(_) => {
                    moved.get_or_insert_with(Instant::now);
                }
            }
            let stalled = moved.map_or(Duration::ZERO, |since| since.elapsed() + STALL_CHECK);
            if is_too_slow(stalled, begun.elapsed(), done as u64, short.is_full()) {
                self.1.close_slow();
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        poll_fn(|cx| self.0.connection.borrow_mut().poll_flush(cx)).await
    }
}

/// Whether a write is given up that has lasted for `lasted`, made no progress for `stalled` and written `bytes`.
fn is_too_slow(stalled: Duration, lasted: Duration, bytes: u64, is_short: bool) -> bool {
    let wanted = lasted.saturating_sub(SHORT_STALLED_MAX).as_secs() * SHORT_BYTES_PER_SECOND;
    stalled >= STALLED_MAX || (is_short && (stalled >= SHORT_STALLED_MAX || bytes < wanted))
}

impl Drop for WriteEnd {
    fn drop(&mut self) {
        self.1.close(CloseReason::ConnectionLost);
    }
}

/// What the client sends: what HTTP had read already when it let go, then what comes from the connection.
pub(super) struct Incoming {
    socket: ConnectionHandle,
    early: Option<Payload>,
}

impl Incoming {
    pub(super) fn new(socket: ConnectionHandle, early: Payload) -> Self {
        Self {
            socket,
            early: Some(early),
        }
    }
}

/// How much is read at once, at most.
const READ_BYTES: usize = 16 << 10;

thread_local! {
    /// What a thread's sockets read into, one after the other.
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

impl Stream for Incoming {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(early) = &mut this.early {
            match Pin::new(early).poll_next(cx) {
                // Copied: who keeps a few bytes of HTTP's buffer keeps all of it.
                Poll::Ready(Some(Ok(bytes))) => {
                    return Poll::Ready(Some(Ok(Bytes::copy_from_slice(&bytes))));
                }
                Poll::Ready(Some(Err(_)) | None) => this.early = None,
                Poll::Pending if this.socket.0.holder.get() == Holder::Nobody => {
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    // HTTP ends the body when it lets go, but not when it is dropped.
                    let _ = this.socket.0.poll_held(cx);
                    return Poll::Pending;
                }
            }
        }
        if !ready!(this.socket.0.poll_held(cx)) {
            return Poll::Ready(None);
        }
        READ_BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            let mut connection = this.socket.0.connection.borrow_mut();
            let read = ready!(connection.poll_read(cx, &mut buffer));
            let bytes = buffer.filled();
            // However it ended, there is nothing more to read.
            let is_over = read.is_err() || bytes.is_empty();
            Poll::Ready((!is_over).then(|| Ok(Bytes::copy_from_slice(bytes))))
        })
    }
}

/// The body of an answer to an upgrade, which is none: it ends when HTTP has let go.
#[derive(Debug)]
pub(super) struct NoBody(ConnectionHandle);

impl NoBody {
    pub(super) fn new(socket: ConnectionHandle) -> Self {
        Self(socket)
    }
}

impl MessageBody for NoBody {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        match self.0.0.holder.get() {
            // HTTP wakes itself when it lets go.
            Holder::Http | Holder::HttpForNow { .. } => Poll::Pending,
            Holder::ConnectionHandle | Holder::Nobody => Poll::Ready(None),
        }
    }
}

impl ClientStream {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Encrypted(tls) => Pin::new(tls).poll_read(cx, buffer),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Encrypted(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Encrypted(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Encrypted(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_makes_no_progress_is_given_up() {
        let seconds = Duration::from_secs;
        // Without a shortage a slow reader may take its time.
        assert!(!is_too_slow(seconds(29), seconds(600), 1 << 20, false));
        assert!(is_too_slow(seconds(30), seconds(30), 1 << 20, false));
        // With one it may not, nor may it take a little at a time.
        assert!(is_too_slow(seconds(3), seconds(3), 1 << 20, true));
        assert!(is_too_slow(seconds(0), seconds(20), 1 << 20, true));
        assert!(!is_too_slow(seconds(1), seconds(20), 3 << 20, true));
    }
}
