//! Sees that nobody is shown less than rule 8 of ARCHITECTURE.md promises.

use std::collections::BTreeMap;

use copydesk::doc::{SessionReply, SessionRequest, Ticket};
use copydesk::id::SessionId;
use copydesk::log::Revision;

/// What has been told to whom, and who waits for an answer.
#[derive(Default)]
pub(crate) struct Freshness {
    /// The newest revision of each document that any node sent anybody.
    sent: BTreeMap<usize, Revision>,
    questions: BTreeMap<(SessionId, Ticket), Question>,
}

/// A fetch or a subscription that waits.
struct Question {
    /// What its answer holds at least.
    least: Revision,
    /// What its session has: what it said that it has, and what it was sent since.
    has: Revision,
}

impl Freshness {
    /// A session asks. `told`: the newest revision that its node was told of, where anybody tells it the commits.
    pub(crate) fn asked(
        &mut self,
        doc: usize,
        who: (SessionId, Ticket),
        ask: &SessionRequest,
        told: Option<Revision>,
    ) {
        match ask {
            SessionRequest::Fetch { since } | SessionRequest::Subscribe { since } => {
                let sent = || self.sent.get(&doc).copied().unwrap_or_default();
                let (least, has) = (told.unwrap_or_else(sent), since.unwrap_or_default());
                self.questions.insert(who, Question { least, has });
            }
            SessionRequest::ReadFrom { min, .. } => {
                let sent = || self.sent.get(&doc).copied().unwrap_or_default();
                let least = told.unwrap_or_else(sent).max(*min);
                let has = Revision::ZERO;
                self.questions.insert(who, Question { least, has });
            }
            // What is on its way to a subscription may stay behind.
            SessionRequest::Unsubscribe => {
                self.questions.retain(|(session, _), _| *session != who.0)
            }
            SessionRequest::Submit(_) | SessionRequest::PublishPresence { .. } => {}
        }
    }

    /// A session is sent a commit.
    pub(crate) fn delivered(&mut self, doc: usize, session: SessionId, revision: Revision) {
        let sent = self.sent.entry(doc).or_default();
        *sent = revision.max(*sent);
        let (first, last) = (Ticket(0), Ticket(u64::MAX));
        for (_, question) in self.questions.range_mut((session, first)..=(session, last)) {
            question.has = question.has.max(revision);
        }
    }

    /// A session is answered.
    pub(crate) fn answered(
        &mut self,
        who: (SessionId, Ticket),
        answer: &SessionReply,
    ) -> Result<(), String> {
        let Some(Question { least, has }) = self.questions.remove(&who) else {
            return Ok(());
        };
        let shown = match answer {
            SessionReply::Snapshot(shown) => shown.revision,
            SessionReply::Done => has,
            SessionReply::Committed(_) | SessionReply::Rejected(_) => return Ok(()),
        };
        if shown < least {
            return Err(format!(
                "{who:?} is shown {shown}, and {least} was known when it asked"
            ));
        }
        Ok(())
    }
}
