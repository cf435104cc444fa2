//! Errors of SQLite and of the rows in it.

use rusqlite::{ErrorCode, ffi};
use thiserror::Error;

use crate::store::StoreError;
use crate::store::damage::LogDamage;

/// Why a read failed.
#[derive(Debug, Error)]
pub(super) enum SqliteError {
    /// SQLite reported an error.
    #[error("{0}")]
    Sql(#[from] rusqlite::Error),
    /// A row of the log is missing or fails its checks.
    #[error("{0}")]
    Damage(#[from] LogDamage),
}

impl SqliteError {
    /// The error that the caller of `verb` gets.
    pub(super) fn into_store_error(self, verb: &'static str) -> StoreError {
        match self {
            Self::Damage(damage) => damage.into_store_error(verb),
            Self::Sql(error) if is_corruption(&error) => StoreError::damaged(verb, None, error),
            Self::Sql(error) => StoreError::new(verb, error),
        }
    }
}

/// Returns true if the pages of the database's file contradict each other.
pub(super) fn is_corruption(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Returns true if the values that were to be written caused the error. The same values would fail again, and other jobs of
/// the transaction are not affected.
pub(super) fn is_data_error(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::ToSqlConversionFailure(_) => true,
        _ => matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch)
        ),
    }
}

/// Returns true if a row with the same key exists.
pub(super) fn is_duplicate(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|it| it.extended_code);
    matches!(
        code,
        Some(ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_UNIQUE)
    )
}
