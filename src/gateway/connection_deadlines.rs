//! The time limits of an HTTP connection: how long the server waits for a request, and for a response to be read.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use actix_web::rt::time::{Instant, Sleep, sleep_until};

use super::connections::ConnectionPermit;

/// How long an unread body is read and discarded after the response, so that the client can read the response before the
/// connection ends.
const LINGER: Duration = Duration::from_secs(2);

/// How many bytes a second of a response must be read after `answer_timeout_ms`.
const RESPONSE_BYTES_PER_SECOND_MIN: u64 = 4 << 10;

/// The deadline of an HTTP connection for what it waits for.
///
/// None applies while a request is being served. Otherwise there is one of two: until when the response must be read, if
/// the network takes no more of it, or until when the head of the next request must have arrived.
#[derive(Debug)]
pub(super) struct ConnectionDeadlines {
    timeouts: ConnectionTimeouts,
    /// Until when the head of a request must have arrived. `None` while a request is being served.
    request_until: Cell<Option<Instant>>,
    /// How long the next request may take after the response is read.
    request_timeout: Cell<Duration>,
    /// Until when the response must be read. `None` unless the network takes no more of it.
    response_until: Cell<Option<Instant>>,
    /// Counts the connection. `None` after a WebSocket has taken it over.
    place: RefCell<Option<ConnectionPermit>>,
}

/// How long an HTTP connection waits for its client.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionTimeouts {
    /// For the head of a request, on a new connection and after each response.
    pub(super) request: Duration,
    /// For a response to be read. A large one has more time.
    pub(super) response: Duration,
}

/// Whether the body of a request was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestBody {
    /// All of it, or there was none.
    Read,
    /// A part of it is unread.
    Unread,
}

impl ConnectionDeadlines {
    /// The deadlines of a new connection, which waits for its first request. `place` is held until a WebSocket takes the connection over.
    pub(super) fn new(timeouts: ConnectionTimeouts, place: Option<ConnectionPermit>) -> Self {
        Self {
            timeouts,
            request_until: Cell::new(Some(Instant::now() + timeouts.request)),
            request_timeout: Cell::new(timeouts.request),
            response_until: Cell::default(),
            place: RefCell::new(place),
        }
    }

    /// The head of a request has arrived.
    pub(super) fn request_started(&self) {
        self.request_until.set(None);
        if let Some(place) = &*self.place.borrow() {
            place.set_busy();
        }
    }

    /// The request is answered. The connection ends soon if a part of its body is unread.
    pub(super) fn request_finished(&self, body: RequestBody) {
        let timeout = match body {
            RequestBody::Read => self.timeouts.request,
            RequestBody::Unread => LINGER,
        };
        self.request_timeout.set(timeout);
        self.wait_for_request();
    }

    fn wait_for_request(&self) {
        let until = Instant::now() + self.request_timeout.get();
        self.request_until.set(Some(until));
        if let Some(place) = &*self.place.borrow() {
            place.set_waiting();
        }
    }

    /// The network has taken so many bytes.
    pub(super) fn bytes_written(&self, bytes: usize) {
        if let Some(until) = self.response_until.get() {
            let earned =
                Duration::from_micros(bytes as u64 * 1_000_000 / RESPONSE_BYTES_PER_SECOND_MIN);
            self.response_until.set(Some(until + earned));
        }
    }

    /// The network takes no more bytes at present.
    pub(super) fn write_blocked(&self) {
        if self.response_until.get().is_none() {
            let until = Instant::now() + self.timeouts.response;
            self.response_until.set(Some(until));
        }
    }

    /// The network has taken all bytes written so far.
    pub(super) fn all_written(&self) {
        if self.response_until.take().is_some() && self.request_until.get().is_some() {
            self.wait_for_request();
        }
    }

    /// A WebSocket has taken the connection over. These deadlines no longer apply.
    pub(super) fn release(&self) {
        self.request_until.set(None);
        self.response_until.set(None);
        self.place.take();
    }

    /// Whether a deadline has passed or the connection is evicted. If not, the task is woken when that happens. `timer` is
    /// the timer of the connection.
    pub(super) fn poll_overdue(
        &self,
        timer: &mut Option<Pin<Box<Sleep>>>,
        cx: &mut Context<'_>,
    ) -> bool {
        if let Some(place) = &*self.place.borrow()
            && place.poll_evicted(cx)
        {
            return true;
        }
        let Some(until) = self.response_until.get().or(self.request_until.get()) else {
            return false;
        };
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx).is_ready()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use tokio::time::advance;

    use super::*;

    const TIMEOUTS: ConnectionTimeouts = ConnectionTimeouts {
        request: Duration::from_secs(10),
        response: Duration::from_secs(20),
    };

    async fn is_overdue(deadlines: &ConnectionDeadlines) -> bool {
        let mut timer = None;
        poll_fn(|cx| Poll::Ready(deadlines.poll_overdue(&mut timer, cx))).await
    }

    #[tokio::test(start_paused = true)]
    async fn deadline_applies_between_requests_only() {
        let deadlines = ConnectionDeadlines::new(TIMEOUTS, None);
        advance(Duration::from_secs(9)).await;
        assert!(!is_overdue(&deadlines).await);
        deadlines.request_started();
        advance(Duration::from_secs(60)).await;
        assert!(!is_overdue(&deadlines).await);
        deadlines.request_finished(RequestBody::Read);
        advance(Duration::from_secs(9)).await;
        assert!(!is_overdue(&deadlines).await);
        advance(Duration::from_secs(2)).await;
        assert!(is_overdue(&deadlines).await);
    }

    #[tokio::test(start_paused = true)]
    async fn unread_body_shortens_the_deadline() {
        let deadlines = ConnectionDeadlines::new(TIMEOUTS, None);
        deadlines.request_started();
        deadlines.request_finished(RequestBody::Unread);
        advance(LINGER + Duration::from_millis(2)).await;
        assert!(is_overdue(&deadlines).await);
    }

    #[tokio::test(start_paused = true)]
    async fn response_must_be_read_at_a_minimum_rate() {
        let deadlines = ConnectionDeadlines::new(TIMEOUTS, None);
        deadlines.request_started();
        deadlines.request_finished(RequestBody::Read);
        deadlines.write_blocked();
        // 20 s, and one more for each 4 KiB that are read.
        advance(Duration::from_secs(19)).await;
        deadlines.bytes_written(8 << 10);
        deadlines.write_blocked();
        advance(Duration::from_secs(2)).await;
        assert!(!is_overdue(&deadlines).await);
        advance(Duration::from_secs(2)).await;
        assert!(is_overdue(&deadlines).await);
        // After the response is read the deadline of the next request starts.
        deadlines.all_written();
        advance(Duration::from_secs(9)).await;
        assert!(!is_overdue(&deadlines).await);
        advance(Duration::from_secs(2)).await;
        assert!(is_overdue(&deadlines).await);
    }
}
