//! The transport of a cluster: Redis Streams, with direct links as a fallback.
//!
//! A message takes the direct link if Redis is not prompt for the sender or for the receiver. Each node pings itself
//! through Redis and publishes over its links whether the pings return, so a sender notices within half a second that
//! only the receiver has lost Redis. When the path changes, messages may be reordered or lost; unanswered requests are
//! sent again, see [`Transport::reopened`].

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tracing::{info, warn};

use super::direct::{ClusterSettings, DirectLinks, LiveLinks};
use super::redis::{DELIVERIES_MAX, RedisError, RedisSettings, RedisTransport};
use super::transport::{
    Delivery, Health, Inbox, Transport, TransportCounters, TransportStats, add,
};
use crate::id::NodeId;
use crate::sync::lock;

/// Why the transport cannot be opened.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The Redis settings are invalid.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The listener for direct links cannot be bound.
    #[error(
        "listen for direct links from other nodes: {0}; set cluster.listen to an address of this machine, or to \"off\""
    )]
    Listen(std::io::Error),
}

/// Carries messages over Redis and over direct links.
#[derive(Debug)]
pub struct ClusterTransport {
    me: NodeId,
    redis: RedisTransport,
    direct: DirectLinks,
    prompt: watch::Receiver<bool>,
    live: watch::Receiver<LiveLinks>,
    /// Delivers loopback messages while Redis is not prompt; `None` once closed.
    loopback: Mutex<Option<mpsc::Sender<Delivery>>>,
    counters: Arc<TransportCounters>,
    health: watch::Receiver<Health>,
    reopened: watch::Receiver<u64>,
    watcher: AbortHandle,
}

impl ClusterTransport {
    /// Opens the transport of node `me`: Redis alone if direct links are off. Does not wait for any server. `secret` is the
    /// store's and authenticates direct links. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// If the settings are invalid or the listener cannot be bound.
    pub async fn open(
        redis: &RedisSettings,
        settings: &ClusterSettings,
        (me, secret): (NodeId, &[u8; 32]),
    ) -> Result<(Arc<dyn Transport>, Inbox), ClusterError> {
        let (deliveries, inbox) = mpsc::channel(DELIVERIES_MAX);
        let counters = Arc::new(TransportCounters::default());
        let towards = redis
            .url
            .as_ref()
            .map(|url| url.hosts())
            .unwrap_or_default();
        let (sender, counted) = (deliveries.clone(), Arc::clone(&counters));
        let direct = DirectLinks::open(settings, &towards, (me, secret), sender, counted).await;
        let direct = direct.map_err(ClusterError::Listen)?;
        let redis = RedisTransport::start(redis, me, deliveries.clone())?;
        let Some(direct) = direct else {
            return Ok((Arc::new(redis), Inbox(inbox)));
        };
        let (prompt, live) = (redis.prompt(), direct.watch_live());
        let (tell, health) = watch::channel(redis.health().borrow().clone());
        let (count, reopened) = watch::channel(0);
        let watcher = PathMonitor {
            redis: redis.health(),
            prompt: prompt.clone(),
            live: live.clone(),
            has_redis: direct.has_redis(),
            health: tell,
            reopened: count,
        };
        let transport = Self {
            me,
            redis,
            direct,
            prompt,
            live,
            loopback: Mutex::new(Some(deliveries)),
            counters,
            health,
            reopened,
            watcher: tokio::spawn(watcher.run()).abort_handle(),
        };
        Ok((Arc::new(transport), Inbox(inbox)))
    }

    /// Delivers a loopback message if any direct link is live, which shows that the fallback path works.
    fn send_loopback(&self, message: Bytes) {
        let loopback = lock(&self.loopback).clone();
        let delivery = Delivery {
            from: self.me,
            messages: vec![message],
        };
        let is_delivered = !self.live.borrow().is_empty()
            && loopback
                .as_ref()
                .is_some_and(|it| it.try_send(delivery).is_ok());
        if is_delivered {
            add(&self.counters.sent, 1);
            add(&self.counters.received, 1);
        } else {
            add(&self.counters.dropped, 1);
        }
    }

    /// Returns true if Redis is not prompt for this node or, as far as known, for the other one.
    fn prefers_direct(&self, to: NodeId) -> bool {
        !*self.prompt.borrow() || self.live.borrow().get(&to) == Some(&false)
    }
}

impl Transport for ClusterTransport {
    fn send(&self, to: NodeId, message: Bytes) {
        let is_prompt = *self.prompt.borrow();
        if to == self.me && !is_prompt && !self.live.borrow().is_empty() {
            return self.send_loopback(message);
        }
        if !self.prefers_direct(to) || !self.direct.send(to, message.clone()) {
            self.redis.send(to, message);
        }
    }

    fn send_every_way(&self, to: NodeId, message: Bytes) {
        if to == self.me {
            return self.send(to, message);
        }
        self.direct.send(to, message.clone());
        self.redis.send(to, message);
    }

    fn address(&self) -> Option<Arc<str>> {
        Some(self.direct.advertised())
    }

    fn learn(&self, peers: &[(NodeId, Arc<str>)]) {
        self.direct.learn(peers);
    }

    fn reopened(&self) -> watch::Receiver<u64> {
        self.reopened.clone()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    fn counts(&self) -> TransportStats {
        self.redis.counts() + self.counters.read()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            self.watcher.abort();
            lock(&self.loopback).take();
            futures_util::future::join(self.redis.close(), self.direct.close()).await;
        }
        .boxed()
    }
}

impl Drop for ClusterTransport {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

/// Publishes the health of the combined transport and its changes of path.
struct PathMonitor {
    redis: watch::Receiver<Health>,
    prompt: watch::Receiver<bool>,
    live: watch::Receiver<LiveLinks>,
    /// Published to the other nodes.
    has_redis: watch::Sender<bool>,
    health: watch::Sender<Health>,
    reopened: watch::Sender<u64>,
}

impl PathMonitor {
    async fn run(mut self) {
        let mut was_prompt = true;
        let mut known = LiveLinks::new();
        loop {
            let is_prompt = *self.prompt.borrow_and_update();
            let live = self.live.borrow_and_update().clone();
            let redis = self.redis.borrow_and_update().clone();
            self.has_redis
                .send_if_modified(|has| std::mem::replace(has, is_prompt) != is_prompt);
            let was_good = self.health.borrow().is_good();
            self.publish_health(&redis, live.len());
            if is_prompt != was_prompt {
                log_change(is_prompt, live.len());
            }
            let is_back = !was_good && self.health.borrow().is_good();
            if is_back || is_prompt != was_prompt || has_path_change(&known, &live, is_prompt) {
                self.reopened.send_modify(|count| *count += 1);
            }
            (was_prompt, known) = (is_prompt, live);
            let changed = tokio::select! {
                changed = self.prompt.changed() => changed,
                changed = self.live.changed() => changed,
                changed = self.redis.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Publishes the health: good if any path is open.
    fn publish_health(&self, redis: &Health, links: usize) {
        let health = if links > 0 {
            Health::Good
        } else {
            redis.clone()
        };
        let before = self.health.send_replace(health.clone());
        match (&before, &health) {
            (Health::Good, Health::Bad(reason)) => {
                warn!(%reason, "no messages pass between nodes: no direct link is live and Redis carries none");
            }
            (Health::Bad(_), Health::Good) => info!(links, "messages pass between nodes"),
            _ => {}
        }
    }
}

fn log_change(is_prompt: bool, links: usize) {
    if is_prompt {
        info!(links, "Redis is prompt: messages take Redis");
    } else if links > 0 {
        info!(links, "Redis is not prompt: messages take direct links");
    }
}

/// Returns true if the path to any node changed.
fn has_path_change(before: &LiveLinks, now: &LiveLinks, is_prompt: bool) -> bool {
    let is_new = |(node, has_redis): (&NodeId, &bool)| match before.get(node) {
        Some(had_redis) => had_redis != has_redis,
        None => !is_prompt || !has_redis,
    };
    now.iter().any(is_new)
}
