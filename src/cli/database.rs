//! Commands on a whole database: `verify`, `migrate`, `restored`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use copydesk::config::Config;
use copydesk::protocol::CloseCode;
use copydesk::store::{History, PostgresStore, SqliteStore, Store, VerifyEvent, VerifyRange};

use super::arguments::Migrate;
use super::open_store::{OpenStore, new_node_id};

/// The exit status of `copydesk verify` if a row is damaged.
const DAMAGED: u8 = 1;

/// The exit status of `copydesk verify` if the database cannot be read.
const UNREADABLE: u8 = 2;

/// Checks a database. Prints damage to standard output, one fault a line, and progress to standard error.
pub(crate) async fn verify(range: VerifyRange, config: &Config) -> ExitCode {
    let (mut resume, mut damages) = (range.after, 0);
    let mut report = |event| match event {
        VerifyEvent::Damage(damage) => {
            damages += 1;
            println!("{damage}");
        }
        VerifyEvent::Progress { document, totals } => {
            resume = document;
            eprintln!(
                "{} documents, {} entries; resume with --after {document}",
                totals.documents, totals.entries
            );
        }
    };
    let verified = match config.is_shared() {
        true => PostgresStore::verify(&config.postgres, range, &mut report).await,
        false => SqliteStore::verify(&config.server.data, range, &mut report).await,
    };
    match verified {
        Ok(totals) => {
            println!(
                "{} documents, {} entries, {} snapshots: {} faults",
                totals.documents, totals.entries, totals.snapshots, totals.damages
            );
            if totals.damages > 0 {
                DAMAGED.into()
            } else {
                ExitCode::SUCCESS
            }
        }
        Err(error) => {
            eprintln!("copydesk: {error}; resume with --after {resume}");
            if damages > 0 {
                DAMAGED.into()
            } else {
                UNREADABLE.into()
            }
        }
    }
}

/// Migrates the tables, and prints their versions.
pub(crate) async fn migrate(command: &Migrate, config: &Config) -> Result<()> {
    let phase = command.phase();
    let status = match config.is_shared() {
        true => PostgresStore::migrate(&config.postgres, phase).await?,
        false => {
            // A SQLite database has one server, so both phases are applied when it is opened.
            if phase.is_some() {
                let store = OpenStore::open_existing(config, new_node_id()?).await?;
                store.close().await?;
            }
            SqliteStore::migration_status(&config.server.data)?
        }
    };
    println!("applied  {}", list(&status.applied));
    println!("pending  {}", list(&status.pending));
    Ok(())
}

fn list(versions: &[i32]) -> String {
    if versions.is_empty() {
        return "none".to_owned();
    }
    let versions: Vec<String> = versions.iter().map(i32::to_string).collect();
    versions.join(" ")
}

/// Gives the store a new history, and prints the consequences for clients.
pub(crate) async fn renew_history(config: &Config) -> Result<()> {
    let store = OpenStore::open_existing(config, new_node_id()?).await?;
    let renewed = renew(&*store.get()).await;
    store.close().await?;
    println!("history  {}: renewed", renewed?.generation);
    println!(
        "Running nodes load all documents again within a second and close their sockets with {}. Pages reload; \
         their unsaved text is kept for copying. Other clients get ERR_HISTORY_CHANGED for documents that they hold.",
        CloseCode::HistoryChanged as u16
    );
    Ok(())
}

async fn renew(store: &dyn Store) -> Result<History> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).context("draw the history's id")?;
    let known = store.history().await?;
    let next = known.after(known, u128::from_le_bytes(id));
    Ok(store.renew_history(known, next).await?)
}
