//! Why an op was refused, and the limits that refuse it.

use thiserror::Error;

/// The most components that a sent op may have.
pub const COMPONENTS_MAX: usize = 10_000;

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

pub(super) const COUNT_TOO_LARGE: &str = "Counts must not exceed 2147483648";

pub(super) const COUNT_NOT_WHOLE: &str = "Counts must be whole numbers";
