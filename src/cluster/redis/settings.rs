//! Settings of the transport over Redis.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::url::RedisUrl;
use crate::setting::settings;

settings! {
    /// Settings of the transport over Redis. Sizes are bytes, times are milliseconds.
    pub struct RedisSettings {
        /// The address of Redis; empty: no Redis. A transport opened without an address connects to this machine.
        #[serde(deserialize_with = "empty_is_none")]
        pub url: Option<RedisUrl> = None => self_redacting;
        /// Prefix of the names of all keys. Clusters that share a Redis need different prefixes.
        pub prefix: String = "copydesk:".to_owned();
        /// Certificates, in PEM, that the server's certificate is verified against; empty: those of the system.
        pub ca_file: PathBuf = PathBuf::new();
        /// Approximate number of entries in an inbox; beyond it the oldest are dropped. Entries are removed when read.
        pub inbox_entries_max: u64 = 10_000, in 100..=100_000_000;
        /// Approximate bytes of one node's entries in an inbox.
        pub inbox_bytes_max: usize = 16 << 20, in 1 << 20..=1 << 40;
        /// How long the inbox of a node that is gone stays.
        pub inbox_expiry_ms: u64 = 60_000, in 1_000..=86_400_000;
        /// Bytes that may wait to be sent to one node.
        pub target_bytes_max: usize = 16 << 20, in 1 << 20..=1 << 40;
        /// Bytes that may wait to be sent to all nodes. At least `target_bytes_max`.
        pub queue_bytes_max: usize = 64 << 20, in 1 << 20..=1 << 40;
        /// Time limit for one command, after which the connection is closed.
        pub command_timeout_ms: u64 = 2_000, in 100..=600_000;
    }
}

fn empty_is_none<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<RedisUrl>, D::Error> {
    let text = String::deserialize(from)?;
    let url = (!text.is_empty()).then(|| text.parse());
    url.transpose().map_err(serde::de::Error::custom)
}

impl RedisSettings {
    pub(super) fn command_timeout(&self) -> Duration {
        Duration::from_millis(self.command_timeout_ms)
    }

    /// The expiry as the argument of PEXPIRE.
    pub(super) fn inbox_expiry_ms(&self) -> i64 {
        i64::try_from(self.inbox_expiry_ms).unwrap_or(i64::MAX)
    }
}
