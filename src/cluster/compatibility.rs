//! Selects the live nodes that take no documents because other nodes do not understand their messages.

#![deny(clippy::disallowed_methods, clippy::iter_over_hash_type)]

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::id::NodeId;
use crate::version::WireRange;

/// The nodes that take no documents because another live node does not understand them. A function of what the store
/// states of the live nodes, so all nodes that read the same heartbeats compute the same.
///
/// Of two nodes without a common wire version the one that fewer live nodes understand stands back; of two that equally
/// many understand, the one of the newer version.
#[must_use]
pub fn incompatible_nodes(live: &[(NodeId, WireRange)]) -> BTreeSet<NodeId> {
    let rank = |wire: WireRange| {
        let understood = live
            .iter()
            .filter(|(_, other)| wire.common(*other).is_some());
        (understood.count(), Reverse(wire.newest))
    };
    let mut incompatible = BTreeSet::new();
    for (node, wire) in live {
        let stands_back = |(_, other): &(NodeId, WireRange)| {
            wire.common(*other).is_none() && rank(*wire) < rank(*other)
        };
        if live.iter().any(stands_back) {
            incompatible.insert(*node);
        }
    }
    incompatible
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stands_back(ranges: &[(u8, u8)]) -> Vec<u64> {
        let live = ranges
            .iter()
            .zip(1..)
            .map(|(&(oldest, newest), id)| (NodeId(id), WireRange { oldest, newest }));
        let live: Vec<_> = live.collect();
        incompatible_nodes(&live)
            .iter()
            .map(|node| node.0)
            .collect()
    }

    #[test]
    fn node_that_fewer_others_understand_stands_back() {
        for (ranges, expected) in [
            (&[][..], vec![]),
            (&[(1, 1), (1, 1), (1, 2)], vec![]),
            (&[(1, 1), (1, 1), (2, 2)], vec![3]),
            (&[(1, 1), (2, 2)], vec![2]),
            (&[(2, 2), (1, 1)], vec![1]),
            (&[(1, 1), (2, 3), (2, 3)], vec![1]),
            (&[(1, 1), (1, 2), (2, 3)], vec![3]),
            (&[(1, 1), (1, 2), (2, 3), (2, 3)], vec![1]),
        ] {
            assert_eq!(stands_back(ranges), expected, "{ranges:?}");
        }
    }

    #[test]
    fn nodes_that_stay_understand_each_other() {
        let ranges = [(1, 1), (1, 2), (2, 2), (2, 3), (3, 3)];
        for count in 2..=5_u32 {
            for pick in 0..5_usize.pow(count) {
                let pick = |at: u32| ranges[pick / 5_usize.pow(at) % 5];
                let picked: Vec<_> = (0..count).map(pick).collect();
                let out = stands_back(&picked);
                let stay = (1..).zip(&picked).filter(|(id, _)| !out.contains(id));
                let stay: Vec<_> = stay
                    .map(|(_, &(oldest, newest))| WireRange { oldest, newest })
                    .collect();
                assert!(!stay.is_empty(), "{picked:?}");
                for one in &stay {
                    assert!(
                        stay.iter().all(|other| one.common(*other).is_some()),
                        "{picked:?}"
                    );
                }
            }
        }
    }
}
