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

/// How often each end says that it lives. A change of its status is said at once.
pub(super) const PING_EVERY: Duration = Duration::from_millis(250);

/// How long the other end may be silent until the connection carries no more messages: three pings.
const SILENT_AFTER: Duration = Duration::from_millis(1_000);

/// How long the other end may be silent until the connection is given up: it may be half open.
const GONE_AFTER: Duration = Duration::from_secs(3);

/// How long a write may make no progress.
const WRITE_PATIENCE: Duration = Duration::from_secs(3);

/// About how large a piece may be that holds several messages.
const PIECE_BYTES_MAX: usize = 256 << 10;

/// How much is taken from the queue for one write, so that a ping does not wait for long.
const SHARE_BYTES: usize = 1 << 20;

/// How many bytes may wait to be sent to one node. What is beyond is dropped: it is lost like any other message.
pub(super) const QUEUE_BYTES_MAX: usize = 16 << 20;

/// How many bytes may wait to be sent to all nodes.
const QUEUES_BYTES_MAX: usize = 64 << 20;

/// The largest piece that is accepted: the largest message that a queue takes, with its length.
pub(super) const PIECE_BYTES_ACCEPTED: usize = QUEUE_BYTES_MAX + 16;

/// Why a connection ended.
#[derive(Debug, Error)]
pub(super) enum LinkEnd {
    #[error("{0}")]
    Broken(#[from] std::io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("packed messages were not understood")]
    Piece,
    #[error("the other node was silent for {GONE_AFTER:?}")]
    Silent,
    #[error("a write made no progress for {WRITE_PATIENCE:?}")]
    Stuck,
    #[error("another connection took its place, or this node stops")]
    Closed,
}

/// What the connections of a node share.
#[derive(Debug)]
pub(super) struct ConnectionShared {
    /// What this node says of itself; `hears_you` is filled in by each connection.
    pub(super) has_redis: watch::Sender<bool>,
    pub(super) counters: Arc<TransportCounters>,
    /// How many bytes wait in all queues.
    pub(super) queued: AtomicU64,
    /// Told when a connection begins or ceases to carry messages.
    pub(super) changed: Notify,
    pub(super) started: Instant,
}

/// The half that the node's other tasks use.
#[derive(Debug)]
pub(super) struct DirectConnection {
    pub(super) peer: NodeId,
    common: Arc<ConnectionShared>,
    queue: Mutex<SendQueue>,
    /// How many bytes of messages wait in the queue.
    queued: AtomicU64,
    /// Told when something was queued.
    wake: Notify,
    /// When the other end was heard, in milliseconds since `ConnectionShared::started`.
    heard_ms: AtomicU64,
    /// What the other end said last.
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

    /// Queues a message; `false` if there is no room for it.
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

    /// Whether each end has heard the other of late.
    pub(super) fn is_live(&self) -> bool {
        !self.is_closed() && self.hears() && self.peer_hears_me.load(Ordering::Relaxed)
    }

    /// Whether Redis carries the other node's messages, as it said last.
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

    /// Whether the other end was heard of late.
    fn hears(&self) -> bool {
        let now = self.common.started.elapsed().as_millis() as u64;
        let heard = self.heard_ms.load(Ordering::Relaxed);
        now.saturating_sub(heard) < SILENT_AFTER.as_millis() as u64
    }

    /// Takes what is to be sent next.
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

    /// Drops what was not sent, and counts it.
    fn discard(&self) {
        self.close();
        let dropped = lock(&self.queue).clear();
        add(&self.common.counters.dropped, dropped);
        self.unqueued(self.queued.load(Ordering::Relaxed));
        self.common.changed.notify_one();
    }

    fn note_status(&self, status: LinkStatus) {
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
        for (piece, _) in pack(&messages, PIECE_BYTES_MAX) {
            sealer.piece(cipher, &piece, &mut out);
        }
        if !lock(&connection.queue).is_empty() {
            // What did not fit into this share is next.
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
        let written = timeout(WRITE_PATIENCE, writer.write_buf(out)).await;
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
            Some(LinkFrame::Status(status)) => connection.note_status(status),
            Some(LinkFrame::Piece(piece)) => {
                let Some(messages) = unpack(piece) else {
                    return LinkEnd::Piece;
                };
                let from = connection.peer;
                add(&connection.common.counters.received, messages.len());
                // Where nobody takes it any more, the node is about to end.
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
