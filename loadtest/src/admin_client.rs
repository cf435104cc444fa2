//! A client with one request at a time: creates the documents before a run and reads them back after it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use copydesk::client::ClientRequest;
use copydesk::id::{ClientId, DocId};
use copydesk::log::{Change, Entry, Revision};
use copydesk::ot::{Content, Kind};
use tokio::time::{Instant, timeout, timeout_at};

use crate::socket::{Socket, Target};
use crate::wire::{self, HANDSHAKE, ServerFrame};

/// A connected client, after its handshake.
#[derive(Debug)]
pub(crate) struct AdminClient {
    socket: Socket,
    pub(crate) id: ClientId,
    /// Documents that it has created: the sequence number of its last submit.
    pub(crate) seq: u64,
}

const PATIENCE: Duration = Duration::from_secs(60);

/// Connects to one of the addresses, and returns the client id that the server issued. `index` counts the connections.
pub(crate) async fn connect(
    target: &Target,
    endpoint: usize,
    index: usize,
) -> Result<(Socket, ClientId)> {
    let mut socket = Socket::open(target, endpoint, index).await?;
    socket.send(HANDSHAKE);
    socket.flush()?;
    let mut id = None;
    let shake = async {
        while id.is_none() {
            socket
                .read(|frame, _| {
                    if let ServerFrame::Handshake(given) = wire::read(Kind::TextUnicode, frame)? {
                        id = Some(given);
                    }
                    Ok(())
                })
                .await?;
        }
        id.context("learn our id")
    };
    let id = timeout(PATIENCE, shake)
        .await
        .context("shake hands: no answer in time")??;
    Ok((socket, id))
}

impl AdminClient {
    pub(crate) async fn new(target: &Target) -> Result<Self> {
        let (socket, id) = connect(target, 0, 0).await?;
        Ok(Self { socket, id, seq: 0 })
    }

    /// Creates a document.
    pub(crate) async fn create(&mut self, doc: &DocId, content: Content) -> Result<()> {
        self.seq += 1;
        let (kind, seq) = (content.kind(), self.seq);
        let request = ClientRequest::Submit {
            seq,
            base: Revision::ZERO,
            change: Change::Create(content),
            is_resend: false,
        };
        self.ask(doc, kind, &request, |heard| match heard {
            ServerFrame::Bare(_, acked, _) => Ok(acked == seq),
            ServerFrame::Commit(entry) => Ok(entry.id.seq == seq),
            ServerFrame::Refused(_, said) => bail!("the server refused: {said}"),
            _ => Ok(false),
        })
        .await
        .with_context(|| format!("create {doc}"))
    }

    /// Fetches the current revision and content of a document.
    pub(crate) async fn fetch(
        &mut self,
        doc: &DocId,
        kind: Kind,
    ) -> Result<(Revision, Option<Content>)> {
        let mut shown = None;
        self.ask(
            doc,
            kind,
            &ClientRequest::Fetch { since: None },
            |heard| match heard {
                ServerFrame::Shown {
                    revision,
                    exists,
                    data,
                } => {
                    let content = exists.then(|| Content::create(kind, data)).transpose()?;
                    shown = Some((revision, content));
                    Ok(true)
                }
                ServerFrame::Refused(_, said) => bail!("the server refused: {said}"),
                _ => Ok(false),
            },
        )
        .await
        .with_context(|| format!("fetch {doc}"))?;
        shown.context("a snapshot ended the wait")
    }

    /// Fetches the log, entry by entry.
    pub(crate) async fn log(
        &mut self,
        doc: &DocId,
        kind: Kind,
        mut each: impl FnMut(&Entry),
    ) -> Result<()> {
        let request = ClientRequest::Fetch {
            since: Some(Revision::ZERO),
        };
        self.ask(doc, kind, &request, |heard| match heard {
            ServerFrame::Commit(entry) => {
                each(&entry);
                Ok(false)
            }
            ServerFrame::Bare(client, seq, revision) => {
                each(&wire::entry(client, seq, revision, Change::Nothing));
                Ok(false)
            }
            ServerFrame::Done => Ok(true),
            ServerFrame::Refused(_, said) => bail!("the server refused: {said}"),
            _ => Ok(false),
        })
        .await
        .with_context(|| format!("fetch the log of {doc}"))
    }

    /// Sends a request, and passes frames to `answered` until it returns true. The time limit starts again with each part of
    /// the answer, but not with a ping.
    async fn ask(
        &mut self,
        doc: &DocId,
        kind: Kind,
        request: &ClientRequest,
        mut answered: impl FnMut(ServerFrame<'_>) -> Result<bool>,
    ) -> Result<()> {
        let mut json = Vec::new();
        wire::write(doc, &self.id, request, &mut json);
        self.socket.send(&json);
        self.socket.flush()?;
        let mut done = false;
        let mut heard_at = Instant::now();
        while !done {
            let deadline = heard_at + PATIENCE;
            let read = self.socket.read(|frame, _| {
                ensure!(!done, "the server said more than it was asked");
                done = answered(wire::read(kind, frame)?)?;
                heard_at = Instant::now();
                Ok(())
            });
            timeout_at(deadline, read)
                .await
                .context("no answer in time")??;
        }
        Ok(())
    }
}
