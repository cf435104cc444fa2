//! The algebra of edits: ops of two kinds that apply, compose, transform and invert, and the contents they apply to.
//!
//! Everything is pure. What a peer sent is parsed strictly at the door ([`Op::parse`], [`Content::create`]); after that
//! nothing panics and, but for lengths that only the content knows, nothing fails. The results are those of the npm
//! packages `ot-text-unicode` 4.0.0 and `rich-text` 4.1.0 that the clients run; `tests/ot_differential.rs` holds them to it.

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
    reason = "the room's door bears the house's name"
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
