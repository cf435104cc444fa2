//! The transport over Redis or Valkey: one stream per node, its inbox, that the others append to.
//!
//! Nothing of worth is in Redis. It may be flushed, fail over to a replica that lacks the newest, or be away: then
//! messages are lost, [`Health`] says so, and whoever waits asks again. One task writes and one reads, each with a
//! connection of its own, because a blocking read holds its connection. A connection that failed once is thrown away with
//! all that waits in it, and a new one is made: whom to connect to is then asked anew, which a failover needs.

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

/// How often a node writes to its own inbox to see whether messages pass. Ten of them fit into the patience: one that is
/// lost says nothing.
const PING_INTERVAL: Duration = Duration::from_millis(200);

/// How old the newest ping that came back may be while Redis is prompt: a ping may be 250 ms under way.
const PROMPT_WITHIN: Duration = Duration::from_millis(450);

/// How late a timer fires where this process stood still, and how long it then reads before it judges Redis.
const STALL: Duration = Duration::from_millis(100);
const READING: Duration = Duration::from_millis(50);

/// How long Redis must have been prompt without a break until it is taken for prompt again.
const PROMPT_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How long a node hears nothing of itself until it says that messages do not pass.
const PING_PATIENCE: Duration = Duration::from_secs(2);

/// How many deliveries may wait for whoever holds the inbox. When they are as many, the rest waits in Redis.
pub(super) const DELIVERIES_MAX: usize = 64;

/// How long a close may take.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// The reason before there is one.
const NOT_YET: &str = "not connected yet";

/// Why the transport cannot be made at all. A server that is away is none of it.
#[derive(Debug, Error)]
pub enum RedisError {
    /// The certificates of authorities cannot be had.
    #[error("read the certificates of {place}: {reason}")]
    Certificates {
        /// Where they are looked for.
        place: String,
        /// What is wrong with them.
        reason: String,
    },
    /// The client refuses the settings.
    #[error("{0}")]
    Client(String),
}

/// Carries messages over Redis.
#[derive(Debug)]
pub struct RedisTransport {
    link: Arc<RedisShared>,
    health: watch::Receiver<Health>,
    reopened: watch::Receiver<u64>,
    /// The tasks that read and that watch; they end with the transport.
    helpers: [AbortHandle; 3],
    /// The task that writes; it ends itself when the link is closed.
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the tasks share.
#[derive(Debug)]
struct RedisShared {
    me: NodeId,
    settings: RedisSettings,
    outgoing: Mutex<SendQueue>,
    /// Rung when something was queued, or the link is to be closed.
    bell: Notify,
    /// Up to where the inbox was read.
    place: Mutex<StreamPosition>,
    /// When the newest ping was sent that this node has heard.
    heard: watch::Sender<Option<Instant>>,
    /// Whether pings come back at once at present.
    prompt: watch::Sender<bool>,
    /// When the reader or the writer failed last.
    failed: watch::Sender<Option<Instant>>,
    /// Whether the link is to be closed.
    closing: watch::Sender<bool>,
    /// When it was opened: pings tell their time by it.
    started: Instant,
    counters: TransportCounters,
    /// What went wrong last, for people.
    trouble: Mutex<Option<Arc<str>>>,
}

impl RedisTransport {
    /// Starts to carry messages for a node. Does not wait for Redis: health is bad until the first message passed.
    /// Wants a tokio runtime around it.
    ///
    /// # Errors
    /// When the settings cannot work.
    pub fn open(
        settings: &RedisSettings,
        me: NodeId,
    ) -> Result<(Arc<dyn Transport>, Inbox), RedisError> {
        let (deliveries, inbox) = mpsc::channel(DELIVERIES_MAX);
        let transport = Self::start(settings, me, deliveries)?;
        Ok((Arc::new(transport), Inbox(inbox)))
    }

    /// As [`open`](Self::open), into an inbox that may have other sources.
    pub(super) fn start(
        settings: &RedisSettings,
        me: NodeId,
        deliveries: mpsc::Sender<Delivery>,
    ) -> Result<Self, RedisError> {
        let connector = RedisConnector::new(settings)?;
        let (tell, health) = watch::channel(Health::Bad(NOT_YET.into()));
        let (count, reopened) = watch::channel(0);
        let link = Arc::new(RedisShared {
            me,
            outgoing: Mutex::new(SendQueue::new(
                settings.target_bytes_max,
                settings.queue_bytes_max,
            )),
            settings: settings.clone(),
            bell: Notify::new(),
            place: Mutex::default(),
            heard: watch::Sender::new(None),
            prompt: watch::Sender::new(false),
            failed: watch::Sender::new(None),
            closing: watch::Sender::new(false),
            started: Instant::now(),
            counters: TransportCounters::default(),
            trouble: Mutex::default(),
        });
        let reader = InboxReader::new(Arc::clone(&link), connector.clone(), deliveries);
        let writer = StreamWriter::new(Arc::clone(&link), connector);
        Ok(Self {
            helpers: [
                tokio::spawn(reader.run()).abort_handle(),
                tokio::spawn(watch_health(Arc::clone(&link), (tell, count))).abort_handle(),
                tokio::spawn(watch_pace(Arc::clone(&link))).abort_handle(),
            ],
            writer: Mutex::new(Some(tokio::spawn(writer.run()))),
            link,
            health,
            reopened,
        })
    }

    /// Whether messages pass within a moment, in both directions: noticed within half a second. Where there is another
    /// way it is taken meanwhile.
    pub(super) fn prompt(&self) -> watch::Receiver<bool> {
        self.link.prompt.subscribe()
    }
}

impl Transport for RedisTransport {
    fn send(&self, to: NodeId, message: Bytes) {
        let queued = !*self.link.closing.borrow() && lock(&self.link.outgoing).push(to, message);
        if queued {
            self.link.bell.notify_one();
        } else {
            add(&self.link.counters.dropped, 1);
        }
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    fn reopened(&self) -> watch::Receiver<u64> {
        self.reopened.clone()
    }

    fn counts(&self) -> TransportStats {
        self.link.counters.read()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            self.link.closing.send_replace(true);
            self.link.bell.notify_one();
            let writer = lock(&self.writer).take();
            if let Some(mut writer) = writer
                && timeout(CLOSE_PATIENCE, &mut writer).await.is_err()
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
    /// A node's inbox.
    fn inbox(&self, node: NodeId) -> String {
        format!("{}in:{node}", self.settings.prefix)
    }

    /// Notes what went wrong, for whoever asks why nothing passes.
    fn note(&self, what: &str, reason: impl std::fmt::Display) {
        *lock(&self.trouble) = Some(format!("{what}: {reason}").into());
        self.failed.send_replace(Some(Instant::now()));
    }

    /// Why nothing passes, as far as it is known.
    fn trouble(&self) -> Arc<str> {
        let known = lock(&self.trouble).clone();
        known.unwrap_or_else(|| "what this node sends to itself does not arrive".into())
    }
}

/// Says whether messages pass, by whether this node hears itself.
async fn watch_health(
    link: Arc<RedisShared>,
    (health, reopened): (watch::Sender<Health>, watch::Sender<u64>),
) {
    let mut heard = link.heard.subscribe();
    loop {
        let newest = *heard.borrow_and_update();
        let deadline = newest.unwrap_or(link.started) + PING_PATIENCE;
        let overdue = deadline <= Instant::now();
        if overdue {
            tell(&health, Health::Bad(link.trouble()));
        } else if newest.is_some() {
            lock(&link.trouble).take();
            let was_good = health.borrow().is_good();
            tell(&health, Health::Good);
            if !was_good {
                reopened.send_modify(|count| *count += 1);
            }
        }
        // While it is bad, to tell the reason of now.
        let next = if overdue {
            Instant::now() + PING_PATIENCE
        } else {
            deadline
        };
        if let Ok(Err(_)) = timeout_at(next, heard.changed()).await {
            return;
        }
    }
}

/// Says whether Redis is prompt: the newest ping that came back is young, and nothing failed since it was sent.
async fn watch_pace(link: Arc<RedisShared>) {
    let (mut heard, mut failed) = (link.heard.subscribe(), link.failed.subscribe());
    let mut prompt_since = None;
    loop {
        let now = Instant::now();
        let (newest, failure) = (*heard.borrow_and_update(), *failed.borrow_and_update());
        let is_young = newest.filter(|sent| now < *sent + PROMPT_WITHIN);
        let is_prompt = is_young.is_some_and(|sent| failure.is_none_or(|failed| failed < sent));
        // The first time at once: there was nothing before that it could have broken off.
        let is_first = prompt_since.is_none() && failure.is_none();
        prompt_since = is_prompt.then(|| prompt_since.unwrap_or(now));
        let is_steady =
            prompt_since.is_some_and(|since| is_first || now >= since + PROMPT_AGAIN_AFTER);
        link.prompt.send_if_modified(|known| {
            let prompt = is_prompt && (*known || is_steady);
            std::mem::replace(known, prompt) != prompt
        });
        let until = newest.filter(|_| is_prompt).unwrap_or(now) + PROMPT_WITHIN;
        // Where this process itself stood still it has not waited for Redis: what came meanwhile is read first.
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

fn tell(health: &watch::Sender<Health>, news: Health) {
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
