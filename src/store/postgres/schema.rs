//! The preparation of the tables at the start of a node, and checks of the server.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::connect::PostgresConnector;
use super::error::{PostgresError, in_words};
use super::migrate::{LOCK_PATIENCE, migrate, status};
use crate::outage::Outage;
use crate::store::{MigrationPhase, StoreError};

/// The oldest supported version of Postgres, as `server_version_num` counts.
const OLDEST: i32 = 130_000;

/// Waits at most `patience` until Postgres answers, and migrates its tables. Permanent errors are returned at once.
pub(super) async fn prepare(
    connector: &PostgresConnector,
    patience: Duration,
) -> Result<(), StoreError> {
    let deadline = tokio::time::Instant::now() + patience;
    let mut pause = Duration::from_millis(100);
    let outage = Outage::new();
    loop {
        let error = match attempt(connector).await {
            Ok(warnings) => {
                warnings.report();
                return Ok(());
            }
            Err(SchemaError::Permanent(error)) => return Err(StoreError::new("open", error)),
            Err(SchemaError::Transient(error)) => error,
        };
        if tokio::time::Instant::now() + pause > deadline {
            return Err(StoreError::new("open", error));
        }
        if outage.begins() {
            tracing::warn!(%error, "Postgres does not answer: the start waits for it");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// Why the tables are not ready.
pub(super) enum SchemaError {
    /// A later attempt may succeed.
    Transient(String),
    /// An operator has to act.
    Permanent(String),
}

impl From<tokio_postgres::Error> for SchemaError {
    fn from(error: tokio_postgres::Error) -> Self {
        let words = in_words(&error);
        let Some(state) = error.code() else {
            return Self::Transient(format!("connect to Postgres: {words}"));
        };
        let why = match &state.code()[..2] {
            "28" => "Postgres rejects the user or password of the url",
            "3D" => "the database of the url does not exist",
            "42" if *state == SqlState::INSUFFICIENT_PRIVILEGE => {
                "the user of the url may not create tables"
            }
            "42" => "the tables of the database have another structure",
            _ => return Self::Transient(words),
        };
        Self::Permanent(format!("{why}: {words}"))
    }
}

async fn attempt(connector: &PostgresConnector) -> Result<DurabilityWarnings, SchemaError> {
    let connected = tokio::time::timeout(connector.patience(), connector.connect()).await;
    let (client, task) = connected.map_err(away)??;
    let prepared = async {
        is_suitable(&client).await?;
        let pending = migrate(&client, None).await?;
        if !pending.is_empty() {
            tracing::warn!(
                ?pending,
                "versions of the tables are pending: the node works without them; run `copydesk migrate`"
            );
        }
        durability_warnings(&client).await
    };
    let done = tokio::time::timeout(LOCK_PATIENCE * 2, prepared).await;
    task.abort();
    done.unwrap_or_else(|_| {
        Err(SchemaError::Transient(
            "Postgres does not answer".to_owned(),
        ))
    })
}

/// Applies a phase of `copydesk migrate`, or none (`None`). Returns the versions that are applied and that are pending.
pub(super) async fn migrate_tables(
    connector: &PostgresConnector,
    phase: Option<MigrationPhase>,
) -> Result<(Vec<i32>, Vec<i32>), StoreError> {
    let work = async {
        let connected = tokio::time::timeout(connector.patience(), connector.connect()).await;
        let (client, task) = connected.map_err(away)??;
        is_suitable(&client).await?;
        if let Some(phase) = phase {
            migrate(&client, Some(phase)).await?;
        }
        let status = status(&client).await;
        task.abort();
        status
    };
    work.await.map_err(|trouble| {
        let (SchemaError::Transient(why) | SchemaError::Permanent(why)) = trouble;
        StoreError::new("migrate", why)
    })
}

fn away(_: tokio::time::error::Elapsed) -> SchemaError {
    SchemaError::Transient("connect to Postgres: no answer in time".to_owned())
}

async fn is_suitable(client: &Client) -> Result<(), SchemaError> {
    let row = client
        .query_one(
            "SELECT current_setting('server_version_num')::integer,
                    current_setting('server_version'),
                    current_setting('server_encoding'),
                    pg_is_in_recovery()",
            &[],
        )
        .await?;
    let (number, version): (i32, String) = (row.get(0), row.get(1));
    let encoding: String = row.get(2);
    if number < OLDEST {
        let why = format!("this is Postgres {version}; version 13 or newer is needed");
        return Err(SchemaError::Permanent(why));
    }
    if encoding != "UTF8" {
        let why = format!("the database's encoding is {encoding}; UTF8 is needed");
        return Err(SchemaError::Permanent(why));
    }
    if row.get(3) {
        let why = "this server is a standby and read-only; name the primary, or all servers and target_session_attrs=read-write";
        return Err(SchemaError::Transient(why.to_owned()));
    }
    Ok(())
}

/// Settings of the server without which acknowledged ops may be lost.
struct DurabilityWarnings {
    has_fsync: bool,
    has_full_page_writes: bool,
    waits_for_standbys: bool,
}

impl DurabilityWarnings {
    fn report(&self) {
        if !self.has_fsync {
            tracing::warn!(
                "fsync is off in this Postgres: a crash of its machine may lose or damage all data"
            );
        }
        if !self.has_full_page_writes {
            tracing::warn!(
                "full_page_writes is off in this Postgres: a crash of its machine may damage all data"
            );
        }
        if !self.waits_for_standbys {
            tracing::warn!(
                "this Postgres waits for none of its standbys: a failover will lose what was acknowledged last (set synchronous_standby_names)"
            );
        }
    }
}

/// Reads those settings. `synchronous_commit` is set by each of our sessions.
async fn durability_warnings(client: &Client) -> Result<DurabilityWarnings, SchemaError> {
    let row = client
        .query_one(
            "SELECT current_setting('fsync') = 'on',
                    current_setting('full_page_writes') = 'on',
                    current_setting('synchronous_standby_names') <> '' OR NOT EXISTS (
                      SELECT 1 FROM pg_stat_get_wal_senders())",
            &[],
        )
        .await?;
    Ok(DurabilityWarnings {
        has_fsync: row.get(0),
        has_full_page_writes: row.get(1),
        waits_for_standbys: row.get(2),
    })
}

/// The secret that all nodes share; set to `drawn` if there is none yet.
pub(super) async fn secret(
    pool: &super::pool::Pool,
    drawn: [u8; 32],
) -> Result<[u8; 32], PostgresError> {
    let mut lease = pool.acquire().await?;
    let insert = "INSERT INTO secrets (name, value) VALUES ('shared', $1) ON CONFLICT DO NOTHING";
    lease.query(insert, &[&&drawn[..]]).await?;
    let rows = lease
        .query("SELECT value FROM secrets WHERE name = 'shared'", &[])
        .await?;
    let value: Option<&[u8]> = rows.first().map(|row| row.get(0));
    value.and_then(|it| it.try_into().ok()).ok_or_else(|| {
        PostgresError::Other("secrets.value of 'shared' does not have 32 bytes".to_owned())
    })
}
