//! Rate limits and quotas: token buckets for each socket, user, document, tenant and address, and the number of sockets that
//! a user and a tenant may have open.

mod socket_limits;
mod socket_quota;
mod token_bucket;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::sleep;

pub(super) use self::socket_limits::SocketRateLimits;
use self::socket_limits::{TenantBuckets, UserBuckets, WAIT_MAX};
use self::socket_quota::SocketQuota;
pub(super) use self::socket_quota::{SocketPermit, SocketQuotaExceeded};
use self::token_bucket::{KeyedBuckets, TokenBucket};
use super::settings::GatewaySettings;
use crate::auth::{Identity, RateLimitKey};
use crate::id::DocId;

/// The rate limits and quotas that all sockets and requests of the node share.
#[derive(Debug)]
pub(super) struct RateLimits {
    messages_per_second: u32,
    messages_burst: u32,
    /// Messages of each user; guests count by address.
    users: KeyedBuckets<String>,
    /// Messages that each user may send regardless of the load that others of the tenant cause.
    assured: KeyedBuckets<String>,
    /// Messages of each tenant.
    tenants: KeyedBuckets<String>,
    /// Ops of each tenant. `None`: not limited.
    ops: Option<KeyedBuckets<String>>,
    /// Ops of each document.
    documents: KeyedBuckets<DocId>,
    /// Handshakes and requests without credentials, by address.
    handshakes: KeyedBuckets<IpAddr>,
    requests: KeyedBuckets<IpAddr>,
    /// Bytes of large responses, by address.
    responses: KeyedBuckets<IpAddr>,
    /// Verifications of tokens of another application, by address.
    token_checks: KeyedBuckets<IpAddr>,
    /// Handshakes and requests with credentials, by principal: neither a flood from their address nor other users of the
    /// same address block them.
    principal_handshakes: KeyedBuckets<RateLimitKey>,
    principal_requests: KeyedBuckets<RateLimitKey>,
    /// Handshakes and requests of each user, in all sessions.
    user_handshakes: KeyedBuckets<String>,
    user_requests: KeyedBuckets<String>,
    user_sockets: SocketQuota,
    tenant_sockets: SocketQuota,
    /// A permit for each rejection that may be delayed at the same time.
    delayed_rejections: Semaphore,
}

/// How long a rejection is delayed.
const REJECTION_DELAY: Duration = Duration::from_secs(1);

/// How many rejections are delayed at the same time, of all addresses.
const DELAYED_REJECTIONS_MAX: usize = 2_000;

/// How many tokens a second are verified for one address before its requests count as requests without credentials; twice
/// as many in a burst. An office of 4,000 users can reconnect at once, and a flood of forged tokens takes a tenth of a
/// processor.
const TOKEN_CHECKS_PER_SECOND: u32 = 2_000;

/// The messages a second of a user that are not delayed by other users. A user types at most 20 keys a second.
const ASSURED_PER_SECOND: u32 = 50;

impl RateLimits {
    /// Limits with all buckets full.
    pub(super) fn new(settings: &GatewaySettings) -> Self {
        let ops = settings.tenant_ops_per_second;
        Self {
            messages_per_second: settings.messages_per_second,
            messages_burst: settings.messages_burst,
            users: KeyedBuckets::new(settings.user_messages_per_second),
            assured: KeyedBuckets::new(ASSURED_PER_SECOND),
            tenants: KeyedBuckets::new(settings.tenant_messages_per_second),
            ops: (ops > 0).then(|| KeyedBuckets::new(ops)),
            documents: KeyedBuckets::new(settings.document_ops_per_second),
            handshakes: KeyedBuckets::new(settings.address_handshakes_per_second),
            requests: KeyedBuckets::new(settings.address_requests_per_second),
            responses: KeyedBuckets::new(settings.address_answer_bytes_per_second),
            token_checks: KeyedBuckets::new(TOKEN_CHECKS_PER_SECOND),
            principal_handshakes: KeyedBuckets::new(settings.user_handshakes_per_second),
            principal_requests: KeyedBuckets::new(settings.address_requests_per_second),
            user_handshakes: KeyedBuckets::new(settings.user_handshakes_per_second),
            user_requests: KeyedBuckets::new(settings.user_requests_per_second),
            user_sockets: SocketQuota::new(settings.user_sockets_max),
            tenant_sockets: SocketQuota::new(settings.tenant_sockets_max),
            delayed_rejections: Semaphore::new(DELAYED_REJECTIONS_MAX),
        }
    }

    /// Delays the rejection of a request over a rate limit, which slows down clients that wait for the response before they
    /// try again. Returns at once if too many rejections are delayed already: each keeps the buffers of its connection.
    pub(super) async fn delay_rejection(&self) {
        if let Ok(_permit) = self.delayed_rejections.try_acquire() {
            sleep(REJECTION_DELAY).await;
        }
    }

    /// The limits of a new socket.
    pub(super) fn for_socket(&self, identity: &Identity, address: IpAddr) -> SocketRateLimits {
        let (per_second, burst) = (self.messages_per_second, self.messages_burst);
        let socket = TokenBucket::with_burst_tokens(per_second, burst, Instant::now());
        if identity.is_unrestricted() {
            return SocketRateLimits::of_socket(socket);
        }
        let key = user_key(identity, address);
        let user = UserBuckets {
            messages: self.users.bucket(key.clone()),
            assured: self.assured.bucket(key),
        };
        SocketRateLimits::of_user(socket, user, identity.tenant())
    }

    /// Counts a socket of its user and of its tenant while the permits are held.
    ///
    /// # Errors
    /// If the user or the tenant has as many sockets open as it may have.
    pub(super) fn reserve_socket(
        &self,
        identity: &Identity,
        address: IpAddr,
    ) -> Result<[Option<SocketPermit>; 2], SocketQuotaExceeded> {
        if identity.is_unrestricted() {
            return Ok([None, None]);
        }
        let user = self.user_sockets.acquire(&user_key(identity, address))?;
        let tenant = identity
            .tenant()
            .map(|tenant| self.tenant_sockets.acquire(tenant));
        Ok([user, tenant.transpose()?.flatten()])
    }

    /// Whether one more token may be verified for an address.
    pub(super) fn allow_token_check(&self, address: IpAddr) -> bool {
        self.token_checks.allow(address)
    }

    /// Whether a handshake is within the limit of its principal or, without one, of its address.
    pub(super) fn allow_handshake(&self, address: IpAddr, principal: Option<RateLimitKey>) -> bool {
        match principal {
            Some(principal) => self.principal_handshakes.allow(principal),
            None => self.handshakes.allow(address),
        }
    }

    /// Whether a handshake is within the limit of its user, which all sessions of the user share.
    pub(super) fn allow_connect(&self, identity: &Identity) -> bool {
        let user = identity.user_id().map(|user| user.0.clone());
        user.is_none_or(|user| self.user_handshakes.allow(user))
    }

    /// Whether a request is within the limit of its principal or, without one, of its address.
    pub(super) fn allow_request(&self, address: IpAddr, principal: Option<RateLimitKey>) -> bool {
        match principal {
            Some(principal) => self.principal_requests.allow(principal),
            None => self.requests.allow(address),
        }
    }

    /// Whether a request is within the limit of its user.
    pub(super) fn allow_user_request(&self, identity: &Identity) -> bool {
        let user = identity.user_id().map(|user| user.0.clone());
        user.is_none_or(|user| self.user_requests.allow(user))
    }

    /// How long a response of so many bytes to an address must be delayed. `None` if that is too long, so that the request
    /// must be rejected.
    pub(super) fn response_delay(&self, address: IpAddr, bytes: u64) -> Option<Duration> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let bucket = self.responses.bucket(address);
        bucket.try_take(Instant::now(), bytes, WAIT_MAX)
    }

    fn tenant(&self, tenant: &str) -> TenantBuckets {
        let key = || tenant.to_owned();
        TenantBuckets {
            messages: self.tenants.bucket(key()),
            ops: self.ops.as_ref().map(|ops| ops.bucket(key())),
        }
    }
}

/// The key of a user or, since cookies are easy to discard, of a guest's address.
fn user_key(identity: &Identity, address: IpAddr) -> String {
    match identity.user_id() {
        Some(user) => user.0.clone(),
        None => format!("guest {address}"),
    }
}

#[cfg(test)]
mod tests;
