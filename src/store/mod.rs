//! The stores. [`Store`] is the interface for documents, [`AccessStore`] for accounts and permissions. SQLite (one node, a
//! data folder), Postgres (many nodes) and memory (tests) implement it; the suite `tests/store.rs` runs against each. This
//! is the only module with SQL.

mod access;
mod bounded_cache;
mod change_feed;
mod damage;
mod error;
mod faults;
mod history;
mod list;
mod memory;
mod metrics;
mod migration;
mod postgres;
mod revision_search;
mod snapshot_codec;
mod snapshot_retention;
mod sqlite;
#[expect(
    clippy::module_inception,
    reason = "the trait's file is named as the trait is"
)]
mod store;
mod stored_entry;
mod verify;

pub use access::{AccessFuture, AccessQueries, AccessStore, REVOCATIONS_PAGE};
pub use error::{AppendError, StoreError, StoreErrorKind};
pub use faults::{
    DEAD_LETTERS_PAGE, DETAIL_BYTES_MAX, DeadLetter, DeadLetterBounds, DeadLetterFilter,
    DeadLetterReason, DeadLetterSize, FaultStore, PANIC_WINDOW_MS, PanicOutcome, PanicRecord,
    QUARANTINED_MAX, QuarantinedDocument, StoredDeadLetter, removable,
};
pub use history::{History, HistoryMark};
pub use list::{ListPage, ListQuery, ListedDocument};
pub use memory::MemoryStore;
pub use metrics::StoreMetrics;
pub use migration::{MigrationPhase, MigrationStatus};
pub use postgres::{PostgresSettings, PostgresStore};
pub use sqlite::{SqliteFaults, SqliteSettings, SqliteStore, WriterCounts};
pub use store::{
    Batch, ChangeCursor, Changes, Continuity, DocumentChanges, DocumentLocation, Heartbeat,
    HeartbeatReply, Lease, LiveNode, LoadRange, Loaded, OpenDocuments, PAGE_BYTES, PAGE_ENTRIES,
    Store,
};
pub use verify::{DamageReport, VerifyEvent, VerifyRange, VerifyTotals};
