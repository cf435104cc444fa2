//! Iterates over a Delta in pieces of any length.

use std::sync::Arc;

use super::super::error::{CUTS_PAIR, OtError};
use super::attributes::Attributes;
use super::delta::{Component, Delta};
use super::units::split_units;

/// A part of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Text {
        text: &'a str,
        len: u64,
        attributes: Option<&'a Attributes>,
    },
    Embed {
        value: &'a Arc<str>,
        attributes: Option<&'a Attributes>,
    },
    Retain {
        len: u64,
        attributes: Option<&'a Attributes>,
    },
    Delete {
        len: u64,
    },
}

impl<'a> Piece<'a> {
    pub(super) fn is_insert(&self) -> bool {
        matches!(self, Piece::Text { .. } | Piece::Embed { .. })
    }

    pub(super) fn attributes(&self) -> Option<&'a Attributes> {
        match self {
            Piece::Text { attributes, .. }
            | Piece::Embed { attributes, .. }
            | Piece::Retain { attributes, .. } => *attributes,
            Piece::Delete { .. } => None,
        }
    }

    /// The same insert under other attributes.
    pub(super) fn with_attributes<'b>(self, attributes: Option<&'b Attributes>) -> Piece<'b>
    where
        'a: 'b,
    {
        match self {
            Piece::Text { text, len, .. } => Piece::Text {
                text,
                len,
                attributes,
            },
            Piece::Embed { value, .. } => Piece::Embed { value, attributes },
            Piece::Retain { len, .. } => Piece::Retain { len, attributes },
            Piece::Delete { .. } => self,
        }
    }
}

impl From<Piece<'_>> for Component {
    fn from(piece: Piece<'_>) -> Self {
        match piece {
            Piece::Text {
                text,
                len,
                attributes,
            } => Self::Text {
                text: text.to_owned(),
                len,
                attributes: attributes.cloned(),
            },
            Piece::Embed { value, attributes } => Self::Embed {
                value: value.clone(),
                attributes: attributes.cloned(),
            },
            Piece::Retain { len, attributes } => Self::Retain {
                len,
                attributes: attributes.cloned(),
            },
            Piece::Delete { len } => Self::Delete { len },
        }
    }
}

/// A position in a Delta. Beyond the end the Delta retains everything.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    components: &'a [Component],
    /// The part of the first component that has been taken, in units and in bytes of its text.
    taken: u64,
    taken_bytes: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(delta: &'a Delta) -> Self {
        Self {
            components: delta.components(),
            taken: 0,
            taken_bytes: 0,
        }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.components.is_empty()
    }

    pub(super) fn at_insert(&self) -> bool {
        self.components.first().is_some_and(Component::is_insert)
    }

    pub(super) fn at_delete(&self) -> bool {
        matches!(self.components.first(), Some(Component::Delete { .. }))
    }

    /// The length of the rest of the next component.
    pub(super) fn len(&self) -> u64 {
        self.components
            .first()
            .map_or(u64::MAX, |component| component.len() - self.taken)
    }

    /// The rest of the next component; `None` at the end.
    pub(super) fn take_component(&mut self) -> Option<Piece<'a>> {
        let component = self.components.first()?;
        let len = self.len();
        let piece = match component {
            Component::Text {
                text, attributes, ..
            } => Piece::Text {
                text: &text[self.taken_bytes..],
                len,
                attributes: attributes.as_ref(),
            },
            Component::Embed { value, attributes } => Piece::Embed {
                value,
                attributes: attributes.as_ref(),
            },
            Component::Retain { attributes, .. } => Piece::Retain {
                len,
                attributes: attributes.as_ref(),
            },
            Component::Delete { .. } => Piece::Delete { len },
        };
        self.components = &self.components[1..];
        (self.taken, self.taken_bytes) = (0, 0);
        Some(piece)
    }

    /// At most `max` units of the next component.
    pub(super) fn take(&mut self, max: u64) -> Result<Piece<'a>, OtError> {
        let Some(component) = self.components.first() else {
            return Ok(Piece::Retain {
                len: max,
                attributes: None,
            });
        };
        let left = self.len();
        if left <= max {
            return self.take_component().ok_or(CUTS_PAIR);
        }
        let piece = match component {
            Component::Text {
                text, attributes, ..
            } => {
                let (text, _) =
                    split_units(&text[self.taken_bytes..], left, max).ok_or(CUTS_PAIR)?;
                self.taken_bytes += text.len();
                Piece::Text {
                    text,
                    len: max,
                    attributes: attributes.as_ref(),
                }
            }
            // Its length is 1: it is never left in part.
            Component::Embed { value, attributes } => Piece::Embed {
                value,
                attributes: attributes.as_ref(),
            },
            Component::Retain { attributes, .. } => Piece::Retain {
                len: max,
                attributes: attributes.as_ref(),
            },
            Component::Delete { .. } => Piece::Delete { len: max },
        };
        self.taken += max;
        Ok(piece)
    }
}
