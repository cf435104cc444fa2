//! A change of what is kept about people: one transaction.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::error::PostgresError;
use super::pool::{Pool, PooledConnection};
use crate::access::{
    REPEAT_WINDOW, REPEATED_ACTIONS, SessionKey, Subject, tenant_of, tenant_of_subject,
};
use crate::id::DocId;

/// How long the newest revocations are kept. A node that has not read for so long has closed its sockets long before.
const REVOCATIONS_KEPT: Duration = Duration::from_hours(24);

const BEGIN: &str = "BEGIN";
const COMMIT: &str = "COMMIT";
const ROLL_BACK: &str = "ROLLBACK";

/// The server's clock, for all nodes the same.
macro_rules! now_ms {
    () => {
        "floor(extract(epoch FROM statement_timestamp()) * 1000)::bigint"
    };
}
pub(super) use now_ms;

const NOW: &str = concat!("SELECT ", now_ms!());

const NOTE: &str = "
INSERT INTO audit (at_ms, actor, deed, collection, doc, subject, detail, tenant)
VALUES ($1, $2, $3, $4, $5, $6, $7,
  coalesce($8::text, (SELECT users.tenant FROM users WHERE users.id = $2::bytea),
    (SELECT users.tenant FROM users WHERE users.id = $6::bytea), $9::text))";

/// Counts a deed on the line that it has already, if there is one of the last hour.
const REPEAT: &str = "
UPDATE audit
SET times = times + 1, last_at_ms = $6
WHERE number = (
  SELECT number FROM audit
  WHERE actor = $1 AND deed = $2 AND at_ms > $7
    AND collection IS NOT DISTINCT FROM $3::text AND doc IS NOT DISTINCT FROM $4::text
    AND subject IS NOT DISTINCT FROM $5::bytea
  ORDER BY number DESC
  LIMIT 1)
RETURNING number";

/// Tells every node whose rights changed. The count's row is locked until the commit: whoever comes next waits, and then
/// counts on from what is committed.
const REVOKE: &str = "
WITH forgotten AS (
  DELETE FROM revocations WHERE at_ms < $5
), counted AS (
  UPDATE revocation_count
  SET sequence = sequence + cardinality($2::bytea[])
  WHERE one
  RETURNING sequence - cardinality($2::bytea[]) AS before
)
INSERT INTO revocations (sequence, at_ms, subject, session, ends, collection, doc)
SELECT counted.before + asked.place, $1::bigint, asked.subject, asked.session, asked.ends,
  asked.collection, asked.doc
FROM counted
CROSS JOIN unnest($2::bytea[], $3::text[], $4::boolean[], $6::text[], $7::text[])
  WITH ORDINALITY AS asked (subject, session, ends, collection, doc, place)";

/// A transaction. Dropped before its end, it takes its connection with it, and nothing of it was done.
pub(super) struct Change {
    connection: PooledConnection,
    /// When it began, by the server's clock.
    now: i64,
    /// Whose rights it changes. Written last: every change that revokes locks the same row.
    revoked: Vec<Revoked>,
}

/// A change of a subject's rights, as it is told to every node.
pub(super) struct Revoked {
    subject: Subject,
    /// Only this session.
    session: Option<SessionKey>,
    /// Whether sockets close.
    ends: bool,
    /// Only this document.
    doc: Option<DocId>,
}

impl Revoked {
    /// The rights on one document changed.
    pub(super) fn on(subject: Subject, doc: &DocId) -> Self {
        let doc = Some(doc.clone());
        Self {
            doc,
            ..Self::everywhere(subject)
        }
    }

    /// The rights on every document may have changed.
    pub(super) fn everywhere(subject: Subject) -> Self {
        Self {
            subject,
            session: None,
            ends: false,
            doc: None,
        }
    }

    /// A session ended; `None`: all of the subject's.
    pub(super) fn ended(subject: Subject, session: Option<SessionKey>) -> Self {
        Self {
            session,
            ends: true,
            ..Self::everywhere(subject)
        }
    }
}

impl Change {
    /// Begins one.
    pub(super) async fn begin(pool: &Pool) -> Result<Self, PostgresError> {
        let mut connection = pool.acquire().await?;
        connection.in_transaction = true;
        let [_, rows] = connection.query_both((BEGIN, &[]), (NOW, &[])).await?;
        let now = rows.first().map(|row| row.get(0));
        Ok(Self {
            connection,
            now: now.ok_or_else(|| PostgresError::Other("the server has no clock".to_owned()))?,
            revoked: Vec::new(),
        })
    }

    /// Runs a statement.
    pub(super) async fn query(
        &mut self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, PostgresError> {
        self.connection.query(sql, values).await
    }

    /// Writes a line of the audit log.
    pub(super) async fn note(
        &mut self,
        actor: &Subject,
        deed: &str,
        doc: Option<&DocId>,
        subject: Option<&Subject>,
        detail: Option<&str>,
    ) -> Result<(), PostgresError> {
        let collection = doc.map(|doc| doc.collection.as_str());
        let id = doc.map(|doc| doc.id.as_str());
        let tenant = doc.map(|doc| tenant_of(&doc.collection));
        let vouched = tenant_of_subject(actor);
        let (actor, subject) = (actor.0.as_bytes(), subject.map(|it| it.0.as_bytes()));
        if REPEATED_ACTIONS.contains(&deed) {
            let since = self.now - REPEAT_WINDOW.as_millis() as i64;
            let values: [&(dyn ToSql + Sync); 7] =
                [&actor, &deed, &collection, &id, &subject, &self.now, &since];
            if !self.connection.query(REPEAT, &values).await?.is_empty() {
                return Ok(());
            }
        }
        let values: [&(dyn ToSql + Sync); 9] = [
            &self.now,
            &actor,
            &deed,
            &collection,
            &id,
            &subject,
            &detail,
            &tenant,
            &vouched,
        ];
        self.connection.query(NOTE, &values).await?;
        Ok(())
    }

    /// Tells every node that a subject's rights changed, once this is committed.
    pub(super) fn revoke(&mut self, revoked: Revoked) {
        self.revoked.push(revoked);
    }

    /// Makes it so.
    pub(super) async fn commit(mut self) -> Result<(), PostgresError> {
        if self.revoked.is_empty() {
            self.connection.query(COMMIT, &[]).await?;
        } else {
            let revoked = &self.revoked;
            let subjects: Vec<_> = revoked.iter().map(|it| it.subject.0.as_bytes()).collect();
            let sessions: Vec<_> = revoked
                .iter()
                .map(|it| it.session.as_ref().map(|key| key.0.as_str()))
                .collect();
            let ends: Vec<_> = revoked.iter().map(|it| it.ends).collect();
            let docs = || revoked.iter().map(|it| it.doc.as_ref());
            let collections: Vec<_> = docs().map(|doc| Some(doc?.collection.as_str())).collect();
            let ids: Vec<_> = docs().map(|doc| Some(doc?.id.as_str())).collect();
            let forgotten = self.now - REVOCATIONS_KEPT.as_millis() as i64;
            let values: [&(dyn ToSql + Sync); 7] = [
                &self.now,
                &subjects,
                &sessions,
                &ends,
                &forgotten,
                &collections,
                &ids,
            ];
            // With the commit right behind it: nobody waits for the count's row while this node dawdles.
            self.connection
                .query_both((REVOKE, &values), (COMMIT, &[]))
                .await?;
        }
        self.connection.in_transaction = false;
        Ok(())
    }

    /// Undoes it.
    pub(super) async fn roll_back(mut self) -> Result<(), PostgresError> {
        self.connection.query(ROLL_BACK, &[]).await?;
        self.connection.in_transaction = false;
        Ok(())
    }

    pub(super) fn now(&self) -> i64 {
        self.now
    }

    /// When what begins now and lasts so long is over. What is later than can be kept is as late as can be kept.
    pub(super) fn after(&self, lasts: Duration) -> i64 {
        let lasts = i64::try_from(lasts.as_millis()).unwrap_or(i64::MAX);
        self.now.saturating_add(lasts)
    }
}
