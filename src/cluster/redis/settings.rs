//! How the transport over Redis is set up.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::url::RedisUrl;

/// How the transport over Redis is set up. Sizes are bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisSettings {
    /// Where Redis is; none, or an empty text: nowhere, and a transport that is opened all the same looks on this machine.
    #[serde(deserialize_with = "empty_is_none")]
    pub url: Option<RedisUrl>,
    /// What the names of our keys begin with. Clusters that share a Redis have different ones.
    pub prefix: String,
    /// The certificates of the authorities to trust, in PEM, for addresses with TLS; none: those of the system.
    pub ca_file: Option<PathBuf>,
    /// About how many entries an inbox may hold; the oldest go. What was read goes at once.
    pub inbox_entries_max: u64,
    /// About how many bytes of one node's entries an inbox may hold.
    pub inbox_bytes_max: usize,
    /// How long the inbox of a node that is gone stays, in milliseconds.
    pub inbox_expiry_ms: u64,
    /// How much may wait to be sent to one node.
    pub target_bytes_max: usize,
    /// How much may wait to be sent to all of them.
    pub queue_bytes_max: usize,
    /// How long Redis may take to answer until the connection is given up, in milliseconds.
    pub command_timeout_ms: u64,
}

fn empty_is_none<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<RedisUrl>, D::Error> {
    let text = String::deserialize(from)?;
    let url = (!text.is_empty()).then(|| text.parse());
    url.transpose().map_err(serde::de::Error::custom)
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: None,
            prefix: "copydesk:".to_owned(),
            ca_file: None,
            inbox_entries_max: 10_000,
            inbox_bytes_max: 16 << 20,
            inbox_expiry_ms: 60_000,
            target_bytes_max: 16 << 20,
            queue_bytes_max: 64 << 20,
            command_timeout_ms: 2_000,
        }
    }
}

impl RedisSettings {
    pub(super) fn command_timeout(&self) -> Duration {
        Duration::from_millis(self.command_timeout_ms)
    }

    /// The expiry as Redis takes it.
    pub(super) fn inbox_expiry_ms(&self) -> i64 {
        i64::try_from(self.inbox_expiry_ms).unwrap_or(i64::MAX)
    }
}
