//! Whether a node should be sent clients, as balancers ask.
//!
//! A node is not ready only if another node serves better. What is away for all nodes alike leaves all of them ready: they
//! serve the page and what they have in memory, and a balancer without a ready node serves nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};

use super::codec::Message;
use crate::id::NodeId;
use crate::node::Node;
use crate::store::StoreError;

/// Whether a node should be sent clients. The reasons are fixed words: anyone may ask. Details are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It serves everything.
    Ready,
    /// It does not serve everything, and no other node is known to serve better.
    Degraded(&'static str),
    /// Other nodes serve better, or there are none to be asked.
    NotReady(&'static str),
}

/// What [`Node::readiness`] says if the store takes no edits.
const UNSAVED: &str = "edits cannot be saved";

/// What it says if no message passes to or from other nodes.
const UNHEARD: &str = "the other nodes are not heard";

/// How long the store may take to say that it takes edits.
const SAVE_PATIENCE: Duration = Duration::from_millis(600);

/// How long the other nodes may take to say that they can save edits. Together with the store's this is less than the
/// second that balancers wait.
const OTHERS_PATIENCE: Duration = Duration::from_millis(250);

/// How long an answer holds: however many probes ask, the store is asked once.
const HOLDS: Duration = Duration::from_millis(500);

/// How many checks for other nodes may be under way. One beyond is not answered.
const PROBES_MAX: usize = 16;

/// What the store said last of whether edits can be saved.
#[derive(Debug)]
pub(in crate::node) struct SaveChecks {
    /// Locked while the store is asked: checks that come meanwhile take the same answer. When the store was asked, when it
    /// answered, and what.
    known: Mutex<Option<Known>>,
    probes: Semaphore,
    /// Whether other nodes can save edits, and when that was found out.
    others: Mutex<Option<(Instant, bool)>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    asked: Instant,
    answered: Instant,
    can_save: bool,
}

impl Default for SaveChecks {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            probes: Semaphore::new(PROBES_MAX),
            others: Mutex::default(),
        }
    }
}

impl Node {
    /// Whether this node should be sent clients. Takes less than a second, whatever is away.
    pub async fn readiness(self: &Arc<Self>) -> Readiness {
        if !self.can_save(None).await {
            // A node without a transport has no others to ask, and a clear "no" is the best that its operator can be told.
            return if !self.is_in_cluster() || self.others_can_save().await {
                Readiness::NotReady(UNSAVED)
            } else {
                Readiness::Degraded(UNSAVED)
            };
        }
        if self.peers().is_heard() {
            Readiness::Ready
        } else if self.peers().others_are_heard() {
            Readiness::NotReady(UNHEARD)
        } else {
            Readiness::Degraded(UNHEARD)
        }
    }

    /// Whether an edit could be saved now, or could a moment ago; not before `since`, if that is given.
    async fn can_save(self: &Arc<Self>, since: Option<Instant>) -> bool {
        let mut known = self.saves().known.lock().await;
        if let Some(known) = &*known
            && known.answered.elapsed() < HOLDS
            && since.is_none_or(|since| known.asked > since)
        {
            return known.can_save;
        }
        let asked = Instant::now();
        let answer = timeout(SAVE_PATIENCE, self.store().check_writes()).await;
        let answer =
            answer.unwrap_or_else(|_| Err(StoreError::new("check writes", "no answer in time")));
        let could_save = known.is_none_or(|known| known.can_save);
        match &answer {
            Err(error) if could_save => tracing::warn!(%error, "edits cannot be saved"),
            Ok(()) if !could_save => {
                tracing::info!("edits can be saved again");
                self.peers().reopen();
            }
            _ => {}
        }
        let can_save = answer.is_ok();
        *known = Some(Known {
            asked,
            answered: Instant::now(),
            can_save,
        });
        can_save
    }

    /// Whether another node can save edits, as it found out since it was asked. An older answer would be worth nothing:
    /// if the store fails for all nodes, each of them could save edits a moment ago.
    async fn others_can_save(&self) -> bool {
        let mut known = self.saves().others.lock().await;
        if let Some((at, can_save)) = *known
            && at.elapsed() < HOLDS
        {
            return can_save;
        }
        let can_save = self.peers().others_save(OTHERS_PATIENCE).await;
        *known = Some((Instant::now(), can_save));
        can_save
    }

    /// Another node cannot save edits, and asks whether this one can. Silence means no.
    pub(in crate::node) fn probed(self: &Arc<Self>, from: NodeId) {
        let (node, came) = (Arc::clone(self), Instant::now());
        self.runtime().spawn(async move {
            let Ok(_permit) = node.saves().probes.try_acquire() else {
                return;
            };
            if !node.peers().is_leaving() && node.can_save(Some(came)).await {
                node.peers().send(from, &Message::SaveConfirmed);
            }
        });
    }
}
