//! A message that is too large to be held in memory: its small members, which its error reply repeats.

use bytes::Bytes;

use super::refusal::{Code, Refusal};
use super::reply;
use super::request::echo_of;

/// The small members of a JSON object that is read byte by byte and not kept: `a`, `c`, `d`, `seq` and others, in any order.
/// Takes at most about 20 KiB for any input.
#[derive(Debug, Default)]
pub struct OversizedMessage {
    /// The members that are complete, as an object without its closing brace.
    kept: Vec<u8>,
    /// The member that is being read.
    member: Vec<u8>,
    /// The current member is too long to be kept.
    is_long: bool,
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

/// The longest member that is kept: a name of the maximum length, with every character escaped.
const MEMBER_BYTES_MAX: usize = 3_200;

/// The most bytes of all members that are kept.
const KEPT_BYTES_MAX: usize = 16 << 10;

impl OversizedMessage {
    /// Reads the next bytes of the object.
    pub fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.read_one(*byte);
        }
    }

    fn read_one(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return self.keep(byte);
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => {
                self.depth += 1;
                if self.depth == 1 {
                    return;
                }
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    return self.end_member();
                }
            }
            b',' if self.depth == 1 => return self.end_member(),
            _ => {}
        }
        self.keep(byte);
    }

    fn keep(&mut self, byte: u8) {
        self.is_long |= self.member.len() >= MEMBER_BYTES_MAX;
        if !self.is_long {
            self.member.push(byte);
        }
    }

    fn end_member(&mut self) {
        let has_room = self.kept.len() + self.member.len() < KEPT_BYTES_MAX;
        if has_room && !self.is_long && !self.member.is_empty() {
            let separator = if self.kept.is_empty() { b'{' } else { b',' };
            self.kept.push(separator);
            self.kept.append(&mut self.member);
        }
        self.member.clear();
        self.is_long = false;
    }

    /// The frame that rejects the message with `ERR_TOO_LARGE`; `None` if its members do not identify a request.
    #[must_use]
    pub fn error_frame(mut self, bytes_max: usize) -> Option<Bytes> {
        self.kept.push(b'}');
        let echo = echo_of(std::str::from_utf8(&self.kept).ok()?)?;
        let message = format!("A message has at most {bytes_max} bytes");
        Some(reply::error(&echo, &Refusal::new(Code::TooLarge, message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> Option<String> {
        let mut members = OversizedMessage::default();
        json.as_bytes().chunks(7).for_each(|it| members.read(it));
        assert!(members.kept.len() + members.member.len() <= KEPT_BYTES_MAX + MEMBER_BYTES_MAX);
        let frame = members.error_frame(1_000)?;
        let start = frame.iter().position(|byte| *byte == b'{')?;
        Some(String::from_utf8_lossy(&frame[start..]).into_owned())
    }

    #[test]
    fn error_of_an_oversized_op_repeats_its_small_members_in_any_order() {
        let text = r#"x\"}],\\"#.repeat(10_000);
        let names = r#""a":"op","c":"docs","d":"a \"b\", c","v":3,"seq":2"#;
        let op = format!(r#""op":[{{"insert":"{text}"}}, 5]"#);
        let x = r#""x": {"deep":[1,{"a":"f"}]}"#;
        for json in [
            format!("{{{names},{x},{op}}}"),
            format!("{{{op},{names}}}"),
            format!(" {{ {op} , {names} , {x} }} "),
        ] {
            let expected = r#"{"a":"op","c":"docs","d":"a \"b\", c","seq":2,"v":3,"error":{"code":"ERR_TOO_LARGE","message":"A message has at most 1000 bytes"}}"#;
            assert_eq!(refused(&json).as_deref(), Some(expected));
        }
    }

    #[test]
    fn oversized_input_that_is_no_request_gets_no_error_frame() {
        let long = "x".repeat(50_000);
        for json in [
            long.clone(),
            format!("[\"{long}\"]"),
            format!("{{\"d\":\"{long}\"}}"),
            format!("{{\"a\":\"op\",\"a\":\"f\",\"d\":\"{long}\"}}"),
            "{".repeat(50_000),
            "}".repeat(50_000),
        ] {
            assert!(refused(&json).is_none(), "{}", &json[..20.min(json.len())]);
        }
    }
}
