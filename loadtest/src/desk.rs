//! One document and its clients, and whether they agree.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use anyhow::Result;
use copydesk::id::ClientId;
use copydesk::log::Revision;
use copydesk::ot::Content;

use crate::check::{Checker, Claim, Faults};
use crate::clerk::Clerk;
use crate::member::{Member, SharedTape};

/// One document and its clients.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) tape: SharedTape,
    pub(crate) members: Vec<Rc<RefCell<Member>>>,
}

/// A document begins with its create.
const FIRST: Revision = Revision(1);

impl Desk {
    pub(crate) fn new(tape: SharedTape) -> Self {
        Self {
            tape,
            members: Vec::new(),
        }
    }

    /// Whether every client has all there is and nothing of its own is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        let head = self.head();
        self.members.iter().all(|member| {
            let member = member.borrow();
            member.is_settled() && member.revision() == Some(head)
        })
    }

    /// The newest revision that any client knows of. An author may know one that nobody else has heard of.
    fn head(&self) -> Revision {
        let known = self.members.iter().map(|member| member.borrow().revision());
        known
            .chain([self.tape.borrow().head()])
            .flatten()
            .max()
            .unwrap_or(FIRST)
    }

    /// Says who is not quiet.
    pub(crate) fn tell_restless(&self, faults: &mut Faults) {
        let (tape, head) = (self.tape.borrow(), self.head());
        for (index, member) in self.members.iter().enumerate() {
            let (member, doc) = (member.borrow(), &tape.doc);
            let at = member.revision().unwrap_or_default();
            if !member.is_settled() {
                faults.add(format!("client {index} of {doc} waits for an ack"));
            } else if at != head {
                faults.add(format!(
                    "client {index} of {doc} is at {at}, others have heard of {head}"
                ));
            }
        }
    }

    /// Reads the document and its log back and compares. `maker` is who made it, and with which submit. Returns how many
    /// entries the log has.
    pub(crate) async fn check(
        &self,
        maker: (ClientId, u64),
        clerk: &mut Clerk,
        faults: &mut Faults,
    ) -> Result<u64> {
        let (doc, kind) = {
            let tape = self.tape.borrow();
            (tape.doc.clone(), tape.kind)
        };
        let shown = clerk.fetch(&doc, kind).await?;
        let mut checker = Checker::new(self.claims(maker));
        clerk.log(&doc, kind, |entry| checker.entry(entry)).await?;
        let (folded, found) = checker.finish(&shown);
        faults.extend(found);
        self.check_members(&shown, faults);
        self.check_readers(faults);
        Ok(folded.revision.0)
    }

    fn claims(&self, (maker, seq): (ClientId, u64)) -> HashMap<ClientId, Claim> {
        let made = Claim {
            submits: seq,
            acknowledged: vec![(seq, FIRST)],
        };
        let mut claims = HashMap::from([(maker, made)]);
        for member in &self.members {
            if let Member::Editor(editor) = &*member.borrow() {
                let claim = Claim {
                    submits: editor.client.submits(),
                    acknowledged: editor.client.acknowledged().to_vec(),
                };
                claims.insert(editor.client.id().clone(), claim);
            }
        }
        claims
    }

    /// Every client must have what the server shows.
    fn check_members(&self, shown: &(Revision, Option<Content>), faults: &mut Faults) {
        let tape = self.tape.borrow();
        for (index, member) in self.members.iter().enumerate() {
            let (member, doc) = (member.borrow(), &tape.doc);
            if member.revision() != Some(shown.0) {
                let at = member.revision().unwrap_or_default();
                faults.add(format!(
                    "client {index} of {doc} is at {at}, the document is at {}",
                    shown.0
                ));
            } else if let Member::Editor(editor) = &*member
                && editor.client.content() != shown.1.as_ref()
            {
                faults.add(format!(
                    "client {index} of {doc} sees another document than the server shows"
                ));
            }
        }
    }

    /// All readers must have been told the same.
    pub(crate) fn check_readers(&self, faults: &mut Faults) {
        let mut first = None;
        for (index, member) in self.members.iter().enumerate() {
            if let Member::Reader(reader) = &*member.borrow() {
                let told = (reader.revision, reader.hash);
                if *first.get_or_insert(told) != told {
                    let doc = &self.tape.borrow().doc;
                    faults.add(format!("client {index} of {doc} was told something else"));
                }
            }
        }
    }
}
