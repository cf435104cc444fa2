//! The type text-unicode: plain text with lengths in code points, compatible with `ot-text-unicode` 4.0.0.

mod compose;
mod content;
mod op;
mod output;
mod parse;
#[cfg(test)]
mod tests;
mod transform;
mod walk;

pub use content::TextContent;
pub(super) use op::Component;
pub use op::TextOp;
pub(super) use walk::Piece;
