//! text-unicode: plain text whose ops count in code points, as `ot-text-unicode` 4.0.0 has it.

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
