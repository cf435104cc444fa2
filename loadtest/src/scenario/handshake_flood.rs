//! A flood of handshakes without credentials.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use crate::options::{self, Common};
use crate::process::{bar, interrupted, raise_file_limit};
use crate::report::{Report, Unit};
use crate::socket::Target;
use crate::stats::Latencies;

/// A flood of handshakes without credentials, to measure its effect on other clients.
///
/// Run it beside another scenario. Each handshake uses a new connection, sends no credentials, reads the beginning of the
/// answer and closes the connection. Nothing is checked.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Handshakes a second.
    #[arg(long, default_value_t = 10_000.0, value_parser = options::rate)]
    rate: f64,
    /// The source address of all handshakes; for a server on the loopback any address that begins with 127.
    #[arg(long, default_value = "127.0.0.9")]
    from: Ipv4Addr,
    /// Handshakes in flight at once. If more are due, the rate is not reached, and the report shows it.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    at_once: u16,
}

/// Time limit for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the tasks share.
struct Flood {
    target: Target,
    from: Ipv4Addr,
    rate: f64,
    began: Instant,
    until: Instant,
    started: Cell<u64>,
    /// How often each answer came.
    answers: RefCell<BTreeMap<String, u64>>,
    times: RefCell<Latencies>,
}

pub(crate) async fn run(common: &Common, options: &Options) -> Result<Report> {
    raise_file_limit(options.at_once.into())?;
    let began = Instant::now();
    let flood = Rc::new(Flood {
        target: Target::resolve(common).await?,
        from: options.from,
        rate: options.rate,
        began,
        until: began + common.seconds(),
        started: Cell::new(0),
        answers: RefCell::default(),
        times: RefCell::new(Latencies::default()),
    });
    let (bar, interrupted) = (bar(), interrupted());
    let mut tasks = JoinSet::new();
    for _ in 0..options.at_once {
        let (flood, interrupted) = (Rc::clone(&flood), Rc::clone(&interrupted));
        tasks.spawn_local(async move { while !interrupted.get() && flood.handshake().await {} });
    }
    while tasks.join_next().await.is_some() {
        bar.set_message(format!("{} handshakes", flood.started.get()));
        bar.tick();
    }
    bar.finish_and_clear();
    let mut report = Report::new("handshake-flood", began.elapsed());
    report.parameter("rate", options.rate);
    report.parameter("from", options.from.to_string());
    let times = flood.times.borrow();
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    report.figure("handshakes_per_second", "handshakes", rate, Unit::PerSecond);
    report.latencies("answer", "answer", &times);
    let answers = flood.answers.borrow();
    let answers = answers
        .iter()
        .map(|(said, count)| format!("{said}: {count}"));
    let answers: Vec<_> = answers.collect();
    report.checked = format!("the answers were {}", answers.join(", "));
    report.is_checked = false;
    Ok(report)
}

impl Flood {
    /// Makes one handshake when it is due. Returns false after the end of the run.
    async fn handshake(&self) -> bool {
        let index = self.started.get();
        self.started.set(index + 1);
        let due = self.began + Duration::from_secs_f64(index as f64 / self.rate.max(0.001));
        if due >= self.until {
            return false;
        }
        sleep_until(due.into()).await;
        let sent = Instant::now();
        if sent >= self.until {
            return false;
        }
        let said = match timeout(PATIENCE, self.target.handshake(index, self.from)).await {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => format!("{:#}", error.root_cause()),
            Err(_) => "no answer in time".to_owned(),
        };
        *self.answers.borrow_mut().entry(said).or_default() += 1;
        self.times.borrow_mut().record(sent.elapsed());
        true
    }
}
