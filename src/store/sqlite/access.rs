//! Access rows in SQLite: the queries, each within one read transaction.

mod list;
mod rows;
mod transaction;

use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use rusqlite::{Connection, OptionalExtension, params};

use self::rows::{account, audit_event, issuer, link, revocation, role, unsigned};
use self::transaction::{Run, register_document};
use super::SqliteStore;
use super::error::SqliteError;
use super::writer::WriteJob;
use crate::access::{
    Account, AuditEvent, DocumentRegistration, Grant, PendingInvitation, Permission, Principal,
    Revocation, Role, SecretHash, SessionKey, ShareLink, StoredInvitation, StoredReset,
    StoredRoles, StoredSession, Subject, tenant_of,
};
use crate::id::DocId;
use crate::store::access::{
    AccessBackend, AccessFuture, AccessQueries, AsOf, Operation, REVOCATIONS_PAGE,
};
use crate::store::sqlite::write_connection::WriteConnection;
use crate::store::{ListPage, ListQuery};

/// Selects accounts, for [`account`].
macro_rules! accounts {
    () => {
        "SELECT id, tenant, login, name, password, role, disabled FROM users"
    };
}

/// Selects share links, for [`link`].
macro_rules! links {
    () => {
        "SELECT id, collection, doc, role, password, expires_at_ms FROM links"
    };
}

/// Selects lines of the audit log, for [`audit_event`].
macro_rules! audit_events {
    () => {
        "SELECT number, at_ms, actor, deed, collection, doc, subject, detail, times, last_at_ms FROM audit"
    };
}

impl SqliteStore {
    /// Runs a query of the access rows. `query` gets the connection and the time.
    fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection, u64) -> rusqlite::Result<T> + Send + 'static,
    ) -> AccessFuture<'_, T> {
        self.readers
            .read("read accounts", move |db| {
                Ok::<T, SqliteError>(query(db, now_ms())?)
            })
            .boxed()
    }
}

impl AccessBackend for SqliteStore {
    fn run<O: Operation>(&self, operation: O) -> AccessFuture<'_, O::Output> {
        self.writer.execute(Run(operation)).boxed()
    }

    fn register_document(
        &self,
        doc: DocId,
        owner: Subject,
        documents_max: Option<u64>,
    ) -> AccessFuture<'_, DocumentRegistration> {
        self.writer
            .execute(WriteClosure(move |db: &Connection, now_ms| {
                register_document(db, now_ms, &doc, &owner, documents_max)
            }))
            .boxed()
    }

    fn add_usage(&self, tenant: String, bytes: u64) -> AccessFuture<'_, u64> {
        self.writer
            .execute(WriteClosure(move |db: &Connection, _| {
                db.prepare_cached(
                    "INSERT INTO usage (tenant, documents, bytes) VALUES (?1, 0, ?2)
                     ON CONFLICT (tenant) DO UPDATE SET bytes = bytes + excluded.bytes
                     RETURNING bytes",
                )?
                .query_row(params![tenant, signed(bytes)], |row| unsigned(row, 0))
            }))
            .boxed()
    }

    fn stored_reset(&self, code: SecretHash) -> AccessFuture<'_, Option<AsOf<StoredReset>>> {
        self.query(move |db, now_ms| {
            let row = stored_reset(db, code)?;
            Ok(row.map(|row| AsOf { row, now_ms }))
        })
    }

    fn stored_invitation(
        &self,
        code: SecretHash,
    ) -> AccessFuture<'_, Option<AsOf<StoredInvitation>>> {
        self.query(move |db, now_ms| {
            let row = stored_invitation(db, code)?;
            Ok(row.map(|row| AsOf { row, now_ms }))
        })
    }

    fn stored_session(&self, key: SessionKey) -> AccessFuture<'_, Option<AsOf<StoredSession>>> {
        self.query(move |db, now_ms| {
            db.prepare_cached(
                "SELECT s.renewed_at_ms, s.expires_at_ms,
                   u.id, u.tenant, u.login, u.name, u.password, u.role, u.disabled
                 FROM sessions s
                 JOIN users u ON u.id = s.user_id
                 WHERE s.id = ?1",
            )?
            .query_row([key.0], |row| {
                let session = StoredSession {
                    user: account(row, 2)?,
                    renewed_at_ms: unsigned(row, 0)?,
                    expires_at_ms: unsigned(row, 1)?,
                };
                let row = session;
                Ok(AsOf { row, now_ms })
            })
            .optional()
        })
    }

    fn stored_roles(
        &self,
        principal: Principal,
        docs: Vec<DocId>,
    ) -> AccessFuture<'_, Vec<StoredRoles>> {
        self.query(move |db, now_ms| {
            let stored = |doc| stored_roles(db, now_ms, &principal, doc);
            docs.iter().map(stored).collect()
        })
    }
}

impl AccessQueries for SqliteStore {
    fn has_accounts(&self) -> AccessFuture<'_, bool> {
        self.query(|db, _| db.prepare_cached("SELECT 1 FROM users LIMIT 1")?.exists([]))
    }

    fn account_by_login(&self, login: String) -> AccessFuture<'_, Option<Account>> {
        self.query(move |db, _| {
            db.prepare_cached(concat!(accounts!(), " WHERE login = ?1"))?
                .query_row([login], |row| account(row, 0))
                .optional()
        })
    }

    fn account(&self, id: Subject) -> AccessFuture<'_, Option<Account>> {
        self.query(move |db, _| {
            db.prepare_cached(concat!(accounts!(), " WHERE id = ?1"))?
                .query_row([id.0], |row| account(row, 0))
                .optional()
        })
    }

    fn accounts_of(
        &self,
        tenant: String,
        after: String,
        limit: usize,
    ) -> AccessFuture<'_, Vec<Account>> {
        self.query(move |db, _| {
            db.prepare_cached(concat!(
                accounts!(),
                " WHERE tenant = ?1 AND login > ?2 ORDER BY login LIMIT ?3"
            ))?
            .query_map(params![tenant, after, limit as i64], |row| account(row, 0))?
            .collect()
        })
    }

    fn invitations(&self, tenant: String) -> AccessFuture<'_, Vec<PendingInvitation>> {
        self.query(move |db, now_ms| {
            db.prepare_cached(
                "SELECT id, role, maker, expires_at_ms
                 FROM invitations
                 WHERE tenant = ?1 AND expires_at_ms > ?2
                 ORDER BY expires_at_ms, id",
            )?
            .query_map(params![tenant, signed(now_ms)], |row| {
                Ok(PendingInvitation {
                    id: Subject(row.get(0)?),
                    role: role(row, 1)?,
                    maker: Subject(row.get(2)?),
                    expires_at_ms: unsigned(row, 3)?,
                })
            })?
            .collect()
        })
    }

    fn tokens_ended(&self, subject: Subject) -> AccessFuture<'_, Option<u64>> {
        self.query(move |db, _| {
            db.prepare_cached("SELECT issued_until FROM ended_tokens WHERE subject = ?1")?
                .query_row([subject.0], |row| unsigned(row, 0))
                .optional()
        })
    }

    fn grants(&self, doc: DocId) -> AccessFuture<'_, Vec<Grant>> {
        self.query(move |db, _| {
            db.prepare_cached(
                "SELECT g.subject, g.role, u.login, u.name
                 FROM grants g
                 LEFT JOIN users u ON u.id = g.subject
                 WHERE g.collection = ?1 AND g.id = ?2
                 ORDER BY g.role DESC, u.name, g.subject",
            )?
            .query_map([doc.collection.as_str(), doc.id.as_str()], |row| {
                let login: Option<String> = row.get(2)?;
                let name: Option<String> = row.get(3)?;
                Ok(Grant {
                    subject: Subject(row.get(0)?),
                    account: login.zip(name),
                    role: role(row, 1)?.unwrap_or(Role::Viewer),
                })
            })?
            .collect()
        })
    }

    fn list_for(&self, principal: Principal, query: ListQuery) -> AccessFuture<'_, ListPage> {
        self.readers
            .read("list", move |db| {
                list::list_for(db, now_ms(), &principal, &query)
            })
            .boxed()
    }

    fn links(&self, doc: DocId) -> AccessFuture<'_, Vec<ShareLink>> {
        self.query(move |db, now_ms| {
            db.prepare_cached(concat!(
                links!(),
                " WHERE collection = ?1 AND doc = ?2 AND coalesce(expires_at_ms > ?3, 1)
                 ORDER BY created_at_ms, id"
            ))?
            .query_map(
                params![doc.collection.as_str(), doc.id.as_str(), signed(now_ms)],
                link,
            )?
            .collect()
        })
    }

    fn link_by_secret(&self, secret: SecretHash) -> AccessFuture<'_, Option<ShareLink>> {
        self.query(move |db, now_ms| {
            db.prepare_cached(concat!(
                links!(),
                " WHERE secret = ?1 AND coalesce(expires_at_ms > ?2, 1)"
            ))?
            .query_row(params![secret, signed(now_ms)], link)
            .optional()
        })
    }

    fn revocations(&self, since: u64) -> AccessFuture<'_, Vec<Revocation>> {
        self.query(move |db, _| {
            db.prepare_cached(
                "SELECT sequence, subject, session, ends, collection, doc
                 FROM revocations
                 WHERE sequence > ?1
                 ORDER BY sequence
                 LIMIT ?2",
            )?
            .query_map(params![signed(since), REVOCATIONS_PAGE as i64], revocation)?
            .collect()
        })
    }

    fn last_revocation(&self) -> AccessFuture<'_, u64> {
        self.query(|db, _| {
            // Not the table's newest row: that may be deleted.
            let newest = db
                .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'revocations'")?
                .query_row([], |row| unsigned(row, 0))
                .optional()?;
            Ok(newest.unwrap_or(0))
        })
    }

    fn audit_events(
        &self,
        doc: DocId,
        before: Option<u64>,
        limit: usize,
    ) -> AccessFuture<'_, Vec<AuditEvent>> {
        self.query(move |db, _| {
            let (collection, id) = (doc.collection.as_str(), doc.id.as_str());
            let before = before.map_or(i64::MAX, signed);
            db.prepare_cached(concat!(
                audit_events!(),
                " WHERE collection = ?1 AND doc = ?2 AND number < ?3 ORDER BY number DESC LIMIT ?4"
            ))?
            .query_map(params![collection, id, before, limit as i64], audit_event)?
            .collect()
        })
    }

    fn audit_events_of(
        &self,
        tenant: String,
        before: Option<u64>,
        limit: usize,
    ) -> AccessFuture<'_, Vec<AuditEvent>> {
        self.query(move |db, _| {
            let before = before.map_or(i64::MAX, signed);
            db.prepare_cached(concat!(
                audit_events!(),
                " WHERE tenant = ?1 AND number < ?2 ORDER BY number DESC LIMIT ?3"
            ))?
            .query_map(params![tenant, before, limit as i64], audit_event)?
            .collect()
        })
    }
}

/// A change that is no [`Operation`], run on the writer's thread with the connection and the time. It may be run again.
struct WriteClosure<F>(F);

impl<T, F> WriteJob for WriteClosure<F>
where
    T: Send + 'static,
    F: Fn(&Connection, u64) -> rusqlite::Result<T> + Send + 'static,
{
    type Output = T;
    const VERB: &'static str = "change accounts";

    fn run(&self, connection: &mut WriteConnection) -> rusqlite::Result<T> {
        (self.0)(connection.db(), now_ms())
    }
}

fn stored_reset(db: &Connection, code: SecretHash) -> rusqlite::Result<Option<StoredReset>> {
    db.prepare_cached(
        "SELECT r.user_id, u.tenant, m.tenant, m.role, m.disabled, r.expires_at_ms
         FROM resets r
         JOIN users u ON u.id = r.user_id
         JOIN users m ON m.id = r.maker
         WHERE r.code = ?1",
    )?
    .query_row([code], |row| {
        Ok(StoredReset {
            user: Subject(row.get(0)?),
            tenant: row.get(1)?,
            issuer: issuer(row, 2)?,
            expires_at_ms: unsigned(row, 5)?,
        })
    })
    .optional()
}

fn stored_invitation(
    db: &Connection,
    code: SecretHash,
) -> rusqlite::Result<Option<StoredInvitation>> {
    db.prepare_cached(
        "SELECT i.tenant, i.role, m.tenant, m.role, m.disabled, i.expires_at_ms
         FROM invitations i
         JOIN users m ON m.id = i.maker
         WHERE i.code = ?1",
    )?
    .query_row([code], |row| {
        Ok(StoredInvitation {
            tenant: row.get(0)?,
            role: role(row, 1)?,
            issuer: issuer(row, 2)?,
            expires_at_ms: unsigned(row, 5)?,
        })
    })
    .optional()
}

fn stored_roles(
    db: &Connection,
    now_ms: u64,
    principal: &Principal,
    doc: &DocId,
) -> rusqlite::Result<StoredRoles> {
    let mut stored = StoredRoles::default();
    let tenant = tenant_of(&doc.collection);
    if let Some(user) = principal.member_of(tenant) {
        stored.tenant_role = tenant_role(db, user, tenant)?;
        stored.grant = grant(db, doc, user)?;
    }
    let (collection, id) = (doc.collection.as_str(), doc.id.as_str());
    for link in &principal.links {
        let opened = db
            .prepare_cached(
                "SELECT role, expires_at_ms - ?4
                 FROM links
                 WHERE id = ?1 AND collection = ?2 AND doc = ?3
                   AND coalesce(expires_at_ms > ?4, 1)",
            )?
            .query_row(params![link.0, collection, id, signed(now_ms)], |row| {
                Ok(Permission {
                    role: role(row, 0)?,
                    lasts: rows::milliseconds(row, 1)?,
                })
            })
            .optional()?;
        stored.links.extend(opened);
    }
    Ok(stored)
}

fn tenant_role(db: &Connection, user: &Subject, tenant: &str) -> rusqlite::Result<Option<Role>> {
    let found = db
        .prepare_cached("SELECT role FROM users WHERE id = ?1 AND tenant = ?2")?
        .query_row([user.0.as_str(), tenant], |row| role(row, 0))
        .optional()?;
    Ok(found.flatten())
}

fn grant(db: &Connection, doc: &DocId, subject: &Subject) -> rusqlite::Result<Option<Role>> {
    let found = db
        .prepare_cached(
            "SELECT role FROM grants WHERE collection = ?1 AND id = ?2 AND subject = ?3",
        )?
        .query_row(
            [doc.collection.as_str(), doc.id.as_str(), &subject.0],
            |row| role(row, 0),
        )
        .optional()?;
    Ok(found.flatten())
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}

/// A number as SQLite stores it; the largest that it can store if it is larger.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
