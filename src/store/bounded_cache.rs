//! A cache that drops its least recently used entry when it is full. It allocates memory only as it fills.

use std::fmt;
use std::hash::Hash;

use lru::LruCache;

/// A cache of at most `entries_max` entries.
pub(super) struct BoundedCache<K, V> {
    entries: LruCache<K, V>,
    entries_max: usize,
}

impl<K: Hash + Eq, V> BoundedCache<K, V> {
    pub(super) fn new(entries_max: usize) -> Self {
        Self {
            entries: LruCache::unbounded(),
            entries_max,
        }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    /// Adds or replaces an entry. If the cache is full, the least recently used entry is dropped.
    pub(super) fn put(&mut self, key: K, value: V) {
        self.entries.put(key, value);
        if self.entries.len() > self.entries_max {
            self.entries.pop_lru();
        }
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.entries.pop(key);
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}

impl<K: Hash + Eq, V> fmt::Debug for BoundedCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedCache")
            .field("entries", &self.entries.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_cache_drops_only_the_least_recently_used_entry() {
        let mut cache = BoundedCache::new(3);
        for key in [1, 2, 3] {
            cache.put(key, key);
        }
        assert_eq!(cache.get(&1), Some(&1));
        cache.put(4, 4);
        let kept: Vec<_> = (1..=4).filter(|key| cache.get(key).is_some()).collect();
        assert_eq!(kept, [1, 3, 4]);
    }
}
