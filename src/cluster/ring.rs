//! Rendezvous hashing of documents to nodes (Thaler and Ravishankar, 1998).

#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

use std::cmp::Reverse;
use std::sync::Arc;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::id::{DocId, NodeId};

/// Assigns documents to nodes by rendezvous hashing: every node has a weight for every document, and the node with the
/// greatest weight should own it. A node that joins or leaves moves its own share of the documents and no others.
///
/// The weight function must never change: old and new nodes have to agree during an upgrade.
///
/// ```
/// use copydesk::cluster::HashRing;
/// use copydesk::id::{DocId, NodeId};
///
/// let ring = HashRing::new([NodeId(1), NodeId(2), NodeId(3)]);
/// let doc = DocId::parse("documents", "plan")?;
/// let owner = ring.owner(&doc).unwrap();
/// // When the owner is gone, the next in rank owns the document; the owners of other documents stay.
/// assert_eq!(ring.without(owner).owner(&doc), ring.ranked(&doc).1);
/// # Ok::<(), copydesk::id::BadName>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HashRing {
    /// Sorted and unique.
    nodes: Arc<[NodeId]>,
}

impl HashRing {
    /// Returns the ring of these nodes; order and repetition do not matter.
    #[must_use]
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let mut nodes: Vec<NodeId> = nodes.into_iter().collect();
        nodes.sort_unstable();
        nodes.dedup();
        Self {
            nodes: nodes.into(),
        }
    }

    /// Returns the ring without a node.
    #[must_use]
    pub fn without(&self, node: NodeId) -> Self {
        let others = self.nodes.iter().copied().filter(|&other| other != node);
        Self {
            nodes: others.collect(),
        }
    }

    /// The nodes, sorted.
    #[must_use]
    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    /// Returns true if the ring contains the node.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.nodes.binary_search(&node).is_ok()
    }

    /// The node that should own the document; `None` in an empty ring.
    #[must_use]
    pub fn owner(&self, doc: &DocId) -> Option<NodeId> {
        self.ranked(doc).0
    }

    /// The node that should own the document, and the one that should if the first fails.
    #[must_use]
    pub fn ranked(&self, doc: &DocId) -> (Option<NodeId>, Option<NodeId>) {
        let document = hash(doc);
        let (mut first, mut second) = (None, None);
        for &node in &*self.nodes {
            // Of equal weights the smaller id wins, so that all nodes agree.
            let candidate = Some((weight(node, document), Reverse(node)));
            if candidate > first {
                (first, second) = (candidate, first);
            } else if candidate > second {
                second = candidate;
            }
        }
        let node = |(_, Reverse(node)): (u64, Reverse<NodeId>)| node;
        (first.map(node), second.map(node))
    }
}

/// Hashes the id with the collection's hash as seed, so that "a/bc" and "ab/c" differ.
fn hash(doc: &DocId) -> u64 {
    let collection = xxh3_64(doc.collection.as_str().as_bytes());
    xxh3_64_with_seed(doc.id.as_str().as_bytes(), collection)
}

fn weight(node: NodeId, document: u64) -> u64 {
    xxh3_64_with_seed(&node.0.to_le_bytes(), document)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Five random node ids.
    const NODES: [NodeId; 5] = [
        NodeId(0x9e37_79b9_7f4a_7c15),
        NodeId(0x1f83_d9ab_fb41_bd6b),
        NodeId(0x5be0_cd19_137e_2179),
        NodeId(0x3c6e_f372_fe94_f82b),
        NodeId(0xa54f_f53a_5f1d_36f1),
    ];

    fn doc(collection: &str, id: &str) -> DocId {
        DocId::parse(collection, id).unwrap()
    }

    /// 10,000 documents, `one_collection` per cent of them in the same collection.
    fn docs(one_collection: usize) -> Vec<DocId> {
        let collection = |index: usize| match index % 100 < one_collection {
            true => "documents".to_owned(),
            false => format!("collection-{}", index % 37),
        };
        (0..10_000)
            .map(|index| doc(&collection(index), &format!("doc-{index}")))
            .collect()
    }

    fn shares(ring: &HashRing, docs: &[DocId]) -> BTreeMap<NodeId, usize> {
        let mut shares = BTreeMap::new();
        for doc in docs {
            *shares.entry(ring.owner(doc).unwrap()).or_default() += 1;
        }
        shares
    }

    #[test]
    fn documents_are_spread_evenly() {
        for (one_collection, most) in [(0, 1.25), (50, 1.25), (90, 1.3), (100, 1.25)] {
            let shares = shares(&HashRing::new(NODES), &docs(one_collection));
            assert_eq!(shares.len(), NODES.len());
            let largest = *shares.values().max().unwrap() as f64;
            let mean = 10_000.0 / NODES.len() as f64;
            assert!(largest / mean <= most, "{one_collection} %: {shares:?}");
        }
    }

    #[test]
    fn joining_or_leaving_node_moves_its_own_share_only() {
        let (all, docs) = (HashRing::new(NODES), docs(50));
        for gone in NODES {
            let rest = all.without(gone);
            assert_eq!(rest.nodes().len(), NODES.len() - 1);
            let moved: Vec<&DocId> = docs
                .iter()
                .filter(|doc| all.owner(doc) != rest.owner(doc))
                .collect();
            let share = docs.len() / NODES.len();
            assert!(moved.len() <= share + docs.len() / 20, "{}", moved.len());
            for doc in moved {
                assert_eq!(all.owner(doc), Some(gone), "{doc} moved without need");
                assert_eq!(rest.owner(doc), all.ranked(doc).1, "the second takes over");
            }
        }
    }

    #[test]
    fn order_and_repetition_do_not_matter() {
        let (one, other) = (
            HashRing::new(NODES),
            HashRing::new(NODES.into_iter().rev().chain(NODES)),
        );
        assert_eq!(one, other);
        assert!(one.contains(NODES[0]) && !one.without(NODES[0]).contains(NODES[0]));
    }

    #[test]
    fn empty_ring_has_no_owner() {
        let doc = doc("documents", "a");
        assert_eq!(HashRing::default().ranked(&doc), (None, None));
        assert_eq!(
            HashRing::new([NODES[0]]).ranked(&doc),
            (Some(NODES[0]), None)
        );
    }

    /// Fixed values: hash, first and second node of each document. Nodes of all versions must compute the same.
    #[test]
    fn known_documents_have_known_owners() {
        let ring = HashRing::new(NODES);
        let known = [
            ("documents", "a", (0xd7de_fab8_aab9_68d2, 2, 4)),
            ("documents", "b", (0x5caf_e37a_03b0_70f4, 2, 4)),
            ("documents", "doc-4711", (0xab7c_b12e_1e43_a307, 3, 4)),
            ("a", "bc", (0xfde7_2eee_4d40_1f1e, 0, 3)),
            ("ab", "c", (0x164c_43d7_c802_70a0, 1, 2)),
            ("Sammlung", "größe/名前", (0xd196_320e_f8e2_3022, 1, 0)),
        ];
        for (collection, id, (document, first, second)) in known {
            let doc = doc(collection, id);
            assert_eq!(hash(&doc), document, "{doc}");
            let ranked = ring.ranked(&doc);
            let place = |node: Option<NodeId>| NODES.iter().position(|&one| Some(one) == node);
            assert_eq!(
                (place(ranked.0), place(ranked.1)),
                (Some(first), Some(second)),
                "{doc}"
            );
        }
        assert_eq!(weight(NODES[0], 1), 0xdaae_e2e7_faaa_bb9a);
    }
}
