//! The one task that writes: what gathered while the last round was under way, and a little longer under load, is the next
//! round.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::clients::{Client, Pipeline};
use fred::error::Error;
use fred::interfaces::{KeysInterface, StreamsInterface};
use fred::types::Value;
use futures_util::FutureExt;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout};
use tracing::debug;

use super::connection::{ReconnectBackoff, RedisConnection, RedisConnector};
use super::inbox_budget::InboxBudget;
use super::inbox_reader::{FROM, MESSAGES, PING, StreamPosition};
use super::{PING_INTERVAL, RedisShared, lock};
use crate::cluster::packing::pack;
use crate::cluster::transport::add;
use crate::id::NodeId;

/// About how large an entry may be. Larger ones hold up whoever shares the server.
const ENTRY_BYTES_MAX: usize = 256 << 10;

/// About how much of one target goes in one round, so that a round ends soon and one flood holds up nobody else.
const SHARE_BYTES: usize = 4 << 20;

/// The writer rests for a millisecond for so many messages of its last round: it does not where few are sent, and what is
/// sent alone never waits. A round costs more than many messages in it, and its reader as much again.
const MESSAGES_A_MS: usize = 5;

/// The longest rest, in milliseconds. A message crosses to the owner and a commit comes back: both may wait as long.
const REST_MAX_MS: usize = 2;

/// How old what was queued may be when the way is free again after a failure. Whoever waits asks again after as long:
/// then both would arrive.
const STALE_AFTER: Duration = Duration::from_millis(400);

/// Writes what the node sends into the others' inboxes, and pings into its own.
#[derive(Debug)]
pub(super) struct StreamWriter {
    link: Arc<RedisShared>,
    connector: RedisConnector,
    pings: Interval,
    budget: InboxBudget,
}

/// What goes out at once.
#[derive(Debug)]
struct WriteBatch {
    messages: Vec<(NodeId, Vec<Bytes>)>,
    /// Whether to write to the own inbox too, and to renew and clear it.
    ping: bool,
}

impl StreamWriter {
    pub(super) fn new(link: Arc<RedisShared>, connector: RedisConnector) -> Self {
        let mut pings = interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let settings = &link.settings;
        let budget = InboxBudget::new(settings.inbox_entries_max, settings.inbox_bytes_max);
        Self {
            link,
            connector,
            pings,
            budget,
        }
    }

    /// Connects and writes, again and again, until the link is closed.
    pub(super) async fn run(mut self) {
        let mut pause = ReconnectBackoff::default();
        let mut failed: Option<Instant> = None;
        loop {
            match self.connector.connect().await {
                Ok(connection) => {
                    if failed.is_some_and(|since| since.elapsed() > STALE_AFTER) {
                        let dropped = lock(&self.link.outgoing).clear();
                        add(&self.link.counters.dropped, dropped);
                    }
                    if self.write(&connection, &mut pause).await.is_ok() {
                        return;
                    }
                    failed = Some(Instant::now());
                }
                Err(reason) => {
                    debug!(%reason, "connect to redis");
                    self.link.note("connect to redis", reason);
                    failed.get_or_insert_with(Instant::now);
                }
            }
            if *self.link.closing.borrow() {
                return;
            }
            pause.wait().await;
        }
    }

    /// Writes rounds until one fails; `Ok` when the link was closed.
    async fn write(
        &mut self,
        connection: &RedisConnection,
        pause: &mut ReconnectBackoff,
    ) -> Result<(), ()> {
        loop {
            let Some(round) = self.next().await else {
                self.leave(connection).await;
                return Ok(());
            };
            let limit = self.link.settings.command_timeout();
            let messages: usize = round.messages.iter().map(|(_, m)| m.len()).sum();
            let written = match timeout(limit, self.send(connection, &round)).await {
                Ok(written) => written,
                Err(_) => Err("no answer".to_owned()),
            };
            if let Err(reason) = written {
                debug!(%reason, "write to redis");
                self.link.note("write to redis", reason);
                add(&self.link.counters.dropped, messages);
                return Err(());
            }
            pause.reset();
            let rest_ms = (messages / MESSAGES_A_MS).min(REST_MAX_MS);
            if rest_ms > 0 {
                sleep(Duration::from_millis(rest_ms as u64)).await;
            }
        }
    }

    /// What goes next, once there is something; `None` when the link is closed and everything is out.
    async fn next(&mut self) -> Option<WriteBatch> {
        loop {
            let messages = lock(&self.link.outgoing).take(SHARE_BYTES);
            if !messages.is_empty() {
                // In a flood too, a ping is due in its time.
                let ping = self.ping_is_due();
                return Some(WriteBatch { messages, ping });
            }
            if *self.link.closing.borrow() {
                return None;
            }
            tokio::select! {
                biased;
                _ = self.pings.tick() => return Some(WriteBatch { messages, ping: true }),
                () = self.link.bell.notified() => {}
            }
        }
    }

    fn ping_is_due(&mut self) -> bool {
        self.pings.tick().now_or_never().is_some()
    }

    /// Sends a round in one go, and waits until all of it is answered. What single inboxes refuse is dropped; it fails
    /// when nothing of it was taken, or not the ping.
    async fn send(
        &mut self,
        connection: &RedisConnection,
        round: &WriteBatch,
    ) -> Result<(), String> {
        let mut commands = Commands::new(&self.link, &mut self.budget, connection);
        if round.ping {
            commands.ping().await;
        }
        for (to, messages) in &round.messages {
            commands.messages(*to, messages).await;
        }
        let answers = commands.pipeline.try_all::<Value>().await;
        let carried = commands.messages;
        let first = answers.first().cloned().ok_or("no answer")?;
        if answers.len() != carried.len() || answers.iter().all(Result::is_err) {
            return Err(first.map_or_else(|error| error.to_string(), |_| "half an answer".into()));
        }
        if round.ping {
            let id = first.and_then(Value::convert::<String>);
            self.written(&id.map_err(|error| error.to_string())?);
        }
        for (answer, &messages) in answers.iter().zip(&carried) {
            let taken = answer.is_ok();
            let counters = &self.link.counters;
            add(
                if taken {
                    &counters.sent
                } else {
                    &counters.dropped
                },
                messages,
            );
            if let Err(error) = answer {
                self.link.note("write to an inbox", error);
            }
        }
        Ok(())
    }

    /// A ping has got an id. When that is below what was read already, the stream is another than before (flushed, with
    /// a clock that went back; a replica that took over): a reader that waits for what follows the old ids sees nothing.
    fn written(&self, id: &str) {
        let mut place = lock(&self.link.place);
        if StreamPosition::parse(id).is_some_and(|written| written < *place) {
            *place = StreamPosition::default();
        }
    }

    /// Takes the inbox away: nobody will read it.
    async fn leave(&self, connection: &RedisConnection) {
        let inbox = self.link.inbox(self.link.me);
        let limit = self.link.settings.command_timeout();
        // Without an answer it expires.
        let _ = timeout(limit, connection.client.del::<Value, _>(inbox)).await;
    }
}

/// The commands of a round.
struct Commands<'a> {
    link: &'a RedisShared,
    budget: &'a mut InboxBudget,
    pipeline: Pipeline<Client>,
    /// How many messages each command carries.
    messages: Vec<usize>,
}

impl<'a> Commands<'a> {
    fn new(
        link: &'a RedisShared,
        budget: &'a mut InboxBudget,
        connection: &RedisConnection,
    ) -> Self {
        Self {
            link,
            budget,
            pipeline: connection.client.pipeline(),
            messages: Vec::new(),
        }
    }

    /// Writes a ping to the own inbox, whose answer is the first; renews the inbox and clears it of what was read.
    async fn ping(&mut self) {
        let inbox = self.link.inbox(self.link.me);
        let sent = self.link.started.elapsed().as_millis();
        let ping = sent.to_string();
        let entries_max = self.budget.write(self.link.me, ping.len());
        let ping = (PING, ping.into());
        self.add(&inbox, 0, ping, entries_max).await;
        self.renew(&inbox).await;
        let place = *lock(&self.link.place);
        if place > StreamPosition::default() {
            let read = ("MINID", "=", place.to_string());
            self.queued(self.pipeline.xtrim(&inbox, read).await, 0);
        }
    }

    async fn messages(&mut self, to: NodeId, messages: &[Bytes]) {
        let inbox = self.link.inbox(to);
        for (piece, count) in pack(messages, ENTRY_BYTES_MAX) {
            let entries_max = self.budget.write(to, piece.len());
            let messages = (MESSAGES, Value::Bytes(piece));
            self.add(&inbox, count, messages, entries_max).await;
        }
        // Each time: an inbox that was flushed away is made anew by the next entry, and must not stay for ever.
        self.renew(&inbox).await;
    }

    async fn add(
        &mut self,
        inbox: &str,
        messages: usize,
        field: (&str, Value),
        entries_max: usize,
    ) {
        let most = ("MAXLEN", "~", entries_max.to_string());
        let entry = vec![(FROM, Value::from(self.link.me.to_string())), field];
        let queued = self.pipeline.xadd(inbox, false, most, "*", entry).await;
        self.queued(queued, messages);
    }

    async fn renew(&mut self, inbox: &str) {
        let expiry = self.link.settings.inbox_expiry_ms();
        self.queued(self.pipeline.pexpire(inbox, expiry, None).await, 0);
    }

    /// Notes a command that the pipeline has taken.
    fn queued(&mut self, queued: Result<Value, Error>, messages: usize) {
        queued.expect("a pipeline takes what it is given");
        self.messages.push(messages);
    }
}
