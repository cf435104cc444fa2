//! The task that writes to the other nodes' inboxes. Messages that gather while one batch is in flight, and under load for
//! up to 2 ms more, form the next batch.

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

/// Approximate bound of an entry: larger ones delay other users of the server.
const ENTRY_BYTES_MAX: usize = 256 << 10;

/// Approximate share of one target in a batch, so that a flood to one target does not delay the others.
const SHARE_BYTES: usize = 4 << 20;

/// The writer pauses a millisecond per this many messages of its last batch. Single messages are not delayed. A batch
/// costs more than many messages in it, for the writer and for the reader.
const MESSAGES_A_MS: usize = 5;

/// Longest pause in milliseconds. A forwarded op crosses twice, so it may be delayed by twice as much.
const REST_MAX_MS: usize = 2;

/// Length of a failure beyond which queued messages are dropped: unanswered requests are repeated after about as long, and
/// both would arrive.
const STALE_AFTER: Duration = Duration::from_millis(400);

/// Writes messages into the other nodes' inboxes, and pings into this node's.
#[derive(Debug)]
pub(super) struct StreamWriter {
    shared: Arc<RedisShared>,
    connector: RedisConnector,
    pings: Interval,
    budget: InboxBudget,
}

/// Messages that are written in one pipeline.
#[derive(Debug)]
struct WriteBatch {
    messages: Vec<(NodeId, Vec<Bytes>)>,
    /// Also ping, renew and trim this node's inbox.
    ping: bool,
}

impl StreamWriter {
    pub(super) fn new(shared: Arc<RedisShared>, connector: RedisConnector) -> Self {
        let mut pings = interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let settings = &shared.settings;
        let budget = InboxBudget::new(settings.inbox_entries_max, settings.inbox_bytes_max);
        Self {
            shared,
            connector,
            pings,
            budget,
        }
    }

    /// Connects and writes until the transport is closed.
    pub(super) async fn run(mut self) {
        let mut pause = ReconnectBackoff::default();
        let mut failed: Option<Instant> = None;
        loop {
            match self.connector.connect().await {
                Ok(connection) => {
                    if failed.is_some_and(|since| since.elapsed() > STALE_AFTER) {
                        let dropped = lock(&self.shared.outgoing).clear();
                        add(&self.shared.counters.dropped, dropped);
                    }
                    if self.write(&connection, &mut pause).await.is_ok() {
                        return;
                    }
                    failed = Some(Instant::now());
                }
                Err(reason) => {
                    debug!(%reason, "connect to redis");
                    self.shared.record_failure("connect to redis", reason);
                    failed.get_or_insert_with(Instant::now);
                }
            }
            if *self.shared.closing.borrow() {
                return;
            }
            pause.wait().await;
        }
    }

    /// Writes batches until one fails; `Ok` once the transport is closed.
    async fn write(
        &mut self,
        connection: &RedisConnection,
        pause: &mut ReconnectBackoff,
    ) -> Result<(), ()> {
        loop {
            let Some(batch) = self.next().await else {
                self.remove_inbox(connection).await;
                return Ok(());
            };
            let limit = self.shared.settings.command_timeout();
            let messages: usize = batch.messages.iter().map(|(_, m)| m.len()).sum();
            let written = match timeout(limit, self.send(connection, &batch)).await {
                Ok(written) => written,
                Err(_) => Err("no answer".to_owned()),
            };
            if let Err(reason) = written {
                debug!(%reason, "write to redis");
                self.shared.record_failure("write to redis", reason);
                add(&self.shared.counters.dropped, messages);
                return Err(());
            }
            pause.reset();
            let rest_ms = (messages / MESSAGES_A_MS).min(REST_MAX_MS);
            if rest_ms > 0 {
                sleep(Duration::from_millis(rest_ms as u64)).await;
            }
        }
    }

    /// Waits for the next batch; `None` once the transport is closed and the queue is empty.
    async fn next(&mut self) -> Option<WriteBatch> {
        loop {
            let messages = lock(&self.shared.outgoing).take(SHARE_BYTES);
            if !messages.is_empty() {
                // Pings keep their interval during a flood.
                let ping = self.ping_is_due();
                return Some(WriteBatch { messages, ping });
            }
            if *self.shared.closing.borrow() {
                return None;
            }
            tokio::select! {
                biased;
                _ = self.pings.tick() => return Some(WriteBatch { messages, ping: true }),
                () = self.shared.wake_writer.notified() => {}
            }
        }
    }

    fn ping_is_due(&mut self) -> bool {
        self.pings.tick().now_or_never().is_some()
    }

    /// Sends a batch in one pipeline and waits for all replies. Messages that single inboxes reject are dropped; fails if
    /// all commands or the ping fail.
    async fn send(
        &mut self,
        connection: &RedisConnection,
        batch: &WriteBatch,
    ) -> Result<(), String> {
        let mut commands = Commands::new(&self.shared, &mut self.budget, connection);
        if batch.ping {
            commands.ping().await;
        }
        for (to, messages) in &batch.messages {
            commands.messages(*to, messages).await;
        }
        let answers = commands.pipeline.try_all::<Value>().await;
        let carried = commands.messages;
        let first = answers.first().cloned().ok_or("no answer")?;
        if answers.len() != carried.len() || answers.iter().all(Result::is_err) {
            return Err(first.map_or_else(|error| error.to_string(), |_| "incomplete reply".into()));
        }
        if batch.ping {
            let id = first.and_then(Value::convert::<String>);
            self.ping_written(&id.map_err(|error| error.to_string())?);
        }
        for (answer, &messages) in answers.iter().zip(&carried) {
            let taken = answer.is_ok();
            let counters = &self.shared.counters;
            add(
                if taken {
                    &counters.sent
                } else {
                    &counters.dropped
                },
                messages,
            );
            if let Err(error) = answer {
                self.shared.record_failure("write to an inbox", error);
            }
        }
        Ok(())
    }

    /// Takes the id of a written ping. If it is below the position read, the stream was replaced (flushed while the clock
    /// went back, or a replica took over), and a reader that waits beyond the old ids would see nothing.
    fn ping_written(&self, id: &str) {
        let mut position = lock(&self.shared.position);
        if StreamPosition::parse(id).is_some_and(|written| written < *position) {
            *position = StreamPosition::default();
        }
    }

    /// Removes this node's inbox.
    async fn remove_inbox(&self, connection: &RedisConnection) {
        let inbox = self.shared.inbox(self.shared.me);
        let limit = self.shared.settings.command_timeout();
        // If this fails, the inbox expires.
        let _ = timeout(limit, connection.client.del::<Value, _>(inbox)).await;
    }
}

/// The pipeline of a batch.
struct Commands<'a> {
    shared: &'a RedisShared,
    budget: &'a mut InboxBudget,
    pipeline: Pipeline<Client>,
    /// Number of messages in each command.
    messages: Vec<usize>,
}

impl<'a> Commands<'a> {
    fn new(
        shared: &'a RedisShared,
        budget: &'a mut InboxBudget,
        connection: &RedisConnection,
    ) -> Self {
        Self {
            shared,
            budget,
            pipeline: connection.client.pipeline(),
            messages: Vec::new(),
        }
    }

    /// Writes a ping to this node's inbox as the first command; renews the inbox and trims what was read.
    async fn ping(&mut self) {
        let inbox = self.shared.inbox(self.shared.me);
        let sent = self.shared.started.elapsed().as_millis();
        let ping = sent.to_string();
        let entries_max = self.budget.write(self.shared.me, ping.len());
        let ping = (PING, ping.into());
        self.add(&inbox, 0, ping, entries_max).await;
        self.renew(&inbox).await;
        let position = *lock(&self.shared.position);
        if position > StreamPosition::default() {
            let read = ("MINID", "=", position.to_string());
            self.record_command(self.pipeline.xtrim(&inbox, read).await, 0);
        }
    }

    async fn messages(&mut self, to: NodeId, messages: &[Bytes]) {
        let inbox = self.shared.inbox(to);
        for (chunk, count) in pack(messages, ENTRY_BYTES_MAX) {
            let entries_max = self.budget.write(to, chunk.len());
            let messages = (MESSAGES, Value::Bytes(chunk));
            self.add(&inbox, count, messages, entries_max).await;
        }
        // Each time: after a flush the next entry creates the inbox again, without an expiry.
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
        let entry = vec![(FROM, Value::from(self.shared.me.to_string())), field];
        let queued = self.pipeline.xadd(inbox, false, most, "*", entry).await;
        self.record_command(queued, messages);
    }

    async fn renew(&mut self, inbox: &str) {
        let expiry = self.shared.settings.inbox_expiry_ms();
        self.record_command(self.pipeline.pexpire(inbox, expiry, None).await, 0);
    }

    /// Records a command of the pipeline.
    fn record_command(&mut self, queued: Result<Value, Error>, messages: usize) {
        queued.expect("a pipeline buffers every command");
        self.messages.push(messages);
    }
}
