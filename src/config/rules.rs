//! Rules that a single type or range cannot express.

use std::path::Path;

use super::{Config, ServerSettings};
use crate::cluster::RedisSettings;
use crate::gateway::{GatewaySettings, TlsSettings};
use crate::telemetry;

/// A rule that the configuration breaks.
#[derive(Debug)]
pub(super) struct BrokenRule {
    /// The settings concerned, the most specific first: the error is reported at the first that was set.
    pub(super) settings: Vec<&'static str>,
    pub(super) message: String,
}

impl BrokenRule {
    fn new(settings: &[&'static str], message: impl Into<String>) -> Self {
        Self {
            settings: settings.to_vec(),
            message: message.into(),
        }
    }
}

/// Checks all rules.
pub(super) fn check(config: &Config) -> Result<(), BrokenRule> {
    check_auth(config)?;
    check_admin(config)?;
    check_tls(&config.tls)?;
    check_paths(&config.server)?;
    check_idle_timeout(&config.gateway)?;
    check_heartbeats(config)?;
    check_queue(&config.redis)?;
    check_shared_store(config)?;
    check_log(config)
}

fn check_auth(config: &Config) -> Result<(), BrokenRule> {
    config
        .auth
        .check()
        .map_err(|(setting, message)| BrokenRule::new(&[setting], message))
}

fn check_admin(config: &Config) -> Result<(), BrokenRule> {
    let fault = config.admin.fault();
    fault.map_or(Ok(()), |message| {
        Err(BrokenRule::new(&["admin.listen", "admin.token"], message))
    })
}

/// The certificate and its key are set together.
fn check_tls(tls: &TlsSettings) -> Result<(), BrokenRule> {
    let is_empty = |path: &Path| path.as_os_str().is_empty();
    let (missing, set) = match (is_empty(&tls.cert), is_empty(&tls.key)) {
        (true, false) => ("tls.cert", "tls.key"),
        (false, true) => ("tls.key", "tls.cert"),
        _ => return Ok(()),
    };
    let message = format!("{missing} is empty: TLS needs tls.cert and tls.key, or neither");
    Err(BrokenRule::new(&[missing, set], message))
}

/// First names of the paths of the page and the API. A WebSocket path that begins with one of them would hide it.
const RESERVED_PATHS: [&str; 5] = ["api", "assets", "d", "healthz", "readyz"];

fn check_paths(server: &ServerSettings) -> Result<(), BrokenRule> {
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
        return Err(BrokenRule::new(&["server.base_path"], message));
    }
    let first = socket_path.split('/').nth(1).unwrap_or_default();
    if !is_path(socket_path) || RESERVED_PATHS.contains(&first) {
        let message = format!(
            "server.socket_path is {socket_path:?}, but must {shape}, and not begin with a path of the page: {}",
            RESERVED_PATHS.join(", ")
        );
        return Err(BrokenRule::new(&["server.socket_path"], message));
    }
    Ok(())
}

/// A socket is pinged before it counts as idle.
fn check_idle_timeout(gateway: &GatewaySettings) -> Result<(), BrokenRule> {
    let (idle, ping) = (gateway.idle_timeout_ms, gateway.ping_interval_ms);
    if idle > ping {
        return Ok(());
    }
    let message = format!(
        "gateway.idle_timeout_ms is {idle}, but must be longer than gateway.ping_interval_ms ({ping}): otherwise every quiet \
         socket is closed"
    );
    Err(BrokenRule::new(
        &["gateway.idle_timeout_ms", "gateway.ping_interval_ms"],
        message,
    ))
}

/// Heartbeats that a node must miss before its documents are given away: one may be slow, and one lost.
const MISSED_HEARTBEATS_MIN: u64 = 3;

fn check_heartbeats(config: &Config) -> Result<(), BrokenRule> {
    let (dead_after, heartbeat) = (config.postgres.node_dead_after_ms, config.node.heartbeat_ms);
    let least = MISSED_HEARTBEATS_MIN.saturating_mul(heartbeat);
    if dead_after >= least {
        return Ok(());
    }
    let message = format!(
        "postgres.node_dead_after_ms is {dead_after}, but must be at least {least}: {MISSED_HEARTBEATS_MIN} times \
         node.heartbeat_ms"
    );
    Err(BrokenRule::new(
        &["postgres.node_dead_after_ms", "node.heartbeat_ms"],
        message,
    ))
}

/// The queue to all nodes holds at least what one node's queue may hold.
fn check_queue(redis: &RedisSettings) -> Result<(), BrokenRule> {
    let (all, one) = (redis.queue_bytes_max, redis.target_bytes_max);
    if all >= one {
        return Ok(());
    }
    let message = format!(
        "redis.queue_bytes_max is {all}, but must be at least {one}: the value of redis.target_bytes_max"
    );
    Err(BrokenRule::new(
        &["redis.queue_bytes_max", "redis.target_bytes_max"],
        message,
    ))
}

/// Nodes that exchange messages use the same store.
fn check_shared_store(config: &Config) -> Result<(), BrokenRule> {
    if config.redis.url.is_none() || config.is_shared() {
        return Ok(());
    }
    let message =
        "redis.url is for the nodes of a cluster, which share a store: set postgres.url too";
    Err(BrokenRule::new(&["redis.url", "postgres.url"], message))
}

fn check_log(config: &Config) -> Result<(), BrokenRule> {
    telemetry::filter(&config.log)
        .map(|_| ())
        .map_err(|error| BrokenRule::new(&["log.level"], error.to_string()))
}
