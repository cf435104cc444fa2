//! What a store measures.

use std::time::Duration;

use crate::metrics::{CallResult, Count, Counter, Gauge, Labelled, Seconds, labels, metrics};

labels! {
    /// A pool of connections to Postgres.
    pub enum PoolName: "pool" {
        /// Claims, heartbeats and updates of the list.
        Claim = "claim",
        /// Loads of documents.
        Read = "read",
        /// Lists of documents and the index over titles.
        List = "list",
        /// Accounts and permissions.
        People = "people",
        /// Revocations.
        Revocations = "revocations",
        /// Old revisions, on a replica.
        Replica = "replica",
    }
}

labels! {
    /// What a connection does.
    pub enum PoolConnectionState: "state" {
        /// It runs a statement or belongs to a transaction.
        Busy = "busy",
        /// It waits for use.
        Idle = "idle",
    }
}

metrics! {
    /// The metrics of a store.
    pub struct StoreMetrics {
        /// Transactions that write: of the one writer of SQLite, or appends of several documents to Postgres.
        pub store_transactions: Labelled<CallResult, Counter>;
        /// Time of such a transaction, until it is durable.
        pub store_transaction_seconds: Seconds;
        /// Jobs in such a transaction: with Postgres, documents.
        pub store_transaction_jobs: Count;
        /// Jobs that wait for such a transaction.
        pub store_queued_jobs: Gauge;
        /// Connections to Postgres, without those that append.
        pub store_connections: Labelled<(PoolName, PoolConnectionState), Gauge>;
        /// Calls that wait for a connection to Postgres.
        pub store_connection_waiters: Labelled<PoolName, Gauge>;
        /// Time of a statement on a connection of a pool.
        pub store_statement_seconds: Labelled<PoolName, Seconds>;
        /// Statements on connections of pools that failed or were not answered in time.
        pub store_statement_failures: Labelled<PoolName, Counter>;
    }
}

impl StoreMetrics {
    /// A transaction that writes ended.
    pub(super) fn transaction_ended<T, E>(
        &self,
        jobs: usize,
        took: Duration,
        result: &Result<T, E>,
    ) {
        let result = CallResult::of(result);
        self.store_transactions.of(result).inc();
        self.store_transaction_seconds.observe(took);
        self.store_transaction_jobs.observe(jobs);
    }
}
