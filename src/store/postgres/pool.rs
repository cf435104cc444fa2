//! A few connections that take turns.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, RecyclingMethod, Runtime, Timeouts};
use futures_util::future::join;
use tokio::time::error::Elapsed;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::PostgresSettings;
use super::connect::PostgresConnector;
use super::error::PostgresError;
use super::outages::Outages;

/// At most so many connections. Whoever comes when all are busy waits in line.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    pool: deadpool_postgres::Pool,
    acquire: Duration,
    /// How long a statement may take: somewhat longer than the server allows it.
    patience: Duration,
    outages: Arc<Outages>,
}

impl Pool {
    /// A pool whose log lines call it `name`.
    pub(super) fn new(
        name: &'static str,
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
            outages: Arc::new(Outages::new(name)),
        })
    }

    /// A connection for some statements.
    pub(super) async fn acquire(&self) -> Result<PooledConnection, PostgresError> {
        match self.pool.get().await {
            Ok(object) => Ok(PooledConnection {
                object: Some(object),
                is_clean: true,
                in_transaction: false,
                patience: self.patience,
                outages: Arc::clone(&self.outages),
            }),
            Err(error) => {
                let fault = PostgresError::from_pool(error, self.acquire);
                self.outages.record_failure(&fault);
                Err(fault)
            }
        }
    }

    /// One statement.
    pub(super) async fn query(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, PostgresError> {
        self.acquire().await?.query(sql, values).await
    }

    /// Gives all connections back. Whoever asks later is told so.
    pub(super) fn close(&self) {
        self.pool.close();
    }
}

/// A connection that goes back to its pool, unless something went wrong on it: a statement that nobody waits for any
/// more would delay the next one, and a connection that is half dead cannot be told from a slow one.
pub(super) struct PooledConnection {
    /// There until it is dropped.
    object: Option<Object>,
    is_clean: bool,
    /// It has a transaction under way, and is of no use to others.
    pub(super) in_transaction: bool,
    patience: Duration,
    outages: Arc<Outages>,
}

/// A statement and its values.
type Statement<'a> = (&'static str, &'a [&'a (dyn ToSql + Sync)]);

impl PooledConnection {
    /// Runs a statement, prepared when this connection first meets it, and waits for its end.
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
        let rows = tokio::time::timeout(self.patience, rows).await;
        self.finish(rows)
    }

    /// Runs two statements on one way to the server and back. The second is on its way whatever becomes of the first:
    /// it is for the beginning and the end of a transaction, where the server knows what that means.
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
        let rows = tokio::time::timeout(self.patience, rows).await;
        self.finish(rows)
    }

    /// Notes how a statement ended.
    fn finish<T>(
        &mut self,
        outcome: Result<Result<T, tokio_postgres::Error>, Elapsed>,
    ) -> Result<T, PostgresError> {
        let outcome = match outcome {
            Ok(answer) => answer.map_err(PostgresError::Sql),
            Err(_) => Err(PostgresError::Late(self.patience)),
        };
        match &outcome {
            Ok(_) => {
                self.is_clean = true;
                self.outages.record_success();
            }
            Err(fault) => self.outages.record_failure(fault),
        }
        outcome
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        if let Some(object) = self.object.take()
            && (self.in_transaction || !self.is_clean)
        {
            // Its task is aborted with it. The server is not asked to cancel anything.
            drop(Object::take(object));
        }
    }
}
