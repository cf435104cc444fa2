//! Errors of Postgres, and what they mean for the statement that failed.

use std::time::Duration;

use deadpool_postgres::PoolError;
use thiserror::Error;
use tokio_postgres::error::SqlState;

use crate::id::DocId;
use crate::store::StoreError;
use crate::store::damage::{HeadDamage, LogDamage};

/// Why a statement failed.
#[derive(Debug, Error)]
pub(super) enum PostgresError {
    /// Postgres reported an error, or the connection broke.
    #[error("{}", in_words(.0))]
    Sql(#[from] tokio_postgres::Error),
    #[error("Postgres did not answer within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("all connections to Postgres were busy for {} ms", .0.as_millis())]
    Busy(Duration),
    #[error("connect to Postgres: {0}")]
    Away(String),
    #[error("the store is closed")]
    Closed,
    /// A row of the log is missing or fails its checks.
    #[error("{0}")]
    Damage(#[from] LogDamage),
    /// A row that claims of a document need is missing or contradicts its log.
    #[error("{0}: {1}")]
    Head(DocId, HeadDamage),
    #[error("{0}")]
    Other(String),
}

impl PostgresError {
    /// The error that the caller of `verb` gets.
    pub(super) fn into_store_error(self, verb: &'static str) -> StoreError {
        match self {
            Self::Damage(damage) => damage.into_store_error(verb),
            Self::Head(doc, damage) => damage.into_store_error(verb, &doc),
            Self::Sql(_) if self.is_corruption() => StoreError::damaged(verb, None, self),
            _ => StoreError::new(verb, self),
        }
    }

    /// Returns true if Postgres cannot read its own files: a page fails its checksum, an index contradicts its table.
    pub(super) fn is_corruption(&self) -> bool {
        let Self::Sql(error) = self else {
            return false;
        };
        let corrupted = [&SqlState::DATA_CORRUPTED, &SqlState::INDEX_CORRUPTED];
        error.code().is_some_and(|code| corrupted.contains(&code))
    }

    /// Why the pool returned no connection.
    pub(super) fn from_pool(error: PoolError, waited: Duration) -> Self {
        match error {
            PoolError::Backend(error) => Self::Away(in_words(&error)),
            PoolError::Closed => Self::Closed,
            PoolError::Timeout(deadpool_postgres::TimeoutType::Wait) => Self::Busy(waited),
            PoolError::Timeout(_) => Self::Away("no answer in time".to_owned()),
            other => Self::Away(other.to_string()),
        }
    }

    /// Returns true if Postgres is away, overloaded or full, so that the same call may succeed later. Otherwise the
    /// statement, its data or the database is at fault, and an operator has to act.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::Late(_) | Self::Busy(_) | Self::Away(_) | Self::Closed => true,
            Self::Damage(_) | Self::Head(..) | Self::Other(_) => false,
            Self::Sql(error) => match error.code() {
                Some(state) => is_outage_code(state.code()),
                None => error.is_closed() || is_io(error),
            },
        }
    }

    /// Returns true if the statement exceeded the time limit of its session.
    pub(super) fn is_timeout(&self) -> bool {
        match self {
            Self::Sql(error) => error.code() == Some(&SqlState::QUERY_CANCELED),
            Self::Late(_) => true,
            _ => false,
        }
    }

    /// Returns true if a row with the same key exists.
    pub(super) fn is_duplicate(&self) -> bool {
        matches!(self, Self::Sql(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION))
    }

    /// What the failure means for the changes of the statement.
    pub(super) fn kind(&self) -> FailureKind {
        let Self::Sql(error) = self else {
            return FailureKind::Unknown;
        };
        let Some(state) = error.code() else {
            // Some values are rejected before they are sent.
            return FailureKind::Unknown;
        };
        match &state.code()[..2] {
            "22" | "23" | "54" => FailureKind::Data,
            _ if [
                SqlState::LOCK_NOT_AVAILABLE,
                SqlState::T_R_DEADLOCK_DETECTED,
                SqlState::T_R_SERIALIZATION_FAILURE,
            ]
            .contains(state) =>
            {
                FailureKind::Lock
            }
            _ => FailureKind::Unknown,
        }
    }
}

/// Returns true if an error code means that the server cannot serve now: no connection (08), a read-only transaction
/// (25006), no space or connection left (53), ended by an operator, a restart or a time limit (57).
pub(super) fn is_outage_code(code: &str) -> bool {
    ["08", "53", "57"]
        .iter()
        .any(|class| code.starts_with(class))
        || code == "25006"
}

/// Returns true if the connection broke, which the crate reports only in the source of the error.
fn is_io(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
}

/// What a failure means for the changes of the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// They are undone because of the statement's data. The same statement would fail again.
    Data,
    /// They are undone because another session held a row for too long.
    Lock,
    /// They may be done or undone.
    Unknown,
}

/// The error with its causes. The error of the crate displays only "db error".
pub(super) fn in_words(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        let detail = db.detail().map(|it| format!(" ({it})")).unwrap_or_default();
        return format!("{}{detail} [{}]", db.message(), db.code().code());
    }
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(reason) = cause {
        words = format!("{words}: {reason}");
        cause = reason.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_are_distinguished_from_errors_that_need_an_operator() {
        for code in [
            "08006", "25006", "53100", "53300", "57014", "57P01", "57P02", "57P03",
        ] {
            assert!(is_outage_code(code), "{code}");
        }
        for code in [
            "22021", "23505", "25P02", "40001", "42P01", "58030", "XX000", "XX001",
        ] {
            assert!(!is_outage_code(code), "{code}");
        }
        assert!(PostgresError::Late(Duration::ZERO).is_outage());
        assert!(PostgresError::Away("refused".to_owned()).is_outage());
        assert!(!PostgresError::Other("the answer makes no sense".to_owned()).is_outage());
    }
}
