//! Storage quota of tenants: counted in memory per op, exchanged with the store at an interval.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::sleep;

use crate::outage::LineLimit;
use crate::store::AccessStore;
use crate::sync::lock;

/// The bytes that each tenant stores, as far as this node knows. The limit may be exceeded by what other nodes have
/// counted since the last exchange.
#[derive(Debug)]
pub(super) struct UsageQuota {
    /// The bytes that one tenant may store; `None`: unlimited.
    bytes_max: Option<u64>,
    /// Locked for look-ups only.
    tenants: Mutex<HashMap<String, TenantUsage>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct TenantUsage {
    /// The total of all nodes at the last exchange.
    total: u64,
    /// The bytes that this node has counted since.
    pending: u64,
}

/// How often the counts are exchanged with the store.
const EXCHANGE_INTERVAL: Duration = Duration::from_secs(10);

impl UsageQuota {
    /// A quota of `bytes_max` bytes per tenant; 0: unlimited.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max: (bytes_max > 0).then_some(bytes_max),
            tenants: Mutex::default(),
        }
    }

    /// Counts bytes of a tenant. Returns false, and does not count them, if they exceed the quota.
    pub(super) fn try_add(&self, tenant: &str, bytes: u64) -> bool {
        let Some(bytes_max) = self.bytes_max else {
            return true;
        };
        let mut tenants = self.lock();
        let usage = tenants.entry(tenant.to_owned()).or_default();
        if usage
            .total
            .saturating_add(usage.pending)
            .saturating_add(bytes)
            > bytes_max
        {
            return false;
        }
        usage.pending += bytes;
        true
    }

    /// Exchanges the counts with the store at an interval. Never ends.
    pub(super) async fn run(&self, accounts: &dyn AccessStore) {
        if self.bytes_max.is_none() {
            return std::future::pending().await;
        }
        loop {
            sleep(EXCHANGE_INTERVAL).await;
            self.exchange(accounts).await;
        }
    }

    /// Adds what this node counted to the store, and reads the totals.
    async fn exchange(&self, accounts: &dyn AccessStore) {
        let counted: Vec<(String, TenantUsage)> = {
            let tenants = self.lock();
            let counted = tenants.iter().map(|(name, usage)| (name.clone(), *usage));
            counted.collect()
        };
        for (tenant, TenantUsage { pending, .. }) in counted {
            match accounts.add_usage(tenant.clone(), pending).await {
                Ok(total) => {
                    if let Some(usage) = self.lock().get_mut(&tenant) {
                        usage.total = total;
                        usage.pending -= pending;
                    }
                }
                // The bytes may have been counted: the next exchange may count them twice.
                Err(error) => {
                    static LIMIT: LineLimit = LineLimit::new();
                    if let Some(left_out) = LIMIT.pass() {
                        tracing::warn!(%error, left_out, "tenant usage was not written to the store");
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
    async fn quota_of_a_tenant_counts_the_bytes_of_all_nodes() {
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
