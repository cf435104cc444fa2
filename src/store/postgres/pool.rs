//! Connection pools.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{Manager, ManagerConfig, Object, RecyclingMethod, Runtime, Timeouts};
use futures_util::future::join;
use tokio::time::error::Elapsed;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::PostgresSettings;
use super::connect::PostgresConnector;
use super::error::PostgresError;
use super::outages::Outages;
use crate::metrics::{Counter, Label, Seconds, set_gauge};
use crate::store::metrics::{PoolConnectionState, PoolName, StoreMetrics};

/// A pool with a fixed number of connections. If all are in use, callers wait for one.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    pool: deadpool_postgres::Pool,
    acquire: Duration,
    /// The time limit of a statement: somewhat longer than the server's.
    patience: Duration,
    outages: Arc<Outages>,
    name: PoolName,
    metrics: StoreMetrics,
}

impl Pool {
    /// Creates a pool; `name` identifies it in log lines and metrics.
    pub(super) fn new(
        (name, metrics): (PoolName, StoreMetrics),
        connector: PostgresConnector,
        size: usize,
        settings: &PostgresSettings,
    ) -> Result<Self, PostgresError> {
        let acquire = Duration::from_millis(settings.acquire_timeout_ms);
        let (config, create) = (connector.config().clone(), connector.patience());
        let fast = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let pool = deadpool_postgres::Pool::builder(Manager::from_connect(config, connector, fast))
            .max_size(size.max(1))
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(acquire),
                create: Some(create),
                recycle: Some(acquire),
            })
            .build()
            .map_err(|error| PostgresError::Other(error.to_string()))?;
        Ok(Self {
            pool,
            acquire,
            patience: Duration::from_millis(settings.statement_timeout_ms) + Duration::from_secs(1),
            outages: Arc::new(Outages::new(name.value())),
            name,
            metrics,
        })
    }

    /// Takes a connection from the pool.
    pub(super) async fn acquire(&self) -> Result<PooledConnection, PostgresError> {
        match self.pool.get().await {
            Ok(object) => Ok(PooledConnection {
                object: Some(object),
                is_clean: true,
                in_transaction: false,
                patience: self.patience,
                outages: Arc::clone(&self.outages),
                seconds: self.metrics.store_statement_seconds.of(self.name).clone(),
                failures: self.metrics.store_statement_failures.of(self.name).clone(),
            }),
            Err(error) => {
                let error = PostgresError::from_pool(error, self.acquire);
                self.outages.record_failure(&error);
                Err(error)
            }
        }
    }

    /// Runs one statement on any connection.
    pub(super) async fn query(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, PostgresError> {
        self.acquire().await?.query(sql, values).await
    }

    /// Sets the gauges of the pool to its current state.
    pub(super) fn sample_metrics(&self) {
        let status = self.pool.status();
        let idle = status.available;
        for (state, connections) in [
            (PoolConnectionState::Busy, status.size.saturating_sub(idle)),
            (PoolConnectionState::Idle, idle),
        ] {
            let gauge = self.metrics.store_connections.of((self.name, state));
            set_gauge(gauge, connections);
        }
        let waiters = self.metrics.store_connection_waiters.of(self.name);
        set_gauge(waiters, status.waiting);
    }

    /// Closes all connections. Later calls fail.
    pub(super) fn close(&self) {
        self.pool.close();
    }
}

/// A connection that returns to its pool when dropped, unless its last statement failed or was not awaited: such a
/// statement would delay the next one, and a broken connection cannot be distinguished from a slow one.
pub(super) struct PooledConnection {
    /// `Some` until it is dropped.
    object: Option<Object>,
    is_clean: bool,
    /// Whether a transaction is open. Such a connection does not return to the pool.
    pub(super) in_transaction: bool,
    patience: Duration,
    outages: Arc<Outages>,
    seconds: Seconds,
    failures: Counter,
}

/// A statement and its values.
type Statement<'a> = (&'static str, &'a [&'a (dyn ToSql + Sync)]);

impl PooledConnection {
    /// Runs a statement, which is prepared at its first use on this connection.
    pub(super) async fn query(
        &mut self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, PostgresError> {
        self.is_clean = false;
        let object = self
            .object
            .as_ref()
            .expect("it is there until it is dropped");
        let rows = async {
            let statement = object.prepare_cached(sql).await?;
            object.query(&statement, values).await
        };
        let begun = Instant::now();
        let rows = tokio::time::timeout(self.patience, rows).await;
        self.finish(begun, rows)
    }

    /// Runs two statements in one round trip. The second one runs even if the first one fails, so this is for the
    /// beginning and the end of transactions, where the server handles that case.
    pub(super) async fn query_both(
        &mut self,
        first: Statement<'_>,
        second: Statement<'_>,
    ) -> Result<[Vec<Row>; 2], PostgresError> {
        self.is_clean = false;
        let object = self
            .object
            .as_ref()
            .expect("it is there until it is dropped");
        let rows = async {
            let statements = [
                object.prepare_cached(first.0).await?,
                object.prepare_cached(second.0).await?,
            ];
            // They are sent in the order in which they are first polled.
            let (first, second) = join(
                object.query(&statements[0], first.1),
                object.query(&statements[1], second.1),
            )
            .await;
            Ok::<_, tokio_postgres::Error>([first?, second?])
        };
        let begun = Instant::now();
        let rows = tokio::time::timeout(self.patience, rows).await;
        self.finish(begun, rows)
    }

    /// Records the result of a statement.
    fn finish<T>(
        &mut self,
        begun: Instant,
        outcome: Result<Result<T, tokio_postgres::Error>, Elapsed>,
    ) -> Result<T, PostgresError> {
        let outcome = match outcome {
            Ok(answer) => answer.map_err(PostgresError::Sql),
            Err(_) => Err(PostgresError::Late(self.patience)),
        };
        self.seconds.observe(begun.elapsed());
        match &outcome {
            Ok(_) => {
                self.is_clean = true;
                self.outages.record_success();
            }
            Err(error) => {
                self.failures.inc();
                self.outages.record_failure(error);
            }
        }
        outcome
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        if let Some(object) = self.object.take()
            && (self.in_transaction || !self.is_clean)
        {
            // This aborts the task of the connection. The server is not asked to cancel the statement.
            drop(Object::take(object));
        }
    }
}
