//! rich-text: Deltas, as `rich-text` 4.1.0 with quill-delta 4 has them. Lengths are UTF-16 units, an embed is 1.

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
