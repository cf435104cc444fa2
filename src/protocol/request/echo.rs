//! The members of a request that its reply repeats.

use serde_json::value::RawValue;

use super::{Fields, Raw};
use crate::id::NAME_BYTES_MAX;

/// The members of a request that its reply repeats, as JSON, each followed by a comma.
#[derive(Debug, Clone, Default)]
pub struct EchoedFields {
    members: Box<str>,
    /// End of the members that a plain reply repeats: `a`, and `id` or else `c` and `d`.
    plain: usize,
    /// End of `b`, which follows them.
    bulk: usize,
}

impl EchoedFields {
    /// The members that an error repeats.
    pub(in crate::protocol) fn all(&self) -> &str {
        &self.members
    }

    /// The members that a success repeats.
    pub(in crate::protocol) fn plain(&self) -> &str {
        &self.members[..self.plain]
    }

    /// The members that a bulk success without data repeats.
    pub(in crate::protocol) fn with_bulk(&self) -> &str {
        &self.members[..self.bulk]
    }
}

/// The longest `b` that a reply repeats: the size of a bulk request for the most documents with the longest names.
const BULK_BYTES_MAX: usize = 512 << 10;

impl Fields<'_> {
    /// The members that the reply repeats. A member that is longer than any valid value is left out.
    pub(super) fn echo(&self) -> EchoedFields {
        const MEMBER_BYTES_MAX: usize = 6 * (2 * NAME_BYTES_MAX + 1) + 2;
        let mut members = String::with_capacity(96);
        let mut add = |name: &str, raw: Raw<'_>, bytes_max: usize| {
            if let Some(json) = raw
                .0
                .map(RawValue::get)
                .filter(|json| json.len() <= bytes_max)
            {
                for part in ["\"", name, "\":", json, ","] {
                    members.push_str(part);
                }
            }
            members.len()
        };
        add("a", self.a, MEMBER_BYTES_MAX);
        let mut plain = add("id", self.id, MEMBER_BYTES_MAX);
        add("c", self.c, MEMBER_BYTES_MAX);
        let named = add("d", self.d, MEMBER_BYTES_MAX);
        if self.id.json().is_none() {
            plain = named;
        }
        let bulk = add("b", self.b, BULK_BYTES_MAX);
        for (name, raw) in [
            ("ch", self.ch),
            ("seq", self.seq),
            ("src", self.src),
            ("v", self.v),
            ("pv", self.pv),
        ] {
            add(name, raw, MEMBER_BYTES_MAX);
        }
        EchoedFields {
            members: members.into(),
            plain,
            bulk,
        }
    }
}
