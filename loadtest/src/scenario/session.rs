//! The agents of a recorded session, each with a client, played transaction by transaction.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use copydesk::client::{Client, ClientRequest, ServerMessage};
use copydesk::id::ClientId;
use copydesk::log::{Change, Revision, Snapshot};
use copydesk::ot::{Content, Kind, Op, Side};
use tokio::time::timeout;

use crate::admin_client::connect;
use crate::check::Claim;
use crate::commit_recorder::Received;
use crate::delayed_view::DelayedView;
use crate::simulated_client::SharedRecorder;
use crate::socket::{Socket, Target};
use crate::stats::Stats;
use crate::trace::{Trace, Transaction};
use crate::wire::{self, ServerFrame};
use crate::writing::splice;

/// All agents, and the server's order of their transactions.
pub(crate) struct Session {
    agents: Vec<Agent>,
    recorder: SharedRecorder,
    /// The transaction of each revision after the first: its agent, and its number among the agent's transactions.
    log: Vec<(usize, u32)>,
    /// The transactions of each agent that are still to be played, as what they will have seen.
    ahead: Vec<VecDeque<Vec<u32>>>,
    /// Submits that were made on another revision than the newest.
    pub(crate) concurrent: u64,
    /// Transactions before which the agent had to see more than when the trace was recorded.
    pub(crate) inexact: u64,
}

/// One agent: its view and its client.
struct Agent {
    socket: Socket,
    client: Client,
    view: DelayedView,
    /// Messages of the server that the client has not received, in order.
    inbox: VecDeque<ServerMessage>,
    /// The revision that the next in the inbox, or the next to arrive, leads to.
    arriving: Revision,
    /// How many transactions of each agent this agent has seen.
    seen: Vec<u32>,
    /// How many of its own have been submitted.
    submitted: u32,
    sent: Option<Instant>,
}

/// The document is made by one create.
const FIRST: Revision = Revision(1);
const PATIENCE: Duration = Duration::from_secs(60);

impl Session {
    pub(crate) async fn new(
        target: &Target,
        trace: &Trace,
        recorder: SharedRecorder,
    ) -> Result<Self> {
        let mut agents = Vec::new();
        for index in 0..trace.agents {
            agents.push(Agent::connect(target, index, trace.agents, &recorder).await?);
        }
        let mut ahead = vec![VecDeque::new(); trace.agents];
        for transaction in &trace.transactions {
            ahead[transaction.agent].push_back(transaction.seen.clone());
        }
        Ok(Self {
            agents,
            recorder,
            log: Vec::new(),
            ahead,
            concurrent: 0,
            inexact: 0,
        })
    }

    /// Plays the next transaction of the trace.
    pub(crate) async fn play(
        &mut self,
        trace: &Trace,
        transaction: &Transaction,
        stats: &mut Stats,
    ) -> Result<()> {
        let agent = transaction.agent;
        self.catch_up(stats).await?;
        self.show_all(agent, &transaction.seen, stats).await?;
        let person = &mut self.agents[agent];
        let exact = (0..trace.agents)
            .all(|other| other == agent || person.seen[other] == transaction.seen[other]);
        self.inexact += u64::from(!exact);
        let op = op(person.view.shown(), transaction)?;
        person.view.edit(op)?;
        self.ahead[agent].pop_front();
        self.submit(agent, stats).await
    }

    /// Delivers all remaining messages, and shows all commits to all agents.
    pub(crate) async fn finish(&mut self, stats: &mut Stats) -> Result<()> {
        self.ahead.iter_mut().for_each(VecDeque::clear);
        while self.catch_up(stats).await? {}
        for person in &mut self.agents {
            while person.view.next().is_some() {
                person.view.show()?;
            }
            ensure!(
                person.view.is_clear() && person.client.is_settled(),
                "something was never sent"
            );
        }
        Ok(())
    }

    /// The claims of all clients.
    pub(crate) fn claims(&self) -> impl Iterator<Item = (ClientId, Claim)> {
        self.agents.iter().map(|person| {
            let client = &person.client;
            let acknowledged = client.acknowledged().to_vec();
            (
                client.id().clone(),
                Claim {
                    submits: client.submits(),
                    acknowledged,
                },
            )
        })
    }

    /// The text that each agent sees.
    pub(crate) fn texts(&self) -> impl Iterator<Item = String> {
        self.agents
            .iter()
            .map(|person| person.view.shown().to_text())
    }

    /// Delivers to every client the commits that its agent is to see next anyway, and acks as soon as they are next. Returns
    /// true if a message was delivered.
    async fn catch_up(&mut self, stats: &mut Stats) -> Result<bool> {
        let mut told = false;
        let mut going = true;
        while std::mem::take(&mut going) {
            for agent in 0..self.agents.len() {
                while self.is_welcome(agent) {
                    self.receive(agent, stats).await?;
                    going = true;
                    told = true;
                }
            }
        }
        Ok(told)
    }

    /// Returns true if the next commit is the client's own, or one that the agent's next transaction will have seen.
    fn is_welcome(&self, agent: usize) -> bool {
        let next = self.log.get(self.agents[agent].heard());
        let limit = self.ahead[agent].front();
        next.is_some_and(|(author, which)| {
            *author == agent || limit.is_none_or(|limit| *which < limit[*author])
        })
    }

    /// Shows an agent everything that it had seen when the transaction was recorded, and as little else as possible.
    async fn show_all(&mut self, agent: usize, seen: &[u32], stats: &mut Stats) -> Result<()> {
        loop {
            let person = &mut self.agents[agent];
            while person
                .view
                .next()
                .is_some_and(|author| person.seen[author] < seen[author])
            {
                person.show_next()?;
            }
            let missing =
                (0..seen.len()).find(|other| *other != agent && person.seen[*other] < seen[*other]);
            let Some(author) = missing else { return Ok(()) };
            if person.view.holds(author) {
                // It is behind a commit that the agent had not seen: the server's order leaves no choice.
                person.show_next()?;
            } else if person.heard() < self.log.len() {
                self.receive(agent, stats).await?;
            } else {
                // Its author has not submitted it: the author's ack is behind commits that were held back.
                let waits = self.agents[author].heard() < self.log.len();
                ensure!(waits, "a transaction is to be seen that no agent made");
                self.receive(author, stats).await?;
            }
        }
    }

    /// Delivers the next commit to a client. If it is the client's own, its next edit is submitted.
    async fn receive(&mut self, agent: usize, stats: &mut Stats) -> Result<()> {
        let (author, _) = self.log[self.agents[agent].heard()];
        let person = &mut self.agents[agent];
        person.arrive(&self.recorder, 1).await?;
        let message = person.inbox.pop_front().context("something has arrived")?;
        if author != agent {
            let op = person.applied(&message)?;
            person.view.told(author, op);
            person.client.received(message)?;
            return Ok(());
        }
        person.client.received(message)?;
        ensure!(
            person.client.is_settled(),
            "an ack did not settle its submit"
        );
        self.submit(agent, stats).await
    }

    /// Submits the agent's next edit if none is in flight, and waits until the server has committed it.
    async fn submit(&mut self, agent: usize, stats: &mut Stats) -> Result<()> {
        let person = &mut self.agents[agent];
        if !person.client.is_settled() {
            return Ok(());
        }
        let Some(op) = person.view.give()? else {
            return Ok(());
        };
        person.client.edit(op)?;
        person.send_pending(&self.recorder)?;
        let behind = self.log.len() - person.heard();
        self.concurrent += u64::from(behind > 0);
        person.arrive(&self.recorder, behind + 1).await?;
        let now = Instant::now();
        let sent: Vec<_> = person.sent.take().into_iter().collect();
        stats.acked(&sent, now);
        stats.received(person.socket.take_received());
        self.log.push((agent, person.submitted));
        person.submitted += 1;
        Ok(())
    }
}

impl Agent {
    async fn connect(
        target: &Target,
        index: usize,
        agents: usize,
        recorder: &SharedRecorder,
    ) -> Result<Self> {
        let (socket, id) = connect(target, index, index).await?;
        let mut client = Client::new(id);
        client.connected();
        let mut agent = Self {
            socket,
            client,
            view: DelayedView::new(Content::create(Kind::TextUnicode, None)?),
            inbox: VecDeque::new(),
            arriving: FIRST,
            seen: vec![0; agents],
            submitted: 0,
            sent: None,
        };
        agent.send_pending(recorder)?;
        while agent.client.revision().is_none() {
            agent.arrive(recorder, 1).await?;
            let message = agent.inbox.pop_front().context("something has arrived")?;
            agent.client.received(message)?;
        }
        ensure!(
            agent.client.revision() == Some(FIRST),
            "the document was not made by us alone"
        );
        agent.arriving = FIRST.next();
        agent.view = DelayedView::new(
            agent
                .client
                .content()
                .context("the document is gone")?
                .clone(),
        );
        Ok(agent)
    }

    /// Number of commits after the first that the client has received.
    fn heard(&self) -> usize {
        let revision = self.client.revision().unwrap_or(FIRST);
        usize::try_from(revision.0 - FIRST.0).unwrap_or(usize::MAX)
    }

    fn show_next(&mut self) -> Result<()> {
        if let Some(author) = self.view.next() {
            self.seen[author] += 1;
        }
        self.view.show()
    }

    /// Another's commit as it changes what the client has.
    fn applied(&self, message: &ServerMessage) -> Result<Op> {
        let ServerMessage::Commit(entry) = message else {
            bail!("a commit of another is no ack")
        };
        match (&entry.change, self.client.in_flight()) {
            (Change::Edit(op), Some((_, Change::Edit(own)))) => Ok(op.transform(own, Side::Right)?),
            (Change::Edit(op), _) => Ok(op.clone()),
            (change, _) => bail!("no agent made {change:?}"),
        }
    }

    fn send_pending(&mut self, recorder: &SharedRecorder) -> Result<()> {
        while let Some(request) = self.client.poll() {
            let mut json = Vec::new();
            wire::write(
                &recorder.borrow().doc,
                self.client.id(),
                &request,
                &mut json,
            );
            self.socket.send(&json);
            if let ClientRequest::Submit { .. } = request {
                self.sent = Some(Instant::now());
            }
        }
        self.socket.flush()
    }

    /// Waits until so many messages are in the inbox.
    async fn arrive(&mut self, recorder: &SharedRecorder, count: usize) -> Result<()> {
        while self.inbox.len() < count {
            let (inbox, arriving, client) = (&mut self.inbox, &mut self.arriving, &self.client);
            let read = self.socket.read(|frame, _| {
                let told = recorder.borrow_mut().read(*arriving, frame)?;
                if let Some(message) = message(told, recorder, client, arriving)? {
                    inbox.push_back(message);
                }
                Ok(())
            });
            timeout(PATIENCE, read)
                .await
                .context("no answer in time")??;
        }
        Ok(())
    }
}

/// The message of a frame, if it is the next one in order.
fn message(
    told: Received<'_>,
    recorder: &SharedRecorder,
    client: &Client,
    arriving: &mut Revision,
) -> Result<Option<ServerMessage>> {
    let (message, revision) = match told {
        Received::Commit(commit) => {
            let revision = commit.entry.revision;
            (ServerMessage::Commit(commit.entry), revision)
        }
        Received::Other(ServerFrame::Bare(id, seq, revision)) if id == *client.id() => {
            (ServerMessage::Acked { seq, revision }, revision)
        }
        Received::Other(ServerFrame::Shown {
            revision,
            exists,
            data,
        }) => {
            let content = exists
                .then(|| recorder.borrow_mut().content(data))
                .transpose()?;
            let snapshot = Snapshot {
                revision,
                content,
                ..Snapshot::default()
            };
            return Ok(Some(ServerMessage::Snapshot(snapshot)));
        }
        Received::Other(ServerFrame::Refused(_, said)) => bail!("the server refused: {said}"),
        Received::Other(_) => return Ok(None),
    };
    // Some servers send the author of a submit commits again.
    if revision < *arriving {
        return Ok(None);
    }
    ensure!(
        revision == *arriving,
        "revision {revision} came where {arriving} was due"
    );
    *arriving = revision.next();
    Ok(Some(message))
}

/// A transaction's patches as one op on what its agent sees. An empty transaction is an empty op: it counts as well.
fn op(shown: &Content, transaction: &Transaction) -> Result<Op> {
    let mut whole: Option<Op> = None;
    let mut text = shown.clone();
    for (position, delete, insert) in &transaction.patches {
        let op = if *delete == 0 && insert.is_empty() {
            Op::noop(Kind::TextUnicode)
        } else {
            splice(Kind::TextUnicode, *position, *delete, insert)
        };
        text.apply(&op)
            .context("a patch does not fit what its agent sees")?;
        whole = Some(match whole {
            Some(first) => first.compose(&op)?,
            None => op,
        });
    }
    Ok(whole.unwrap_or_else(|| Op::noop(Kind::TextUnicode)))
}
