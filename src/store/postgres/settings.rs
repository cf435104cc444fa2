//! Settings of the Postgres store.

use std::path::PathBuf;

use crate::setting::settings;

settings! {
    /// Settings of the Postgres store. Times are milliseconds.
    pub struct PostgresSettings {
        /// `postgres://user:password@host,host/database?sslmode=require`; empty: the node uses SQLite.
        pub url: String = String::new() => secret;
        /// Certificates that the server's certificate is verified against; empty: those of the system.
        pub ca_file: PathBuf = PathBuf::new();
        /// A replica for reading older versions of documents; empty: the primary. Current versions are always read from the
        /// primary.
        pub replica_url: String = String::new() => secret;
        /// Connections that append. Two appends at once wait for each other's flush and carry half as much each, so more
        /// than one connection pays only where the network to Postgres is slower than its disk.
        pub append_connections: usize = 1, in 1..=100;
        /// Connections for claims and heartbeats. With fewer than 3, slow claims delay heartbeats.
        pub claim_connections: usize = 4, in 3..=100;
        /// Connections that read documents.
        pub read_connections: usize = 6, in 1..=1_000;
        /// Connections that list and search documents; separate so that a search cannot delay the opening of a document.
        pub list_connections: usize = 2, in 1..=100;
        /// Time limit for one statement of a list or a search.
        pub list_timeout_ms: u64 = 2_000, in 100..=600_000;
        /// Connections for accounts and permissions. One more connection reads revocations.
        pub people_connections: usize = 4, in 1..=100;
        /// How long a request waits for a free connection.
        pub acquire_timeout_ms: u64 = 5_000, in 100..=600_000;
        /// Time limit for opening a connection.
        pub connect_timeout_ms: u64 = 3_000, in 100..=600_000;
        /// Time limit for one statement.
        pub statement_timeout_ms: u64 = 10_000, in 100..=600_000;
        /// How long a claim waits for a row lock before it ends the Copydesk connection that holds the lock.
        pub lock_timeout_ms: u64 = 1_000, in 10..=600_000;
        /// How long a starting node waits for a Postgres that is not reachable.
        pub open_patience_ms: u64 = 30_000, in 0..=86_400_000;
        /// How long a node may miss heartbeats until other nodes take its documents. At least three heartbeats.
        pub node_dead_after_ms: u64 = 3_000, in 150..=3_600_000;
        /// How long rows stay in the table `changes`. A node that could not read it for longer compares all its open
        /// documents with the store.
        pub changes_kept_ms: u64 = 60_000, in 10_000..=3_600_000;
    }
}
