//! config.toml and the environment, read into the modules' own settings.

use std::fmt::Write;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;
use toml::{Table, Value};

use crate::auth::AuthSettings;
use crate::cluster::{ClusterSettings, RedisSettings};
use crate::doc::DocumentSettings;
use crate::gateway::{GatewaySettings, TlsSettings};
use crate::node::NodeSettings;
use crate::store::PostgresSettings;
use crate::telemetry::{self, LogSettings};

/// All settings. Each has its default, so an empty file is a whole configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the server listens, and where it keeps what it is told.
    pub server: ServerSettings,
    /// Who is let in.
    pub auth: AuthSettings,
    /// The certificate.
    pub tls: TlsSettings,
    /// How it logs.
    pub log: LogSettings,
    /// What bounds a socket.
    pub gateway: GatewaySettings,
    /// What bounds a node.
    pub node: NodeSettings,
    /// What bounds a document.
    pub document: DocumentSettings,
    /// The store that the nodes of a cluster share.
    pub postgres: PostgresSettings,
    /// The way to the other nodes.
    pub redis: RedisSettings,
    /// The direct links to the other nodes.
    pub cluster: ClusterSettings,
}

impl Config {
    /// Whether other nodes may stand on the same store.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        !self.postgres.url.is_empty()
    }
}

/// Where the server listens, and where it keeps what it is told.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerSettings {
    /// The address of the page, the API and the sockets.
    pub listen: SocketAddr,
    /// The path that the page, the API and the sockets are below, as `/docs`; empty: the root.
    pub base_path: String,
    /// The path of the WebSockets, below `base_path`.
    pub socket_path: String,
    /// What people call this node; empty: the machine's name.
    pub node: String,
    /// How many threads run the documents; 0: half as many as there are processors. The sockets have threads of their own.
    pub threads: usize,
    /// The folder of the database, where it is this node's own.
    pub data: PathBuf,
    /// The largest that the database may grow, in MiB; 0: as large as the disk.
    pub data_mib_max: u64,
    /// How long a stop may take until what was accepted is durable, in milliseconds.
    pub stop_patience_ms: u64,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            base_path: String::new(),
            socket_path: "/ws".to_owned(),
            node: String::new(),
            threads: 0,
            data: PathBuf::from("data"),
            data_mib_max: 0,
            stop_patience_ms: 10_000,
        }
    }
}

impl ServerSettings {
    /// How many threads run the documents.
    #[must_use]
    pub fn threads(&self) -> usize {
        if self.threads > 0 {
            return self.threads;
        }
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        (processors / 2).max(1)
    }
}

/// Why there is no configuration. Each says where the fault is, and what would be right.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read {0}: {1}")]
    File(PathBuf, std::io::Error),
    /// The file says something that is no setting, or no value of one.
    #[error("{file}:{line}: {message}")]
    Setting {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what is allowed.
        message: String,
    },
    /// The environment does.
    #[error("{variable}: {message}")]
    Environment {
        /// The variable.
        variable: String,
        /// What is wrong, and what is allowed.
        message: String,
    },
}

/// What the names of environment variables that set something begin with.
pub const ENVIRONMENT_PREFIX: &str = "COPYDESK__";

/// Reads `path`, and what `environment` sets on top of it: `COPYDESK__GATEWAY__SOCKETS_MAX=100` sets
/// `gateway.sockets_max`.
///
/// # Errors
/// When either says something that is not a setting, or no value of it.
pub fn load(
    path: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let (text, file) = match path {
        None => (String::new(), String::new()),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| ConfigError::File(path.into(), error))?;
            (text, path.display().to_string())
        }
    };
    let in_file = |message: String, at: usize| {
        let line = text[..at.min(text.len())].matches('\n').count() + 1;
        ConfigError::Setting {
            file: file.clone(),
            line,
            message,
        }
    };
    if let Ok(table) = toml::from_str::<Table>(&text)
        && let Err((key, message)) = check_signs(&table)
    {
        return Err(in_file(message, position(&text, key)));
    }
    let config: Config = toml::from_str(&text).map_err(|error| {
        in_file(
            one_line(error.message()),
            error.span().map_or(0, |span| span.start),
        )
    })?;
    let mut table: Table = toml::from_str(&text).map_err(|error| {
        in_file(
            one_line(error.message()),
            error.span().map_or(0, |span| span.start),
        )
    })?;
    let mut config = config;
    let mut variables = Vec::new();
    for (variable, value) in
        environment.filter(|(variable, _)| variable.starts_with(ENVIRONMENT_PREFIX))
    {
        let wrong = |message: String| ConfigError::Environment {
            variable: variable.clone(),
            message,
        };
        set(&mut table, &variable, &value).map_err(wrong)?;
        check_signs(&table).map_err(|(_, message)| wrong(message))?;
        config = table
            .clone()
            .try_into()
            .map_err(|error: toml::de::Error| wrong(one_line(error.message())))?;
        variables.push(variable);
    }
    // All at once: settings that belong together may stand in either.
    if let Err((key, message)) = check(&config) {
        let named = |variable: &&String| key_of(variable) == key;
        return Err(match variables.iter().find(named) {
            Some(variable) => ConfigError::Environment {
                variable: variable.clone(),
                message,
            },
            None => in_file(message, position(&text, key)),
        });
    }
    config.gateway.base_path = config.server.base_path.clone();
    config.gateway.socket_path = config.server.socket_path.clone();
    config.node.document = config.document.clone();
    config.node.dead_after_ms = config.postgres.node_dead_after_ms;
    Ok(config)
}

/// The setting that a variable names: `gateway.sockets_max`.
fn key_of(variable: &str) -> String {
    variable[ENVIRONMENT_PREFIX.len()..]
        .to_lowercase()
        .replacen("__", ".", 1)
}

/// Sets what a variable names: its parts are a section and a setting.
fn set(table: &mut Table, variable: &str, value: &str) -> Result<(), String> {
    let path = variable[ENVIRONMENT_PREFIX.len()..].to_lowercase();
    let Some((section, key)) = path.split_once("__") else {
        return Err(
            "a variable names a section and a setting: COPYDESK__SECTION__SETTING".to_owned(),
        );
    };
    // Numbers and truth values are written as in the file, all else without quotes.
    let value = match toml::from_str::<Table>(&format!("value = {value}")) {
        Ok(mut parsed) => parsed
            .remove("value")
            .unwrap_or_else(|| Value::String(value.to_owned())),
        Err(_) => Value::String(value.to_owned()),
    };
    let section = table
        .entry(section)
        .or_insert_with(|| Value::Table(Table::new()));
    let Value::Table(section) = section else {
        return Err("not a section".to_owned());
    };
    section.insert(key.to_owned(), value);
    Ok(())
}

/// Where a setting stands in the file, roughly: its name at the beginning of a line, in its section.
fn position(text: &str, key: &str) -> usize {
    let (section, name) = key.split_once('.').unwrap_or(("", key));
    let start = text.find(&format!("[{section}]")).unwrap_or(0);
    let found = text[start..].match_indices(name).find(|(at, _)| {
        let before = &text[..start + at];
        before
            .rsplit('\n')
            .next()
            .is_some_and(|line| line.trim().is_empty())
    });
    start + found.map_or(0, |(at, _)| at)
}

fn one_line(message: &str) -> String {
    message
        .split('\n')
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ")
}

/// How many heartbeats a node must miss at least until it is taken for dead: one may be slow, and one lost.
const HEARTBEATS_MIN: u64 = 3;

/// Paths of which one that the WebSockets have would hide a part of the page or the API.
const TAKEN_PATHS: [&str; 5] = ["api", "assets", "d", "healthz", "readyz"];

/// The paths that everything is served below.
fn check_paths(server: &ServerSettings) -> Result<(), (&'static str, String)> {
    let is_path = |path: &str| {
        let is_name = |name: &str| {
            let is_plain = |it: u8| it.is_ascii_alphanumeric() || b"-_.~".contains(&it);
            !matches!(name, "" | "." | "..") && name.bytes().all(is_plain)
        };
        path.strip_prefix('/')
            .is_some_and(|names| names.split('/').all(is_name))
    };
    let (base_path, socket_path) = (&server.base_path, &server.socket_path);
    let shape = "begin with a slash, end without one, and have letters, digits and -_.~ between";
    if !base_path.is_empty() && !is_path(base_path) {
        let message = format!("server.base_path is {base_path:?}, but must be empty, or {shape}");
        return Err(("server.base_path", message));
    }
    let first = socket_path.split('/').nth(1).unwrap_or_default();
    if !is_path(socket_path) || TAKEN_PATHS.contains(&first) {
        let message = format!(
            "server.socket_path is {socket_path:?}, but must {shape}, and not begin with a path of the page: {}",
            TAKEN_PATHS.join(", ")
        );
        return Err(("server.socket_path", message));
    }
    Ok(())
}

/// A certificate and its key come together.
fn check_tls(tls: &TlsSettings) -> Result<(), (&'static str, String)> {
    let is_empty = |path: &Path| path.as_os_str().is_empty();
    let wanted = match (is_empty(&tls.cert), is_empty(&tls.key)) {
        (true, false) => "tls.cert",
        (false, true) => "tls.key",
        _ => return Ok(()),
    };
    let message = format!("{wanted} is empty: TLS needs tls.cert and tls.key, or neither");
    Err((wanted, message))
}

/// The numbers, each with the least and the most that it may be.
fn ranges(config: &Config) -> Vec<(&'static str, u64, u64, u64)> {
    let (gateway, node, document) = (&config.gateway, &config.node, &config.document);
    let (postgres, redis) = (&config.postgres, &config.redis);
    vec![
        (
            "gateway.sockets_max",
            gateway.sockets_max as u64,
            1,
            10_000_000,
        ),
        (
            "gateway.message_bytes_max",
            gateway.message_bytes_max as u64,
            1 << 10,
            256 << 20,
        ),
        (
            "gateway.message_refused_bytes_max",
            gateway.message_refused_bytes_max as u64,
            1 << 10,
            1 << 32,
        ),
        (
            "gateway.outbox_bytes_max",
            gateway.outbox_bytes_max as u64,
            64 << 10,
            1 << 30,
        ),
        (
            "gateway.documents_max",
            gateway.documents_max as u64,
            1,
            1_000_000,
        ),
        (
            "gateway.channels_max",
            gateway.channels_max as u64,
            1,
            1_000_000,
        ),
        (
            "gateway.presence_bytes_max",
            gateway.presence_bytes_max as u64,
            64,
            1 << 20,
        ),
        (
            "gateway.messages_per_second",
            gateway.messages_per_second.into(),
            1,
            1_000_000_000,
        ),
        (
            "gateway.messages_burst",
            gateway.messages_burst.into(),
            1,
            1_000_000_000,
        ),
        (
            "gateway.user_messages_per_second",
            gateway.user_messages_per_second.into(),
            1,
            1_000_000_000,
        ),
        (
            "gateway.tenant_messages_per_second",
            gateway.tenant_messages_per_second.into(),
            1,
            1_000_000_000,
        ),
        (
            "gateway.address_handshakes_per_second",
            gateway.address_handshakes_per_second.into(),
            1,
            1_000_000_000,
        ),
        (
            "gateway.user_handshakes_per_second",
            gateway.user_handshakes_per_second.into(),
            1,
            1_000_000_000,
        ),
        (
            "gateway.document_ops_per_second",
            gateway.document_ops_per_second.into(),
            1,
            1_000_000_000,
        ),
        (
            "gateway.ping_interval_ms",
            gateway.ping_interval_ms,
            100,
            3_600_000,
        ),
        (
            "gateway.idle_timeout_ms",
            gateway.idle_timeout_ms,
            200,
            7_200_000,
        ),
        (
            "gateway.address_requests_per_second",
            gateway.address_requests_per_second.into(),
            1,
            1_000_000_000,
        ),
        (
            "gateway.user_requests_per_second",
            gateway.user_requests_per_second.into(),
            1,
            1_000_000_000,
        ),
        (
            "gateway.address_answer_bytes_per_second",
            gateway.address_answer_bytes_per_second.into(),
            1 << 20,
            1_000_000_000,
        ),
        (
            "gateway.request_bytes_max",
            gateway.request_bytes_max as u64,
            8 << 10,
            1 << 20,
        ),
        (
            "gateway.connections_max",
            gateway.connections_max as u64,
            10,
            1_000_000,
        ),
        (
            "gateway.address_connections_max",
            gateway.address_connections_max as u64,
            1,
            1_000_000,
        ),
        (
            "gateway.request_timeout_ms",
            gateway.request_timeout_ms,
            500,
            600_000,
        ),
        (
            "gateway.answer_timeout_ms",
            gateway.answer_timeout_ms,
            500,
            600_000,
        ),
        ("auth.access_seconds", config.auth.access_seconds, 2, 86_400),
        (
            "auth.tenant_documents_max",
            config.auth.tenant_documents_max,
            0,
            1 << 40,
        ),
        (
            "gateway.user_sockets_max",
            gateway.user_sockets_max as u64,
            0,
            10_000_000,
        ),
        (
            "gateway.tenant_sockets_max",
            gateway.tenant_sockets_max as u64,
            0,
            10_000_000,
        ),
        (
            "gateway.tenant_ops_per_second",
            gateway.tenant_ops_per_second.into(),
            0,
            1_000_000_000,
        ),
        (
            "postgres.people_connections",
            postgres.people_connections as u64,
            1,
            100,
        ),
        (
            "auth.document_links_max",
            config.auth.document_links_max,
            1,
            1_000_000,
        ),
        (
            "auth.document_people_max",
            config.auth.document_people_max,
            1,
            1_000_000,
        ),
        (
            "auth.tenant_invitations_max",
            config.auth.tenant_invitations_max,
            1,
            1_000_000,
        ),
        (
            "auth.accounts_max",
            config.auth.accounts_max,
            1,
            100_000_000,
        ),
        (
            "auth.user_sessions_max",
            config.auth.user_sessions_max,
            1,
            10_000,
        ),
        (
            "auth.tenant_mib_max",
            config.auth.tenant_mib_max,
            0,
            1 << 40,
        ),
        ("server.threads", config.server.threads as u64, 0, 1_024),
        (
            "gateway.rebalance_per_second",
            gateway.rebalance_per_second.into(),
            0,
            10_000,
        ),
        ("gateway.hand_over_ms", gateway.hand_over_ms, 0, 600_000),
        (
            "gateway.close_patience_ms",
            gateway.close_patience_ms,
            10,
            60_000,
        ),
        ("node.idle_close_ms", node.idle_close_ms, 0, 86_400_000),
        (
            "node.documents_max",
            node.documents_max as u64,
            1,
            100_000_000,
        ),
        ("node.mailbox_max", node.mailbox_max as u64, 1, 1_000_000),
        (
            "node.submits_bytes_max",
            node.submits_bytes_max as u64,
            1 << 10,
            u32::MAX.into(),
        ),
        (
            "gateway.submits_bytes_max",
            gateway.submits_bytes_max as u64,
            1 << 10,
            u32::MAX.into(),
        ),
        (
            "node.snapshots_bytes_max",
            node.snapshots_bytes_max as u64,
            1 << 20,
            1 << 40,
        ),
        (
            "node.outboxes_bytes_max",
            node.outboxes_bytes_max as u64,
            1 << 20,
            1 << 40,
        ),
        ("node.claims_max", node.claims_max as u64, 1, 100_000),
        ("node.heartbeat_ms", node.heartbeat_ms, 50, 60_000),
        (
            "document.document_bytes_max",
            document.document_bytes_max as u64,
            1 << 10,
            // The hard bound of what is loaded, `ot::CONTENT_BYTES_MAX`.
            64 << 20,
        ),
        (
            "document.tail_entries_max",
            document.tail_entries_max as u64,
            1,
            1_000_000,
        ),
        (
            "document.tail_bytes_max",
            document.tail_bytes_max as u64,
            1 << 10,
            1 << 30,
        ),
        (
            "document.snapshot_entries",
            document.snapshot_entries as u64,
            1,
            1_000_000,
        ),
        (
            "document.snapshot_bytes",
            document.snapshot_bytes as u64,
            1 << 10,
            1 << 30,
        ),
        (
            "document.behind_entries_max",
            document.behind_entries_max,
            1,
            1 << 40,
        ),
        (
            "document.late_submits_max",
            document.late_submits_max as u64,
            1,
            1_000_000,
        ),
        (
            "document.combine_steps_max",
            document.combine_steps_max,
            1_000,
            1_000_000_000_000,
        ),
        (
            "document.combine_slice_steps",
            document.combine_slice_steps,
            1_000,
            1_000_000_000,
        ),
        (
            "document.staged_entries_max",
            document.staged_entries_max as u64,
            1,
            1_000_000,
        ),
        (
            "document.staged_bytes_max",
            document.staged_bytes_max as u64,
            1 << 10,
            1 << 40,
        ),
        (
            "document.session_submits_max",
            document.session_submits_max as u64,
            1,
            100_000,
        ),
        (
            "server.data_mib_max",
            config.server.data_mib_max,
            0,
            1 << 40,
        ),
        (
            "server.stop_patience_ms",
            config.server.stop_patience_ms,
            100,
            600_000,
        ),
        (
            "postgres.append_connections",
            postgres.append_connections as u64,
            1,
            100,
        ),
        (
            "postgres.claim_connections",
            postgres.claim_connections as u64,
            3,
            100,
        ),
        (
            "postgres.read_connections",
            postgres.read_connections as u64,
            1,
            1_000,
        ),
        (
            "postgres.list_connections",
            postgres.list_connections as u64,
            1,
            100,
        ),
        (
            "postgres.list_timeout_ms",
            postgres.list_timeout_ms,
            100,
            600_000,
        ),
        (
            "postgres.acquire_timeout_ms",
            postgres.acquire_timeout_ms,
            100,
            600_000,
        ),
        (
            "postgres.connect_timeout_ms",
            postgres.connect_timeout_ms,
            100,
            600_000,
        ),
        (
            "postgres.statement_timeout_ms",
            postgres.statement_timeout_ms,
            100,
            600_000,
        ),
        (
            "postgres.lock_timeout_ms",
            postgres.lock_timeout_ms,
            10,
            600_000,
        ),
        (
            "postgres.open_patience_ms",
            postgres.open_patience_ms,
            0,
            86_400_000,
        ),
        (
            "postgres.node_dead_after_ms",
            postgres.node_dead_after_ms,
            HEARTBEATS_MIN.saturating_mul(node.heartbeat_ms),
            3_600_000,
        ),
        (
            "postgres.changes_kept_ms",
            postgres.changes_kept_ms,
            10_000,
            3_600_000,
        ),
        (
            "redis.inbox_entries_max",
            redis.inbox_entries_max,
            100,
            100_000_000,
        ),
        (
            "redis.inbox_bytes_max",
            redis.inbox_bytes_max as u64,
            1 << 20,
            1 << 40,
        ),
        (
            "redis.inbox_expiry_ms",
            redis.inbox_expiry_ms,
            1_000,
            86_400_000,
        ),
        (
            "redis.target_bytes_max",
            redis.target_bytes_max as u64,
            1 << 20,
            1 << 40,
        ),
        (
            "redis.queue_bytes_max",
            redis.queue_bytes_max as u64,
            redis.target_bytes_max as u64,
            1 << 40,
        ),
        (
            "redis.command_timeout_ms",
            redis.command_timeout_ms,
            100,
            600_000,
        ),
    ]
}

/// Numbers below zero have no type that could say what is allowed instead.
fn check_signs(table: &Table) -> Result<(), (&'static str, String)> {
    for (key, _, least, most) in ranges(&Config::default()) {
        let value = key
            .split_once('.')
            .and_then(|(section, name)| table.get(section)?.get(name)?.as_integer());
        if let Some(value) = value.filter(|value| *value < 0) {
            return Err((key, out_of_range(key, value, least, most)));
        }
    }
    Ok(())
}

fn out_of_range(key: &str, value: impl std::fmt::Display, least: u64, most: u64) -> String {
    format!("{key} is {value}, but must be {least} to {most}")
}

/// The ranges that the types do not say, and what settings demand of each other.
///
/// # Errors
/// The setting's name, and what is wrong with it.
pub fn check(config: &Config) -> Result<(), (&'static str, String)> {
    let gateway = &config.gateway;
    for (key, value, least, most) in ranges(config) {
        if !(least..=most).contains(&value) {
            return Err((key, out_of_range(key, value, least, most)));
        }
    }
    config.auth.check()?;
    check_tls(&config.tls)?;
    check_paths(&config.server)?;
    if gateway.idle_timeout_ms <= gateway.ping_interval_ms {
        let mut message =
            String::from("gateway.idle_timeout_ms must be longer than gateway.ping_interval_ms");
        let _ = write!(
            message,
            " ({} ms): else every quiet socket is closed",
            gateway.ping_interval_ms
        );
        return Err(("gateway.idle_timeout_ms", message));
    }
    if config.redis.url.is_some() && !config.is_shared() {
        let message =
            "redis.url is for the nodes of a cluster, which share a store: set postgres.url too";
        return Err(("redis.url", message.to_owned()));
    }
    telemetry::filter(&config.log)
        .map(|_| ())
        .map_err(|error| ("log.level", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        load(Some(&path), environment).map_err(|error| {
            error
                .to_string()
                .replace(&format!("{}/", folder.path().display()), "")
        })
    }

    #[test]
    fn a_wrong_setting_names_its_line_and_what_is_allowed() {
        for (text, words) in [
            (
                "[gateway]\nsokets_max = 1\n",
                &["config.toml:2: ", "sokets_max", "sockets_max"][..],
            ),
            (
                "\n\n[gatewai]\n",
                &["config.toml:3: ", "gatewai", "`gateway`"],
            ),
            (
                "[gateway]\nsockets_max = \"many\"\n",
                &["config.toml:2: ", "expected"],
            ),
            (
                "[gateway]\n# sockets_max\nsockets_max = 0\n",
                &["config.toml:3: ", "must be 1 to"],
            ),
            (
                "[server]\nlisten = \"here\"\n",
                &["config.toml:2: ", "socket address"],
            ),
            (
                "[log]\nlevel = \"a=b=c\"\n",
                &["config.toml:2: ", "is no filter"],
            ),
            (
                "[log]\nformat = \"pretty\"\n",
                &["config.toml:2: ", "`auto`, `human`, `json`"],
            ),
            (
                "[gateway]\nidle_timeout_ms = 20000\n",
                &["config.toml:2: ", "must be longer than"],
            ),
            (
                "[postgres]\nclaim_connections = 2\n",
                &["config.toml:2: ", "must be 3 to"],
            ),
            (
                "[postgres]\nconnect_timeout_ms = 0\n",
                &["config.toml:2: ", "must be 100 to"],
            ),
            (
                "[node]\nheartbeat_ms = 1000\n[postgres]\nnode_dead_after_ms = 2999\n",
                &["config.toml:4: ", "must be 3000 to"],
            ),
            (
                "[redis]\ninbox_bytes_max = 1\n",
                &["config.toml:2: ", "must be 1048576 to"],
            ),
            (
                "[redis]\nqueue_bytes_max = 8388608\n",
                &["config.toml:2: ", "must be 16777216 to"],
            ),
            ("what", &["config.toml:1: "]),
            (
                "[auth]\nmode = \"tokens\"\n",
                &["config.toml:2: ", "token_keys must name"],
            ),
            (
                "[auth]\nmode = \"tokens\"\ntoken_secret = \"short\"\n",
                &["config.toml:3: ", "at least 32 bytes"],
            ),
            (
                "[auth]\nmode = \"tokens\"\ntoken_keys = \"http://keys.example.org/\"\n",
                &["config.toml:3: ", "by https"],
            ),
            (
                "[auth]\n\norigins = [\"https://app.example.org/page\"]\n",
                &["config.toml:3: ", "without a path"],
            ),
            (
                "[tls]\ncert = \"cert.pem\"\n",
                &["config.toml:", "tls.key is empty"],
            ),
        ] {
            let error = load_text(text, &[]).unwrap_err();
            for word in words {
                assert!(error.contains(word), "{text:?}: {error}");
            }
        }
    }

    #[test]
    fn environment_overrides_the_file() {
        let text = "[gateway]\nsockets_max = 5\n";
        let environment = [
            ("COPYDESK__GATEWAY__SOCKETS_MAX", "7"),
            ("COPYDESK__SERVER__LISTEN", "127.0.0.1:9"),
            ("COPYDESK__DOCUMENT__TAIL_ENTRIES_MAX", "3"),
            ("OTHER", "x"),
        ];
        let config = load_text(text, &environment).unwrap();
        assert_eq!(config.gateway.sockets_max, 7);
        assert_eq!(config.server.listen.port(), 9);
        assert_eq!(config.node.document.tail_entries_max, 3);
        for (name, value, word) in [
            ("COPYDESK__GATEWAY__SOKETS_MAX", "7", "unknown field"),
            ("COPYDESK__GATEWAY__SOCKETS_MAX", "0", "must be 1 to"),
            ("COPYDESK__GATEWAY__SOCKETS_MAX", "x", "expected"),
            ("COPYDESK__GATEWAY", "x", "a section and a setting"),
            ("COPYDESK__AUTH__MODE", "tokens", "token_keys must name"),
        ] {
            let error = load_text(text, &[(name, value)]).unwrap_err();
            assert!(error.starts_with(name) && error.contains(word), "{error}");
        }
    }

    /// What belongs together may come in any order, and part of it from the file.
    #[test]
    fn settings_that_belong_together_are_checked_together() {
        let secret = "a secret of at least thirty-two bytes";
        let text = "[auth]\nmode = \"tokens\"\n[gateway]\nping_interval_ms = 60000\n";
        let environment = [
            ("COPYDESK__GATEWAY__PING_INTERVAL_MS", "50000"),
            ("COPYDESK__AUTH__TOKEN_SECRET", secret),
            ("COPYDESK__REDIS__URL", "redis://here"),
            ("COPYDESK__POSTGRES__URL", "postgres://here/db"),
            ("COPYDESK__GATEWAY__IDLE_TIMEOUT_MS", "90000"),
        ];
        let config = load_text(text, &environment).unwrap();
        assert_eq!(config.auth.token_secret.0, secret);
        assert_eq!(config.gateway.idle_timeout_ms, 90_000);
    }

    /// Every number of the shipped file has a range that is checked, with a message that names its line and what is
    /// allowed.
    #[test]
    fn every_bound_of_the_shipped_file_is_refused_outside_its_range() {
        let text = include_str!("../config.toml");
        let mut section = "";
        let mut checked = 0;
        for (number, line) in text.lines().enumerate() {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']');
            }
            let Some((name, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#'))
            else {
                continue;
            };
            let key = format!("{section}.{name}");
            if value.parse::<u64>().is_err() {
                continue;
            }
            checked += 1;
            for outside in ["-1", "9223372036854775807"] {
                let changed: Vec<String> = text
                    .lines()
                    .enumerate()
                    .map(|(at, line)| {
                        if at == number {
                            format!("{name} = {outside}")
                        } else {
                            line.to_owned()
                        }
                    })
                    .collect();
                let error = load_text(&changed.join("\n"), &[]).expect_err(&key);
                let place = format!("config.toml:{}: ", number + 1);
                assert!(error.contains(&place), "{key} = {outside}: {error}");
                // A number that no type of the setting holds is refused as that.
                let says_what = error.contains("must be") || error.contains("expected u32");
                assert!(says_what, "{key} = {outside}: {error}");
            }
        }
        assert!(checked > 50, "{checked}");
    }

    #[test]
    fn the_shipped_file_says_the_defaults() {
        let text = include_str!("../config.toml");
        let shipped: Config = toml::from_str(text).unwrap();
        assert_eq!(format!("{shipped:?}"), format!("{:?}", Config::default()));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(
                !line.trim_start().starts_with('#'),
                "a comment stands at the beginning of its line: {line}"
            );
        }
    }
}
