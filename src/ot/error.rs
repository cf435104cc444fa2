//! Why an op was refused, and the limits that refuse it.

use thiserror::Error;

/// Where an op or a content was read from, and so which bounds it is read under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client sent it: every bound holds.
    Client,
    /// The store holds it. An older version may have accepted more, and combining ops cuts them into more components, so
    /// only the bound of a whole content holds.
    Log,
}

impl Origin {
    /// `bound` for what a client sent, none for what the store holds.
    pub(super) const fn bound(self, bound: usize) -> usize {
        match self {
            Self::Client => bound,
            Self::Log => usize::MAX,
        }
    }
}

/// The most components that a sent op may have. Clients merge what was typed while they were offline into one op, so this
/// is what fits a message of 2 MiB, not what a person does at once.
pub const COMPONENTS_MAX: usize = 150_000;

/// The most attributes that one component of a sent op may set.
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

/// The largest count in one component. Far beyond any document, far below any overflow.
pub const COUNT_MAX: u64 = 1 << 31;

/// Why an op or a content was refused. Each displays as one sentence for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OtError {
    /// The op is not of its type's form, whatever it would be applied to.
    #[error("{0}")]
    Malformed(&'static str),
    /// The op is sound but does not fit this content.
    #[error("{0}")]
    NotApplied(&'static str),
    /// The data of a new document are not of its type's form.
    #[error("{0}")]
    BadData(&'static str),
    /// The content would be over its bound. Nothing was changed.
    #[error("The document would become too large")]
    ContentTooLarge,
    /// The outcome would be over a bound, or computing it would cost too much. Nothing was changed.
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
