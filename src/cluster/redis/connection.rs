//! Connections to Redis, discarded after their first failure.

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

/// Time limit for connecting, handshakes included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest pause between two attempts to connect; the first pause is a fiftieth of it.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Opens connections.
#[derive(Debug, Clone)]
pub(super) struct RedisConnector {
    config: Config,
    command_timeout: Duration,
}

/// A connection. Dropping it closes it at once and discards its queue.
#[derive(Debug)]
pub(super) struct RedisConnection {
    pub(super) client: Client,
    /// The client's task.
    driver: OnceLock<AbortHandle>,
}

/// Exponential backoff between attempts to connect.
#[derive(Debug, Default)]
pub(super) struct ReconnectBackoff {
    attempts: u32,
}

impl RedisConnector {
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, RedisError> {
        let url = settings.url.clone().unwrap_or_default();
        let mut config = url.config();
        // Report a failure instead of retrying: `ReconnectBackoff` does that.
        config.fail_fast = true;
        if url.tls() {
            config.tls = Some(TlsConfig {
                connector: TlsConnector::from(tls::client(&settings.ca_file)?),
                // Cluster nodes are announced by address, while their certificates carry the configured name.
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

    /// Returns a client that is not connected yet.
    fn client(&self) -> Result<Client, RedisError> {
        let mut builder = Builder::from_config(self.config.clone());
        builder.with_connection_config(|connection| {
            connection.connection_timeout = self.command_timeout;
            connection.internal_command_timeout = self.command_timeout;
            connection.max_command_attempts = 1;
            // Each task waits for its replies before it sends more, so this bound is never reached.
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
                // Polled first, so that it is subscribed before the event is sent.
                connected = connection.client.wait_for_connect() => connected,
                ended = connection.drive() => ended,
            }
        };
        match timeout(CONNECT_TIMEOUT, connected).await {
            Ok(Ok(())) => Ok(connection),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer".to_owned()),
        }
    }
}

impl RedisConnection {
    /// Starts the client's task and waits for its end.
    async fn drive(&self) -> Result<(), Error> {
        let driver = self.client.connect();
        // Set once: this is the only caller.
        let _ = self.driver.set(driver.abort_handle());
        driver.await?
    }
}

impl Drop for RedisConnection {
    fn drop(&mut self) {
        // Not `quit`, which waits for the server.
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

    /// Resets the backoff after a success.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}
