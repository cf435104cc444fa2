//! Checks whether edits can be saved, on this node and on others.

use std::time::Duration;

use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use super::peers::Peers;
use crate::store::{Store, StoreError};

/// How long the store may take to confirm that it accepts edits.
const STORE_PATIENCE: Duration = Duration::from_millis(600);

/// How long other nodes may take to confirm that they can save edits. Together with [`STORE_PATIENCE`] this is less than the
/// second that balancers wait.
const OTHERS_PATIENCE: Duration = Duration::from_millis(250);

/// How long a result is used again: however many probes come, the store is asked once in this time.
const VALID_FOR: Duration = Duration::from_millis(500);

/// The most checks for other nodes that run at once. Further requests are not answered.
const PROBES_MAX: usize = 16;

/// The last checks whether edits can be saved.
#[derive(Debug)]
pub(in crate::node) struct SaveChecks {
    /// Locked while the store is asked: checks that come meanwhile take the same result.
    last: Mutex<Option<SaveCheck>>,
    probes: Semaphore,
    /// Whether other nodes can save edits, and when they were asked.
    others: Mutex<Option<(Instant, bool)>>,
}

#[derive(Debug, Clone, Copy)]
struct SaveCheck {
    asked: Instant,
    answered: Instant,
    can_save: bool,
}

impl Default for SaveChecks {
    fn default() -> Self {
        Self {
            last: Mutex::default(),
            probes: Semaphore::new(PROBES_MAX),
            others: Mutex::default(),
        }
    }
}

impl SaveChecks {
    /// Returns true if the store accepts an edit now, or did half a second ago; not before `since`, if that is given.
    pub(super) async fn can_save(
        &self,
        store: &dyn Store,
        peers: &Peers,
        since: Option<Instant>,
    ) -> bool {
        let mut last = self.last.lock().await;
        if let Some(last) = &*last
            && last.answered.elapsed() < VALID_FOR
            && since.is_none_or(|since| last.asked > since)
        {
            return last.can_save;
        }
        let asked = Instant::now();
        let answer = timeout(STORE_PATIENCE, store.check_writes()).await;
        let answer =
            answer.unwrap_or_else(|_| Err(StoreError::new("check writes", "no answer in time")));
        let could_save = last.is_none_or(|last| last.can_save);
        match &answer {
            Err(error) if could_save => tracing::warn!(%error, "edits cannot be saved"),
            Ok(()) if !could_save => {
                tracing::info!("edits can be saved again");
                peers.reconnected();
            }
            _ => {}
        }
        let can_save = answer.is_ok();
        *last = Some(SaveCheck {
            asked,
            answered: Instant::now(),
            can_save,
        });
        can_save
    }

    /// Returns true if another node confirms that it can save edits, by a check after this question. An older result proves
    /// nothing: if the store fails for all nodes, each of them could save edits a moment ago.
    pub(super) async fn others_can_save(&self, peers: &Peers) -> bool {
        let mut others = self.others.lock().await;
        if let Some((at, can_save)) = *others
            && at.elapsed() < VALID_FOR
        {
            return can_save;
        }
        let can_save = peers.others_can_save(OTHERS_PATIENCE).await;
        *others = Some((Instant::now(), can_save));
        can_save
    }

    /// The permit for a check for another node; `None` if too many are under way.
    pub(super) fn probe_permit(&self) -> Option<SemaphorePermit<'_>> {
        self.probes.try_acquire().ok()
    }
}
