//! How a connection is made: where to, as whom, behind which certificate, with which settings of the session.

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

/// Makes connections of one kind.
#[derive(Clone)]
pub(super) struct PostgresConnector {
    /// Of the whole url.
    config: Config,
    /// Of each host of the url alone, in their order.
    hosts: Vec<Config>,
    tls: MakeRustlsConnect,
    /// Sets the session up, in one statement.
    session: Arc<str>,
}

/// What the connections of a pool are for: their settings differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionPurpose {
    Append,
    Claim,
    Read,
    /// Of the list of documents.
    List,
    /// Of what documents once were: a standby knows it too.
    Past,
}

impl PostgresConnector {
    /// How `url` is connected to, by the node `me` whom people call `name`.
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
            // Whatever the url says: who reads for those who join must see what was appended.
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

    /// A new connection, set up, to the first host that takes us. Its task ends with the client, or is aborted. Each host
    /// but the last has its time; the last has what is left of [`patience`](Self::patience), which whoever asks keeps.
    pub(super) async fn connect(&self) -> Result<(Client, JoinHandle<()>), Error> {
        let (last, first) = self.hosts.split_last().expect("a url has a host");
        for host in first {
            match timeout(self.host_patience(), self.connect_to(host)).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => tracing::debug!(%error, "a Postgres of several"),
                Err(_) => tracing::debug!("a Postgres of several does not answer"),
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

    /// How long a connection may take to come about: each host in its turn, with what comes after the handshake.
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
        // The configuration prints itself without the password.
        f.debug_struct("PostgresConnector")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// A connection's task that is aborted unless it is kept.
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

/// Moves what is sent and what comes in, until the connection ends.
///
/// A warning ends it, once it is `armed`: the server warns when it stopped waiting for its standbys and reports success
/// all the same. The warning comes before the statement's end, so whoever waits is told that the connection broke, and
/// takes the fate of the statement for unknown. Warnings at the beginning are about the database, not about a statement.
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

/// Of the warnings of one minute the first is logged. Those of a server that stops come on every connection, and the pools
/// report that.
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
    // Servers that do not say it in English say it twice.
    match notice.parsed_severity() {
        Some(severity) => severity == Severity::Warning,
        None => notice.severity() == "WARNING",
    }
}

/// The configuration once for each host: the crate's own walk over them has a limit for the way to a host, and none for
/// one that takes the connection and then says nothing.
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
        // One port is for all.
        if let Some(port) = ports.get(at).or_else(|| ports.first()) {
            alone.port(*port);
        }
        alone
    };
    (0..count).map(host).collect()
}

/// All that a configuration says but where to.
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

/// `copydesk:<name>:<id>`, within the 63 bytes that Postgres keeps. Whoever claims recognises by it whose connection
/// holds a row.
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

/// The statement that sets a session up. What an older server does not know is left out.
fn session(settings: &PostgresSettings, purpose: SessionPurpose) -> String {
    let ms = |ms: u64| ms.to_string();
    let lock_timeout = match purpose {
        // A claim that waits first ends who stands in its way, and then waits on.
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
        // Pinned: repeatable read would make a lost race the error of a whole batch.
        ("default_transaction_isolation", "read committed".to_owned()),
        ("statement_timeout", ms(statement_timeout)),
        ("lock_timeout", ms(lock_timeout)),
        ("idle_in_transaction_session_timeout", ms(5_000)),
        ("transaction_timeout", ms(statement_timeout)),
        ("client_connection_check_interval", ms(2_000)),
        // Each of our statements has its index. Plans that were made while the tables were empty would not use it.
        ("enable_seqscan", "off".to_owned()),
        ("enable_bitmapscan", "off".to_owned()),
        // What a walk that is "off" is said to cost makes the planner compile each run of a statement to machine code.
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
    fn hosts_are_told_apart_and_keep_what_they_share() {
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
