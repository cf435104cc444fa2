//! Readers that connect again after their connection was cut, and how long that takes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::select;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout};

use crate::admin_client::connect;
use crate::run::Phase;
use crate::simulated_client::SimulatedClient;
use crate::socket::{Socket, Target};
use crate::stats::{Latencies, Stats};

/// The cut of all returning readers, and what became of them.
#[derive(Debug)]
pub(crate) struct ReturnTimes {
    cut: watch::Sender<Option<Cut>>,
    /// From the cut until the subscription was answered on a new connection.
    pub(crate) times: RefCell<Latencies>,
    /// Attempts to connect that failed, and connections that the server ended.
    pub(crate) retries: Cell<u64>,
    /// The reason of the first.
    pub(crate) first_error: RefCell<Option<String>>,
}

/// When all connections were cut, and over which time the clients come back.
#[derive(Debug, Clone, Copy)]
struct Cut {
    at: Instant,
    spread: Duration,
}

impl Cut {
    fn now(spread: Duration) -> Self {
        let at = Instant::now();
        Self { at, spread }
    }
}

impl Default for ReturnTimes {
    fn default() -> Self {
        Self {
            cut: watch::Sender::new(None),
            times: RefCell::default(),
            retries: Cell::new(0),
            first_error: RefCell::default(),
        }
    }
}

impl ReturnTimes {
    /// Resets the connections of all returning readers. Each tries to come back at a random time within `spread`.
    pub(crate) fn cut(&self, spread: Duration) {
        self.cut.send_replace(Some(Cut::now(spread)));
    }

    /// An attempt to connect failed, or the server ended a connection.
    fn failed(&self, error: &anyhow::Error) {
        self.retries.set(self.retries.get() + 1);
        let mut first = self.first_error.borrow_mut();
        first.get_or_insert_with(|| format!("{error:#}"));
    }

    /// How many are back.
    pub(crate) fn back(&self) -> u64 {
        self.times.borrow().len()
    }
}

/// The first pause after a failed attempt; it doubles up to the last.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a new connection may take to become a subscription, beside the time limits of connecting.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// Runs one returning reader until the run is over. It also comes back when the server ends its connection.
pub(crate) async fn drive_returning(
    mut connection: Connection,
    mut phase: watch::Receiver<Phase>,
) -> Result<()> {
    let returns = Rc::clone(&connection.returns);
    let mut cuts = returns.cut.subscribe();
    loop {
        if *phase.borrow_and_update() == Phase::Over {
            return Ok(());
        }
        let cut = select! {
            biased;
            _ = phase.changed() => continue,
            _ = cuts.changed() => *cuts.borrow_and_update(),
            read = connection.serve() => match read {
                Ok(()) => None,
                Err(error) => {
                    returns.failed(&error);
                    Some(Cut::now(Duration::ZERO))
                }
            },
        };
        if let Some(cut) = cut {
            connection.socket.take().map(Socket::reset).transpose()?;
            connection.endpoint += 1;
            sleep_until((cut.at + cut.spread.mul_f64(fastrand::f64())).into()).await;
            connection.come_back(&phase).await?;
            returns.times.borrow_mut().record(cut.at.elapsed());
        }
    }
}

/// One returning reader with its connection.
pub(crate) struct Connection {
    pub(crate) target: Target,
    /// Which of the addresses it is connected to. After a cut it takes the next, as if its node had failed.
    pub(crate) endpoint: usize,
    /// The number of the connection, for its source address.
    pub(crate) index: usize,
    pub(crate) socket: Option<Socket>,
    pub(crate) client: Rc<RefCell<SimulatedClient>>,
    pub(crate) stats: Rc<RefCell<Stats>>,
    pub(crate) returns: Rc<ReturnTimes>,
}

impl Connection {
    /// Sends what is to be sent, and waits for frames.
    async fn serve(&mut self) -> Result<()> {
        let socket = self.socket.as_mut().context("there is no connection")?;
        let (client, stats) = (&self.client, &self.stats);
        client
            .borrow_mut()
            .act(Instant::now(), None, &mut stats.borrow_mut(), socket)?;
        socket.flush()?;
        let read = socket.read(|frame, now| {
            client
                .borrow_mut()
                .receive(frame, now, &mut stats.borrow_mut())
        });
        read.await?;
        stats.borrow_mut().received(socket.take_received());
        Ok(())
    }

    /// Connects until the subscription is answered or the run is over.
    async fn come_back(&mut self, phase: &watch::Receiver<Phase>) -> Result<()> {
        let mut pause = PAUSE_MIN;
        while let Err(error) = self.resubscribe().await {
            ensure!(
                *phase.borrow() != Phase::Over,
                "a connection that was cut did not come back: {error:#}"
            );
            self.returns.failed(&error);
            sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        Ok(())
    }

    async fn resubscribe(&mut self) -> Result<()> {
        let (socket, id) = connect(&self.target, self.endpoint, self.index).await?;
        self.socket = Some(socket);
        self.client.borrow_mut().reconnected(id);
        let answered = async {
            while !self.client.borrow().is_subscribed() {
                self.serve().await?;
            }
            Ok(())
        };
        timeout(ANSWER_PATIENCE, answered)
            .await
            .context("subscribe again: no answer in time")?
    }
}
