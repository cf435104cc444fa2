//! Every node's half: stands between this node's sessions and the owner, wherever the owner is.

mod store_outage;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::action::{Action, SessionReply};
use super::encoded_snapshot::EncodedSnapshot;
use super::event::{Now, PageRequester, ReadOnly, ReadOnlyCause, Ticket};
use super::presence::Presence;
use super::rejection::Rejection;
use super::settings::DocumentSettings;
use super::submit::Submit;
use crate::id::{ClientId, SessionId};
use crate::log::{Entry, Revision, SubmitId, Tail};

/// Stands between this node's sessions and the owner: delivers commits in order, remembers what is unanswered.
///
/// A commit is a fact, whoever tells it: its revision is checked, never its sender.
#[derive(Debug)]
pub(super) struct Forwarder {
    /// The newest commits that were delivered; nothing until the first are known.
    tail: Option<Tail>,
    /// The newest revision that anybody told of: what is missing up to it is healed from the store.
    told_head: Revision,
    /// The sessions that get every commit, sorted. All of them have been sent everything up to the tail's head.
    live: Arc<Vec<SessionId>>,
    /// The newest snapshot that was encoded: served, with the commits after it, to whoever joins.
    shown: Option<Arc<EncodedSnapshot>>,
    /// Those who wait for a snapshot, or for the tail to be known at all.
    joiners: Vec<Joiner>,
    /// The reads of clients that are behind the tail: each is brought to it from the store, page by page, at its client's
    /// own pace.
    walkers: VecDeque<Walker>,
    /// Submits by session, oldest first. Only the first of each is with the owner.
    unanswered: BTreeMap<SessionId, VecDeque<Unanswered>>,
    /// Whose submit is with the owner. A client that came back says the same on two sockets for a while: each is answered.
    with_owner: BTreeSet<(ClientId, u64, SessionId)>,
    /// Whether a snapshot was asked for and has not come.
    showing: bool,
    /// How many snapshots were asked for; one at a time.
    shows: u64,
    /// The entries after the tail's head that were asked for, while they have not come.
    healing: Option<Healing>,
    /// Whether this node's own sequencer tells the commits.
    at_home: bool,
    /// Set while the store is away.
    store_away: Option<StoreAway>,
    /// Set while only a part of the document can be read.
    frozen: Option<Frozen>,
    settings: DocumentSettings,
}

#[derive(Debug)]
struct Joiner {
    session: SessionId,
    ticket: Ticket,
    since: Option<Revision>,
    /// It is shown no less.
    least: Least,
    /// Its client knows that this is committed.
    min: Revision,
    /// Whether it stays.
    live: bool,
    /// When waiting ends.
    deadline: Duration,
}

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// The commits after this revision; `None`: the document.
    since: Option<Revision>,
    /// The document, not older than this.
    min: Revision,
}

impl Wanted {
    /// The document, or the commits after a revision.
    pub(super) fn since(since: Option<Revision>) -> Self {
        let min = Revision::ZERO;
        Self { since, min }
    }

    /// The document, not older than `min`.
    pub(super) fn from(min: Revision) -> Self {
        Self { since: None, min }
    }
}

/// What a joiner is shown at least: all that was committed when it asked, as far as this node is told (rule 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Least {
    /// What was known then.
    Known(Revision),
    /// What the snapshot of this number shows, the first that was asked for after it came. Nobody told this node the
    /// commits, so what it knew may be old.
    Shown(u64),
}

/// A document that can be read in part and not changed: it is larger than what may be held, or damaged.
#[derive(Debug)]
struct Frozen {
    found: ReadOnly,
    /// When the document is loaded again for the next request; `None`: not before its log grows.
    look_again: Option<Duration>,
}

/// What becomes of the submits that are unanswered when a document turns out to be read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsettled {
    /// They are refused.
    Refused,
    /// They wait for an owner elsewhere.
    Kept,
}

impl Frozen {
    /// The answer to a fetch or a subscription of a client that has `since`. No commits follow it: they are too many, or
    /// cannot be read.
    fn answer(&self, since: Option<Revision>) -> SessionReply {
        match (since, &self.found.readable) {
            (None, Some(readable)) => SessionReply::Snapshot(readable.clone()),
            (Some(since), Some(readable)) if since == readable.revision => SessionReply::Done,
            (Some(_), _) | (None, None) => SessionReply::Rejected(self.found.rejection.clone()),
        }
    }
}

/// Entries that were asked for.
#[derive(Debug, Clone, Copy)]
struct Healing {
    /// The revision before the first of them.
    since: Revision,
    /// The newest revision that had been told of when they were asked for.
    told: Revision,
}

#[derive(Debug)]
struct Walker {
    session: SessionId,
    /// What it has been sent.
    at: Revision,
    /// Whether its next page was asked for, and the store has not failed to answer.
    is_paged: bool,
    then: Then,
}

/// What a walk ends with.
#[derive(Debug, Clone, Copy)]
enum Then {
    /// The session has caught up: its request is done, and it may stay.
    Joined {
        ticket: Ticket,
        live: bool,
        /// What its client says that it has.
        has: Revision,
    },
    /// The session has been sent its own commit.
    Acked(Revision),
    /// The store has shown that the log reaches the revision that the client names, so the client may join.
    Proven {
        ticket: Ticket,
        live: bool,
        min: Revision,
        deadline: Duration,
    },
}

/// When the live sessions were sent an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Before,
    Now,
}

#[derive(Debug)]
struct Unanswered {
    ticket: Ticket,
    submit: Submit,
}

/// What the forwarder wants of the document.
#[derive(Debug)]
pub(super) enum Want {
    /// Bring this to the owner.
    Submit(Submit),
    /// Bring it to the owner again.
    SubmitAgain(Submit),
    /// A snapshot at the newest revision that is durable.
    Show,
    /// A retry, a little later.
    Later,
    /// Do this.
    Do(Action),
}

impl Walker {
    fn new(session: SessionId, at: Revision, then: Then) -> Self {
        Self {
            session,
            at,
            is_paged: false,
            then,
        }
    }
}

/// What new readers are served while the store is away.
#[derive(Debug, Default)]
struct StoreAway {
    /// The document as far as this node knows it, with a notice.
    shown: Option<Arc<EncodedSnapshot>>,
    /// Whether a newer one was asked for and has not come.
    refolding: bool,
}

/// How long a joiner waits for the store.
const JOIN_PATIENCE: Duration = Duration::from_secs(10);

impl Forwarder {
    pub(super) fn new(settings: DocumentSettings) -> Self {
        Self {
            tail: None,
            told_head: Revision::ZERO,
            live: Arc::default(),
            shown: None,
            joiners: Vec::new(),
            walkers: VecDeque::new(),
            unanswered: BTreeMap::new(),
            with_owner: BTreeSet::new(),
            showing: false,
            shows: 0,
            healing: None,
            at_home: false,
            store_away: None,
            frozen: None,
            settings,
        }
    }

    /// Whether no session needs anything.
    pub(super) fn is_idle(&self) -> bool {
        self.live.is_empty()
            && self.joiners.is_empty()
            && self.walkers.is_empty()
            && self.unanswered.is_empty()
    }

    /// Whether a session needs anything.
    pub(super) fn knows(&self, session: SessionId) -> bool {
        self.live.binary_search(&session).is_ok()
            || self.unanswered.contains_key(&session)
            || self.joiners.iter().any(|joiner| joiner.session == session)
            || self.walkers.iter().any(|walker| walker.session == session)
    }

    /// Whether a submit is with the owner.
    pub(super) fn is_waiting(&self) -> bool {
        !self.with_owner.is_empty()
    }

    /// This node's own sequencer begins to tell the commits, or ends.
    pub(super) fn set_at_home(&mut self, at_home: bool) {
        self.at_home = at_home;
    }

    /// Whether a session is told every commit.
    pub(super) fn is_listening(&self) -> bool {
        !self.live.is_empty()
    }

    /// The newest revision that was delivered.
    pub(super) fn head(&self) -> Revision {
        self.tail.as_ref().map_or(Revision::ZERO, Tail::head)
    }

    /// The newest commit that was delivered; `None` if only a snapshot is known.
    pub(super) fn newest(&self) -> Option<&Arc<Entry>> {
        self.tail.as_ref()?.newest()
    }

    /// A session wants the document, or the commits since what it has; `live`: and those that follow.
    pub(super) fn join(
        &mut self,
        (session, ticket): (SessionId, Ticket),
        Wanted { since, min }: Wanted,
        live: bool,
        now: Now,
        out: &mut Vec<Want>,
    ) {
        if let Some(frozen) = &self.frozen {
            return out.push(reply(session, ticket, frozen.answer(since)));
        }
        let least = if self.is_told() {
            Least::Known(self.head().max(self.told_head))
        } else {
            Least::Shown(self.shows + 1)
        };
        if live {
            // Subscribing again replaces the first subscription; a fetch leaves it as it is.
            self.leave_live(session);
        }
        let deadline = now.clock + JOIN_PATIENCE;
        if let Least::Known(known) = least
            && min > known
        {
            // Either this node is behind, or the log has lost what the client knows.
            let then = Then::Proven {
                ticket,
                live,
                min,
                deadline,
            };
            return self.set_out(Walker::new(session, min.before(), then), out);
        }
        self.enter(
            Joiner {
                session,
                ticket,
                since,
                least,
                min,
                live,
                deadline,
            },
            out,
        );
    }

    /// Lets a joiner in, or has it wait for a snapshot.
    fn enter(&mut self, joiner: Joiner, out: &mut Vec<Want>) {
        if let Some(joiner) = self.admit(joiner, out) {
            self.joiners.push(joiner);
            self.show(out);
            self.serve_from_memory(out);
        }
    }

    /// A session wants no more commits. A subscription that is still on its way is answered now, or, where only a
    /// snapshot can answer it, later: but no commit follows.
    pub(super) fn unsubscribe(&mut self, session: SessionId, ticket: Ticket, out: &mut Vec<Want>) {
        self.leave_live(session);
        let mut ended = Vec::new();
        self.joiners.retain_mut(|joiner| {
            let subscribes = joiner.session == session && std::mem::take(&mut joiner.live);
            let ends = subscribes && joiner.since.is_some();
            ended.extend(ends.then_some(joiner.ticket));
            !ends
        });
        self.walkers.retain(|walker| match walker.then {
            Then::Joined {
                ticket, live: true, ..
            } if walker.session == session => {
                ended.push(ticket);
                false
            }
            Then::Proven {
                ticket, live: true, ..
            } if walker.session == session => {
                ended.push(ticket);
                false
            }
            Then::Joined { .. } | Then::Acked(_) | Then::Proven { .. } => true,
        });
        self.walk(session, out);
        for ticket in ended {
            out.push(reply(session, ticket, SessionReply::Done));
        }
        out.push(reply(session, ticket, SessionReply::Done));
    }

    /// A session ended. What it submitted may still be committed.
    pub(super) fn left(&mut self, session: SessionId) {
        self.leave_live(session);
        self.joiners.retain(|joiner| joiner.session != session);
        self.walkers.retain(|walker| walker.session != session);
        self.unanswered.remove(&session);
        self.with_owner
            .retain(|(_, _, waiting)| *waiting != session);
    }

    /// A session may not change the document any more: what it submitted is refused, but for what is with the owner.
    pub(super) fn muted(&mut self, session: SessionId, out: &mut Vec<Want>) {
        let Some(queue) = self.unanswered.get_mut(&session) else {
            return;
        };
        for waiting in queue.split_off(1.min(queue.len())) {
            let refused = SessionReply::Rejected(Rejection::read_only_access());
            out.push(reply(session, waiting.ticket, refused));
        }
    }

    /// A session wants something committed.
    pub(super) fn submit(
        &mut self,
        session: SessionId,
        ticket: Ticket,
        submit: Submit,
        out: &mut Vec<Want>,
    ) {
        let queue = self.unanswered.entry(session).or_default();
        if queue.len() >= self.settings.session_submits_max {
            return out.push(reply(
                session,
                ticket,
                SessionReply::Rejected(Rejection::busy()),
            ));
        }
        queue.push_back(Unanswered { ticket, submit });
        if queue.len() == 1 {
            self.send_first(session, out);
        }
    }

    /// Says every submit again that is with the owner: it may be another owner, or the first copy was lost.
    pub(super) fn refresh(&self, out: &mut Vec<Want>) {
        for (_, _, session) in &self.with_owner {
            if let Some(first) = self.unanswered.get(session).and_then(VecDeque::front) {
                out.push(Want::SubmitAgain(first.submit.clone()));
            }
        }
    }

    /// Only a part of the document can be read. It is shown until the log grows beyond `found.head`, or until a request
    /// comes after `look_again`.
    pub(super) fn freeze(
        &mut self,
        found: ReadOnly,
        unsettled: Unsettled,
        look_again: Option<Duration>,
        out: &mut Vec<Want>,
    ) {
        let frozen = Frozen { found, look_again };
        self.showing = false;
        self.healing = None;
        for joiner in std::mem::take(&mut self.joiners) {
            let answer = frozen.answer(joiner.since);
            out.push(reply(joiner.session, joiner.ticket, answer));
        }
        let refused = || SessionReply::Rejected(frozen.found.rejection.clone());
        for walker in std::mem::take(&mut self.walkers) {
            if let Then::Joined { ticket, .. } | Then::Proven { ticket, .. } = walker.then {
                out.push(reply(walker.session, ticket, refused()));
            }
        }
        if unsettled == Unsettled::Refused {
            self.with_owner.clear();
            for (session, queue) in std::mem::take(&mut self.unanswered) {
                for waiting in queue {
                    out.push(reply(session, waiting.ticket, refused()));
                }
            }
        }
        self.frozen = Some(frozen);
    }

    /// The answer to every submit while only a part of the document can be read. A damaged document may be held whole by an
    /// owner `elsewhere`: then that owner answers.
    pub(super) fn refuses(&self, elsewhere: bool) -> Option<&Rejection> {
        let found = &self.frozen.as_ref()?.found;
        let is_damaged = matches!(found.cause, ReadOnlyCause::Damaged { .. });
        (!elsewhere || !is_damaged).then_some(&found.rejection)
    }

    /// Forgets that only a part can be read, if the document is to be loaded again.
    pub(super) fn look_again(&mut self, now: Now) {
        let is_due = |frozen: &mut Frozen| frozen.look_again.is_some_and(|at| at <= now.clock);
        self.frozen.take_if(is_due);
    }

    /// The log's head is told, and commits, new ones or old ones.
    pub(super) fn commits(&mut self, head: Revision, entries: &[Arc<Entry>], out: &mut Vec<Want>) {
        if self
            .frozen
            .as_ref()
            .is_some_and(|frozen| head <= frozen.found.head)
        {
            return;
        }
        self.frozen = None;
        self.told_head = self.told_head.max(head);
        let start = entries
            .first()
            .map_or(head, |first| first.revision.before());
        let tail = self.tail.get_or_insert_with(|| Tail::new(start));
        // How many of them are known; none where there is a gap before them, which is healed below.
        if let Some(known) = tail.head().0.checked_sub(start.0) {
            let known = usize::try_from(known)
                .unwrap_or(usize::MAX)
                .min(entries.len());
            let (old, new) = entries.split_at(known);
            self.take_in(new, out);
            for entry in old {
                self.answer(entry, Told::Before, out);
            }
            for entry in new {
                self.answer(entry, Told::Now, out);
            }
            self.admit_all(out);
        }
        if self.head() < self.told_head {
            self.heal(out);
        }
    }

    /// Takes in the commits behind the tail's head, and delivers them.
    fn take_in(&mut self, new: &[Arc<Entry>], out: &mut Vec<Want>) {
        let Some(tail) = self.tail.as_mut().filter(|_| !new.is_empty()) else {
            return;
        };
        for entry in new {
            tail.push(entry.clone());
        }
        tail.trim(
            self.settings.tail_entries_max,
            self.settings.tail_bytes_max,
            |_| {},
        );
        if !self.live.is_empty() {
            out.push(Want::Do(Action::Deliver {
                to: self.live.clone(),
                entries: new.to_vec(),
            }));
        }
    }

    /// The owner refused a submit.
    pub(super) fn rejected(&mut self, id: &SubmitId, rejection: &Rejection, out: &mut Vec<Want>) {
        while let Some((session, first)) = self.take_answered(id) {
            let refused = SessionReply::Rejected(rejection.clone());
            out.push(reply(session, first.ticket, refused));
            self.send_first(session, out);
        }
    }

    /// A snapshot came, with entries around it.
    pub(super) fn shown(
        &mut self,
        shown: Arc<EncodedSnapshot>,
        entries: &[Arc<Entry>],
        out: &mut Vec<Want>,
    ) {
        self.showing = false;
        let start = entries
            .first()
            .map_or(shown.revision, |entry| entry.revision.before());
        let apart = self.tail.as_ref().is_none_or(|tail| tail.head() < start);
        if apart && !self.is_told() {
            // Nobody is sent what lies between.
            self.tail = Some(Tail::new(start));
        }
        self.joiners.retain_mut(|joiner| {
            if matches!(joiner.least, Least::Shown(number) if number <= self.shows) {
                joiner.least = Least::Known(shown.revision);
                if joiner.min > shown.revision {
                    let refused = SessionReply::Rejected(Rejection::future_revision());
                    out.push(reply(joiner.session, joiner.ticket, refused));
                    return false;
                }
            }
            true
        });
        self.commits(shown.revision, entries, out);
        let news = self
            .shown
            .as_ref()
            .is_none_or(|old| old.revision < shown.revision);
        if news {
            self.shown = Some(shown);
        }
        self.admit_all(out);
        let came_later = |joiner: &Joiner| matches!(joiner.least, Least::Shown(_));
        let came_later = self.joiners.iter().any(came_later);
        if came_later || self.joiners.iter().any(|joiner| joiner.since.is_none()) {
            // Whoever shows the same again is behind: asked at once, it would be asked without end.
            if news || came_later {
                self.show(out);
            } else {
                out.push(Want::Later);
            }
        }
    }

    /// The snapshot did not come.
    pub(super) fn not_shown(&mut self) {
        self.showing = false;
    }

    /// Whoever was to provide the snapshot is gone: it is asked for again, if anybody waits for it.
    pub(super) fn show_again(&mut self, out: &mut Vec<Want>) {
        self.showing = false;
        if !self.joiners.is_empty() {
            self.show(out);
        }
    }

    /// Asks again for what is still needed; whoever has waited too long is refused.
    pub(super) fn retry(&mut self, now: Now, out: &mut Vec<Want>) {
        self.joiners.retain(|joiner| {
            let waits = now.clock < joiner.deadline;
            if !waits {
                let refused = SessionReply::Rejected(Rejection::store_unavailable());
                out.push(reply(joiner.session, joiner.ticket, refused));
            }
            waits
        });
        if !self.joiners.is_empty() {
            self.show(out);
        }
        for session in self.walking() {
            self.walk(session, out);
        }
        if self.healing.take().is_some() {
            self.heal(out);
        }
    }

    /// A page of the log came that was asked for behind the tail's head. Never a walker's: that may have been read before
    /// there was what this node has been told of since.
    pub(super) fn read_on(&mut self, since: Revision, entries: &[Arc<Entry>], out: &mut Vec<Want>) {
        // What was asked for may have come from elsewhere in the meantime: then it is known, and passed over.
        let Some(healing) = self.healing.take_if(|healing| healing.since == since) else {
            return;
        };
        let head = entries.last().map_or(since, |entry| entry.revision);
        if entries.is_empty() && self.told_head == healing.told {
            // The log ends here, whatever was told: to ask again would be to ask for ever.
            self.told_head = self.told_head.min(self.head());
            if !self.joiners.is_empty() {
                out.push(Want::Later);
            }
        }
        self.commits(head, entries, out);
    }

    /// A page of the log came for a client that is behind.
    pub(super) fn walk_on(
        &mut self,
        session: SessionId,
        since: Revision,
        entries: &[Arc<Entry>],
        out: &mut Vec<Want>,
    ) {
        let Some(place) = self.walker(session, since) else {
            return;
        };
        let walker = &mut self.walkers[place];
        let (has, until) = match walker.then {
            Then::Proven { .. } => return self.proven(place, entries, out),
            Then::Acked(revision) => (Revision::ZERO, revision),
            Then::Joined { has, .. } => (has, Revision(u64::MAX)),
        };
        let page = entries.iter().take_while(|entry| entry.revision <= until);
        let Some(last) = page.clone().last().map(|entry| entry.revision) else {
            // The log ends here, or it lacks what its head promises; either way there is nothing more to send.
            return self.arrive(place, out);
        };
        walker.at = last;
        let wanted = page.filter(|entry| entry.revision > has).cloned();
        let wanted: Vec<_> = wanted.collect();
        if !wanted.is_empty() {
            out.push(deliver(session, wanted));
        }
        let tail = self.tail.as_ref();
        if last == until || tail.is_some_and(|tail| tail.since(last).is_some()) {
            self.arrive(place, out);
        } else {
            walker.is_paged = false;
            self.walk(session, out);
        }
        self.told_head = self.told_head.max(last);
        if self.is_told() && self.head() < self.told_head {
            self.heal(out);
        }
    }

    /// The log reaches the revision that a client names, or does not.
    fn proven(&mut self, place: usize, entries: &[Arc<Entry>], out: &mut Vec<Want>) {
        let Some(walker) = self.walkers.remove(place) else {
            return;
        };
        let Then::Proven {
            ticket,
            live,
            min,
            deadline,
        } = walker.then
        else {
            return;
        };
        let session = walker.session;
        if entries.first().is_none_or(|entry| entry.revision != min) {
            let refused = SessionReply::Rejected(Rejection::future_revision());
            out.push(reply(session, ticket, refused));
        } else {
            self.told_head = self.told_head.max(min);
            if self.is_told() && self.head() < self.told_head {
                self.heal(out);
            }
            let least = match self.is_told() {
                true => Least::Known(self.told_head),
                false => Least::Shown(self.shows + 1),
            };
            let joiner = Joiner {
                session,
                ticket,
                since: None,
                least,
                min,
                live,
                deadline,
            };
            self.enter(joiner, out);
        }
        self.walk(session, out);
    }

    /// The store did not answer for a client that is behind: its page is asked for again with the next retry. A client that
    /// has nothing yet is refused.
    pub(super) fn not_paged(&mut self, session: SessionId, since: Revision, out: &mut Vec<Want>) {
        let Some(place) = self.walker(session, since) else {
            return;
        };
        self.walkers[place].is_paged = false;
        if let Then::Proven { ticket, .. } = self.walkers[place].then {
            self.walkers.remove(place);
            let refused = SessionReply::Rejected(Rejection::store_unavailable());
            out.push(reply(session, ticket, refused));
            self.walk(session, out);
        }
    }

    /// The page that a client needs is damaged: its read is refused. A client that waits for its own commit is sent that
    /// alone, if it is in memory; the gap before it makes the client fetch, and that fetch is refused.
    pub(super) fn not_walked(
        &mut self,
        session: SessionId,
        since: Revision,
        rejection: &Rejection,
        out: &mut Vec<Want>,
    ) {
        let Some(walker) = self
            .walker(session, since)
            .and_then(|place| self.walkers.remove(place))
        else {
            return;
        };
        match walker.then {
            Then::Joined { ticket, .. } | Then::Proven { ticket, .. } => {
                out.push(reply(
                    session,
                    ticket,
                    SessionReply::Rejected(rejection.clone()),
                ));
            }
            Then::Acked(revision) => {
                let own = self
                    .tail
                    .as_ref()
                    .and_then(|it| it.since(revision.before()));
                let own: Vec<_> = own.into_iter().flatten().take(1).cloned().collect();
                if !own.is_empty() {
                    out.push(deliver(session, own));
                }
            }
        }
        self.walk(session, out);
    }

    /// Where the read stands whose page was asked for.
    fn walker(&self, session: SessionId, at: Revision) -> Option<usize> {
        self.walkers
            .iter()
            .position(|walker| walker.session == session && walker.at == at && walker.is_paged)
    }

    fn arrive(&mut self, place: usize, out: &mut Vec<Want>) {
        if let Some(walker) = self.walkers.remove(place) {
            self.walked(&walker, out);
            self.walk(walker.session, out);
        }
    }

    /// Frees the snapshot that is kept for the next reader.
    pub(super) fn forget_snapshot(&mut self) {
        self.shown = None;
    }

    /// Brings a position to the tail's head, as far as the tail reaches back. One that is gone is gone at any revision.
    pub(super) fn move_position(&self, client: &ClientId, presence: &mut Presence) {
        let is_gone = presence.is_gone();
        let (Some(position), Some(tail)) = (&mut presence.position, &self.tail) else {
            return;
        };
        if is_gone {
            position.revision = position.revision.max(tail.head());
            return;
        }
        let Some(unseen) = tail
            .since(position.revision)
            .filter(|unseen| unseen.len() > 0)
        else {
            return;
        };
        let Ok(mut value) = serde_json::from_str::<serde_json::Value>(&presence.value) else {
            return;
        };
        for entry in unseen {
            use crate::log::Change;
            match &entry.change {
                Change::Edit(op) => {
                    let own = entry.id.client == *client;
                    if crate::ot::transform_presence(position.kind, &mut value, op, own).is_err() {
                        value = serde_json::Value::Null;
                    }
                }
                Change::Create(_) | Change::Delete => value = serde_json::Value::Null,
                Change::Nothing => {}
            }
        }
        position.revision = tail.head();
        presence.value = value.to_string().into();
    }

    /// Lets a joiner in, or hands it back if it has to wait for a snapshot.
    fn admit(&mut self, joiner: Joiner, out: &mut Vec<Want>) -> Option<Joiner> {
        let (Some(tail), Least::Known(least)) = (&self.tail, joiner.least) else {
            return Some(joiner);
        };
        let Joiner {
            session,
            ticket,
            since,
            live,
            ..
        } = joiner;
        match since {
            None => {
                let shown = self.shown.as_ref().filter(|shown| shown.revision >= least);
                // A snapshot beyond the tail is good: what it holds comes once more, and clients pass it over.
                let after = shown.and_then(|shown| tail.since(shown.revision.min(tail.head())));
                let after = after.map(|after| after.cloned().collect::<Vec<_>>());
                let (Some(shown), Some(after)) = (shown, after) else {
                    return Some(joiner);
                };
                out.push(reply(
                    session,
                    ticket,
                    SessionReply::Snapshot(shown.clone()),
                ));
                // A subscriber that fetches because it has nothing passed over what it was sent since it asked.
                let listens = live || self.live.binary_search(&session).is_ok();
                if listens && !after.is_empty() {
                    out.push(deliver(session, after));
                }
                if live {
                    self.enter_live(session);
                }
            }
            // What it lacks is being read.
            Some(since) if since.max(tail.head()) < least => return Some(joiner),
            Some(has) => {
                let then = Then::Joined { ticket, live, has };
                let walker = |at| Walker::new(session, at, then);
                if has > self.told_head.max(tail.head()) {
                    // Either this node is behind, or the log has lost what the client has: the store knows whether there
                    // is such an entry.
                    self.set_out(walker(has.before()), out);
                } else if has >= tail.head() || tail.since(has).is_some() {
                    self.walked(&walker(has), out);
                } else {
                    self.set_out(walker(has), out);
                }
            }
        }
        None
    }

    fn admit_all(&mut self, out: &mut Vec<Want>) {
        for joiner in std::mem::take(&mut self.joiners) {
            if let Some(joiner) = self.admit(joiner, out) {
                self.joiners.push(joiner);
            }
        }
    }

    /// Has a client that is behind brought to the tail from the store.
    fn set_out(&mut self, walker: Walker, out: &mut Vec<Want>) {
        let session = walker.session;
        self.walkers.push_back(walker);
        self.walk(session, out);
    }

    /// The sessions that have reads on their way.
    fn walking(&self) -> BTreeSet<SessionId> {
        self.walkers.iter().map(|walker| walker.session).collect()
    }

    /// Asks for the page that the first of a session's reads needs. Its reads go one after the other, so that its client
    /// is sent no commit before an older one.
    fn walk(&mut self, session: SessionId, out: &mut Vec<Want>) {
        let mut walkers = self.walkers.iter_mut();
        let first = walkers.find(|walker| walker.session == session);
        if let Some(walker) = first.filter(|walker| !walker.is_paged) {
            walker.is_paged = true;
            out.push(page(PageRequester::CatchUp(session), walker.at));
        }
    }

    /// A walker has come as far as the tail: it is sent the rest, and its walk ends.
    fn walked(&mut self, walker: &Walker, out: &mut Vec<Want>) {
        let Walker {
            session, at, then, ..
        } = *walker;
        let until = match then {
            Then::Acked(revision) => revision,
            Then::Joined { .. } | Then::Proven { .. } => Revision(u64::MAX),
        };
        let rest = self
            .tail
            .as_ref()
            .and_then(|tail| tail.since(at))
            .into_iter()
            .flatten();
        let rest: Vec<_> = rest
            .take_while(|entry| entry.revision <= until)
            .cloned()
            .collect();
        if !rest.is_empty() {
            out.push(deliver(session, rest));
        }
        let Then::Joined { ticket, live, has } = then else {
            return;
        };
        if at < has {
            let refused = SessionReply::Rejected(Rejection::future_revision());
            return out.push(reply(session, ticket, refused));
        }
        if self.tail.as_ref().is_some_and(|tail| at < tail.start()) {
            // Better no stream than one with a gap.
            let refused = SessionReply::Rejected(Rejection::revision_too_old());
            return out.push(reply(session, ticket, refused));
        }
        out.push(reply(session, ticket, SessionReply::Done));
        if live {
            self.enter_live(session);
        }
    }

    /// Answers the submit that `entry` is the commit of, on each session here that said it.
    fn answer(&mut self, entry: &Arc<Entry>, told: Told, out: &mut Vec<Want>) {
        while let Some((session, first)) = self.take_answered(&entry.id) {
            self.answer_one(session, &first, entry, told, out);
            self.send_first(session, out);
        }
    }

    fn answer_one(
        &mut self,
        session: SessionId,
        first: &Unanswered,
        entry: &Arc<Entry>,
        told: Told,
        out: &mut Vec<Want>,
    ) {
        let committed = SessionReply::Committed(entry.clone());
        out.push(reply(session, first.ticket, committed));
        let heard = told == Told::Now && self.live.binary_search(&session).is_ok();
        if !heard {
            let at = first
                .submit
                .base
                .unwrap_or(entry.revision)
                .min(entry.revision.before());
            let walker = Walker::new(session, at, Then::Acked(entry.revision));
            let near = self
                .tail
                .as_ref()
                .is_some_and(|tail| tail.since(at).is_some());
            if near {
                self.walked(&walker, out);
            } else {
                self.set_out(walker, out);
            }
        }
    }

    /// The requests that are this submit.
    pub(super) fn waiting_for(&self, id: &SubmitId) -> Vec<(SessionId, Ticket)> {
        let (least, most) = (SessionId(0), SessionId(u64::MAX));
        let saying = self.with_owner.range(key(id, least)..=key(id, most));
        let first = |session: &SessionId| self.unanswered.get(session)?.front();
        saying
            .filter_map(|(_, _, session)| Some((*session, first(session)?)))
            .filter(|(_, first)| first.submit.id == *id)
            .map(|(session, first)| (session, first.ticket))
            .collect()
    }

    fn take_answered(&mut self, id: &SubmitId) -> Option<(SessionId, Unanswered)> {
        let (least, most) = (SessionId(0), SessionId(u64::MAX));
        let mut saying = self.with_owner.range(key(id, least)..=key(id, most));
        let (session, first) = saying.find_map(|(_, _, session)| {
            let queue = self.unanswered.get_mut(session)?;
            let first = queue.pop_front_if(|first| first.submit.id == *id)?;
            Some((*session, first))
        })?;
        if self
            .unanswered
            .get(&session)
            .is_some_and(VecDeque::is_empty)
        {
            self.unanswered.remove(&session);
        }
        self.with_owner.remove(&key(id, session));
        Some((session, first))
    }

    /// Brings the session's oldest submit to the owner.
    fn send_first(&mut self, session: SessionId, out: &mut Vec<Want>) {
        if let Some(first) = self.unanswered.get(&session).and_then(VecDeque::front) {
            self.with_owner.insert(key(&first.submit.id, session));
            out.push(Want::Submit(first.submit.clone()));
        }
    }

    fn heal(&mut self, out: &mut Vec<Want>) {
        if self.healing.is_none() {
            self.healing = Some(Healing {
                since: self.head(),
                told: self.told_head,
            });
            out.push(page(PageRequester::Gap, self.head()));
        }
    }

    fn show(&mut self, out: &mut Vec<Want>) {
        if !std::mem::replace(&mut self.showing, true) {
            self.shows += 1;
            out.push(Want::Show);
        }
    }

    /// Whether the commits are told to this node: by its own sequencer, or because somebody here wants them. The owner
    /// forgets who wants none, and the store is not asked for news of them.
    fn is_told(&self) -> bool {
        self.at_home || !self.live.is_empty()
    }

    fn enter_live(&mut self, session: SessionId) {
        if let Err(place) = self.live.binary_search(&session) {
            Arc::make_mut(&mut self.live).insert(place, session);
        }
    }

    fn leave_live(&mut self, session: SessionId) {
        if let Ok(place) = self.live.binary_search(&session) {
            Arc::make_mut(&mut self.live).remove(place);
        }
    }
}

fn key(id: &SubmitId, session: SessionId) -> (ClientId, u64, SessionId) {
    (id.client.clone(), id.seq, session)
}

fn reply(session: SessionId, ticket: Ticket, answer: SessionReply) -> Want {
    Want::Do(Action::Reply {
        session,
        ticket,
        reply: answer,
    })
}

fn deliver(session: SessionId, entries: Vec<Arc<Entry>>) -> Want {
    Want::Do(Action::Deliver {
        to: Arc::new(vec![session]),
        entries,
    })
}

fn page(requester: PageRequester, since: Revision) -> Want {
    Want::Do(Action::LoadPage { requester, since })
}
