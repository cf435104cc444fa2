//! An op on a rich text.

use std::sync::Arc;

use smallvec::SmallVec;

use super::super::json::{write_count, write_string};
use super::attributes::Attributes;
use super::walk::{Piece, Walk};

/// An op on a rich text, in normal form: adjacent components are merged if possible, none is empty, and the last one is not a
/// plain retain.
///
/// Computed ops have an insert before a delete at the same position, as those of the Delta library. Ops of clients keep their
/// order: the author's client continues from it, and inserts of others would otherwise land elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delta {
    components: SmallVec<[Component; 3]>,
}

/// One component of an op. Lengths are UTF-16 units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Component {
    Text {
        text: String,
        len: u64,
        attributes: Option<Attributes>,
    },
    /// An embed as canonical JSON: an object with one key.
    Embed {
        value: Arc<str>,
        attributes: Option<Attributes>,
    },
    Retain {
        len: u64,
        attributes: Option<Attributes>,
    },
    Delete {
        len: u64,
    },
}

impl Component {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Text { len, .. } | Self::Retain { len, .. } | Self::Delete { len } => *len,
            Self::Embed { .. } => 1,
        }
    }

    pub(super) fn is_insert(&self) -> bool {
        matches!(self, Self::Text { .. } | Self::Embed { .. })
    }

    /// All of it.
    pub(super) fn piece(&self) -> Piece<'_> {
        match self {
            Self::Text {
                text,
                len,
                attributes,
            } => Piece::Text {
                text,
                len: *len,
                attributes: attributes.as_ref(),
            },
            Self::Embed { value, attributes } => Piece::Embed {
                value,
                attributes: attributes.as_ref(),
            },
            Self::Retain { len, attributes } => Piece::Retain {
                len: *len,
                attributes: attributes.as_ref(),
            },
            Self::Delete { len } => Piece::Delete { len: *len },
        }
    }

    /// Approximate size in bytes.
    fn size(&self) -> usize {
        let attributes = self.attributes().map_or(0, Attributes::size);
        let body = match self {
            Self::Text { text, .. } => text.len(),
            Self::Embed { value, .. } => value.len(),
            Self::Retain { .. } | Self::Delete { .. } => 0,
        };
        size_of::<Self>() + body + attributes
    }

    pub(super) fn attributes(&self) -> Option<&Attributes> {
        match self {
            Self::Text { attributes, .. }
            | Self::Embed { attributes, .. }
            | Self::Retain { attributes, .. } => attributes.as_ref(),
            Self::Delete { .. } => None,
        }
    }

    /// Merges `piece` into this component, if possible.
    fn absorb(&mut self, piece: &Piece<'_>) -> bool {
        match (self, piece) {
            (
                Self::Text {
                    text,
                    len,
                    attributes,
                },
                Piece::Text {
                    text: more,
                    len: more_len,
                    attributes: theirs,
                },
            ) if attributes.as_ref() == *theirs => {
                text.push_str(more);
                *len += more_len;
            }
            (
                Self::Retain { len, attributes },
                Piece::Retain {
                    len: more,
                    attributes: theirs,
                },
            ) if attributes.as_ref() == *theirs => {
                *len += more;
            }
            (Self::Delete { len }, Piece::Delete { len: more }) => *len += more,
            _ => return false,
        }
        true
    }
}

impl Delta {
    pub(super) fn components(&self) -> &[Component] {
        &self.components
    }

    /// Adds a piece at the end; an insert before a delete at the end, as the Delta library does. Returns the increase of
    /// [`size`](Self::size).
    pub(super) fn push(&mut self, piece: Piece<'_>) -> usize {
        let before_delete =
            piece.is_insert() && matches!(self.components.last(), Some(Component::Delete { .. }));
        self.push_at(self.components.len() - usize::from(before_delete), piece)
    }

    /// Adds a piece at the very end. Returns the increase of [`size`](Self::size).
    pub(super) fn push_in_order(&mut self, piece: Piece<'_>) -> usize {
        self.push_at(self.components.len(), piece)
    }

    fn push_at(&mut self, at: usize, piece: Piece<'_>) -> usize {
        if at > 0 && self.components[at - 1].absorb(&piece) {
            return match piece {
                Piece::Text { text, .. } => text.len(),
                Piece::Embed { .. } | Piece::Retain { .. } | Piece::Delete { .. } => 0,
            };
        }
        let component = Component::from(piece);
        let size = component.size();
        self.components.insert(at, component);
        size
    }

    /// Removes a plain retain at the end: the rest of the text is kept in any case.
    pub(super) fn chop(mut self) -> Self {
        if let Some(Component::Retain {
            attributes: None, ..
        }) = self.components.last()
        {
            self.components.pop();
        }
        self
    }

    /// Returns true if it changes nothing.
    #[must_use]
    pub fn is_noop(&self) -> bool {
        self.components.is_empty()
    }

    /// The same op without any attributes.
    pub(in crate::ot) fn without_attributes(&self) -> Self {
        let mut plain = Self::default();
        for component in &self.components {
            plain.push_in_order(component.piece().with_attributes(None));
        }
        plain.chop()
    }

    /// The least length of a text that the op applies to.
    pub(super) fn base_len(&self) -> u64 {
        self.components
            .iter()
            .filter(|component| !component.is_insert())
            .map(Component::len)
            .sum()
    }

    /// Approximate size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.components.iter().map(Component::size).sum()
    }

    /// The position of a cursor after the op. An insert exactly at the cursor moves it only if the cursor's user made it.
    #[must_use]
    pub fn transform_position(&self, mut position: u64, own: bool) -> u64 {
        let mut at = 0;
        for component in &self.components {
            if at > position {
                break;
            }
            let len = component.len();
            if let Component::Delete { .. } = component {
                position -= len.min(position - at);
                continue;
            }
            if component.is_insert() && (at < position || own) {
                position += len;
            }
            at += len;
        }
        position
    }

    /// Writes it as the JSON that clients read.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"ops\":[");
        let mut walk = Walk::new(self);
        let mut is_first = true;
        while let Some(piece) = walk.take_component() {
            if !is_first {
                out.push(b',');
            }
            is_first = false;
            write_piece(out, piece);
        }
        out.extend_from_slice(b"]}");
    }
}

fn write_piece(out: &mut Vec<u8>, piece: Piece<'_>) {
    let attributes = match piece {
        Piece::Text {
            text, attributes, ..
        } => {
            out.extend_from_slice(b"{\"insert\":");
            write_string(out, text);
            attributes
        }
        Piece::Embed { value, attributes } => {
            out.extend_from_slice(b"{\"insert\":");
            out.extend_from_slice(value.as_bytes());
            attributes
        }
        Piece::Retain { len, attributes } => {
            out.extend_from_slice(b"{\"retain\":");
            write_count(out, len);
            attributes
        }
        Piece::Delete { len } => {
            out.extend_from_slice(b"{\"delete\":");
            write_count(out, len);
            None
        }
    };
    if let Some(attributes) = attributes {
        out.extend_from_slice(b",\"attributes\":");
        attributes.write_json(out);
    }
    out.push(b'}');
}
