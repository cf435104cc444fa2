//! The document types, and ops and contents of any type.

use serde_json::Value;

use super::budget::{Budget, ContentBounds};
use super::error::{Origin, OtError};
use super::rich_text::{self, Delta, Newline, RichContent};
use super::text::{TextContent, TextOp};

/// A type of document, and so of the ops on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Plain text; lengths in code points.
    TextUnicode,
    /// Text with attributes and embeds; lengths in UTF-16 units.
    RichText,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::TextUnicode, Self::RichText];

    /// The kind of this name or URI.
    #[must_use]
    pub fn parse(name_or_uri: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| name_or_uri == kind.name() || name_or_uri == kind.uri())
    }

    /// The URI that names the type in snapshots.
    #[must_use]
    pub const fn uri(self) -> &'static str {
        match self {
            Self::TextUnicode => "http://sharejs.org/types/text-unicode",
            Self::RichText => "http://sharejs.org/types/rich-text/v1",
        }
    }

    /// Its short name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TextUnicode => "text-unicode",
            Self::RichText => "rich-text",
        }
    }
}

/// The role of the op that is transformed, of two concurrent ops. An op that is not committed is the left one, on the server
/// and in its author's client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The op that is not committed.
    Left,
    /// The committed op.
    Right,
}

/// A change of a document.
///
/// ```
/// use copydesk::ot::{Content, Kind, Op, Side};
///
/// let mut content = Content::create(Kind::TextUnicode, Some("\"ac\""))?;
/// let ours = Op::parse(Kind::TextUnicode, "[1, \"b\"]")?;
/// let theirs = Op::parse(Kind::TextUnicode, "[2, \"!\"]")?;
/// content.apply(&theirs)?;
/// content.apply(&ours.transform(&theirs, Side::Left)?)?;
/// assert_eq!(content.to_text(), "abc!");
/// # Ok::<(), copydesk::ot::OtError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Of a plain text.
    Text(TextOp),
    /// Of a rich text.
    Rich(Delta),
}

impl Op {
    /// Parses an op from a client.
    ///
    /// # Errors
    /// `Malformed` if it is not an op of the type, or exceeds a limit.
    pub fn parse(kind: Kind, json: &str) -> Result<Self, OtError> {
        Self::parse_from(kind, json, Origin::Client)
    }

    /// Parses an op from the log, without the limits for clients: transforming may have split a component into many, and older
    /// versions accepted larger attributes.
    ///
    /// # Errors
    /// `Malformed` when it is not of the type's form.
    pub fn parse_logged(kind: Kind, json: &str) -> Result<Self, OtError> {
        Self::parse_from(kind, json, Origin::Log)
    }

    fn parse_from(kind: Kind, json: &str, origin: Origin) -> Result<Self, OtError> {
        match kind {
            Kind::TextUnicode => TextOp::parse(json, origin).map(Self::Text),
            Kind::RichText => Delta::parse(json, origin).map(Self::Rich),
        }
    }

    /// The op that changes nothing.
    #[must_use]
    pub fn noop(kind: Kind) -> Self {
        match kind {
            Kind::TextUnicode => Self::Text(TextOp::default()),
            Kind::RichText => Self::Rich(Delta::default()),
        }
    }

    /// The kind of document it changes.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Text(_) => Kind::TextUnicode,
            Self::Rich(_) => Kind::RichText,
        }
    }

    /// Writes it as the JSON that clients read.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(op) => op.write_json(out),
            Self::Rich(op) => op.write_json(out),
        }
    }

    /// Transforms this op, made on the same content as `other`, so that it applies after `other`.
    ///
    /// # Errors
    /// When the kinds differ, or the outcome exceeds [`CONTENT_BYTES_MAX`](super::CONTENT_BYTES_MAX).
    pub fn transform(&self, other: &Self, side: Side) -> Result<Self, OtError> {
        self.transform_within(other, side, &mut Budget::default())
    }

    /// As [`transform`](Self::transform), within `budget`.
    ///
    /// # Errors
    /// When the kinds differ; `TooLarge` when `budget` is used up.
    pub fn transform_within(
        &self,
        other: &Self,
        side: Side,
        budget: &mut Budget,
    ) -> Result<Self, OtError> {
        match (self, other) {
            (Self::Text(op), Self::Text(other)) => {
                op.transform(other, side, budget).map(Self::Text)
            }
            (Self::Rich(op), Self::Rich(other)) => {
                op.transform(other, side, budget).map(Self::Rich)
            }
            (Self::Text(_), Self::Rich(_)) | (Self::Rich(_), Self::Text(_)) => {
                Err(OtError::KindsDiffer)
            }
        }
    }

    /// One op that does what this one and then `next` do. Never transform over a composed history: the results differ.
    ///
    /// # Errors
    /// When the kinds differ, `next` cuts a surrogate pair that this op inserts, or the outcome exceeds
    /// [`CONTENT_BYTES_MAX`](super::CONTENT_BYTES_MAX).
    pub fn compose(&self, next: &Self) -> Result<Self, OtError> {
        self.compose_within(next, &mut Budget::default())
    }

    /// As [`compose`](Self::compose), within `budget`.
    ///
    /// # Errors
    /// As [`compose`](Self::compose); `TooLarge` when `budget` is used up.
    pub fn compose_within(&self, next: &Self, budget: &mut Budget) -> Result<Self, OtError> {
        match (self, next) {
            (Self::Text(op), Self::Text(next)) => op.compose(next, budget).map(Self::Text),
            (Self::Rich(op), Self::Rich(next)) => op.compose(next, budget).map(Self::Rich),
            (Self::Text(_), Self::Rich(_)) | (Self::Rich(_), Self::Text(_)) => {
                Err(OtError::KindsDiffer)
            }
        }
    }

    /// The op that undoes this one, which applies to `content`.
    ///
    /// # Errors
    /// When the kinds differ or it does not apply.
    pub fn invert(&self, content: &Content) -> Result<Self, OtError> {
        match (self, content) {
            (Self::Text(op), Content::Text(text)) => text.invert(op).map(Self::Text),
            (Self::Rich(op), Content::Rich(rich)) => rich.invert(op).map(Self::Rich),
            (Self::Text(_), Content::Rich(_)) | (Self::Rich(_), Content::Text(_)) => {
                Err(OtError::KindsDiffer)
            }
        }
    }

    /// The position of a cursor after the op; `own` if the cursor's user made the op.
    #[must_use]
    pub fn transform_position(&self, position: u64, own: bool) -> u64 {
        match self {
            Self::Text(op) => op.transform_position(position),
            Self::Rich(op) => op.transform_position(position, own),
        }
    }

    /// The same op without attributes. The resulting text is the same.
    #[must_use]
    pub fn without_attributes(&self) -> Self {
        match self {
            Self::Text(op) => Self::Text(op.clone()),
            Self::Rich(op) => Self::Rich(op.without_attributes()),
        }
    }

    /// Returns true if it changes nothing.
    #[must_use]
    pub fn is_noop(&self) -> bool {
        match self {
            Self::Text(op) => op.is_noop(),
            Self::Rich(op) => op.is_noop(),
        }
    }

    /// Approximate size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Text(op) => op.size(),
            Self::Rich(op) => op.size(),
        }
    }
}

/// Transforms the position of a presence by `op`; `own` if the same user made the op.
///
/// # Errors
/// If the type has no presence, or the value is not a presence of the type. The value is unchanged then.
pub fn transform_presence(
    kind: Kind,
    value: &mut Value,
    op: &Op,
    own: bool,
) -> Result<(), OtError> {
    match (kind, op) {
        (Kind::RichText, Op::Rich(op)) => rich_text::transform_presence(value, op, own),
        (Kind::TextUnicode, Op::Text(_)) => Err(OtError::NoPresence),
        (Kind::RichText, Op::Text(_)) | (Kind::TextUnicode, Op::Rich(_)) => {
            Err(OtError::KindsDiffer)
        }
    }
}

/// The content of a document. Cloning takes constant time; an edit costs as much as the op, and not as the document.
///
/// ```
/// use copydesk::ot::{Content, Kind, Op};
///
/// let mut content = Content::create(Kind::RichText, Some(r#"[{"insert": "Hello\n"}]"#))?;
/// let bold = Op::parse(Kind::RichText, r#"[{"retain": 5, "attributes": {"bold": true}}]"#)?;
/// let undo = bold.invert(&content)?;
/// content.apply(&bold)?;
/// content.apply(&undo)?;
/// assert_eq!(content.to_text(), "Hello\n");
/// # Ok::<(), copydesk::ot::OtError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Plain text.
    Text(TextContent),
    /// Rich text.
    Rich(RichContent),
}

impl Content {
    /// The content of a new document with this data, as a client sends it.
    ///
    /// # Errors
    /// `BadData` when the type does not take it or it is beyond the bounds of an op.
    pub fn create(kind: Kind, data: Option<&str>) -> Result<Self, OtError> {
        Self::read(kind, data, Origin::Client)
    }

    /// The content that the store holds: without the bounds on what clients send, but within
    /// [`CONTENT_BYTES_MAX`](super::CONTENT_BYTES_MAX), which is checked while it is read.
    ///
    /// # Errors
    /// `BadData` when the type does not take it; `TooLarge` when it is beyond that bound.
    pub fn create_logged(kind: Kind, data: &str) -> Result<Self, OtError> {
        Self::read(kind, Some(data), Origin::Log)
    }

    fn read(kind: Kind, data: Option<&str>, origin: Origin) -> Result<Self, OtError> {
        match kind {
            Kind::TextUnicode => TextContent::create(data).map(Self::Text),
            Kind::RichText => RichContent::create(data, origin).map(Self::Rich),
        }
    }

    /// The kind of document it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Text(_) => Kind::TextUnicode,
            Self::Rich(_) => Kind::RichText,
        }
    }

    /// Applies `op`. The content is unchanged if it fails.
    ///
    /// # Errors
    /// When the kinds differ, the op reaches beyond the end or it cuts a surrogate pair; `TooLarge` when the outcome would
    /// exceed [`CONTENT_BYTES_MAX`](super::CONTENT_BYTES_MAX).
    pub fn apply(&mut self, op: &Op) -> Result<(), OtError> {
        self.apply_within(op, &ContentBounds::LOGGED)
    }

    /// As [`apply`](Self::apply), within `bounds`, which are checked before anything is allocated beyond them.
    ///
    /// # Errors
    /// As [`apply`](Self::apply); `TooLarge` when the outcome is out of `bounds`.
    pub fn apply_within(&mut self, op: &Op, bounds: &ContentBounds) -> Result<(), OtError> {
        match (self, op) {
            (Self::Text(text), Op::Text(op)) => text.apply(op, bounds),
            (Self::Rich(rich), Op::Rich(op)) => rich.apply(op, bounds),
            (Self::Text(_), Op::Rich(_)) | (Self::Rich(_), Op::Text(_)) => {
                Err(OtError::KindsDiffer)
            }
        }
    }

    /// Replaces a retain over a final newline that Quill shows and the content does not have by an insert of that newline.
    /// `None` if `op` needs no change.
    #[must_use]
    pub fn with_final_newline(&self, op: &Op, newline: Newline) -> Option<Op> {
        match (self, op) {
            (Self::Rich(rich), Op::Rich(op)) => rich.with_final_newline(op, newline).map(Op::Rich),
            _ => None,
        }
    }

    /// Writes the content as the data of a snapshot.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => text.write_json(out),
            Self::Rich(rich) => rich.write_json(out),
        }
    }

    /// Approximate size in bytes as JSON.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.size_bytes(),
            Self::Rich(rich) => rich.size_bytes(),
        }
    }

    /// Its length in the kind's own unit.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Text(text) => text.len(),
            Self::Rich(rich) => rich.len(),
        }
    }

    /// Returns true if the content is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The plain text, without embeds.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Text(text) => text.to_text(),
            Self::Rich(rich) => rich.to_text(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_a_name_and_a_uri() {
        for kind in Kind::ALL {
            assert_eq!(
                (Kind::parse(kind.name()), Kind::parse(kind.uri())),
                (Some(kind), Some(kind))
            );
        }
        assert_eq!(Kind::parse("json0"), None);
    }

    #[test]
    fn ops_and_contents_go_to_other_threads() {
        fn shared<T: Send + Sync + Clone + 'static>() {}
        shared::<Op>();
        shared::<Content>();
    }

    #[test]
    fn kinds_do_not_mix() {
        let [text, rich] = Kind::ALL.map(Op::noop);
        let mut content = Content::create(Kind::RichText, None).unwrap();
        assert_eq!(text.transform(&rich, Side::Left), Err(OtError::KindsDiffer));
        assert_eq!(rich.compose(&text), Err(OtError::KindsDiffer));
        assert_eq!(text.invert(&content), Err(OtError::KindsDiffer));
        assert_eq!(content.apply(&text), Err(OtError::KindsDiffer));
        assert!(text.is_noop() && rich.is_noop());
    }
}
