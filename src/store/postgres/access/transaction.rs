//! The port of the access operations in Postgres: one transaction, each primitive one statement.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::rows::{count, id_of, issuer, names, role, signed, subject, unsigned};
use crate::access::{
    AccountDraft, GrantCount, NewAuditEvent, NewInvitation, NewRevocation, PasswordReset,
    REVOCATIONS_KEPT, RefreshTokens, Role, SecretHash, SessionKey, StoredInvitation, StoredReset,
    Subject,
};
use crate::id::DocId;
use crate::store::access::{
    AccessLock, AccessTransaction, AccountChange, Counted, Expired, NewLinkRow, NewSessionRow,
    SessionFilter,
};
use crate::store::postgres::error::PostgresError;
use crate::store::postgres::pool::{Pool, PooledConnection};
use crate::store::postgres::server_clock::now_ms;

const BEGIN: &str = "BEGIN";
const COMMIT: &str = "COMMIT";
const ROLL_BACK: &str = "ROLLBACK";

const NOW: &str = concat!("SELECT ", now_ms!());

/// Stores revocations. The row of the counter is locked until the commit: the next transaction that revokes waits, and then
/// counts on from what is committed. So the sequence is in the order of the commits.
const REVOKE: &str = "
WITH old AS (
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

/// Values of a statement.
type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A transaction. If it is dropped before its end, its connection is closed and nothing of it takes effect.
pub(super) struct Transaction {
    connection: PooledConnection,
    /// When it began, by the server's clock.
    now_ms: i64,
    revocations: Vec<NewRevocation>,
}

impl Transaction {
    /// Begins a transaction: one round trip.
    pub(super) async fn begin(pool: &Pool) -> Result<Self, PostgresError> {
        let mut connection = pool.acquire().await?;
        connection.in_transaction = true;
        let [_, rows] = connection.query_both((BEGIN, &[]), (NOW, &[])).await?;
        let now_ms = rows.first().map(|row| row.get(0));
        Ok(Self {
            connection,
            now_ms: now_ms
                .ok_or_else(|| PostgresError::Other("SELECT returned no time".to_owned()))?,
            revocations: Vec::new(),
        })
    }

    /// Stores the revocations and commits: one round trip, so that the lock on the counter is held for a short time even if
    /// this node stalls.
    pub(super) async fn commit(mut self) -> Result<(), PostgresError> {
        if self.revocations.is_empty() {
            self.connection.query(COMMIT, &[]).await?;
        } else {
            let revocations = &self.revocations;
            let subjects: Vec<_> = revocations.iter().map(|it| id_of(&it.subject)).collect();
            let sessions: Vec<_> = revocations
                .iter()
                .map(|it| it.session.as_ref().map(|key| key.0.as_str()))
                .collect();
            let ends: Vec<_> = revocations.iter().map(|it| it.ends).collect();
            let docs = || revocations.iter().map(|it| it.doc.as_ref());
            let collections: Vec<_> = docs().map(|doc| Some(doc?.collection.as_str())).collect();
            let ids: Vec<_> = docs().map(|doc| Some(doc?.id.as_str())).collect();
            let old = self.now_ms - REVOCATIONS_KEPT.as_millis() as i64;
            let values: Values<'_> = &[
                &self.now_ms,
                &subjects,
                &sessions,
                &ends,
                &old,
                &collections,
                &ids,
            ];
            self.connection
                .query_both((REVOKE, values), (COMMIT, &[]))
                .await?;
        }
        self.connection.in_transaction = false;
        Ok(())
    }

    /// Rolls back: one round trip.
    pub(super) async fn roll_back(mut self) -> Result<(), PostgresError> {
        self.connection.query(ROLL_BACK, &[]).await?;
        self.connection.in_transaction = false;
        Ok(())
    }

    async fn query(
        &mut self,
        sql: &'static str,
        values: Values<'_>,
    ) -> Result<Vec<Row>, PostgresError> {
        self.connection.query(sql, values).await
    }

    /// Returns true if the statement returned a row.
    async fn finds(
        &mut self,
        sql: &'static str,
        values: Values<'_>,
    ) -> Result<bool, PostgresError> {
        Ok(!self.query(sql, values).await?.is_empty())
    }
}

const LOCK_ACCOUNTS: &str = "LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE";

const LOCK_INVITATIONS: &str =
    "SELECT pg_advisory_xact_lock(hashtextextended('invitations of ' || $1::text, 0))";

/// Not by the rows: a later transaction would see more of them, and lock them in another order.
const LOCK_SHARING: &str =
    "SELECT pg_advisory_xact_lock(hashtextextended($1::text || '/' || $2::text, 0))";

const COUNT_ACCOUNTS: &str = "
SELECT count(*)
FROM (SELECT FROM users LIMIT $1) AS counted";

const COUNT_INVITATIONS: &str =
    "SELECT count(*) FROM invitations WHERE tenant = $1 AND expires_at_ms > $2";

const COUNT_LINKS: &str = "
SELECT count(*)
FROM links
WHERE collection = $1 AND doc = $2 AND (expires_at_ms IS NULL OR expires_at_ms > $3)";

/// Rows that another transaction deletes at the same moment are skipped, here and below, so that no two transactions wait for
/// each other.
const DELETE_EXPIRED_SESSIONS: &str = "
DELETE FROM sessions
WHERE id IN (
  SELECT id FROM sessions WHERE expires_at_ms <= $1 LIMIT 1000 FOR UPDATE SKIP LOCKED)";

const DELETE_EXPIRED_INVITATIONS: &str = "
DELETE FROM invitations
WHERE code IN (
  SELECT code FROM invitations WHERE expires_at_ms <= $1 LIMIT 1000 FOR UPDATE SKIP LOCKED)";

const DELETE_EXPIRED_LINKS: &str =
    "DELETE FROM links WHERE collection = $1 AND doc = $2 AND expires_at_ms <= $3";

const INSERT_ACCOUNT: &str = "
INSERT INTO users (id, tenant, login, name, password, role, created_at_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (login) DO NOTHING
RETURNING id";

const INSERT_INVITATION: &str = "
INSERT INTO invitations (code, id, tenant, role, maker, expires_at_ms)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (code) DO NOTHING";

const TAKE_INVITATION: &str = "
DELETE FROM invitations i
USING users m
WHERE i.code = $1 AND m.id = i.maker
RETURNING i.tenant, i.role, m.tenant, m.role, m.disabled, i.expires_at_ms";

const PUT_RESET: &str = "
INSERT INTO resets (user_id, code, maker, expires_at_ms)
VALUES ($1, $2, $3, $4)
ON CONFLICT (user_id) DO UPDATE
SET code = excluded.code, maker = excluded.maker, expires_at_ms = excluded.expires_at_ms";

const TAKE_RESET: &str = "
DELETE FROM resets r
USING users u, users m
WHERE r.code = $1 AND u.id = r.user_id AND m.id = r.maker
RETURNING r.user_id, u.tenant, m.tenant, m.role, m.disabled, r.expires_at_ms";

const INSERT_SESSION: &str = "
INSERT INTO sessions (id, user_id, refresh, renewed_at_ms, expires_at_ms)
VALUES ($1, $2, $3, $4, $5)";

/// Of two tabs that renew at the same moment, the second waits and reads what the first wrote.
const REFRESH_TOKENS: &str = "
SELECT refresh, previous, renewed_at_ms, expires_at_ms
FROM sessions
WHERE id = $1
FOR UPDATE";

const SET_REFRESH_TOKENS: &str = "
UPDATE sessions
SET refresh = $2, previous = $3, renewed_at_ms = $4
WHERE id = $1";

/// Locks the rows in one order, as every transaction that deletes a user's sessions does.
const DELETE_SESSIONS_EXCEPT: &str = "
DELETE FROM sessions
WHERE id IN (
  SELECT id
  FROM sessions
  WHERE user_id = $1 AND id IS DISTINCT FROM $2
  ORDER BY id
  FOR UPDATE)
RETURNING id";

const DELETE_OLDEST_SESSIONS: &str = "
DELETE FROM sessions
WHERE id IN (
  SELECT id
  FROM sessions
  WHERE user_id = $1 AND id <> $2
  ORDER BY renewed_at_ms DESC, id DESC
  OFFSET $3
  FOR UPDATE SKIP LOCKED)
RETURNING id";

const END_TOKENS: &str = "
INSERT INTO ended_tokens (subject, issued_until)
VALUES ($1, $2)
ON CONFLICT (subject) DO UPDATE
SET issued_until = greatest(ended_tokens.issued_until, excluded.issued_until)";

const TENANT_ROLE: &str = "
SELECT role
FROM users
WHERE id = $1 AND tenant = $2
FOR SHARE";

const GRANT: &str = "
SELECT role
FROM grants
WHERE collection = $1 AND id = $2 AND subject = $3";

const GRANT_COUNT: &str = "
SELECT count(*), coalesce(bool_or(subject = $3), false)
FROM grants
WHERE collection = $1 AND id = $2";

const PUT_GRANT: &str = "
INSERT INTO grants (collection, id, subject, role)
VALUES ($1, $2, $3, $4)
ON CONFLICT (collection, id, subject) DO UPDATE
SET role = excluded.role
WHERE grants.role <> 4
RETURNING role";

/// Returns a row if the subject is the owner.
const DELETE_GRANT: &str = "
WITH deleted AS (
  DELETE FROM grants WHERE collection = $1 AND id = $2 AND subject = $3 AND role <> 4
)
SELECT 1 FROM grants WHERE collection = $1 AND id = $2 AND subject = $3 AND role = 4";

const DEMOTE_OWNERS: &str = "
UPDATE grants
SET role = 3
WHERE collection = $1 AND id = $2 AND role = 4
RETURNING subject";

const INSERT_LINK: &str = "
INSERT INTO links (id, collection, doc, role, secret, password, expires_at_ms, created_at_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

const INSERT_AUDIT_EVENT: &str = "
INSERT INTO audit (at_ms, actor, deed, collection, doc, subject, detail, tenant)
VALUES ($1, $2, $3, $4, $5, $6, $7,
  coalesce($8::text, (SELECT users.tenant FROM users WHERE users.id = $2::bytea),
    (SELECT users.tenant FROM users WHERE users.id = $6::bytea), $9::text))";

const COUNT_AUDIT_EVENT: &str = "
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

impl AccessTransaction for Transaction {
    type Error = PostgresError;

    fn now_ms(&self) -> u64 {
        self.now_ms.cast_unsigned()
    }

    fn revoke(&mut self, revocation: NewRevocation) {
        self.revocations.push(revocation);
    }

    async fn lock(&mut self, lock: AccessLock<'_>) -> Result<(), PostgresError> {
        match lock {
            AccessLock::Accounts => self.query(LOCK_ACCOUNTS, &[]).await,
            AccessLock::InvitationsOf(tenant) => self.query(LOCK_INVITATIONS, &[&tenant]).await,
            AccessLock::SharingOf(doc) => {
                let (collection, id) = names(doc);
                self.query(LOCK_SHARING, &[&collection, &id]).await
            }
        }
        .map(drop)
    }

    async fn count(&mut self, counted: Counted<'_>) -> Result<u64, PostgresError> {
        let now = self.now_ms;
        let rows = match counted {
            Counted::Accounts { at_most } => {
                self.query(COUNT_ACCOUNTS, &[&signed(at_most)]).await?
            }
            Counted::InvitationsOf(tenant) => {
                self.query(COUNT_INVITATIONS, &[&tenant, &now]).await?
            }
            Counted::LinksOf(doc) => {
                let (collection, id) = names(doc);
                self.query(COUNT_LINKS, &[&collection, &id, &now]).await?
            }
        };
        Ok(count(&rows))
    }

    async fn delete_expired(&mut self, expired: Expired<'_>) -> Result<(), PostgresError> {
        let now = self.now_ms;
        match expired {
            Expired::Sessions => self.query(DELETE_EXPIRED_SESSIONS, &[&now]).await,
            Expired::Invitations => self.query(DELETE_EXPIRED_INVITATIONS, &[&now]).await,
            Expired::LinksOf(doc) => {
                let (collection, id) = names(doc);
                self.query(DELETE_EXPIRED_LINKS, &[&collection, &id, &now])
                    .await
            }
        }
        .map(drop)
    }

    async fn insert_account(
        &mut self,
        account: &AccountDraft,
        tenant: &str,
        role: Option<Role>,
    ) -> Result<bool, PostgresError> {
        let (id, role, now) = (id_of(&account.id), Role::number(role), self.now_ms);
        let (login, name) = (account.login.as_bytes(), account.name.as_bytes());
        let values: Values<'_> = &[&id, &tenant, &login, &name, &account.password, &role, &now];
        self.finds(INSERT_ACCOUNT, values).await
    }

    async fn update_account(
        &mut self,
        user: &Subject,
        change: AccountChange<'_>,
    ) -> Result<bool, PostgresError> {
        let id = id_of(user);
        match change {
            AccountChange::Password(password) => {
                let sql = "UPDATE users SET password = $2 WHERE id = $1 RETURNING id";
                self.finds(sql, &[&id, &password]).await
            }
            AccountChange::TenantRole(role) => {
                let sql = "UPDATE users SET role = $2 WHERE id = $1 RETURNING id";
                self.finds(sql, &[&id, &Role::number(role)]).await
            }
            AccountChange::Disabled(disabled) => {
                let sql = "UPDATE users SET disabled = $2 WHERE id = $1 RETURNING id";
                self.finds(sql, &[&id, &disabled]).await
            }
        }
    }

    async fn insert_invitation(
        &mut self,
        invitation: &NewInvitation,
        maker: &Subject,
        expires_at_ms: u64,
    ) -> Result<(), PostgresError> {
        let (code, role) = (invitation.code.as_slice(), Role::number(invitation.role));
        let (id, maker, until) = (id_of(&invitation.id), id_of(maker), signed(expires_at_ms));
        let values: Values<'_> = &[&code, &id, &invitation.tenant, &role, &maker, &until];
        self.query(INSERT_INVITATION, values).await.map(drop)
    }

    async fn take_invitation(
        &mut self,
        code: SecretHash,
    ) -> Result<Option<StoredInvitation>, PostgresError> {
        let rows = self.query(TAKE_INVITATION, &[&code.as_slice()]).await?;
        Ok(rows.first().map(stored_invitation))
    }

    async fn delete_invitation(
        &mut self,
        tenant: &str,
        id: &Subject,
    ) -> Result<bool, PostgresError> {
        let sql = "DELETE FROM invitations WHERE tenant = $1 AND id = $2 RETURNING id";
        self.finds(sql, &[&tenant, &id_of(id)]).await
    }

    async fn put_reset(
        &mut self,
        reset: &PasswordReset,
        maker: &Subject,
        expires_at_ms: u64,
    ) -> Result<(), PostgresError> {
        let (user, maker, until) = (id_of(&reset.user), id_of(maker), signed(expires_at_ms));
        let values: Values<'_> = &[&user, &reset.code.as_slice(), &maker, &until];
        self.query(PUT_RESET, values).await.map(drop)
    }

    async fn take_reset(&mut self, code: SecretHash) -> Result<Option<StoredReset>, PostgresError> {
        let rows = self.query(TAKE_RESET, &[&code.as_slice()]).await?;
        rows.first().map(stored_reset).transpose()
    }

    async fn insert_session(&mut self, session: NewSessionRow<'_>) -> Result<(), PostgresError> {
        let (user, refresh) = (id_of(session.user), session.refresh.as_slice());
        let until = signed(session.expires_at_ms);
        let values: Values<'_> = &[&session.key.0, &user, &refresh, &self.now_ms, &until];
        self.connection
            .query(INSERT_SESSION, values)
            .await
            .map(drop)
    }

    async fn refresh_tokens(
        &mut self,
        key: &SessionKey,
    ) -> Result<Option<RefreshTokens>, PostgresError> {
        let rows = self.query(REFRESH_TOKENS, &[&key.0]).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let hash = |bytes: &[u8]| {
            let hash = SecretHash::try_from(bytes);
            hash.map_err(|_| {
                PostgresError::Other("the hash of a refresh token has not 32 bytes".to_owned())
            })
        };
        let previous: Option<&[u8]> = row.get(1);
        Ok(Some(RefreshTokens {
            newest: hash(row.get(0))?,
            previous: previous.map(hash).transpose()?,
            renewed_at_ms: unsigned(row, 2),
            expires_at_ms: unsigned(row, 3),
        }))
    }

    async fn set_refresh_tokens(
        &mut self,
        key: &SessionKey,
        newest: SecretHash,
        previous: SecretHash,
    ) -> Result<(), PostgresError> {
        let (newest, previous, now) = (newest.as_slice(), previous.as_slice(), self.now_ms);
        let values: Values<'_> = &[&key.0, &newest, &previous, &now];
        self.query(SET_REFRESH_TOKENS, values).await.map(drop)
    }

    async fn delete_session(&mut self, key: &SessionKey) -> Result<Option<Subject>, PostgresError> {
        let sql = "DELETE FROM sessions WHERE id = $1 RETURNING user_id";
        let rows = self.query(sql, &[&key.0]).await?;
        rows.first().map(|row| subject(row, 0)).transpose()
    }

    async fn delete_sessions(
        &mut self,
        user: &Subject,
        filter: SessionFilter<'_>,
    ) -> Result<Vec<SessionKey>, PostgresError> {
        let user = id_of(user);
        let rows = match filter {
            SessionFilter::AllExcept(kept) => {
                let kept = kept.map(|key| key.0.as_str());
                self.query(DELETE_SESSIONS_EXCEPT, &[&user, &kept]).await?
            }
            SessionFilter::Oldest { newest, others_max } => {
                let values: Values<'_> = &[&user, &newest.0, &signed(others_max)];
                self.query(DELETE_OLDEST_SESSIONS, values).await?
            }
        };
        Ok(rows.iter().map(|row| SessionKey(row.get(0))).collect())
    }

    async fn end_tokens(
        &mut self,
        subject: &Subject,
        issued_until_s: u64,
    ) -> Result<(), PostgresError> {
        let values: Values<'_> = &[&id_of(subject), &signed(issued_until_s)];
        self.query(END_TOKENS, values).await.map(drop)
    }

    async fn tenant_role(
        &mut self,
        user: &Subject,
        tenant: &str,
    ) -> Result<Option<Role>, PostgresError> {
        let rows = self.query(TENANT_ROLE, &[&id_of(user), &tenant]).await?;
        Ok(rows.first().and_then(|row| role(row, 0)))
    }

    async fn grant(
        &mut self,
        doc: &DocId,
        subject: &Subject,
    ) -> Result<Option<Role>, PostgresError> {
        let (collection, id) = names(doc);
        let values: Values<'_> = &[&collection, &id, &id_of(subject)];
        let rows = self.query(GRANT, values).await?;
        Ok(rows.first().and_then(|row| role(row, 0)))
    }

    async fn grant_count(
        &mut self,
        doc: &DocId,
        subject: &Subject,
    ) -> Result<GrantCount, PostgresError> {
        let (collection, id) = names(doc);
        let values: Values<'_> = &[&collection, &id, &id_of(subject)];
        let rows = self.query(GRANT_COUNT, values).await?;
        Ok(GrantCount {
            total: count(&rows),
            includes_subject: rows.first().is_some_and(|row| row.get(1)),
        })
    }

    async fn put_grant(
        &mut self,
        doc: &DocId,
        subject: &Subject,
        role: Role,
    ) -> Result<bool, PostgresError> {
        let (collection, id) = names(doc);
        let role = Role::number(Some(role));
        let values: Values<'_> = &[&collection, &id, &id_of(subject), &role];
        self.finds(PUT_GRANT, values).await
    }

    async fn delete_grant(
        &mut self,
        doc: &DocId,
        subject: &Subject,
    ) -> Result<bool, PostgresError> {
        let (collection, id) = names(doc);
        let values: Values<'_> = &[&collection, &id, &id_of(subject)];
        let is_owner = self.finds(DELETE_GRANT, values).await?;
        Ok(!is_owner)
    }

    async fn demote_owners(&mut self, doc: &DocId) -> Result<Vec<Subject>, PostgresError> {
        let (collection, id) = names(doc);
        let rows = self.query(DEMOTE_OWNERS, &[&collection, &id]).await?;
        rows.iter().map(|row| subject(row, 0)).collect()
    }

    async fn insert_link(&mut self, row: NewLinkRow<'_>) -> Result<(), PostgresError> {
        let link = row.link;
        let (collection, doc) = names(&link.doc);
        let (id, secret) = (id_of(&link.id), link.secret.as_slice());
        let (role, until) = (Role::number(Some(row.role)), row.expires_at_ms.map(signed));
        let values: Values<'_> = &[
            &id,
            &collection,
            &doc,
            &role,
            &secret,
            &link.password,
            &until,
            &self.now_ms,
        ];
        self.connection.query(INSERT_LINK, values).await.map(drop)
    }

    async fn delete_link(&mut self, doc: &DocId, link: &Subject) -> Result<bool, PostgresError> {
        let (collection, id) = names(doc);
        let sql = "DELETE FROM links WHERE id = $1 AND collection = $2 AND doc = $3 RETURNING id";
        self.finds(sql, &[&id_of(link), &collection, &id]).await
    }

    async fn insert_audit_event(&mut self, event: NewAuditEvent<'_>) -> Result<(), PostgresError> {
        let (collection, id) = event.doc.map(names).unzip();
        let (actor, action) = (id_of(event.actor), event.action.as_str());
        let subject = event.subject.map(id_of);
        let (tenant, fallback) = (event.document_tenant(), event.actor_tenant());
        let values: Values<'_> = &[
            &self.now_ms,
            &actor,
            &action,
            &collection,
            &id,
            &subject,
            &event.detail,
            &tenant,
            &fallback,
        ];
        self.connection
            .query(INSERT_AUDIT_EVENT, values)
            .await
            .map(drop)
    }

    async fn count_audit_event(
        &mut self,
        event: NewAuditEvent<'_>,
        since_ms: u64,
    ) -> Result<bool, PostgresError> {
        let (collection, id) = event.doc.map(names).unzip();
        let (actor, action) = (id_of(event.actor), event.action.as_str());
        let (subject, now, since) = (event.subject.map(id_of), self.now_ms, signed(since_ms));
        let values: Values<'_> = &[&actor, &action, &collection, &id, &subject, &now, &since];
        self.finds(COUNT_AUDIT_EVENT, values).await
    }
}

/// Reads the columns of [`TAKE_INVITATION`].
pub(super) fn stored_invitation(row: &Row) -> StoredInvitation {
    StoredInvitation {
        tenant: row.get(0),
        role: role(row, 1),
        issuer: issuer(row, 2),
        expires_at_ms: unsigned(row, 5),
    }
}

/// Reads the columns of [`TAKE_RESET`].
pub(super) fn stored_reset(row: &Row) -> Result<StoredReset, PostgresError> {
    Ok(StoredReset {
        user: subject(row, 0)?,
        tenant: row.get(1),
        issuer: issuer(row, 2),
        expires_at_ms: unsigned(row, 5),
    })
}
