//! Operational transformation: ops of two types with apply, compose, transform and invert, and the contents they apply to.
//!
//! All functions are pure. Input from clients is parsed strictly ([`Op::parse`], [`Content::create`]); parsed values never
//! cause a panic, and fail only if an op does not fit the length of its content or exceeds a bound. The results equal those
//! of the npm packages `ot-text-unicode` 4.0.0 and `rich-text` 4.1.0 that the clients use; `tests/ot_differential.rs`
//! compares them.

#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

#[cfg(test)]
mod bounds;
mod budget;
mod error;
mod json;
#[cfg(test)]
mod laws;
#[expect(
    clippy::module_inception,
    reason = "`ot.rs` dispatches to the types of this module"
)]
mod ot;
pub mod ot_js;
mod rich_text;
mod text;

pub use budget::{Budget, CONTENT_BYTES_MAX, ContentBounds};
pub use error::{
    ATTRIBUTE_BYTES_MAX, ATTRIBUTE_KEYS_MAX, COMPONENTS_MAX, COUNT_MAX, DEPTH_MAX, EMBED_BYTES_MAX,
    OtError, VALUE_MEMBERS_MAX,
};
pub use ot::{Content, Kind, Op, Side, transform_presence};
pub use rich_text::{Delta, Newline, RichContent};
pub use text::{TextContent, TextOp};
