//! One authenticated connection to another node: a task that writes and one that reads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use snow::StatelessTransportState;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::frames::{FrameDecryptor, FrameEncryptor, FrameError, LinkFrame, LinkStatus};
use crate::cluster::packing::{pack, unpack};
use crate::cluster::send_queue::SendQueue;
use crate::cluster::transport::{Delivery, TransportCounters, add};
use crate::id::NodeId;
use crate::sync::lock;

/// Interval of status frames. A change of status is sent at once.
pub(super) const PING_EVERY: Duration = Duration::from_millis(250);

/// Silence of the other end after which the connection carries no messages: three status frames.
const SILENT_AFTER: Duration = Duration::from_millis(1_000);

/// Silence of the other end after which the connection is closed: it may be half open.
const GONE_AFTER: Duration = Duration::from_secs(3);

/// Time limit of a write without progress.
const WRITE_TIMEOUT: Duration = Duration::from_secs(3);

/// Approximate bound of a chunk with several messages.
const CHUNK_BYTES_MAX: usize = 256 << 10;

/// Bytes taken from the queue per write, so that status frames are not delayed.
const SHARE_BYTES: usize = 1 << 20;

/// Bound of the queue for one node, in bytes. Messages beyond it are dropped.
pub(super) const QUEUE_BYTES_MAX: usize = 16 << 20;

/// Bound of the queues for all nodes, in bytes.
const QUEUES_BYTES_MAX: usize = 64 << 20;

/// The largest chunk that is accepted: the largest message that a queue takes, with its length.
pub(super) const CHUNK_BYTES_ACCEPTED: usize = QUEUE_BYTES_MAX + 16;

/// Why a connection ended.
#[derive(Debug, Error)]
pub(super) enum LinkEnd {
    #[error("{0}")]
    Broken(#[from] std::io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("packed messages were not understood")]
    BadChunk,
    #[error("the other node was silent for {GONE_AFTER:?}")]
    Silent,
    #[error("a write made no progress for {WRITE_TIMEOUT:?}")]
    Stuck,
    #[error("another connection took its place, or this node stops")]
    Closed,
}

/// State shared by all connections of a node.
#[derive(Debug)]
pub(super) struct ConnectionShared {
    /// Whether Redis carries this node's messages, as sent in its status.
    pub(super) has_redis: watch::Sender<bool>,
    pub(super) counters: Arc<TransportCounters>,
    /// Bytes in all queues.
    pub(super) queued: AtomicU64,
    /// Notified when a connection becomes live or stops being live.
    pub(super) changed: Notify,
    pub(super) started: Instant,
}

/// The handle of a connection.
#[derive(Debug)]
pub(super) struct DirectConnection {
    pub(super) peer: NodeId,
    common: Arc<ConnectionShared>,
    queue: Mutex<SendQueue>,
    /// Bytes in the queue.
    queued: AtomicU64,
    /// Notified when a message was queued.
    wake: Notify,
    /// When the last frame arrived, in milliseconds since `ConnectionShared::started`.
    heard_ms: AtomicU64,
    /// From the last status of the other end.
    peer_has_redis: AtomicBool,
    peer_hears_me: AtomicBool,
    closed: watch::Sender<bool>,
}

impl DirectConnection {
    pub(super) fn new(peer: NodeId, common: Arc<ConnectionShared>) -> Arc<Self> {
        let now = common.started.elapsed().as_millis() as u64;
        Arc::new(Self {
            peer,
            common,
            queue: Mutex::new(SendQueue::new(QUEUE_BYTES_MAX, QUEUE_BYTES_MAX)),
            queued: AtomicU64::new(0),
            wake: Notify::new(),
            heard_ms: AtomicU64::new(now),
            peer_has_redis: AtomicBool::new(true),
            peer_hears_me: AtomicBool::new(false),
            closed: watch::Sender::new(false),
        })
    }

    /// Queues a message; returns false if a bound is reached or the connection is closed.
    pub(super) fn send(&self, message: Bytes) -> bool {
        let bytes = message.len() as u64;
        let waiting = self.common.queued.load(Ordering::Relaxed);
        let has_room = waiting + bytes <= QUEUES_BYTES_MAX as u64;
        let is_queued = !self.is_closed() && has_room && lock(&self.queue).push(self.peer, message);
        if is_queued {
            self.queued.fetch_add(bytes, Ordering::Relaxed);
            self.common.queued.fetch_add(bytes, Ordering::Relaxed);
            self.wake.notify_one();
        }
        is_queued
    }

    /// Returns true if each end has received from the other recently.
    pub(super) fn is_live(&self) -> bool {
        !self.is_closed() && self.hears() && self.peer_hears_me.load(Ordering::Relaxed)
    }

    /// Whether Redis carries the other node's messages, by its last status.
    pub(super) fn peer_has_redis(&self) -> bool {
        self.peer_has_redis.load(Ordering::Relaxed)
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Ends both tasks.
    pub(super) fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Returns true if a frame arrived recently.
    fn hears(&self) -> bool {
        let now = self.common.started.elapsed().as_millis() as u64;
        let heard = self.heard_ms.load(Ordering::Relaxed);
        now.saturating_sub(heard) < SILENT_AFTER.as_millis() as u64
    }

    /// Removes the next messages to send.
    fn take(&self) -> Vec<Bytes> {
        let taken = lock(&self.queue).take(SHARE_BYTES);
        let messages: Vec<Bytes> = taken.into_iter().flat_map(|(_, it)| it).collect();
        let bytes: usize = messages.iter().map(Bytes::len).sum();
        self.unqueued(bytes as u64);
        messages
    }

    fn unqueued(&self, bytes: u64) {
        self.queued.fetch_sub(bytes, Ordering::Relaxed);
        self.common.queued.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Closes the connection; drops and counts the unsent messages.
    fn discard(&self) {
        self.close();
        let dropped = lock(&self.queue).clear();
        add(&self.common.counters.dropped, dropped);
        self.unqueued(self.queued.load(Ordering::Relaxed));
        self.common.changed.notify_one();
    }

    fn update_status(&self, status: LinkStatus) {
        let changes = [
            (&self.peer_has_redis, status.has_redis),
            (&self.peer_hears_me, status.hears_you),
        ];
        let mut has_changed = false;
        for (known, said) in changes {
            has_changed |= known.swap(said, Ordering::Relaxed) != said;
        }
        if has_changed {
            self.common.changed.notify_one();
        }
    }
}

/// Writes and reads until either fails, the other end is silent for too long, or the connection is closed.
pub(super) async fn run<S: AsyncRead + AsyncWrite>(
    connection: &DirectConnection,
    stream: S,
    cipher: &StatelessTransportState,
    opener: FrameDecryptor,
    deliveries: &mpsc::Sender<Delivery>,
) -> LinkEnd {
    let (reader, writer) = tokio::io::split(stream);
    let mut closed = connection.closed.subscribe();
    let end = tokio::select! {
        end = write(connection, writer, cipher) => end,
        end = read(connection, reader, (cipher, opener), deliveries) => end,
        _ = closed.wait_for(|it| *it) => LinkEnd::Closed,
    };
    connection.discard();
    end
}

async fn write(
    connection: &DirectConnection,
    mut writer: impl AsyncWrite + Unpin,
    cipher: &StatelessTransportState,
) -> LinkEnd {
    let mut sealer = FrameEncryptor::default();
    let mut out = BytesMut::new();
    let mut pings = interval(PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut has_redis = connection.common.has_redis.subscribe();
    loop {
        let is_ping = tokio::select! {
            biased;
            _ = pings.tick() => true,
            changed = has_redis.changed() => changed.is_ok(),
            () = connection.wake.notified() => false,
        };
        if is_ping {
            let status = LinkStatus {
                has_redis: *has_redis.borrow_and_update(),
                hears_you: connection.hears(),
            };
            sealer.status(cipher, status, &mut out);
        }
        let messages = connection.take();
        for (chunk, _) in pack(&messages, CHUNK_BYTES_MAX) {
            sealer.chunk(cipher, &chunk, &mut out);
        }
        if !lock(&connection.queue).is_empty() {
            // The rest follows in the next iteration.
            connection.wake.notify_one();
        }
        if let Err(end) = write_all(&mut writer, &mut out).await {
            add(&connection.common.counters.dropped, messages.len());
            return end;
        }
        add(&connection.common.counters.sent, messages.len());
    }
}

/// Writes all of `out`, as long as the other end takes some of it within the limit.
async fn write_all(
    writer: &mut (impl AsyncWrite + Unpin),
    out: &mut BytesMut,
) -> Result<(), LinkEnd> {
    while !out.is_empty() {
        let written = timeout(WRITE_TIMEOUT, writer.write_buf(out)).await;
        if written.map_err(|_| LinkEnd::Stuck)?? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into());
        }
    }
    Ok(())
}

async fn read(
    connection: &DirectConnection,
    reader: impl AsyncRead + Unpin,
    (cipher, mut opener): (&StatelessTransportState, FrameDecryptor),
    deliveries: &mpsc::Sender<Delivery>,
) -> LinkEnd {
    let mut reader = BufReader::new(reader);
    loop {
        let frame = match timeout(GONE_AFTER, read_frame(&mut reader)).await {
            Ok(Ok(sealed)) => opener.open(cipher, &sealed),
            Ok(Err(error)) => return error.into(),
            Err(_) => return LinkEnd::Silent,
        };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return error.into(),
        };
        let now = connection.common.started.elapsed().as_millis() as u64;
        connection.heard_ms.store(now, Ordering::Relaxed);
        match frame {
            None => {}
            Some(LinkFrame::Status(status)) => connection.update_status(status),
            Some(LinkFrame::Chunk(chunk)) => {
                let Some(messages) = unpack(chunk) else {
                    return LinkEnd::BadChunk;
                };
                let from = connection.peer;
                add(&connection.common.counters.received, messages.len());
                // Fails only while the node shuts down.
                let _ = deliveries.send(Delivery { from, messages }).await;
            }
        }
    }
}

/// Reads one encrypted frame. At most 64 KiB are allocated, whatever the other end says.
pub(super) async fn read_frame(reader: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let length = reader.read_u16().await?;
    let mut sealed = vec![0; length.into()];
    reader.read_exact(&mut sealed).await?;
    Ok(sealed)
}
