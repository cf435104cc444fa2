//! What the log says of a Postgres that is away: for each pool one line when it begins and one when it is over.

use super::error::PostgresError;
use crate::outage::Outage;

/// The outages of one pool or lane, as seen by those who use it.
#[derive(Debug)]
pub(super) struct Outages {
    /// What the log calls the pool.
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

    /// Notes a failure. What is no outage is for the caller to report: it knows whose fault it is.
    pub(super) fn record_failure(&self, fault: &PostgresError) {
        let is_reported = matches!(fault, PostgresError::Closed);
        if fault.is_outage() && !is_reported && self.current.begins() {
            tracing::warn!(pool = self.pool, error = %fault, "Postgres does not answer: requests fail until it does");
        }
    }

    /// Notes an answer.
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
