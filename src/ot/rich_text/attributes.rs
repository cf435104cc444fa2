//! The attributes of a run of rich text: compose, transform and invert.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::super::error::{ATTRIBUTE_BYTES_MAX, ATTRIBUTE_KEYS_MAX, Origin, VALUE_MEMBERS_MAX};
use super::super::json::{Key, RESERVED, RESERVED_NAME, canonical, escapes_len, write_string};
use super::super::ot::Side;

/// A set of attributes that is not empty. Cloning takes constant time; comparison is by value.
#[derive(Debug, Clone)]
pub(super) struct Attributes(Arc<Map>);

#[derive(Debug, PartialEq, Eq)]
struct Map {
    /// Sorted by key, each key once.
    pairs: Vec<AttributeEntry>,
    /// Size in bytes as JSON.
    size: usize,
}

/// A key and its value in canonical JSON: equal values are equal texts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct AttributeEntry {
    key: Arc<str>,
    value: Arc<str>,
}

/// The effect of a null that is composed onto a component: it stays (on a retain) or only removes (on an insert). A null that
/// an insert was created with is an ordinary attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nulls {
    Keep,
    Drop,
}

impl AttributeEntry {
    fn is_null(&self) -> bool {
        &*self.value == "null"
    }

    /// JavaScript's `===`, as the package uses it in `invert`: two objects are never the same one.
    fn is_identical(&self, other: &Self) -> bool {
        !self.value.starts_with(['{', '[']) && self.value == other.value
    }
}

impl PartialEq for Attributes {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for Attributes {}

impl Attributes {
    /// Parses the `attributes` of a component. Their JSON syntax has been checked. `None` if there are none.
    pub(super) fn parse(raw: &str, origin: Origin) -> Result<Option<Self>, &'static str> {
        if !raw.starts_with('{') {
            return Err("Attributes must be an object");
        }
        let bytes_max = origin.bound(ATTRIBUTE_BYTES_MAX);
        if raw.len() > bytes_max {
            return Err(TOO_LARGE);
        }
        let mut deserializer = serde_json::Deserializer::from_str(raw);
        let pairs = deserializer
            .deserialize_map(PairsVisitor { origin })
            .map_err(|_| "Attributes must be sound JSON")?;
        let mut pairs = pairs?;
        if pairs.len() > origin.bound(ATTRIBUTE_KEYS_MAX) {
            return Err("A component must not have more than 100 attributes");
        }
        pairs.sort_by(|a, b| a.key.cmp(&b.key));
        if pairs.windows(2).any(|pair| pair[0].key == pair[1].key) {
            return Err("Keys must not be given twice");
        }
        // Numbers may be longer in canonical form.
        let attributes = Self::of(pairs);
        let is_too_large = attributes.as_ref().is_some_and(|it| it.size() > bytes_max);
        if is_too_large {
            return Err(TOO_LARGE);
        }
        Ok(attributes)
    }

    fn of(pairs: Vec<AttributeEntry>) -> Option<Self> {
        let size = pairs
            .iter()
            .map(|pair| pair.key.len() + escapes_len(&pair.key) + pair.value.len() + 4)
            .sum::<usize>()
            + 2;
        (!pairs.is_empty()).then(|| Self(Arc::new(Map { pairs, size })))
    }

    /// Size in bytes as JSON.
    pub(super) fn size(&self) -> usize {
        self.0.size
    }

    /// Steps of a [`Budget`](super::super::Budget) for merging or comparing them.
    pub(super) fn steps(&self) -> u64 {
        (self.0.pairs.len() / 8 + self.0.size / 1024) as u64
    }

    pub(super) fn write_json(&self, out: &mut Vec<u8>) {
        for (at, pair) in self.0.pairs.iter().enumerate() {
            out.push(if at == 0 { b'{' } else { b',' });
            write_string(out, &pair.key);
            out.push(b':');
            out.extend_from_slice(pair.value.as_bytes());
        }
        out.push(b'}');
    }

    /// Composes the attributes `first` and then `then`. Nulls of `then` are kept or dropped; nulls of `first` are kept.
    pub(super) fn compose(first: Option<&Self>, then: Option<&Self>, nulls: Nulls) -> Option<Self> {
        let Some(then) = then else {
            return first.cloned();
        };
        if nulls == Nulls::Keep && first.is_none() {
            return Some(then.clone());
        }
        let mut pairs = Vec::new();
        zip(first, Some(then), |old, new| match (old, new) {
            (_, Some(new)) if nulls == Nulls::Drop && new.is_null() => {}
            (_, Some(pair)) | (Some(pair), None) => pairs.push(pair.clone()),
            (None, None) => {}
        });
        Self::of(pairs)
    }

    /// Transforms the attributes `own` by `other`: the left op yields the attributes that both set.
    pub(super) fn transform(own: Option<&Self>, other: Option<&Self>, side: Side) -> Option<Self> {
        if side == Side::Right || other.is_none() {
            return own.cloned();
        }
        let mut pairs = Vec::new();
        zip(own, other, |own, other| {
            if let (Some(own), None) = (own, other) {
                pairs.push(own.clone());
            }
        });
        Self::of(pairs)
    }

    /// The attributes that restore `base` after these have been set on it. A null of an insert is not restored: no retain can
    /// set one.
    pub(super) fn invert(&self, base: Option<&Self>) -> Option<Self> {
        let mut pairs = Vec::new();
        zip(Some(self), base, |set, base| match (set, base) {
            (Some(set), Some(base)) if !set.is_identical(base) => pairs.push(base.clone()),
            (Some(set), None) => pairs.push(AttributeEntry {
                key: set.key.clone(),
                value: "null".into(),
            }),
            _ => {} // not touched, or set to what it was
        });
        Self::of(pairs)
    }
}

const TOO_LARGE: &str = "The attributes of a component must not exceed 65536 bytes";

/// Iterates over the keys of both in order, each key once.
fn zip<'a>(
    a: Option<&'a Attributes>,
    b: Option<&'a Attributes>,
    mut see: impl FnMut(Option<&'a AttributeEntry>, Option<&'a AttributeEntry>),
) {
    let pairs = |attributes: Option<&'a Attributes>| {
        attributes.map_or(&[][..], |attributes| &attributes.0.pairs)
    };
    let (mut a, mut b) = (pairs(a), pairs(b));
    loop {
        let order = match (a.first(), b.first()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.key.cmp(&b.key),
        };
        see(
            a.first().filter(|_| order.is_le()),
            b.first().filter(|_| order.is_ge()),
        );
        a = if order.is_le() { &a[1..] } else { a };
        b = if order.is_ge() { &b[1..] } else { b };
    }
}

struct PairsVisitor {
    origin: Origin,
}

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Result<Vec<AttributeEntry>, &'static str>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
            let value = if RESERVED.contains(&&*key) {
                Err(RESERVED_NAME)
            } else {
                canonical(value.get(), self.origin.bound(VALUE_MEMBERS_MAX))
            };
            match value {
                Ok(value) => pairs.push(AttributeEntry {
                    key: key.into(),
                    value: value.into(),
                }),
                Err(flaw) => {
                    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                    return Ok(Err(flaw));
                }
            }
        }
        Ok(Ok(pairs))
    }
}
