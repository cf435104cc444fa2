//! The type rich-text: Deltas, compatible with `rich-text` 4.1.0 and quill-delta 4. Lengths are UTF-16 units; an embed has
//! length 1.

mod attributes;
mod compose;
mod content;
mod delta;
mod output;
mod parse;
mod presence;
mod span;
#[cfg(test)]
mod tests;
mod transform;
mod tree;
mod units;
mod walk;

pub use content::{Newline, RichContent};
pub use delta::Delta;
pub(super) use presence::transform_presence;
