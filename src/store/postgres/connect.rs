//! How a connection is made: where to, as whom, behind which certificate, with which settings of the session.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, poll_fn};
use tokio::task::JoinHandle;
use tokio_postgres::error::Severity;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Error, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::PostgresSettings;
use super::tls;
use crate::id::NodeId;
use crate::store::StoreError;

/// Makes connections of one kind.
#[derive(Clone)]
pub(super) struct Connector {
    config: Config,
    tls: MakeRustlsConnect,
    /// Sets the session up, in one statement.
    session: Arc<str>,
}

/// What the connections of a pool are for: their settings differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Append,
    Claim,
    Read,
}

impl Connector {
    /// How `url` is connected to, by the node `me` whom people call `name`.
    pub(super) fn new(
        url: &str,
        settings: &PostgresSettings,
        (me, name): (NodeId, &str),
        purpose: Purpose,
    ) -> Result<Self, StoreError> {
        let mut config: Config = url
            .parse()
            .map_err(|error| StoreError::new("read the Postgres url", error))?;
        let patience = Duration::from_millis(settings.connect_timeout_ms);
        config
            .application_name(application_name(me, name))
            .connect_timeout(patience)
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(20));
        Ok(Self {
            tls: tls::connector(&config, &settings.ca_file)?,
            config,
            session: session(settings, purpose).into(),
        })
    }

    /// A new connection, set up. Its task ends with the client, or is aborted.
    pub(super) async fn connect(&self) -> Result<(Client, JoinHandle<()>), Error> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        let armed = Arc::new(AtomicBool::new(false));
        let task = Task(tokio::spawn(drive(connection, Arc::clone(&armed))).into());
        client.batch_execute(&self.session).await?;
        armed.store(true, Ordering::Release);
        Ok((client, task.keep()))
    }

    /// How long a connection may take to come about: through all hosts of the url, with what comes after the handshake.
    pub(super) fn patience(&self) -> Duration {
        self.config
            .get_connect_timeout()
            .copied()
            .unwrap_or_default()
            * 2
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }
}

impl deadpool_postgres::Connect for Connector {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        self.connect().boxed()
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration prints itself without the password.
        f.debug_struct("Connector")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// A connection's task that is aborted unless it is kept.
struct Task(Option<JoinHandle<()>>);

impl Task {
    fn keep(mut self) -> JoinHandle<()> {
        self.0.take().expect("it is taken once")
    }
}

impl Drop for Task {
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
                tracing::warn!(
                    code = notice.code().code(),
                    message = notice.message(),
                    "Postgres warns"
                );
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

fn is_warning(notice: &tokio_postgres::error::DbError) -> bool {
    // Servers that do not say it in English say it twice.
    match notice.parsed_severity() {
        Some(severity) => severity == Severity::Warning,
        None => notice.severity() == "WARNING",
    }
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
fn session(settings: &PostgresSettings, purpose: Purpose) -> String {
    let ms = |ms: u64| ms.to_string();
    let lock_timeout = match purpose {
        // A claim that waits first ends who stands in its way, and then waits on.
        Purpose::Claim => settings.lock_timeout_ms.saturating_mul(3),
        Purpose::Append | Purpose::Read => settings.lock_timeout_ms,
    };
    let mut wishes = vec![
        // Pinned: repeatable read would make a lost race the error of a whole batch.
        ("default_transaction_isolation", "read committed".to_owned()),
        ("statement_timeout", ms(settings.statement_timeout_ms)),
        ("lock_timeout", ms(lock_timeout)),
        ("idle_in_transaction_session_timeout", ms(5_000)),
        ("transaction_timeout", ms(settings.statement_timeout_ms)),
        ("client_connection_check_interval", ms(2_000)),
        // Each of our statements has its index. Plans that were made while the tables were empty would not use it.
        ("enable_seqscan", "off".to_owned()),
        ("synchronous_commit", "on".to_owned()),
    ];
    if purpose != Purpose::Read {
        wishes.extend([
            ("enable_bitmapscan", "off".to_owned()),
            ("plan_cache_mode", "force_generic_plan".to_owned()),
        ]);
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
}
