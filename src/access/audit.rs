//! The audit log.

use std::time::Duration;

use super::Subject;

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// Its number; numbers grow.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The user or share link that acted.
    pub actor: Subject,
    /// What was done.
    pub action: String,
    /// The document (collection and id) that it concerns.
    pub doc: Option<(String, String)>,
    /// The subject that it concerns.
    pub subject: Option<Subject>,
    /// Details, for example the new role.
    pub detail: Option<String>,
    /// How many events this line stands for: repeated events share a line.
    pub times: u64,
    /// The time of the last of them, in milliseconds since 1970; `None` if there is only one.
    pub last_at_ms: Option<u64>,
}

/// Actions that clients may repeat at will. Equal ones within [`REPEAT_WINDOW`] share one line, so that they cannot flood the
/// log. None of them changes a permission.
pub(crate) const REPEATED_ACTIONS: [&str; 3] = ["open link", "fail to sign in", "sign in"];

/// How long repeated events are counted on the same line.
pub(crate) const REPEAT_WINDOW: Duration = Duration::from_hours(1);
