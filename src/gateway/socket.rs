//! A client's connection, which HTTP serves first and which a WebSocket may take over.
//!
//! The dispatcher of HTTP keeps two buffers of 8 KiB for as long as it lives, and copies all that it writes. So it lives only
//! until its response to the upgrade is written: then its side of the connection reports the end of the stream, and the
//! two tasks of the WebSocket read and write the connection itself. A silent socket has no buffer at all.

mod client_stream;
mod http_stream;
mod reader;
mod writer;

use std::cell::{Cell, RefCell};
use std::net::Shutdown;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use socket2::SockRef;

pub(super) use self::client_stream::ClientStream;
pub(super) use self::http_stream::HttpStream;
pub(super) use self::reader::{SocketReader, UpgradeBody};
use super::connection_deadlines::ConnectionDeadlines;

/// The connection as the WebSocket sees it. Its two tasks run on one thread: one reads, one writes.
#[derive(Debug, Clone)]
pub(super) struct ConnectionHandle(Rc<SharedConnection>);

/// The connection, shared by HTTP and the WebSocket.
#[derive(Debug)]
struct SharedConnection {
    stream: RefCell<ClientStream>,
    /// How long HTTP waits for the client.
    deadlines: ConnectionDeadlines,
    owner: Cell<ConnectionOwner>,
    /// The tasks of the WebSocket that wait until it owns the connection.
    waiting: RefCell<Vec<Waker>>,
}

/// Which side may read and write the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionOwner {
    Http,
    /// HTTP, until its response to the upgrade is written. `has_written` tells whether a part of it is.
    HttpUntilWritten {
        has_written: bool,
    },
    WebSocket,
    /// Neither: the connection has ended.
    Ended,
}

impl SharedConnection {
    fn is_owned_by_http(&self) -> bool {
        matches!(
            self.owner.get(),
            ConnectionOwner::Http | ConnectionOwner::HttpUntilWritten { .. }
        )
    }

    /// Ends the ownership of HTTP.
    fn pass_to(&self, owner: ConnectionOwner) {
        self.owner.set(owner);
        self.deadlines.release();
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    /// Waits until the WebSocket owns the connection. Returns false if the connection has ended before.
    fn poll_owned(&self, cx: &Context<'_>) -> Poll<bool> {
        match self.owner.get() {
            ConnectionOwner::Http | ConnectionOwner::HttpUntilWritten { .. } => {
                let mut waiting = self.waiting.borrow_mut();
                if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                    waiting.push(cx.waker().clone());
                }
                Poll::Pending
            }
            ConnectionOwner::WebSocket => Poll::Ready(true),
            ConnectionOwner::Ended => Poll::Ready(false),
        }
    }
}

impl ConnectionHandle {
    /// How long HTTP waits for the client.
    pub(super) fn deadlines(&self) -> &ConnectionDeadlines {
        &self.0.deadlines
    }

    /// Takes the connection over from HTTP when its next response is written.
    pub(super) fn take_over(&self) {
        if self.0.owner.get() == ConnectionOwner::Http {
            let owner = ConnectionOwner::HttpUntilWritten { has_written: false };
            self.0.owner.set(owner);
        }
    }

    /// Whether the connection is encrypted by this server.
    pub(super) fn is_encrypted(&self) -> bool {
        matches!(&*self.0.stream.borrow(), ClientStream::Encrypted(_))
    }

    /// Whether the connection comes to a loopback address: from a client or a proxy on this machine.
    pub(super) fn is_local(&self) -> bool {
        let stream = self.0.stream.borrow();
        let to = stream.tcp().local_addr();
        to.is_ok_and(|to| to.ip().to_canonical().is_loopback())
    }

    /// Ends the connection at once. A client that does not read would receive neither the close frame nor the end of the
    /// stream.
    pub(super) fn abort(&self) {
        let stream = self.0.stream.borrow();
        // An error means that the connection has ended already.
        let _ = SockRef::from(stream.tcp()).shutdown(Shutdown::Both);
    }
}
