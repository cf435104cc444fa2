//! Transport over Redis or Valkey: one stream per node, its inbox, to which the other nodes append.
//!
//! Redis holds no durable state. If it is flushed, fails over to a stale replica or is unreachable, messages are lost,
//! [`Health`] is bad, and requests without an answer are repeated. One task writes and one reads, each over its own
//! connection, because a blocking read occupies its connection. A connection is discarded after its first failure and the
//! server's address is resolved again, which a failover needs.

mod connection;
mod inbox_budget;
mod inbox_reader;
mod settings;
mod stream_writer;
mod tls;
mod url;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{debug, info, warn};

use self::connection::RedisConnector;
use self::inbox_reader::{InboxReader, StreamPosition};
pub use self::settings::RedisSettings;
use self::stream_writer::StreamWriter;
pub use self::url::{BadRedisUrl, RedisUrl};
use super::send_queue::SendQueue;
use super::transport::{
    Delivery, Health, Inbox, Transport, TransportCounters, TransportStats, add,
};
use crate::id::NodeId;
use crate::sync::lock;

/// Interval of the pings to the node's own inbox. Ten fit into `PING_TIMEOUT`, so a single lost ping has no effect.
const PING_INTERVAL: Duration = Duration::from_millis(200);

/// Greatest age of the newest returned ping while Redis counts as prompt: a ping may take 250 ms.
const PROMPT_WITHIN: Duration = Duration::from_millis(450);

/// Lateness of a timer that shows that this process was stalled, and the time it then reads before it judges Redis.
const STALL: Duration = Duration::from_millis(100);
const READING: Duration = Duration::from_millis(50);

/// How long Redis must stay prompt after a failure until it is used again.
const PROMPT_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Age of the newest returned ping at which the health becomes bad.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Deliveries that may wait in the inbox. Beyond that the reader stops and the rest waits in Redis.
pub(super) const DELIVERIES_MAX: usize = 64;

/// Time limit of a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The reason of a bad health before the first attempt.
const NOT_YET: &str = "not connected yet";

/// Why the transport cannot be opened. An unreachable server is not an error here.
#[derive(Debug, Error)]
pub enum RedisError {
    /// The CA certificates cannot be read.
    #[error("read the certificates of {place}: {reason}")]
    Certificates {
        /// The file, or the system's store.
        place: String,
        /// The cause.
        reason: String,
    },
    /// The Redis client rejects the settings.
    #[error("{0}")]
    Client(String),
}

/// Carries messages over Redis.
#[derive(Debug)]
pub struct RedisTransport {
    shared: Arc<RedisShared>,
    health: watch::Receiver<Health>,
    reopened: watch::Receiver<u64>,
    /// The reader and the two monitors; aborted with the transport.
    helpers: [AbortHandle; 3],
    /// The writer; it ends by itself once the transport is closed.
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// State shared by the tasks of the transport.
#[derive(Debug)]
struct RedisShared {
    me: NodeId,
    settings: RedisSettings,
    outgoing: Mutex<SendQueue>,
    /// Wakes the writer: a message was queued, or the transport is closing.
    wake_writer: Notify,
    /// Position up to which the inbox was read.
    position: Mutex<StreamPosition>,
    /// Send time of the newest ping that returned.
    heard: watch::Sender<Option<Instant>>,
    /// Whether pings return promptly.
    prompt: watch::Sender<bool>,
    /// When the reader or the writer last failed.
    failed: watch::Sender<Option<Instant>>,
    /// Whether the transport is closing.
    closing: watch::Sender<bool>,
    /// Opening time, the epoch of the timestamps in pings.
    started: Instant,
    counters: TransportCounters,
    /// The last failure, as text.
    trouble: Mutex<Option<Arc<str>>>,
}

impl RedisTransport {
    /// Opens the transport of node `me`. Does not wait for Redis: the health is bad until the first ping returns. Must be
    /// called in a tokio runtime.
    ///
    /// # Errors
    /// If the settings are invalid.
    pub fn open(
        settings: &RedisSettings,
        me: NodeId,
    ) -> Result<(Arc<dyn Transport>, Inbox), RedisError> {
        let (deliveries, inbox) = mpsc::channel(DELIVERIES_MAX);
        let transport = Self::start(settings, me, deliveries)?;
        Ok((Arc::new(transport), Inbox(inbox)))
    }

    /// As [`open`](Self::open), with an inbox that other transports share.
    pub(super) fn start(
        settings: &RedisSettings,
        me: NodeId,
        deliveries: mpsc::Sender<Delivery>,
    ) -> Result<Self, RedisError> {
        let connector = RedisConnector::new(settings)?;
        let (tell, health) = watch::channel(Health::Bad(NOT_YET.into()));
        let (count, reopened) = watch::channel(0);
        let shared = Arc::new(RedisShared {
            me,
            outgoing: Mutex::new(SendQueue::new(
                settings.target_bytes_max,
                settings.queue_bytes_max,
            )),
            settings: settings.clone(),
            wake_writer: Notify::new(),
            position: Mutex::default(),
            heard: watch::Sender::new(None),
            prompt: watch::Sender::new(false),
            failed: watch::Sender::new(None),
            closing: watch::Sender::new(false),
            started: Instant::now(),
            counters: TransportCounters::default(),
            trouble: Mutex::default(),
        });
        let reader = InboxReader::new(Arc::clone(&shared), connector.clone(), deliveries);
        let writer = StreamWriter::new(Arc::clone(&shared), connector);
        Ok(Self {
            helpers: [
                tokio::spawn(reader.run()).abort_handle(),
                tokio::spawn(watch_health(Arc::clone(&shared), (tell, count))).abort_handle(),
                tokio::spawn(watch_promptness(Arc::clone(&shared))).abort_handle(),
            ],
            writer: Mutex::new(Some(tokio::spawn(writer.run()))),
            shared,
            health,
            reopened,
        })
    }

    /// Whether messages pass promptly in both directions; a change is noticed within half a second.
    pub(super) fn prompt(&self) -> watch::Receiver<bool> {
        self.shared.prompt.subscribe()
    }
}

impl Transport for RedisTransport {
    fn send(&self, to: NodeId, message: Bytes) {
        let queued =
            !*self.shared.closing.borrow() && lock(&self.shared.outgoing).push(to, message);
        if queued {
            self.shared.wake_writer.notify_one();
        } else {
            add(&self.shared.counters.dropped, 1);
        }
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    fn reopened(&self) -> watch::Receiver<u64> {
        self.reopened.clone()
    }

    fn counts(&self) -> TransportStats {
        self.shared.counters.read()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            self.shared.closing.send_replace(true);
            self.shared.wake_writer.notify_one();
            let writer = lock(&self.writer).take();
            if let Some(mut writer) = writer
                && timeout(CLOSE_TIMEOUT, &mut writer).await.is_err()
            {
                writer.abort();
            }
            self.helpers.iter().for_each(AbortHandle::abort);
        }
        .boxed()
    }
}

impl Drop for RedisTransport {
    fn drop(&mut self) {
        self.helpers.iter().for_each(AbortHandle::abort);
        if let Some(writer) = lock(&self.writer).take() {
            writer.abort();
        }
    }
}

impl RedisShared {
    /// The key of a node's inbox.
    fn inbox(&self, node: NodeId) -> String {
        format!("{}in:{node}", self.settings.prefix)
    }

    /// Records a failure.
    fn record_failure(&self, what: &str, reason: impl std::fmt::Display) {
        *lock(&self.trouble) = Some(format!("{what}: {reason}").into());
        self.failed.send_replace(Some(Instant::now()));
    }

    /// The reason of a bad health, as far as it is known.
    fn failure_reason(&self) -> Arc<str> {
        let known = lock(&self.trouble).clone();
        known.unwrap_or_else(|| "what this node sends to itself does not arrive".into())
    }
}

/// Publishes the health: good while this node's pings return.
async fn watch_health(
    shared: Arc<RedisShared>,
    (health, reopened): (watch::Sender<Health>, watch::Sender<u64>),
) {
    let mut heard = shared.heard.subscribe();
    loop {
        let newest = *heard.borrow_and_update();
        let deadline = newest.unwrap_or(shared.started) + PING_TIMEOUT;
        let overdue = deadline <= Instant::now();
        if overdue {
            publish(&health, Health::Bad(shared.failure_reason()));
        } else if newest.is_some() {
            lock(&shared.trouble).take();
            let was_good = health.borrow().is_good();
            publish(&health, Health::Good);
            if !was_good {
                reopened.send_modify(|count| *count += 1);
            }
        }
        // While it is bad the reason may change.
        let next = if overdue {
            Instant::now() + PING_TIMEOUT
        } else {
            deadline
        };
        if let Ok(Err(_)) = timeout_at(next, heard.changed()).await {
            return;
        }
    }
}

/// Publishes whether Redis is prompt: the newest returned ping is young enough, and nothing failed since it was sent.
async fn watch_promptness(shared: Arc<RedisShared>) {
    let (mut heard, mut failed) = (shared.heard.subscribe(), shared.failed.subscribe());
    let mut prompt_since = None;
    loop {
        let now = Instant::now();
        let (newest, failure) = (*heard.borrow_and_update(), *failed.borrow_and_update());
        let is_young = newest.filter(|sent| now < *sent + PROMPT_WITHIN);
        let is_prompt = is_young.is_some_and(|sent| failure.is_none_or(|failed| failed < sent));
        // The first time needs no steady second, since there was no failure before.
        let is_first = prompt_since.is_none() && failure.is_none();
        prompt_since = is_prompt.then(|| prompt_since.unwrap_or(now));
        let is_steady =
            prompt_since.is_some_and(|since| is_first || now >= since + PROMPT_AGAIN_AFTER);
        shared.prompt.send_if_modified(|known| {
            let prompt = is_prompt && (*known || is_steady);
            std::mem::replace(known, prompt) != prompt
        });
        let until = newest.filter(|_| is_prompt).unwrap_or(now) + PROMPT_WITHIN;
        // If this process was stalled it has not waited for Redis: what arrived meanwhile is read first.
        let until = until.max(now + READING);
        tokio::select! {
            changed = heard.changed() => if changed.is_err() {
                return;
            },
            changed = failed.changed() => if changed.is_err() {
                return;
            },
            () = sleep_until(until) => if until.elapsed() > STALL {
                sleep(READING).await;
            }
        }
    }
}

fn publish(health: &watch::Sender<Health>, news: Health) {
    let before = health.borrow().clone();
    match (&before, &news) {
        _ if before == news => return,
        (_, Health::Good) => info!("Redis carries messages"),
        (Health::Bad(old), Health::Bad(reason)) if **old != *NOT_YET => {
            debug!(%reason, "Redis still carries no messages");
        }
        (_, Health::Bad(reason)) => warn!(%reason, "Redis carries no messages"),
    }
    health.send_replace(news);
}
