//! Iterates over a text op in pieces of any length.

use super::op::{Component, TextOp};

/// A part of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ot) enum Piece<'a> {
    Keep(u64),
    Insert { text: &'a str, len: u64 },
    Delete { len: u64, text: Option<&'a str> },
}

/// The components that are never split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whole {
    Inserts,
    Deletes,
}

/// A position in an op. Beyond the end the op keeps everything.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    components: &'a [Component],
    /// The part of the first component that has been taken, in code points and in bytes of its text.
    taken: u64,
    taken_bytes: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(op: &'a TextOp) -> Self {
        Self {
            components: op.components(),
            taken: 0,
            taken_bytes: 0,
        }
    }

    /// Returns true if the next component is an insert.
    pub(super) fn at_insert(&self) -> bool {
        matches!(self.components.first(), Some(Component::Insert { .. }))
    }

    /// The rest of the next component; `None` at the end.
    pub(super) fn take_component(&mut self) -> Option<Piece<'a>> {
        (!self.components.is_empty()).then(|| self.take(u64::MAX, Whole::Inserts))
    }

    /// At most `max` code points of the next component; all of it if it is of the kind that is not split.
    pub(super) fn take(&mut self, max: u64, whole: Whole) -> Piece<'a> {
        let Some(component) = self.components.first() else {
            return Piece::Keep(max);
        };
        match component {
            Component::Keep(len) => Piece::Keep(self.advance(*len, max).0),
            Component::Insert { text, len } => {
                let max = if whole == Whole::Inserts {
                    u64::MAX
                } else {
                    max
                };
                let (len, text) = self.advance_in(text, *len, max);
                Piece::Insert { text, len }
            }
            Component::Delete { len, text } => {
                let max = if whole == Whole::Deletes {
                    u64::MAX
                } else {
                    max
                };
                match text {
                    Some(text) => {
                        let (len, text) = self.advance_in(text, *len, max);
                        Piece::Delete {
                            len,
                            text: Some(text),
                        }
                    }
                    None => Piece::Delete {
                        len: self.advance(*len, max).0,
                        text: None,
                    },
                }
            }
        }
    }

    /// Takes at most `max` of a component of length `len`. Returns the number taken, and true if the component is used up.
    fn advance(&mut self, len: u64, max: u64) -> (u64, bool) {
        let left = len - self.taken;
        if left <= max {
            self.components = &self.components[1..];
            self.taken = 0;
            (left, true)
        } else {
            self.taken += max;
            (max, false)
        }
    }

    fn advance_in(&mut self, text: &'a str, len: u64, max: u64) -> (u64, &'a str) {
        let rest = &text[self.taken_bytes..];
        let (len, is_end) = self.advance(len, max);
        if is_end {
            self.taken_bytes = 0;
            (len, rest)
        } else {
            let (part, _) = split_chars(rest, len);
            self.taken_bytes += part.len();
            (len, part)
        }
    }
}

/// Splits `text` after `len` code points, or at its end.
pub(super) fn split_chars(text: &str, len: u64) -> (&str, &str) {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let at = text
        .char_indices()
        .nth(len)
        .map_or(text.len(), |(at, _)| at);
    text.split_at(at)
}
