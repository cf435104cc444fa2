//! The text of a plain-text document.

use ropey::Rope;

use super::super::budget::{CONTENT_BYTES_MAX, ContentBounds};
use super::super::error::{OtError, TOO_LONG};
use super::super::json::{escapes_len, read_string, write_escaped};
use super::op::{Component, TextOp};
use super::walk::Piece;

/// A plain text that is edited in place. Cloning takes constant time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TextContent {
    rope: Rope,
    /// Bytes that escaping adds inside a JSON string.
    escapes: usize,
}

impl TextContent {
    pub(in crate::ot) fn create(data: Option<&str>) -> Result<Self, OtError> {
        let Some(json) = data else {
            return Ok(Self::default());
        };
        let not_a_string = OtError::BadData("Initial data must be a string");
        // `read_string` relies on a checked syntax; untrusted input is read by the JSON parser.
        let sound =
            serde_json::from_str::<&serde_json::value::RawValue>(json).map_err(|_| not_a_string)?;
        let text = read_string(sound.get()).ok_or(not_a_string)?;
        if text.len() > CONTENT_BYTES_MAX {
            return Err(OtError::ContentTooLarge);
        }
        Ok(Self {
            rope: Rope::from_str(&text),
            escapes: escapes_len(&text),
        })
    }

    /// Applies `op`. The text is unchanged if it fails.
    pub(in crate::ot) fn apply(
        &mut self,
        op: &TextOp,
        bounds: &ContentBounds,
    ) -> Result<(), OtError> {
        if op.base_len() > self.len() {
            return Err(TOO_LONG);
        }
        // Only inserts add to a text, so this quick check mostly proves that the bounds hold.
        if self.size_bytes() + op.inserted_bytes() <= bounds.bytes_max {
            self.edit(op);
            return Ok(());
        }
        // A copy of the rope shares the parts that are not edited.
        let mut edited = self.clone();
        edited.edit(op);
        // An op that makes a text smaller is accepted even if the text exceeds its bound.
        if edited.size_bytes() > bounds.bytes_max.max(self.size_bytes()) {
            return Err(OtError::ContentTooLarge);
        }
        *self = edited;
        Ok(())
    }

    /// Applies an op that fits.
    fn edit(&mut self, op: &TextOp) {
        let mut at = 0;
        for component in op.components() {
            match component {
                Component::Keep(len) => at += index(*len),
                Component::Insert { text, len } => {
                    self.rope.insert(at, text);
                    self.escapes += escapes_len(text);
                    at += index(*len);
                }
                Component::Delete { len, .. } => {
                    let gone = at..at + index(*len);
                    let chunks = self.rope.slice(gone.clone()).chunks();
                    self.escapes -= chunks.map(escapes_len).sum::<usize>();
                    self.rope.remove(gone);
                }
            }
        }
    }

    /// The op that undoes `op`, which applies to this text. Its deletes carry the deleted text, as in the npm package.
    pub(in crate::ot) fn invert(&self, op: &TextOp) -> Result<TextOp, OtError> {
        if op.base_len() > self.len() {
            return Err(TOO_LONG);
        }
        let mut inverse = TextOp::default();
        let mut at = 0;
        for component in op.components() {
            match component {
                Component::Keep(len) => {
                    inverse.push(Piece::Keep(*len));
                    at += index(*len);
                }
                Component::Insert { text, len } => inverse.push(Piece::Delete {
                    len: *len,
                    text: Some(text),
                }),
                Component::Delete { len, .. } => {
                    // The deleted text of this content; the text in the op may differ.
                    let text = self.rope.slice(at..at + index(*len)).to_string();
                    inverse.push(Piece::Insert {
                        text: &text,
                        len: *len,
                    });
                    at += index(*len);
                }
            }
        }
        Ok(inverse.trim())
    }

    pub(in crate::ot) fn len(&self) -> u64 {
        self.rope.len_chars() as u64
    }

    pub(in crate::ot) fn size_bytes(&self) -> usize {
        self.rope.len_bytes() + self.escapes + 2
    }

    pub(in crate::ot) fn to_text(&self) -> String {
        self.rope.to_string()
    }

    pub(in crate::ot) fn write_json(&self, out: &mut Vec<u8>) {
        out.reserve(self.size_bytes());
        out.push(b'"');
        for chunk in self.rope.chunks() {
            write_escaped(out, chunk);
        }
        out.push(b'"');
    }
}

/// A count that was checked against the text's own length.
fn index(len: u64) -> usize {
    usize::try_from(len).expect("an op within the text counts no further than memory")
}
