//! The transport of a cluster: Redis, and direct links while Redis is silent.
//!
//! Redis is the usual way. A message goes to a node by its direct link if Redis is not prompt for either of the two: each
//! node pings itself through Redis, and says to the others by the links whether the pings come back. So the sender
//! notices within half a second that the receiver alone is cut off from Redis. When the way changes, messages may arrive
//! out of order or be lost with Redis; whatever waits for an answer is sent again then, see [`Transport::reopened`].

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

/// Why a node cannot take part in its cluster.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The settings of Redis cannot work.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The address for direct links cannot be listened on.
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
    /// For what this node sends to itself while Redis is silent; `None` once it is closed.
    loopback: Mutex<Option<mpsc::Sender<Delivery>>>,
    counters: Arc<TransportCounters>,
    health: watch::Receiver<Health>,
    reopened: watch::Receiver<u64>,
    watcher: AbortHandle,
}

impl ClusterTransport {
    /// Starts to carry messages for a node: over Redis alone if direct links are off. Waits for no server. Needs a tokio
    /// runtime around it. The secret is the store's.
    ///
    /// # Errors
    /// If the settings cannot work.
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

    /// Delivers to this node what it sends to itself, if a link is live: while Redis is silent, that stands for all ways.
    fn send_to_myself(&self, message: Bytes) {
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

    /// Whether Redis is not prompt for this node or for the other one, as far as this node knows.
    fn prefers_direct(&self, to: NodeId) -> bool {
        !*self.prompt.borrow() || self.live.borrow().get(&to) == Some(&false)
    }
}

impl Transport for ClusterTransport {
    fn send(&self, to: NodeId, message: Bytes) {
        let is_prompt = *self.prompt.borrow();
        if to == self.me && !is_prompt && !self.live.borrow().is_empty() {
            return self.send_to_myself(message);
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

/// Watches both ways, and says whether messages pass and when to send again.
struct PathMonitor {
    redis: watch::Receiver<Health>,
    prompt: watch::Receiver<bool>,
    live: watch::Receiver<LiveLinks>,
    /// Told to the other nodes.
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
            self.tell(&redis, live.len());
            if is_prompt != was_prompt {
                log_change(is_prompt, live.len());
            }
            let is_back = !was_good && self.health.borrow().is_good();
            if is_back || is_prompt != was_prompt || has_another_way(&known, &live, is_prompt) {
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

    /// Messages pass if any way is open.
    fn tell(&self, redis: &Health, links: usize) {
        let health = if links > 0 {
            Health::Good
        } else {
            redis.clone()
        };
        let before = self.health.send_replace(health.clone());
        match (&before, &health) {
            (Health::Good, Health::Bad(reason)) => {
                warn!(%reason, "messages do not pass between nodes: no direct link is live, and Redis carries none");
            }
            (Health::Bad(_), Health::Good) => info!(links, "messages pass between nodes"),
            _ => {}
        }
    }
}

fn log_change(is_prompt: bool, links: usize) {
    if is_prompt {
        info!(links, "Redis is prompt: messages go by it");
    } else if links > 0 {
        info!(links, "Redis is silent: messages go by direct links");
    }
}

/// Whether a node is now reached by another way than before.
fn has_another_way(before: &LiveLinks, now: &LiveLinks, is_prompt: bool) -> bool {
    let is_new = |(node, has_redis): (&NodeId, &bool)| match before.get(node) {
        Some(had_redis) => had_redis != has_redis,
        None => !is_prompt || !has_redis,
    };
    now.iter().any(is_new)
}
