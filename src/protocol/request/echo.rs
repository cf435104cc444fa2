//! The members of a request that its reply repeats.

use serde_json::value::RawValue;

use super::{Fields, Raw};
use crate::id::NAME_BYTES_MAX;

/// The members of a request that its reply repeats, as JSON, each with a comma behind it.
#[derive(Debug, Clone, Default)]
pub struct EchoedFields {
    members: Box<str>,
    /// Where the members end that a plain reply repeats: `a`, and `id` or else `c` and `d`.
    plain: usize,
    /// Where `b` ends, which stands behind them.
    bulk: usize,
}

impl EchoedFields {
    /// What an error repeats.
    pub(in crate::protocol) fn all(&self) -> &str {
        &self.members
    }

    /// What a success repeats.
    pub(in crate::protocol) fn plain(&self) -> &str {
        &self.members[..self.plain]
    }

    /// What a bulk success without data repeats.
    pub(in crate::protocol) fn with_bulk(&self) -> &str {
        &self.members[..self.bulk]
    }
}

/// The longest `b` that a reply repeats: what a bulk request of the most documents with the longest names takes.
const BULK_BYTES_MAX: usize = 512 << 10;

impl Fields<'_> {
    /// What the reply repeats. A member too long to be somebody's is left out: no client waits on it.
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
