//! Bounds the bytes of encoded snapshots on a node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::doc::EncodedSnapshot;

/// The bytes that encoded snapshots may take: those that documents cache for their next reader, and those that wait to be
/// written to sockets. A snapshot is encoded once and shared by all its readers, and counts once.
///
/// Loading and encoding a snapshot takes a [permit](Self::permit). There are eight, and none is given while the budget is
/// used up: so the budget is exceeded by at most eight documents.
#[derive(Debug)]
pub struct SnapshotBudget {
    bytes_max: usize,
    used: Arc<SnapshotBytes>,
    permits: Semaphore,
}

#[derive(Debug, Default)]
struct SnapshotBytes {
    bytes: AtomicUsize,
    /// Notified when bytes are freed.
    freed: Notify,
}

/// How many snapshots are loaded and encoded at the same time.
const PERMITS: usize = 8;

/// Smaller snapshots are not counted: the number of open documents bounds them.
const COUNTED_BYTES_MIN: usize = 32 << 10;

/// How long a read waits until snapshots of other reads are written.
const PATIENCE: Duration = Duration::from_secs(5);

/// The memory of an encoded snapshot. Dropping the last clone frees its part of the budget.
struct CountedBytes {
    json: Bytes,
    used: Arc<SnapshotBytes>,
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

impl Drop for CountedBytes {
    fn drop(&mut self) {
        self.used.bytes.fetch_sub(self.json.len(), Ordering::SeqCst);
        self.used.freed.notify_waiters();
    }
}

impl SnapshotBudget {
    /// A budget of this many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            used: Arc::default(),
            permits: Semaphore::new(PERMITS),
        }
    }

    /// Waits for the permit to load and encode a snapshot. Returns `None` if the budget was used up for 5 s.
    pub async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        let has_room = async {
            loop {
                let freed = self.used.freed.notified();
                if !self.is_full() {
                    return;
                }
                freed.await;
            }
        };
        timeout(PATIENCE, has_room).await.ok()?;
        self.permits.acquire().await.ok()
    }

    /// Counts a snapshot until the last clone of its bytes is dropped.
    #[must_use]
    pub fn count(&self, shown: EncodedSnapshot) -> EncodedSnapshot {
        if shown.size() < COUNTED_BYTES_MIN {
            return shown;
        }
        shown.map_json(|json| {
            self.used.bytes.fetch_add(json.len(), Ordering::SeqCst);
            Bytes::from_owner(CountedBytes {
                json,
                used: self.used.clone(),
            })
        })
    }

    /// Returns true if no further snapshot may be loaded now.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.used() >= self.bytes_max
    }

    /// Returns true if three quarters are used: documents should drop the snapshots that they cache.
    #[must_use]
    pub fn is_nearly_full(&self) -> bool {
        self.used() >= self.bytes_max - self.bytes_max / 4
    }

    /// The bytes in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.bytes.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::encode_snapshot;
    use futures_util::FutureExt;

    use super::*;
    use crate::log::Snapshot;
    use crate::ot::{Content, Kind};

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_counts_once_until_its_last_clone_is_dropped() {
        let budget = SnapshotBudget::new(COUNTED_BYTES_MIN);
        assert!(budget.permit().await.is_some());
        let small = budget.count(encode_snapshot(&Snapshot::default()));
        assert_eq!((budget.used(), small.size() > 0), (0, true));
        let text = format!("{:?}", "x".repeat(COUNTED_BYTES_MIN));
        let snapshot = Snapshot {
            content: Content::create(Kind::TextUnicode, Some(&text)).ok(),
            ..Snapshot::default()
        };
        let shown = budget.count(encode_snapshot(&snapshot));
        let size = shown.size();
        assert!(size > COUNTED_BYTES_MIN);
        let sent = shown.json().clone();
        assert_eq!(budget.used(), size);
        drop(shown);
        assert_eq!(budget.used(), size, "it waits to be written to a socket");
        assert!(budget.permit().await.is_none(), "the wait is limited");
        let mut waiting = Box::pin(budget.permit());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(sent);
        assert!(waiting.await.is_some());
        assert_eq!(budget.used(), 0);
    }
}
