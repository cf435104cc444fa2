//! The `copydesk` command.

mod cli;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use copydesk::node::JoinError;
use copydesk::store::VerifyRange;
use copydesk::telemetry;
use mimalloc::MiMalloc;
use tokio::runtime::Runtime;

use self::cli::arguments::{Cli, Command, ConfigCommand};
use self::cli::{database, dead_letters, documents, serve};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The exit status of `copydesk serve` if live nodes share no wire version with this program.
const INCOMPATIBLE: u8 = 3;

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("copydesk: {error:#}");
            match error.downcast_ref::<JoinError>() {
                Some(JoinError::Incompatible { .. }) => INCOMPATIBLE.into(),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Serve(serve) => {
            let config = serve.file.load(&serve.flags())?;
            telemetry::begin(&config.log)?;
            let threads = config.server.threads();
            runtime(threads)?.block_on(serve::serve(config))?;
        }
        Command::Locate(target) => {
            let config = target.file.load(&target.store.flags())?;
            runtime(1)?.block_on(documents::locate(&target.doc, &config))?;
        }
        Command::Verify(verify) => {
            let config = verify.file.load(&verify.store.flags())?;
            let range = VerifyRange {
                after: verify.after,
            };
            return Ok(runtime(1)?.block_on(database::verify(range, &config)));
        }
        Command::Migrate(migrate) => {
            let config = migrate.file.load(&migrate.store.flags())?;
            telemetry::begin(&config.log)?;
            runtime(1)?.block_on(database::migrate(&migrate, &config))?;
        }
        Command::Repair(repair) => {
            let target = &repair.target;
            let config = target.file.load(&target.store.flags())?;
            let repaired = documents::repair(&target.doc, repair.mode(), &config);
            runtime(1)?.block_on(repaired)?;
        }
        Command::Restored(restored) => {
            let config = restored.file.load(&restored.store.flags())?;
            runtime(1)?.block_on(database::renew_history(&config))?;
        }
        Command::DeadLetters(command) => {
            let config = command.source().load()?;
            runtime(1)?.block_on(dead_letters::dead_letters(&command, &config))?;
        }
        Command::Quarantine(command) => {
            let config = command.source().load()?;
            runtime(1)?.block_on(dead_letters::quarantine(&command, &config))?;
        }
        Command::Config(ConfigCommand::Check(file)) => {
            let config = file.load(&[])?;
            println!("{config:#?}");
            println!("The configuration is valid.");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The runtime of the documents, the store and the messages between nodes. Sockets have threads of their own.
fn runtime(threads: usize) -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(threads).enable_all();
    builder.build().context("start the runtime")
}
