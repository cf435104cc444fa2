//! The errors of ops and contents, and the limits for ops of clients.

use thiserror::Error;

/// The origin of an op or content, which decides the limits for parsing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// From a client: all limits apply.
    Client,
    /// From the store: only the limit of the whole content applies. An older version may have accepted more, and composing
    /// splits components.
    Log,
}

impl Origin {
    /// `bound` for input of clients; none for data of the store.
    pub(super) const fn bound(self, bound: usize) -> usize {
        match self {
            Self::Client => bound,
            Self::Log => usize::MAX,
        }
    }
}

/// The largest number of components of a client's op. Clients compose all offline edits into one op, so this is the number
/// that fits into a message of 2 MiB.
pub const COMPONENTS_MAX: usize = 150_000;

/// The largest number of attributes of one component of a client's op.
pub const ATTRIBUTE_KEYS_MAX: usize = 100;

/// The most bytes, as JSON, of the attributes that one component of a sent op may set, and that a new op may leave on one
/// run of text. An op repeats them for every run that it covers or cuts.
pub const ATTRIBUTE_BYTES_MAX: usize = 64 << 10;

/// The most bytes, as JSON, of one embed in a sent op.
pub const EMBED_BYTES_MAX: usize = 2 << 20;

/// The most members, of all objects and arrays within, that one attribute or embed of a sent op may have.
pub const VALUE_MEMBERS_MAX: usize = 10_000;

/// The deepest nesting of an attribute's or embed's value. Parsers on both sides recurse.
pub const DEPTH_MAX: usize = 100;

/// The largest count of one component: above the length of any document, and far from an overflow.
pub const COUNT_MAX: u64 = 1 << 31;

/// An op or content was rejected. Displays as one sentence for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OtError {
    /// Not an op of the type.
    #[error("{0}")]
    Malformed(&'static str),
    /// The op does not fit the content.
    #[error("{0}")]
    NotApplied(&'static str),
    /// The data of a new document are not data of its type.
    #[error("{0}")]
    BadData(&'static str),
    /// The content would exceed its bound. It is unchanged.
    #[error("The document would become too large")]
    ContentTooLarge,
    /// The result would exceed a bound, or the computation would need too much work. Nothing was changed.
    #[error("{0}")]
    TooLarge(&'static str),
    /// Two ops, or an op and a content, are of different types.
    #[error("The op is of another type than the document")]
    KindsDiffer,
    /// The type has no presence that could be transformed.
    #[error("This type has no presence")]
    NoPresence,
}

pub(super) const TOO_LONG: OtError = OtError::NotApplied("The op is too long for this document");

pub(super) const CUTS_PAIR: OtError = OtError::NotApplied("The op cuts a surrogate pair");

pub(super) const TOO_MANY: &str = "The op has too many components";

pub(super) const RUN_TOO_LARGE: OtError =
    OtError::TooLarge("The attributes of one run of text would exceed 65536 bytes");

pub(super) const COUNT_TOO_LARGE: &str = "Counts must not exceed 2147483648";

pub(super) const COUNT_NOT_WHOLE: &str = "Counts must be whole numbers";
