//! Requests about several documents of one collection.

use std::collections::BTreeMap;

use super::{Fields, Raw, badly_formed};
use crate::id::Name;
use crate::log::Revision;
use crate::protocol::refusal::Refusal;

/// The documents of a bulk request, all of one collection.
#[derive(Debug, Clone)]
pub struct BulkRequest {
    /// The collection.
    pub collection: Name,
    /// The documents, each with the revision that the client has.
    pub docs: BTreeMap<Name, Option<Revision>>,
    /// The documents beyond the first [`BULK_DOCS_MAX`]: each of them gets an error.
    pub beyond: Vec<Name>,
    /// The request has a map of revisions instead of a list: commits are sent, and the reply repeats the map.
    pub since: bool,
}

/// The most documents that one bulk request returns.
const BULK_DOCS_MAX: usize = 1_000;

/// The most documents that one bulk request may name. A request with more is rejected as a whole; of a smaller one only the
/// documents beyond [`BULK_DOCS_MAX`] are.
const BULK_NAMES_MAX: usize = 10_000;

impl Fields<'_> {
    pub(super) fn bulk(&self) -> Result<BulkRequest, Refusal> {
        let invalid = || badly_formed("Invalid bulk subscribe data");
        let collection = self
            .c
            .name("Invalid collection")?
            .ok_or_else(|| badly_formed("Invalid collection"))?;
        let json = self.b.json().ok_or_else(invalid)?;
        let since = json.starts_with('{');
        let names: Vec<(String, Option<Revision>)> = if since {
            let map: BTreeMap<String, Raw<'_>> =
                serde_json::from_str(json).map_err(|_| invalid())?;
            map.into_iter()
                .map(|(name, version)| Ok((name, version.revision()?)))
                .collect::<Result<_, Refusal>>()?
        } else {
            let list: Vec<Raw<'_>> = serde_json::from_str(json).map_err(|_| invalid())?;
            list.into_iter()
                .map(|name| {
                    Ok((
                        name.string("Invalid id")?
                            .ok_or_else(|| badly_formed("Invalid id"))?,
                        None,
                    ))
                })
                .collect::<Result<_, Refusal>>()?
        };
        let mut docs = BTreeMap::new();
        for (name, version) in names {
            docs.insert(
                Name::parse(&name).map_err(|_| badly_formed("Invalid id"))?,
                version,
            );
        }
        if docs.len() > BULK_NAMES_MAX {
            return Err(Refusal::bulk_too_long(BULK_NAMES_MAX));
        }
        let first_beyond = docs.keys().nth(BULK_DOCS_MAX).cloned();
        let beyond = first_beyond.map(|first| docs.split_off(&first));
        Ok(BulkRequest {
            collection,
            docs,
            beyond: beyond.into_iter().flatten().map(|(name, _)| name).collect(),
            since,
        })
    }
}
