//! Reading access rows.

use std::time::Duration;

use rusqlite::Row;

use crate::access::{
    Account, AuditEvent, Issuer, Revocation, Role, SessionKey, ShareLink, Subject,
};
use crate::id::DocId;

/// An account, from the column `first` on.
pub(super) fn account(row: &Row<'_>, first: usize) -> rusqlite::Result<Account> {
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

/// An issuer, from the column `first` on: tenant, role, disabled.
pub(super) fn issuer(row: &Row<'_>, first: usize) -> rusqlite::Result<Issuer> {
    Ok(Issuer {
        tenant: row.get(first)?,
        role: role(row, first + 1)?,
        disabled: row.get(first + 2)?,
    })
}

pub(super) fn audit_event(row: &Row<'_>) -> rusqlite::Result<AuditEvent> {
    let (collection, id): (Option<String>, Option<String>) = (row.get(4)?, row.get(5)?);
    Ok(AuditEvent {
        number: unsigned(row, 0)?,
        at_ms: unsigned(row, 1)?,
        actor: Subject(row.get(2)?),
        action: row.get(3)?,
        doc: collection.zip(id),
        subject: row.get::<_, Option<String>>(6)?.map(Subject),
        detail: row.get(7)?,
        times: unsigned(row, 8)?,
        last_at_ms: row.get::<_, Option<i64>>(9)?.map(i64::cast_unsigned),
    })
}

pub(super) fn link(row: &Row<'_>) -> rusqlite::Result<ShareLink> {
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

pub(super) fn revocation(row: &Row<'_>) -> rusqlite::Result<Revocation> {
    let (collection, id): (Option<String>, Option<String>) = (row.get(4)?, row.get(5)?);
    Ok(Revocation {
        sequence: unsigned(row, 0)?,
        subject: Subject(row.get(1)?),
        session: row.get::<_, Option<String>>(2)?.map(SessionKey),
        ends: row.get(3)?,
        doc: Revocation::document(collection.as_deref(), id.as_deref()),
    })
}

pub(super) fn role(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Role>> {
    row.get(column).map(Role::from_number)
}

pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

/// A span of time; none is negative.
pub(super) fn milliseconds(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Duration>> {
    let span: Option<i64> = row.get(column)?;
    Ok(span.map(|span| Duration::from_millis(u64::try_from(span).unwrap_or(0))))
}
