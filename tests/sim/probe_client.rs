//! A visitor: a socket that asks in any order what sockets may ask (fetches, subscriptions and their ends, submits
//! without a subscription, positions), and sees that each answer keeps the protocol's order.

use std::collections::BTreeMap;
use std::sync::Arc;

use copydesk::doc::{
    Position, Presence, Proposal, ReadMode, SessionReply, SessionRequest, Submit, Ticket,
};
use copydesk::id::{ClientId, DocId, Name, UserId};
use copydesk::log::{Entry, Revision, SubmitId};
use copydesk::ot::{Content, Kind};

use super::rng::Dice;
use super::world::Lives;

/// A visitor and what it knows.
#[derive(Debug)]
pub(crate) struct Visitor {
    pub(crate) client: ClientId,
    pub(crate) asks_left: u64,
    /// The newest revision up to which it has been sent everything.
    at: Option<Revision>,
    /// Whether commits may come by a subscription.
    listens: Listens,
    /// Its requests that are not answered.
    waiting: BTreeMap<Ticket, Asked>,
    tickets: u64,
    seq: u64,
    /// The counts of its submits that were refused though they named what they were made on: the log decides that once and
    /// for all.
    pub(crate) refused: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listens {
    No,
    /// Since this ticket; the end that a later one asked for has not been answered.
    Since(Ticket),
}

#[derive(Debug)]
enum Asked {
    Fetch(Option<Revision>),
    Subscribe,
    Unsubscribe,
    /// Answered by its commit.
    Submit(SubmitId, Option<Revision>),
    Publish(Presence),
}

/// What reaches it.
#[derive(Debug)]
pub(crate) enum Heard {
    Commit(Arc<Entry>),
    Reply(Ticket, SessionReply),
    /// Its own position, published.
    Published(Ticket, Presence),
}

impl Visitor {
    pub(crate) fn new(index: usize, asks_left: u64) -> Self {
        Self {
            client: ClientId::parse(&format!("visitor-{index}")).unwrap(),
            asks_left,
            at: None,
            listens: Listens::No,
            waiting: BTreeMap::new(),
            tickets: 0,
            seq: 0,
            refused: Vec::new(),
        }
    }

    /// How many submits it has made.
    pub(crate) fn submits(&self) -> u64 {
        self.seq
    }

    /// The socket is gone: what was asked on it is not answered.
    pub(crate) fn disconnected(&mut self) {
        self.waiting.clear();
        self.listens = Listens::No;
    }

    /// Whether all is answered, and all was sent that is to be.
    pub(crate) fn rests(&self, head: Revision) -> bool {
        self.asks_left == 0
            && self.waiting.is_empty()
            && (self.listens == Listens::No || self.at.is_none_or(|at| at >= head))
    }

    /// Something to ask.
    pub(crate) fn ask(
        &mut self,
        dice: &mut Dice,
        doc: &DocId,
        kind: Kind,
        lives: Lives,
    ) -> (Ticket, SessionRequest) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let since = self.at.filter(|_| dice.percent(60));
        let (asked, ask) = match dice.below(10) {
            0..=2 => match (since, self.at) {
                (None, Some(min)) => (
                    Asked::Fetch(None),
                    SessionRequest::ReadFrom {
                        min,
                        mode: ReadMode::Fetch,
                    },
                ),
                _ => (Asked::Fetch(since), SessionRequest::Fetch { since }),
            },
            3..=5 => {
                self.listens = Listens::Since(ticket);
                (Asked::Subscribe, SessionRequest::Subscribe { since })
            }
            6 | 7 => (Asked::Unsubscribe, SessionRequest::Unsubscribe),
            8 => {
                let submit = match lives {
                    Lives::Many if dice.percent(40) => self.create(kind),
                    Lives::Many | Lives::One => self.submit(kind),
                };
                let asked = Asked::Submit(submit.id.clone(), submit.base);
                (asked, SessionRequest::Submit(submit))
            }
            _ => {
                let presence = self.presence(dice, doc);
                let ask = SessionRequest::PublishPresence {
                    client: self.client.clone(),
                    presence: presence.clone(),
                };
                (Asked::Publish(presence), ask)
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

    /// A create of whatever is current, as clients make it that have not fetched the document.
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

    fn presence(&self, dice: &mut Dice, doc: &DocId) -> Presence {
        let revision = self.at.unwrap_or_default();
        let revision = Revision(revision.0 - dice.below(revision.0.min(4) + 1));
        let value = format!(r#"{{"index":{},"length":1}}"#, dice.below(4));
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

    /// Takes in what reaches it.
    pub(crate) fn hears(&mut self, heard: Heard, log: &[Arc<Entry>]) -> Result<(), String> {
        match heard {
            Heard::Commit(entry) => self.hears_commit(&entry),
            Heard::Reply(ticket, answer) => self.hears_answer(ticket, &answer),
            Heard::Published(ticket, presence) => match self.waiting.remove(&ticket) {
                Some(Asked::Publish(said)) => moved_rightly(&said, &presence, &self.client, log),
                other => Err(format!("a position answers {other:?}")),
            },
        }
    }

    fn hears_commit(&mut self, entry: &Entry) -> Result<(), String> {
        let own = |asked: &Asked| matches!(asked, Asked::Submit(id, _) if *id == entry.id);
        let awaited = |asked: &Asked| matches!(asked, Asked::Fetch(Some(_)) | Asked::Submit(..));
        // The way to an own commit may be sent after another way has led past it.
        let again = self.seq > 0 && self.at.is_some_and(|at| entry.revision <= at);
        if self.listens == Listens::No && !again && !self.waiting.values().any(awaited) {
            return Err(format!("nobody asked for {}", entry.revision));
        }
        let place = self.waiting.iter().find(|(_, asked)| own(asked));
        if let Some(ticket) = place.map(|(ticket, _)| *ticket)
            && let Some(Asked::Submit(_, None)) = self.waiting.remove(&ticket)
            && self.at.is_some_and(|at| entry.revision > at.next())
        {
            // Said on whatever was current: nothing need come before its commit.
            return Ok(());
        }
        match self.at {
            Some(at) if entry.revision > at.next() => {
                return Err(format!("{} comes after {at}", entry.revision));
            }
            // Without a snapshot it knows nothing that could lack.
            at => self.at = at.map(|at| at.max(entry.revision)),
        }
        Ok(())
    }

    fn hears_answer(&mut self, ticket: Ticket, answer: &SessionReply) -> Result<(), String> {
        if let (Some(Asked::Submit(..)), SessionReply::Committed(_)) =
            (self.waiting.get(&ticket), answer)
        {
            // The commit says it.
            return Ok(());
        }
        let Some(asked) = self.waiting.remove(&ticket) else {
            return match answer {
                SessionReply::Committed(_) => Ok(()),
                _ => Err(format!("{ticket:?} is answered twice")),
            };
        };
        match (&asked, answer) {
            (Asked::Submit(id, Some(_)), SessionReply::Rejected(_)) => self.refused.push(id.seq),
            (Asked::Fetch(None) | Asked::Subscribe, SessionReply::Snapshot(shown)) => {
                self.at = self.at.max(Some(shown.revision));
            }
            (Asked::Unsubscribe, SessionReply::Done) => {
                if matches!(self.listens, Listens::Since(since) if since < ticket) {
                    self.listens = Listens::No;
                }
            }
            (Asked::Fetch(Some(_)) | Asked::Subscribe, SessionReply::Done)
            | (Asked::Submit(_, None), SessionReply::Rejected(_)) => {}
            // The store was away too long.
            (Asked::Fetch(_) | Asked::Subscribe, SessionReply::Rejected(_)) => {
                if self.listens == Listens::Since(ticket) {
                    self.listens = Listens::No;
                }
            }
            (asked, answer) => return Err(format!("{asked:?} is answered {answer:?}")),
        }
        Ok(())
    }
}

/// A position is moved by each entry in turn, from where it was said to where it is published.
fn moved_rightly(
    said: &Presence,
    published: &Presence,
    client: &ClientId,
    log: &[Arc<Entry>],
) -> Result<(), String> {
    use copydesk::log::Change;
    let (Some(from), Some(to)) = (&said.position, &published.position) else {
        return Err("a position lost its document".to_owned());
    };
    let mut value: serde_json::Value = serde_json::from_str(&said.value).unwrap();
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
        return Err(format!("{said:?} became {published:?}, not {value}"));
    }
    Ok(())
}
