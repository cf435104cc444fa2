//! The port of the access operations in SQLite: statements within the writer's transaction.

use futures_util::FutureExt;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::unsigned;
use super::{grant, now_ms, signed, stored_invitation, stored_reset, tenant_role};
use crate::access::{
    AccountDraft, AuditAction, DocumentRegistration, GrantCount, NewAuditEvent, NewInvitation,
    NewRevocation, PasswordReset, REVOCATIONS_KEPT, RefreshTokens, Role, SecretHash, SessionKey,
    StoredInvitation, StoredReset, Subject, tenant_of,
};
use crate::id::DocId;
use crate::store::access::{
    AccessLock, AccessTransaction, AccountChange, Counted, Expired, NewLinkRow, NewSessionRow,
    Operation, SessionFilter,
};
use crate::store::sqlite::write_connection::WriteConnection;
use crate::store::sqlite::writer::WriteJob;

/// An operation, run on the writer's thread.
pub(super) struct Run<O>(pub(super) O);

impl<O: Operation> WriteJob for Run<O> {
    type Output = O::Output;
    const VERB: &'static str = "change accounts";

    /// Other work shares the transaction, so an operation that is refused is undone alone.
    fn run(&self, connection: &mut WriteConnection) -> rusqlite::Result<O::Output> {
        execute(connection.db(), "SAVEPOINT operation")?;
        let mut tx = Transaction {
            now_ms: now_ms(),
            connection,
            revocations: Vec::new(),
        };
        let output = self.0.run(&mut tx).now_or_never();
        let output = output.expect("SQLite's primitives are ready at once")?;
        if O::commits(&output) {
            tx.store_revocations()?;
        } else {
            execute(tx.db(), "ROLLBACK TO operation")?;
        }
        execute(tx.db(), "RELEASE operation")?;
        Ok(output)
    }
}

fn execute(db: &Connection, sql: &str) -> rusqlite::Result<()> {
    db.prepare_cached(sql)?.execute([]).map(drop)
}

/// The writer's open transaction. It borrows all of the connection, which other threads may get, rather than its connection.
struct Transaction<'l> {
    connection: &'l mut WriteConnection,
    now_ms: u64,
    revocations: Vec<NewRevocation>,
}

impl Transaction<'_> {
    fn db(&self) -> &Connection {
        self.connection.db()
    }

    fn store_revocations(&self) -> rusqlite::Result<()> {
        if self.revocations.is_empty() {
            return Ok(());
        }
        let old = self
            .now_ms
            .saturating_sub(REVOCATIONS_KEPT.as_millis() as u64);
        self.db()
            .prepare_cached("DELETE FROM revocations WHERE at_ms < ?1")?
            .execute([signed(old)])?;
        let mut insert = self.db().prepare_cached(
            "INSERT INTO revocations (at_ms, subject, session, ends, collection, doc)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        for revocation in &self.revocations {
            let doc = revocation.doc.as_ref();
            insert.execute(params![
                signed(self.now_ms),
                revocation.subject.0,
                revocation.session.as_ref().map(|key| &key.0),
                revocation.ends,
                doc.map(|doc| doc.collection.as_str()),
                doc.map(|doc| doc.id.as_str()),
            ])?;
        }
        Ok(())
    }
}

impl AccessTransaction for Transaction<'_> {
    type Error = rusqlite::Error;

    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn revoke(&mut self, revocation: NewRevocation) {
        self.revocations.push(revocation);
    }

    async fn lock(&mut self, _: AccessLock<'_>) -> rusqlite::Result<()> {
        Ok(())
    }

    async fn count(&mut self, counted: Counted<'_>) -> rusqlite::Result<u64> {
        let (db, now) = (self.db(), signed(self.now_ms));
        let count = |row: &Row<'_>| unsigned(row, 0);
        match counted {
            Counted::Accounts { at_most } => db
                .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM users LIMIT ?1)")?
                .query_row([signed(at_most)], count),
            Counted::InvitationsOf(tenant) => db
                .prepare_cached(
                    "SELECT count(*) FROM invitations WHERE tenant = ?1 AND expires_at_ms > ?2",
                )?
                .query_row(params![tenant, now], count),
            Counted::LinksOf(doc) => db
                .prepare_cached(
                    "SELECT count(*)
                     FROM links
                     WHERE collection = ?1 AND doc = ?2 AND coalesce(expires_at_ms > ?3, 1)",
                )?
                .query_row(
                    params![doc.collection.as_str(), doc.id.as_str(), now],
                    count,
                ),
        }
    }

    async fn delete_expired(&mut self, expired: Expired<'_>) -> rusqlite::Result<()> {
        let (db, now) = (self.db(), signed(self.now_ms));
        match expired {
            Expired::Sessions => db
                .prepare_cached("DELETE FROM sessions WHERE expires_at_ms <= ?1")?
                .execute([now]),
            Expired::Invitations => db
                .prepare_cached("DELETE FROM invitations WHERE expires_at_ms <= ?1")?
                .execute([now]),
            Expired::LinksOf(doc) => db
                .prepare_cached(
                    "DELETE FROM links WHERE collection = ?1 AND doc = ?2 AND expires_at_ms <= ?3",
                )?
                .execute(params![doc.collection.as_str(), doc.id.as_str(), now]),
        }
        .map(drop)
    }

    async fn insert_account(
        &mut self,
        account: &AccountDraft,
        tenant: &str,
        role: Option<Role>,
    ) -> rusqlite::Result<bool> {
        let inserted = self
            .db()
            .prepare_cached(
                "INSERT INTO users (id, tenant, login, name, password, role, created_at_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (login) DO NOTHING",
            )?
            .execute(params![
                account.id.0,
                tenant,
                account.login,
                account.name,
                account.password,
                Role::number(role),
                signed(self.now_ms)
            ])?;
        Ok(inserted > 0)
    }

    async fn update_account(
        &mut self,
        user: &Subject,
        change: AccountChange<'_>,
    ) -> rusqlite::Result<bool> {
        let (db, user) = (self.db(), &user.0);
        let changed = match change {
            AccountChange::Password(password) => db
                .prepare_cached("UPDATE users SET password = ?2 WHERE id = ?1")?
                .execute(params![user, password]),
            AccountChange::TenantRole(role) => db
                .prepare_cached("UPDATE users SET role = ?2 WHERE id = ?1")?
                .execute(params![user, Role::number(role)]),
            AccountChange::Disabled(disabled) => db
                .prepare_cached("UPDATE users SET disabled = ?2 WHERE id = ?1")?
                .execute(params![user, disabled]),
        };
        Ok(changed? > 0)
    }

    async fn insert_invitation(
        &mut self,
        invitation: &NewInvitation,
        maker: &Subject,
        expires_at_ms: u64,
    ) -> rusqlite::Result<()> {
        self.db()
            .prepare_cached(
                "INSERT INTO invitations (code, id, tenant, role, maker, expires_at_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (code) DO NOTHING",
            )?
            .execute(params![
                invitation.code,
                invitation.id.0,
                invitation.tenant,
                Role::number(invitation.role),
                maker.0,
                signed(expires_at_ms)
            ])
            .map(drop)
    }

    async fn take_invitation(
        &mut self,
        code: SecretHash,
    ) -> rusqlite::Result<Option<StoredInvitation>> {
        let invitation = stored_invitation(self.db(), code)?;
        if invitation.is_some() {
            self.db()
                .prepare_cached("DELETE FROM invitations WHERE code = ?1")?
                .execute([code])?;
        }
        Ok(invitation)
    }

    async fn delete_invitation(&mut self, tenant: &str, id: &Subject) -> rusqlite::Result<bool> {
        let deleted = self
            .db()
            .prepare_cached("DELETE FROM invitations WHERE tenant = ?1 AND id = ?2")?
            .execute([tenant, &id.0])?;
        Ok(deleted > 0)
    }

    async fn put_reset(
        &mut self,
        reset: &PasswordReset,
        maker: &Subject,
        expires_at_ms: u64,
    ) -> rusqlite::Result<()> {
        self.db()
            .prepare_cached(
                "INSERT INTO resets (user_id, code, maker, expires_at_ms)
                 VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (user_id) DO UPDATE
                 SET code = excluded.code, maker = excluded.maker, expires_at_ms = excluded.expires_at_ms",
            )?
            .execute(params![
                reset.user.0,
                reset.code,
                maker.0,
                signed(expires_at_ms)
            ])
            .map(drop)
    }

    async fn take_reset(&mut self, code: SecretHash) -> rusqlite::Result<Option<StoredReset>> {
        let reset = stored_reset(self.db(), code)?;
        if reset.is_some() {
            self.db()
                .prepare_cached("DELETE FROM resets WHERE code = ?1")?
                .execute([code])?;
        }
        Ok(reset)
    }

    async fn insert_session(&mut self, session: NewSessionRow<'_>) -> rusqlite::Result<()> {
        self.db()
            .prepare_cached(
                "INSERT INTO sessions (id, user_id, refresh, renewed_at_ms, expires_at_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                session.key.0,
                session.user.0,
                session.refresh,
                signed(self.now_ms),
                signed(session.expires_at_ms)
            ])
            .map(drop)
    }

    async fn refresh_tokens(
        &mut self,
        key: &SessionKey,
    ) -> rusqlite::Result<Option<RefreshTokens>> {
        self.db()
            .prepare_cached(
                "SELECT refresh, previous, renewed_at_ms, expires_at_ms FROM sessions WHERE id = ?1",
            )?
            .query_row([&key.0], |row| {
                Ok(RefreshTokens {
                    newest: row.get(0)?,
                    previous: row.get(1)?,
                    renewed_at_ms: unsigned(row, 2)?,
                    expires_at_ms: unsigned(row, 3)?,
                })
            })
            .optional()
    }

    async fn set_refresh_tokens(
        &mut self,
        key: &SessionKey,
        newest: SecretHash,
        previous: SecretHash,
    ) -> rusqlite::Result<()> {
        self.db()
            .prepare_cached(
                "UPDATE sessions SET refresh = ?2, previous = ?3, renewed_at_ms = ?4 WHERE id = ?1",
            )?
            .execute(params![key.0, newest, previous, signed(self.now_ms)])
            .map(drop)
    }

    async fn delete_session(&mut self, key: &SessionKey) -> rusqlite::Result<Option<Subject>> {
        self.db()
            .prepare_cached("DELETE FROM sessions WHERE id = ?1 RETURNING user_id")?
            .query_row([&key.0], |row| row.get(0).map(Subject))
            .optional()
    }

    async fn delete_sessions(
        &mut self,
        user: &Subject,
        filter: SessionFilter<'_>,
    ) -> rusqlite::Result<Vec<SessionKey>> {
        let key = |row: &Row<'_>| row.get(0).map(SessionKey);
        let db = self.db();
        match filter {
            SessionFilter::AllExcept(kept) => db
                .prepare_cached(
                    "DELETE FROM sessions WHERE user_id = ?1 AND id IS NOT ?2 RETURNING id",
                )?
                .query_map(params![user.0, kept.map(|key| &key.0)], key)?
                .collect(),
            SessionFilter::Oldest { newest, others_max } => db
                .prepare_cached(
                    "DELETE FROM sessions
                     WHERE id IN (
                       SELECT id
                       FROM sessions
                       WHERE user_id = ?1 AND id <> ?2
                       ORDER BY renewed_at_ms DESC, id DESC
                       LIMIT -1 OFFSET ?3)
                     RETURNING id",
                )?
                .query_map(params![user.0, newest.0, signed(others_max)], key)?
                .collect(),
        }
    }

    async fn end_tokens(&mut self, subject: &Subject, issued_until_s: u64) -> rusqlite::Result<()> {
        self.db()
            .prepare_cached(
                "INSERT INTO ended_tokens (subject, issued_until) VALUES (?1, ?2)
                 ON CONFLICT (subject) DO UPDATE
                 SET issued_until = max(issued_until, excluded.issued_until)",
            )?
            .execute(params![subject.0, signed(issued_until_s)])
            .map(drop)
    }

    async fn tenant_role(
        &mut self,
        user: &Subject,
        tenant: &str,
    ) -> rusqlite::Result<Option<Role>> {
        tenant_role(self.db(), user, tenant)
    }

    async fn grant(&mut self, doc: &DocId, subject: &Subject) -> rusqlite::Result<Option<Role>> {
        grant(self.db(), doc, subject)
    }

    async fn grant_count(
        &mut self,
        doc: &DocId,
        subject: &Subject,
    ) -> rusqlite::Result<GrantCount> {
        self.db()
            .prepare_cached(
                "SELECT count(*), coalesce(max(subject = ?3), 0)
                 FROM grants
                 WHERE collection = ?1 AND id = ?2",
            )?
            .query_row(
                [doc.collection.as_str(), doc.id.as_str(), &subject.0],
                |row| {
                    Ok(GrantCount {
                        total: unsigned(row, 0)?,
                        includes_subject: row.get(1)?,
                    })
                },
            )
    }

    async fn put_grant(
        &mut self,
        doc: &DocId,
        subject: &Subject,
        role: Role,
    ) -> rusqlite::Result<bool> {
        let (collection, id) = (doc.collection.as_str(), doc.id.as_str());
        let written = self
            .db()
            .prepare_cached(
                "INSERT INTO grants (collection, id, subject, role)
                 VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (collection, id, subject) DO UPDATE SET role = excluded.role
                 WHERE role <> 4",
            )?
            .execute(params![collection, id, subject.0, Role::number(Some(role))])?;
        Ok(written > 0)
    }

    async fn delete_grant(&mut self, doc: &DocId, subject: &Subject) -> rusqlite::Result<bool> {
        if grant(self.db(), doc, subject)? == Some(Role::Owner) {
            return Ok(false);
        }
        self.db()
            .prepare_cached(
                "DELETE FROM grants WHERE collection = ?1 AND id = ?2 AND subject = ?3",
            )?
            .execute([doc.collection.as_str(), doc.id.as_str(), &subject.0])?;
        Ok(true)
    }

    async fn demote_owners(&mut self, doc: &DocId) -> rusqlite::Result<Vec<Subject>> {
        self.db()
            .prepare_cached(
                "UPDATE grants SET role = 3
                 WHERE collection = ?1 AND id = ?2 AND role = 4
                 RETURNING subject",
            )?
            .query_map([doc.collection.as_str(), doc.id.as_str()], |row| {
                row.get(0).map(Subject)
            })?
            .collect()
    }

    async fn insert_link(&mut self, row: NewLinkRow<'_>) -> rusqlite::Result<()> {
        let link = row.link;
        self.db()
            .prepare_cached(
                "INSERT INTO links
                   (id, collection, doc, role, secret, password, expires_at_ms, created_at_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                link.id.0,
                link.doc.collection.as_str(),
                link.doc.id.as_str(),
                Role::number(Some(row.role)),
                link.secret,
                link.password,
                row.expires_at_ms.map(signed),
                signed(self.now_ms)
            ])
            .map(drop)
    }

    async fn delete_link(&mut self, doc: &DocId, link: &Subject) -> rusqlite::Result<bool> {
        let deleted = self
            .db()
            .prepare_cached("DELETE FROM links WHERE id = ?1 AND collection = ?2 AND doc = ?3")?
            .execute([&link.0, doc.collection.as_str(), doc.id.as_str()])?;
        Ok(deleted > 0)
    }

    async fn insert_audit_event(&mut self, event: NewAuditEvent<'_>) -> rusqlite::Result<()> {
        insert_audit_event(self.db(), self.now_ms, event)
    }

    async fn count_audit_event(
        &mut self,
        event: NewAuditEvent<'_>,
        since_ms: u64,
    ) -> rusqlite::Result<bool> {
        let counted = self
            .db()
            .prepare_cached(
                "UPDATE audit SET times = times + 1, last_at_ms = ?7
                 WHERE number = (
                   SELECT number FROM audit
                   WHERE actor = ?1 AND deed = ?2 AND at_ms > ?6
                     AND collection IS ?3 AND doc IS ?4 AND subject IS ?5
                   ORDER BY number DESC
                   LIMIT 1)",
            )?
            .execute(params![
                event.actor.0,
                event.action.as_str(),
                event.doc.map(|doc| doc.collection.as_str()),
                event.doc.map(|doc| doc.id.as_str()),
                event.subject.map(|subject| &subject.0),
                signed(since_ms),
                signed(self.now_ms)
            ])?;
        Ok(counted > 0)
    }
}

fn insert_audit_event(
    db: &Connection,
    now_ms: u64,
    event: NewAuditEvent<'_>,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO audit (at_ms, actor, deed, collection, doc, subject, detail, tenant)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7,
           coalesce(?8, (SELECT tenant FROM users WHERE id = ?2),
             (SELECT tenant FROM users WHERE id = ?6), ?9))",
    )?
    .execute(params![
        signed(now_ms),
        event.actor.0,
        event.action.as_str(),
        event.doc.map(|doc| doc.collection.as_str()),
        event.doc.map(|doc| doc.id.as_str()),
        event.subject.map(|subject| &subject.0),
        event.detail,
        event.document_tenant(),
        event.actor_tenant()
    ])
    .map(drop)
}

/// Registers a document to its first owner: see [`AccessBackend`](crate::store::access::AccessBackend).
pub(super) fn register_document(
    db: &Connection,
    now_ms: u64,
    doc: &DocId,
    owner: &Subject,
    documents_max: Option<u64>,
) -> rusqlite::Result<DocumentRegistration> {
    let tenant = tenant_of(&doc.collection);
    let (collection, id) = (doc.collection.as_str(), doc.id.as_str());
    let is_known = db
        .prepare_cached(
            "SELECT 1 FROM grants WHERE collection = ?1 AND id = ?2
             UNION ALL
             SELECT 1 FROM documents WHERE collection = ?1 AND id = ?2",
        )?
        .exists([collection, id])?;
    let documents = db
        .prepare_cached("SELECT documents FROM usage WHERE tenant = ?1")?
        .query_row([tenant], |row| unsigned(row, 0))
        .optional()?;
    let registration =
        DocumentRegistration::decide(is_known, documents.unwrap_or(0), documents_max);
    if registration == DocumentRegistration::Registered {
        db.prepare_cached(
            "INSERT INTO grants (collection, id, subject, role) VALUES (?1, ?2, ?3, 4)",
        )?
        .execute([collection, id, &owner.0])?;
        db.prepare_cached(
            "INSERT INTO usage (tenant, documents, bytes) VALUES (?1, 1, 0)
             ON CONFLICT (tenant) DO UPDATE SET documents = documents + 1",
        )?
        .execute([tenant])?;
        let event = NewAuditEvent::new(owner, AuditAction::CreateDocument).on(doc);
        insert_audit_event(db, now_ms, event)?;
    }
    Ok(registration)
}
