//! Revocations: read from the store, delivered to the open sockets of this node.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout;

use super::AuthService;
use crate::auth::identity::Identity;
use crate::auth::revocation_hub::RevocationSubscription;
use crate::auth::settings::AuthMode;
use crate::outage::Outage;
use crate::store::{REVOCATIONS_PAGE, StoreError};

/// How often the store is read for revocations of other nodes.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

impl AuthService {
    /// The number of revocations that this node has delivered: see [`RevocationHub::generation`](crate::auth::RevocationHub::generation).
    #[must_use]
    pub fn revocation_generation(&self) -> u64 {
        self.revocations.generation()
    }

    /// Subscribes to the revocations of an identity since `generation`.
    #[must_use]
    pub fn subscribe_revocations(
        &self,
        identity: &Identity,
        generation: u64,
    ) -> RevocationSubscription {
        self.revocations
            .subscribe(identity.subjects(), identity.session.clone(), generation)
    }

    /// The sequence number of the newest revocation. It is read before the first request is identified, and passed to
    /// [`run`](Self::run).
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn last_revocation(&self) -> Result<u64, StoreError> {
        match self.mode() {
            AuthMode::Open => Ok(0),
            AuthMode::Accounts | AuthMode::Tokens => self.accounts().last_revocation().await,
        }
    }

    /// Delivers the revocations after sequence number `last` to this node's sockets, refreshes another application's keys
    /// and exchanges usage counts. Never ends.
    pub async fn run(&self, last: u64) {
        if self.mode() == AuthMode::Open {
            return std::future::pending().await;
        }
        let keys = async {
            if let Some(verifier) = &self.verifier {
                verifier.refresh_keys().await;
            }
        };
        let usage = self.usage.run(self.accounts());
        tokio::join!(self.poll_revocations(last), keys, usage);
    }

    /// Reports that the store went back to an earlier state: it will assign sequence numbers again that this node has
    /// passed, so revocations are read from the newest one on. The caller closes the sockets opened before.
    pub fn store_rewound(&self) {
        self.is_rewound.store(true, Ordering::SeqCst);
        self.poll_now.notify_one();
    }

    /// Reads the revocations at once, because this node just made one.
    pub(super) fn deliver_revocations_now(&self) {
        self.poll_now.notify_one();
    }

    async fn poll_revocations(&self, mut last: u64) {
        let outage = Outage::new();
        loop {
            match self.read_revocations(&mut last).await {
                Err(error) if outage.begins() => {
                    tracing::warn!(%error, "revocations were not read from the store");
                }
                Err(_) => {}
                Ok(()) => {
                    if let Some(past) = outage.ends() {
                        let (failures, seconds) = (past.failures, past.lasted.as_secs());
                        tracing::info!(
                            failures,
                            seconds,
                            "revocations are read from the store again"
                        );
                    }
                }
            }
            // Both the end of the interval and a wake-up are a reason to read.
            let _ = timeout(POLL_INTERVAL, self.poll_now.notified()).await;
        }
    }

    /// Delivers the revocations after `last`; after the store went back, those from the newest one on.
    async fn read_revocations(&self, last: &mut u64) -> Result<(), StoreError> {
        if self.is_rewound.swap(false, Ordering::SeqCst) {
            let newest = self.last_revocation().await;
            *last = newest.inspect_err(|_| self.is_rewound.store(true, Ordering::SeqCst))?;
        }
        loop {
            let page = self.accounts().revocations(*last).await?;
            for revocation in &page {
                *last = revocation.sequence;
                self.revocations.publish(revocation);
            }
            if page.len() < REVOCATIONS_PAGE {
                return Ok(());
            }
        }
    }
}
