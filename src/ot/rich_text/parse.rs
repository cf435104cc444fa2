//! Deltas from JSON, either as `[..]` or as `{"ops":[..]}`. The package refuses nothing; here all is refused that would
//! ruin a document.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::super::error::{OtError, TOO_MANY};
use super::super::json::{
    Key, LONE_SURROGATE, RESERVED, RESERVED_NAME, canonical, present, read_count, read_string,
    skip_rest,
};
use super::attributes::Attributes;
use super::delta::Delta;
use super::units::utf16_len;
use super::walk::Piece;

impl Delta {
    /// Parses an op of at most `components_max` components.
    ///
    /// # Errors
    /// When it is not of the type's form or beyond the limits.
    pub(in crate::ot) fn parse(json: &str, components_max: usize) -> Result<Self, OtError> {
        let mut delta = Self::default();
        read(json, components_max, |piece| {
            delta.push_in_order(piece);
            Ok(())
        })?;
        Ok(delta.chop())
    }
}

/// Hands each component of `json` to `see`.
pub(super) fn read(
    json: &str,
    components_max: usize,
    see: impl FnMut(Piece<'_>) -> Result<(), &'static str>,
) -> Result<(), OtError> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    DeltaVisitor {
        components_max,
        see,
    }
    .deserialize(&mut deserializer)
    .and_then(|read| deserializer.end().map(|()| read))
    .map_err(|_| {
        OtError::Malformed(
            "The op must be an array of components, each with one of insert, retain and delete",
        )
    })?
    .map_err(OtError::Malformed)
}

/// Reads the whole op; a flaw in its form is a value, an error is one of JSON.
struct DeltaVisitor<F> {
    components_max: usize,
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
        while let Some(sent) = seq.next_element::<Sent<'de>>()? {
            count += 1;
            let seen = if count > self.components_max {
                Err(TOO_MANY)
            } else {
                sent.read(&mut self.see)
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
struct Sent<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    insert: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    retain: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    delete: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    attributes: Option<&'a RawValue>,
}

impl Sent<'_> {
    fn read(
        self,
        see: impl FnMut(Piece<'_>) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        match (self.insert, self.retain, self.delete) {
            (Some(insert), None, None) => self.insert(insert.get(), see),
            (None, Some(retain), None) => self.retain(retain.get(), see),
            (None, None, Some(delete)) => self.delete(delete.get(), see),
            _ => Err("A component must have exactly one of insert, retain and delete"),
        }
    }

    fn insert(
        &self,
        raw: &str,
        mut see: impl FnMut(Piece<'_>) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        let attributes = self.attributes()?;
        let attributes = attributes.as_ref();
        match raw.as_bytes() {
            b"\"\"" => Err("Inserts must not be empty"),
            [b'"', ..] => {
                let text = read_string(raw).ok_or(LONE_SURROGATE)?;
                see(Piece::Text {
                    text: &text,
                    len: utf16_len(&text),
                    attributes,
                })
            }
            [b'{', ..] => see(Piece::Embed {
                value: &embed(raw)?.into(),
                attributes,
            }),
            _ => Err("Inserts must be strings or embeds"),
        }
    }

    fn retain(
        &self,
        raw: &str,
        mut see: impl FnMut(Piece<'_>) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        let len = read_count(raw, "Retains must be positive numbers")?;
        let attributes = self.attributes()?;
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

    fn attributes(&self) -> Result<Option<Attributes>, &'static str> {
        self.attributes
            .map_or(Ok(None), |raw| Attributes::parse(raw.get()))
    }
}

/// The canonical form of an embed: an object with one key, its kind. Quill takes the first of several, and their order
/// does not survive every store.
fn embed(raw: &str) -> Result<String, &'static str> {
    let value = canonical(raw)?;
    let Some(kind) = only_key(&value) else {
        return Err("Embeds must have exactly one key");
    };
    if RESERVED.contains(&&*kind) {
        return Err(RESERVED_NAME);
    }
    Ok(value)
}

fn only_key(json: &str) -> Option<String> {
    struct OnlyKey;
    impl<'de> Visitor<'de> for OnlyKey {
        type Value = Option<String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let first = map.next_entry::<String, &RawValue>()?;
            let mut is_only = true;
            while map.next_entry::<&RawValue, &RawValue>()?.is_some() {
                is_only = false;
            }
            Ok(first.filter(|_| is_only).map(|(key, _)| key))
        }
    }
    serde_json::Deserializer::from_str(json)
        .deserialize_map(OnlyKey)
        .ok()?
}
