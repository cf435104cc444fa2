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
pub(super) struct UsageQuota {
    /// How many bytes one tenant may keep; none: any number.
    most: Option<u64>,
    /// Locked for look-ups only.
    tenants: Mutex<HashMap<String, TenantUsage>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct TenantUsage {
    /// What all nodes had counted when the store was told last.
    known: u64,
    /// What this node has counted since.
    pending: u64,
}

/// How often the store is told.
const EXCHANGE_INTERVAL: Duration = Duration::from_secs(10);

impl UsageQuota {
    /// UsageQuota of tenants that may keep `most` bytes each; 0: any number.
    pub(super) fn new(most: u64) -> Self {
        Self {
            most: (most > 0).then_some(most),
            tenants: Mutex::default(),
        }
    }

    /// Counts bytes that a tenant adds; `false`, and they are not counted: it keeps as much as it may.
    pub(super) fn try_add(&self, tenant: &str, bytes: u64) -> bool {
        let Some(most) = self.most else {
            return true;
        };
        let mut tenants = self.lock();
        let usage = tenants.entry(tenant.to_owned()).or_default();
        if usage
            .known
            .saturating_add(usage.pending)
            .saturating_add(bytes)
            > most
        {
            return false;
        }
        usage.pending += bytes;
        true
    }

    /// Tells the store what was counted, and learns what other nodes have. Never ends.
    pub(super) async fn run(&self, accounts: &dyn AccessStore) {
        if self.most.is_none() {
            return std::future::pending().await;
        }
        loop {
            sleep(EXCHANGE_INTERVAL).await;
            self.exchange(accounts).await;
        }
    }

    async fn exchange(&self, accounts: &dyn AccessStore) {
        let counted: Vec<(String, TenantUsage)> = {
            let tenants = self.lock();
            let counted = tenants.iter().map(|(name, usage)| (name.clone(), *usage));
            counted.collect()
        };
        for (tenant, TenantUsage { pending, .. }) in counted {
            match accounts.add_usage(tenant.clone(), pending).await {
                Ok(known) => {
                    if let Some(usage) = self.lock().get_mut(&tenant) {
                        usage.known = known;
                        usage.pending -= pending;
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

    fn lock(&self) -> MutexGuard<'_, HashMap<String, TenantUsage>> {
        lock(&self.tenants)
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
        let nodes = [UsageQuota::new(100), UsageQuota::new(100)];
        assert!(nodes[0].try_add("acme", 60));
        assert!(!nodes[0].try_add("acme", 41));
        assert!(nodes[0].try_add("home", 100));
        assert!(nodes[1].try_add("acme", 30));
        nodes[0].exchange(&store).await;
        nodes[1].exchange(&store).await;
        // The other node's count has been read.
        assert!(!nodes[1].try_add("acme", 11));
        assert!(nodes[1].try_add("acme", 10));
        assert!(UsageQuota::new(0).try_add("acme", u64::MAX));
    }
}
