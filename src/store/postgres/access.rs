//! Access rows in Postgres: the queries, one statement each.

mod rows;
mod transaction;

use futures_util::FutureExt;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use self::rows::{
    account, audit_event, grant, id_of, invitation, link, milliseconds, names, revocation, role,
    signed, unsigned,
};
use self::transaction::{Transaction, stored_invitation, stored_reset};
use super::PostgresStore;
use super::error::PostgresError;
use super::list;
use super::server_clock::now_ms;
use crate::access::{
    Account, AuditAction, AuditEvent, DocumentRegistration, Grant, PendingInvitation, Permission,
    Principal, Revocation, Role, SecretHash, SessionKey, ShareLink, StoredInvitation, StoredReset,
    StoredRoles, StoredSession, Subject, tenant_of,
};
use crate::id::DocId;
use crate::store::access::{
    AccessBackend, AccessFuture, AccessQueries, AsOf, Operation, REVOCATIONS_PAGE,
};
use crate::store::{ListPage, ListQuery};

/// Selects accounts, for [`account`].
macro_rules! accounts {
    ($rest:literal) => {
        concat!(
            "SELECT id, tenant, login, name, password, role, disabled FROM users ",
            $rest
        )
    };
}

/// Selects share links that have not expired, for [`link`].
macro_rules! links {
    ($rest:literal) => {
        concat!(
            "
SELECT id, collection, doc, role, password, expires_at_ms
FROM links
WHERE (expires_at_ms IS NULL OR expires_at_ms > ",
            now_ms!(),
            ") ",
            $rest
        )
    };
}

/// Selects lines of the audit log, for [`audit_event`].
macro_rules! audit_events {
    ($rest:literal) => {
        concat!(
            "
SELECT number, at_ms, actor, deed, collection, doc, subject, detail, times, last_at_ms
FROM audit
",
            $rest
        )
    };
}

/// The columns of [`stored_reset`], and the time.
const STORED_RESET: &str = concat!(
    "
SELECT r.user_id, u.tenant, m.tenant, m.role, m.disabled, r.expires_at_ms, ",
    now_ms!(),
    "
FROM resets r
JOIN users u ON u.id = r.user_id
JOIN users m ON m.id = r.maker
WHERE r.code = $1"
);

/// The columns of [`stored_invitation`], and the time.
const STORED_INVITATION: &str = concat!(
    "
SELECT i.tenant, i.role, m.tenant, m.role, m.disabled, i.expires_at_ms, ",
    now_ms!(),
    "
FROM invitations i
JOIN users m ON m.id = i.maker
WHERE i.code = $1"
);

const STORED_SESSION: &str = concat!(
    "
SELECT ",
    now_ms!(),
    ", s.renewed_at_ms, s.expires_at_ms,
  u.id, u.tenant, u.login, u.name, u.password, u.role, u.disabled
FROM sessions s
JOIN users u ON u.id = s.user_id
WHERE s.id = $1"
);

/// The roles of a user on documents, and those of the opened share links. One statement: a change that is committed meanwhile
/// is seen whole or not at all.
const STORED_ROLES: &str = concat!(
    "
SELECT
  CASE WHEN asked.is_home THEN
    (SELECT users.role FROM users WHERE users.id = $4 AND users.tenant = $5)
  END,
  CASE WHEN asked.is_home THEN
    (SELECT grants.role
     FROM grants
     WHERE grants.collection = asked.collection AND grants.id = asked.id AND grants.subject = $4)
  END,
  link.roles,
  link.lasts
FROM unnest($1::text[], $2::text[], $3::boolean[])
  WITH ORDINALITY AS asked (collection, id, is_home, place)
CROSS JOIN LATERAL (
  SELECT array_agg(links.role ORDER BY opened.place) AS roles,
    array_agg(links.expires_at_ms - ",
    now_ms!(),
    " ORDER BY opened.place) AS lasts
  FROM unnest($6::bytea[]) WITH ORDINALITY AS opened (id, place)
  JOIN links ON links.id = opened.id
  WHERE links.collection = asked.collection AND links.doc = asked.id
    AND (links.expires_at_ms IS NULL OR links.expires_at_ms > ",
    now_ms!(),
    ")
) AS link
ORDER BY asked.place"
);

const INVITATIONS: &str = concat!(
    "
SELECT id, role, maker, expires_at_ms
FROM invitations
WHERE tenant = $1 AND expires_at_ms > ",
    now_ms!(),
    "
ORDER BY expires_at_ms, id"
);

const GRANTS: &str = "
SELECT g.subject, g.role, u.login, u.name
FROM grants g
LEFT JOIN users u ON u.id = g.subject
WHERE g.collection = $1 AND g.id = $2
ORDER BY g.role DESC, u.name NULLS FIRST, g.subject";

/// Registers a document by the rule of [`DocumentRegistration::decide`]. Returns whether it is known, how many documents its
/// tenant has, and whether it was registered. Registrations at the same moment may exceed the limit by their number.
const REGISTER_DOCUMENT: &str = concat!(
    "
WITH found AS (
  SELECT EXISTS (SELECT 1 FROM grants WHERE grants.collection = $1 AND grants.id = $2)
      OR EXISTS (SELECT 1 FROM documents WHERE documents.collection = $1 AND documents.id = $2) AS is_known,
    coalesce((SELECT usage.documents FROM usage WHERE usage.tenant = $4), 0) AS documents
), registered AS (
  INSERT INTO grants (collection, id, subject, role)
  SELECT $1::text, $2::text, $3::bytea, 4
  FROM found
  WHERE NOT found.is_known AND ($5::bigint IS NULL OR found.documents < $5)
  ON CONFLICT DO NOTHING
  RETURNING subject
), audited AS (
  INSERT INTO audit (at_ms, actor, deed, collection, doc, tenant)
  SELECT ",
    now_ms!(),
    ", registered.subject, $6, $1, $2, $4
  FROM registered
), counted AS (
  INSERT INTO usage (tenant, documents, bytes)
  SELECT $4::text, 1, 0
  FROM registered
  ON CONFLICT (tenant) DO UPDATE
  SET documents = usage.documents + 1
)
SELECT found.is_known, found.documents, EXISTS (SELECT 1 FROM registered)
FROM found"
);

const ADD_USAGE: &str = "
INSERT INTO usage (tenant, documents, bytes)
VALUES ($1, 0, $2)
ON CONFLICT (tenant) DO UPDATE
SET bytes = usage.bytes + excluded.bytes
RETURNING bytes";

const REVOCATIONS: &str = "
SELECT sequence, subject, session, ends, collection, doc
FROM revocations
WHERE sequence > $1
ORDER BY sequence
LIMIT $2";

impl PostgresStore {
    /// Runs a statement and reads its rows.
    async fn all<T>(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
        read: fn(&Row) -> Result<T, PostgresError>,
    ) -> Result<Vec<T>, PostgresError> {
        let rows = self.people.query(sql, values).await?;
        rows.iter().map(read).collect()
    }

    /// Runs a statement and reads its first row.
    async fn first<T>(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
        read: fn(&Row) -> Result<T, PostgresError>,
    ) -> Result<Option<T>, PostgresError> {
        let rows = self.people.query(sql, values).await?;
        rows.first().map(read).transpose()
    }
}

impl AccessBackend for PostgresStore {
    fn run<O: Operation>(&self, operation: O) -> AccessFuture<'_, O::Output> {
        change(async move {
            let mut tx = Transaction::begin(&self.people).await?;
            let output = operation.run(&mut tx).await?;
            if O::commits(&output) {
                tx.commit().await?;
            } else {
                tx.roll_back().await?;
            }
            Ok(output)
        })
    }

    fn register_document(
        &self,
        doc: DocId,
        owner: Subject,
        documents_max: Option<u64>,
    ) -> AccessFuture<'_, DocumentRegistration> {
        change(async move {
            let (collection, id) = names(&doc);
            let (owner, tenant) = (id_of(&owner), tenant_of(&doc.collection));
            let most = documents_max.map(signed);
            let action = AuditAction::CreateDocument.as_str();
            let values: [&(dyn ToSql + Sync); 6] =
                [&collection, &id, &owner, &tenant, &most, &action];
            let rows = self.people.query(REGISTER_DOCUMENT, &values).await?;
            let row = rows.first().ok_or_else(no_row)?;
            if row.get(2) {
                return Ok(DocumentRegistration::Registered);
            }
            let decided = DocumentRegistration::decide(row.get(0), unsigned(row, 1), documents_max);
            Ok(match decided {
                // Another registration was committed since the statement began.
                DocumentRegistration::Registered => DocumentRegistration::Exists,
                refused => refused,
            })
        })
    }

    fn add_usage(&self, tenant: String, bytes: u64) -> AccessFuture<'_, u64> {
        change(async move {
            let values: [&(dyn ToSql + Sync); 2] = [&tenant, &signed(bytes)];
            let rows = self.people.query(ADD_USAGE, &values).await?;
            let row = rows.first().ok_or_else(no_row)?;
            Ok(unsigned(row, 0))
        })
    }

    fn stored_reset(&self, code: SecretHash) -> AccessFuture<'_, Option<AsOf<StoredReset>>> {
        read(async move {
            self.first(STORED_RESET, &[&code.as_slice()], |row| {
                let now_ms = unsigned(row, 6);
                stored_reset(row).map(|row| AsOf { row, now_ms })
            })
            .await
        })
    }

    fn stored_invitation(
        &self,
        code: SecretHash,
    ) -> AccessFuture<'_, Option<AsOf<StoredInvitation>>> {
        read(async move {
            self.first(STORED_INVITATION, &[&code.as_slice()], |row| {
                let now_ms = unsigned(row, 6);
                let row = stored_invitation(row);
                Ok(AsOf { row, now_ms })
            })
            .await
        })
    }

    fn stored_session(&self, key: SessionKey) -> AccessFuture<'_, Option<AsOf<StoredSession>>> {
        read(async move {
            self.first(STORED_SESSION, &[&key.0], |row| {
                let now_ms = unsigned(row, 0);
                let row = StoredSession {
                    user: account(row, 3)?,
                    renewed_at_ms: unsigned(row, 1),
                    expires_at_ms: unsigned(row, 2),
                };
                Ok(AsOf { row, now_ms })
            })
            .await
        })
    }

    fn stored_roles(
        &self,
        principal: Principal,
        docs: Vec<DocId>,
    ) -> AccessFuture<'_, Vec<StoredRoles>> {
        read(async move {
            let user = principal.user.as_ref().map(id_of);
            let is_home = |doc: &DocId| principal.member_of(tenant_of(&doc.collection)).is_some();
            let (collections, ids): (Vec<_>, Vec<_>) = docs.iter().map(names).unzip();
            let homes: Vec<_> = docs.iter().map(is_home).collect();
            let links: Vec<_> = principal.links.iter().map(id_of).collect();
            let values: [&(dyn ToSql + Sync); 6] =
                [&collections, &ids, &homes, &user, &principal.tenant, &links];
            self.all(STORED_ROLES, &values, stored_roles).await
        })
    }
}

impl AccessQueries for PostgresStore {
    fn has_accounts(&self) -> AccessFuture<'_, bool> {
        read(async {
            let rows = self
                .people
                .query("SELECT 1 FROM users LIMIT 1", &[])
                .await?;
            Ok(!rows.is_empty())
        })
    }

    fn account_by_login(&self, login: String) -> AccessFuture<'_, Option<Account>> {
        read(async move {
            let sql = accounts!("WHERE login = $1");
            self.first(sql, &[&login.as_bytes()], |row| account(row, 0))
                .await
        })
    }

    fn account(&self, id: Subject) -> AccessFuture<'_, Option<Account>> {
        read(async move {
            let sql = accounts!("WHERE id = $1");
            self.first(sql, &[&id_of(&id)], |row| account(row, 0)).await
        })
    }

    fn accounts_of(
        &self,
        tenant: String,
        after: String,
        limit: usize,
    ) -> AccessFuture<'_, Vec<Account>> {
        read(async move {
            let sql = accounts!("WHERE tenant = $1 AND login > $2 ORDER BY login LIMIT $3");
            let values: [&(dyn ToSql + Sync); 3] =
                [&tenant, &after.as_bytes(), &signed(limit as u64)];
            self.all(sql, &values, |row| account(row, 0)).await
        })
    }

    fn invitations(&self, tenant: String) -> AccessFuture<'_, Vec<PendingInvitation>> {
        read(async move { self.all(INVITATIONS, &[&tenant], invitation).await })
    }

    fn tokens_ended(&self, subject: Subject) -> AccessFuture<'_, Option<u64>> {
        read(async move {
            let sql = "SELECT issued_until FROM ended_tokens WHERE subject = $1";
            self.first(sql, &[&id_of(&subject)], |row| Ok(unsigned(row, 0)))
                .await
        })
    }

    fn grants(&self, doc: DocId) -> AccessFuture<'_, Vec<Grant>> {
        read(async move {
            let (collection, id) = names(&doc);
            self.all(GRANTS, &[&collection, &id], grant).await
        })
    }

    fn list_for(&self, principal: Principal, query: ListQuery) -> AccessFuture<'_, ListPage> {
        async move {
            let list = list::list_for(&self.lists, &principal, &query).await;
            list.map_err(|error| self.list_error(error))
        }
        .boxed()
    }

    fn links(&self, doc: DocId) -> AccessFuture<'_, Vec<ShareLink>> {
        read(async move {
            let (collection, id) = names(&doc);
            let sql = links!("AND collection = $1 AND doc = $2 ORDER BY created_at_ms, id");
            self.all(sql, &[&collection, &id], link).await
        })
    }

    fn link_by_secret(&self, secret: SecretHash) -> AccessFuture<'_, Option<ShareLink>> {
        read(async move {
            let sql = links!("AND secret = $1");
            self.first(sql, &[&secret.as_slice()], link).await
        })
    }

    fn revocations(&self, since: u64) -> AccessFuture<'_, Vec<Revocation>> {
        read(async move {
            let values: [&(dyn ToSql + Sync); 2] = [&signed(since), &(REVOCATIONS_PAGE as i64)];
            let rows = self.watch.query(REVOCATIONS, &values).await?;
            rows.iter().map(revocation).collect()
        })
    }

    fn last_revocation(&self) -> AccessFuture<'_, u64> {
        read(async {
            let sql = "SELECT sequence FROM revocation_count WHERE one";
            let last = self.first(sql, &[], |row| Ok(unsigned(row, 0))).await?;
            last.ok_or_else(|| PostgresError::Other("revocation_count row missing".to_owned()))
        })
    }

    fn audit_events(
        &self,
        doc: DocId,
        before: Option<u64>,
        limit: usize,
    ) -> AccessFuture<'_, Vec<AuditEvent>> {
        read(async move {
            let sql = audit_events!(
                "WHERE collection = $1 AND doc = $2 AND number < $3 ORDER BY number DESC LIMIT $4"
            );
            let (collection, id) = names(&doc);
            let (before, limit) = (before.map_or(i64::MAX, signed), signed(limit as u64));
            let values: [&(dyn ToSql + Sync); 4] = [&collection, &id, &before, &limit];
            self.all(sql, &values, audit_event).await
        })
    }

    fn audit_events_of(
        &self,
        tenant: String,
        before: Option<u64>,
        limit: usize,
    ) -> AccessFuture<'_, Vec<AuditEvent>> {
        read(async move {
            let sql =
                audit_events!("WHERE tenant = $1 AND number < $2 ORDER BY number DESC LIMIT $3");
            let (before, limit) = (before.map_or(i64::MAX, signed), signed(limit as u64));
            self.all(sql, &[&tenant, &before, &limit], audit_event)
                .await
        })
    }
}

fn read<'a, T>(
    answer: impl Future<Output = Result<T, PostgresError>> + Send + 'a,
) -> AccessFuture<'a, T> {
    answer
        .map(|it| it.map_err(|error| error.into_store_error("read accounts")))
        .boxed()
}

fn change<'a, T>(
    answer: impl Future<Output = Result<T, PostgresError>> + Send + 'a,
) -> AccessFuture<'a, T> {
    answer
        .map(|it| it.map_err(|error| error.into_store_error("change accounts")))
        .boxed()
}

fn no_row() -> PostgresError {
    PostgresError::Other("a statement that returns one row returned none".to_owned())
}

/// Reads a row of [`STORED_ROLES`].
fn stored_roles(row: &Row) -> Result<StoredRoles, PostgresError> {
    let roles: Option<Vec<i64>> = row.get(2);
    let lasts: Option<Vec<Option<i64>>> = row.get(3);
    let links = roles.unwrap_or_default().into_iter();
    let links = links.zip(lasts.unwrap_or_default());
    let link = |(number, lasts): (i64, Option<i64>)| Permission {
        role: Role::from_number(number),
        lasts: lasts.map(milliseconds),
    };
    Ok(StoredRoles {
        tenant_role: role(row, 0),
        grant: role(row, 1),
        links: links.map(link).collect(),
    })
}
