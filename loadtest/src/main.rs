//! Loads a Copydesk server, or any other that speaks ShareDB's protocol, and checks that every client converges.

mod admin_client;
mod check;
mod commit_recorder;
mod compare;
mod delayed_view;
mod document_under_test;
mod html;
mod options;
mod process;
mod report;
mod returning;
mod run;
mod scenario;
mod server;
mod simulated_client;
mod socket;
mod stats;
mod timeline;
mod trace;
mod trend;
mod wire;
mod writing;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

use crate::options::Common;
use crate::report::Report;
use crate::scenario::{
    cluster, crowd, fanout, handshake_flood, hot, idle, many, open, ramp, replay, soak, storm,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Loads a Copydesk server through its own protocol and checks that every client converges.
///
/// Every scenario creates documents of its own, connects its clients, loads the server for a time, waits until all clients
/// are settled and then checks: every client has the content of a fresh fetch, no revision is missing, and the log has every
/// acknowledged op exactly once and no op that was not sent. The exit status is 1 if a check fails and 2 if the run could not
/// be made.
///
/// Latencies are measured from the moment at which an op was due and not from when it could be sent, so that a stalling
/// server is not measured too favourably.
#[derive(Debug, Parser)]
#[command(name = "copydesk-loadtest", version)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    Hot(hot::Options),
    Many(many::Options),
    Fanout(fanout::Options),
    Idle(idle::Options),
    Open(open::Options),
    Replay(replay::Options),
    #[command(visible_alias = "knock")]
    HandshakeFlood(handshake_flood::Options),
    Ramp(ramp::Options),
    Soak(soak::Options),
    Storm(storm::Options),
    Crowd(crowd::Options),
    Cluster(cluster::Options),
    Compare(compare::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.scenario {
        Scenario::Compare(options) => compare::run(options).map(|compared| {
            print!("{}", compared.table);
            compared.is_regression
        }),
        _ => load(&arguments).map(|report| {
            print!("{}", report.table());
            report.fault_count > 0
        }),
    };
    match done {
        Ok(is_bad) => ExitCode::from(u8::from(is_bad)),
        Err(error) => {
            eprintln!("copydesk-loadtest: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn load(arguments: &Arguments) -> Result<Report> {
    // One thread: the server under test needs the other processors, and the clients share data without locks.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    let report = runtime.block_on(local.run_until(run(arguments)))?;
    let common = &arguments.common;
    if let Some(file) = &common.json {
        write(file, &serde_json::to_vec_pretty(&report)?)?;
    }
    if let Some(file) = &common.report {
        write(file, html::page(&report)?.as_bytes())?;
    }
    Ok(report)
}

async fn run(arguments: &Arguments) -> Result<Report> {
    let common = &arguments.common;
    match &arguments.scenario {
        Scenario::Hot(options) => hot::run(common, options).await,
        Scenario::Many(options) => many::run(common, options).await,
        Scenario::Fanout(options) => fanout::run(common, options).await,
        Scenario::Idle(options) => idle::run(common, options).await,
        Scenario::Open(options) => open::run(common, options).await,
        Scenario::Replay(options) => replay::run(common, options).await,
        Scenario::HandshakeFlood(options) => handshake_flood::run(common, options).await,
        Scenario::Ramp(options) => ramp::run(common, options).await,
        Scenario::Soak(options) => soak::run(common, options).await,
        Scenario::Storm(options) => storm::run(common, options).await,
        Scenario::Crowd(options) => crowd::run(common, options).await,
        Scenario::Cluster(options) => cluster::run(common, options).await,
        Scenario::Compare(_) => bail!("a comparison loads no server"),
    }
}

fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(file, bytes).with_context(|| format!("write {}", file.display()))
}
