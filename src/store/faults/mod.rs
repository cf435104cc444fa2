//! What faults of the program leave behind: dead letters, which are the ops that could not be committed because of a fault,
//! and the documents that are in quarantine after repeated panics.
//!
//! [`FaultStore`] is the interface that nodes and the command line use; `retention` bounds the dead letters.

mod dead_letter;
mod fault_store;
mod quarantine;
mod retention;

pub use dead_letter::{
    DETAIL_BYTES_MAX, DeadLetter, DeadLetterFilter, DeadLetterReason, DeadLetterSize,
    StoredDeadLetter,
};
pub use fault_store::{DEAD_LETTERS_PAGE, FaultStore};
pub use quarantine::{
    PANIC_WINDOW_MS, PanicOutcome, PanicRecord, QUARANTINED_MAX, QuarantinedDocument,
};
pub use retention::{DeadLetterBounds, removable};

pub(super) use dead_letter::DeadLetterColumns;
pub(super) use quarantine::{PANICS_MAX, QuarantineColumns};
