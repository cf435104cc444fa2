//! What clients without a subscription have been sent with the acks of their submits.

use std::collections::BTreeMap;

use crate::id::SessionId;
use crate::log::Revision;

/// The most sessions whose range is remembered for a document. The answer to a session that is not remembered repeats what
/// it was sent before.
const SESSIONS_MAX: usize = 1_000;

/// For each session, the newest range of entries that it was sent to lead up to its own commits.
///
/// The answer to a submit has all commits since the submit's base. A client that sends many submits on one base is sent
/// each commit once: without this, the bytes of its answers would grow with the square of their number.
#[derive(Debug, Default)]
pub(super) struct SentRanges(BTreeMap<SessionId, SentRange>);

/// The entries after `since` up to `until`.
#[derive(Debug, Clone, Copy)]
struct SentRange {
    since: Revision,
    until: Revision,
}

impl SentRanges {
    /// The session is about to be sent its commit `own` of a submit on `base`, with the entries before it: returns the
    /// revision after which they begin. Entries that it was sent before are left out, but never its own commit.
    pub(super) fn extend(&mut self, session: SessionId, base: Revision, own: Revision) -> Revision {
        let base = base.min(own.before());
        let sent = self.0.get(&session);
        let sent = sent.filter(|sent| (sent.since..=sent.until).contains(&base));
        let range = SentRange {
            since: sent.map_or(base, |sent| sent.since),
            until: sent.map_or(own, |sent| sent.until.max(own)),
        };
        let start = sent.map_or(base, |sent| sent.until.min(own.before()));
        self.0.insert(session, range);
        if self.0.len() > SESSIONS_MAX {
            // Ids grow, so this is the session that has been open longest.
            self.0.pop_first();
        }
        start
    }

    /// Forgets what all sessions were sent: entries that were to be sent are not.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Forgets what the session was sent: it has ended, or reads the document anew.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.0.remove(&session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Submits of session 1 as `(base, own)`, each with the revision after which its answer begins.
    #[test]
    fn entries_are_sent_once_to_a_session() {
        for (case, submits) in [
            ("one base", vec![((3, 6), 3), ((3, 7), 6), ((3, 9), 7)]),
            (
                "a copy of a submit",
                vec![((3, 6), 3), ((3, 6), 5), ((3, 7), 6)],
            ),
            (
                "a copy of an older submit",
                vec![((3, 6), 3), ((3, 9), 6), ((3, 6), 5), ((3, 10), 9)],
            ),
            ("growing bases", vec![((3, 6), 3), ((6, 7), 6), ((5, 8), 7)]),
            ("an older base", vec![((3, 6), 3), ((1, 7), 1), ((3, 8), 7)]),
            (
                "a base that it was not sent",
                vec![((3, 6), 3), ((8, 10), 8), ((3, 11), 3)],
            ),
            (
                "a base after its own commit",
                vec![((9, 6), 5), ((5, 8), 6)],
            ),
        ] {
            let mut ranges = SentRanges::default();
            for ((base, own), start) in submits {
                let begins = ranges.extend(SessionId(1), Revision(base), Revision(own));
                assert_eq!(begins, Revision(start), "{case}: base {base}, commit {own}");
            }
        }
    }

    #[test]
    fn sessions_are_apart_and_bounded() {
        let mut ranges = SentRanges::default();
        let sessions = SESSIONS_MAX as u64 + 1;
        for session in 1..=sessions {
            let start = ranges.extend(SessionId(session), Revision(0), Revision(5));
            assert_eq!(start, Revision(0));
        }
        assert_eq!(ranges.0.len(), SESSIONS_MAX);
        let mut again = |session| ranges.extend(SessionId(session), Revision(0), Revision(6));
        assert_eq!(again(sessions), Revision(5));
        assert_eq!(again(1), Revision(0), "the oldest was dropped");
        ranges.forget(SessionId(sessions));
        let start = ranges.extend(SessionId(sessions), Revision(0), Revision(7));
        assert_eq!(start, Revision(0));
    }
}
