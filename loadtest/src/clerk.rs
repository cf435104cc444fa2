//! A connection that asks one thing at a time: it makes the documents before a run and reads them back after it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use copydesk::client::ClientRequest;
use copydesk::id::{ClientId, DocId};
use copydesk::log::{Change, Entry, Revision};
use copydesk::ot::{Content, Kind};
use tokio::time::{Instant, timeout, timeout_at};

use crate::socket::{Socket, Target};
use crate::wire::{self, HANDSHAKE, Heard};

/// A connection with its handshake done.
#[derive(Debug)]
pub(crate) struct Clerk {
    socket: Socket,
    pub(crate) id: ClientId,
    /// How many documents it has made.
    pub(crate) seq: u64,
}

const PATIENCE: Duration = Duration::from_secs(60);

/// Connects and learns who we are.
pub(crate) async fn join(target: &Target, index: usize) -> Result<(Socket, ClientId)> {
    let mut socket = Socket::open(target, index).await?;
    socket.say(HANDSHAKE);
    socket.flush()?;
    let mut id = None;
    let shake = async {
        while id.is_none() {
            socket
                .read(|frame, _| {
                    if let Heard::Handshake(given) = wire::read(Kind::TextUnicode, frame)? {
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

impl Clerk {
    pub(crate) async fn new(target: &Target) -> Result<Self> {
        let (socket, id) = join(target, 0).await?;
        Ok(Self { socket, id, seq: 0 })
    }

    /// Makes a document.
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
            Heard::Bare(_, acked, _) => Ok(acked == seq),
            Heard::Commit(entry) => Ok(entry.id.seq == seq),
            Heard::Refused(_, said) => bail!("the server refused: {said}"),
            _ => Ok(false),
        })
        .await
        .with_context(|| format!("create {doc}"))
    }

    /// Fetches a document as it stands.
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
                Heard::Shown {
                    revision,
                    exists,
                    data,
                } => {
                    let content = exists.then(|| Content::create(kind, data)).transpose()?;
                    shown = Some((revision, content));
                    Ok(true)
                }
                Heard::Refused(_, said) => bail!("the server refused: {said}"),
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
            Heard::Commit(entry) => {
                each(&entry);
                Ok(false)
            }
            Heard::Bare(client, seq, revision) => {
                each(&wire::entry(client, seq, revision, Change::Nothing));
                Ok(false)
            }
            Heard::Done => Ok(true),
            Heard::Refused(_, said) => bail!("the server refused: {said}"),
            _ => Ok(false),
        })
        .await
        .with_context(|| format!("fetch the log of {doc}"))
    }

    /// Asks, and takes in what comes until `answered` has what it wants. It waits as long as parts of the answer come: a
    /// ping is none.
    async fn ask(
        &mut self,
        doc: &DocId,
        kind: Kind,
        request: &ClientRequest,
        mut answered: impl FnMut(Heard<'_>) -> Result<bool>,
    ) -> Result<()> {
        let mut json = Vec::new();
        wire::write(doc, &self.id, request, &mut json);
        self.socket.say(&json);
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
