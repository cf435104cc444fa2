//! Writing the audit log.

use super::{AccessTransaction, Operation};
use crate::access::{AuditAction, NewAuditEvent, REPEAT_WINDOW, Subject};
use crate::id::DocId;

/// Writes an event: on a line of its own, or, if it is one that clients may repeat, on the line of an equal one.
pub(super) async fn audit<T: AccessTransaction>(
    tx: &mut T,
    event: NewAuditEvent<'_>,
) -> Result<(), T::Error> {
    if event.action.is_counted() {
        let since_ms = tx.now_ms().saturating_sub(REPEAT_WINDOW.as_millis() as u64);
        if tx.count_audit_event(event, since_ms).await? {
            return Ok(());
        }
    }
    tx.insert_audit_event(event).await
}

/// [`AccessStore::audit`](super::AccessStore::audit).
pub(super) struct Audit {
    pub(super) actor: Subject,
    pub(super) action: AuditAction,
    pub(super) doc: Option<DocId>,
    pub(super) subject: Option<Subject>,
}

impl Operation for Audit {
    type Output = ();

    async fn run<T: AccessTransaction>(&self, tx: &mut T) -> Result<(), T::Error> {
        let event = NewAuditEvent {
            doc: self.doc.as_ref(),
            subject: self.subject.as_ref(),
            ..NewAuditEvent::new(&self.actor, self.action)
        };
        audit(tx, event).await
    }
}
