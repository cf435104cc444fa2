//! What a rich text's tree holds: a short text or an embed, and its attributes.

use std::sync::Arc;

use super::super::json::escapes_len;
use super::attributes::Attributes;
use super::units::split_units;
use super::walk::Piece;

/// A stretch of rich text under one set of attributes.
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
        /// How many bytes longer it is inside a JSON string.
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

/// The most bytes of text in one span: an edit copies one, so it must be short; each costs a few words, so not too short.
pub(super) const CHUNK_BYTES_MAX: usize = if cfg!(test) { 8 } else { 512 };

impl Span {
    pub(super) fn len(&self) -> u64 {
        match &self.body {
            Body::Text { len, .. } => *len,
            Body::Embed(_) => 1,
        }
    }

    /// About how many bytes it takes as JSON. A run's attributes are counted in each of its spans.
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

    /// Takes `next` in, if both are one run and stay short.
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

    /// Whether `at`, which lies within, lies within a surrogate pair.
    pub(super) fn cuts_pair(&self, at: u64) -> bool {
        match &self.body {
            Body::Text { text, len, .. } => split_units(text, *len, at).is_none(),
            Body::Embed(_) => false,
        }
    }

    /// Both sides of `at`, which lies within; nothing when that would cut a surrogate pair.
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

/// What a run of its own adds to the JSON.
const RUN_BYTES: usize = r#"{"insert":"","attributes":},"#.len();
