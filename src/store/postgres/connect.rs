//! Connections: the host, the name, the certificates and the settings of the session.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, poll_fn};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::{Host, TargetSessionAttrs};
use tokio_postgres::error::Severity;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Error, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::PostgresSettings;
use super::address::{Address, Roots};
use super::error::is_outage_code;
use super::tls;
use crate::id::NodeId;
use crate::outage::LineLimit;
use crate::store::StoreError;

/// Opens connections of one purpose.
#[derive(Clone)]
pub(super) struct PostgresConnector {
    /// The configuration with all hosts of the url.
    config: Config,
    /// The configurations with one host each, in the order of the url.
    hosts: Vec<Config>,
    tls: MakeRustlsConnect,
    /// The statement that configures the session.
    session: Arc<str>,
}

/// The purpose of a connection, which determines the settings of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionPurpose {
    Append,
    Claim,
    Read,
    /// Lists and searches documents.
    List,
    /// Reads earlier states of documents, for which a standby suffices.
    Past,
}

impl PostgresConnector {
    /// Creates the connector of the node `me` with the given name to `url`.
    pub(super) fn new(
        url: &str,
        settings: &PostgresSettings,
        (me, name): (NodeId, &str),
        purpose: SessionPurpose,
    ) -> Result<Self, StoreError> {
        let Address {
            mut config,
            verification,
            roots,
        } = Address::parse(url)?;
        let patience = Duration::from_millis(settings.connect_timeout_ms);
        config
            .application_name(application_name(me, name))
            .connect_timeout(patience)
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(20));
        if purpose != SessionPurpose::Past {
            // Regardless of the url: a document must be loaded where its entries are appended.
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        let ca_file = roots.as_ref().map_or(&*settings.ca_file, Roots::path);
        Ok(Self {
            hosts: hosts(&config),
            tls: tls::connector(&config, verification, ca_file)?,
            config,
            session: session(settings, purpose).into(),
        })
    }

    /// Opens and configures a connection to the first host that accepts it. Its task ends with the client, or is
    /// aborted by the caller. Each host but the last has its own time limit; the caller enforces
    /// [`patience`](Self::patience) for all of them.
    pub(super) async fn connect(&self) -> Result<(Client, JoinHandle<()>), Error> {
        let (last, first) = self.hosts.split_last().expect("a url has a host");
        for host in first {
            match timeout(self.host_patience(), self.connect_to(host)).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a host of the Postgres url refused the connection")
                }
                Err(_) => tracing::debug!("a host of the Postgres url does not answer"),
            }
        }
        self.connect_to(last).await
    }

    async fn connect_to(&self, host: &Config) -> Result<(Client, JoinHandle<()>), Error> {
        let (client, connection) = host.connect(self.tls.clone()).await?;
        let armed = Arc::new(AtomicBool::new(false));
        let task = AbortOnDrop(tokio::spawn(drive(connection, Arc::clone(&armed))).into());
        client.batch_execute(&self.session).await?;
        armed.store(true, Ordering::Release);
        Ok((client, task.disarm()))
    }

    /// How long connecting may take: the time limits of all hosts.
    pub(super) fn patience(&self) -> Duration {
        self.host_patience() * u32::try_from(self.hosts.len()).unwrap_or(u32::MAX)
    }

    fn host_patience(&self) -> Duration {
        self.config
            .get_connect_timeout()
            .copied()
            .unwrap_or_default()
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }
}

impl deadpool_postgres::Connect for PostgresConnector {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        self.connect().boxed()
    }
}

impl fmt::Debug for PostgresConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration omits the password when it is printed.
        f.debug_struct("PostgresConnector")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The task of a connection, aborted when dropped unless it is disarmed.
struct AbortOnDrop(Option<JoinHandle<()>>);

impl AbortOnDrop {
    fn disarm(mut self) -> JoinHandle<()> {
        self.0.take().expect("it is taken once")
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

/// Runs the connection until it ends.
///
/// Once it is `armed`, a warning ends it: the server sends one when it stopped waiting for its standbys, and reports
/// success nevertheless. The warning arrives before the end of the statement, so the caller sees a broken connection
/// and treats the outcome as unknown. Warnings before that concern the database and not a statement.
async fn drive<T>(mut connection: Connection<Socket, T>, armed: Arc<AtomicBool>)
where
    Connection<Socket, T>: Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) if is_warning(&notice) => {
                report_warning(&notice);
                if armed.load(Ordering::Acquire) {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "a connection to Postgres broke");
                return;
            }
        }
    }
}

/// Logs at most one warning a minute. Those of a server that shuts down arrive on each connection, and the pools log
/// that.
fn report_warning(notice: &tokio_postgres::error::DbError) {
    static LIMIT: LineLimit = LineLimit::new();
    let (code, message) = (notice.code().code(), notice.message());
    if is_outage_code(code) {
        tracing::debug!(code, message, "Postgres ends the connection");
    } else if let Some(left_out) = LIMIT.pass() {
        tracing::warn!(code, message, left_out, "Postgres warns");
    }
}

fn is_warning(notice: &tokio_postgres::error::DbError) -> bool {
    // A server with another language sends the severity in English as well.
    match notice.parsed_severity() {
        Some(severity) => severity == Severity::Warning,
        None => notice.severity() == "WARNING",
    }
}

/// One configuration for each host. The crate's own loop over the hosts limits the time to connect, but not the time
/// that a host which accepted the connection may take to answer.
fn hosts(config: &Config) -> Vec<Config> {
    let (names, addresses, ports) = (
        config.get_hosts(),
        config.get_hostaddrs(),
        config.get_ports(),
    );
    let count = names.len().max(addresses.len());
    if count < 2 {
        return vec![config.clone()];
    }
    let host = |at: usize| {
        let mut alone = without_hosts(config);
        match names.get(at) {
            Some(Host::Tcp(name)) => drop(alone.host(name)),
            Some(Host::Unix(path)) => drop(alone.host_path(path)),
            None => {}
        }
        if let Some(address) = addresses.get(at) {
            alone.hostaddr(*address);
        }
        // A single port applies to all hosts.
        if let Some(port) = ports.get(at).or_else(|| ports.first()) {
            alone.port(*port);
        }
        alone
    };
    (0..count).map(host).collect()
}

/// The configuration without its hosts.
fn without_hosts(config: &Config) -> Config {
    let mut other = Config::new();
    other
        .ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .channel_binding(config.get_channel_binding())
        .target_session_attrs(config.get_target_session_attrs())
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle());
    if let Some(user) = config.get_user() {
        other.user(user);
    }
    if let Some(password) = config.get_password() {
        other.password(password);
    }
    if let Some(dbname) = config.get_dbname() {
        other.dbname(dbname);
    }
    if let Some(options) = config.get_options() {
        other.options(options);
    }
    if let Some(name) = config.get_application_name() {
        other.application_name(name);
    }
    if let Some(timeout) = config.get_connect_timeout() {
        other.connect_timeout(*timeout);
    }
    if let Some(timeout) = config.get_tcp_user_timeout() {
        other.tcp_user_timeout(*timeout);
    }
    if let Some(interval) = config.get_keepalives_interval() {
        other.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        other.keepalives_retries(retries);
    }
    other
}

/// `copydesk:<name>:<id>`, within the 63 bytes that Postgres keeps. Claims identify the connections of nodes by it.
fn application_name(NodeId(id): NodeId, name: &str) -> String {
    let name: String = name
        .chars()
        .map(|it| {
            if it.is_ascii_graphic() && it != ':' {
                it
            } else {
                '_'
            }
        })
        .take(32)
        .collect();
    format!("copydesk:{name}:{id:016x}")
}

/// The statement that configures a session. Settings that an older server does not have are skipped.
fn session(settings: &PostgresSettings, purpose: SessionPurpose) -> String {
    let ms = |ms: u64| ms.to_string();
    let lock_timeout = match purpose {
        // A claim that waits first ends the connection that holds the row, and then waits again.
        SessionPurpose::Claim => settings.lock_timeout_ms.saturating_mul(3),
        SessionPurpose::Append
        | SessionPurpose::Read
        | SessionPurpose::List
        | SessionPurpose::Past => settings.lock_timeout_ms,
    };
    let statement_timeout = match purpose {
        SessionPurpose::List => settings.list_timeout_ms,
        SessionPurpose::Append
        | SessionPurpose::Claim
        | SessionPurpose::Read
        | SessionPurpose::Past => settings.statement_timeout_ms,
    };
    let mut wishes = vec![
        // Fixed because with repeatable read, a lost race would fail a whole statement.
        ("default_transaction_isolation", "read committed".to_owned()),
        ("statement_timeout", ms(statement_timeout)),
        ("lock_timeout", ms(lock_timeout)),
        ("idle_in_transaction_session_timeout", ms(5_000)),
        ("transaction_timeout", ms(statement_timeout)),
        ("client_connection_check_interval", ms(2_000)),
        // Each statement has its index. Plans that were made while the tables were empty would not use it.
        ("enable_seqscan", "off".to_owned()),
        ("enable_bitmapscan", "off".to_owned()),
        // The cost of disabled plans makes the planner compile each execution of a statement to machine code.
        ("jit", "off".to_owned()),
        ("synchronous_commit", "on".to_owned()),
    ];
    if matches!(purpose, SessionPurpose::Append | SessionPurpose::Claim) {
        wishes.push(("plan_cache_mode", "force_generic_plan".to_owned()));
    }
    let values: Vec<_> = wishes
        .iter()
        .map(|(name, value)| format!("('{name}', '{value}')"))
        .collect();
    format!(
        "SELECT set_config(name, wish.value, false)
         FROM (VALUES {}) AS wish (name, value)
         JOIN pg_catalog.pg_settings USING (name)",
        values.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn application_names_fit() {
        let id = NodeId(0xabc);
        for (name, expected) in [
            ("a1", "copydesk:a1:0000000000000abc"),
            ("ä b:c", "copydesk:__b_c:0000000000000abc"),
            ("", "copydesk::0000000000000abc"),
        ] {
            assert_eq!(application_name(id, name), expected);
        }
        assert!(application_name(id, &"x".repeat(99)).len() <= 63);
    }

    #[test]
    fn hosts_are_separated_and_keep_the_common_settings() {
        let shared = "postgres://ann:secret@%s/db?application_name=a&sslmode=require&options=-cx%3D1&connect_timeout=3\
                      &tcp_user_timeout=9&keepalives=1&keepalives_idle=5&keepalives_interval=6&keepalives_retries=7\
                      &target_session_attrs=read-write&channel_binding=disable";
        let url = |hosts: &str| shared.replace("%s", hosts).parse::<Config>().unwrap();
        for (url_hosts, each) in [
            ("a", &["a"][..]),
            ("a:1", &["a:1"]),
            ("a:1,b:2,c", &["a:1", "b:2", "c:5432"]),
        ] {
            let each: Vec<_> = each.iter().map(|host| url(host)).collect();
            assert_eq!(hosts(&url(url_hosts)), each, "{url_hosts}");
        }
    }
}
