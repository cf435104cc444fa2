//! The TCP connection of a client, with or without TLS.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// The TCP connection of a client, with or without TLS.
pub(in crate::gateway) enum ClientStream {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

/// How long the network may leave sent bytes unacknowledged before the connection ends.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// How many unsent bytes the kernel keeps for a connection. Without a limit it keeps megabytes for a client that does not
/// read.
const UNSENT_BYTES_MAX: u32 = 128 << 10;

impl fmt::Debug for ClientStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tcp().fmt(f)
    }
}

impl ClientStream {
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Encrypted(tls) => tls.get_ref().0,
        }
    }

    /// Sets the options of a new connection: small packets are sent at once, and a lost peer ends the connection.
    pub(super) fn set_options(&self) {
        let socket = SockRef::from(self.tcp());
        let set = socket
            .set_tcp_nodelay(true)
            .and_then(|()| socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX)))
            .and_then(|()| socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX));
        if let Err(error) = set {
            tracing::warn!(%error, "socket options not set on a client's connection");
        }
    }

    /// Makes the kernel discard unsent bytes when the connection is dropped, instead of keeping them for a client that does
    /// not read.
    pub(super) fn reset_on_drop(&self) {
        // An error means that the connection has ended already.
        let _ = SockRef::from(self.tcp()).set_linger(Some(Duration::ZERO));
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Encrypted(tls) => Pin::new(tls).poll_read(cx, buffer),
        }
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Encrypted(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Encrypted(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Encrypted(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
