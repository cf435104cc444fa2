//! The writing task of a WebSocket.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt::time::{Instant, timeout};

use super::{ConnectionHandle, SharedConnection};
use crate::node::{Outbox, SnapshotBudget};
use crate::protocol::CloseReason;

impl ConnectionHandle {
    /// Writes the frames of the outbox until it ends, as many as possible with each write.
    pub(in crate::gateway) async fn write(
        self,
        outbox: Arc<Outbox>,
        snapshots: Arc<SnapshotBudget>,
    ) {
        let mut writer = SocketWriter {
            shared: self.0,
            outbox,
        };
        if !poll_fn(|cx| writer.shared.poll_owned(cx)).await {
            return;
        }
        while let Some(frames) = poll_fn(|cx| writer.outbox.poll_take(cx)).await {
            if writer.write_all(&frames, &snapshots).await.is_err() {
                return;
            }
        }
        // Nothing follows, so an error of the shutdown has no effect.
        let _ = poll_fn(|cx| writer.shared.stream.borrow_mut().poll_shutdown(cx)).await;
    }
}

/// Writes to a connection. Closes the outbox when dropped, because nothing more can be sent then.
struct SocketWriter {
    shared: Rc<SharedConnection>,
    outbox: Arc<Outbox>,
}

/// How long a write may make no progress before the client counts as gone.
const STALLED_MAX: Duration = Duration::from_secs(30);

/// How often a write that makes no progress is checked.
const STALL_CHECK: Duration = Duration::from_secs(1);

/// While the node is short of memory for snapshots: how long a write may make no progress.
const SHORT_STALLED_MAX: Duration = Duration::from_secs(3);

/// While the node is short of memory for snapshots: how many bytes a second must be written after that.
const SHORT_BYTES_PER_SECOND: u64 = 128 << 10;

/// Whether the node has memory for more snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SnapshotMemory {
    Available,
    Short,
}

impl SocketWriter {
    /// Writes all of `bytes`, as fast as the client reads.
    ///
    /// # Errors
    /// If the connection has ended, or the client reads too slowly: then the outbox is closed.
    async fn write_all(&mut self, bytes: &[u8], snapshots: &SnapshotBudget) -> io::Result<()> {
        let (begun, mut stalled_since, mut done) = (Instant::now(), None, 0);
        while done < bytes.len() {
            let stream = &self.shared.stream;
            let write = poll_fn(|cx| stream.borrow_mut().poll_write(cx, &bytes[done..]));
            match timeout(STALL_CHECK, write).await {
                Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    done += written?;
                    stalled_since = None;
                }
                Err(_) => {
                    stalled_since.get_or_insert_with(Instant::now);
                }
            }
            let stalled =
                stalled_since.map_or(Duration::ZERO, |since| since.elapsed() + STALL_CHECK);
            let memory = if snapshots.is_full() {
                SnapshotMemory::Short
            } else {
                SnapshotMemory::Available
            };
            if is_too_slow(stalled, begun.elapsed(), done as u64, memory) {
                self.outbox.close_slow();
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        poll_fn(|cx| self.shared.stream.borrow_mut().poll_flush(cx)).await
    }
}

/// Whether a write is aborted that has lasted for `elapsed`, has made no progress for `stalled` and has written `bytes`.
fn is_too_slow(stalled: Duration, elapsed: Duration, bytes: u64, memory: SnapshotMemory) -> bool {
    if stalled >= STALLED_MAX {
        return true;
    }
    let bytes_min = elapsed.saturating_sub(SHORT_STALLED_MAX).as_secs() * SHORT_BYTES_PER_SECOND;
    memory == SnapshotMemory::Short && (stalled >= SHORT_STALLED_MAX || bytes < bytes_min)
}

impl Drop for SocketWriter {
    fn drop(&mut self) {
        self.outbox.close(CloseReason::ConnectionLost);
    }
}

#[cfg(test)]
mod tests {
    use super::SnapshotMemory::{Available, Short};
    use super::*;

    #[test]
    fn write_without_progress_is_aborted() {
        let seconds = Duration::from_secs;
        for (stalled, elapsed, bytes, memory, aborted) in [
            (29, 600, 1 << 20, Available, false),
            (30, 30, 1 << 20, Available, true),
            // Short of memory: a stalled write, and one that is slow on average.
            (3, 3, 1 << 20, Short, true),
            (0, 20, 1 << 20, Short, true),
            (1, 20, 3 << 20, Short, false),
        ] {
            let is_aborted = is_too_slow(seconds(stalled), seconds(elapsed), bytes, memory);
            assert_eq!(
                is_aborted, aborted,
                "{stalled} {elapsed} {bytes} {memory:?}"
            );
        }
    }
}
