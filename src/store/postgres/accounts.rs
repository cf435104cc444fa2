//! People, in Postgres: each verb of [`AccessStore`] is one statement, or one [`Change`].

use std::time::Duration;

use futures_util::FutureExt;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::PostgresStore;
use super::change::{Change, Revoked, now_ms};
use super::error::PostgresError;
use super::list;
use super::pool::Pool;
use crate::access::{
    Account, AccountDraft, Admission, AuditEvent, CreateAccountError, DocumentRegistration, Grant,
    LiveSession, NewInvitation, NewShareLink, PasswordReset, PendingInvitation, Permission,
    Principal, Renewal, Revocation, Role, SecretHash, SessionKey, ShareError, ShareLink, Subject,
    tenant_of,
};
use crate::id::DocId;
use crate::store::accounts::{AccessFuture, AccessStore, REVOCATIONS_PAGE};
use crate::store::{ListPage, ListQuery};

/// The columns of an account.
macro_rules! users {
    ($rest:literal) => {
        concat!(
            "SELECT id, tenant, login, name, password, role, disabled FROM users ",
            $rest
        )
    };
}

/// The columns of a share link that has not expired.
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

impl AccessStore for PostgresStore {
    fn has_accounts(&self) -> AccessFuture<'_, bool> {
        look(async {
            let rows = self.people.query(ANY_USER, &[]).await?;
            Ok(!rows.is_empty())
        })
    }

    fn create_account(
        &self,
        user: AccountDraft,
        admission: Admission,
    ) -> AccessFuture<'_, Result<(), CreateAccountError>> {
        change(async move {
            let mut change = Change::begin(&self.people).await?;
            let added = add_user(&mut change, &user, admission).await?;
            match added {
                Ok(()) => change.commit().await?,
                // An invitation is not used up by who is not let in.
                Err(_) => change.roll_back().await?,
            }
            Ok(added)
        })
    }

    fn account_by_login(&self, login: String) -> AccessFuture<'_, Option<Account>> {
        look(async move {
            let sql = users!("WHERE login = $1");
            let rows = self.people.query(sql, &[&login.as_bytes()]).await?;
            rows.first().map(|row| user(row, 0)).transpose()
        })
    }

    fn account(&self, id: Subject) -> AccessFuture<'_, Option<Account>> {
        look(async move {
            let sql = users!("WHERE id = $1");
            let rows = self.people.query(sql, &[&id.0.as_bytes()]).await?;
            rows.first().map(|row| user(row, 0)).transpose()
        })
    }

    fn set_password(
        &self,
        user: Subject,
        password: String,
        keep: Option<SessionKey>,
    ) -> AccessFuture<'_, ()> {
        change(async move {
            let mut change = Change::begin(&self.people).await?;
            let id = user.0.as_bytes();
            change
                .query(
                    "UPDATE users SET password = $2 WHERE id = $1",
                    &[&id, &password],
                )
                .await?;
            change
                .note(&user, "change password", None, Some(&user), None)
                .await?;
            end_others(&mut change, &user, keep.as_ref()).await?;
            change.commit().await
        })
    }

    fn set_tenant_role(
        &self,
        user: Subject,
        role: Option<Role>,
        by: Subject,
    ) -> AccessFuture<'_, bool> {
        change(async move {
            let mut change = Change::begin(&self.people).await?;
            let changed = change
                .query(
                    "UPDATE users SET role = $2 WHERE id = $1 RETURNING id",
                    &[&user.0.as_bytes(), &number(role)],
                )
                .await?;
            change
                .note(&by, "set tenant role", None, Some(&user), Some(word(role)))
                .await?;
            change.revoke(Revoked::everywhere(user));
            change.commit().await?;
            Ok(!changed.is_empty())
        })
    }

    fn set_disabled(&self, user: Subject, disabled: bool, by: Subject) -> AccessFuture<'_, bool> {
        change(async move {
            let mut change = Change::begin(&self.people).await?;
            let changed = change
                .query(
                    "UPDATE users SET disabled = $2 WHERE id = $1 RETURNING id",
                    &[&user.0.as_bytes(), &disabled],
                )
                .await?;
            let deed = if disabled {
                "close account"
            } else {
                "open account"
            };
            change.note(&by, deed, None, Some(&user), None).await?;
            if disabled {
                end_others(&mut change, &user, None).await?;
                change.revoke(Revoked::ended(user, None));
            }
            change.commit().await?;
            Ok(!changed.is_empty())
        })
    }

    fn accounts_of(
        &self,
        tenant: String,
        after: String,
        limit: usize,
    ) -> AccessFuture<'_, Vec<Account>> {
        look(async move {
            let sql = users!("WHERE tenant = $1 AND login > $2 ORDER BY login LIMIT $3");
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = self
                .people
                .query(sql, &[&tenant, &after.as_bytes(), &limit])
                .await?;
            rows.iter().map(|row| user(row, 0)).collect()
        })
    }

    fn create_reset(&self, reset: PasswordReset, by: Subject) -> AccessFuture<'_, ()> {
        change(async move {
            let mut change = Change::begin(&self.people).await?;
            let until = change.after(reset.lasts);
            let (id, code, maker) = (
                reset.user.0.as_bytes(),
                reset.code.as_slice(),
                by.0.as_bytes(),
            );
            change
                .query(ALLOW_RESET, &[&id, &code, &maker, &until])
                .await?;
            change
                .note(&by, "allow reset", None, Some(&reset.user), None)
                .await?;
            change.commit().await
        })
    }

    fn reset_password(
        &self,
        code: SecretHash,
        password: String,
    ) -> AccessFuture<'_, Option<Subject>> {
        change(async move {
            let mut change = Change::begin(&self.people).await?;
            let now = change.now();
            let taken = change.query(TAKE_RESET, &[&code.as_slice(), &now]).await?;
            let Some(row) = taken.first() else {
                change.roll_back().await?;
                return Ok(None);
            };
            let user = subject(row, 0)?;
            change
                .query(
                    "UPDATE users SET password = $2 WHERE id = $1",
                    &[&user.0.as_bytes(), &password],
                )
                .await?;
            change
                .note(&user, "reset password", None, Some(&user), None)
                .await?;
            end_others(&mut change, &user, None).await?;
            change.commit().await?;
            Ok(Some(user))
        })
    }

    fn is_reset_valid(&self, code: SecretHash) -> AccessFuture<'_, bool> {
        look(async move {
            let rows = self.people.query(MAY_RESET, &[&code.as_slice()]).await?;
            Ok(!rows.is_empty())
        })
    }

    fn is_invitation_valid(&self, code: SecretHash) -> AccessFuture<'_, bool> {
        look(async move {
            let rows = self.people.query(IS_INVITED, &[&code.as_slice()]).await?;
            Ok(!rows.is_empty())
        })
    }

    fn invitations(&self, tenant: String) -> AccessFuture<'_, Vec<PendingInvitation>> {
        look(async move {
            let rows = self.people.query(INVITATIONS, &[&tenant]).await?;
            rows.iter().map(invited).collect()
        })
    }

    fn delete_invitation(
        &self,
        tenant: String,
        id: Subject,
        by: Subject,
    ) -> AccessFuture<'_, bool> {
        change(async move {
            let mut change = Change::begin(&self.people).await?;
            let ended = change
                .query(
                    "DELETE FROM invitations WHERE tenant = $1 AND id = $2 RETURNING id",
                    &[&tenant, &id.0.as_bytes()],
                )
                .await?;
            if !ended.is_empty() {
                change.note(&by, "end invitation", None, None, None).await?;
            }
            change.commit().await?;
            Ok(!ended.is_empty())
        })
    }

    fn create_invitation(&self, invitation: NewInvitation, by: Subject) -> AccessFuture<'_, bool> {
        change(async move {
            let mut change = Change::begin(&self.people).await?;
            let (now, until) = (change.now(), change.after(invitation.lasts));
            change.query(FORGET_INVITATIONS, &[&now]).await?;
            change.query(LOCK_TENANT, &[&invitation.tenant]).await?;
            let invited = change
                .query(COUNT_INVITATIONS, &[&invitation.tenant, &now])
                .await?;
            if count(&invited) >= invitation.invitations_max {
                change.roll_back().await?;
                return Ok(false);
            }
            let (code, role) = (invitation.code.as_slice(), number(invitation.role));
            let (id, maker) = (invitation.id.0.as_bytes(), by.0.as_bytes());
            let values: [&(dyn ToSql + Sync); 6] =
                [&code, &id, &invitation.tenant, &role, &maker, &until];
            change.query(INVITE, &values).await?;
            let role = word(invitation.role);
            change.note(&by, "invite", None, None, Some(role)).await?;
            change.commit().await?;
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
        change(async move {
            let mut change = Change::begin(&self.people).await?;
            let (now, until) = (change.now(), change.after(lasts));
            change.query(FORGET_SESSIONS, &[&now]).await?;
            let (id, refresh) = (user.0.as_bytes(), refresh.as_slice());
            change
                .query(BEGIN_SESSION, &[&key.0, &id, &refresh, &now, &until])
                .await?;
            let others_max = i64::try_from(sessions_max.saturating_sub(1)).unwrap_or(i64::MAX);
            let ended = change
                .query(END_OLDEST, &[&id, &key.0, &others_max])
                .await?;
            for row in &ended {
                let ended = Some(SessionKey(row.get(0)));
                change.revoke(Revoked::ended(user.clone(), ended));
            }
            change.note(&user, "sign in", None, None, None).await?;
            change.commit().await
        })
    }

    fn renew_session(
        &self,
        key: SessionKey,
        refresh: SecretHash,
        next: SecretHash,
        grace: Duration,
    ) -> AccessFuture<'_, Renewal> {
        change(async move {
            let mut change = Change::begin(&self.people).await?;
            let renewal = renew_session(&mut change, key, refresh, next, grace).await?;
            change.commit().await?;
            Ok(renewal)
        })
    }

    fn session(&self, key: SessionKey) -> AccessFuture<'_, Option<LiveSession>> {
        look(async move {
            let rows = self.people.query(SESSION, &[&key.0]).await?;
            let live = |row: &Row| {
                Ok(LiveSession {
                    user: user(row, 1)?,
                    age: milliseconds(row.get(0)),
                })
            };
            rows.first().map(live).transpose()
        })
    }

    fn end_session(&self, key: SessionKey) -> AccessFuture<'_, ()> {
        change(async move {
            let mut change = Change::begin(&self.people).await?;
            if let Some(user) = end_session(&mut change, key).await? {
                change.note(&user, "sign out", None, None, None).await?;
            }
            change.commit().await
        })
    }

    fn end_sessions_of(&self, subject: Subject, by: Subject) -> AccessFuture<'_, ()> {
        change(async move {
            let mut change = Change::begin(&self.people).await?;
            change
                .note(&by, "sign out everywhere", None, Some(&subject), None)
                .await?;
            end_others(&mut change, &subject, None).await?;
            // Also those who came with a token of another application, of whom no session is kept here.
            let seconds = change.now() / 1_000;
            change
                .query(END_TOKENS, &[&subject.0.as_bytes(), &seconds])
                .await?;
            change.revoke(Revoked::ended(subject, None));
            change.commit().await
        })
    }

    fn tokens_ended(&self, subject: Subject) -> AccessFuture<'_, Option<u64>> {
        look(async move {
            let sql = "SELECT issued_until FROM ended_tokens WHERE subject = $1";
            let rows = self.people.query(sql, &[&subject.0.as_bytes()]).await?;
            Ok(rows.first().map(|row| row.get::<_, i64>(0).cast_unsigned()))
        })
    }

    fn permissions(&self, who: Principal, docs: Vec<DocId>) -> AccessFuture<'_, Vec<Permission>> {
        look(async move { rights(&self.people, &who, &docs).await })
    }

    fn register_document(
        &self,
        doc: DocId,
        subject: Subject,
        documents_max: Option<u64>,
    ) -> AccessFuture<'_, DocumentRegistration> {
        change(async move {
            let (collection, id) = names(&doc);
            let tenant = tenant_of(&doc.collection);
            let subject = subject.0.as_bytes();
            let most = documents_max.map(|most| i64::try_from(most).unwrap_or(i64::MAX));
            let values: [&(dyn ToSql + Sync); 5] = [&collection, &id, &subject, &tenant, &most];
            let rows = self.people.query(OWN, &values).await?;
            let (is_owned, is_full) = match rows.first() {
                Some(row) => (row.get(0), row.get(1)),
                None => (false, false),
            };
            Ok(match (is_owned, is_full) {
                (true, _) => DocumentRegistration::Registered,
                (false, true) => DocumentRegistration::QuotaReached,
                (false, false) => DocumentRegistration::Exists,
            })
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
        change(async move {
            let mut change = Change::begin(&self.people).await?;
            let Some(by) = owner(&mut change, &by, &doc).await? else {
                change.roll_back().await?;
                return Ok(Err(ShareError::NotOwner));
            };
            let (collection, id) = names(&doc);
            let holder = subject.0.as_bytes();
            if role.is_some() {
                let holders = change
                    .query(COUNT_HOLDERS, &[&collection, &id, &holder])
                    .await?;
                if count(&holders) >= people_max {
                    change.roll_back().await?;
                    return Ok(Err(ShareError::QuotaReached));
                }
            }
            let is_owner = match role {
                Some(_) => {
                    let role = number(role);
                    let given = change
                        .query(GIVE_ROLE, &[&collection, &id, &holder, &role])
                        .await?;
                    given.is_empty()
                }
                None => {
                    let owned = change
                        .query(TAKE_ROLE, &[&collection, &id, &holder])
                        .await?;
                    !owned.is_empty()
                }
            };
            if is_owner {
                change.roll_back().await?;
                return Ok(Err(ShareError::OwnerMustTransfer));
            }
            let role = Some(word(role));
            change
                .note(by, "set role", Some(&doc), Some(&subject), role)
                .await?;
            change.revoke(Revoked::on(subject, &doc));
            change.commit().await?;
            Ok(Ok(()))
        })
    }

    fn transfer_ownership(
        &self,
        doc: DocId,
        to: Subject,
        by: Principal,
    ) -> AccessFuture<'_, Result<(), ShareError>> {
        change(async move {
            let mut change = Change::begin(&self.people).await?;
            let Some(by) = owner(&mut change, &by, &doc).await? else {
                change.roll_back().await?;
                return Ok(Err(ShareError::NotOwner));
            };
            let (collection, id) = names(&doc);
            let heir = to.0.as_bytes();
            let owners = change.query(DEMOTE, &[&collection, &id]).await?;
            change.query(PROMOTE, &[&collection, &id, &heir]).await?;
            change
                .note(by, "transfer", Some(&doc), Some(&to), None)
                .await?;
            for owner in &owners {
                change.revoke(Revoked::on(subject(owner, 0)?, &doc));
            }
            change.revoke(Revoked::on(to, &doc));
            change.commit().await?;
            Ok(Ok(()))
        })
    }

    fn grants(&self, doc: DocId) -> AccessFuture<'_, Vec<Grant>> {
        look(async move {
            let (collection, id) = names(&doc);
            let rows = self.people.query(HOLDERS, &[&collection, &id]).await?;
            rows.iter().map(holder).collect()
        })
    }

    fn list_for(&self, who: Principal, query: ListQuery) -> AccessFuture<'_, ListPage> {
        async move {
            let list = list::list_for(&self.lists, &who, &query).await;
            list.map_err(|fault| self.list_error(fault))
        }
        .boxed()
    }

    fn create_link(
        &self,
        link: NewShareLink,
        by: Principal,
    ) -> AccessFuture<'_, Result<(), ShareError>> {
        change(async move {
            let mut change = Change::begin(&self.people).await?;
            let Some(by) = owner(&mut change, &by, &link.doc).await? else {
                change.roll_back().await?;
                return Ok(Err(ShareError::NotOwner));
            };
            let (collection, id) = names(&link.doc);
            let now = change.now();
            change
                .query(FORGET_LINKS, &[&collection, &id, &now])
                .await?;
            let links = change.query(COUNT_LINKS, &[&collection, &id]).await?;
            if count(&links) >= link.links_max {
                change.roll_back().await?;
                return Ok(Err(ShareError::QuotaReached));
            }
            let role = number(Some(link.role.min(Role::Editor)));
            let (name, secret) = (link.id.0.as_bytes(), link.secret.as_slice());
            let until = link.lasts.map(|lasts| change.after(lasts));
            let values: [&(dyn ToSql + Sync); 8] = [
                &name,
                &collection,
                &id,
                &role,
                &secret,
                &link.password,
                &until,
                &now,
            ];
            change.query(ADD_LINK, &values).await?;
            let role = Some(word(Some(link.role)));
            change
                .note(by, "make link", Some(&link.doc), Some(&link.id), role)
                .await?;
            change.commit().await?;
            Ok(Ok(()))
        })
    }

    fn links(&self, doc: DocId) -> AccessFuture<'_, Vec<ShareLink>> {
        look(async move {
            let (collection, id) = names(&doc);
            let sql = links!("AND collection = $1 AND doc = $2 ORDER BY created_at_ms, id");
            let rows = self.people.query(sql, &[&collection, &id]).await?;
            rows.iter().map(link).collect()
        })
    }

    fn link_by_secret(&self, secret: SecretHash) -> AccessFuture<'_, Option<ShareLink>> {
        look(async move {
            let sql = links!("AND secret = $1");
            let rows = self.people.query(sql, &[&secret.as_slice()]).await?;
            rows.first().map(link).transpose()
        })
    }

    fn delete_link(
        &self,
        doc: DocId,
        link: Subject,
        by: Principal,
    ) -> AccessFuture<'_, Result<(), ShareError>> {
        change(async move {
            let mut change = Change::begin(&self.people).await?;
            let Some(by) = owner(&mut change, &by, &doc).await? else {
                change.roll_back().await?;
                return Ok(Err(ShareError::NotOwner));
            };
            let (collection, id) = names(&doc);
            let ended = change
                .query(
                    "DELETE FROM links WHERE id = $1 AND collection = $2 AND doc = $3 RETURNING id",
                    &[&link.0.as_bytes(), &collection, &id],
                )
                .await?;
            if ended.is_empty() {
                change.roll_back().await?;
                return Ok(Err(ShareError::LinkNotFound));
            }
            change
                .note(by, "end link", Some(&doc), Some(&link), None)
                .await?;
            change.revoke(Revoked::on(link, &doc));
            change.commit().await?;
            Ok(Ok(()))
        })
    }

    fn revocations(&self, since: u64) -> AccessFuture<'_, Vec<Revocation>> {
        look(async move {
            let since = i64::try_from(since).unwrap_or(i64::MAX);
            let page = REVOCATIONS_PAGE as i64;
            let rows = self.watch.query(REVOCATIONS, &[&since, &page]).await?;
            rows.iter().map(revocation).collect()
        })
    }

    fn last_revocation(&self) -> AccessFuture<'_, u64> {
        look(async {
            let sql = "SELECT sequence FROM revocation_count WHERE one";
            let rows = self.people.query(sql, &[]).await?;
            let last = rows.first().map(|row| row.get::<_, i64>(0).cast_unsigned());
            last.ok_or_else(|| {
                PostgresError::Other("the count of the revocations is lost".to_owned())
            })
        })
    }

    fn audit_events(
        &self,
        doc: DocId,
        before: Option<u64>,
        limit: usize,
    ) -> AccessFuture<'_, Vec<AuditEvent>> {
        look(async move {
            let (collection, id) = names(&doc);
            let most = |number| i64::try_from(number).unwrap_or(i64::MAX);
            let (before, limit) = (before.map_or(i64::MAX, most), most(limit as u64));
            let rows = self
                .people
                .query(AUDIT, &[&collection, &id, &before, &limit])
                .await?;
            rows.iter().map(deed).collect()
        })
    }

    fn audit_events_of(
        &self,
        tenant: String,
        before: Option<u64>,
        limit: usize,
    ) -> AccessFuture<'_, Vec<AuditEvent>> {
        look(async move {
            let most = |number| i64::try_from(number).unwrap_or(i64::MAX);
            let (before, limit) = (before.map_or(i64::MAX, most), most(limit as u64));
            let rows = self
                .people
                .query(AUDIT_OF_TENANT, &[&tenant, &before, &limit])
                .await?;
            rows.iter().map(deed).collect()
        })
    }

    fn audit(
        &self,
        actor: Subject,
        deed: &'static str,
        doc: Option<DocId>,
        subject: Option<Subject>,
    ) -> AccessFuture<'_, ()> {
        change(async move {
            let mut change = Change::begin(&self.people).await?;
            change
                .note(&actor, deed, doc.as_ref(), subject.as_ref(), None)
                .await?;
            change.commit().await
        })
    }

    fn add_usage(&self, tenant: String, bytes: u64) -> AccessFuture<'_, u64> {
        change(async move {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            let rows = self.people.query(TAKE_BYTES, &[&tenant, &bytes]).await?;
            Ok(rows
                .first()
                .map_or(0, |row| row.get::<_, i64>(0).cast_unsigned()))
        })
    }
}

fn look<'a, T>(
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

// ---- Users ----

const ANY_USER: &str = "SELECT 1 FROM users LIMIT 1";

/// Nobody else makes an account until this one is made or not.
const LOCK_USERS: &str = "LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE";

const ADD_USER: &str = "
INSERT INTO users (id, tenant, login, name, password, role, created_at_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (login) DO NOTHING
RETURNING id";

const INVITE: &str = "
INSERT INTO invitations (code, id, tenant, role, maker, expires_at_ms)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (code) DO NOTHING";

/// One invitation of a tenant at a time, so that the count holds.
const LOCK_TENANT: &str =
    "SELECT pg_advisory_xact_lock(hashtextextended('invitations of ' || $1::text, 0))";

const COUNT_INVITATIONS: &str =
    "SELECT count(*) FROM invitations WHERE tenant = $1 AND expires_at_ms > $2";

/// Of makers that may give what they gave still.
const IS_INVITED: &str = concat!(
    "
SELECT 1
FROM invitations i
JOIN users u ON u.id = i.maker AND u.tenant = i.tenant AND u.role = 4 AND NOT u.disabled
WHERE i.code = $1 AND i.expires_at_ms > ",
    now_ms!()
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

const ALLOW_RESET: &str = "
INSERT INTO resets (user_id, code, maker, expires_at_ms)
VALUES ($1, $2, $3, $4)
ON CONFLICT (user_id) DO UPDATE
SET code = excluded.code, maker = excluded.maker, expires_at_ms = excluded.expires_at_ms";

const MAY_RESET: &str = concat!(
    "
SELECT 1
FROM resets r
JOIN users u ON u.id = r.user_id
JOIN users m ON m.id = r.maker AND m.tenant = u.tenant AND m.role = 4 AND NOT m.disabled
WHERE r.code = $1 AND r.expires_at_ms > ",
    now_ms!()
);

const TAKE_RESET: &str = "
DELETE FROM resets r
USING users u, users m
WHERE r.code = $1 AND r.expires_at_ms > $2 AND u.id = r.user_id
  AND m.id = r.maker AND m.tenant = u.tenant AND m.role = 4 AND NOT m.disabled
RETURNING r.user_id";

/// What somebody else deletes at this moment is passed over, here and below: nobody waits in a circle.
const FORGET_INVITATIONS: &str = "
DELETE FROM invitations
WHERE code IN (
  SELECT code FROM invitations WHERE expires_at_ms <= $1 LIMIT 1000 FOR UPDATE SKIP LOCKED)";

const TAKE_INVITATION: &str = "
DELETE FROM invitations i
USING users u
WHERE i.code = $1 AND i.expires_at_ms > $2
  AND u.id = i.maker AND u.tenant = i.tenant AND u.role = 4 AND NOT u.disabled
RETURNING i.tenant, i.role";

async fn add_user(
    change: &mut Change,
    user: &AccountDraft,
    admission: Admission,
) -> Result<Result<(), CreateAccountError>, PostgresError> {
    if admission == Admission::First {
        change.query(LOCK_USERS, &[]).await?;
    }
    let (id, login) = (user.id.0.as_bytes(), user.login.as_bytes());
    let now = change.now();
    // Before anything is said of the login: who may not come in learns nothing of who is here.
    let (tenant, role) = match admission {
        Admission::First if !change.query(ANY_USER, &[]).await?.is_empty() => {
            return Ok(Err(CreateAccountError::NotFirst));
        }
        Admission::First => (user.tenant.clone(), Some(Role::Owner)),
        Admission::Open { accounts_max } => {
            let most = i64::try_from(accounts_max).unwrap_or(i64::MAX);
            if count(&change.query(COUNT_USERS, &[&most]).await?) >= accounts_max {
                return Ok(Err(CreateAccountError::QuotaReached));
            }
            (user.tenant.clone(), None)
        }
        Admission::Invited(code) => {
            let invited = change
                .query(TAKE_INVITATION, &[&code.as_slice(), &now])
                .await?;
            match invited.first() {
                Some(row) => (row.get(0), role(row, 1)),
                None => return Ok(Err(CreateAccountError::NotInvited)),
            }
        }
    };
    let (name, level) = (user.name.as_bytes(), number(role));
    let values: [&(dyn ToSql + Sync); 7] =
        [&id, &tenant, &login, &name, &user.password, &level, &now];
    if change.query(ADD_USER, &values).await?.is_empty() {
        return Ok(Err(CreateAccountError::LoginTaken));
    }
    change
        .note(&user.id, "make account", None, None, Some(word(role)))
        .await?;
    Ok(Ok(()))
}

// ---- Sessions ----

const FORGET_SESSIONS: &str = "
DELETE FROM sessions
WHERE id IN (
  SELECT id FROM sessions WHERE expires_at_ms <= $1 LIMIT 1000 FOR UPDATE SKIP LOCKED)";

/// Ends a user's sessions but the newest: one that has just begun, and so many that were renewed last.
const END_OLDEST: &str = "
DELETE FROM sessions
WHERE id IN (
  SELECT id
  FROM sessions
  WHERE user_id = $1 AND id <> $2
  ORDER BY renewed_at_ms DESC, id DESC
  OFFSET $3
  FOR UPDATE SKIP LOCKED)
RETURNING id";

/// Counts accounts, at most `$1`: what is counted for a stranger must not grow with what there is.
const COUNT_USERS: &str = "
SELECT count(*)
FROM (SELECT FROM users LIMIT $1) AS counted";

const BEGIN_SESSION: &str = "
INSERT INTO sessions (id, user_id, refresh, renewed_at_ms, expires_at_ms)
VALUES ($1, $2, $3, $4, $5)";

const SESSION: &str = concat!(
    "
SELECT ",
    now_ms!(),
    " - s.renewed_at_ms, u.id, u.tenant, u.login, u.name, u.password, u.role, u.disabled
FROM sessions s
JOIN users u ON u.id = s.user_id
WHERE s.id = $1 AND NOT u.disabled AND s.expires_at_ms > ",
    now_ms!()
);

/// Two tabs that renew at the same moment come one after the other: the second finds what the first has written.
const LOCK_SESSION: &str = "
SELECT refresh, previous, renewed_at_ms
FROM sessions
WHERE id = $1 AND expires_at_ms > $2
FOR UPDATE";

const RENEW: &str = "
UPDATE sessions
SET refresh = $2, previous = $3, renewed_at_ms = $4
WHERE id = $1";

const END_TOKENS: &str = "
INSERT INTO ended_tokens (subject, issued_until)
VALUES ($1, $2)
ON CONFLICT (subject) DO UPDATE
SET issued_until = greatest(ended_tokens.issued_until, excluded.issued_until)";

/// Locked in one order, whoever else ends them.
const END_OTHERS: &str = "
DELETE FROM sessions
WHERE id IN (
  SELECT id
  FROM sessions
  WHERE user_id = $1 AND id IS DISTINCT FROM $2
  ORDER BY id
  FOR UPDATE)
RETURNING id";

async fn renew_session(
    change: &mut Change,
    key: SessionKey,
    refresh: SecretHash,
    next: SecretHash,
    grace: Duration,
) -> Result<Renewal, PostgresError> {
    let now = change.now();
    let rows = change.query(LOCK_SESSION, &[&key.0, &now]).await?;
    let Some(row) = rows.first() else {
        return Ok(Renewal::Ended);
    };
    let (newest, previous): (&[u8], Option<&[u8]>) = (row.get(0), row.get(1));
    if newest == refresh {
        let (next, refresh) = (next.as_slice(), refresh.as_slice());
        change
            .query(RENEW, &[&key.0, &next, &refresh, &now])
            .await?;
        return Ok(Renewal::Renewed);
    }
    let lasts = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
    let recently = now < row.get::<_, i64>(2).saturating_add(lasts);
    if previous == Some(refresh.as_slice()) && recently {
        return Ok(Renewal::JustRenewed);
    }
    end_session(change, key).await?;
    Ok(Renewal::Reused)
}

/// Ends a session, and says whose it was.
async fn end_session(
    change: &mut Change,
    key: SessionKey,
) -> Result<Option<Subject>, PostgresError> {
    let ended = change
        .query(
            "DELETE FROM sessions WHERE id = $1 RETURNING user_id",
            &[&key.0],
        )
        .await?;
    let user = ended.first().map(|row| subject(row, 0)).transpose()?;
    if let Some(user) = &user {
        change.revoke(Revoked::ended(user.clone(), Some(key)));
    }
    Ok(user)
}

/// Ends the sessions of a user but one.
async fn end_others(
    change: &mut Change,
    user: &Subject,
    keep: Option<&SessionKey>,
) -> Result<(), PostgresError> {
    let (id, keep) = (user.0.as_bytes(), keep.map(|key| key.0.as_str()));
    for row in change.query(END_OTHERS, &[&id, &keep]).await? {
        let key = SessionKey(row.get(0));
        change.revoke(Revoked::ended(user.clone(), Some(key)));
    }
    Ok(())
}

// ---- Rights ----

/// What a user may do by a role on the whole tenant or one of their own, and by the best of the share links. One
/// statement: what is given and taken meanwhile is seen whole or not at all.
const RIGHTS: &str = concat!(
    "
SELECT
  CASE WHEN asked.is_home THEN greatest(
    (SELECT users.role FROM users WHERE users.id = $4 AND users.tenant = $5),
    (SELECT grants.role
     FROM grants
     WHERE grants.collection = asked.collection AND grants.id = asked.id AND grants.subject = $4))
  END,
  link.role,
  link.lasts
FROM unnest($1::text[], $2::text[], $3::boolean[])
  WITH ORDINALITY AS asked (collection, id, is_home, place)
LEFT JOIN LATERAL (
  SELECT links.role, links.expires_at_ms - ",
    now_ms!(),
    " AS lasts
  FROM unnest($6::bytea[]) WITH ORDINALITY AS opened (id, place)
  JOIN links ON links.id = opened.id
  WHERE links.collection = asked.collection AND links.doc = asked.id
    AND (links.expires_at_ms IS NULL OR links.expires_at_ms > ",
    now_ms!(),
    ")
  ORDER BY links.role DESC, opened.place
  LIMIT 1
) AS link ON true
ORDER BY asked.place"
);

/// Only of a document that has no holder, and that nobody has claimed; and only where the tenant has room. Those who come
/// at the same moment may go beyond it by their number.
const OWN: &str = concat!(
    "
WITH asked AS (
  SELECT NOT EXISTS (SELECT 1 FROM grants WHERE grants.collection = $1 AND grants.id = $2)
      AND NOT EXISTS (SELECT 1 FROM documents WHERE documents.collection = $1 AND documents.id = $2) AS is_free,
    coalesce((SELECT usage.documents FROM usage WHERE usage.tenant = $4) >= $5::bigint, $5 <= 0, false) AS is_full
), owned AS (
  INSERT INTO grants (collection, id, subject, role)
  SELECT $1::text, $2::text, $3::bytea, 4
  FROM asked
  WHERE asked.is_free AND NOT asked.is_full
  ON CONFLICT DO NOTHING
  RETURNING subject
), noted AS (
  INSERT INTO audit (at_ms, actor, deed, collection, doc, tenant)
  SELECT ",
    now_ms!(),
    ", owned.subject, 'create', $1, $2, $4
  FROM owned
), counted AS (
  INSERT INTO usage (tenant, documents, bytes)
  SELECT $4::text, 1, 0
  FROM owned
  ON CONFLICT (tenant) DO UPDATE
  SET documents = usage.documents + 1
)
SELECT EXISTS (SELECT 1 FROM owned), asked.is_free AND asked.is_full
FROM asked"
);

const TAKE_BYTES: &str = "
INSERT INTO usage (tenant, documents, bytes)
VALUES ($1, 0, $2)
ON CONFLICT (tenant) DO UPDATE
SET bytes = usage.bytes + excluded.bytes
RETURNING bytes";

/// Returns nothing where the subject owns the document, also since a moment ago.
const GIVE_ROLE: &str = "
INSERT INTO grants (collection, id, subject, role)
VALUES ($1, $2, $3, $4)
ON CONFLICT (collection, id, subject) DO UPDATE
SET role = excluded.role
WHERE grants.role <> 4
RETURNING role";

/// Returns something where the subject owns the document.
const TAKE_ROLE: &str = "
WITH taken AS (
  DELETE FROM grants WHERE collection = $1 AND id = $2 AND subject = $3 AND role <> 4
)
SELECT 1 FROM grants WHERE collection = $1 AND id = $2 AND subject = $3 AND role = 4";

/// One change of a document's rights at a time. Not by the rows: who comes later sees more of them, and locks them in
/// another order.
const LOCK_OWNER: &str =
    "SELECT pg_advisory_xact_lock(hashtextextended($1::text || '/' || $2::text, 0))";

/// The role on the whole tenant stays what it is until this transaction ends.
const TENANT_ROLE: &str = "
SELECT role
FROM users
WHERE id = $1 AND tenant = $2
FOR SHARE";

const OWN_ROLE: &str = "
SELECT role
FROM grants
WHERE collection = $1 AND id = $2 AND subject = $3";

const DEMOTE: &str = "
UPDATE grants
SET role = 3
WHERE collection = $1 AND id = $2 AND role = 4
RETURNING subject";

const PROMOTE: &str = "
INSERT INTO grants (collection, id, subject, role)
VALUES ($1, $2, $3, 4)
ON CONFLICT (collection, id, subject) DO UPDATE
SET role = 4";

const HOLDERS: &str = "
SELECT g.subject, g.role, u.login, u.name
FROM grants g
LEFT JOIN users u ON u.id = g.subject
WHERE g.collection = $1 AND g.id = $2
ORDER BY g.role DESC, u.name NULLS FIRST, g.subject";

/// How many have a role on a document, the owner included; 0 where the subject is one of them, for it adds none. The change
/// holds the document's lock, so the count holds until its end.
const COUNT_HOLDERS: &str = "
SELECT CASE WHEN bool_or(subject = $3) THEN 0 ELSE count(*) END
FROM grants
WHERE collection = $1 AND id = $2";

const FORGET_LINKS: &str =
    "DELETE FROM links WHERE collection = $1 AND doc = $2 AND expires_at_ms <= $3";

const COUNT_LINKS: &str = "SELECT count(*) FROM links WHERE collection = $1 AND doc = $2";

const ADD_LINK: &str = "
INSERT INTO links (id, collection, doc, role, secret, password, expires_at_ms, created_at_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

/// Who it is, if they own the document, as they will until the change's end. Whoever changes its rights at the same moment
/// waits, and then sees this one's: statements see what was committed before they began.
async fn owner<'a>(
    change: &mut Change,
    who: &'a Principal,
    doc: &DocId,
) -> Result<Option<&'a Subject>, PostgresError> {
    let (collection, id) = names(doc);
    change.query(LOCK_OWNER, &[&collection, &id]).await?;
    let tenant = tenant_of(&doc.collection);
    let Some(user) = who
        .user
        .as_ref()
        .filter(|_| who.tenant.as_deref() == Some(tenant))
    else {
        return Ok(None);
    };
    let name = user.0.as_bytes();
    let on_all = change.query(TENANT_ROLE, &[&name, &tenant]).await?;
    let own = change.query(OWN_ROLE, &[&collection, &id, &name]).await?;
    let found = on_all.iter().chain(&own).filter_map(|row| role(row, 0));
    Ok((found.max().max(who.role) == Some(Role::Owner)).then_some(user))
}

/// The most that any of these gives: a role on the whole tenant, a role of one's own, a share link.
async fn rights(
    pool: &Pool,
    who: &Principal,
    docs: &[DocId],
) -> Result<Vec<Permission>, PostgresError> {
    let user = who.user.as_ref().map(|user| user.0.as_bytes());
    // Nobody but by a share link reaches into another tenant.
    let is_home =
        |doc: &DocId| user.is_some() && who.tenant.as_deref() == Some(tenant_of(&doc.collection));
    let collections: Vec<_> = docs.iter().map(|doc| doc.collection.as_str()).collect();
    let ids: Vec<_> = docs.iter().map(|doc| doc.id.as_str()).collect();
    let homes: Vec<_> = docs.iter().map(is_home).collect();
    let links: Vec<_> = who.links.iter().map(|link| link.0.as_bytes()).collect();
    let values: [&(dyn ToSql + Sync); 6] = [&collections, &ids, &homes, &user, &who.tenant, &links];
    let rows = pool.query(RIGHTS, &values).await?;
    let right = |(row, is_home): (&Row, &bool)| {
        let vouched = who.role.filter(|_| *is_home);
        let own = role(row, 0).max(vouched);
        let link = role(row, 1);
        if link > own {
            let lasts: Option<i64> = row.get(2);
            return Permission {
                role: link,
                lasts: lasts.map(milliseconds),
            };
        }
        Permission {
            role: own,
            lasts: None,
        }
    };
    Ok(rows.iter().zip(&homes).map(right).collect())
}

// ---- What was done ----

const REVOCATIONS: &str = "
SELECT sequence, subject, session, ends, collection, doc
FROM revocations
WHERE sequence > $1
ORDER BY sequence
LIMIT $2";

const AUDIT: &str = "
SELECT number, at_ms, actor, deed, collection, doc, subject, detail, times, last_at_ms
FROM audit
WHERE collection = $1 AND doc = $2 AND number < $3
ORDER BY number DESC
LIMIT $4";

const AUDIT_OF_TENANT: &str = "
SELECT number, at_ms, actor, deed, collection, doc, subject, detail, times, last_at_ms
FROM audit
WHERE tenant = $1 AND number < $2
ORDER BY number DESC
LIMIT $3";

// ---- Rows ----

fn user(row: &Row, first: usize) -> Result<Account, PostgresError> {
    Ok(Account {
        id: subject(row, first)?,
        tenant: row.get(first + 1),
        login: text(row.get(first + 2))?,
        name: text(row.get(first + 3))?,
        password: row.get(first + 4),
        role: role(row, first + 5),
        disabled: row.get(first + 6),
    })
}

fn invited(row: &Row) -> Result<PendingInvitation, PostgresError> {
    Ok(PendingInvitation {
        id: subject(row, 0)?,
        role: role(row, 1),
        maker: subject(row, 2)?,
        expires_at_ms: row.get::<_, i64>(3).cast_unsigned(),
    })
}

fn holder(row: &Row) -> Result<Grant, PostgresError> {
    let login = row.get::<_, Option<Vec<u8>>>(2).map(text).transpose()?;
    let name = row.get::<_, Option<Vec<u8>>>(3).map(text).transpose()?;
    Ok(Grant {
        subject: subject(row, 0)?,
        account: login.zip(name),
        role: role(row, 1).unwrap_or(Role::Viewer),
    })
}

fn link(row: &Row) -> Result<ShareLink, PostgresError> {
    let (collection, id): (&str, &str) = (row.get(1), row.get(2));
    let doc = DocId::parse(collection, id)
        .map_err(|error| PostgresError::Other(format!("{collection}/{id}: {error}")))?;
    Ok(ShareLink {
        id: subject(row, 0)?,
        doc,
        role: role(row, 3).unwrap_or(Role::Viewer),
        password: row.get(4),
        expires_at_ms: row.get::<_, Option<i64>>(5).map(i64::cast_unsigned),
    })
}

fn revocation(row: &Row) -> Result<Revocation, PostgresError> {
    Ok(Revocation {
        sequence: row.get::<_, i64>(0).cast_unsigned(),
        subject: subject(row, 1)?,
        session: row.get::<_, Option<String>>(2).map(SessionKey),
        ends: row.get(3),
        doc: Revocation::document(row.get(4), row.get(5)),
    })
}

fn deed(row: &Row) -> Result<AuditEvent, PostgresError> {
    let whom = row.get::<_, Option<Vec<u8>>>(6).map(text).transpose()?;
    let doc: (Option<String>, Option<String>) = (row.get(4), row.get(5));
    Ok(AuditEvent {
        number: row.get::<_, i64>(0).cast_unsigned(),
        at_ms: row.get::<_, i64>(1).cast_unsigned(),
        actor: subject(row, 2)?,
        action: row.get(3),
        doc: doc.0.zip(doc.1),
        subject: whom.map(Subject),
        detail: row.get(7),
        times: row.get::<_, i64>(8).cast_unsigned(),
        last_at_ms: row.get::<_, Option<i64>>(9).map(i64::cast_unsigned),
    })
}

/// What a count of rows says.
fn count(rows: &[Row]) -> u64 {
    rows.first()
        .map_or(0, |row| row.get::<_, i64>(0).cast_unsigned())
}

fn subject(row: &Row, column: usize) -> Result<Subject, PostgresError> {
    text(row.get(column)).map(Subject)
}

/// A text that is kept as its bytes.
fn text(bytes: Vec<u8>) -> Result<String, PostgresError> {
    String::from_utf8(bytes)
        .map_err(|_| PostgresError::Other("a name of somebody is no text".to_owned()))
}

/// What a document is called in the tables.
fn names(doc: &DocId) -> (&str, &str) {
    (doc.collection.as_str(), doc.id.as_str())
}

fn role(row: &Row, column: usize) -> Option<Role> {
    row.get::<_, Option<i64>>(column)
        .and_then(Role::from_number)
}

fn number(role: Option<Role>) -> i64 {
    role.map_or(0, |role| i64::from(role as u8))
}

fn word(role: Option<Role>) -> &'static str {
    role.map_or("none", Role::as_str)
}

/// A span of the server's clock, which may have been set back meanwhile.
fn milliseconds(span: i64) -> Duration {
    Duration::from_millis(u64::try_from(span).unwrap_or(0))
}
