//! Why Postgres did not do what was asked.

use std::time::Duration;

use deadpool_postgres::PoolError;
use thiserror::Error;
use tokio_postgres::error::SqlState;

use crate::id::DocId;
use crate::log::Revision;
use crate::store::StoreError;

/// Why something could not be done.
#[derive(Debug, Error)]
pub(super) enum PostgresError {
    /// Postgres says why, or the connection to it broke.
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
    /// What is stored is not what was stored.
    #[error("{doc}: entry {entry}: {what}: the log is damaged")]
    Damage {
        doc: DocId,
        /// The first entry that cannot be read.
        entry: Revision,
        what: String,
    },
    #[error("{0}")]
    Other(String),
}

impl PostgresError {
    /// What whoever asked for `verb` is told.
    pub(super) fn into_store_error(self, verb: &'static str) -> StoreError {
        match self {
            Self::Damage { entry, .. } => StoreError::damaged(verb, Some(entry), self),
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

    /// Why no connection came from the pool.
    pub(super) fn from_pool(error: PoolError, waited: Duration) -> Self {
        match error {
            PoolError::Backend(error) => Self::Away(in_words(&error)),
            PoolError::Closed => Self::Closed,
            PoolError::Timeout(deadpool_postgres::TimeoutType::Wait) => Self::Busy(waited),
            PoolError::Timeout(_) => Self::Away("no answer in time".to_owned()),
            other => Self::Away(other.to_string()),
        }
    }

    /// Whether Postgres or the way to it is away, overloaded or full: the same call may succeed later. Otherwise the
    /// statement, its data or the database is at fault, and a person has to look.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::Late(_) | Self::Busy(_) | Self::Away(_) | Self::Closed => true,
            Self::Damage { .. } | Self::Other(_) => false,
            Self::Sql(error) => match error.code() {
                Some(state) => is_outage_code(state.code()),
                None => error.is_closed() || is_io(error),
            },
        }
    }

    /// Whether the statement took longer than its session allows.
    pub(super) fn is_timeout(&self) -> bool {
        match self {
            Self::Sql(error) => error.code() == Some(&SqlState::QUERY_CANCELED),
            Self::Late(_) => true,
            _ => false,
        }
    }

    /// What the statement's end means for what it was to write.
    pub(super) fn kind(&self) -> FailureKind {
        let Self::Sql(error) = self else {
            return FailureKind::Unknown;
        };
        let Some(state) = error.code() else {
            // Some values are refused before they are sent.
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

/// Whether an error's code says that the server cannot serve now: no connection (08), no transaction that may write
/// (25006), no room or no connection left (53), ended by an operator, a restart or a time limit (57).
pub(super) fn is_outage_code(code: &str) -> bool {
    ["08", "53", "57"]
        .iter()
        .any(|class| code.starts_with(class))
        || code == "25006"
}

/// Whether the way to the server broke, which the crate says only by the error's source.
fn is_io(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
}

/// What an error says of the statement's fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// Surely undone, by the fault of something in it. It would come again.
    Data,
    /// Surely undone: somebody held a row for too long.
    Lock,
    /// Done or not done.
    Unknown,
}

/// The error with its reasons. By itself the crate's says "db error" and no more.
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
    fn an_outage_is_told_from_what_a_person_must_mend() {
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
