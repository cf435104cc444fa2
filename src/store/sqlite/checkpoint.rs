//! Checkpoints: the write-ahead log is moved into the database beside the commits.
//!
//! SQLite restarts the log only after all of it was moved, and under load commits add to it meanwhile. So a checkpoint
//! has two steps: a thread moves most pages while commits go on, then the writer thread moves the rest between two
//! transactions.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use rusqlite::Connection;

/// How many pages may wait for a checkpoint: half of the preallocated log.
const PAGES_MAX: i64 = 2_048;

/// With more pages waiting (64 MiB), the writer thread waits for the checkpoint: the disk accepts commits faster than
/// it moves pages.
const PAGES_LIMIT: i64 = 16_384;

/// The log is measured once in this many transactions.
const TRANSACTIONS: u32 = 16;

#[derive(Debug)]
pub(super) struct Checkpointer {
    /// Requests to the thread; `None` if it could not be started.
    bulk: Option<SyncSender<()>>,
    /// Signals that the thread has moved its part and the rest is left to the writer thread.
    moved: Receiver<()>,
    /// Whether a request is not answered yet.
    under_way: bool,
    thread: Option<JoinHandle<()>>,
    /// Transactions since the log was measured.
    transactions: u32,
}

impl Checkpointer {
    /// Starts the thread, with a connection of its own.
    pub(super) fn start(db: Connection) -> Self {
        // There is one request and one answer at a time, so neither side waits to send.
        let (bulk, requests) = sync_channel(1);
        let (answers, moved) = sync_channel(1);
        let thread = Builder::new()
            .name("store-checkpoint".into())
            .spawn(move || move_bulk(&db, &requests, &answers));
        if let Err(error) = &thread {
            tracing::warn!(%error, "the checkpoint thread did not start: checkpoints delay commits");
        }
        Self {
            bulk: thread.is_ok().then_some(bulk),
            moved,
            under_way: false,
            thread: thread.ok(),
            transactions: 0,
        }
    }

    /// Starts or finishes a checkpoint if one is due. Called between two transactions of `db`, the connection that
    /// writes.
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

    /// Ends the thread after its current checkpoint.
    pub(super) fn stop(&mut self) {
        self.bulk = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoint thread panicked");
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

/// Moves pages as far as readers permit. Returns how many are left.
fn checkpoint(db: &Connection, mode: &str) -> rusqlite::Result<i64> {
    let mut statement = db.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
    statement.query_row([], |row| Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?))
}

/// Logs a failed checkpoint. It is retried; until then the log grows.
fn report(outcome: rusqlite::Result<i64>) {
    if let Err(error) = outcome {
        tracing::error!(%error, "checkpoint failed: the write-ahead log grows until one succeeds");
    }
}
