//! One document of a run with its clients, and the check that they agree.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use anyhow::Result;
use copydesk::id::ClientId;
use copydesk::log::Revision;
use copydesk::ot::Content;

use crate::admin_client::AdminClient;
use crate::check::{Checker, Claim, Faults};
use crate::simulated_client::{SharedRecorder, SimulatedClient};

/// One document and its clients.
#[derive(Debug)]
pub(crate) struct DocumentUnderTest {
    pub(crate) recorder: SharedRecorder,
    pub(crate) clients: Vec<Rc<RefCell<SimulatedClient>>>,
}

/// A document begins with its create.
const FIRST: Revision = Revision(1);

impl DocumentUnderTest {
    pub(crate) fn new(recorder: SharedRecorder) -> Self {
        Self {
            recorder,
            clients: Vec::new(),
        }
    }

    /// Returns true if every client has the newest revision and no edit of its own in flight.
    pub(crate) fn is_quiet(&self) -> bool {
        let head = self.head();
        self.clients.iter().all(|client| {
            let client = client.borrow();
            client.is_settled() && client.revision() == Some(head)
        })
    }

    /// The newest revision that any client has. An author may have one that was not delivered to the others yet.
    fn head(&self) -> Revision {
        let known = self.clients.iter().map(|client| client.borrow().revision());
        known
            .chain([self.recorder.borrow().head()])
            .flatten()
            .max()
            .unwrap_or(FIRST)
    }

    /// Reports the clients that are not settled.
    pub(crate) fn report_unsettled(&self, faults: &mut Faults) {
        let (recorder, head) = (self.recorder.borrow(), self.head());
        for (index, client) in self.clients.iter().enumerate() {
            let (client, doc) = (client.borrow(), &recorder.doc);
            let at = client.revision().unwrap_or_default();
            if !client.is_settled() {
                faults.add(format!("client {index} of {doc} waits for an ack"));
            } else if at != head {
                faults.add(format!(
                    "client {index} of {doc} is at {at}, others have {head}"
                ));
            }
        }
    }

    /// Reads the document and its log back and compares. `maker` is the client that created it, with the submit's sequence
    /// number. Returns the number of entries in the log.
    pub(crate) async fn check(
        &self,
        maker: (ClientId, u64),
        admin: &mut AdminClient,
        faults: &mut Faults,
    ) -> Result<u64> {
        let (doc, kind) = {
            let recorder = self.recorder.borrow();
            (recorder.doc.clone(), recorder.kind)
        };
        let shown = admin.fetch(&doc, kind).await?;
        let mut checker = Checker::new(self.claims(maker));
        admin.log(&doc, kind, |entry| checker.entry(entry)).await?;
        let (folded, found) = checker.finish(&shown);
        faults.extend(found);
        self.check_clients(&shown, faults);
        self.check_readers(faults);
        Ok(folded.revision.0)
    }

    fn claims(&self, (maker, seq): (ClientId, u64)) -> HashMap<ClientId, Claim> {
        let made = Claim {
            submits: seq,
            acknowledged: vec![(seq, FIRST)],
        };
        let mut claims = HashMap::from([(maker, made)]);
        for client in &self.clients {
            if let SimulatedClient::Editor(editor) = &*client.borrow() {
                let claim = Claim {
                    submits: editor.client.submits(),
                    acknowledged: editor.client.acknowledged().to_vec(),
                };
                claims.insert(editor.client.id().clone(), claim);
            }
        }
        claims
    }

    /// Compares the clients with the server's snapshot.
    fn check_clients(&self, shown: &(Revision, Option<Content>), faults: &mut Faults) {
        let recorder = self.recorder.borrow();
        for (index, client) in self.clients.iter().enumerate() {
            let (client, doc) = (client.borrow(), &recorder.doc);
            if client.revision() != Some(shown.0) {
                let at = client.revision().unwrap_or_default();
                faults.add(format!(
                    "client {index} of {doc} is at {at}, the document is at {}",
                    shown.0
                ));
            } else if let SimulatedClient::Editor(editor) = &*client
                && editor.client.content() != shown.1.as_ref()
            {
                faults.add(format!(
                    "client {index} of {doc} sees another document than the server shows"
                ));
            }
        }
    }

    /// Compares the commits that the readers received with each other.
    pub(crate) fn check_readers(&self, faults: &mut Faults) {
        let mut first = None;
        for (index, client) in self.clients.iter().enumerate() {
            if let SimulatedClient::Reader(reader) = &*client.borrow()
                && reader.is_comparable
            {
                let told = (reader.revision, reader.hash);
                if *first.get_or_insert(told) != told {
                    let doc = &self.recorder.borrow().doc;
                    faults.add(format!(
                        "client {index} of {doc} received other commits than client 0"
                    ));
                }
            }
        }
    }
}
