//! Log lines about outages of Postgres: one when an outage of a pool begins and one when it ends.

use super::error::PostgresError;
use crate::outage::Outage;

/// The outages of one pool or append worker.
#[derive(Debug)]
pub(super) struct Outages {
    /// The name of the pool in log lines.
    pool: &'static str,
    current: Outage,
}

impl Outages {
    pub(super) const fn new(pool: &'static str) -> Self {
        Self {
            pool,
            current: Outage::new(),
        }
    }

    /// Records a failure. Failures that are not outages are logged by the caller.
    pub(super) fn record_failure(&self, error: &PostgresError) {
        let is_reported = matches!(error, PostgresError::Closed);
        if error.is_outage() && !is_reported && self.current.begins() {
            tracing::warn!(pool = self.pool, %error, "Postgres does not answer: requests fail until it does");
        }
    }

    /// Records an answer.
    pub(super) fn record_success(&self) {
        if let Some(past) = self.current.ends() {
            let (failures, seconds) = (past.failures, past.lasted.as_secs());
            tracing::info!(
                pool = self.pool,
                failures,
                seconds,
                "Postgres answers again"
            );
        }
    }
}
