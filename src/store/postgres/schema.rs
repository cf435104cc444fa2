//! The tables: made, and brought up to date, by whichever node comes first.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::connect::Connector;
use super::fault::{Fault, in_words};
use crate::outage::Outage;
use crate::store::StoreError;

/// What brings the tables from each version to the next.
const MIGRATIONS: [&str; 10] = [
    include_str!("../../../sql/postgres/0001_documents_and_their_log.sql"),
    include_str!("../../../sql/postgres/0002_people.sql"),
    include_str!("../../../sql/postgres/0003_accounts_that_end.sql"),
    include_str!("../../../sql/postgres/0004_repeated_deeds.sql"),
    include_str!("../../../sql/postgres/0005_revocations_name_documents.sql"),
    include_str!("../../../sql/postgres/0006_history.sql"),
    include_str!("../../../sql/postgres/0007_addresses_of_nodes.sql"),
    include_str!("../../../sql/postgres/0008_sockets_of_nodes.sql"),
    include_str!("../../../sql/postgres/0009_changes.sql"),
    include_str!("../../../sql/postgres/0010_search.sql"),
];

/// The oldest Postgres that this is tested for the likes of, as `server_version_num` counts.
const OLDEST: i32 = 130_000;

/// Names the lock under which tables are changed: "copydesk" in ASCII.
const LOCK: i64 = 0x636f_7079_6465_736b;

/// How long another node may take to bring the tables up to date.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// Waits until Postgres answers, at most `patience`, and brings its tables up to date. What time does not mend is an
/// error at once.
pub(super) async fn prepare(connector: &Connector, patience: Duration) -> Result<(), StoreError> {
    let deadline = tokio::time::Instant::now() + patience;
    let mut pause = Duration::from_millis(100);
    let outage = Outage::new();
    loop {
        let error = match attempt(connector).await {
            Ok(doubts) => {
                doubts.report();
                return Ok(());
            }
            Err(Trouble::Lasting(error)) => return Err(StoreError::new("open", error)),
            Err(Trouble::Passing(error)) => error,
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
enum Trouble {
    /// It may be gone in a moment.
    Passing(String),
    /// Somebody has to do something.
    Lasting(String),
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        let words = in_words(&error);
        let Some(state) = error.code() else {
            return Self::Passing(format!("connect to Postgres: {words}"));
        };
        let why = match &state.code()[..2] {
            "28" => "Postgres does not let this user in",
            "3D" => "there is no such database",
            "42" if *state == SqlState::INSUFFICIENT_PRIVILEGE => "this user may not make tables",
            "42" => "the database holds what does not fit",
            _ => return Self::Passing(words),
        };
        Self::Lasting(format!("{why}: {words}"))
    }
}

async fn attempt(connector: &Connector) -> Result<Doubts, Trouble> {
    let away = |_| Trouble::Passing("connect to Postgres: no answer in time".to_owned());
    let connected = tokio::time::timeout(connector.patience(), connector.connect()).await;
    let (client, task) = connected.map_err(away)??;
    let prepared = async {
        migrate(&client).await?;
        doubts(&client).await
    };
    let done = tokio::time::timeout(LOCK_PATIENCE * 2, prepared).await;
    task.abort();
    done.unwrap_or_else(|_| Err(Trouble::Passing("Postgres does not answer".to_owned())))
}

/// Brings the tables up to date, while no other node does.
async fn migrate(client: &Client) -> Result<(), Trouble> {
    is_suitable(client).await?;
    let waits = LOCK_PATIENCE.as_millis();
    let settings = format!(
        "SET lock_timeout = {waits};
         SET statement_timeout = 0;
         SELECT set_config('transaction_timeout', '0', false)
         FROM pg_catalog.pg_settings
         WHERE name = 'transaction_timeout'"
    );
    client.batch_execute(&settings).await?;
    // Let go of with the connection, which is this lock's alone.
    let lock = format!("SELECT pg_advisory_lock({LOCK})");
    client.batch_execute(&lock).await?;
    let version = version(client).await?;
    let newest = MIGRATIONS.len();
    if version > newest {
        return Err(Trouble::Lasting(format!(
            "the database has version {version}, and this program knows versions up to {newest}"
        )));
    }
    for (at, migration) in MIGRATIONS.iter().enumerate().skip(version) {
        let next = at + 1;
        let step = format!(
            "BEGIN;
             {migration}
             INSERT INTO copydesk_versions (version) VALUES ({next});
             COMMIT"
        );
        client.batch_execute(&step).await?;
        tracing::info!(version = next, "the database was brought up to date");
    }
    Ok(())
}

async fn version(client: &Client) -> Result<usize, Trouble> {
    let is_there = "SELECT to_regclass('copydesk_versions') IS NOT NULL";
    if !client.query_one(is_there, &[]).await?.get::<_, bool>(0) {
        client
            .batch_execute(
                "CREATE TABLE copydesk_versions (
                   version integer PRIMARY KEY,
                   reached_at timestamptz NOT NULL DEFAULT now()
                 )",
            )
            .await?;
    }
    let row = client
        .query_one(
            "SELECT coalesce(max(version), 0) FROM copydesk_versions",
            &[],
        )
        .await?;
    Ok(usize::try_from(row.get::<_, i32>(0)).unwrap_or(0))
}

async fn is_suitable(client: &Client) -> Result<(), Trouble> {
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
        return Err(Trouble::Lasting(why));
    }
    if encoding != "UTF8" {
        let why = format!("the database's encoding is {encoding}; UTF8 is needed");
        return Err(Trouble::Lasting(why));
    }
    if row.get(3) {
        let why = "this server is a standby and cannot be written to; name the primary, or all servers and target_session_attrs=read-write";
        return Err(Trouble::Passing(why.to_owned()));
    }
    Ok(())
}

/// Settings of the server without which acknowledged ops may be lost.
struct Doubts {
    has_fsync: bool,
    has_full_page_writes: bool,
    waits_for_standbys: bool,
}

impl Doubts {
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
async fn doubts(client: &Client) -> Result<Doubts, Trouble> {
    let row = client
        .query_one(
            "SELECT current_setting('fsync') = 'on',
                    current_setting('full_page_writes') = 'on',
                    current_setting('synchronous_standby_names') <> '' OR NOT EXISTS (
                      SELECT 1 FROM pg_stat_get_wal_senders())",
            &[],
        )
        .await?;
    Ok(Doubts {
        has_fsync: row.get(0),
        has_full_page_writes: row.get(1),
        waits_for_standbys: row.get(2),
    })
}

/// The secret that all nodes share; `drawn` if there is none yet.
pub(super) async fn secret(pool: &super::pool::Pool, drawn: [u8; 32]) -> Result<[u8; 32], Fault> {
    let mut lease = pool.lease().await?;
    let insert = "INSERT INTO secrets (name, value) VALUES ('shared', $1) ON CONFLICT DO NOTHING";
    lease.query(insert, &[&&drawn[..]]).await?;
    let rows = lease
        .query("SELECT value FROM secrets WHERE name = 'shared'", &[])
        .await?;
    let value: Option<&[u8]> = rows.first().map(|row| row.get(0));
    value
        .and_then(|it| it.try_into().ok())
        .ok_or_else(|| Fault::Other("the secret is damaged".to_owned()))
}
