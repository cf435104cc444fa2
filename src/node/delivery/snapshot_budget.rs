//! How many bytes of encoded snapshots a node holds, for all readers together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::doc::EncodedSnapshot;

/// Bounds the bytes of encoded snapshots on a node: those that documents keep for the next reader, and those that wait to
/// be written to sockets. A snapshot is encoded once and shared by all sockets that are sent it, and counts once.
///
/// A snapshot is loaded and encoded only with a [turn](Self::turn). There are eight turns, and none is given while the
/// budget is used up; so the budget is exceeded by at most eight documents.
#[derive(Debug)]
pub struct SnapshotBudget {
    bytes_max: usize,
    used: Arc<Used>,
    turns: Semaphore,
}

#[derive(Debug, Default)]
struct Used {
    bytes: AtomicUsize,
    /// Told when bytes are freed.
    freed: Notify,
}

/// How many snapshots are loaded and encoded at the same time.
const TURNS: usize = 8;

/// Smaller snapshots are not counted: the number of open documents bounds those.
const COUNTED_BYTES_MIN: usize = 32 << 10;

/// How long a read waits for others to be written.
const PATIENCE: Duration = Duration::from_secs(5);

/// The encoded snapshot's memory; the last holder frees its part of the budget.
struct Counted {
    json: Bytes,
    used: Arc<Used>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.used.bytes.fetch_sub(self.json.len(), Ordering::SeqCst);
        self.used.freed.notify_waiters();
    }
}

impl SnapshotBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            used: Arc::default(),
            turns: Semaphore::new(TURNS),
        }
    }

    /// Waits for the right to load and encode a snapshot; none: the budget was used up for 5 s.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        let room = async {
            loop {
                let freed = self.used.freed.notified();
                if !self.is_full() {
                    return;
                }
                freed.await;
            }
        };
        timeout(PATIENCE, room).await.ok()?;
        self.turns.acquire().await.ok()
    }

    /// Counts a snapshot for as long as anything holds its bytes.
    #[must_use]
    pub fn count(&self, shown: EncodedSnapshot) -> EncodedSnapshot {
        if shown.size() < COUNTED_BYTES_MIN {
            return shown;
        }
        shown.map_json(|json| {
            self.used.bytes.fetch_add(json.len(), Ordering::SeqCst);
            Bytes::from_owner(Counted {
                json,
                used: self.used.clone(),
            })
        })
    }

    /// Whether no further snapshot may be loaded now.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.used() >= self.bytes_max
    }

    /// Whether documents should let go of the snapshots that they keep for the next reader.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.used() >= self.bytes_max - self.bytes_max / 4
    }

    /// How many bytes are used.
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
    async fn a_snapshot_counts_once_for_as_long_as_it_is_held() {
        let budget = SnapshotBudget::new(COUNTED_BYTES_MIN);
        assert!(budget.turn().await.is_some());
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
        assert_eq!(budget.used(), size, "a socket is still sent it");
        assert!(budget.turn().await.is_none(), "the wait is limited");
        let mut waiting = Box::pin(budget.turn());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(sent);
        assert!(waiting.await.is_some());
        assert_eq!(budget.used(), 0);
    }
}
