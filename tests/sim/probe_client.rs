//! A probe: a client that sends every kind of request in any order (fetches, subscribes and unsubscribes, submits without a
//! subscription, presences), and checks that the answers follow the order of the protocol.

use std::collections::BTreeMap;
use std::sync::Arc;

use copydesk::doc::{
    Position, Presence, Proposal, ReadMode, SessionReply, SessionRequest, Submit, Ticket,
};
use copydesk::id::{ClientId, DocId, Name, UserId};
use copydesk::log::{Entry, Revision, SubmitId};
use copydesk::ot::{Content, Kind};

use super::rng::Rng;
use super::world::Creation;

/// A probe.
#[derive(Debug)]
pub(crate) struct ProbeClient {
    pub(crate) client: ClientId,
    pub(crate) requests_left: u64,
    /// The newest revision up to which it has been sent everything.
    at: Option<Revision>,
    /// Whether it may be sent commits of a subscription.
    subscription: Subscription,
    /// Its requests that are not answered.
    waiting: BTreeMap<Ticket, Outstanding>,
    tickets: u64,
    seq: u64,
    /// The `seq`s of its submits with a base that were rejected. Such a rejection is final.
    pub(crate) refused: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subscription {
    No,
    /// Since this request. A later unsubscribe has not been answered.
    Since(Ticket),
}

#[derive(Debug)]
enum Outstanding {
    Fetch(Option<Revision>),
    Subscribe,
    Unsubscribe,
    /// Answered by its commit.
    Submit(SubmitId, Option<Revision>),
    Publish(Presence),
}

/// A message to the probe.
#[derive(Debug)]
pub(crate) enum ProbeMessage {
    Commit(Arc<Entry>),
    Reply(Ticket, SessionReply),
    /// Its own position, published.
    Published(Ticket, Presence),
}

impl ProbeClient {
    pub(crate) fn new(index: usize, requests_left: u64) -> Self {
        Self {
            client: ClientId::parse(&format!("probe-{index}")).unwrap(),
            requests_left,
            at: None,
            subscription: Subscription::No,
            waiting: BTreeMap::new(),
            tickets: 0,
            seq: 0,
            refused: Vec::new(),
        }
    }

    /// The number of its submits.
    pub(crate) fn submits(&self) -> u64 {
        self.seq
    }

    /// The socket broke: its requests are not answered.
    pub(crate) fn disconnected(&mut self) {
        self.waiting.clear();
        self.subscription = Subscription::No;
    }

    /// Returns true if every request is answered and every commit of its subscription arrived.
    pub(crate) fn is_at_rest(&self, head: Revision) -> bool {
        self.requests_left == 0
            && self.waiting.is_empty()
            && (self.subscription == Subscription::No || self.at.is_none_or(|at| at >= head))
    }

    /// The next request.
    pub(crate) fn ask(
        &mut self,
        rng: &mut Rng,
        doc: &DocId,
        kind: Kind,
        creation: Creation,
    ) -> (Ticket, SessionRequest) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let since = self.at.filter(|_| rng.percent(60));
        let (asked, ask) = match rng.below(10) {
            0..=2 => match (since, self.at) {
                (None, Some(min)) => (
                    Outstanding::Fetch(None),
                    SessionRequest::ReadFrom {
                        min,
                        mode: ReadMode::Fetch,
                    },
                ),
                _ => (Outstanding::Fetch(since), SessionRequest::Fetch { since }),
            },
            3..=5 => {
                self.subscription = Subscription::Since(ticket);
                (Outstanding::Subscribe, SessionRequest::Subscribe { since })
            }
            6 | 7 => (Outstanding::Unsubscribe, SessionRequest::Unsubscribe),
            8 => {
                let submit = match creation {
                    Creation::Repeated if rng.percent(40) => self.create(kind),
                    Creation::Repeated | Creation::Once => self.submit(kind),
                };
                let asked = Outstanding::Submit(submit.id.clone(), submit.base);
                (asked, SessionRequest::Submit(submit))
            }
            _ => {
                let presence = self.presence(rng, doc);
                let ask = SessionRequest::PublishPresence {
                    client: self.client.clone(),
                    presence: presence.clone(),
                };
                (Outstanding::Publish(presence), ask)
            }
        };
        self.waiting.insert(ticket, asked);
        (ticket, ask)
    }

    /// An edit that fits every revision.
    fn submit(&mut self, kind: Kind) -> Submit {
        let json = match kind {
            Kind::TextUnicode => r#"["v"]"#,
            Kind::RichText => r#"[{"insert":"v"}]"#,
        };
        Submit {
            id: self.next_id(),
            base: self.at,
            proposal: Proposal::Edit(json.into()),
        }
    }

    /// A create without a base, as sent by clients that have not fetched the document.
    fn create(&mut self, kind: Kind) -> Submit {
        let content = Content::create(kind, None).expect("an empty document");
        Submit {
            id: self.next_id(),
            base: None,
            proposal: Proposal::Create(content),
        }
    }

    fn next_id(&mut self) -> SubmitId {
        self.seq += 1;
        SubmitId {
            author: UserId::anyone(),
            client: self.client.clone(),
            seq: self.seq,
        }
    }

    fn presence(&self, rng: &mut Rng, doc: &DocId) -> Presence {
        let revision = self.at.unwrap_or_default();
        let revision = Revision(revision.0 - rng.below(revision.0.min(4) + 1));
        let value = format!(r#"{{"index":{},"length":1}}"#, rng.below(4));
        Presence {
            channel: Name::parse("c.d").unwrap(),
            id: Name::parse("p").unwrap(),
            version: self.tickets,
            value: value.into(),
            position: Some(Position {
                doc: doc.clone(),
                revision,
                kind: Kind::RichText,
            }),
        }
    }

    /// Handles a message.
    pub(crate) fn receive(
        &mut self,
        heard: ProbeMessage,
        log: &[Arc<Entry>],
    ) -> Result<(), String> {
        match heard {
            ProbeMessage::Commit(entry) => self.receive_commit(&entry),
            ProbeMessage::Reply(ticket, answer) => self.receive_reply(ticket, &answer),
            ProbeMessage::Published(ticket, presence) => match self.waiting.remove(&ticket) {
                Some(Outstanding::Publish(sent)) => {
                    check_position(&sent, &presence, &self.client, log)
                }
                other => Err(format!("a position answers {other:?}")),
            },
        }
    }

    fn receive_commit(&mut self, entry: &Entry) -> Result<(), String> {
        let own =
            |asked: &Outstanding| matches!(asked, Outstanding::Submit(id, _) if *id == entry.id);
        let awaited = |asked: &Outstanding| {
            matches!(asked, Outstanding::Fetch(Some(_)) | Outstanding::Submit(..))
        };
        // The entries up to its own commit may arrive again after a catch-up has sent them.
        let again = self.seq > 0 && self.at.is_some_and(|at| entry.revision <= at);
        if self.subscription == Subscription::No && !again && !self.waiting.values().any(awaited) {
            return Err(format!("{} was not requested", entry.revision));
        }
        let place = self.waiting.iter().find(|(_, asked)| own(asked));
        if let Some(ticket) = place.map(|(ticket, _)| *ticket)
            && let Some(Outstanding::Submit(_, None)) = self.waiting.remove(&ticket)
            && self.at.is_some_and(|at| entry.revision > at.next())
        {
            // A submit without a base: no entry has to precede its commit.
            return Ok(());
        }
        match self.at {
            Some(at) if entry.revision > at.next() => {
                return Err(format!("{} comes after {at}", entry.revision));
            }
            // Without a snapshot no entry can be missing.
            at => self.at = at.map(|at| at.max(entry.revision)),
        }
        Ok(())
    }

    fn receive_reply(&mut self, ticket: Ticket, answer: &SessionReply) -> Result<(), String> {
        if let (Some(Outstanding::Submit(..)), SessionReply::Committed(_)) =
            (self.waiting.get(&ticket), answer)
        {
            // The commit is the answer.
            return Ok(());
        }
        let Some(asked) = self.waiting.remove(&ticket) else {
            return match answer {
                SessionReply::Committed(_) => Ok(()),
                _ => Err(format!("{ticket:?} is answered twice")),
            };
        };
        match (&asked, answer) {
            (Outstanding::Submit(id, Some(_)), SessionReply::Rejected(_)) => {
                self.refused.push(id.seq)
            }
            (Outstanding::Fetch(None) | Outstanding::Subscribe, SessionReply::Snapshot(shown)) => {
                self.at = self.at.max(Some(shown.revision));
            }
            (Outstanding::Unsubscribe, SessionReply::Done) => {
                if matches!(self.subscription, Subscription::Since(since) if since < ticket) {
                    self.subscription = Subscription::No;
                }
            }
            (Outstanding::Fetch(Some(_)) | Outstanding::Subscribe, SessionReply::Done)
            | (Outstanding::Submit(_, None), SessionReply::Rejected(_)) => {}
            // The store was unavailable for too long.
            (Outstanding::Fetch(_) | Outstanding::Subscribe, SessionReply::Rejected(_)) => {
                if self.subscription == Subscription::Since(ticket) {
                    self.subscription = Subscription::No;
                }
            }
            (asked, answer) => return Err(format!("{asked:?} is answered {answer:?}")),
        }
        Ok(())
    }
}

/// Checks that a position was transformed over each entry from its revision to the published one.
fn check_position(
    sent: &Presence,
    published: &Presence,
    client: &ClientId,
    log: &[Arc<Entry>],
) -> Result<(), String> {
    use copydesk::log::Change;
    let (Some(from), Some(to)) = (&sent.position, &published.position) else {
        return Err("a position lost its document".to_owned());
    };
    let mut value: serde_json::Value = serde_json::from_str(&sent.value).unwrap();
    for entry in &log[from.revision.0 as usize..to.revision.0 as usize] {
        let moved = match &entry.change {
            Change::Edit(op) => {
                let own = entry.id.client == *client;
                copydesk::ot::transform_presence(from.kind, &mut value, op, own).is_ok()
            }
            Change::Create(_) | Change::Delete => false,
            Change::Nothing => true,
        };
        if !moved {
            value = serde_json::Value::Null;
        }
    }
    let value = value.to_string();
    if value != *published.value {
        return Err(format!("{sent:?} became {published:?}, not {value}"));
    }
    Ok(())
}
