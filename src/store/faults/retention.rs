//! Which dead letters are deleted: a pure function of their sizes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::DeadLetterSize;
use crate::id::{DocId, UserId};

/// Bounds of the dead letters of a store.
///
/// One principal and one document have at most a tenth of the number and of the bytes each. Where a bound is exceeded, the
/// principal with the most loses its oldest letter. So a principal that causes many dead letters removes its own ones, and not
/// those of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetterBounds {
    /// The most letters.
    pub count_max: usize,
    /// The most bytes of all letters.
    pub bytes_max: u64,
    /// The greatest age in milliseconds.
    pub age_max_ms: u64,
}

/// The share of one principal, and of one document, is the whole divided by this.
const SHARES: usize = 10;

/// Returns the numbers of the letters that are to be deleted. `letters` are all letters, oldest first.
#[must_use]
pub fn removable(letters: &[DeadLetterSize], bounds: &DeadLetterBounds, now_ms: u64) -> Vec<u64> {
    let is_old = |it: &DeadLetterSize| it.at_ms.saturating_add(bounds.age_max_ms) < now_ms;
    let (old, mut kept): (Vec<_>, Vec<_>) = letters.iter().partition(|it| is_old(it));
    let mut removed: BTreeSet<u64> = old.into_iter().map(|it| it.id).collect();
    let share = Limit {
        count: (bounds.count_max / SHARES).max(1).min(bounds.count_max),
        bytes: bounds.bytes_max / SHARES as u64,
    };
    let whole = Limit {
        count: bounds.count_max,
        bytes: bounds.bytes_max,
    };
    let mut by_principal: BTreeMap<&UserId, Vec<&DeadLetterSize>> = BTreeMap::new();
    for letter in &kept {
        by_principal.entry(&letter.author).or_default().push(letter);
    }
    for letters in by_principal.values() {
        shrink(letters, share, &mut removed);
    }
    kept.retain(|it| !removed.contains(&it.id));
    let mut by_doc: BTreeMap<&DocId, Vec<&DeadLetterSize>> = BTreeMap::new();
    for letter in &kept {
        by_doc.entry(&letter.doc).or_default().push(letter);
    }
    for letters in by_doc.values() {
        shrink(letters, share, &mut removed);
    }
    kept.retain(|it| !removed.contains(&it.id));
    shrink(&kept, whole, &mut removed);
    removed.into_iter().collect()
}

/// The bounds of a group of letters.
#[derive(Debug, Clone, Copy)]
struct Limit {
    count: usize,
    bytes: u64,
}

/// The letters of one principal in a group, oldest first, and their bytes.
#[derive(Default)]
struct PrincipalLetters<'a> {
    letters: VecDeque<&'a DeadLetterSize>,
    bytes: u64,
}

/// Removes letters of a group until it is within the limit: each time the oldest letter of the principal with the most
/// bytes, or with the most letters.
fn shrink(group: &[&DeadLetterSize], limit: Limit, removed: &mut BTreeSet<u64>) {
    let mut count = group.len();
    let mut bytes: u64 = group.iter().map(|it| it.bytes).sum();
    if count <= limit.count && bytes <= limit.bytes {
        return;
    }
    let mut principals: BTreeMap<&UserId, PrincipalLetters<'_>> = BTreeMap::new();
    for letter in group {
        let principal = principals.entry(&letter.author).or_default();
        principal.letters.push_back(letter);
        principal.bytes += letter.bytes;
    }
    while count > limit.count || bytes > limit.bytes {
        let largest = if bytes > limit.bytes {
            principals.values_mut().max_by_key(|it| it.bytes)
        } else {
            principals.values_mut().max_by_key(|it| it.letters.len())
        };
        let Some(largest) = largest else { return };
        let Some(oldest) = largest.letters.pop_front() else {
            return;
        };
        largest.bytes -= oldest.bytes;
        count -= 1;
        bytes -= oldest.bytes;
        removed.insert(oldest.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: DeadLetterBounds = DeadLetterBounds {
        count_max: 100,
        bytes_max: 1_000_000,
        age_max_ms: 1_000,
    };

    fn letter(id: u64, author: &str, doc: &str, bytes: u64) -> DeadLetterSize {
        DeadLetterSize {
            id,
            doc: DocId::parse("c", doc).unwrap(),
            author: UserId::new(author),
            at_ms: 10_000 + id,
            bytes,
        }
    }

    /// The letters that remain.
    fn kept(letters: &[DeadLetterSize], bounds: &DeadLetterBounds, now_ms: u64) -> Vec<u64> {
        let removed = removable(letters, bounds, now_ms);
        let ids = letters.iter().map(|it| it.id);
        ids.filter(|id| !removed.contains(id)).collect()
    }

    #[test]
    fn letters_beyond_the_age_are_removed() {
        let letters: Vec<_> = (0..5).map(|id| letter(id, "ann", "d", 1)).collect();
        assert_eq!(kept(&letters, &BOUNDS, 11_002), [2, 3, 4]);
    }

    #[test]
    fn principal_beyond_its_share_loses_its_own_oldest_letters() {
        let mut letters = vec![letter(0, "ann", "d", 1)];
        // Different documents, so that no document is beyond its share.
        letters.extend((1..50).map(|id| letter(id, "eve", &id.to_string(), 1)));
        let expected: Vec<u64> = [0].into_iter().chain(40..50).collect();
        assert_eq!(kept(&letters, &BOUNDS, 10_000), expected);
    }

    #[test]
    fn document_beyond_its_share_loses_letters_of_the_principal_with_the_most() {
        let mut letters: Vec<_> = (0..4).map(|id| letter(id, "ann", "d", 1)).collect();
        letters.extend((4..13).map(|id| letter(id, "eve", "d", 1)));
        assert_eq!(
            kept(&letters, &BOUNDS, 10_000),
            [0, 1, 2, 3, 7, 8, 9, 10, 11, 12]
        );
    }

    #[test]
    fn bytes_are_bounded_as_the_number_is() {
        // A share has 100,000 bytes.
        let mut letters = vec![letter(0, "ann", "d", 90_000)];
        letters.extend((1..4).map(|id| letter(id, "eve", &id.to_string(), 40_000)));
        assert_eq!(kept(&letters, &BOUNDS, 10_000), [0, 2, 3]);
        // In all: 20 principals with 90,000 bytes each. The first ones lose theirs.
        let letters: Vec<_> = (0..20)
            .map(|id| letter(id, &format!("u{id:02}"), &id.to_string(), 90_000))
            .collect();
        let left = kept(&letters, &BOUNDS, 10_000);
        assert_eq!(left.len(), 11);
    }

    #[test]
    fn letters_of_few_principals_survive_a_flood_of_many() {
        let mut letters = vec![letter(0, "ann", "d", 1)];
        // Each of 60 principals has three letters.
        letters.extend((1..181).map(|id| letter(id, &format!("u{}", id % 60), &id.to_string(), 1)));
        let left = kept(&letters, &BOUNDS, 10_000);
        assert_eq!(left.len(), BOUNDS.count_max);
        assert!(left.contains(&0), "{left:?}");
    }

    #[test]
    fn nothing_is_kept_without_room() {
        let none = DeadLetterBounds {
            count_max: 0,
            ..BOUNDS
        };
        let letters: Vec<_> = (0..3).map(|id| letter(id, "ann", "d", 1)).collect();
        assert_eq!(kept(&letters, &none, 10_000), [0; 0]);
    }
}
