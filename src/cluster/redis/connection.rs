//! A connection to Redis that is good until it fails once.

use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::ClientLike;
use fred::types::Builder;
use fred::types::config::{Config, TlsConfig, TlsConnector, TlsHostMapping};
use std::sync::OnceLock;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::settings::RedisSettings;
use super::{RedisError, tls};

/// How long it may take until a connection stands, all handshakes included.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// The longest pause between two attempts to connect. The first is a fiftieth of it.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Makes connections.
#[derive(Debug, Clone)]
pub(super) struct RedisConnector {
    config: Config,
    command_timeout: Duration,
}

/// A connection. Dropped, it is gone at once, with all that waits in it.
#[derive(Debug)]
pub(super) struct RedisConnection {
    pub(super) client: Client,
    /// The task that drives it.
    driver: OnceLock<AbortHandle>,
}

/// How long to wait until the next attempt: longer each time, up to a bound.
#[derive(Debug, Default)]
pub(super) struct ReconnectBackoff {
    attempts: u32,
}

impl RedisConnector {
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, RedisError> {
        let url = settings.url.clone().unwrap_or_default();
        let mut config = url.config();
        // It says why it cannot connect, instead of trying for ever: that is ours to do.
        config.fail_fast = true;
        if url.tls() {
            config.tls = Some(TlsConfig {
                connector: TlsConnector::from(tls::client(&settings.ca_file)?),
                // A cluster tells its nodes by address; their certificates are in the name that we know.
                hostnames: TlsHostMapping::DefaultHost,
            });
        }
        let connector = Self {
            config,
            command_timeout: settings.command_timeout(),
        };
        connector.client()?;
        Ok(connector)
    }

    /// A client that is not connected yet.
    fn client(&self) -> Result<Client, RedisError> {
        let mut builder = Builder::from_config(self.config.clone());
        builder.with_connection_config(|connection| {
            connection.connection_timeout = self.command_timeout;
            connection.internal_command_timeout = self.command_timeout;
            connection.max_command_attempts = 1;
            // Each of ours waits for its answers before it sends more; what is beyond is a mistake.
            connection.max_command_buffer_len = 16_384;
            connection.tcp.nodelay = Some(true);
        });
        let client = builder.build();
        client.map_err(|error| RedisError::Client(error.to_string()))
    }

    /// Connects once.
    pub(super) async fn connect(&self) -> Result<RedisConnection, String> {
        let client = self.client().map_err(|error| error.to_string())?;
        let connection = RedisConnection {
            client,
            driver: OnceLock::new(),
        };
        let connected = async {
            tokio::select! {
                biased;
                // First: it has to listen before there is news.
                connected = connection.client.wait_for_connect() => connected,
                ended = connection.drive() => ended,
            }
        };
        match timeout(CONNECT_PATIENCE, connected).await {
            Ok(Ok(())) => Ok(connection),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer".to_owned()),
        }
    }
}

impl RedisConnection {
    /// Starts what drives the connection, and waits for its end.
    async fn drive(&self) -> Result<(), Error> {
        let driver = self.client.connect();
        // Set once: nobody else calls this.
        let _ = self.driver.set(driver.abort_handle());
        driver.await?
    }
}

impl Drop for RedisConnection {
    fn drop(&mut self) {
        // Not `quit`, which waits for a server that may never answer.
        if let Some(driver) = self.driver.get() {
            driver.abort();
        }
    }
}

impl ReconnectBackoff {
    /// Waits before the next attempt.
    pub(super) async fn wait(&mut self) {
        let shift = self.attempts.min(6);
        self.attempts += 1;
        sleep((PAUSE_MAX / 50 * (1 << shift)).min(PAUSE_MAX)).await;
    }

    /// The attempt was good: the next pause is short again.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}
