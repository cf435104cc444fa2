//! An element of a rich text's tree: a short text or an embed, with attributes.

use std::sync::Arc;

use super::super::json::escapes_len;
use super::attributes::Attributes;
use super::units::split_units;
use super::walk::Piece;

/// A piece of rich text with one set of attributes.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) body: Body,
    pub(super) attributes: Option<Attributes>,
}

#[derive(Debug, Clone)]
pub(super) enum Body {
    /// At most [`CHUNK_BYTES_MAX`] bytes.
    Text {
        text: Arc<str>,
        len: u64,
        /// Bytes that escaping adds inside a JSON string.
        escapes: usize,
    },
    Embed(Arc<str>),
}

impl Body {
    /// A text of `len` units.
    pub(super) fn text(text: &str, len: u64) -> Self {
        Self::Text {
            text: text.into(),
            len,
            escapes: escapes_len(text),
        }
    }
}

/// The largest text of a span in bytes. An edit copies a span, so it is short; each span costs a few words of memory, so it
/// is not too short.
pub(super) const CHUNK_BYTES_MAX: usize = if cfg!(test) { 8 } else { 512 };

impl Span {
    pub(super) fn len(&self) -> u64 {
        match &self.body {
            Body::Text { len, .. } => *len,
            Body::Embed(_) => 1,
        }
    }

    /// Approximate size in bytes as JSON. The attributes of a run are counted in each of its spans.
    pub(super) fn bytes(&self) -> usize {
        let body = match &self.body {
            Body::Text { text, escapes, .. } => text.len() + escapes,
            Body::Embed(value) => value.len() + r#"{"insert":},"#.len(),
        };
        body + self
            .attributes
            .as_ref()
            .map_or(0, |attributes| attributes.size() + RUN_BYTES)
    }

    pub(super) fn piece(&self) -> Piece<'_> {
        let attributes = self.attributes.as_ref();
        match &self.body {
            Body::Text { text, len, .. } => Piece::Text {
                text,
                len: *len,
                attributes,
            },
            Body::Embed(value) => Piece::Embed { value, attributes },
        }
    }

    /// Merges `next` into this span, if both have the same attributes and the result is short enough.
    pub(super) fn absorb(&mut self, next: &Self) -> bool {
        let (
            Body::Text { text, len, escapes },
            Body::Text {
                text: more,
                len: more_len,
                escapes: more_escapes,
            },
        ) = (&mut self.body, &next.body)
        else {
            return false;
        };
        if text.len() + more.len() > CHUNK_BYTES_MAX || self.attributes != next.attributes {
            return false;
        }
        *text = [&**text, &**more].concat().into();
        *len += more_len;
        *escapes += more_escapes;
        true
    }

    /// Returns true if `at`, a position inside the span, splits a surrogate pair.
    pub(super) fn cuts_pair(&self, at: u64) -> bool {
        match &self.body {
            Body::Text { text, len, .. } => split_units(text, *len, at).is_none(),
            Body::Embed(_) => false,
        }
    }

    /// The two parts before and after `at`, a position inside the span; `None` if that splits a surrogate pair.
    pub(super) fn split(self, at: u64) -> Option<(Self, Self)> {
        let Body::Text { text, len, .. } = &self.body else {
            return None;
        };
        let (left, right) = split_units(text, *len, at)?;
        let (left, right) = (Body::text(left, at), Body::text(right, len - at));
        Some((
            Self {
                body: left,
                attributes: self.attributes.clone(),
            },
            Self {
                body: right,
                attributes: self.attributes,
            },
        ))
    }
}

/// Bytes that a separate run adds to the JSON.
const RUN_BYTES: usize = r#"{"insert":"","attributes":},"#.len();
