//! The rate limits of one socket.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::RateLimits;
use super::token_bucket::{SharedBucket, TokenBucket};
use crate::id::DocId;

/// The rate limits that the messages of one socket count towards: its own, those of its user, of tenants and of documents.
#[derive(Debug)]
pub(in crate::gateway) struct SocketRateLimits {
    socket: TokenBucket,
    /// `None` if users are not told apart: then only the limit of the socket applies.
    user: Option<UserBuckets>,
    /// The tenant of the user: all messages count towards it.
    own_tenant: Option<String>,
    /// The tenants of the documents that messages were about.
    tenants: BTreeMap<String, TenantBuckets>,
    /// The documents that ops were submitted to.
    documents: BTreeMap<DocId, Arc<SharedBucket>>,
}

#[derive(Debug)]
pub(super) struct UserBuckets {
    pub(super) messages: Arc<SharedBucket>,
    pub(super) assured: Arc<SharedBucket>,
}

#[derive(Debug)]
pub(super) struct TenantBuckets {
    pub(super) messages: Arc<SharedBucket>,
    /// `None`: the ops of a tenant are not limited.
    pub(super) ops: Option<Arc<SharedBucket>>,
}

/// The longest wait for shared buckets. A message that would wait longer is rejected.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(2);

/// The longest wait of an edit. It is longer because clients discard a rejected edit: after this wait the socket is closed
/// instead, and its client sends the edit again.
const EDIT_WAIT_MAX: Duration = Duration::from_secs(10);

/// How many tenants, and how many documents, one socket keeps the buckets of.
const CACHED_BUCKETS_MAX: usize = 20;

impl SocketRateLimits {
    /// The limits of a socket that has no user to tell apart from others.
    pub(super) fn of_socket(socket: TokenBucket) -> Self {
        Self {
            socket,
            user: None,
            own_tenant: None,
            tenants: BTreeMap::new(),
            documents: BTreeMap::new(),
        }
    }

    /// The limits of a user's socket. `tenant` is the user's.
    pub(super) fn of_user(socket: TokenBucket, user: UserBuckets, tenant: Option<&str>) -> Self {
        Self {
            user: Some(user),
            own_tenant: tenant.map(str::to_owned),
            ..Self::of_socket(socket)
        }
    }

    /// Counts `count` messages towards the limit of the socket alone. Returns how long to wait before the next is served.
    pub(in crate::gateway) fn take_messages(&mut self, count: u32) -> Duration {
        self.socket.take(Instant::now(), count)
    }

    /// Counts a message as `weight` messages towards the shared limits. `tenant` is that of the message's document or
    /// channel, `doc` the document that it would change. Returns how long the message must wait; `None` if that is too
    /// long, so that it must be rejected.
    pub(in crate::gateway) fn take_shared(
        &mut self,
        limits: &RateLimits,
        tenant: &str,
        doc: Option<&DocId>,
        weight: u32,
    ) -> Option<Duration> {
        let Some(user) = &self.user else {
            return Some(Duration::ZERO);
        };
        let now = Instant::now();
        let wait_max = if doc.is_some() {
            EDIT_WAIT_MAX
        } else {
            WAIT_MAX
        };
        let mut longest = user.messages.try_take(now, weight, wait_max)?;
        let assured = user.assured.try_take(now, weight, Duration::ZERO);
        let tenant = self.own_tenant.as_deref().unwrap_or(tenant);
        let tenant = cached(&mut self.tenants, tenant, |tenant| limits.tenant(tenant));
        let ops = tenant.ops.as_ref().filter(|_| doc.is_some());
        if let Some(ops) = ops {
            longest = longest.max(ops.try_take(now, 1, wait_max)?);
        }
        // Messages within the assured rate do not wait for other users of the tenant or of the document.
        if assured.is_some() {
            return Some(longest);
        }
        longest = longest.max(tenant.messages.try_take(now, weight, wait_max)?);
        if let Some(doc) = doc {
            let bucket = |doc: &DocId| limits.documents.bucket(doc.clone());
            let document = cached(&mut self.documents, doc, bucket);
            longest = longest.max(document.try_take(now, 1, wait_max)?);
        }
        Some(longest)
    }

    #[cfg(test)]
    pub(super) fn user(&self) -> &UserBuckets {
        self.user.as_ref().unwrap()
    }
}

/// The value of `key`, looked up once. All are removed when there are too many: few sockets use many.
fn cached<'a, K, Q, V>(
    cache: &'a mut BTreeMap<K, V>,
    key: &Q,
    look_up: impl FnOnce(&Q) -> V,
) -> &'a V
where
    K: Borrow<Q> + Ord,
    Q: ToOwned<Owned = K> + Ord + ?Sized,
{
    if !cache.contains_key(key) {
        if cache.len() >= CACHED_BUCKETS_MAX {
            cache.clear();
        }
        cache.insert(key.to_owned(), look_up(key));
    }
    &cache[key]
}
