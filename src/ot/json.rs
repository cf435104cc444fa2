//! JSON as JavaScript writes it: strings, counts, and values in one canonical form, so that equal values are equal texts.
//!
//! In canonical form keys are sorted, numbers are printed as `JSON.stringify` prints them, there is no white space, and
//! only characters are escaped that must be.

use std::borrow::Cow;

use serde::de::{Deserializer, Error, Visitor};
use serde_json::value::RawValue;

use super::error::{COUNT_MAX, COUNT_NOT_WHOLE, COUNT_TOO_LARGE, DEPTH_MAX};

/// Writes `text` as a JSON string.
pub(super) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    write_escaped(out, text);
    out.push(b'"');
}

/// Writes the inside of a JSON string.
pub(super) fn write_escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut written = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[written..at]);
        written = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let (high, low) = (
                    HEX[usize::from(control >> 4)],
                    HEX[usize::from(control & 15)],
                );
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
    }
    out.extend_from_slice(&bytes[written..]);
}

/// The canonical form of an object, except that its own members keep their order. Also returns their keys.
pub(super) fn members_as_sent(
    raw: &str,
    members_max: usize,
) -> Result<(String, Vec<Cow<'_, str>>), &'static str> {
    let members_left = members_max;
    let mut reader = Reader {
        raw,
        at: 0,
        members_left,
    };
    let members = reader.members(1)?;
    let mut out = Vec::with_capacity(raw.len());
    write_members(&mut out, &members);
    let mut keys: Vec<_> = members.into_iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    if keys.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(KEY_TWICE);
    }
    let value = String::from_utf8(out).map_err(|_| NOT_SOUND)?;
    Ok((value, keys))
}

/// The number of bytes that [`write_escaped`] adds to `text`.
pub(super) fn escapes_len(text: &str) -> usize {
    let extra = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
        0..0x20 => 5,
        _ => 0,
    };
    text.bytes().map(extra).sum()
}

/// Writes a count.
pub(super) fn write_count(out: &mut Vec<u8>, mut count: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (count % 10) as u8;
        count /= 10;
        if count == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Reads a string literal; `None` if it is not one or has half a surrogate pair.
pub(super) fn read_string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// Reads a count, a whole number from 1 to [`COUNT_MAX`]. The error is `else_flaw` if it is not a positive number.
pub(super) fn read_count(raw: &str, else_flaw: &'static str) -> Result<u64, &'static str> {
    if let Ok(count) = raw.parse::<u64>() {
        return check_count(count, else_flaw);
    }
    match raw.parse::<f64>() {
        Ok(number) if is_number(raw) => whole_count(number, else_flaw),
        _ => Err(else_flaw),
    }
}

/// Checks a count that is already a number.
pub(super) fn check_count(count: u64, else_flaw: &'static str) -> Result<u64, &'static str> {
    match count {
        0 => Err(else_flaw),
        1..=COUNT_MAX => Ok(count),
        _ => Err(COUNT_TOO_LARGE),
    }
}

/// Checks a count that was written as a fraction or with an exponent. `5.0` is JavaScript's 5.
pub(super) fn whole_count(number: f64, else_flaw: &'static str) -> Result<u64, &'static str> {
    if number.is_nan() || number <= 0.0 {
        return Err(else_flaw);
    }
    if number > COUNT_MAX as f64 {
        return Err(COUNT_TOO_LARGE);
    }
    if number.fract() != 0.0 {
        return Err(COUNT_NOT_WHOLE);
    }
    Ok(number as u64)
}

fn is_number(raw: &str) -> bool {
    raw.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

/// A value as it was sent, `null` included. Its JSON syntax has been checked.
pub(super) fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    serde::Deserialize::deserialize(deserializer).map(Some)
}

/// Skips the rest after an error, so that the error is reported and not the position of the parser.
pub(super) fn skip_rest<'de, A: serde::de::SeqAccess<'de>>(mut seq: A) -> Result<(), A::Error> {
    while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
    Ok(())
}

/// A map's key without a copy where it has no escapes.
pub(super) struct Key<'de>(pub(super) Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }
            fn visit_str<E: Error>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// The canonical form of `raw`, whose syntax has been checked. It may have at most `members_max` members in total.
pub(super) fn canonical(raw: &str, members_max: usize) -> Result<String, &'static str> {
    let members_left = members_max;
    let mut reader = Reader {
        raw,
        at: 0,
        members_left,
    };
    let mut out = Vec::with_capacity(raw.len());
    reader.value(&mut out, 0)?;
    String::from_utf8(out).map_err(|_| NOT_SOUND)
}

const TOO_MANY_MEMBERS: &str = "Values must have at most 10000 members";

const NOT_SOUND: &str = "Values must be sound JSON";

const KEY_TWICE: &str = "Keys must not be given twice";

/// Keys, and values as canonical JSON.
type Members<'a> = Vec<(Cow<'a, str>, Vec<u8>)>;

fn write_members(out: &mut Vec<u8>, members: &Members<'_>) {
    for (at, (key, value)) in members.iter().enumerate() {
        out.push(if at == 0 { b'{' } else { b',' });
        write_string(out, key);
        out.push(b':');
        out.extend_from_slice(value);
    }
    out.extend_from_slice(if members.is_empty() { b"{}" } else { b"}" });
}

/// Walks JSON whose syntax has been checked.
struct Reader<'a> {
    raw: &'a str,
    at: usize,
    /// Number of further members that objects and arrays may have.
    members_left: usize,
}

impl<'a> Reader<'a> {
    /// Counts a member of an object or array.
    fn member(&mut self) -> Result<(), &'static str> {
        self.members_left = self.members_left.checked_sub(1).ok_or(TOO_MANY_MEMBERS)?;
        Ok(())
    }

    fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), &'static str> {
        match self.peek() {
            Some(b'{' | b'[') if depth == DEPTH_MAX => {
                Err("Values must not be nested deeper than 100")
            }
            Some(b'{') => self.object(out, depth + 1),
            Some(b'[') => self.array(out, depth + 1),
            Some(b'"') => {
                write_string(out, &self.string()?);
                Ok(())
            }
            Some(b'-' | b'0'..=b'9') => write_number(out, self.word()),
            Some(b't' | b'f' | b'n') => {
                out.extend_from_slice(self.word().as_bytes());
                Ok(())
            }
            _ => Err(NOT_SOUND),
        }
    }

    fn object(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), &'static str> {
        let mut members = self.members(depth)?;
        members.sort_by(|(a, _), (b, _)| a.cmp(b));
        if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(KEY_TWICE);
        }
        write_members(out, &members);
        Ok(())
    }

    /// The members of the object that comes next, as they were sent.
    fn members(&mut self, depth: usize) -> Result<Members<'a>, &'static str> {
        let mut members = Vec::new();
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'}') => break,
                Some(b',') => self.at += 1,
                Some(b'"') => {
                    self.member()?;
                    let key = self.string()?;
                    // As a key it would reach what every JavaScript object inherits.
                    if key == "__proto__" {
                        return Err(RESERVED_NAME);
                    }
                    if self.peek() != Some(b':') {
                        return Err(NOT_SOUND);
                    }
                    self.at += 1;
                    let mut value = Vec::new();
                    self.value(&mut value, depth)?;
                    members.push((key, value));
                }
                _ => return Err(NOT_SOUND),
            }
        }
        self.at += 1;
        Ok(members)
    }

    fn array(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), &'static str> {
        out.push(b'[');
        self.at += 1;
        loop {
            match self.peek() {
                Some(b']') => break,
                Some(b',') => {
                    self.at += 1;
                    out.push(b',');
                }
                _ => {
                    self.member()?;
                    self.value(out, depth)?;
                }
            }
        }
        self.at += 1;
        out.push(b']');
        Ok(())
    }

    fn string(&mut self) -> Result<Cow<'a, str>, &'static str> {
        let start = self.at;
        let bytes = self.raw.as_bytes();
        let mut at = start + 1;
        while *bytes.get(at).ok_or(NOT_SOUND)? != b'"' {
            at += if bytes[at] == b'\\' { 2 } else { 1 };
        }
        self.at = at + 1;
        read_string(&self.raw[start..self.at]).ok_or(LONE_SURROGATE)
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) -> &'a str {
        let rest = &self.raw[self.at..];
        let word = &rest[..rest
            .find([',', ']', '}', ' ', '\t', '\n', '\r'])
            .unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.raw.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }
}

pub(super) const LONE_SURROGATE: &str = "Strings must not hold half a surrogate pair";

pub(super) const RESERVED_NAME: &str = "Names must not be properties of Object.prototype";

/// The properties of `Object.prototype`: a look-up of one in a plain object finds the inherited property.
pub(super) const RESERVED: [&str; 12] = [
    "__proto__",
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
];

/// Writes the number literal `raw` as JavaScript prints it after reading it (ECMAScript's Number::toString).
fn write_number(out: &mut Vec<u8>, raw: &str) -> Result<(), &'static str> {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    if digits.len() <= 15 && digits != "0" && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        out.extend_from_slice(raw.as_bytes());
        return Ok(());
    }
    let number: f64 = raw.parse().map_err(|_| NOT_SOUND)?;
    if !number.is_finite() {
        return Err("Numbers must be finite");
    }
    let mut buffer = ryu_js::Buffer::new();
    out.extend_from_slice(buffer.format_finite(number).as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The right column is what Node prints for `JSON.stringify(JSON.parse(left))`.
    #[test]
    fn numbers_are_written_as_javascript_writes_them() {
        let table = [
            ("0", "0"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("1.0", "1"),
            ("-1.50", "-1.5"),
            ("1e3", "1000"),
            ("123456789012345", "123456789012345"),
            ("9007199254740991", "9007199254740991"),
            ("9007199254740993", "9007199254740992"),
            ("123456789012345678901234567890", "1.2345678901234568e+29"),
            ("1e20", "100000000000000000000"),
            ("1e21", "1e+21"),
            ("-1.5e300", "-1.5e+300"),
            ("0.1", "0.1"),
            ("0.000001", "0.000001"),
            ("0.0000001", "1e-7"),
            ("-1.5e-7", "-1.5e-7"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("0.30000000000000004", "0.30000000000000004"),
            ("100.25", "100.25"),
            ("1e-400", "0"),
            ("1150099217760634.3", "1150099217760634.2"),
        ];
        for (raw, expected) in table {
            assert_eq!(canonical(raw, 100).as_deref(), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn equal_values_are_equal_texts() {
        let table = [
            (
                r#" { "b" : [ 1.0 , true ] , "a" : null } "#,
                r#"{"a":null,"b":[1,true]}"#,
            ),
            (
                r#"{"\u0062":"\u00e9\ud83d\ude00","a":"\/"}"#,
                r#"{"a":"/","b":"é😀"}"#,
            ),
            (
                r#""\u001f\b\f\n\r\t\"\\\u007f\u2028""#,
                "\"\\u001f\\b\\f\\n\\r\\t\\\"\\\\\u{7f}\u{2028}\"",
            ),
            ("[]", "[]"),
            ("{}", "{}"),
            ("[[],{},\"\"]", "[[],{},\"\"]"),
        ];
        for (raw, expected) in table {
            assert_eq!(canonical(raw.trim(), 100).as_deref(), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn values_that_peers_could_not_hold_are_refused() {
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(canonical(&deep(DEPTH_MAX), 100).is_ok());
        let too_deep = deep(DEPTH_MAX + 1);
        for raw in [
            "1e400",
            r#""\ud800""#,
            r#"{"\udc00":1}"#,
            r#"{"a":{"__proto__":1}}"#,
            r#"{"a":1,"\u0061":2}"#,
            &too_deep,
        ] {
            assert!(canonical(raw, 100).is_err(), "{raw}");
        }
    }

    #[test]
    fn counts_are_whole_and_positive() {
        for (raw, expected) in [
            ("1", Some(1)),
            ("2147483648", Some(COUNT_MAX)),
            ("5.0", Some(5)),
            ("1e2", Some(100)),
        ] {
            assert_eq!(read_count(raw, "").ok(), expected, "{raw}");
        }
        for raw in [
            "0",
            "-1",
            "2147483649",
            "1.5",
            "1e300",
            "1e400",
            "-0",
            "0.0",
            "true",
            "null",
            "\"1\"",
            "{}",
            "[1]",
            "inf",
            "nan",
        ] {
            assert!(read_count(raw, "").is_err(), "{raw}");
        }
    }
}
