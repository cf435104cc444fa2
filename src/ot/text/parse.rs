//! Parses text ops. Only the normal form is accepted.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::super::error::{COMPONENTS_MAX, Origin, OtError, TOO_MANY};
use super::super::json::{Key, check_count, skip_rest, whole_count};
use super::op::{Component, TextOp};

impl TextOp {
    /// Parses an op.
    ///
    /// # Errors
    /// If it is not in normal form, or exceeds a limit of its origin.
    pub(in crate::ot) fn parse(json: &str, origin: Origin) -> Result<Self, OtError> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let components_max = origin.bound(COMPONENTS_MAX);
        let op = OpVisitor { components_max }
            .deserialize(&mut deserializer)
            .and_then(|op| deserializer.end().map(|()| op))
            .map_err(|_| OtError::Malformed("Op must be an array of components"))?;
        op.map_err(OtError::Malformed)
    }
}

/// Reads the whole op. A violation of the form is returned as a value; errors are errors of JSON.
struct OpVisitor {
    components_max: usize,
}

impl<'de> DeserializeSeed<'de> for OpVisitor {
    type Value = Result<TextOp, &'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for OpVisitor {
    type Value = Result<TextOp, &'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of components")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut op = TextOp::default();
        while let Some(component) = seq.next_element_seed(ComponentVisitor)? {
            let flaw = match component {
                _ if op.components().len() == self.components_max => TOO_MANY,
                Err(flaw) => flaw,
                Ok(component) => match flaw_between(op.components().last(), &component) {
                    Some(flaw) => flaw,
                    None => {
                        op.push_as_is(component);
                        continue;
                    }
                },
            };
            skip_rest(seq)?;
            return Ok(Err(flaw));
        }
        Ok(match op.components().last() {
            Some(Component::Keep(_)) => Err("Op has a trailing skip"),
            _ => Ok(op),
        })
    }
}

/// Returns an error for adjacent components of one kind. The npm package accepts inserts and deletes, but then transform
/// does not converge.
fn flaw_between(last: Option<&Component>, next: &Component) -> Option<&'static str> {
    match (last?, next) {
        (Component::Keep(_), Component::Keep(_)) => {
            Some("Adjacent skip components should be combined")
        }
        (Component::Insert { .. }, Component::Insert { .. }) => {
            Some("Adjacent inserts should be combined")
        }
        (Component::Delete { .. }, Component::Delete { .. }) => {
            Some("Adjacent deletes should be combined")
        }
        _ => None,
    }
}

struct ComponentVisitor;

impl<'de> DeserializeSeed<'de> for ComponentVisitor {
    type Value = Result<Component, &'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

const SKIP: &str = "Skip components must be >0";

impl<'de> Visitor<'de> for ComponentVisitor {
    type Value = Result<Component, &'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a string or a delete")
    }

    fn visit_u64<E: Error>(self, count: u64) -> Result<Self::Value, E> {
        Ok(check_count(count, SKIP).map(Component::Keep))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Err(SKIP))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(whole_count(number, SKIP).map(Component::Keep))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(match text {
            "" => Err("Inserts cannot be empty"),
            _ => Ok(Component::Insert {
                text: text.to_owned(),
                len: text.chars().count() as u64,
            }),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut delete = Err("Delete must be number or string");
        let mut keys = 0;
        while let Some(Key(key)) = map.next_key()? {
            keys += 1;
            if key == "d" {
                delete = map.next_value_seed(DeleteVisitor)?;
            } else {
                map.next_value::<serde::de::IgnoredAny>()?;
            }
        }
        Ok(if keys > 1 {
            Err("Deletes must have no key but d")
        } else {
            delete
        })
    }
}

struct DeleteVisitor;

impl<'de> DeserializeSeed<'de> for DeleteVisitor {
    type Value = Result<Component, &'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

const DELETE: &str = "Deletes must not be empty";

impl Visitor<'_> for DeleteVisitor {
    type Value = Result<Component, &'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a string")
    }

    fn visit_u64<E: Error>(self, count: u64) -> Result<Self::Value, E> {
        Ok(check_count(count, DELETE).map(|len| Component::Delete { len, text: None }))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Err(DELETE))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(whole_count(number, DELETE).map(|len| Component::Delete { len, text: None }))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(match text {
            "" => Err(DELETE),
            _ => Ok(Component::Delete {
                len: text.chars().count() as u64,
                text: Some(text.to_owned()),
            }),
        })
    }
}
