//! Migrations of the tables: at the start of a node and by `copydesk migrate`.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::schema::SchemaError;
use crate::store::MigrationPhase;
use crate::store::migration::{Migration, MigrationKind, accepts};

/// The migrations in order. Never edited after a release.
const MIGRATIONS: &[&str] = &[
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
    include_str!("../../../sql/postgres/0011_node_versions.sql"),
    include_str!("../../../sql/postgres/0012_index_of_repeated_deeds.sql"),
    include_str!("../../../sql/postgres/0013_dead_letters.sql"),
];

/// The newest version of the tables that this program knows.
pub(super) const NEWEST: i32 = MIGRATIONS.len() as i32;

/// The advisory lock of migrations: "copydesk" in ASCII.
const LOCK: i64 = 0x636f_7079_6465_736b;

/// How long to wait while another session migrates.
pub(super) const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// How often the lock is tried. A session that waited for it inside a statement would delay a concurrent index build,
/// which waits for all older statements.
const LOCK_EVERY: Duration = Duration::from_millis(200);

/// How long a migration waits for the lock of a table. Later statements on the table, heartbeats among them, queue
/// behind it, so it is far below the time after which a silent node counts as dead.
const TABLE_LOCK_MS: u64 = 500;

/// The pause before a migration tries the lock of a table again.
const TABLE_LOCK_PAUSE: Duration = Duration::from_secs(1);

/// A smaller database is migrated completely at the start of a node.
const SMALL_BYTES: i64 = 64 << 20;

/// The size of the database, which determines what a node may migrate at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DatabaseSize {
    /// It has no tables.
    New,
    Small,
    Large,
}

/// Why the migrations cannot be applied.
#[derive(Debug, PartialEq, Eq)]
enum Blocked {
    /// The node needs this version, which only `copydesk migrate` applies.
    NeedsMigrate(i32),
    /// This version of the expand phase must be applied before the contract phase.
    ExpandFirst(i32),
}

/// Splits the pending migrations into those that are applied now and those that stay pending.
fn plan(
    pending: Vec<Migration>,
    database: DatabaseSize,
    phase: Option<MigrationPhase>,
) -> Result<(Vec<Migration>, Vec<Migration>), Blocked> {
    let first = |step: MigrationKind| pending.iter().find(|it| it.kind == step);
    if phase == Some(MigrationPhase::Contract) && database != DatabaseSize::New {
        let expand = pending.iter().find(|it| it.kind != MigrationKind::Contract);
        return match expand {
            Some(expand) => Err(Blocked::ExpandFirst(expand.version)),
            None => Ok((pending, Vec::new())),
        };
    }
    let is_patient = phase.is_some() || database != DatabaseSize::Large;
    if let (false, Some(long)) = (is_patient, first(MigrationKind::Long)) {
        return Err(Blocked::NeedsMigrate(long.version));
    }
    let is_applied = |migration: &Migration| match migration.kind {
        MigrationKind::Quick => true,
        MigrationKind::Long | MigrationKind::Online => is_patient,
        MigrationKind::Contract => database == DatabaseSize::New,
    };
    Ok(pending.into_iter().partition(is_applied))
}

/// Migrates the tables under the lock: at the start of a node (`None`) only what is quick, otherwise a phase of
/// `copydesk migrate`. Returns the versions that stay pending.
pub(super) async fn migrate(
    client: &Client,
    phase: Option<MigrationPhase>,
) -> Result<Vec<i32>, SchemaError> {
    client.batch_execute(SETTINGS).await?;
    lock(client).await?;
    let (applied, pending) = look(client).await?;
    let database = match applied.is_empty() {
        true => DatabaseSize::New,
        false if size(client).await? < SMALL_BYTES => DatabaseSize::Small,
        false => DatabaseSize::Large,
    };
    let (now, left) = plan(pending, database, phase).map_err(|blocked| {
        SchemaError::Permanent(match blocked {
            Blocked::NeedsMigrate(version) => format!(
                "the tables lack version {version}, which takes long in a large database: run `copydesk migrate --expand`; nodes of the previous version keep working meanwhile"
            ),
            Blocked::ExpandFirst(version) => format!(
                "the tables lack version {version} of the expand phase: run `copydesk migrate --expand` first"
            ),
        })
    })?;
    for migration in now {
        if migration.kind == MigrationKind::Contract && database != DatabaseSize::New {
            refuse_older_nodes(client, &migration).await?;
        }
        if migration.kind == MigrationKind::Online && phase.is_some() {
            apply_online(client, &migration).await?;
        } else {
            apply_at_once(client, &migration).await?;
        }
        tracing::info!(version = migration.version, "migration applied");
    }
    Ok(left.iter().map(|it| it.version).collect())
}

/// The versions that were applied and that are pending. Changes nothing.
pub(super) async fn status(client: &Client) -> Result<(Vec<i32>, Vec<i32>), SchemaError> {
    let (applied, pending) = look(client).await?;
    let applied = applied.iter().map(|(version, _)| *version);
    Ok((
        applied.collect(),
        pending.iter().map(|it| it.version).collect(),
    ))
}

/// Migrations have no time limits, whatever the server's settings are.
const SETTINGS: &str = "
SET lock_timeout = 0;
SET statement_timeout = 0;
SELECT set_config('transaction_timeout', '0', false)
FROM pg_catalog.pg_settings
WHERE name = 'transaction_timeout'";

/// Takes the lock of migrations. It is released when the connection is closed.
async fn lock(client: &Client) -> Result<(), SchemaError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    let take = format!("SELECT pg_try_advisory_lock({LOCK})");
    while !client.query_one(&take, &[]).await?.get::<_, bool>(0) {
        if Instant::now() > deadline {
            let why = "another session is changing the tables: wait until it is done";
            return Err(SchemaError::Transient(why.to_owned()));
        }
        sleep(LOCK_EVERY).await;
    }
    Ok(())
}

/// A version of the tables, and the oldest version with programs that work with it.
type Applied = (i32, Option<i32>);

async fn look(client: &Client) -> Result<(Vec<Applied>, Vec<Migration>), SchemaError> {
    let applied = applied(client).await?;
    accepts(NEWEST, applied.iter().copied()).map_err(|version| {
        SchemaError::Permanent(format!(
            "the database has version {version}, and this program knows versions up to {NEWEST}: use the newer program"
        ))
    })?;
    let is_applied = |version| applied.iter().any(|(it, _)| *it == version);
    let pending = Migration::list(MIGRATIONS).into_iter();
    let pending = pending.filter(|it| !is_applied(it.version)).collect();
    Ok((applied, pending))
}

/// The versions that were applied. The table of early versions lacks the second column.
async fn applied(client: &Client) -> Result<Vec<Applied>, SchemaError> {
    let columns = "
        SELECT attname::text
        FROM pg_attribute
        WHERE attrelid = to_regclass('copydesk_versions') AND attnum > 0 AND NOT attisdropped";
    let columns: Vec<String> = client
        .query(columns, &[])
        .await?
        .iter()
        .map(|row| row.get(0))
        .collect();
    let rows = match (
        columns.is_empty(),
        columns.iter().any(|it| it == "works_with"),
    ) {
        (true, _) => return Ok(Vec::new()),
        (_, true) => "SELECT version, works_with FROM copydesk_versions ORDER BY version",
        (_, false) => "SELECT version, NULL::integer FROM copydesk_versions ORDER BY version",
    };
    let rows = client.query(rows, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

async fn size(client: &Client) -> Result<i64, SchemaError> {
    let size = "
        SELECT coalesce(sum(pg_table_size(to_regclass(name))), 0)::bigint
        FROM unnest(ARRAY['documents', 'entries', 'audit']) AS name";
    Ok(client.query_one(size, &[]).await?.get(0))
}

/// The statements that record a version as applied.
fn note(migration: &Migration) -> String {
    let Migration {
        version,
        works_with,
        ..
    } = migration;
    format!(
        "CREATE TABLE IF NOT EXISTS copydesk_versions (
           version integer PRIMARY KEY,
           reached_at timestamptz NOT NULL DEFAULT now()
         );
         ALTER TABLE copydesk_versions ADD COLUMN IF NOT EXISTS works_with integer;
         INSERT INTO copydesk_versions (version, works_with) VALUES ({version}, {works_with})"
    )
}

/// Applies a migration in one transaction. Indexes are not built concurrently, because the tables are small.
async fn apply_at_once(client: &Client, migration: &Migration) -> Result<(), SchemaError> {
    let (sql, note) = (migration.sql.replace(" CONCURRENTLY", ""), note(migration));
    let transaction =
        format!("BEGIN; SET LOCAL lock_timeout = {TABLE_LOCK_MS};\n{sql}\n;{note}; COMMIT");
    let deadline = Instant::now() + LOCK_PATIENCE;
    while let Err(error) = client.batch_execute(&transaction).await {
        client.batch_execute("ROLLBACK").await?;
        let is_locked = error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE);
        if !is_locked || Instant::now() > deadline {
            return Err(error.into());
        }
        let version = migration.version;
        tracing::info!(
            version,
            "a table is locked by another session: retrying the migration"
        );
        sleep(TABLE_LOCK_PAUSE).await;
    }
    Ok(())
}

/// Applies a migration statement by statement while nodes use the tables. It may be interrupted and repeated: invalid
/// indexes are dropped and built again, and a repeated statement continues with the remaining rows.
async fn apply_online(client: &Client, migration: &Migration) -> Result<(), SchemaError> {
    let half_built = "
        SELECT relname::text
        FROM pg_index
        JOIN pg_class ON pg_class.oid = indexrelid
        WHERE NOT indisvalid AND relnamespace = current_schema()::regnamespace";
    for row in client.query(half_built, &[]).await? {
        let index: &str = row.get(0);
        if migration.sql.contains(&format!(" {index} ")) {
            let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS {index}");
            client.batch_execute(&drop).await?;
        }
    }
    for (statement, repeats) in migration.statements() {
        loop {
            let begun = Instant::now();
            let rows = client.execute(&statement, &[]).await?;
            if !repeats || rows == 0 {
                break;
            }
            tracing::info!(
                version = migration.version,
                rows,
                "part of the migration is done"
            );
            // Leaves half of the time to the nodes.
            sleep(begun.elapsed()).await;
        }
    }
    client.batch_execute(&note(migration)).await?;
    Ok(())
}

/// Fails if a node that lives, or lived a minute ago, needs what the migration removes.
async fn refuse_older_nodes(client: &Client, migration: &Migration) -> Result<(), SchemaError> {
    let older = "
        SELECT string_agg(convert_from(name, 'UTF8'), ', ')
        FROM nodes
        WHERE schema < $1 AND beat_at > clock_timestamp() - interval '1 minute'";
    let row = client.query_one(older, &[&migration.works_with]).await?;
    match row.get::<_, Option<String>>(0) {
        None => Ok(()),
        Some(names) => Err(SchemaError::Permanent(format!(
            "version {} does not work with the program of the nodes {names}: upgrade them first, and wait one minute",
            migration.version
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(steps: &[MigrationKind]) -> Vec<Migration> {
        let migration = |(version, kind): (i32, &MigrationKind)| Migration {
            version,
            sql: "",
            kind: *kind,
            works_with: version - 1,
        };
        (1..).zip(steps).map(migration).collect()
    }

    #[test]
    fn start_of_a_node_applies_quick_migrations() {
        use DatabaseSize::{Large, New, Small};
        use MigrationKind::{Long, Online, Quick};
        use MigrationPhase::{Contract, Expand};
        let contract = MigrationKind::Contract;
        let all = [Quick, Online, Long, contract];
        for (steps, database, phase, expected) in [
            (&all[..], New, None, Ok((vec![1, 2, 3, 4], vec![]))),
            (&all, Small, None, Ok((vec![1, 2, 3], vec![4]))),
            (&all, Large, None, Err(Blocked::NeedsMigrate(3))),
            (
                &[Quick, Online, Quick],
                Large,
                None,
                Ok((vec![1, 3], vec![2])),
            ),
            (&all, Large, Some(Expand), Ok((vec![1, 2, 3], vec![4]))),
            (&all, Large, Some(Contract), Err(Blocked::ExpandFirst(1))),
            (
                &[contract, Online],
                Small,
                Some(Contract),
                Err(Blocked::ExpandFirst(2)),
            ),
            (&[contract], Large, Some(Contract), Ok((vec![1], vec![]))),
            (&[contract], Large, None, Ok((vec![], vec![1]))),
        ] {
            let planned = plan(pending(steps), database, phase);
            let versions =
                |list: Vec<Migration>| list.iter().map(|it| it.version).collect::<Vec<_>>();
            let planned = planned.map(|(now, left)| (versions(now), versions(left)));
            assert_eq!(planned, expected, "{steps:?} {database:?} {phase:?}");
        }
    }
}
