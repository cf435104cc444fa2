use super::*;
use crate::id::UserId;
use crate::log::{Epoch, SubmitId};
use crate::ot::Kind;

/// A server with one document and no faults.
struct Server {
    log: Vec<Arc<Entry>>,
    head: Snapshot,
}

fn text(data: &str) -> Content {
    Content::create(
        Kind::TextUnicode,
        Some(&serde_json::to_string(data).unwrap()),
    )
    .unwrap()
}

fn op(json: &str) -> Op {
    Op::parse(Kind::TextUnicode, json).unwrap()
}

fn client(name: &str) -> Client {
    let mut client = Client::new(ClientId::parse(name).unwrap());
    client.connected();
    client
}

fn shown_text(client: &Client) -> String {
    client.content().map_or("-".to_owned(), Content::to_text)
}

impl Server {
    fn of(data: &str) -> Self {
        let mut server = Self {
            log: Vec::new(),
            head: Snapshot::default(),
        };
        let creator = ClientId::parse("creator").unwrap();
        server
            .submit(&creator, 1, Revision::ZERO, Change::Create(text(data)))
            .unwrap();
        server
    }

    /// Commits the change, unless the submit was committed before.
    fn submit(
        &mut self,
        by: &ClientId,
        seq: u64,
        base: Revision,
        mut change: Change,
    ) -> Result<(), ()> {
        for entry in &self.log[usize::try_from(base.0).unwrap()..] {
            if entry.id.client == *by && entry.id.seq == seq {
                return Ok(());
            }
            change = match (change, &entry.change) {
                (Change::Edit(op), Change::Edit(other)) => {
                    Change::Edit(op.transform(other, Side::Left).unwrap())
                }
                (Change::Delete, _) => Change::Delete,
                _ => return Err(()),
            };
        }
        let id = SubmitId {
            author: UserId::anyone(),
            client: by.clone(),
            seq,
        };
        let revision = self.head.revision.next();
        let entry = Entry {
            revision,
            epoch: Epoch(1),
            id,
            at_ms: 0,
            change,
        };
        self.head.fold(&entry).map_err(drop)?;
        self.log.push(Arc::new(entry));
        Ok(())
    }

    /// Handles all requests of a client. A submit is committed without an ack, which `send_commits` sends.
    fn handle_requests(&mut self, client: &mut Client) {
        while let Some(request) = client.poll() {
            match request {
                ClientRequest::Subscribe { since: None } | ClientRequest::Fetch { since: None } => {
                    client
                        .received(ServerMessage::Snapshot(self.head.clone()))
                        .unwrap();
                }
                ClientRequest::Subscribe { .. } | ClientRequest::Fetch { .. } => {
                    self.send_commits(client)
                }
                ClientRequest::Submit {
                    seq, base, change, ..
                } => {
                    let id = client.id().clone();
                    if self.submit(&id, seq, base, change).is_err() {
                        client.received(ServerMessage::Rejected { seq }).unwrap();
                    }
                }
            }
        }
    }

    fn send_commits(&self, client: &mut Client) {
        let since = usize::try_from(client.revision().unwrap_or_default().0).unwrap();
        for entry in &self.log[since..] {
            client
                .received(ServerMessage::Commit(Arc::clone(entry)))
                .unwrap();
        }
        client.received(ServerMessage::Done).unwrap();
    }
}

#[test]
fn later_of_two_inserts_at_one_position_is_first_on_all_clients() {
    let mut server = Server::of("ab");
    let (mut ann, mut bob) = (client("ann"), client("bob"));
    server.handle_requests(&mut ann);
    server.handle_requests(&mut bob);
    ann.edit(op(r#"[1,"X"]"#)).unwrap();
    bob.edit(op(r#"[1,"Y"]"#)).unwrap();
    server.handle_requests(&mut ann);
    server.handle_requests(&mut bob);
    server.send_commits(&mut ann);
    server.send_commits(&mut bob);
    assert_eq!(
        (shown_text(&ann).as_str(), shown_text(&bob).as_str()),
        ("aYXb", "aYXb")
    );
    assert_eq!(server.head.content, Some(text("aYXb")));
    assert_eq!(bob.acknowledged(), [(1, Revision(3))]);
    assert!(ann.is_settled() && bob.is_settled());
}

#[test]
fn edits_behind_the_submit_in_flight_are_composed() {
    let mut server = Server::of("");
    let mut ann = client("ann");
    server.handle_requests(&mut ann);
    ann.edit(op(r#"["a"]"#)).unwrap();
    assert!(matches!(
        ann.poll(),
        Some(ClientRequest::Submit { seq: 1, .. })
    ));
    ann.edit(op(r#"[1,"b"]"#)).unwrap();
    ann.edit(op(r#"[2,"c"]"#)).unwrap();
    assert_eq!(ann.poll(), None);
    ann.received(ServerMessage::Acked {
        seq: 1,
        revision: Revision(2),
    })
    .unwrap();
    let (seq, base, change) = (2, Revision(2), Change::Edit(op(r#"[1,"bc"]"#)));
    assert_eq!(
        ann.poll(),
        Some(ClientRequest::Submit {
            seq,
            base,
            change,
            is_resend: false
        })
    );
}

#[test]
fn unanswered_submit_is_resent_and_committed_once() {
    let mut server = Server::of("ab");
    let (mut ann, mut bob) = (client("ann"), client("bob"));
    server.handle_requests(&mut ann);
    server.handle_requests(&mut bob);
    bob.edit(op(r#"["Y"]"#)).unwrap();
    server.handle_requests(&mut bob);
    ann.edit(op(r#"[1,"X"]"#)).unwrap();
    server.handle_requests(&mut ann); // the ack is lost
    ann.disconnected();
    ann.edit(op(r#"["Z"]"#)).unwrap();
    assert_eq!(ann.poll(), None);
    ann.connected();
    let again = ann.poll();
    assert!(matches!(
        again,
        Some(ClientRequest::Submit {
            seq: 1,
            base: Revision(1),
            is_resend: true,
            ..
        })
    ));
    server.handle_requests(&mut ann);
    server.handle_requests(&mut ann);
    server.send_commits(&mut ann);
    server.send_commits(&mut bob);
    assert_eq!(
        (shown_text(&ann), shown_text(&ann)),
        (
            shown_text(&bob),
            server.head.content.as_ref().unwrap().to_text()
        )
    );
    assert_eq!(ann.acknowledged(), [(1, Revision(3)), (2, Revision(4))]);
}

#[test]
fn gap_is_fetched_once_and_counted() {
    let mut server = Server::of("");
    let (mut ann, mut bob) = (client("ann"), client("bob"));
    server.handle_requests(&mut ann);
    server.handle_requests(&mut bob);
    for text in [r#"["a"]"#, r#"["b"]"#, r#"["c"]"#] {
        bob.edit(op(text)).unwrap();
        server.handle_requests(&mut bob);
        server.send_commits(&mut bob);
    }
    ann.received(ServerMessage::Commit(Arc::clone(&server.log[2])))
        .unwrap();
    ann.received(ServerMessage::Commit(Arc::clone(&server.log[3])))
        .unwrap();
    assert_eq!(
        ann.poll(),
        Some(ClientRequest::Fetch {
            since: Some(Revision(1))
        })
    );
    assert_eq!(ann.poll(), None);
    server.send_commits(&mut ann);
    assert_eq!((shown_text(&ann).as_str(), ann.poll()), ("cba", None));
    assert_eq!(
        ann.anomalies(),
        Anomalies {
            gaps: 2,
            rollbacks: 0
        }
    );
}

#[test]
fn local_edit_of_a_document_deleted_by_another_client_is_rolled_back() {
    let mut server = Server::of("ab");
    let (mut ann, mut bob) = (client("ann"), client("bob"));
    server.handle_requests(&mut ann);
    server.handle_requests(&mut bob);
    bob.delete().unwrap();
    server.handle_requests(&mut bob);
    ann.edit(op(r#"["X"]"#)).unwrap();
    server.handle_requests(&mut ann); // rejected
    assert_eq!((ann.content(), ann.revision()), (None, Some(Revision(2))));
    assert_eq!(ann.anomalies().rollbacks, 1);
    ann.create(text("new")).unwrap();
    ann.edit(op(r#"["a "]"#)).unwrap();
    server.handle_requests(&mut ann);
    server.send_commits(&mut ann);
    server.send_commits(&mut bob);
    assert_eq!(
        (shown_text(&ann), shown_text(&bob)),
        ("a new".to_owned(), "a new".to_owned())
    );
    assert_eq!(
        ann.edit(op(r#"[9,"x"]"#)),
        Err(InvalidEdit::Op(OtError::NotApplied(
            "The op is too long for this document"
        )))
    );
}
