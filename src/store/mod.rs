//! The store: where the truth is kept, and the only room that speaks SQL. [`Store`] says what it promises; SQLite (in a
//! data folder), Postgres (for many nodes) and memory (for tests) keep the promise, and one suite, `tests/store.rs`, holds
//! them to it.

mod accounts;
mod bounded_cache;
mod change_feed;
mod history;
mod memory;
mod migration;
mod postgres;
mod snapshot_codec;
mod snapshot_retention;
mod sqlite;
#[expect(
    clippy::module_inception,
    reason = "the trait's file is named as the trait is"
)]
mod store;
mod verify;

pub use accounts::{AccessFuture, AccessStore, REVOCATIONS_PAGE};
pub use history::{History, HistoryMark};
pub use memory::MemoryStore;
pub use migration::{MigrationPhase, MigrationStatus};
pub use postgres::{PostgresSettings, PostgresStore};
pub use sqlite::{SqliteSettings, SqliteStore, WriterCounts};
pub use store::{
    AppendError, Batch, ChangeCursor, Changes, Continuity, DocumentChanges, DocumentLocation,
    Heartbeat, HeartbeatReply, Lease, ListPage, ListQuery, ListedDocument, LiveNode, LoadRange,
    Loaded, OpenDocuments, PAGE_BYTES, PAGE_ENTRIES, Store, StoreError, StoreErrorKind,
};
pub use verify::{DamageReport, VerifyEvent, VerifyRange, VerifyTotals};
