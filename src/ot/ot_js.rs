//! Plain-text edits in the form of ot.js (`[5,"abc",-2]`: retain, insert, delete), over the crate `operational-transform`.
//!
//! Edits over HTTP (`POST …/text-ops`) come and are answered in this form. It is also the second oracle of the property
//! tests. The form has an insert before a delete at the same place, so it cannot represent every op of a socket, but every
//! edit converts to a [`TextOp`]. The crate does not terminate on lengths that overflow, so lengths are checked before.

use operational_transform::{Operation, OperationSeq};

use super::error::{COMPONENTS_MAX, COUNT_MAX, OtError, TOO_LONG, TOO_MANY};
use super::json::{write_count, write_string};
use super::text::{Component, Piece, TextOp};
use super::{Content, Op};

/// An edit of a whole plain text, in code points.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Edit {
    sequence: OperationSeq,
}

impl Edit {
    /// Parses `[5,"abc",-2]`.
    ///
    /// # Errors
    /// `Malformed` if it is anything else, or exceeds a limit.
    pub fn parse(json: &str) -> Result<Self, OtError> {
        let sent: Vec<OtJsComponent> = serde_json::from_str(json)
            .map_err(|_| OtError::Malformed("The edit must be an array of numbers and strings"))?;
        if sent.len() > COMPONENTS_MAX {
            return Err(OtError::Malformed(TOO_MANY));
        }
        let mut edit = Self::default();
        for component in sent {
            match component {
                OtJsComponent::Count(count) if count == 0 || count.unsigned_abs() > COUNT_MAX => {
                    return Err(OtError::Malformed("Counts must be from 1 to 2147483648"));
                }
                OtJsComponent::Count(count) if count > 0 => {
                    edit.sequence.retain(count.unsigned_abs())
                }
                OtJsComponent::Count(count) => edit.sequence.delete(count.unsigned_abs()),
                OtJsComponent::Text(text) if text.is_empty() => {
                    return Err(OtError::Malformed("Inserts cannot be empty"));
                }
                OtJsComponent::Text(text) => edit.sequence.insert(&text),
            }
        }
        Ok(edit)
    }

    /// The edit that `op` makes on a text of this length.
    ///
    /// # Errors
    /// If `op` is made on a longer text.
    pub fn from_text_op(op: &TextOp, len: u64) -> Result<Self, OtError> {
        let rest = len.checked_sub(op.base_len()).ok_or(TOO_LONG)?;
        let mut edit = Self::of_shortest_text(op);
        edit.sequence.retain(rest);
        Ok(edit)
    }

    /// The edit that `op` makes on the shortest text that it applies to: without the retain of the rest.
    #[must_use]
    pub fn of_shortest_text(op: &TextOp) -> Self {
        let mut edit = Self::default();
        for component in op.components() {
            match component {
                Component::Keep(len) => edit.sequence.retain(*len),
                Component::Insert { text, .. } => edit.sequence.insert(text),
                Component::Delete { len, .. } => edit.sequence.delete(*len),
            }
        }
        edit
    }

    /// The same edit as an op of the document type.
    #[must_use]
    pub fn to_text_op(&self) -> TextOp {
        let mut op = TextOp::default();
        for component in self.sequence.ops() {
            match component {
                Operation::Retain(len) => op.push(Piece::Keep(*len)),
                Operation::Insert(text) => op.push(Piece::Insert {
                    text,
                    len: text.chars().count() as u64,
                }),
                Operation::Delete(len) => op.push(Piece::Delete {
                    len: *len,
                    text: None,
                }),
            }
        }
        op.trim()
    }

    /// The length of the text before the edit.
    #[must_use]
    pub fn base_len(&self) -> u64 {
        self.sequence.base_len() as u64
    }

    /// The length of the text after the edit.
    #[must_use]
    pub fn target_len(&self) -> u64 {
        self.sequence.target_len() as u64
    }

    /// Applies it to a plain text. The content is unchanged if it fails.
    ///
    /// # Errors
    /// If the text has another length, or the content is not a plain text.
    pub fn apply(&self, content: &mut Content) -> Result<(), OtError> {
        self.fits(content)?;
        content.apply(&Op::Text(self.to_text_op()))
    }

    /// The edit that undoes this one, which applies to `content`.
    ///
    /// # Errors
    /// If the text has another length, or the content is not a plain text.
    pub fn invert(&self, content: &Content) -> Result<Self, OtError> {
        self.fits(content)?;
        Ok(Self {
            sequence: self.sequence.invert(&content.to_text()),
        })
    }

    /// Composes this edit and then `next` into one. In the worst case the time is the product of their lengths.
    ///
    /// # Errors
    /// If `next` is made on a text of another length than this edit's result.
    pub fn compose(&self, next: &Self) -> Result<Self, OtError> {
        let sequence = self
            .sequence
            .compose(&next.sequence)
            .map_err(|_| OTHER_LENGTH)?;
        Ok(Self { sequence })
    }

    /// Transforms two edits of the same text so that each applies after the other. At the same position this edit's insert is
    /// first.
    ///
    /// # Errors
    /// If they are made on texts of different lengths.
    pub fn transform(&self, other: &Self) -> Result<(Self, Self), OtError> {
        let (own, theirs) = self
            .sequence
            .transform(&other.sequence)
            .map_err(|_| OTHER_LENGTH)?;
        Ok((Self { sequence: own }, Self { sequence: theirs }))
    }

    /// Writes it as JSON.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (at, component) in self.sequence.ops().iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            match component {
                Operation::Retain(len) => write_count(out, *len),
                Operation::Insert(text) => write_string(out, text),
                Operation::Delete(len) => {
                    out.push(b'-');
                    write_count(out, *len);
                }
            }
        }
        out.push(b']');
    }

    fn fits(&self, content: &Content) -> Result<(), OtError> {
        match content {
            Content::Rich(_) => Err(OtError::KindsDiffer),
            Content::Text(_) if content.len() != self.base_len() => Err(OTHER_LENGTH),
            Content::Text(_) => Ok(()),
        }
    }
}

/// A component as it was sent.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum OtJsComponent {
    Count(i64),
    Text(String),
}

const OTHER_LENGTH: OtError = OtError::NotApplied("The edit is made on a text of another length");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ot::Kind;

    fn written(edit: &Edit) -> String {
        let mut out = Vec::new();
        edit.write_json(&mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn edits_apply_and_are_undone() {
        let mut content = Content::create(Kind::TextUnicode, Some(r#""a😀bcdef""#)).unwrap();
        let before = content.clone();
        let edit = Edit::parse(r#"[2,"xyz",-2,3]"#).unwrap();
        let inverse = edit.invert(&content).unwrap();
        edit.apply(&mut content).unwrap();
        assert_eq!(
            (
                content.to_text().as_str(),
                edit.base_len(),
                edit.target_len()
            ),
            ("a😀xyzdef", 7, 8)
        );
        assert_eq!(written(&inverse), r#"[2,"bc",-3,3]"#);
        inverse.apply(&mut content).unwrap();
        assert!(content == before);
    }

    #[test]
    fn lengths_that_overflow_in_the_crate_are_rejected_before() {
        let many = format!("[{}1]", "1,".repeat(COMPONENTS_MAX));
        let table = [
            "[-9223372036854775808,9223372036854775812]",
            r#"[18446744073709551615,"x",5]"#,
            "[2147483649]",
            "[-2147483649]",
            "[0]",
            "[1.5]",
            r#"[""]"#,
            r#"["\ud800"]"#,
            "[null]",
            "{}",
            "5",
            "",
            &many,
        ];
        for json in table {
            assert!(
                matches!(Edit::parse(json), Err(OtError::Malformed(_))),
                "{json}"
            );
        }
        let mut content = Content::create(Kind::TextUnicode, Some(r#""abc""#)).unwrap();
        let huge = Edit::parse("[2147483648,-2147483648]").unwrap();
        assert!(huge.apply(&mut content).is_err() && huge.invert(&content).is_err());
        let mut rich = Content::create(Kind::RichText, None).unwrap();
        assert_eq!(Edit::default().apply(&mut rich), Err(OtError::KindsDiffer));
    }

    #[test]
    fn lengths_must_meet() {
        let edit = |json| Edit::parse(json).unwrap();
        assert_eq!(
            written(&edit("[3,\"a\"]").compose(&edit("[4,\"b\"]")).unwrap()),
            "[3,\"ab\"]"
        );
        assert_eq!(edit("[3]").compose(&edit("[4]")), Err(OTHER_LENGTH));
        assert_eq!(edit("[3]").transform(&edit("[4]")), Err(OTHER_LENGTH));
        let (own, theirs) = edit("[\"a\",2]").transform(&edit("[\"b\",2]")).unwrap();
        assert_eq!(
            (written(&own).as_str(), written(&theirs).as_str()),
            ("[\"a\",3]", "[1,\"b\",2]")
        );
    }
}
