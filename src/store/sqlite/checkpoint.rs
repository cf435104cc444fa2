//! The checkpointer: moves the write-ahead log into the database, beside the commits and not within one.
//!
//! SQLite begins the log anew only when all of it has been moved, and under load something is always added meanwhile.
//! So it goes in two steps: a thread moves the bulk while commits go on, then the writer moves the little rest
//! between two transactions.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use rusqlite::Connection;

/// How many pages of the log may wait to be moved: half of what there is room for.
const PAGES_MAX: i64 = 2_048;

/// With so many pages waiting, 64 MiB, the writer waits too: the disk takes commits faster than it moves them.
const PAGES_LIMIT: i64 = 16_384;

/// The log is measured once in so many transactions.
const TRANSACTIONS: u32 = 16;

#[derive(Debug)]
pub(super) struct Checkpointer {
    /// Asks the thread for the bulk. `None`: there is no thread.
    bulk: Option<SyncSender<()>>,
    /// The thread has moved the bulk; the rest is the writer's.
    moved: Receiver<()>,
    /// The thread was asked and has not answered.
    under_way: bool,
    thread: Option<JoinHandle<()>>,
    /// Transactions since the log was measured.
    transactions: u32,
}

impl Checkpointer {
    /// Starts the thread, with a connection of its own.
    pub(super) fn start(db: Connection) -> Self {
        // One request and one answer at a time: neither side ever waits to send.
        let (bulk, requests) = sync_channel(1);
        let (answers, moved) = sync_channel(1);
        let thread = Builder::new()
            .name("store-checkpoint".into())
            .spawn(move || move_bulk(&db, &requests, &answers));
        if let Err(error) = &thread {
            tracing::warn!(%error, "checkpoints hold up commits: there is no thread for them");
        }
        Self {
            bulk: thread.is_ok().then_some(bulk),
            moved,
            under_way: false,
            thread: thread.ok(),
            transactions: 0,
        }
    }

    /// Between two transactions of the writer, whose connection `db` is: sees whether something is to be moved.
    pub(super) fn checkpoint_if_due(&mut self, db: &Connection) {
        if self.under_way && self.moved.try_recv().is_ok() {
            return self.move_rest(db);
        }
        self.transactions += 1;
        if self.transactions < TRANSACTIONS {
            return;
        }
        self.transactions = 0;
        let waiting = checkpoint(db, "NOOP").unwrap_or(0);
        if self.under_way {
            if waiting > PAGES_LIMIT && self.moved.recv().is_ok() {
                self.move_rest(db);
            }
        } else if waiting > PAGES_MAX {
            match &self.bulk {
                Some(bulk) => self.under_way = bulk.try_send(()).is_ok(),
                None => report(checkpoint(db, "PASSIVE")),
            }
        }
    }

    fn move_rest(&mut self, db: &Connection) {
        self.under_way = false;
        report(checkpoint(db, "PASSIVE"));
    }

    /// Ends the thread, after what it is doing.
    pub(super) fn stop(&mut self) {
        self.bulk = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpointer panicked");
        }
    }
}

fn move_bulk(db: &Connection, requests: &Receiver<()>, answers: &SyncSender<()>) {
    while requests.recv().is_ok() {
        report(checkpoint(db, "PASSIVE"));
        if answers.send(()).is_err() {
            return;
        }
    }
}

/// Moves what can be moved. Returns how many pages of the log are left to move.
fn checkpoint(db: &Connection, mode: &str) -> rusqlite::Result<i64> {
    let mut statement = db.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
    statement.query_row([], |row| Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?))
}

/// A checkpoint that fails is tried again; until then the log grows.
fn report(outcome: rusqlite::Result<i64>) {
    if let Err(error) = outcome {
        tracing::error!(%error, "cannot move the write-ahead log into the database");
    }
}
