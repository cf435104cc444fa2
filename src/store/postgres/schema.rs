//! The tables: made, and brought up to date, by whichever node comes first.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::connect::PostgresConnector;
use super::error::{PostgresError, in_words};
use super::migrate::{LOCK_PATIENCE, migrate, status};
use crate::outage::Outage;
use crate::store::{MigrationPhase, StoreError};

/// The oldest Postgres that this is tested for the likes of, as `server_version_num` counts.
const OLDEST: i32 = 130_000;

/// Waits until Postgres answers, at most `patience`, and brings its tables up to date. What time does not mend is an
/// error at once.
pub(super) async fn prepare(
    connector: &PostgresConnector,
    patience: Duration,
) -> Result<(), StoreError> {
    let deadline = tokio::time::Instant::now() + patience;
    let mut pause = Duration::from_millis(100);
    let outage = Outage::new();
    loop {
        let error = match attempt(connector).await {
            Ok(doubts) => {
                doubts.report();
                return Ok(());
            }
            Err(SchemaError::Permanent(error)) => return Err(StoreError::new("open", error)),
            Err(SchemaError::Transient(error)) => error,
        };
        if tokio::time::Instant::now() + pause > deadline {
            return Err(StoreError::new("open", error));
        }
        if outage.begins() {
            tracing::warn!(%error, "waiting for Postgres");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// Why the tables are not there yet.
pub(super) enum SchemaError {
    /// It may be gone in a moment.
    Transient(String),
    /// Somebody has to do something.
    Permanent(String),
}

impl From<tokio_postgres::Error> for SchemaError {
    fn from(error: tokio_postgres::Error) -> Self {
        let words = in_words(&error);
        let Some(state) = error.code() else {
            return Self::Transient(format!("connect to Postgres: {words}"));
        };
        let why = match &state.code()[..2] {
            "28" => "Postgres does not let this user in",
            "3D" => "there is no such database",
            "42" if *state == SqlState::INSUFFICIENT_PRIVILEGE => "this user may not make tables",
            "42" => "the database holds what does not fit",
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
        doubts(&client).await
    };
    let done = tokio::time::timeout(LOCK_PATIENCE * 2, prepared).await;
    task.abort();
    done.unwrap_or_else(|_| {
        Err(SchemaError::Transient(
            "Postgres does not answer".to_owned(),
        ))
    })
}

/// What `copydesk migrate` does: applies a phase, or says what is pending (`None`). The versions that were applied, and
/// those that are pending.
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
        let why = "this server is a standby and cannot be written to; name the primary, or all servers and target_session_attrs=read-write";
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
                "fsync is off in this Postgres: a crash of its machine may lose or damage everything"
            );
        }
        if !self.has_full_page_writes {
            tracing::warn!(
                "full_page_writes is off in this Postgres: a crash of its machine may damage everything"
            );
        }
        if !self.waits_for_standbys {
            tracing::warn!(
                "this Postgres waits for none of its standbys: a failover will lose what was acknowledged last (set synchronous_standby_names)"
            );
        }
    }
}

/// Reads those settings. That a commit is durable when it returns, each of our sessions asks
/// for itself, whatever the server's `synchronous_commit`.
async fn doubts(client: &Client) -> Result<DurabilityWarnings, SchemaError> {
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

/// The secret that all nodes share; `drawn` if there is none yet.
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
    value
        .and_then(|it| it.try_into().ok())
        .ok_or_else(|| PostgresError::Other("the secret is damaged".to_owned()))
}
