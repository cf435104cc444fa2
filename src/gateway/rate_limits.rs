//! What many sockets share the right to: each user, each document, each tenant and each address has a pace of its own, and
//! so many sockets.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::settings::GatewaySettings;
use crate::auth::{Identity, RateLimitKey};
use crate::id::DocId;
use crate::sync::lock;

/// What those who share it have in common: paces, and how many sockets they may have open.
#[derive(Debug)]
pub(super) struct RateLimits {
    users: Shared<String>,
    /// What each user may send in any case, whatever others of the tenant do.
    assured: Shared<String>,
    tenants: Shared<String>,
    /// None where a tenant may send as many ops as it likes.
    ops: Option<Shared<String>>,
    documents: Shared<DocId>,
    handshakes: Shared<IpAddr>,
    requests: Shared<IpAddr>,
    /// The bytes of answers.
    answers: Shared<IpAddr>,
    /// How many tokens of another application are verified for an address before it counts as a stranger's.
    proofs: Shared<IpAddr>,
    /// As `handshakes` and `requests`, of requests that prove a principal: neither a flood from their address nor the other
    /// people of one office keep them out.
    proven_handshakes: Shared<RateLimitKey>,
    proven_requests: Shared<RateLimitKey>,
    /// The handshakes of each user, however many sessions they have.
    user_handshakes: Shared<String>,
    user_requests: Shared<String>,
    user_sockets: Held,
    tenant_sockets: Held,
    /// How many more refusals may be held back.
    held_back: Semaphore,
}

/// What one socket's messages count towards.
#[derive(Debug, Default)]
pub(super) struct SocketRateLimits {
    /// None where nobody is told apart.
    user: Option<User>,
    /// Its user's tenant: all that it sends counts towards that.
    own: Option<String>,
    /// The tenants that it has spoken to: its own, or, of a guest, those of the links' documents.
    tenants: BTreeMap<String, Tenant>,
    /// The documents that it has changed.
    documents: BTreeMap<DocId, Arc<Bucket>>,
}

#[derive(Debug)]
struct User {
    messages: Arc<Bucket>,
    assured: Arc<Bucket>,
}

#[derive(Debug)]
struct Tenant {
    messages: Arc<Bucket>,
    ops: Option<Arc<Bucket>>,
}

/// As many wait for the same bucket as one who is patient would see pass in this time; the others are refused.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// The same for edits. A refused edit is one that its client throws away, so it waits for longer; a client that is not let
/// through by then is closed, and sends it again.
const EDIT_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long a refusal is held back.
const HOLD: Duration = Duration::from_secs(1);

/// How many tokens a second are verified for one address before it counts as a stranger's, twice as many at once: an office
/// of 4,000 comes back together, and a flood of forged tokens costs a tenth of a processor.
const PROOFS_PER_SECOND: u32 = 2_000;

/// How many are held back at once, of all addresses.
const HELD_BACK_MAX: usize = 2_000;

/// What nobody waits for others with, in messages a second. A person types twenty keys.
const ASSURED_PER_SECOND: u32 = 50;

/// How many tenants, and how many documents, one socket is counted towards at once.
const KEPT_MAX: usize = 20;

impl RateLimits {
    pub(super) fn new(settings: &GatewaySettings) -> Self {
        let ops = settings.tenant_ops_per_second;
        Self {
            users: Shared::new(settings.user_messages_per_second),
            assured: Shared::new(ASSURED_PER_SECOND),
            tenants: Shared::new(settings.tenant_messages_per_second),
            ops: (ops > 0).then(|| Shared::new(ops)),
            documents: Shared::new(settings.document_ops_per_second),
            handshakes: Shared::new(settings.address_handshakes_per_second),
            requests: Shared::new(settings.address_requests_per_second),
            answers: Shared::new(settings.address_answer_bytes_per_second),
            proofs: Shared::new(PROOFS_PER_SECOND),
            proven_handshakes: Shared::new(settings.user_handshakes_per_second),
            proven_requests: Shared::new(settings.address_requests_per_second),
            user_handshakes: Shared::new(settings.user_handshakes_per_second),
            user_requests: Shared::new(settings.user_requests_per_second),
            user_sockets: Held::new(settings.user_sockets_max),
            tenant_sockets: Held::new(settings.tenant_sockets_max),
            held_back: Semaphore::new(HELD_BACK_MAX),
        }
    }

    /// Lets somebody wait whose address has asked too often, before the refusal: whoever waits for answers asks less often
    /// for that. Not when many wait already; each keeps its connection's buffers.
    pub(super) async fn delay_rejection(&self) {
        if let Ok(_place) = self.held_back.try_acquire() {
            sleep(HOLD).await;
        }
    }

    /// What the messages of somebody's socket from an address count towards; nothing where nobody is told apart.
    pub(super) fn for_socket(&self, person: &Identity, address: IpAddr) -> SocketRateLimits {
        if person.is_unrestricted() {
            return SocketRateLimits::default();
        }
        let name = name_of(person, address);
        SocketRateLimits {
            user: Some(User {
                messages: self.users.bucket(name.clone()),
                assured: self.assured.bucket(name),
            }),
            own: person.tenant().map(str::to_owned),
            tenants: BTreeMap::new(),
            documents: BTreeMap::new(),
        }
    }

    /// Counts a socket of somebody's for as long as the answer is held.
    ///
    /// # Errors
    /// As many are open as may be.
    pub(super) fn reserve_socket(
        &self,
        person: &Identity,
        address: IpAddr,
    ) -> Result<[Option<Place>; 2], TooMany> {
        if person.is_unrestricted() {
            return Ok([None, None]);
        }
        let user = self.user_sockets.take(&name_of(person, address))?;
        let tenant = person
            .tenant()
            .map(|tenant| self.tenant_sockets.take(tenant));
        Ok([user, tenant.transpose()?.flatten()])
    }

    /// Whether one more token from an address may be verified now.
    pub(super) fn allow_token_check(&self, address: IpAddr) -> bool {
        may_pass(&self.proofs, address)
    }

    /// Whether one more socket may be asked for now, by a principal or, without one, from an address.
    pub(super) fn allow_handshake(&self, address: IpAddr, principal: Option<RateLimitKey>) -> bool {
        match principal {
            Some(principal) => may_pass(&self.proven_handshakes, principal),
            None => may_pass(&self.handshakes, address),
        }
    }

    /// Whether one more socket of a user may be opened now. A user with many sessions has the pace of one.
    pub(super) fn allow_connect(&self, person: &Identity) -> bool {
        let name = person.user_id().map(|user| user.0.clone());
        name.is_none_or(|name| may_pass(&self.user_handshakes, name))
    }

    /// Whether one more request may be made now, as with sockets.
    pub(super) fn allow_request(&self, address: IpAddr, principal: Option<RateLimitKey>) -> bool {
        match principal {
            Some(principal) => may_pass(&self.proven_requests, principal),
            None => may_pass(&self.requests, address),
        }
    }

    /// How long an answer of so many bytes to an address is to wait; `None`: for too long.
    pub(super) fn response_delay(&self, address: IpAddr, bytes: u64) -> Option<Duration> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let bucket = self.answers.bucket(address);
        bucket.take_many(Instant::now(), bytes, WAIT_MAX)
    }

    /// Whether somebody may make one more request now.
    pub(super) fn allow_user_request(&self, person: &Identity) -> bool {
        let name = person.user_id().map(|user| user.0.clone());
        name.is_none_or(|name| may_pass(&self.user_requests, name))
    }

    fn tenant(&self, tenant: &str) -> Tenant {
        let name = || tenant.to_owned();
        Tenant {
            messages: self.tenants.bucket(name()),
            ops: self.ops.as_ref().map(|ops| ops.bucket(name())),
        }
    }
}

/// Whose pace it is: a user's, or, for a cookie is soon thrown away, a guest's address.
fn name_of(person: &Identity, address: IpAddr) -> String {
    match person.user_id() {
        Some(user) => user.0.clone(),
        None => format!("guest {address}"),
    }
}

fn may_pass<K: Eq + Hash>(shared: &Shared<K>, key: K) -> bool {
    let bucket = shared.bucket(key);
    bucket.take(Instant::now(), Duration::ZERO).is_some()
}

impl SocketRateLimits {
    /// Counts a message about something of `tenant`'s that would change `doc`, if it is an op, as `weight` messages: how
    /// long it is to wait; none: too many wait already.
    pub(super) fn take(
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
        let patience = if doc.is_some() {
            EDIT_WAIT_MAX
        } else {
            WAIT_MAX
        };
        let mut longest = user.messages.take_many(now, weight, patience)?;
        let is_assured = user
            .assured
            .take_many(now, weight, Duration::ZERO)
            .is_some();
        let tenant = self.own.as_deref().unwrap_or(tenant);
        let tenant = kept(&mut self.tenants, tenant, |tenant| limits.tenant(tenant));
        let ops = tenant.ops.as_ref().filter(|_| doc.is_some());
        if let Some(ops) = ops {
            longest = longest.max(ops.take(now, patience)?);
        }
        if is_assured {
            return Some(longest);
        }
        longest = longest.max(tenant.messages.take_many(now, weight, patience)?);
        if let Some(doc) = doc {
            let bucket = |doc: &DocId| limits.documents.bucket(doc.clone());
            let document = kept(&mut self.documents, doc, bucket);
            longest = longest.max(document.take(now, patience)?);
        }
        Some(longest)
    }
}

/// What a socket keeps of something that it has spoken to, looked up the first time. Few speak to many.
fn kept<'a, K, Q, V>(kept: &'a mut BTreeMap<K, V>, key: &Q, look_up: impl FnOnce(&Q) -> V) -> &'a V
where
    K: Borrow<Q> + Ord,
    Q: ToOwned<Owned = K> + Ord + ?Sized,
{
    if !kept.contains_key(key) {
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(key.to_owned(), look_up(key));
    }
    &kept[key]
}

/// How many each of many has of something.
#[derive(Debug)]
struct Held {
    /// None: any number.
    most: Option<usize>,
    counts: Arc<Mutex<HashMap<String, usize>>>,
}

/// As many are there as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany;

/// One of those that are counted, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    whose: String,
    counts: Arc<Mutex<HashMap<String, usize>>>,
}

impl Held {
    fn new(most: usize) -> Self {
        Self {
            most: (most > 0).then_some(most),
            counts: Arc::default(),
        }
    }

    fn take(&self, whose: &str) -> Result<Option<Place>, TooMany> {
        let Some(most) = self.most else {
            return Ok(None);
        };
        let mut counts = lock(&self.counts);
        let count = counts.entry(whose.to_owned()).or_default();
        if *count >= most {
            return Err(TooMany);
        }
        *count += 1;
        Ok(Some(Place {
            whose: whose.to_owned(),
            counts: self.counts.clone(),
        }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        if let Some(count) = counts.get_mut(&self.whose) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.whose);
            }
        }
    }
}

/// A bucket for each of many, forgotten when it is full and nobody holds it.
#[derive(Debug)]
struct Shared<K> {
    each: Duration,
    buckets: Mutex<HashMap<K, Arc<Bucket>>>,
}

/// How many buckets are kept; when there are more, those that are full and held by nobody are forgotten.
const BUCKETS_MAX: usize = 50_000;

impl<K: Eq + Hash> Shared<K> {
    fn new(per_second: u32) -> Self {
        Self {
            each: Duration::from_secs(1) / per_second.max(1),
            buckets: Mutex::default(),
        }
    }

    fn bucket(&self, key: K) -> Arc<Bucket> {
        let mut buckets = lock(&self.buckets);
        if buckets.len() >= BUCKETS_MAX {
            let now = Instant::now();
            buckets.retain(|_, bucket| Arc::strong_count(bucket) > 1 || !bucket.is_full(now));
        }
        let bucket = buckets.entry(key);
        bucket
            .or_insert_with(|| Arc::new(Bucket::new(self.each)))
            .clone()
    }
}

/// Lets so much pass in a second, and as much as passes in two seconds at once.
#[derive(Debug)]
struct Bucket {
    each: Duration,
    /// When all that was taken would have passed at the steady rate.
    due: Mutex<Instant>,
}

const BURST: Duration = Duration::from_secs(2);

impl Bucket {
    fn new(each: Duration) -> Self {
        Self {
            each,
            due: Mutex::new(Instant::now()),
        }
    }

    /// Takes one: how long it is to wait; none, and nothing is taken, when that is longer than `patience`.
    fn take(&self, now: Instant, patience: Duration) -> Option<Duration> {
        self.take_many(now, 1, patience)
    }

    /// The same of so many at once.
    fn take_many(&self, now: Instant, count: u32, patience: Duration) -> Option<Duration> {
        let mut due = lock(&self.due);
        let next = (*due).max(now) + self.each * count;
        let wait = next.saturating_duration_since(now + BURST);
        if wait > patience {
            return None;
        }
        *due = next;
        Some(wait)
    }

    fn is_full(&self, now: Instant) -> bool {
        *lock(&self.due) <= now
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn refusals_wait_but_not_more_than_there_is_room_for() {
        let limits = RateLimits::new(&GatewaySettings::default());
        let mut waiting: Vec<_> = (0..HELD_BACK_MAX)
            .map(|_| Box::pin(limits.delay_rejection()))
            .collect();
        for held in &mut waiting {
            assert!(held.as_mut().now_or_never().is_none());
        }
        assert!(limits.delay_rejection().now_or_never().is_some(), "no room");
        waiting.pop();
        assert!(
            limits.delay_rejection().now_or_never().is_none(),
            "room again"
        );
    }

    #[test]
    fn the_bytes_of_answers_are_slowed_then_refused() {
        let limits = RateLimits::new(&GatewaySettings {
            address_answer_bytes_per_second: 1_000_000,
            ..GatewaySettings::default()
        });
        assert_eq!(limits.response_delay(HERE, 1_900_000), Some(Duration::ZERO));
        let wait = limits.response_delay(HERE, 1_000_000).unwrap();
        assert!(wait > Duration::from_millis(500) && wait < Duration::from_secs(1));
        assert_eq!(limits.response_delay(HERE, 3_000_000), None);
        let there = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(
            limits.response_delay(there, 1_900_000),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn a_bucket_lets_a_burst_pass_then_slows_then_refuses() {
        let start = Instant::now();
        let bucket = Bucket::new(Duration::from_millis(100));
        *bucket.due.lock().unwrap() = start;
        let at = |now| bucket.take(now, Duration::from_millis(500));
        for _ in 0..20 {
            assert_eq!(at(start), Some(Duration::ZERO));
        }
        for wait in [100, 200, 300, 400, 500] {
            assert_eq!(at(start), Some(Duration::from_millis(wait)));
        }
        assert_eq!(at(start), None);
        assert_eq!(at(start), None);
        // What was refused was not taken.
        let later = start + Duration::from_millis(100);
        assert_eq!(at(later), Some(Duration::from_millis(500)));
        // Twenty keys a second are never slowed by a bucket that is filled a hundred times a second.
        let typist = Bucket::new(Duration::from_millis(10));
        for key in 1..=2_000 {
            let now = start + Duration::from_secs(1) + Duration::from_millis(50) * key;
            assert_eq!(typist.take(now, Duration::ZERO), Some(Duration::ZERO));
        }
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn user(name: &str) -> Identity {
        Identity::of_tenant(name, "home")
    }

    fn plan() -> DocId {
        DocId::parse("home:notes", "plan").unwrap()
    }

    #[test]
    fn a_document_has_a_pace_and_who_only_types_does_not_wait_for_it() {
        let limits = RateLimits::new(&GatewaySettings {
            document_ops_per_second: 100,
            ..GatewaySettings::default()
        });
        let share = |name| limits.for_socket(&user(name), HERE);
        let (mut eve, mut bob, mut ann) = (share("eve"), share("bob"), share("ann"));
        let other = DocId::parse("home:notes", "other").unwrap();
        let waits =
            |share: &mut SocketRateLimits, doc: &DocId| share.take(&limits, "home", Some(doc), 1);
        while waits(&mut eve, &plan()).is_some() {}
        assert_eq!(waits(&mut ann, &plan()), Some(Duration::ZERO));
        let assured = &bob.user.as_ref().unwrap().assured;
        while assured.take(Instant::now(), Duration::ZERO).is_some() {}
        assert_eq!(waits(&mut bob, &plan()), None, "too many wait already");
        assert_eq!(waits(&mut bob, &other), Some(Duration::ZERO));
    }

    /// Takes as many as there are at once.
    fn exhaust(limits: &RateLimits, share: &mut SocketRateLimits) {
        while share.take(limits, "home", None, 1).is_some() {}
    }

    #[test]
    fn who_types_does_not_wait_for_the_greedy_of_the_same_tenant() {
        let limits = RateLimits::new(&GatewaySettings {
            tenant_messages_per_second: 10,
            ..GatewaySettings::default()
        });
        let mut greedy = limits.for_socket(&user("eve"), HERE);
        exhaust(&limits, &mut greedy);
        let mut typist = limits.for_socket(&user("ann"), HERE);
        for _ in 0..ASSURED_PER_SECOND {
            let wait = typist.take(&limits, "home", Some(&plan()), 1);
            assert_eq!(wait, Some(Duration::ZERO));
        }
    }

    #[test]
    fn guests_count_towards_their_address_and_the_documents_tenant() {
        let limits = RateLimits::new(&GatewaySettings {
            user_messages_per_second: 100,
            tenant_ops_per_second: 1,
            ..GatewaySettings::default()
        });
        let guest = |cookie| Identity::of_link(cookie, "a link");
        let mut one = limits.for_socket(&guest("one"), HERE);
        exhaust(&limits, &mut one);
        // Another cookie is no other guest.
        let mut two = limits.for_socket(&guest("two"), HERE);
        assert_eq!(two.take(&limits, "home", None, 1), None);
        let there = IpAddr::from([192, 0, 2, 1]);
        let mut far = limits.for_socket(&guest("one"), there);
        for doc in [Some(&plan()), Some(&plan()), None] {
            assert_eq!(far.take(&limits, "acme", doc, 1), Some(Duration::ZERO));
        }
        let mut ann = limits.for_socket(&Identity::of_tenant("ann", "acme"), HERE);
        let wait = ann.take(&limits, "acme", Some(&plan()), 1);
        assert!(wait.is_some_and(|wait| !wait.is_zero()), "{wait:?}");
    }

    #[test]
    fn a_user_and_a_tenant_have_so_many_sockets() {
        let limits = RateLimits::new(&GatewaySettings {
            user_sockets_max: 2,
            tenant_sockets_max: 3,
            ..GatewaySettings::default()
        });
        let hold = |name| limits.reserve_socket(&user(name), HERE);
        let first = hold("ann").unwrap();
        let _second = hold("ann").unwrap();
        assert!(hold("ann").is_err());
        let _third = hold("bob").unwrap();
        assert!(hold("eve").is_err());
        drop(first);
        let _again = hold("ann").unwrap();
    }

    #[test]
    fn principals_of_one_address_are_apart_and_a_user_has_one_pace_for_all_sessions() {
        let limits = RateLimits::new(&GatewaySettings {
            address_handshakes_per_second: 1,
            user_handshakes_per_second: 5,
            ..GatewaySettings::default()
        });
        let strangers = (0..10).filter(|_| limits.allow_handshake(HERE, None));
        assert_eq!(strangers.count(), 2);
        let session = |number: usize| Some(RateLimitKey(format!("session {number}")));
        for office in 0..100 {
            assert!(limits.allow_handshake(HERE, session(office)));
        }
        let flood = (0..100).filter(|_| limits.allow_handshake(HERE, session(0)));
        assert_eq!(flood.count(), 9, "one of its ten is taken");
        let sessions = (0..100).filter(|number| {
            limits.allow_handshake(HERE, session(1_000 + number))
                && limits.allow_connect(&user("ann"))
        });
        assert_eq!(sessions.count(), 10, "a new session has no new pace");
        assert!(limits.allow_connect(&user("bob")));
        let proofs = (0..10_000)
            .filter(|_| limits.allow_token_check(HERE))
            .count();
        assert!(
            (4_000..10_000).contains(&proofs),
            "{proofs} tokens verified"
        );
    }

    #[test]
    fn each_has_a_bucket_of_its_own_that_is_forgotten() {
        let shared = Shared::new(1);
        let (ann, again, bob) = (
            shared.bucket("ann"),
            shared.bucket("ann"),
            shared.bucket("bob"),
        );
        assert!(Arc::ptr_eq(&ann, &again) && !Arc::ptr_eq(&ann, &bob));
    }
}
