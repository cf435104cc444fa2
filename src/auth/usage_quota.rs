//! How much each tenant keeps: counted where it comes in, at no cost to the ops, and added up by the store now and then.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::sleep;

use crate::outage::LineLimit;
use crate::store::AccessStore;
use crate::sync::lock;

/// What the tenants keep, as far as this node knows.
#[derive(Debug)]
pub(super) struct Meters {
    /// How many bytes one tenant may keep; none: any number.
    most: Option<u64>,
    /// Locked for look-ups only.
    meters: Mutex<HashMap<String, Meter>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Meter {
    /// What all nodes had counted when the store was told last.
    known: u64,
    /// What this node has counted since.
    pending: u64,
}

/// How often the store is told.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

impl Meters {
    /// Meters of tenants that may keep `most` bytes each; 0: any number.
    pub(super) fn new(most: u64) -> Self {
        Self {
            most: (most > 0).then_some(most),
            meters: Mutex::default(),
        }
    }

    /// Counts bytes that a tenant adds; `false`, and they are not counted: it keeps as much as it may.
    pub(super) fn may_add(&self, tenant: &str, bytes: u64) -> bool {
        let Some(most) = self.most else {
            return true;
        };
        let mut meters = self.lock();
        let meter = meters.entry(tenant.to_owned()).or_default();
        if meter
            .known
            .saturating_add(meter.pending)
            .saturating_add(bytes)
            > most
        {
            return false;
        }
        meter.pending += bytes;
        true
    }

    /// Tells the store what was counted, and learns what other nodes have. Never ends.
    pub(super) async fn keep(&self, accounts: &dyn AccessStore) {
        if self.most.is_none() {
            return std::future::pending().await;
        }
        loop {
            sleep(TELL_INTERVAL).await;
            self.tell(accounts).await;
        }
    }

    async fn tell(&self, accounts: &dyn AccessStore) {
        let counted: Vec<(String, Meter)> = {
            let meters = self.lock();
            let counted = meters.iter().map(|(name, meter)| (name.clone(), *meter));
            counted.collect()
        };
        for (tenant, Meter { pending, .. }) in counted {
            match accounts.add_usage(tenant.clone(), pending).await {
                Ok(known) => {
                    if let Some(meter) = self.lock().get_mut(&tenant) {
                        meter.known = known;
                        meter.pending -= pending;
                    }
                }
                // What may have been counted is counted again: a little too much.
                Err(error) => {
                    static LIMIT: LineLimit = LineLimit::new();
                    if let Some(left_out) = LIMIT.pass() {
                        tracing::warn!(%error, left_out, "the bytes that a tenant keeps were not counted in the store");
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Meter>> {
        lock(&self.meters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{SqliteSettings, SqliteStore};

    #[tokio::test]
    async fn a_tenant_keeps_what_it_may_whichever_node_it_comes_by() {
        let folder = tempfile::tempdir().unwrap();
        let settings = SqliteSettings {
            folder: folder.path().to_owned(),
            ..SqliteSettings::default()
        };
        let store = SqliteStore::open(&settings).unwrap();
        let nodes = [Meters::new(100), Meters::new(100)];
        assert!(nodes[0].may_add("acme", 60));
        assert!(!nodes[0].may_add("acme", 41));
        assert!(nodes[0].may_add("home", 100));
        assert!(nodes[1].may_add("acme", 30));
        nodes[0].tell(&store).await;
        nodes[1].tell(&store).await;
        // The other node's count has been read.
        assert!(!nodes[1].may_add("acme", 11));
        assert!(nodes[1].may_add("acme", 10));
        assert!(Meters::new(0).may_add("acme", u64::MAX));
    }
}
