//! Operations on sessions and on tokens of another application.

use std::time::Duration;

use super::audit::audit;
use super::{AccessTransaction, Expired, NewSessionRow, Operation, SessionFilter};
use crate::access::{
    AuditAction, NewAuditEvent, NewRevocation, Renewal, SecretHash, SessionKey, Subject, later,
};

/// Ends sessions of a user: they are deleted and their sockets close.
pub(super) async fn end_sessions<T: AccessTransaction>(
    tx: &mut T,
    user: &Subject,
    filter: SessionFilter<'_>,
) -> Result<(), T::Error> {
    for key in tx.delete_sessions(user, filter).await? {
        tx.revoke(NewRevocation::session_ended(user, key));
    }
    Ok(())
}

/// Ends one session and returns its user.
async fn end_one<T: AccessTransaction>(
    tx: &mut T,
    key: &SessionKey,
) -> Result<Option<Subject>, T::Error> {
    let user = tx.delete_session(key).await?;
    if let Some(user) = &user {
        tx.revoke(NewRevocation::session_ended(user, key.clone()));
    }
    Ok(user)
}

/// [`AccessStore::begin_session`](super::AccessStore::begin_session).
pub(super) struct BeginSession {
    pub(super) key: SessionKey,
    pub(super) user: Subject,
    pub(super) refresh: SecretHash,
    pub(super) lasts: Duration,
    pub(super) sessions_max: u64,
}

impl Operation for BeginSession {
    type Output = ();

    async fn run<T: AccessTransaction>(&self, tx: &mut T) -> Result<(), T::Error> {
        tx.delete_expired(Expired::Sessions).await?;
        let session = NewSessionRow {
            key: &self.key,
            user: &self.user,
            refresh: self.refresh,
            expires_at_ms: later(tx.now_ms(), self.lasts),
        };
        tx.insert_session(session).await?;
        let oldest = SessionFilter::Oldest {
            newest: &self.key,
            others_max: self.sessions_max.saturating_sub(1),
        };
        end_sessions(tx, &self.user, oldest).await?;
        audit(tx, NewAuditEvent::new(&self.user, AuditAction::SignIn)).await
    }
}

/// [`AccessStore::renew_session`](super::AccessStore::renew_session).
pub(super) struct RenewSession {
    pub(super) key: SessionKey,
    pub(super) refresh: SecretHash,
    pub(super) next: SecretHash,
    pub(super) grace: Duration,
}

impl Operation for RenewSession {
    type Output = Renewal;

    async fn run<T: AccessTransaction>(&self, tx: &mut T) -> Result<Renewal, T::Error> {
        let Some(tokens) = tx.refresh_tokens(&self.key).await? else {
            return Ok(Renewal::Ended);
        };
        let renewal = tokens.present(self.refresh, tx.now_ms(), self.grace);
        match renewal {
            Renewal::Renewed => {
                tx.set_refresh_tokens(&self.key, self.next, self.refresh)
                    .await?;
            }
            Renewal::Reused => {
                end_one(tx, &self.key).await?;
            }
            Renewal::JustRenewed | Renewal::Ended => {}
        }
        Ok(renewal)
    }
}

/// [`AccessStore::end_session`](super::AccessStore::end_session).
pub(super) struct EndSession {
    pub(super) key: SessionKey,
}

impl Operation for EndSession {
    type Output = ();

    async fn run<T: AccessTransaction>(&self, tx: &mut T) -> Result<(), T::Error> {
        match end_one(tx, &self.key).await? {
            Some(user) => audit(tx, NewAuditEvent::new(&user, AuditAction::SignOut)).await,
            None => Ok(()),
        }
    }
}

/// [`AccessStore::end_sessions_of`](super::AccessStore::end_sessions_of).
pub(super) struct EndSessionsOf {
    pub(super) subject: Subject,
    pub(super) by: Subject,
}

impl Operation for EndSessionsOf {
    type Output = ();

    async fn run<T: AccessTransaction>(&self, tx: &mut T) -> Result<(), T::Error> {
        let subject = &self.subject;
        let event = NewAuditEvent::new(&self.by, AuditAction::SignOutEverywhere);
        audit(tx, event.about(subject)).await?;
        end_sessions(tx, subject, SessionFilter::AllExcept(None)).await?;
        // Users of another application have no sessions here: their tokens end instead.
        tx.end_tokens(subject, tx.now_ms() / 1_000).await?;
        tx.revoke(NewRevocation::all_sessions_ended(subject));
        Ok(())
    }
}
