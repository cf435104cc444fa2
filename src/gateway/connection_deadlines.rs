//! The time limits of an HTTP connection, in every phase: a request that is waited for, and an answer that is not read.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use actix_web::rt::time::{Instant, Sleep, sleep_until};

use super::connections::ConnectionPermit;

/// How long the rest of a body that no handler reads is read and discarded after the answer, so that the client can read
/// the answer before the connection ends.
const LINGER: Duration = Duration::from_secs(2);

/// The pace, in bytes a second, at which an answer must be read after `answer_timeout_ms`.
const ANSWER_BYTES_PER_SECOND_MIN: u64 = 4 << 10;

/// How long a connection waits for its client.
///
/// While a request is being worked on nothing is waited for. Otherwise one of two deadlines holds: until when the
/// answer must be read, if the network takes no more of it, or else until when the next request must have come.
#[derive(Debug)]
pub(super) struct ConnectionDeadlines {
    timeouts: ConnectionTimeouts,
    /// Until when a whole head must have come; `None` while a request is being worked on.
    request_until: Cell<Option<Instant>>,
    /// How long the next request may take after the answer is read.
    request_patience: Cell<Duration>,
    /// Until when what is being written must be read; `None` unless the network takes no more.
    answer_until: Cell<Option<Instant>>,
    /// The connection's share of the bound on connections; none after a WebSocket took the connection over.
    place: RefCell<Option<ConnectionPermit>>,
}

/// How long an HTTP connection waits for its client.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionTimeouts {
    /// For a request's head, on a fresh connection and after each answer.
    pub(super) request: Duration,
    /// For an answer to be read; a large one has more, at the least pace.
    pub(super) answer: Duration,
}

impl ConnectionDeadlines {
    /// Waits for the first request. `place` is held until a WebSocket takes the connection over.
    pub(super) fn new(timeouts: ConnectionTimeouts, place: Option<ConnectionPermit>) -> Self {
        Self {
            timeouts,
            request_until: Cell::new(Some(Instant::now() + timeouts.request)),
            request_patience: Cell::new(timeouts.request),
            answer_until: Cell::default(),
            place: RefCell::new(place),
        }
    }

    /// A request's head is there.
    pub(super) fn begin(&self) {
        self.request_until.set(None);
        if let Some(place) = &*self.place.borrow() {
            place.set_busy();
        }
    }

    /// The request is answered. If a part of its body was not read the connection ends soon.
    pub(super) fn end(&self, is_body_unread: bool) {
        let patience = if is_body_unread {
            LINGER
        } else {
            self.timeouts.request
        };
        self.request_patience.set(patience);
        self.wait_for_request();
    }

    fn wait_for_request(&self) {
        let until = Instant::now() + self.request_patience.get();
        self.request_until.set(Some(until));
        if let Some(place) = &*self.place.borrow() {
            place.set_waiting();
        }
    }

    /// The network took so many bytes.
    pub(super) fn written(&self, bytes: usize) {
        if let Some(until) = self.answer_until.get() {
            let earned =
                Duration::from_micros(bytes as u64 * 1_000_000 / ANSWER_BYTES_PER_SECOND_MIN);
            self.answer_until.set(Some(until + earned));
        }
    }

    /// The network takes no more at present.
    pub(super) fn blocked(&self) {
        if self.answer_until.get().is_none() {
            let until = Instant::now() + self.timeouts.answer;
            self.answer_until.set(Some(until));
        }
    }

    /// The network took all that was to be written so far.
    pub(super) fn flushed(&self) {
        if self.answer_until.take().is_some() && self.request_until.get().is_some() {
            self.wait_for_request();
        }
    }

    /// A WebSocket took the connection over: it is bounded elsewhere.
    pub(super) fn release(&self) {
        self.request_until.set(None);
        self.answer_until.set(None);
        self.place.take();
    }

    /// Whether the client kept the connection waiting for too long, or the connection must give way to another; if not,
    /// the task is woken when it does. `alarm` is the connection's timer.
    pub(super) fn poll_overdue(
        &self,
        alarm: &mut Option<Pin<Box<Sleep>>>,
        cx: &mut Context<'_>,
    ) -> bool {
        if let Some(place) = &*self.place.borrow()
            && place.poll_evicted(cx)
        {
            return true;
        }
        let Some(until) = self.answer_until.get().or(self.request_until.get()) else {
            return false;
        };
        let alarm = alarm.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if alarm.deadline() != until {
            alarm.as_mut().reset(until);
        }
        alarm.as_mut().poll(cx).is_ready()
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
        answer: Duration::from_secs(20),
    };

    async fn is_overdue(deadlines: &ConnectionDeadlines) -> bool {
        let mut alarm = None;
        poll_fn(|cx| Poll::Ready(deadlines.poll_overdue(&mut alarm, cx))).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_waits_for_a_request_and_not_while_it_works_on_one() {
        let deadlines = ConnectionDeadlines::new(TIMEOUTS, None);
        advance(Duration::from_secs(9)).await;
        assert!(!is_overdue(&deadlines).await);
        deadlines.begin();
        advance(Duration::from_secs(60)).await;
        assert!(!is_overdue(&deadlines).await);
        deadlines.end(false);
        advance(Duration::from_secs(9)).await;
        assert!(!is_overdue(&deadlines).await);
        advance(Duration::from_secs(2)).await;
        assert!(is_overdue(&deadlines).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unread_body_is_waited_for_shortly() {
        let deadlines = ConnectionDeadlines::new(TIMEOUTS, None);
        deadlines.begin();
        deadlines.end(true);
        advance(LINGER + Duration::from_millis(2)).await;
        assert!(is_overdue(&deadlines).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_must_be_read_at_a_least_pace() {
        let deadlines = ConnectionDeadlines::new(TIMEOUTS, None);
        deadlines.begin();
        deadlines.end(false);
        deadlines.blocked();
        // Twenty seconds, and one for each 4 KiB that are read.
        advance(Duration::from_secs(19)).await;
        deadlines.written(8 << 10);
        deadlines.blocked();
        advance(Duration::from_secs(2)).await;
        assert!(!is_overdue(&deadlines).await);
        advance(Duration::from_secs(2)).await;
        assert!(is_overdue(&deadlines).await);
        // After it is read the next request has its whole time.
        deadlines.flushed();
        advance(Duration::from_secs(9)).await;
        assert!(!is_overdue(&deadlines).await);
        advance(Duration::from_secs(2)).await;
        assert!(is_overdue(&deadlines).await);
    }
}
