//! Where a document is, for `copydesk locate`.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::connect::PostgresConnector;
use super::error::{PostgresError, in_words};
use crate::id::{DocId, NodeId};
use crate::log::{Epoch, Revision};
use crate::store::DocumentLocation;

const LOCATE: &str = "
SELECT heads.owner, heads.owner_name, heads.epoch, coalesce(
  (SELECT entries.revision FROM entries WHERE entries.doc = heads.doc ORDER BY entries.revision DESC LIMIT 1), 0),
  EXISTS (
    SELECT 1
    FROM nodes
    WHERE nodes.id = heads.owner AND nodes.beat_at >= clock_timestamp() - $3 * interval '1 millisecond')
FROM documents
JOIN heads ON heads.doc = documents.number
WHERE documents.collection = $1 AND documents.id = $2";

/// Reads the location of a document over a connection of its own. Changes nothing, and does not wait for a server that
/// is away.
pub(super) async fn locate(
    connector: &PostgresConnector,
    doc: &DocId,
    dead_after: Duration,
) -> Result<Option<DocumentLocation>, PostgresError> {
    let patience = connector.patience();
    let found = async {
        let (client, task) = connector.connect().await.map_err(away)?;
        let names = (doc.collection.as_str(), doc.id.as_str());
        let dead_after = dead_after.as_secs_f64() * 1e3;
        let values: [&(dyn ToSql + Sync); 3] = [&names.0, &names.1, &dead_after];
        let rows = client.query(LOCATE, &values).await.map_err(missing);
        task.abort();
        rows
    };
    let rows = tokio::time::timeout(patience * 2, found).await;
    let rows = rows.map_err(|_| PostgresError::Away("no answer in time".to_owned()))??;
    Ok(rows.first().map(|row| DocumentLocation {
        owner: Some(NodeId(row.get::<_, i64>(0).cast_unsigned())),
        owner_name: Some(String::from_utf8_lossy(row.get(1)).into_owned()),
        owner_lives: row.get(4),
        epoch: Epoch(row.get::<_, i64>(2).cast_unsigned()),
        head: Revision(row.get::<_, i64>(3).cast_unsigned()),
    }))
}

#[expect(clippy::needless_pass_by_value, reason = "it maps an error")]
fn away(error: tokio_postgres::Error) -> PostgresError {
    PostgresError::Away(in_words(&error))
}

fn missing(error: tokio_postgres::Error) -> PostgresError {
    match error.code() {
        Some(code) if *code == SqlState::UNDEFINED_TABLE => {
            PostgresError::Other("the database has no tables of Copydesk".to_owned())
        }
        _ => PostgresError::Sql(error),
    }
}
