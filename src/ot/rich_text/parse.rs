//! Deltas from JSON, either as `[..]` or as `{"ops":[..]}`. The npm package checks nothing; this
//! parser rejects ops that would corrupt a document.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::super::error::{
    COMPONENTS_MAX, EMBED_BYTES_MAX, Origin, OtError, TOO_MANY, VALUE_MEMBERS_MAX,
};
use super::super::json::{
    Key, LONE_SURROGATE, RESERVED, RESERVED_NAME, canonical, members_as_sent, present, read_count,
    read_string, skip_rest,
};
use super::attributes::Attributes;
use super::delta::Delta;
use super::units::utf16_len;
use super::walk::Piece;

impl Delta {
    /// Parses an op.
    ///
    /// # Errors
    /// If it is not an op of the type, or exceeds a limit of its origin.
    pub(in crate::ot) fn parse(json: &str, origin: Origin) -> Result<Self, OtError> {
        let mut delta = Self::default();
        read(json, origin, |piece| {
            delta.push_in_order(piece);
            Ok(())
        })?;
        Ok(delta.chop())
    }
}

/// Passes each component of `json` to `see`, except empty inserts: they change nothing, and clients send one to create an
/// empty Quill document.
pub(super) fn read(
    json: &str,
    origin: Origin,
    see: impl FnMut(Piece<'_>) -> Result<(), &'static str>,
) -> Result<(), OtError> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    DeltaVisitor { origin, see }
        .deserialize(&mut deserializer)
        .and_then(|read| deserializer.end().map(|()| read))
        .map_err(|_| {
            OtError::Malformed(
                "The op must be an array of components, each with one of insert, retain and delete",
            )
        })?
        .map_err(OtError::Malformed)
}

/// Reads the whole op. A violation of the form is returned as a value; errors are errors of JSON.
struct DeltaVisitor<F> {
    origin: Origin,
    see: F,
}

impl<'de, F: FnMut(Piece<'_>) -> Result<(), &'static str>> DeserializeSeed<'de>
    for DeltaVisitor<F>
{
    type Value = Result<(), &'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: FnMut(Piece<'_>) -> Result<(), &'static str>> Visitor<'de> for DeltaVisitor<F> {
    type Value = Result<(), &'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Delta")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        match map.next_key()? {
            Some(Key(key)) if key == "ops" => {}
            _ => return Err(serde::de::Error::missing_field("ops")),
        }
        let read = map.next_value_seed(OpsVisitor(self))?;
        match map.next_key::<Key<'_>>()? {
            Some(_) => Err(serde::de::Error::custom("a key beside ops")),
            None => Ok(read),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut count = 0;
        while let Some(sent) = seq.next_element::<WireComponent<'de>>()? {
            count += 1;
            let seen = if count > self.origin.bound(COMPONENTS_MAX) {
                Err(TOO_MANY)
            } else {
                sent.read(self.origin, &mut self.see)
            };
            if seen.is_err() {
                skip_rest(seq)?;
                return Ok(seen);
            }
        }
        Ok(Ok(()))
    }
}

/// The array within `{"ops":[..]}`.
struct OpsVisitor<F>(DeltaVisitor<F>);

impl<'de, F: FnMut(Piece<'_>) -> Result<(), &'static str>> DeserializeSeed<'de> for OpsVisitor<F> {
    type Value = Result<(), &'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(Piece<'_>) -> Result<(), &'static str>> Visitor<'de> for OpsVisitor<F> {
    type Value = Result<(), &'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of components")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        self.0.visit_seq(seq)
    }
}

/// A component as it was sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireComponent<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    insert: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    retain: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    delete: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    attributes: Option<&'a RawValue>,
}

impl WireComponent<'_> {
    fn read(
        self,
        origin: Origin,
        see: impl FnMut(Piece<'_>) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        match (self.insert, self.retain, self.delete) {
            (Some(insert), None, None) => self.insert(insert.get(), origin, see),
            (None, Some(retain), None) => self.retain(retain.get(), origin, see),
            (None, None, Some(delete)) => self.delete(delete.get(), see),
            _ => Err("A component must have exactly one of insert, retain and delete"),
        }
    }

    fn insert(
        &self,
        raw: &str,
        origin: Origin,
        mut see: impl FnMut(Piece<'_>) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        let attributes = self.attributes(origin)?;
        let attributes = attributes.as_ref();
        match raw.as_bytes() {
            b"\"\"" => Ok(()),
            [b'"', ..] => {
                let text = read_string(raw).ok_or(LONE_SURROGATE)?;
                see(Piece::Text {
                    text: &text,
                    len: utf16_len(&text),
                    attributes,
                })
            }
            [b'{' | b'-' | b'0'..=b'9', ..] => see(Piece::Embed {
                value: &embed(raw, origin)?.into(),
                attributes,
            }),
            _ => Err("Inserts must be strings, numbers or objects"),
        }
    }

    fn retain(
        &self,
        raw: &str,
        origin: Origin,
        mut see: impl FnMut(Piece<'_>) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        if raw.starts_with('{') {
            return Err("Changes inside an embed (a retain of an object) are not supported");
        }
        let len = read_count(raw, "Retains must be positive numbers")?;
        let attributes = self.attributes(origin)?;
        see(Piece::Retain {
            len,
            attributes: attributes.as_ref(),
        })
    }

    fn delete(
        &self,
        raw: &str,
        mut see: impl FnMut(Piece<'_>) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        if self.attributes.is_some() {
            return Err("Deletes must not have attributes");
        }
        see(Piece::Delete {
            len: read_count(raw, "Deletes must be positive numbers")?,
        })
    }

    fn attributes(&self, origin: Origin) -> Result<Option<Attributes>, &'static str> {
        self.attributes
            .map_or(Ok(None), |raw| Attributes::parse(raw.get(), origin))
    }
}

/// The stored form of an embed: an object with at least one key, or a number. Members keep their order, because Quill takes
/// an embed's first key as its kind; their values are canonical.
fn embed(raw: &str, origin: Origin) -> Result<String, &'static str> {
    let bytes_max = origin.bound(EMBED_BYTES_MAX);
    if raw.len() > bytes_max {
        return Err(EMBED_TOO_LARGE);
    }
    let members_max = origin.bound(VALUE_MEMBERS_MAX);
    if !raw.starts_with('{') {
        let value = canonical(raw, members_max)?;
        // The npm package does not treat it as an insert: its inverse would leave it in the document.
        if value == "0" {
            return Err("Inserts must not be 0");
        }
        return Ok(value);
    }
    let (value, keys) = members_as_sent(raw, members_max)?;
    if keys.is_empty() {
        return Err("Embeds must have at least one key");
    }
    if keys.iter().any(|key| RESERVED.contains(&&**key)) {
        return Err(RESERVED_NAME);
    }
    // Numbers may be longer in canonical form.
    if value.len() > bytes_max {
        return Err(EMBED_TOO_LARGE);
    }
    Ok(value)
}

const EMBED_TOO_LARGE: &str = "Embeds must not exceed 2097152 bytes";
