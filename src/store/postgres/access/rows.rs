//! Reading access rows. Ids and names of users are stored as bytes, because Postgres takes no NUL in a text.

use std::time::Duration;

use tokio_postgres::Row;

use crate::access::{
    Account, AuditEvent, Grant, Issuer, PendingInvitation, Revocation, Role, SessionKey, ShareLink,
    Subject,
};
use crate::id::DocId;
use crate::store::postgres::error::PostgresError;

/// An account, from the column `first` on.
pub(super) fn account(row: &Row, first: usize) -> Result<Account, PostgresError> {
    Ok(Account {
        id: subject(row, first)?,
        tenant: row.get(first + 1),
        login: text("login", row.get(first + 2))?,
        name: text("name", row.get(first + 3))?,
        password: row.get(first + 4),
        role: role(row, first + 5),
        disabled: row.get(first + 6),
    })
}

/// An issuer, from the column `first` on: tenant, role, disabled.
pub(super) fn issuer(row: &Row, first: usize) -> Issuer {
    Issuer {
        tenant: row.get(first),
        role: role(row, first + 1),
        disabled: row.get(first + 2),
    }
}

pub(super) fn invitation(row: &Row) -> Result<PendingInvitation, PostgresError> {
    Ok(PendingInvitation {
        id: subject(row, 0)?,
        role: role(row, 1),
        maker: subject(row, 2)?,
        expires_at_ms: unsigned(row, 3),
    })
}

pub(super) fn grant(row: &Row) -> Result<Grant, PostgresError> {
    let login: Option<Vec<u8>> = row.get(2);
    let name: Option<Vec<u8>> = row.get(3);
    let login = login.map(|login| text("login", login)).transpose()?;
    let name = name.map(|name| text("name", name)).transpose()?;
    Ok(Grant {
        subject: subject(row, 0)?,
        account: login.zip(name),
        role: role(row, 1).unwrap_or(Role::Viewer),
    })
}

pub(super) fn link(row: &Row) -> Result<ShareLink, PostgresError> {
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

pub(super) fn revocation(row: &Row) -> Result<Revocation, PostgresError> {
    Ok(Revocation {
        sequence: unsigned(row, 0),
        subject: subject(row, 1)?,
        session: row.get::<_, Option<String>>(2).map(SessionKey),
        ends: row.get(3),
        doc: Revocation::document(row.get(4), row.get(5)),
    })
}

pub(super) fn audit_event(row: &Row) -> Result<AuditEvent, PostgresError> {
    let doc: (Option<String>, Option<String>) = (row.get(4), row.get(5));
    let subject_id: Option<Vec<u8>> = row.get(6);
    let subject_id = subject_id.map(|id| text("id", id)).transpose()?;
    Ok(AuditEvent {
        number: unsigned(row, 0),
        at_ms: unsigned(row, 1),
        actor: subject(row, 2)?,
        action: row.get(3),
        doc: doc.0.zip(doc.1),
        subject: subject_id.map(Subject),
        detail: row.get(7),
        times: unsigned(row, 8),
        last_at_ms: row.get::<_, Option<i64>>(9).map(i64::cast_unsigned),
    })
}

/// The number in the first column of the only row.
pub(super) fn count(rows: &[Row]) -> u64 {
    rows.first().map_or(0, |row| unsigned(row, 0))
}

pub(super) fn subject(row: &Row, column: usize) -> Result<Subject, PostgresError> {
    text("id", row.get(column)).map(Subject)
}

fn text(what: &str, bytes: Vec<u8>) -> Result<String, PostgresError> {
    let text = String::from_utf8(bytes);
    text.map_err(|_| PostgresError::Other(format!("the {what} of a user is not UTF-8")))
}

/// A subject's id as it is stored.
pub(super) fn id_of(subject: &Subject) -> &[u8] {
    subject.0.as_bytes()
}

/// The collection and the id of a document.
pub(super) fn names(doc: &DocId) -> (&str, &str) {
    (doc.collection.as_str(), doc.id.as_str())
}

pub(super) fn role(row: &Row, column: usize) -> Option<Role> {
    let number: Option<i64> = row.get(column);
    number.and_then(Role::from_number)
}

pub(super) fn unsigned(row: &Row, column: usize) -> u64 {
    row.get::<_, i64>(column).cast_unsigned()
}

/// A number as Postgres stores it; the largest that it can store if it is larger.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A span of the server's clock. It is negative, and counts as none, if the clock was set back.
pub(super) fn milliseconds(span: i64) -> Duration {
    Duration::from_millis(u64::try_from(span).unwrap_or(0))
}
