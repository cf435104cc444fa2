//! An op on a plain text.

use smallvec::SmallVec;

use super::super::budget::Budget;
use super::super::error::OtError;
use super::super::json::{escapes_len, write_count, write_string};
use super::walk::Piece;

/// An op on a plain text, in normal form: no empty component, adjacent components of one kind merged, no keep at the end.
///
/// An insert and a delete next to each other may have either order, which is preserved: `["z",{d:1}]` and `[{d:1},"z"]` give the
/// same text but transform others differently.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TextOp {
    components: SmallVec<[Component; 3]>,
}

/// One component of an op. Counts are code points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ot) enum Component {
    Keep(u64),
    Insert {
        text: String,
        len: u64,
    },
    /// Deletes `len` code points. With their text, the op can be inverted without its document.
    Delete {
        len: u64,
        text: Option<String>,
    },
}

impl TextOp {
    pub(in crate::ot) fn components(&self) -> &[Component] {
        &self.components
    }

    /// Adds a component unchanged. The caller ensures the normal form.
    pub(super) fn push_as_is(&mut self, component: Component) {
        self.components.push(component);
    }

    /// Adds a piece at the end, merged with the last component if they are of one kind. `bytes`, the size of the op, grows
    /// accordingly.
    pub(super) fn push_within(
        &mut self,
        piece: Piece<'_>,
        bytes: &mut usize,
        budget: &mut Budget,
    ) -> Result<(), OtError> {
        let text = match piece {
            Piece::Keep(_) | Piece::Delete { text: None, .. } => 0,
            Piece::Insert { text, .. }
            | Piece::Delete {
                text: Some(text), ..
            } => text.len(),
        };
        budget.charge(1 + (text / 4096) as u64, *bytes + text)?;
        let count = self.components.len();
        self.push(piece);
        *bytes += text + (self.components.len() - count) * size_of::<Component>();
        Ok(())
    }

    /// Adds a piece at the end, merged with the last component if they are of one kind.
    pub(in crate::ot) fn push(&mut self, piece: Piece<'_>) {
        match (self.components.last_mut(), piece) {
            (_, Piece::Keep(0)) => {}
            (Some(Component::Keep(last)), Piece::Keep(len)) => *last += len,
            (
                Some(Component::Insert {
                    text: last,
                    len: last_len,
                }),
                Piece::Insert { text, len },
            ) => {
                last.push_str(text);
                *last_len += len;
            }
            (
                Some(Component::Delete {
                    len: last_len,
                    text: last,
                }),
                Piece::Delete { len, text },
            ) => {
                *last_len += len;
                // The merged delete has a text only if both have one.
                match (last.as_mut(), text) {
                    (Some(last), Some(text)) => last.push_str(text),
                    _ => *last = None,
                }
            }
            (_, piece) => self.components.push(piece.into()),
        }
    }

    /// Removes a keep at the end: the rest of the text is kept in any case.
    pub(in crate::ot) fn trim(mut self) -> Self {
        if let Some(Component::Keep(_)) = self.components.last() {
            self.components.pop();
        }
        self
    }

    /// Returns true if it changes nothing.
    #[must_use]
    pub fn is_noop(&self) -> bool {
        self.components.is_empty()
    }

    /// The least length of a text that the op applies to.
    pub(in crate::ot) fn base_len(&self) -> u64 {
        let consumed = |component: &Component| match component {
            Component::Keep(len) | Component::Delete { len, .. } => *len,
            Component::Insert { .. } => 0,
        };
        self.components.iter().map(consumed).sum()
    }

    /// Approximate size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let told = |component: &Component| match component {
            Component::Keep(_) | Component::Delete { text: None, .. } => 0,
            Component::Insert { text, .. }
            | Component::Delete {
                text: Some(text), ..
            } => text.len(),
        };
        self.components
            .iter()
            .map(|component| size_of::<Component>() + told(component))
            .sum()
    }

    /// Bytes of JSON that its inserts add to a text.
    pub(super) fn inserted_bytes(&self) -> usize {
        let inserted = |component: &Component| match component {
            Component::Insert { text, .. } => text.len() + escapes_len(text),
            Component::Keep(_) | Component::Delete { .. } => 0,
        };
        self.components.iter().map(inserted).sum()
    }

    /// The position of a cursor after the op. An insert exactly at the cursor does not move it, even if it is of another user.
    #[must_use]
    pub fn transform_position(&self, mut position: u64) -> u64 {
        let mut at = 0;
        for component in &self.components {
            if position <= at {
                break;
            }
            match component {
                Component::Keep(len) => at += len,
                Component::Insert { len, .. } => {
                    at += len;
                    position += len;
                }
                Component::Delete { len, .. } => position -= (*len).min(position - at),
            }
        }
        position
    }

    /// Writes it as the JSON that clients read.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (at, component) in self.components.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            match component {
                Component::Keep(len) => write_count(out, *len),
                Component::Insert { text, .. } => write_string(out, text),
                Component::Delete { len, text } => {
                    out.extend_from_slice(b"{\"d\":");
                    match text {
                        Some(text) => write_string(out, text),
                        None => write_count(out, *len),
                    }
                    out.push(b'}');
                }
            }
        }
        out.push(b']');
    }
}

impl From<Piece<'_>> for Component {
    fn from(piece: Piece<'_>) -> Self {
        match piece {
            Piece::Keep(len) => Self::Keep(len),
            Piece::Insert { text, len } => Self::Insert {
                text: text.to_owned(),
                len,
            },
            Piece::Delete { len, text } => Self::Delete {
                len,
                text: text.map(str::to_owned),
            },
        }
    }
}
