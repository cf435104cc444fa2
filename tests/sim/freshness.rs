//! Checks rule 8 of ARCHITECTURE.md: no read returns less than it promises.

use std::collections::BTreeMap;

use copydesk::doc::{SessionReply, SessionRequest, Ticket};
use copydesk::id::SessionId;
use copydesk::log::Revision;

/// The revisions that were sent, and the reads that wait.
#[derive(Default)]
pub(crate) struct FreshnessCheck {
    /// The newest revision of each document that any node sent to any session.
    sent: BTreeMap<usize, Revision>,
    reads: BTreeMap<(SessionId, Ticket), WaitingRead>,
}

/// A fetch or a subscription that waits.
struct WaitingRead {
    /// The lowest revision that may answer it.
    least: Revision,
    /// The revision that its session has: the one that it named, or a later one that it was sent.
    has: Revision,
}

impl FreshnessCheck {
    /// A session sends a request. `told` is the newest revision that its node was told of, if it is told of commits.
    pub(crate) fn asked(
        &mut self,
        doc: usize,
        request: (SessionId, Ticket),
        ask: &SessionRequest,
        told: Option<Revision>,
    ) {
        match ask {
            SessionRequest::Fetch { since } | SessionRequest::Subscribe { since } => {
                let sent = || self.sent.get(&doc).copied().unwrap_or_default();
                let (least, has) = (told.unwrap_or_else(sent), since.unwrap_or_default());
                self.reads.insert(request, WaitingRead { least, has });
            }
            SessionRequest::ReadFrom { min, .. } => {
                let sent = || self.sent.get(&doc).copied().unwrap_or_default();
                let least = told.unwrap_or_else(sent).max(*min);
                let has = Revision::ZERO;
                self.reads.insert(request, WaitingRead { least, has });
            }
            // The session may miss commits that are under way.
            SessionRequest::Unsubscribe => {
                self.reads.retain(|(session, _), _| *session != request.0)
            }
            SessionRequest::Submit(_) | SessionRequest::PublishPresence { .. } => {}
        }
    }

    /// A session is sent a commit.
    pub(crate) fn delivered(&mut self, doc: usize, session: SessionId, revision: Revision) {
        let sent = self.sent.entry(doc).or_default();
        *sent = revision.max(*sent);
        let (first, last) = (Ticket(0), Ticket(u64::MAX));
        for (_, read) in self.reads.range_mut((session, first)..=(session, last)) {
            read.has = read.has.max(revision);
        }
    }

    /// A session is answered.
    pub(crate) fn answered(
        &mut self,
        request: (SessionId, Ticket),
        answer: &SessionReply,
    ) -> Result<(), String> {
        let Some(WaitingRead { least, has }) = self.reads.remove(&request) else {
            return Ok(());
        };
        let shown = match answer {
            SessionReply::Snapshot(shown) => shown.revision,
            SessionReply::Done => has,
            SessionReply::Committed(_) | SessionReply::Rejected(_) => return Ok(()),
        };
        if shown < least {
            return Err(format!(
                "{request:?} is answered with {shown}, and {least} was known when it was sent"
            ));
        }
        Ok(())
    }
}
