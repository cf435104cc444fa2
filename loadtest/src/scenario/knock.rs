//! Handshakes of somebody who is not let in.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use crate::options::{self, Common};
use crate::process::{allow_files, bar, interrupted};
use crate::report::{Report, Unit};
use crate::socket::Target;
use crate::stats::Latencies;

/// Handshakes of somebody who is not let in: a flood, to see what others feel of it.
///
/// Run it beside another scenario. Each handshake has a connection of its own, says nothing of who asks, reads the first of
/// the answer and ends the connection. Nothing is checked.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many in a second.
    #[arg(long, default_value_t = 10_000.0, value_parser = options::rate)]
    rate: f64,
    /// The address that all come from; of the loopback any that begins with 127 will do.
    #[arg(long, default_value = "127.0.0.9")]
    from: Ipv4Addr,
    /// How many may be under way at once. When all are, the rate is not reached, and the report shows it.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    at_once: u16,
}

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the knockers share.
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
    allow_files(options.at_once.into())?;
    let began = Instant::now();
    let flood = Rc::new(Flood {
        target: Target::resolve(common).await?,
        from: options.from,
        rate: options.rate,
        began,
        until: began + common.seconds(),
        started: Cell::new(0),
        answers: RefCell::default(),
        times: RefCell::new(Latencies::new()),
    });
    let (bar, interrupted) = (bar(), interrupted());
    let mut knockers = JoinSet::new();
    for _ in 0..options.at_once {
        let (flood, interrupted) = (Rc::clone(&flood), Rc::clone(&interrupted));
        knockers.spawn_local(async move { while !interrupted.get() && flood.knock().await {} });
    }
    while knockers.join_next().await.is_some() {
        bar.set_message(format!("{} handshakes", flood.started.get()));
        bar.tick();
    }
    bar.finish_and_clear();
    let mut report = Report::new("knock", began.elapsed());
    report.parameter("rate", options.rate);
    report.parameter("from", options.from.to_string());
    let times = flood.times.borrow();
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    report.figure("handshakes_per_second", "handshakes", rate, Unit::PerSecond);
    report.latencies(
        ["answer_p50_us", "answer_p99_us", "answer_max_us"],
        ["answer p50", "answer p99", "answer max"],
        &times,
    );
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
    /// Knocks once, when it is time; `false`: the time is over.
    async fn knock(&self) -> bool {
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
        let said = match timeout(PATIENCE, self.target.knock(index, self.from)).await {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => format!("{:#}", error.root_cause()),
            Err(_) => "no answer in time".to_owned(),
        };
        *self.answers.borrow_mut().entry(said).or_default() += 1;
        self.times.borrow_mut().record(sent.elapsed());
        true
    }
}
