//! The content of a rich-text document.

use super::super::budget::{Budget, CONTENT_BYTES_MAX, ContentBounds};
use super::super::error::{CUTS_PAIR, Origin, OtError, RUN_TOO_LARGE, TOO_LONG};
use super::super::json::write_escaped;
use super::attributes::{Attributes, Nulls};
use super::delta::{Component, Delta};
use super::output::Output;
use super::parse::read;
use super::span::{Body, CHUNK_BYTES_MAX, Span};
use super::tree::{CutsPair, Tree};
use super::units::utf16_len;
use super::walk::Piece;

/// A rich text. An edit takes logarithmic time, cloning constant time.
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
    pub(in crate::ot) fn create(data: Option<&str>, origin: Origin) -> Result<Self, OtError> {
        let mut tree = Tree::default();
        let Some(json) = data.filter(|json| json.trim_ascii() != "null") else {
            return Ok(Self { tree });
        };
        let mut is_too_large = false;
        read(json, origin, |piece| {
            if !piece.is_insert() {
                return Err("Initial data must be inserts");
            }
            push(&mut tree, piece);
            is_too_large = tree.bytes() > CONTENT_BYTES_MAX;
            if is_too_large {
                return Err("The document is too large");
            }
            Ok(())
        })
        .map_err(|error| match error {
            _ if is_too_large => OtError::ContentTooLarge,
            OtError::Malformed(flaw) => OtError::BadData(flaw),
            other => other,
        })?;
        Ok(Self { tree })
    }

    /// Applies `op`. The text is unchanged if it fails: the tree is persistent, so a copy is edited at the cost of the op, and
    /// dropped as soon as it exceeds `bounds`.
    pub(in crate::ot) fn apply(
        &mut self,
        op: &Delta,
        bounds: &ContentBounds,
    ) -> Result<(), OtError> {
        let newline = self.check(op)?;
        // An op that makes a content smaller is accepted even if the content exceeds its bound.
        let bytes_max = bounds.bytes_max.max(self.size_bytes());
        let mut edited = Edited {
            done: Tree::default(),
            rest: self.tree.clone(),
            // Text that a later component deletes may exceed the bound before.
            bytes_max: bytes_max.saturating_add(op.size() + EDIT_SLACK_BYTES),
            attribute_bytes_max: bounds.attribute_bytes_max,
        };
        if newline {
            push(&mut edited.rest, NEWLINE);
        }
        for component in op.components() {
            edited.step(component)?;
        }
        let tree = edited.finish();
        if tree.bytes() + FRAME_BYTES > bytes_max {
            return Err(OtError::ContentTooLarge);
        }
        self.tree = tree;
        Ok(())
    }

    /// The op that undoes `op`, which applies to this content.
    pub(in crate::ot) fn invert(&self, op: &Delta) -> Result<Delta, OtError> {
        let newline = self.check(op)?;
        let mut rest = self.tree.clone();
        if newline {
            push(&mut rest, NEWLINE);
        }
        // The newline that `op` inserts at the end is deleted again.
        let mut imagined = u64::from(newline);
        let mut budget = Budget::default();
        let mut inverse = Output::new(&mut budget);
        for component in op.components() {
            match component {
                Component::Text { len, .. } => inverse.push(Piece::Delete { len: *len })?,
                Component::Embed { .. } => inverse.push(Piece::Delete { len: 1 })?,
                Component::Delete { len } => {
                    let (gone, after) = rest.split(*len)?;
                    rest = after;
                    for span in gone.spans() {
                        inverse.push(span.piece())?;
                    }
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
                    undo_format(&mut inverse, &kept, attributes.as_ref())?;
                    if newline > 0 {
                        inverse.push(Piece::Delete { len: newline })?;
                    }
                }
            }
        }
        Ok(inverse.finish())
    }

    /// Replaces a retain over the final newline that Quill always shows, and this content does not have, by an insert of that
    /// newline. Clients without Quill, and readers of the log, would keep the retain unchanged. `None` if `op` needs no change.
    ///
    /// With [`Newline::MayBeSecond`] this is done even if the content ends with a newline.
    pub(in crate::ot) fn with_final_newline(&self, op: &Delta, newline: Newline) -> Option<Delta> {
        let components = op.components();
        let last = components
            .iter()
            .rposition(|component| !component.is_insert())?;
        let Component::Retain { len, attributes } = &components[last] else {
            return None;
        };
        let is_second = self.ends_with_newline();
        if op.base_len() != self.len() + 1 || (is_second && newline == Newline::IsFirst) {
            return None;
        }
        let mut told = Delta::default();
        let mut add = |component: &Component| told.push_in_order(component.piece());
        components[..last]
            .iter()
            .for_each(|component| _ = add(component));
        if *len > 1 {
            let (len, attributes) = (len - 1, attributes.clone());
            add(&Component::Retain { len, attributes });
        }
        add(&Component::Text {
            text: "\n".to_owned(),
            len: 1,
            attributes: Attributes::compose(None, attributes.as_ref(), Nulls::Drop),
        });
        components[last + 1..]
            .iter()
            .for_each(|component| _ = add(component));
        Some(told)
    }

    /// Checks that `op` applies: it fits and splits no surrogate pair. Returns whether it applies only with the final newline
    /// that Quill always shows, even if the document has none.
    ///
    /// Quill formats its last line by a retain over that newline. Rejecting the op would lose the user's edit; storing it, as the
    /// npm package does, would leave a retain in the document. So the newline is inserted.
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
        self.tree.bytes() + FRAME_BYTES
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

    /// The runs, each with its pieces of text, for comparison.
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

/// States whether a content that ends with a newline may get another one from an op that reaches beyond its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newline {
    /// No: the op is refused.
    IsFirst,
    /// Yes: the op was made before that newline was there, and its author sees another one behind it.
    MayBeSecond,
}

/// Adds an insert at the end, in spans that are short enough.
fn push(tree: &mut Tree, piece: Piece<'_>) {
    let attributes = piece.attributes().cloned();
    match piece {
        Piece::Embed { value, .. } => tree.push(Span {
            body: Body::Embed(value.clone()),
            attributes,
        }),
        Piece::Text { text, len, .. } if text.len() <= CHUNK_BYTES_MAX => {
            let body = Body::text(text, len);
            tree.push(Span { body, attributes });
        }
        Piece::Text { mut text, .. } => {
            while !text.is_empty() {
                let (chunk, rest) = text.split_at(text.floor_char_boundary(CHUNK_BYTES_MAX));
                let body = Body::text(chunk, utf16_len(chunk));
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

/// A tree that an op is being applied to.
struct Edited {
    /// The part before the next component.
    done: Tree,
    /// The part after it.
    rest: Tree,
    bytes_max: usize,
    attribute_bytes_max: usize,
}

impl Edited {
    /// Applies the next component.
    fn step(&mut self, component: &Component) -> Result<(), OtError> {
        match component {
            Component::Text {
                text,
                len,
                attributes,
            } => {
                let (len, attributes) = (*len, attributes.as_ref());
                push(
                    &mut self.done,
                    Piece::Text {
                        text,
                        len,
                        attributes,
                    },
                );
            }
            Component::Embed { value, attributes } => {
                let attributes = attributes.as_ref();
                push(&mut self.done, Piece::Embed { value, attributes });
            }
            Component::Delete { len } => drop(self.take(*len)?),
            Component::Retain {
                len,
                attributes: None,
            } => {
                let kept = self.take(*len)?;
                self.done.append(kept);
            }
            Component::Retain {
                len,
                attributes: Some(attributes),
            } => {
                let kept = self.take(*len)?;
                self.format(&kept, attributes)?;
            }
        }
        self.check(0)
    }

    /// Takes the next `len` units off.
    fn take(&mut self, len: u64) -> Result<Tree, OtError> {
        let (left, right) = std::mem::take(&mut self.rest).split(len)?;
        self.rest = right;
        Ok(left)
    }

    /// Adds `kept` with the `attributes` of a retain.
    fn format(&mut self, kept: &Tree, attributes: &Attributes) -> Result<(), OtError> {
        // Neighbouring spans mostly have the same attributes: compose them once.
        let mut known: Option<(Option<Attributes>, Option<Attributes>)> = None;
        let mut left = kept.bytes();
        for span in kept.spans() {
            let set = match &known {
                Some((before, after)) if *before == span.attributes => after.clone(),
                _ => self.compose(span.attributes.as_ref(), attributes)?,
            };
            known = Some((span.attributes.clone(), set.clone()));
            left -= span.bytes();
            self.done.push(Span {
                body: span.body.clone(),
                attributes: set,
            });
            self.check(left)?;
        }
        Ok(())
    }

    /// The attributes of a run afterwards.
    fn compose(
        &self,
        before: Option<&Attributes>,
        set: &Attributes,
    ) -> Result<Option<Attributes>, OtError> {
        let after = Attributes::compose(before, Some(set), Nulls::Drop);
        let size = |attributes: Option<&Attributes>| attributes.map_or(0, Attributes::size);
        let bytes = size(after.as_ref());
        if bytes > self.attribute_bytes_max && bytes > size(before) {
            return Err(RUN_TOO_LARGE);
        }
        Ok(after)
    }

    /// Checks the size of the whole content, of which `apart` bytes are in neither part.
    fn check(&self, apart: usize) -> Result<(), OtError> {
        if self.done.bytes() + self.rest.bytes() + apart > self.bytes_max {
            return Err(OtError::ContentTooLarge);
        }
        Ok(())
    }

    /// The whole content.
    fn finish(mut self) -> Tree {
        self.done.append(self.rest);
        self.done
    }
}

/// Bytes by which a content may exceed its bound while an op is applied that makes it smaller in the end.
const EDIT_SLACK_BYTES: usize = 1 << 20;

/// Bytes around the runs in a document's JSON.
const FRAME_BYTES: usize = r#"{"ops":[{"insert":""}]}"#.len();

/// Adds to `inverse` the retains that restore `kept` after `set` has been set on it.
fn undo_format(
    inverse: &mut Output<'_>,
    kept: &Tree,
    set: Option<&Attributes>,
) -> Result<(), OtError> {
    for span in kept.spans() {
        let before = set.and_then(|set| set.invert(span.attributes.as_ref()));
        inverse.push(Piece::Retain {
            len: span.len(),
            attributes: before.as_ref(),
        })?;
    }
    Ok(())
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

    /// The lengths of the parts that no op may split.
    pub(in crate::ot) fn unit_lens(&self) -> Vec<u64> {
        let lens = |span: &Span| match &span.body {
            Body::Text { text, .. } => text.chars().map(|char| char.len_utf16() as u64).collect(),
            Body::Embed(_) => vec![1],
        };
        self.tree.spans().flat_map(lens).collect()
    }
}
