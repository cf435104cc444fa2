//! The content of a rich-text document.

use super::super::error::{CUTS_PAIR, OtError, TOO_LONG};
use super::super::json::write_escaped;
use super::attributes::{Attributes, Nulls};
use super::delta::{Component, Delta};
use super::parse::read;
use super::span::{Body, CHUNK_BYTES_MAX, Span};
use super::tree::{CutsPair, Tree};
use super::units::utf16_len;
use super::walk::Piece;

/// A rich text: what was inserted and not deleted. Edited in logarithmic time and cloned at once.
#[derive(Debug, Clone, Default)]
pub struct RichContent {
    tree: Tree,
}

impl From<CutsPair> for OtError {
    fn from(_: CutsPair) -> Self {
        CUTS_PAIR
    }
}

impl RichContent {
    pub(in crate::ot) fn create(data: Option<&str>) -> Result<Self, OtError> {
        let mut tree = Tree::default();
        let Some(json) = data.filter(|json| json.trim_ascii() != "null") else {
            return Ok(Self { tree });
        };
        read(json, usize::MAX, |piece| {
            if !piece.is_insert() {
                return Err("Initial data must be inserts");
            }
            push(&mut tree, piece);
            Ok(())
        })
        .map_err(|error| match error {
            OtError::Malformed(flaw) => OtError::BadData(flaw),
            other => other,
        })?;
        Ok(Self { tree })
    }

    pub(in crate::ot) fn apply(&mut self, op: &Delta) -> Result<(), OtError> {
        let newline = self.check(op)?;
        // Nothing can fail from here on, so the tree itself is taken apart: what nobody shares is changed in place.
        let mut rest = std::mem::take(&mut self.tree);
        if newline {
            push(&mut rest, NEWLINE);
        }
        let mut split = |len| {
            let (left, right) = std::mem::take(&mut rest)
                .split(len)
                .expect("no cut was found");
            rest = right;
            left
        };
        let mut done = Tree::default();
        for component in op.components() {
            match component {
                Component::Text {
                    text,
                    len,
                    attributes,
                } => {
                    let attributes = attributes.as_ref();
                    push(
                        &mut done,
                        Piece::Text {
                            text,
                            len: *len,
                            attributes,
                        },
                    );
                }
                Component::Embed { value, attributes } => {
                    let attributes = attributes.as_ref();
                    push(&mut done, Piece::Embed { value, attributes });
                }
                Component::Delete { len } => drop(split(*len)),
                Component::Retain {
                    len,
                    attributes: None,
                } => done.append(split(*len)),
                Component::Retain {
                    len,
                    attributes: Some(attributes),
                } => format(&mut done, &split(*len), attributes),
            }
        }
        done.append(rest);
        self.tree = done;
        Ok(())
    }

    /// The op that undoes `op`, which applies to this content.
    pub(in crate::ot) fn invert(&self, op: &Delta) -> Result<Delta, OtError> {
        let newline = self.check(op)?;
        let mut rest = self.tree.clone();
        if newline {
            push(&mut rest, NEWLINE);
        }
        // The newline that `op` makes real goes again.
        let mut imagined = u64::from(newline);
        let mut inverse = Delta::default();
        for component in op.components() {
            match component {
                Component::Text { len, .. } => inverse.push(Piece::Delete { len: *len }),
                Component::Embed { .. } => inverse.push(Piece::Delete { len: 1 }),
                Component::Delete { len } => {
                    let (gone, after) = rest.split(*len)?;
                    rest = after;
                    gone.spans().for_each(|span| inverse.push(span.piece()));
                }
                Component::Retain { len, attributes } => {
                    let (kept, after) = rest.split(*len)?;
                    rest = after;
                    let newline = if rest.len() == 0 {
                        std::mem::take(&mut imagined)
                    } else {
                        0
                    };
                    let (kept, _) = kept.split(len - newline)?;
                    for span in kept.spans() {
                        let before = attributes
                            .as_ref()
                            .and_then(|set| set.invert(span.attributes.as_ref()));
                        inverse.push(Piece::Retain {
                            len: span.len(),
                            attributes: before.as_ref(),
                        });
                    }
                    if newline > 0 {
                        inverse.push(Piece::Delete { len: newline });
                    }
                }
            }
        }
        Ok(inverse.chop())
    }

    /// Whether `op` applies: it fits and cuts no surrogate pair. Says whether it does so only with the final newline that
    /// every Quill shows, also where the document has none.
    ///
    /// Quill formats its last line by a retain over that newline. To refuse it would throw the user's work away; to
    /// store it, as the package does, would leave a retain in the document. So the newline becomes a real one.
    fn check(&self, op: &Delta) -> Result<bool, OtError> {
        let beyond = op.base_len().saturating_sub(self.len());
        let last = op
            .components()
            .iter()
            .rfind(|component| !component.is_insert());
        let newline = beyond == 1
            && !self.ends_with_newline()
            && matches!(last, Some(Component::Retain { .. }));
        if beyond > 0 && !newline {
            return Err(TOO_LONG);
        }
        let mut at = 0;
        for component in op
            .components()
            .iter()
            .filter(|component| !component.is_insert())
        {
            at += component.len();
            if self.tree.cuts_pair(at) {
                return Err(CUTS_PAIR);
            }
        }
        Ok(newline)
    }

    fn ends_with_newline(&self) -> bool {
        matches!(self.tree.last(), Some(Span { body: Body::Text { text, .. }, .. }) if text.ends_with('\n'))
    }

    pub(in crate::ot) fn len(&self) -> u64 {
        self.tree.len()
    }

    pub(in crate::ot) fn size_bytes(&self) -> usize {
        self.tree.bytes() + r#"{"ops":[{"insert":""}]}"#.len()
    }

    pub(in crate::ot) fn to_text(&self) -> String {
        let mut out = String::new();
        for span in self.tree.spans() {
            if let Body::Text { text, .. } = &span.body {
                out.push_str(text);
            }
        }
        out
    }

    pub(in crate::ot) fn write_json(&self, out: &mut Vec<u8>) {
        out.reserve(self.size_bytes());
        out.extend_from_slice(b"{\"ops\":[");
        let mut open: Option<&Span> = None;
        for span in self.tree.spans() {
            let goes_on = open.is_some_and(|open| is_one_run(open, span));
            if !goes_on {
                if let Some(open) = open {
                    close(out, open);
                    out.push(b',');
                }
                out.extend_from_slice(b"{\"insert\":");
            }
            match &span.body {
                Body::Text { text, .. } => {
                    if !goes_on {
                        out.push(b'"');
                    }
                    write_escaped(out, text);
                }
                Body::Embed(value) => out.extend_from_slice(value.as_bytes()),
            }
            open = Some(span);
        }
        if let Some(open) = open {
            close(out, open);
        }
        out.extend_from_slice(b"]}");
    }

    /// Each run as one piece of text after another, for comparing.
    fn same_as(&self, other: &Self) -> bool {
        let mut theirs = other.tree.spans();
        let mut rest: Option<(&str, &Span)> = None;
        for span in self.tree.spans() {
            let Body::Text { text, .. } = &span.body else {
                let next = if rest.is_none() { theirs.next() } else { None };
                match next {
                    Some(next) if same_embed(span, next) => continue,
                    _ => return false,
                }
            };
            let mut text: &str = text;
            while !text.is_empty() {
                let Some((there, their_span)) =
                    rest.take().or_else(|| theirs.next().and_then(text_of))
                else {
                    return false;
                };
                let shorter = text.len().min(there.len());
                if their_span.attributes != span.attributes
                    || text.as_bytes()[..shorter] != there.as_bytes()[..shorter]
                {
                    return false;
                }
                text = &text[shorter..];
                rest = (shorter < there.len()).then(|| (&there[shorter..], their_span));
            }
        }
        rest.is_none() && theirs.next().is_none()
    }
}

impl PartialEq for RichContent {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.same_as(other)
    }
}

impl Eq for RichContent {}

const NEWLINE: Piece<'static> = Piece::Text {
    text: "\n",
    len: 1,
    attributes: None,
};

/// Adds an insert at the end, in spans that are short enough.
fn push(tree: &mut Tree, piece: Piece<'_>) {
    let attributes = piece.attributes().cloned();
    match piece {
        Piece::Embed { value, .. } => tree.push(Span {
            body: Body::Embed(value.clone()),
            attributes,
        }),
        Piece::Text { text, len, .. } if text.len() <= CHUNK_BYTES_MAX => {
            let body = Body::Text {
                text: text.into(),
                len,
            };
            tree.push(Span { body, attributes });
        }
        Piece::Text { mut text, .. } => {
            while !text.is_empty() {
                let (chunk, rest) = text.split_at(text.floor_char_boundary(CHUNK_BYTES_MAX));
                let body = Body::Text {
                    text: chunk.into(),
                    len: utf16_len(chunk),
                };
                tree.push(Span {
                    body,
                    attributes: attributes.clone(),
                });
                text = rest;
            }
        }
        Piece::Retain { .. } | Piece::Delete { .. } => {}
    }
}

/// Adds what a retain under `attributes` makes of `kept`.
fn format(tree: &mut Tree, kept: &Tree, attributes: &Attributes) {
    // Neighbouring spans mostly have the same attributes: compose them once.
    let mut known: Option<(Option<Attributes>, Option<Attributes>)> = None;
    for span in kept.spans() {
        let set = match &known {
            Some((before, after)) if *before == span.attributes => after.clone(),
            _ => Attributes::compose(span.attributes.as_ref(), Some(attributes), Nulls::Drop),
        };
        known = Some((span.attributes.clone(), set.clone()));
        tree.push(Span {
            body: span.body.clone(),
            attributes: set,
        });
    }
}

fn is_one_run(a: &Span, b: &Span) -> bool {
    matches!((&a.body, &b.body), (Body::Text { .. }, Body::Text { .. }))
        && a.attributes == b.attributes
}

fn same_embed(a: &Span, b: &Span) -> bool {
    matches!((&a.body, &b.body), (Body::Embed(a), Body::Embed(b)) if a == b)
        && a.attributes == b.attributes
}

fn text_of(span: &Span) -> Option<(&str, &Span)> {
    match &span.body {
        Body::Text { text, .. } => Some((text, span)),
        Body::Embed(_) => None,
    }
}

/// Ends the component that holds `last`.
fn close(out: &mut Vec<u8>, last: &Span) {
    if let Body::Text { .. } = last.body {
        out.push(b'"');
    }
    if let Some(attributes) = &last.attributes {
        out.extend_from_slice(b",\"attributes\":");
        attributes.write_json(out);
    }
    out.push(b'}');
}

#[cfg(test)]
impl RichContent {
    pub(in crate::ot) fn check_invariants(&self) {
        self.tree.check_invariants();
    }

    /// The lengths of what no op may cut.
    pub(in crate::ot) fn unit_lens(&self) -> Vec<u64> {
        let lens = |span: &Span| match &span.body {
            Body::Text { text, .. } => text.chars().map(|char| char.len_utf16() as u64).collect(),
            Body::Embed(_) => vec![1],
        };
        self.tree.spans().flat_map(lens).collect()
    }
}
