//! Loads a Copydesk server, or any other that speaks ShareDB's protocol, and checks that every client converges.

mod check;
mod clerk;
mod desk;
mod lens;
mod member;
mod options;
mod process;
mod report;
mod run;
mod scenario;
mod server;
mod socket;
mod stats;
mod tape;
mod trace;
mod wire;
mod writing;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::options::Common;
use crate::report::Report;
use crate::scenario::{fanout, hot, idle, knock, many, open, replay};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Loads a Copydesk server through its own protocol and checks that every client converges.
///
/// Every scenario makes documents of its own, lets its clients in, loads the server for a time, waits until all is quiet
/// and then checks: every client sees what a fresh fetch shows, no revision is missing, every acknowledged op is in the
/// log exactly once, and nothing is in it that nobody sent. It exits with 1 when something is wrong and with 2 when the
/// run could not be made.
///
/// Latencies are measured from the moment at which an op was due, not from when it could be sent: a server that stalls
/// does not look better for it.
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
    Knock(knock::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match load(&arguments) {
        Ok(report) => {
            print!("{}", report.table());
            ExitCode::from(u8::from(report.fault_count > 0))
        }
        Err(error) => {
            eprintln!("copydesk-loadtest: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn load(arguments: &Arguments) -> Result<Report> {
    // One thread: the server under test needs the others, and what the clients share needs no locks.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    let common = &arguments.common;
    let report = runtime.block_on(local.run_until(async {
        match &arguments.scenario {
            Scenario::Hot(options) => hot::run(common, options).await,
            Scenario::Many(options) => many::run(common, options).await,
            Scenario::Fanout(options) => fanout::run(common, options).await,
            Scenario::Idle(options) => idle::run(common, options).await,
            Scenario::Open(options) => open::run(common, options).await,
            Scenario::Replay(options) => replay::run(common, options).await,
            Scenario::Knock(options) => knock::run(common, options).await,
        }
    }))?;
    if let Some(file) = &common.json {
        let json = serde_json::to_vec_pretty(&report)?;
        std::fs::write(file, json).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(report)
}
