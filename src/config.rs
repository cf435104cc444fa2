//! The configuration: `config.toml`, the environment and the command line, merged into the settings of all modules.
//!
//! The modules declare their settings with defaults and ranges ([`Section`]); `sources` merges the three sources and checks
//! each value that was set; `rules` holds the few rules that concern several settings.

mod rules;
mod sources;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

pub use self::sources::{ENVIRONMENT_PREFIX, Flag, SettingSource};
use self::sources::{SetValues, one_line};
use crate::admin::AdminSettings;
use crate::auth::AuthSettings;
use crate::cluster::{ClusterSettings, RedisSettings};
use crate::doc::DocumentSettings;
use crate::gateway::{GatewaySettings, TlsSettings};
use crate::node::{DeadLetterSettings, NodeSettings};
use crate::setting::{Section, settings};
use crate::store::PostgresSettings;
use crate::telemetry::LogSettings;

/// All settings. Each has a default, so an empty file is a complete configuration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Addresses, paths and folders of the server.
    pub server: ServerSettings,
    /// Sign-in, quotas and tokens.
    pub auth: AuthSettings,
    /// The listener for operators.
    pub admin: AdminSettings,
    /// Files of the TLS certificate.
    pub tls: TlsSettings,
    /// The log.
    pub log: LogSettings,
    /// Limits of HTTP and of sockets.
    pub gateway: GatewaySettings,
    /// Limits of a node.
    pub node: NodeSettings,
    /// Bounds of the dead letters.
    pub dead_letters: DeadLetterSettings,
    /// Limits of a document.
    pub document: DocumentSettings,
    /// The store of a cluster.
    pub postgres: PostgresSettings,
    /// The transport between nodes.
    pub redis: RedisSettings,
    /// The direct links between nodes.
    pub cluster: ClusterSettings,
}

impl Config {
    /// Returns true if the store is Postgres, which other nodes may use too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        !self.postgres.url.is_empty()
    }

    /// The sections by the names that they have in `config.toml`.
    fn sections(&self) -> [(&'static str, &dyn Section); 12] {
        [
            ("server", &self.server),
            ("auth", &self.auth),
            ("admin", &self.admin),
            ("tls", &self.tls),
            ("log", &self.log),
            ("gateway", &self.gateway),
            ("node", &self.node),
            ("document", &self.document),
            ("dead_letters", &self.dead_letters),
            ("postgres", &self.postgres),
            ("redis", &self.redis),
            ("cluster", &self.cluster),
        ]
    }

    /// Copies the settings that another module needs too.
    fn derive(&mut self) {
        self.gateway.base_path = self.server.base_path.clone();
        self.gateway.socket_path = self.server.socket_path.clone();
        self.node.document = self.document.clone();
        self.node.dead_letters = self.dead_letters.clone();
        self.node.dead_after_ms = self.postgres.node_dead_after_ms;
    }
}

settings! {
    /// Addresses, paths and folders of the server.
    pub struct ServerSettings {
        /// The address of the page, the API and the WebSockets.
        pub listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8080));
        /// The path that the page, the API and the WebSockets are below, as `/docs`; empty: the root.
        pub base_path: String = String::new();
        /// The path of the WebSockets, below `base_path`.
        pub socket_path: String = "/ws".to_owned();
        /// The name of this node in logs and responses; empty: the name of the machine.
        pub node: String = String::new();
        /// Threads that run documents; 0: half as many as there are processors. Sockets have threads of their own.
        pub threads: usize = 0, in 0..=1_024;
        /// The folder of the SQLite database.
        pub data: PathBuf = PathBuf::from("data");
        /// The largest size of the SQLite database, in MiB; 0: limited by the disk.
        pub data_mib_max: u64 = 0, in 0..=1 << 40;
        /// How long a stop may take until accepted edits are durable, in milliseconds.
        pub stop_patience_ms: u64 = 10_000, in 100..=600_000;
    }
}

impl ServerSettings {
    /// The number of threads that run documents.
    #[must_use]
    pub fn threads(&self) -> usize {
        if self.threads > 0 {
            return self.threads;
        }
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        (processors / 2).max(1)
    }
}

/// The configuration cannot be used. Each error names the source of the faulty value and what is allowed.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{file}:{line}: {message}")]
    Syntax {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What the parser expected.
        message: String,
    },
    /// A setting is unknown, or its value is not allowed.
    #[error("{source_of_value}: {message}")]
    Setting {
        /// Where the value was set.
        source_of_value: SettingSource,
        /// The setting, its value and the allowed values.
        message: String,
    },
}

/// Reads the configuration: the defaults, overridden by the file, then by the environment
/// (`COPYDESK__GATEWAY__SOCKETS_MAX=100` sets `gateway.sockets_max`), then by `flags` of the command line. Only the values
/// that remain after merging are checked, so the order of the sources' entries has no effect.
///
/// # Errors
/// If the file cannot be read or parsed, or a setting is unknown or not allowed.
pub fn load(
    path: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    flags: &[Flag],
) -> Result<Config, ConfigError> {
    let mut values = SetValues::default();
    if let Some(path) = path {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File {
            path: path.into(),
            source,
        })?;
        values.add_file(&path.display().to_string(), &text)?;
    }
    for (variable, text) in environment {
        if variable.starts_with(ENVIRONMENT_PREFIX) {
            values.add_variable(variable, text)?;
        }
    }
    for flag in flags {
        values.add_flag(flag);
    }

    values.check_each()?;
    let mut config: Config = values
        .table()
        .try_into()
        .map_err(|error: toml::de::Error| values.error(&[], one_line(error.message())))?;
    rules::check(&config).map_err(|broken| values.error(&broken.settings, broken.message))?;
    config.derive();
    Ok(config)
}
