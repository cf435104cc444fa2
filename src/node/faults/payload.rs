//! The payload of a dead letter: the change as JSON, within a bound that is checked before the JSON is made.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::doc::Proposal;
use crate::log::Change;
use crate::ot::Content;
use crate::store::DETAIL_BYTES_MAX;

/// A payload, and the size that it has as a whole.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Payload {
    pub(super) json: String,
    pub(super) bytes: u64,
}

impl Payload {
    /// The payload of a submit. An edit is cut off behind `bytes_max`; of a content that is larger, only the size is kept.
    pub(super) fn of_proposal(proposal: &Proposal, bytes_max: usize) -> Self {
        match proposal {
            Proposal::Edit(json) => Self::of_op(json, bytes_max),
            Proposal::Create(content) => Self::of_content(content, bytes_max),
            Proposal::Delete => Self::cut(r#"{"del":true}"#, bytes_max),
        }
    }

    /// The payload of an entry.
    pub(super) fn of_change(change: &Change, bytes_max: usize) -> Self {
        match change {
            Change::Edit(op) => Self::encode(op.size(), bytes_max, |out| {
                out.extend_from_slice(br#"{"op":"#);
                op.write_json(out);
                out.push(b'}');
            }),
            Change::Create(content) => Self::of_content(content, bytes_max),
            Change::Delete => Self::cut(r#"{"del":true}"#, bytes_max),
            Change::Nothing => Self::cut("{}", bytes_max),
        }
    }

    fn of_op(json: &str, bytes_max: usize) -> Self {
        // No more of the op is copied than is kept.
        let kept = &json[..json.floor_char_boundary(bytes_max)];
        let text = format!(r#"{{"op":{kept}}}"#);
        let bytes = json.len() + r#"{"op":}"#.len();
        let end = if bytes <= bytes_max { bytes } else { bytes_max };
        Self {
            json: text[..text.floor_char_boundary(end)].to_owned(),
            bytes: bytes as u64,
        }
    }

    fn of_content(content: &Content, bytes_max: usize) -> Self {
        Self::encode(content.size_bytes(), bytes_max, |out| {
            let head = format!(r#"{{"create":{{"type":"{}","data":"#, content.kind().uri());
            out.extend_from_slice(head.as_bytes());
            content.write_json(out);
            out.extend_from_slice(b"}}");
        })
    }

    /// Encodes something of about `size` bytes, unless that is too much. What caused a panic may cause another one when it is
    /// encoded; then it is left out.
    fn encode(size: usize, bytes_max: usize, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let left_out = Self {
            json: String::new(),
            bytes: size as u64,
        };
        if size > bytes_max {
            return left_out;
        }
        let mut out = Vec::new();
        match catch_unwind(AssertUnwindSafe(|| write(&mut out))) {
            Ok(()) => Self::cut(&String::from_utf8_lossy(&out), bytes_max),
            Err(_) => left_out,
        }
    }

    fn cut(text: &str, bytes_max: usize) -> Self {
        Self {
            json: text[..text.floor_char_boundary(bytes_max)].to_owned(),
            bytes: text.len() as u64,
        }
    }
}

/// The message of a panic, cut off behind [`DETAIL_BYTES_MAX`].
pub(super) fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&'static str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("the panic has no message");
    text[..text.floor_char_boundary(DETAIL_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ot::Kind;

    fn payload(proposal: &Proposal, bytes_max: usize) -> (String, u64) {
        let Payload { json, bytes } = Payload::of_proposal(proposal, bytes_max);
        (json, bytes)
    }

    #[test]
    fn payload_is_the_change_as_json() {
        let content = Content::create(Kind::TextUnicode, Some(r#""é""#)).unwrap();
        let create = r#"{"create":{"type":"http://sharejs.org/types/text-unicode","data":"é"}}"#;
        for (proposal, expected) in [
            (Proposal::Edit("[3,\"é\"]".into()), "{\"op\":[3,\"é\"]}"),
            (Proposal::Create(content), create),
            (Proposal::Delete, r#"{"del":true}"#),
        ] {
            let bytes = expected.len() as u64;
            assert_eq!(payload(&proposal, 1_000), (expected.to_owned(), bytes));
            assert_eq!(payload(&proposal, expected.len()).0, expected);
        }
    }

    #[test]
    fn payload_is_cut_at_a_character() {
        let edit = Proposal::Edit("[3,\"é\"]".into());
        assert_eq!(payload(&edit, 11), ("{\"op\":[3,\"".to_owned(), 15));
        assert_eq!(payload(&edit, 12), ("{\"op\":[3,\"é".to_owned(), 15));
        assert_eq!(payload(&edit, 0), (String::new(), 15));
        let huge = Proposal::Edit("x".repeat(1 << 20).into());
        let (json, bytes) = payload(&huge, 100);
        assert_eq!((json.len(), bytes), (100, (1 << 20) + 7));
        let content = Content::create(Kind::TextUnicode, Some("\"a long text\"")).unwrap();
        let size = content.size_bytes() as u64;
        assert_eq!(
            payload(&Proposal::Create(content), 5),
            (String::new(), size)
        );
    }

    #[test]
    fn what_panics_when_it_is_encoded_is_left_out() {
        let payload = Payload::encode(3, 10, |_| panic!("encoding"));
        let expected = Payload {
            json: String::new(),
            bytes: 3,
        };
        assert_eq!(payload, expected);
    }

    #[test]
    fn message_of_a_panic_is_bounded() {
        let panics: [(Box<dyn Any + Send>, usize); 3] = [
            (Box::new("short"), 5),
            (Box::new("é".repeat(DETAIL_BYTES_MAX)), DETAIL_BYTES_MAX),
            (Box::new(7), "the panic has no message".len()),
        ];
        for (panic, length) in panics {
            assert_eq!(message_of(&*panic).len(), length);
        }
    }
}
