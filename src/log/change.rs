//! The effect of an entry, and its stored form.

use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::ot::{Content, Kind, Op, OtError};

/// The effect of an entry on the document.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Creates the document with this content.
    Create(Content),
    /// Edits the content.
    Edit(Op),
    /// Deletes the document. Its revisions go on counting.
    Delete,
    /// No effect: the submit's effect had already been committed.
    Nothing,
}

impl Change {
    /// Approximate size in bytes, for bounds.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Create(content) => content.size_bytes(),
            Self::Edit(op) => op.size(),
            Self::Delete | Self::Nothing => 0,
        }
    }

    /// The stored form: a letter for the kind of change, then its JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        match self {
            Self::Create(content) => {
                out.push(b'C');
                write_content(content, &mut out);
            }
            Self::Edit(op) => {
                out.push(match op.kind() {
                    Kind::TextUnicode => b'T',
                    Kind::RichText => b'R',
                });
                op.write_json(&mut out);
            }
            Self::Delete => out.push(b'D'),
            Self::Nothing => out.push(b'N'),
        }
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When the bytes are not what [`Change::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (tag, json) = bytes
            .split_first()
            .ok_or(DecodeError::Form("an empty change"))?;
        let json = || std::str::from_utf8(json).map_err(|_| DecodeError::Form("not UTF-8"));
        match tag {
            b'C' => Ok(Self::Create(read_content(json()?)?)),
            b'T' => Ok(Self::Edit(Op::parse_logged(Kind::TextUnicode, json()?)?)),
            b'R' => Ok(Self::Edit(Op::parse_logged(Kind::RichText, json()?)?)),
            b'D' => Ok(Self::Delete),
            b'N' => Ok(Self::Nothing),
            _ => Err(DecodeError::Form("an unknown kind of change")),
        }
    }
}

/// Stored bytes cannot be decoded.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// The bytes do not have the stored form.
    #[error("stored bytes: {0}")]
    Form(&'static str),
    /// The JSON in them is invalid.
    #[error("stored JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The op or content in them is invalid.
    #[error("stored op: {0}")]
    Ot(#[from] OtError),
}

#[derive(Deserialize)]
struct StoredContent<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Writes `{"type":uri,"data":json}`: a create's form in the log and on the wire.
pub fn write_content(content: &Content, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(content.kind().uri().as_bytes());
    out.extend_from_slice(b"\",\"data\":");
    content.write_json(out);
    out.push(b'}');
}

pub(super) fn read_content(json: &str) -> Result<Content, DecodeError> {
    let stored: StoredContent<'_> = serde_json::from_str(json)?;
    let kind = Kind::parse(stored.r#type).ok_or(DecodeError::Form("an unknown type"))?;
    Ok(Content::create_logged(kind, stored.data.get())?)
}
