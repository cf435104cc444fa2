//! People, in SQLite: each verb of [`AccessStore`] is one of these functions within one transaction.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::SqliteStore;
use super::error::SqliteError;
use super::list::{listed, walk};
use super::write_connection::WriteConnection;
use super::writer::WriteJob;
use crate::access::{
    Account, AccountDraft, Admission, AuditEvent, CreateAccountError, DocumentRegistration, Grant,
    LiveSession, NewInvitation, NewShareLink, PasswordReset, PendingInvitation, Permission,
    Principal, REPEAT_WINDOW, REPEATED_ACTIONS, Renewal, Revocation, Role, SecretHash, SessionKey,
    ShareError, ShareLink, Subject, tenant_of, tenant_of_subject,
};
use crate::id::DocId;
use crate::store::accounts::{AccessFuture, AccessStore, REVOCATIONS_PAGE};
use crate::store::{ListPage, ListQuery, ListedDocument};

/// The columns of an account.
macro_rules! users {
    () => {
        "SELECT id, tenant, login, name, password, role, disabled FROM users"
    };
}

/// The columns of a share link.
macro_rules! links {
    () => {
        "SELECT id, collection, doc, role, password, expires_at_ms FROM links"
    };
}

/// The columns of a line of the audit log.
macro_rules! deeds {
    () => {
        "SELECT number, at_ms, actor, deed, collection, doc, subject, detail, times, last_at_ms FROM audit"
    };
}

/// How long the newest revocations are kept. A node that has not read for so long has closed its sockets long before.
const REVOCATIONS_KEPT: Duration = Duration::from_hours(24);

/// A change, done by the writer's thread. It may be run more than once.
struct Change<F>(F);

impl<T, F> WriteJob for Change<F>
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

impl SqliteStore {
    fn change<T: Send + 'static>(
        &self,
        change: impl Fn(&Connection, u64) -> rusqlite::Result<T> + Send + 'static,
    ) -> AccessFuture<'_, T> {
        self.writer.execute(Change(change)).boxed()
    }

    fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Connection, u64) -> rusqlite::Result<T> + Send + 'static,
    ) -> AccessFuture<'_, T> {
        self.readers
            .read("read accounts", move |db| {
                Ok::<T, SqliteError>(look(db, now_ms())?)
            })
            .boxed()
    }
}

impl AccessStore for SqliteStore {
    fn has_accounts(&self) -> AccessFuture<'_, bool> {
        self.look(|db, _| any_user(db))
    }

    fn create_account(
        &self,
        user: AccountDraft,
        admission: Admission,
    ) -> AccessFuture<'_, Result<(), CreateAccountError>> {
        self.change(move |db, now| add_user(db, now, &user, admission))
    }

    fn account_by_login(&self, login: String) -> AccessFuture<'_, Option<Account>> {
        self.look(move |db, _| {
            db.prepare_cached(concat!(users!(), " WHERE login = ?1"))?
                .query_row([login], |row| user(row, 0))
                .optional()
        })
    }

    fn account(&self, id: Subject) -> AccessFuture<'_, Option<Account>> {
        self.look(move |db, _| {
            db.prepare_cached(concat!(users!(), " WHERE id = ?1"))?
                .query_row([id.0], |row| user(row, 0))
                .optional()
        })
    }

    fn set_password(
        &self,
        user: Subject,
        password: String,
        keep: Option<SessionKey>,
    ) -> AccessFuture<'_, ()> {
        self.change(move |db, now| {
            db.prepare_cached("UPDATE users SET password = ?2 WHERE id = ?1")?
                .execute([&user.0, &password])?;
            note(db, now, &user, "change password", None, Some(&user), None)?;
            end_others(db, now, &user, keep.as_ref())
        })
    }

    fn set_tenant_role(
        &self,
        user: Subject,
        role: Option<Role>,
        by: Subject,
    ) -> AccessFuture<'_, bool> {
        self.change(move |db, now| {
            let changed = db
                .prepare_cached("UPDATE users SET role = ?2 WHERE id = ?1")?
                .execute(params![user.0, number(role)])?;
            note(
                db,
                now,
                &by,
                "set tenant role",
                None,
                Some(&user),
                Some(word(role)),
            )?;
            revoke(db, now, &Revoked::everywhere(&user))?;
            Ok(changed > 0)
        })
    }

    fn set_disabled(&self, user: Subject, disabled: bool, by: Subject) -> AccessFuture<'_, bool> {
        self.change(move |db, now| {
            let changed = db
                .prepare_cached("UPDATE users SET disabled = ?2 WHERE id = ?1")?
                .execute(params![user.0, disabled])?;
            let deed = if disabled {
                "close account"
            } else {
                "open account"
            };
            note(db, now, &by, deed, None, Some(&user), None)?;
            if disabled {
                end_others(db, now, &user, None)?;
                revoke(db, now, &Revoked::ended(&user, None))?;
            }
            Ok(changed > 0)
        })
    }

    fn accounts_of(
        &self,
        tenant: String,
        after: String,
        limit: usize,
    ) -> AccessFuture<'_, Vec<Account>> {
        self.look(move |db, _| {
            db.prepare_cached(concat!(
                users!(),
                " WHERE tenant = ?1 AND login > ?2 ORDER BY login LIMIT ?3"
            ))?
            .query_map(params![tenant, after, limit as i64], |row| user(row, 0))?
            .collect()
        })
    }

    fn create_reset(&self, reset: PasswordReset, by: Subject) -> AccessFuture<'_, ()> {
        self.change(move |db, now| {
            let until = signed(after(now, reset.lasts));
            db.prepare_cached(
                "INSERT OR REPLACE INTO resets (user_id, code, maker, expires_at_ms)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![reset.user.0, reset.code, by.0, until])?;
            note(db, now, &by, "allow reset", None, Some(&reset.user), None)
        })
    }

    fn reset_password(
        &self,
        code: SecretHash,
        password: String,
    ) -> AccessFuture<'_, Option<Subject>> {
        self.change(move |db, now| {
            let Some(user) = reset_of(db, now, code)? else {
                return Ok(None);
            };
            db.prepare_cached("DELETE FROM resets WHERE user_id = ?1")?
                .execute([&user.0])?;
            db.prepare_cached("UPDATE users SET password = ?2 WHERE id = ?1")?
                .execute([&user.0, &password])?;
            note(db, now, &user, "reset password", None, Some(&user), None)?;
            end_others(db, now, &user, None)?;
            Ok(Some(user))
        })
    }

    fn is_reset_valid(&self, code: SecretHash) -> AccessFuture<'_, bool> {
        self.look(move |db, now| Ok(reset_of(db, now, code)?.is_some()))
    }

    fn is_invitation_valid(&self, code: SecretHash) -> AccessFuture<'_, bool> {
        self.look(move |db, now| Ok(invitation(db, now, code)?.is_some()))
    }

    fn invitations(&self, tenant: String) -> AccessFuture<'_, Vec<PendingInvitation>> {
        self.look(move |db, now| {
            db.prepare_cached(
                "SELECT id, role, maker, expires_at_ms
                 FROM invitations
                 WHERE tenant = ?1 AND expires_at_ms > ?2
                 ORDER BY expires_at_ms, id",
            )?
            .query_map(params![tenant, signed(now)], |row| {
                Ok(PendingInvitation {
                    id: Subject(row.get(0)?),
                    role: role(row, 1)?,
                    maker: Subject(row.get(2)?),
                    expires_at_ms: row.get::<_, i64>(3)?.cast_unsigned(),
                })
            })?
            .collect()
        })
    }

    fn delete_invitation(
        &self,
        tenant: String,
        id: Subject,
        by: Subject,
    ) -> AccessFuture<'_, bool> {
        self.change(move |db, now| {
            let ended = db
                .prepare_cached("DELETE FROM invitations WHERE tenant = ?1 AND id = ?2")?
                .execute([&tenant, &id.0])?;
            if ended > 0 {
                note(db, now, &by, "end invitation", None, None, None)?;
            }
            Ok(ended > 0)
        })
    }

    fn create_invitation(&self, invitation: NewInvitation, by: Subject) -> AccessFuture<'_, bool> {
        self.change(move |db, now| {
            db.prepare_cached("DELETE FROM invitations WHERE expires_at_ms <= ?1")?
                .execute([signed(now)])?;
            let invited: i64 = db
                .prepare_cached("SELECT count(*) FROM invitations WHERE tenant = ?1")?
                .query_row([&invitation.tenant], |row| row.get(0))?;
            if invited >= signed(invitation.invitations_max) {
                return Ok(false);
            }
            db.prepare_cached(
                "INSERT OR IGNORE INTO invitations (code, id, tenant, role, maker, expires_at_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                invitation.code,
                invitation.id.0,
                invitation.tenant,
                number(invitation.role),
                by.0,
                signed(after(now, invitation.lasts))
            ])?;
            note(
                db,
                now,
                &by,
                "invite",
                None,
                None,
                Some(word(invitation.role)),
            )?;
            Ok(true)
        })
    }

    fn begin_session(
        &self,
        key: SessionKey,
        user: Subject,
        refresh: SecretHash,
        lasts: Duration,
        sessions_max: u64,
    ) -> AccessFuture<'_, ()> {
        self.change(move |db, now| {
            db.prepare_cached("DELETE FROM sessions WHERE expires_at_ms <= ?1")?
                .execute([signed(now)])?;
            db.prepare_cached(
                "INSERT INTO sessions (id, user_id, refresh, renewed_at_ms, expires_at_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                key.0,
                user.0,
                refresh,
                signed(now),
                signed(after(now, lasts))
            ])?;
            end_oldest(db, now, &user, &key, sessions_max.saturating_sub(1))?;
            note(db, now, &user, "sign in", None, None, None)
        })
    }

    fn renew_session(
        &self,
        key: SessionKey,
        refresh: SecretHash,
        next: SecretHash,
        grace: Duration,
    ) -> AccessFuture<'_, Renewal> {
        self.change(move |db, now| renew_session(db, now, &key, refresh, next, grace))
    }

    fn session(&self, key: SessionKey) -> AccessFuture<'_, Option<LiveSession>> {
        self.look(move |db, now| {
            db.prepare_cached(
                "SELECT s.renewed_at_ms, u.id, u.tenant, u.login, u.name, u.password, u.role, u.disabled
                 FROM sessions s
                 JOIN users u ON u.id = s.user_id
                 WHERE s.id = ?1 AND s.expires_at_ms > ?2 AND u.disabled = 0",
            )?
            .query_row(params![key.0, signed(now)], |row| {
                let renewed = row.get::<_, i64>(0)?.cast_unsigned();
                Ok(LiveSession {
                    user: user(row, 1)?,
                    age: Duration::from_millis(now.saturating_sub(renewed)),
                })
            })
            .optional()
        })
    }

    fn end_session(&self, key: SessionKey) -> AccessFuture<'_, ()> {
        self.change(move |db, now| match end_session(db, now, &key)? {
            Some(user) => note(db, now, &user, "sign out", None, None, None),
            None => Ok(()),
        })
    }

    fn end_sessions_of(&self, subject: Subject, by: Subject) -> AccessFuture<'_, ()> {
        self.change(move |db, now| {
            note(
                db,
                now,
                &by,
                "sign out everywhere",
                None,
                Some(&subject),
                None,
            )?;
            end_others(db, now, &subject, None)?;
            // Also those who came with a token of another application, of whom no session is kept here.
            db.prepare_cached(
                "INSERT OR REPLACE INTO ended_tokens (subject, issued_until) VALUES (?1, ?2)",
            )?
            .execute(params![subject.0, signed(now / 1_000)])?;
            revoke(db, now, &Revoked::ended(&subject, None))
        })
    }

    fn tokens_ended(&self, subject: Subject) -> AccessFuture<'_, Option<u64>> {
        self.look(move |db, _| {
            db.prepare_cached("SELECT issued_until FROM ended_tokens WHERE subject = ?1")?
                .query_row([subject.0], |row| {
                    row.get::<_, i64>(0).map(i64::cast_unsigned)
                })
                .optional()
        })
    }

    fn permissions(&self, who: Principal, docs: Vec<DocId>) -> AccessFuture<'_, Vec<Permission>> {
        self.look(move |db, now| docs.iter().map(|doc| right(db, now, &who, doc)).collect())
    }

    fn register_document(
        &self,
        doc: DocId,
        subject: Subject,
        documents_max: Option<u64>,
    ) -> AccessFuture<'_, DocumentRegistration> {
        self.change(move |db, now| {
            let tenant = tenant_of(&doc.collection);
            if let Some(most) = documents_max
                && documents_of(db, tenant)? >= most
                && !is_known(db, &doc)?
            {
                return Ok(DocumentRegistration::QuotaReached);
            }
            let owned = db
                .prepare_cached(
                    "INSERT INTO grants (collection, id, subject, role)
                     SELECT ?1, ?2, ?3, 4
                     WHERE NOT EXISTS (SELECT 1 FROM grants WHERE collection = ?1 AND id = ?2)
                       AND NOT EXISTS (SELECT 1 FROM documents WHERE collection = ?1 AND id = ?2)",
                )?
                .execute([doc.collection.as_str(), doc.id.as_str(), &subject.0])?;
            if owned == 0 {
                return Ok(DocumentRegistration::Exists);
            }
            db.prepare_cached(
                "INSERT INTO usage (tenant, documents, bytes) VALUES (?1, 1, 0)
                 ON CONFLICT (tenant) DO UPDATE SET documents = documents + 1",
            )?
            .execute([tenant])?;
            note(db, now, &subject, "create", Some(&doc), None, None)?;
            Ok(DocumentRegistration::Registered)
        })
    }

    fn set_role(
        &self,
        doc: DocId,
        subject: Subject,
        role: Option<Role>,
        by: Principal,
        people_max: u64,
    ) -> AccessFuture<'_, Result<(), ShareError>> {
        self.change(move |db, now| {
            let Some(by) = owner(db, now, &by, &doc)? else {
                return Ok(Err(ShareError::NotOwner));
            };
            match grant_of(db, &doc, &subject)? {
                Some(Role::Owner) => return Ok(Err(ShareError::OwnerMustTransfer)),
                None if role.is_some() && holders_of(db, &doc)? >= people_max => {
                    return Ok(Err(ShareError::QuotaReached));
                }
                _ => {}
            }
            set_grant(db, &doc, &subject, role)?;
            note(
                db,
                now,
                by,
                "set role",
                Some(&doc),
                Some(&subject),
                Some(word(role)),
            )?;
            revoke(db, now, &Revoked::on(&subject, &doc))?;
            Ok(Ok(()))
        })
    }

    fn transfer_ownership(
        &self,
        doc: DocId,
        to: Subject,
        by: Principal,
    ) -> AccessFuture<'_, Result<(), ShareError>> {
        self.change(move |db, now| {
            let Some(by) = owner(db, now, &by, &doc)? else {
                return Ok(Err(ShareError::NotOwner));
            };
            let owners: Vec<String> = db
                .prepare_cached(
                    "SELECT subject FROM grants WHERE collection = ?1 AND id = ?2 AND role = 4",
                )?
                .query_map([doc.collection.as_str(), doc.id.as_str()], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            for owner in owners.into_iter().map(Subject) {
                set_grant(db, &doc, &owner, Some(Role::Editor))?;
                revoke(db, now, &Revoked::on(&owner, &doc))?;
            }
            set_grant(db, &doc, &to, Some(Role::Owner))?;
            revoke(db, now, &Revoked::on(&to, &doc))?;
            note(db, now, by, "transfer", Some(&doc), Some(&to), None)?;
            Ok(Ok(()))
        })
    }

    fn grants(&self, doc: DocId) -> AccessFuture<'_, Vec<Grant>> {
        self.look(move |db, _| {
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

    fn list_for(&self, who: Principal, query: ListQuery) -> AccessFuture<'_, ListPage> {
        self.readers
            .read("list", move |db| list_for(db, now_ms(), &who, &query))
            .boxed()
    }

    fn create_link(
        &self,
        link: NewShareLink,
        by: Principal,
    ) -> AccessFuture<'_, Result<(), ShareError>> {
        self.change(move |db, now| {
            let Some(by) = owner(db, now, &by, &link.doc)? else {
                return Ok(Err(ShareError::NotOwner));
            };
            let (collection, id) = (link.doc.collection.as_str(), link.doc.id.as_str());
            db.prepare_cached(
                "DELETE FROM links WHERE collection = ?1 AND doc = ?2 AND expires_at_ms <= ?3",
            )?
            .execute(params![collection, id, signed(now)])?;
            let links: i64 = db
                .prepare_cached("SELECT count(*) FROM links WHERE collection = ?1 AND doc = ?2")?
                .query_row([collection, id], |row| row.get(0))?;
            if links >= signed(link.links_max) {
                return Ok(Err(ShareError::QuotaReached));
            }
            db.prepare_cached(
                "INSERT INTO links
                   (id, collection, doc, role, secret, password, expires_at_ms, created_at_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                link.id.0,
                link.doc.collection.as_str(),
                link.doc.id.as_str(),
                number(Some(link.role.min(Role::Editor))),
                link.secret,
                link.password,
                link.lasts.map(|lasts| signed(after(now, lasts))),
                signed(now)
            ])?;
            let (doc, role) = (&link.doc, word(Some(link.role)));
            note(
                db,
                now,
                by,
                "make link",
                Some(doc),
                Some(&link.id),
                Some(role),
            )?;
            Ok(Ok(()))
        })
    }

    fn links(&self, doc: DocId) -> AccessFuture<'_, Vec<ShareLink>> {
        self.look(move |db, now| {
            db.prepare_cached(concat!(
                links!(),
                " WHERE collection = ?1 AND doc = ?2 AND coalesce(expires_at_ms > ?3, 1)
                 ORDER BY created_at_ms, id"
            ))?
            .query_map(
                params![doc.collection.as_str(), doc.id.as_str(), signed(now)],
                link,
            )?
            .collect()
        })
    }

    fn link_by_secret(&self, secret: SecretHash) -> AccessFuture<'_, Option<ShareLink>> {
        self.look(move |db, now| {
            db.prepare_cached(concat!(
                links!(),
                " WHERE secret = ?1 AND coalesce(expires_at_ms > ?2, 1)"
            ))?
            .query_row(params![secret, signed(now)], link)
            .optional()
        })
    }

    fn delete_link(
        &self,
        doc: DocId,
        link: Subject,
        by: Principal,
    ) -> AccessFuture<'_, Result<(), ShareError>> {
        self.change(move |db, now| {
            let Some(by) = owner(db, now, &by, &doc)? else {
                return Ok(Err(ShareError::NotOwner));
            };
            let ended = db
                .prepare_cached("DELETE FROM links WHERE id = ?1 AND collection = ?2 AND doc = ?3")?
                .execute([&link.0, doc.collection.as_str(), doc.id.as_str()])?;
            if ended == 0 {
                return Ok(Err(ShareError::LinkNotFound));
            }
            note(db, now, by, "end link", Some(&doc), Some(&link), None)?;
            revoke(db, now, &Revoked::on(&link, &doc))?;
            Ok(Ok(()))
        })
    }

    fn revocations(&self, since: u64) -> AccessFuture<'_, Vec<Revocation>> {
        self.look(move |db, _| {
            db.prepare_cached(
                "SELECT sequence, subject, session, ends, collection, doc
                 FROM revocations
                 WHERE sequence > ?1
                 ORDER BY sequence
                 LIMIT ?2",
            )?
            .query_map(params![signed(since), REVOCATIONS_PAGE as i64], |row| {
                let (collection, id): (Option<String>, Option<String>) = (row.get(4)?, row.get(5)?);
                Ok(Revocation {
                    sequence: row.get::<_, i64>(0)?.cast_unsigned(),
                    subject: Subject(row.get(1)?),
                    session: row.get::<_, Option<String>>(2)?.map(SessionKey),
                    ends: row.get(3)?,
                    doc: Revocation::document(collection.as_deref(), id.as_deref()),
                })
            })?
            .collect()
        })
    }

    fn last_revocation(&self) -> AccessFuture<'_, u64> {
        self.look(|db, _| {
            db.prepare_cached("SELECT coalesce(max(sequence), 0) FROM revocations")?
                .query_row([], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))
        })
    }

    fn audit_events(
        &self,
        doc: DocId,
        before: Option<u64>,
        limit: usize,
    ) -> AccessFuture<'_, Vec<AuditEvent>> {
        self.look(move |db, _| {
            let (collection, id) = (doc.collection.as_str(), doc.id.as_str());
            let before = before.map_or(i64::MAX, signed);
            db.prepare_cached(concat!(
                deeds!(),
                " WHERE collection = ?1 AND doc = ?2 AND number < ?3 ORDER BY number DESC LIMIT ?4"
            ))?
            .query_map(params![collection, id, before, limit as i64], deed)?
            .collect()
        })
    }

    fn audit_events_of(
        &self,
        tenant: String,
        before: Option<u64>,
        limit: usize,
    ) -> AccessFuture<'_, Vec<AuditEvent>> {
        self.look(move |db, _| {
            let before = before.map_or(i64::MAX, signed);
            db.prepare_cached(concat!(
                deeds!(),
                " WHERE tenant = ?1 AND number < ?2 ORDER BY number DESC LIMIT ?3"
            ))?
            .query_map(params![tenant, before, limit as i64], deed)?
            .collect()
        })
    }

    fn audit(
        &self,
        actor: Subject,
        deed: &'static str,
        doc: Option<DocId>,
        subject: Option<Subject>,
    ) -> AccessFuture<'_, ()> {
        self.change(move |db, now| {
            note(db, now, &actor, deed, doc.as_ref(), subject.as_ref(), None)
        })
    }

    fn add_usage(&self, tenant: String, bytes: u64) -> AccessFuture<'_, u64> {
        self.change(move |db, _| {
            db.prepare_cached(
                "INSERT INTO usage (tenant, documents, bytes) VALUES (?1, 0, ?2)
                 ON CONFLICT (tenant) DO UPDATE SET bytes = bytes + excluded.bytes
                 RETURNING bytes",
            )?
            .query_row(params![tenant, signed(bytes)], |row| {
                row.get::<_, i64>(0).map(i64::cast_unsigned)
            })
        })
    }
}

fn any_user(db: &Connection) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM users LIMIT 1")?.exists([])
}

fn add_user(
    db: &Connection,
    now: u64,
    user: &AccountDraft,
    admission: Admission,
) -> rusqlite::Result<Result<(), CreateAccountError>> {
    // Before anything is said of the login: who may not come in learns nothing of who is here.
    let (tenant, role) = match admission {
        Admission::First if any_user(db)? => return Ok(Err(CreateAccountError::NotFirst)),
        Admission::First => (user.tenant.clone(), Some(Role::Owner)),
        Admission::Open { accounts_max } => {
            let accounts: u64 = db
                .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM users LIMIT ?1)")?
                .query_row([signed(accounts_max)], |row| {
                    row.get(0).map(i64::cast_unsigned)
                })?;
            if accounts >= accounts_max {
                return Ok(Err(CreateAccountError::QuotaReached));
            }
            (user.tenant.clone(), None)
        }
        Admission::Invited(code) => match invitation(db, now, code)? {
            Some(invited) => invited,
            None => return Ok(Err(CreateAccountError::NotInvited)),
        },
    };
    let taken = db
        .prepare_cached("SELECT 1 FROM users WHERE login = ?1")?
        .exists([&user.login])?;
    if taken {
        return Ok(Err(CreateAccountError::LoginTaken));
    }
    if let Admission::Invited(code) = admission {
        db.prepare_cached("DELETE FROM invitations WHERE code = ?1")?
            .execute([code])?;
    }
    db.prepare_cached(
        "INSERT INTO users (id, tenant, login, name, password, role, created_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        user.id.0,
        tenant,
        user.login,
        user.name,
        user.password,
        number(role),
        signed(now)
    ])?;
    note(
        db,
        now,
        &user.id,
        "make account",
        None,
        None,
        Some(word(role)),
    )?;
    Ok(Ok(()))
}

/// What a code gives whoever makes an account, if its maker may give it still.
fn invitation(
    db: &Connection,
    now: u64,
    code: SecretHash,
) -> rusqlite::Result<Option<(String, Option<Role>)>> {
    db.prepare_cached(
        "SELECT i.tenant, i.role
         FROM invitations i
         JOIN users u ON u.id = i.maker AND u.tenant = i.tenant AND u.role = 4 AND u.disabled = 0
         WHERE i.code = ?1 AND i.expires_at_ms > ?2",
    )?
    .query_row(params![code, signed(now)], |row| {
        Ok((row.get(0)?, role(row, 1)?))
    })
    .optional()
}

/// Whose password a code lets somebody choose, if its maker may let them still.
fn reset_of(db: &Connection, now: u64, code: SecretHash) -> rusqlite::Result<Option<Subject>> {
    db.prepare_cached(
        "SELECT u.id
         FROM resets r
         JOIN users u ON u.id = r.user_id
         JOIN users m ON m.id = r.maker AND m.tenant = u.tenant AND m.role = 4 AND m.disabled = 0
         WHERE r.code = ?1 AND r.expires_at_ms > ?2",
    )?
    .query_row(params![code, signed(now)], |row| row.get(0).map(Subject))
    .optional()
}

fn renew_session(
    db: &Connection,
    now: u64,
    key: &SessionKey,
    refresh: SecretHash,
    next: SecretHash,
    grace: Duration,
) -> rusqlite::Result<Renewal> {
    let found: Option<(SecretHash, Option<SecretHash>, i64)> = db
        .prepare_cached(
            "SELECT refresh, previous, renewed_at_ms
             FROM sessions
             WHERE id = ?1 AND expires_at_ms > ?2",
        )?
        .query_row(params![key.0, signed(now)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((newest, previous, renewed)) = found else {
        return Ok(Renewal::Ended);
    };
    if newest == refresh {
        db.prepare_cached(
            "UPDATE sessions SET refresh = ?2, previous = ?3, renewed_at_ms = ?4 WHERE id = ?1",
        )?
        .execute(params![key.0, next, refresh, signed(now)])?;
        return Ok(Renewal::Renewed);
    }
    let recently = now < after(renewed.cast_unsigned(), grace);
    if previous == Some(refresh) && recently {
        return Ok(Renewal::JustRenewed);
    }
    end_session(db, now, key)?;
    Ok(Renewal::Reused)
}

/// Ends a session, and says whose it was.
fn end_session(db: &Connection, now: u64, key: &SessionKey) -> rusqlite::Result<Option<Subject>> {
    let user = db
        .prepare_cached("DELETE FROM sessions WHERE id = ?1 RETURNING user_id")?
        .query_row([&key.0], |row| row.get(0).map(Subject))
        .optional()?;
    if let Some(user) = &user {
        revoke(db, now, &Revoked::ended(user, Some(key)))?;
    }
    Ok(user)
}

/// Ends the sessions of a user but one.
fn end_others(
    db: &Connection,
    now: u64,
    user: &Subject,
    keep: Option<&SessionKey>,
) -> rusqlite::Result<()> {
    let keys: Vec<String> = db
        .prepare_cached("SELECT id FROM sessions WHERE user_id = ?1")?
        .query_map([&user.0], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for key in keys.into_iter().map(SessionKey) {
        if Some(&key) != keep {
            end_session(db, now, &key)?;
        }
    }
    Ok(())
}

/// Ends a user's sessions but `newest` and the `others_max` that were renewed last.
fn end_oldest(
    db: &Connection,
    now: u64,
    user: &Subject,
    newest: &SessionKey,
    others_max: u64,
) -> rusqlite::Result<()> {
    let keys: Vec<String> = db
        .prepare_cached(
            "SELECT id
             FROM sessions
             WHERE user_id = ?1 AND id <> ?2
             ORDER BY renewed_at_ms DESC, id DESC
             LIMIT -1 OFFSET ?3",
        )?
        .query_map(params![user.0, newest.0, signed(others_max)], |row| {
            row.get(0)
        })?
        .collect::<rusqlite::Result<_>>()?;
    for key in keys.into_iter().map(SessionKey) {
        end_session(db, now, &key)?;
    }
    Ok(())
}

/// Who it is, if they own the document.
fn owner<'a>(
    db: &Connection,
    now: u64,
    who: &'a Principal,
    doc: &DocId,
) -> rusqlite::Result<Option<&'a Subject>> {
    let right = right(db, now, who, doc)?;
    Ok(who
        .user
        .as_ref()
        .filter(|_| right.role == Some(Role::Owner)))
}

/// How many subjects have a role of their own on a document.
fn holders_of(db: &Connection, doc: &DocId) -> rusqlite::Result<u64> {
    db.prepare_cached("SELECT count(*) FROM grants WHERE collection = ?1 AND id = ?2")?
        .query_row([doc.collection.as_str(), doc.id.as_str()], |row| {
            row.get::<_, i64>(0).map(i64::cast_unsigned)
        })
}

fn documents_of(db: &Connection, tenant: &str) -> rusqlite::Result<u64> {
    let found = db
        .prepare_cached("SELECT documents FROM usage WHERE tenant = ?1")?
        .query_row([tenant], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))
        .optional()?;
    Ok(found.unwrap_or(0))
}

/// Whether anybody knows a document.
fn is_known(db: &Connection, doc: &DocId) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "SELECT 1 FROM grants WHERE collection = ?1 AND id = ?2
         UNION ALL
         SELECT 1 FROM documents WHERE collection = ?1 AND id = ?2",
    )?
    .exists([doc.collection.as_str(), doc.id.as_str()])
}

/// The most that any of these gives: a role on the whole tenant, a role of one's own, a share link.
fn right(db: &Connection, now: u64, who: &Principal, doc: &DocId) -> rusqlite::Result<Permission> {
    let mut right = Permission::default();
    if let Some(user) = &who.user {
        // Nobody but by a share link reaches into another tenant.
        let tenant = tenant_of(&doc.collection);
        if who.tenant.as_deref() == Some(tenant) {
            let own = grant_of(db, doc, user)?;
            right.role = tenant_role(db, user, tenant)?.max(own).max(who.role);
        }
    }
    for id in &who.links {
        let link: Option<(Option<Role>, Option<i64>)> = db
            .prepare_cached(
                "SELECT role, expires_at_ms
                 FROM links
                 WHERE id = ?1 AND collection = ?2 AND doc = ?3
                   AND coalesce(expires_at_ms > ?4, 1)",
            )?
            .query_row(
                params![id.0, doc.collection.as_str(), doc.id.as_str(), signed(now)],
                |row| Ok((role(row, 0)?, row.get(1)?)),
            )
            .optional()?;
        let Some((role, expires)) = link else {
            continue;
        };
        if role > right.role {
            let lasts = |at: i64| Duration::from_millis(at.cast_unsigned().saturating_sub(now));
            right = Permission {
                role,
                lasts: expires.map(lasts),
            };
        }
    }
    Ok(right)
}

fn tenant_role(db: &Connection, user: &Subject, tenant: &str) -> rusqlite::Result<Option<Role>> {
    let found = db
        .prepare_cached("SELECT role FROM users WHERE id = ?1 AND tenant = ?2")?
        .query_row([user.0.as_str(), tenant], |row| role(row, 0))
        .optional()?;
    Ok(found.flatten())
}

fn grant_of(db: &Connection, doc: &DocId, subject: &Subject) -> rusqlite::Result<Option<Role>> {
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

fn set_grant(
    db: &Connection,
    doc: &DocId,
    subject: &Subject,
    role: Option<Role>,
) -> rusqlite::Result<()> {
    let (collection, id) = (doc.collection.as_str(), doc.id.as_str());
    match role {
        Some(role) => db
            .prepare_cached(
                "INSERT INTO grants (collection, id, subject, role)
                 VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (collection, id, subject) DO UPDATE SET role = excluded.role",
            )?
            .execute(params![collection, id, subject.0, number(Some(role))])?,
        None => db
            .prepare_cached(
                "DELETE FROM grants WHERE collection = ?1 AND id = ?2 AND subject = ?3",
            )?
            .execute([collection, id, &subject.0])?,
    };
    Ok(())
}

/// How many documents that are shared with a user are sorted. A user who has more has the newest documents looked through.
const SHARED_MAX: usize = 3_000;

/// A page of the documents that a user may read: of all, or of those that are shared with them.
fn list_for(
    db: &Connection,
    now: u64,
    who: &Principal,
    query: &ListQuery,
) -> Result<ListPage, SqliteError> {
    let tenant = tenant_of(&query.collection);
    let Some(user) = who
        .user
        .as_ref()
        .filter(|_| who.tenant.as_deref() == Some(tenant))
    else {
        return Ok(ListPage::default());
    };
    if tenant_role(db, user, tenant)?.max(who.role).is_some() {
        return walk(db, query, |_, _| Ok(true));
    }
    let links: Vec<&str> = who.links.iter().map(|link| link.0.as_str()).collect();
    let links = serde_json::json!(links).to_string();
    let mut statement = db.prepare_cached(
        "SELECT id FROM grants WHERE subject = ?1 AND collection = ?2
         UNION
         SELECT doc FROM links
         WHERE id IN (SELECT value FROM json_each(?3)) AND collection = ?2 AND coalesce(expires_at_ms > ?4, 1)
         LIMIT ?5",
    )?;
    let values = params![
        user.0,
        query.collection.as_str(),
        links,
        signed(now),
        SHARED_MAX as i64 + 1
    ];
    let shared = statement.query_map(values, |row| row.get(0))?;
    let shared: HashSet<String> = shared.collect::<Result<_, _>>()?;
    if shared.len() <= SHARED_MAX {
        return list_of(db, query, &shared);
    }
    walk(db, query, |db, id| {
        let mut statement = db.prepare_cached(
            "SELECT 1 FROM grants WHERE subject = ?1 AND collection = ?2 AND id = ?3
             UNION ALL
             SELECT 1 FROM links
             WHERE id IN (SELECT value FROM json_each(?4)) AND collection = ?2 AND doc = ?3
               AND coalesce(expires_at_ms > ?5, 1)",
        )?;
        let values = params![user.0, query.collection.as_str(), id, links, signed(now)];
        statement.exists(values)
    })
}

/// A page of these documents.
fn list_of(
    db: &Connection,
    query: &ListQuery,
    ids: &HashSet<String>,
) -> Result<ListPage, SqliteError> {
    let ids: Vec<&String> = ids.iter().collect();
    let mut statement = db.prepare_cached(
        "SELECT collection, id, title, created_at_ms, updated_at_ms,
           (SELECT coalesce(max(revision), 0) FROM entries WHERE doc = number)
         FROM (
           SELECT documents.*
           FROM json_each(?6) AS asked
           CROSS JOIN documents ON documents.collection = ?1 AND documents.id = asked.value
           WHERE live = 1 AND (updated_at_ms, documents.id) < (?2, ?3) AND instr(title_folded, ?4) > 0
           ORDER BY updated_at_ms DESC, documents.id DESC
           LIMIT ?5
         )",
    )?;
    let (at_ms, id) = query.start();
    let title = query.title.as_deref().unwrap_or_default().to_lowercase();
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![
        query.collection.as_str(),
        at_ms,
        id,
        title,
        limit,
        serde_json::json!(ids).to_string()
    ])?;
    let mut page = ListPage::default();
    while let Some(row) = rows.next()? {
        page.documents.push(listed(row)?);
    }
    let last = page.documents.last();
    page.next = last
        .filter(|_| page.documents.len() >= query.limit)
        .map(ListedDocument::place);
    Ok(page)
}

/// A change of a subject's rights, as it is told to every node.
struct Revoked<'a> {
    subject: &'a Subject,
    /// Only this session.
    session: Option<&'a SessionKey>,
    /// Whether sockets close.
    ends: bool,
    /// Only this document.
    doc: Option<&'a DocId>,
}

impl<'a> Revoked<'a> {
    /// The rights on one document changed.
    fn on(subject: &'a Subject, doc: &'a DocId) -> Self {
        let doc = Some(doc);
        Self {
            doc,
            ..Self::everywhere(subject)
        }
    }

    /// The rights on every document may have changed.
    fn everywhere(subject: &'a Subject) -> Self {
        Self {
            subject,
            session: None,
            ends: false,
            doc: None,
        }
    }

    /// A session ended; `None`: all of the subject's.
    fn ended(subject: &'a Subject, session: Option<&'a SessionKey>) -> Self {
        Self {
            session,
            ends: true,
            ..Self::everywhere(subject)
        }
    }
}

/// Tells every node that a subject's rights changed.
fn revoke(db: &Connection, now: u64, revoked: &Revoked<'_>) -> rusqlite::Result<()> {
    let forgotten = now.saturating_sub(REVOCATIONS_KEPT.as_millis() as u64);
    db.prepare_cached("DELETE FROM revocations WHERE at_ms < ?1")?
        .execute([signed(forgotten)])?;
    db.prepare_cached(
        "INSERT INTO revocations (at_ms, subject, session, ends, collection, doc)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        signed(now),
        revoked.subject.0,
        revoked.session.map(|key| &key.0),
        revoked.ends,
        revoked.doc.map(|doc| doc.collection.as_str()),
        revoked.doc.map(|doc| doc.id.as_str()),
    ])?;
    Ok(())
}

/// Writes a line of the audit log.
fn note(
    db: &Connection,
    now: u64,
    actor: &Subject,
    deed: &str,
    doc: Option<&DocId>,
    subject: Option<&Subject>,
    detail: Option<&str>,
) -> rusqlite::Result<()> {
    if REPEATED_ACTIONS.contains(&deed) && repeat(db, now, actor, deed, doc, subject)? {
        return Ok(());
    }
    db.prepare_cached(
        "INSERT INTO audit (at_ms, actor, deed, collection, doc, subject, detail, tenant)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7,
           coalesce(?8, (SELECT tenant FROM users WHERE id = ?2),
             (SELECT tenant FROM users WHERE id = ?6), ?9))",
    )?
    .execute(params![
        signed(now),
        actor.0,
        deed,
        doc.map(|doc| doc.collection.as_str()),
        doc.map(|doc| doc.id.as_str()),
        subject.map(|subject| &subject.0),
        detail,
        doc.map(|doc| tenant_of(&doc.collection)),
        tenant_of_subject(actor)
    ])?;
    Ok(())
}

/// Counts a deed on the line that it has already; `false`: there is none of the last hour.
fn repeat(
    db: &Connection,
    now: u64,
    actor: &Subject,
    deed: &str,
    doc: Option<&DocId>,
    subject: Option<&Subject>,
) -> rusqlite::Result<bool> {
    let since = now.saturating_sub(REPEAT_WINDOW.as_millis() as u64);
    let counted = db
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
            actor.0,
            deed,
            doc.map(|doc| doc.collection.as_str()),
            doc.map(|doc| doc.id.as_str()),
            subject.map(|subject| &subject.0),
            signed(since),
            signed(now)
        ])?;
    Ok(counted > 0)
}

fn user(row: &Row<'_>, first: usize) -> rusqlite::Result<Account> {
    Ok(Account {
        id: Subject(row.get(first)?),
        tenant: row.get(first + 1)?,
        login: row.get(first + 2)?,
        name: row.get(first + 3)?,
        password: row.get(first + 4)?,
        role: role(row, first + 5)?,
        disabled: row.get(first + 6)?,
    })
}

fn deed(row: &Row<'_>) -> rusqlite::Result<AuditEvent> {
    let (collection, id): (Option<String>, Option<String>) = (row.get(4)?, row.get(5)?);
    Ok(AuditEvent {
        number: row.get::<_, i64>(0)?.cast_unsigned(),
        at_ms: row.get::<_, i64>(1)?.cast_unsigned(),
        actor: Subject(row.get(2)?),
        action: row.get(3)?,
        doc: collection.zip(id),
        subject: row.get::<_, Option<String>>(6)?.map(Subject),
        detail: row.get(7)?,
        times: row.get::<_, i64>(8)?.cast_unsigned(),
        last_at_ms: row.get::<_, Option<i64>>(9)?.map(i64::cast_unsigned),
    })
}

fn link(row: &Row<'_>) -> rusqlite::Result<ShareLink> {
    let (collection, id): (String, String) = (row.get(1)?, row.get(2)?);
    let doc = DocId::parse(&collection, &id).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error))
    })?;
    Ok(ShareLink {
        id: Subject(row.get(0)?),
        doc,
        role: role(row, 3)?.unwrap_or(Role::Viewer),
        password: row.get(4)?,
        expires_at_ms: row.get::<_, Option<i64>>(5)?.map(i64::cast_unsigned),
    })
}

fn role(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Role>> {
    row.get(column).map(Role::from_number)
}

fn number(role: Option<Role>) -> i64 {
    role.map_or(0, |role| i64::from(role as u8))
}

fn word(role: Option<Role>) -> &'static str {
    role.map_or("none", Role::as_str)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}

fn after(at_ms: u64, lasts: Duration) -> u64 {
    at_ms.saturating_add(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX))
}

/// As SQLite keeps it. A time that is later than it can keep is as late as it can keep.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
