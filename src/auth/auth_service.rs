//! The door: who comes in as whom, and what they may do.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{sleep, timeout};

use super::device::KnownDevice;
use super::identity::Identity;
use super::login_throttle::{AttemptKey, LoginThrottle, network};
use super::origin;
use super::password::{PasswordError, Passwords};
use super::priority_queue::{CallerClass, Overloaded, Priority};
use super::revocation_hub::{RevocationHub, RevocationSubscription};
use super::settings::{AuthMode, AuthSettings, Registration};
use super::token_signer::{TokenSigner, hashed, random_text};
use super::token_verifier::{TokenClaims, TokenKeyError, TokenVerifier};
use super::usage_quota::UsageQuota;
use crate::access::{
    Account, AccountDraft, Admission, CreateAccountError, DocumentRegistration, HOME_TENANT,
    NewInvitation, NewShareLink, PasswordReset, Permission, Principal, Renewal, Role, SessionKey,
    ShareError, ShareLink, Subject,
};
use crate::id::DocId;
use crate::outage::Outage;
use crate::store::{AccessStore, REVOCATIONS_PAGE, StoreError};
use crate::sync::lock;

/// How long somebody stays signed in, renewed or not.
pub const SESSION_LASTS: Duration = Duration::from_hours(30 * 24);

/// How long a refresh token that was just exchanged is no sign of a thief: two tabs may do it at once.
const GRACE: Duration = Duration::from_secs(10);

/// How often revocations of other nodes are read.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How long somebody who is let may choose a new password.
const RESET_LASTS: Duration = Duration::from_hours(24);

/// How long an invitation can be used.
const INVITATION_LASTS: Duration = Duration::from_hours(7 * 24);

/// How many share links one browser has open; the oldest is forgotten first.
const LINKS_MAX: usize = 20;

/// How many attempts wait at once because the throttle delays them.
const DELAYED_MAX: usize = 1_000;

/// How many audit lines wait at once to be written after an answer.
const NOTES_MAX: usize = 100;

/// The priority of what a session, a code or an invitation has the right to.
const KNOWN: Priority = Priority {
    class: CallerClass::Known,
    rank: 0,
};

const NOT_INVITED: AuthError = AuthError::Wrong("accounts are made by invitation here");

/// The shortest password, in characters, and the longest, in bytes.
pub const PASSWORD_CHARS_MIN: usize = 8;
const PASSWORD_BYTES_MAX: usize = 1_000;

/// The longest name or login, in characters.
const NAME_CHARS_MAX: usize = 100;

/// Lets people in, and says what they may do.
pub struct AuthService {
    settings: AuthSettings,
    /// None only where everybody may do everything.
    accounts: Option<Arc<dyn AccessStore>>,
    verifier: Option<TokenVerifier>,
    signer: TokenSigner,
    passwords: Passwords,
    throttle: Mutex<LoginThrottle>,
    /// Taken by attempts that the throttle delays.
    delayed: Semaphore,
    /// Taken by audit lines that are written after an answer.
    notes: Arc<Semaphore>,
    revocations: Arc<RevocationHub>,
    usage: UsageQuota,
    /// Rights were changed on this node: not to be waited for.
    changed: Notify,
    /// Whether the store has gone back in time, and the numbers of its revocations with it.
    is_rewound: AtomicBool,
    started: Instant,
}

/// Why there is no door.
#[derive(Debug, Error)]
pub enum AuthSetupError {
    /// SessionTokens cannot be looked at.
    #[error(transparent)]
    Keys(#[from] TokenKeyError),
    /// The store keeps no people.
    #[error("auth.mode is {0}, and this store keeps no accounts: serve with --open")]
    NoAccounts(&'static str),
}

/// Names whose pace a request counts towards before the store is asked about it: one session, one user of another
/// application, or one user's browsers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RateLimitKey(pub String);

/// What a request brings along.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// The access token, or another application's token.
    pub access: Option<String>,
    /// The share links that were opened.
    pub links: Option<String>,
    /// What tells guests apart.
    pub guest: Option<String>,
    /// Which accounts have signed in with this browser before.
    pub device: Option<String>,
}

/// An account that is asked for.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// What it signs in by.
    pub login: String,
    /// What others see.
    pub name: String,
    /// The password.
    pub password: String,
    /// The code of an invitation, or the set-up code.
    pub invitation: Option<String>,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct RequestSource {
    /// The client's address.
    pub address: IpAddr,
    /// Whether the client is a program on the server's machine that asks for it by a name of this machine.
    pub is_own_machine: bool,
}

/// What signs somebody in.
#[derive(Debug, Clone)]
pub struct SessionTokens {
    /// Good for [`AuthService::access_lasts`].
    pub access: String,
    /// Good once; none where another tab has the next one.
    pub refresh: Option<String>,
    /// For the browser to keep: strangers' failed attempts do not delay its next sign-in. None where it has it already.
    pub device: Option<String>,
}

/// Why something about people was not done.
#[derive(Debug, Error)]
pub enum AuthError {
    /// Too many attempts: try again after this.
    #[error("too many attempts: try again in {} s", .0.as_secs().max(1))]
    Wait(Duration),
    /// Too much is under way.
    #[error("too much is under way: try again")]
    Busy,
    /// The login, the password, the code or the link is not right; which, is not said.
    #[error("{0}")]
    Wrong(&'static str),
    /// What was asked for cannot be.
    #[error("{0}")]
    Unfit(String),
    /// A quota is reached.
    #[error("{0}")]
    Full(&'static str),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Overloaded> for AuthError {
    fn from(_: Overloaded) -> Self {
        Self::Busy
    }
}

impl From<PasswordError> for AuthError {
    fn from(why: PasswordError) -> Self {
        match why {
            PasswordError::Overloaded => Self::Busy,
            PasswordError::Guessable => Self::Unfit(
                "this password is easy to guess: choose a longer one, or several unusual words"
                    .to_owned(),
            ),
        }
    }
}

impl AuthService {
    /// A door in front of `accounts`. Reads keys, so it may block for some seconds at the start.
    ///
    /// # Errors
    /// When the mode needs what is not there.
    pub fn open(
        settings: AuthSettings,
        accounts: Option<Arc<dyn AccessStore>>,
        secret: &[u8; 32],
    ) -> Result<Arc<Self>, AuthSetupError> {
        if settings.mode != AuthMode::Open && accounts.is_none() {
            return Err(AuthSetupError::NoAccounts(settings.mode.as_str()));
        }
        let verifier = match settings.mode {
            AuthMode::Tokens => Some(TokenVerifier::open(&settings)?),
            AuthMode::Open | AuthMode::Accounts => None,
        };
        Ok(Arc::new(Self {
            usage: UsageQuota::new(settings.tenant_mib_max << 20),
            settings,
            accounts,
            verifier,
            signer: TokenSigner::new(secret),
            passwords: Passwords::new(),
            throttle: Mutex::default(),
            delayed: Semaphore::new(DELAYED_MAX),
            notes: Arc::new(Semaphore::new(NOTES_MAX)),
            revocations: Arc::default(),
            changed: Notify::new(),
            is_rewound: AtomicBool::new(false),
            started: Instant::now(),
        }))
    }

    /// How people say who they are.
    #[must_use]
    pub fn mode(&self) -> AuthMode {
        self.settings.mode
    }

    /// Who may make an account.
    #[must_use]
    pub fn registration(&self) -> Registration {
        self.settings.registration
    }

    /// How long an access token is good, and a session that is not renewed.
    #[must_use]
    pub fn access_lasts(&self) -> Duration {
        Duration::from_secs(self.settings.access_seconds)
    }

    /// Whether a proxy says the clients' addresses.
    #[must_use]
    pub fn is_behind_proxy(&self) -> bool {
        self.settings.behind_proxy
    }

    /// Whether a page of `origin` may act for its user; in open mode, for whoever's machine it runs on. There a proxy in
    /// front may keep the port to itself.
    #[must_use]
    pub fn allows_origin(&self, origin: Option<&str>, host: &str, is_tls: bool) -> bool {
        let in_trial = self.mode() == AuthMode::Open && origin::may_be_ours(origin, host);
        in_trial || origin::may_act(origin, host, is_tls, &self.settings.origins)
    }

    /// Whether a request that was sent to `host` may have been meant for us; `is_local`: it comes from this machine.
    ///
    /// A page of another site can point a name of its own at this machine (DNS rebinding). What it asks for by that name
    /// is refused, in open mode and because it could make the first account. Where a proxy in front is declared, the names
    /// are the proxy's to check.
    #[must_use]
    pub fn allows_host(&self, host: Option<&str>, is_local: bool) -> bool {
        !is_local
            || (self.settings.behind_proxy && self.mode() != AuthMode::Open)
            || host.is_none_or(|host| origin::is_here(host, &self.settings.origins))
    }

    /// Where people are kept.
    ///
    /// # Panics
    /// In open mode, where nobody has an account: whoever asks has looked at the mode.
    #[must_use]
    pub fn accounts(&self) -> &dyn AccessStore {
        self.accounts
            .as_deref()
            .expect("only open mode goes without accounts")
    }

    /// Who it is that brings these; `None`: nobody we know, who has opened no share link either.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn identify(&self, brought: &Credentials) -> Result<Option<Identity>, StoreError> {
        let guest = brought.guest.as_deref();
        let links = || {
            let token = brought.links.as_deref().unwrap_or_default();
            self.signer.open_links(token)
        };
        let access = brought.access.as_deref().unwrap_or_default();
        let found = match self.mode() {
            AuthMode::Open => Some(Identity::unrestricted(guest)),
            AuthMode::Accounts => match self.signer.open_access(access, now_seconds()) {
                None => None,
                Some(key) => {
                    let live = self.accounts().session(key.clone()).await?;
                    // A session that nobody has renewed is not over, but cannot be used until somebody does.
                    let lasts = self.access_lasts();
                    live.filter(|live| live.age < lasts)
                        .map(|live| Identity::from_session(key, live, links(), lasts))
                }
            },
            AuthMode::Tokens => {
                let host = self.verifier.as_ref().filter(|_| !access.is_empty());
                match host.and_then(|host| host.claims(access)) {
                    None => None,
                    Some(claims) => self.vouched(claims, links()).await?,
                }
            }
        };
        Ok(found.or_else(|| {
            let links = links();
            (!links.is_empty()).then(|| Identity::guest(guest, links))
        }))
    }

    /// Whoever another application vouches for, unless the tokens that it has issued for them until then were ended.
    async fn vouched(
        &self,
        claims: TokenClaims,
        links: Vec<Subject>,
    ) -> Result<Option<Identity>, StoreError> {
        let issued_at = claims.iat.unwrap_or(0);
        // What has run out by our own clock opens no page either: its socket would be closed at once.
        let identity = Identity::from_claims(claims, links);
        let Some(identity) = identity.filter(|identity| identity.lasts != Some(Duration::ZERO))
        else {
            return Ok(None);
        };
        let ended = match identity.user_id() {
            None => None,
            Some(user) => self.accounts().tokens_ended(user.clone()).await?,
        };
        Ok(ended
            .is_none_or(|until| issued_at > until)
            .then_some(identity))
    }

    /// Looks again at somebody who has come in: how much longer they may be believed; none: no longer.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn revalidate(&self, identity: &Identity) -> Result<Option<Duration>, StoreError> {
        match (&identity.session, identity.until) {
            (Some(key), _) => {
                let live = self.accounts().session(key.clone()).await?;
                let lasts = live.and_then(|live| self.access_lasts().checked_sub(live.age));
                Ok(lasts.filter(|lasts| !lasts.is_zero()))
            }
            // A token says once and for all how long it holds.
            (None, Some(until)) => {
                let lasts = until.saturating_duration_since(Instant::now());
                Ok((!lasts.is_zero()).then_some(lasts))
            }
            (None, None) => Ok(Some(Duration::MAX)),
        }
    }

    /// What somebody may do with each of these documents, in the same order.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn permissions(
        &self,
        identity: &Identity,
        docs: Vec<DocId>,
    ) -> Result<Vec<Permission>, StoreError> {
        let Some(who) = &identity.principal else {
            let all = Permission {
                role: Some(Role::Owner),
                lasts: None,
            };
            return Ok(vec![all; docs.len()]);
        };
        let rights = self
            .accounts()
            .permissions(who.clone(), docs.clone())
            .await?;
        let both = docs.iter().zip(rights);
        Ok(both
            .map(|(doc, right)| identity.with_grants(doc, right))
            .collect())
    }

    /// What somebody may do with a document.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn role(&self, identity: &Identity, doc: &DocId) -> Result<Option<Role>, StoreError> {
        let rights = self.permissions(identity, vec![doc.clone()]).await?;
        Ok(rights[0].role)
    }

    /// Gives a subject a role on a document or takes it.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn set_role(
        &self,
        doc: DocId,
        subject: Subject,
        role: Option<Role>,
        by: Principal,
    ) -> Result<Result<(), ShareError>, StoreError> {
        // The owner is not counted.
        let most = self.settings.document_people_max.saturating_add(1);
        self.accounts().set_role(doc, subject, role, by, most).await
    }

    /// Makes a document that nobody knows somebody's own, if they may.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn claim_ownership(
        &self,
        identity: &Identity,
        doc: &DocId,
    ) -> Result<DocumentRegistration, StoreError> {
        let Some(user) = identity.user_id().filter(|_| identity.may_create(doc)) else {
            return Ok(DocumentRegistration::Exists);
        };
        let most = self.settings.tenant_documents_max;
        let most = (most > 0).then_some(most);
        self.accounts()
            .register_document(doc.clone(), user.clone(), most)
            .await
    }

    /// Counts bytes that somebody wants to add to what a tenant keeps; `false`: the tenant keeps as much as it may.
    #[must_use]
    pub fn try_add_bytes(&self, tenant: &str, bytes: usize) -> bool {
        self.usage.try_add(tenant, bytes as u64)
    }

    /// How often sockets were told of revocations: see [`RevocationHub::generation`].
    #[must_use]
    pub fn revocation_generation(&self) -> u64 {
        self.revocations.generation()
    }

    /// Listens for changes of somebody's rights since `told`.
    #[must_use]
    pub fn subscribe_revocations(&self, identity: &Identity, told: u64) -> RevocationSubscription {
        self.revocations
            .subscribe(identity.subjects(), identity.session.clone(), told)
    }

    /// Says that rights were changed here, so that nobody waits for the next look.
    pub fn permissions_changed(&self) {
        self.changed.notify_one();
    }

    /// What revocations there are: asked for before anybody is let in, and handed to [`keep`](Self::keep).
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn last_revocation(&self) -> Result<u64, StoreError> {
        match self.mode() {
            AuthMode::Open => Ok(0),
            AuthMode::Accounts | AuthMode::Tokens => self.accounts().last_revocation().await,
        }
    }

    /// Tells this node's sockets of revocations after `known`, and keeps another application's keys fresh. Never ends.
    pub async fn run(&self, known: u64) {
        if self.mode() == AuthMode::Open {
            return std::future::pending().await;
        }
        let keys = async {
            if let Some(host) = &self.verifier {
                host.keep_fresh().await;
            }
        };
        let bytes = self.usage.run(self.accounts());
        tokio::join!(self.keep_watch(known), keys, bytes);
    }

    /// Revocations are read on from where they end now: the store went back in time, and would give numbers again that this
    /// node has passed. All sockets of before are closed.
    pub fn store_rewound(&self) {
        self.is_rewound.store(true, Ordering::SeqCst);
        self.changed.notify_one();
    }

    async fn keep_watch(&self, mut known: u64) {
        let outage = Outage::new();
        loop {
            match self.read_revocations(&mut known).await {
                Err(error) if outage.begins() => {
                    tracing::warn!(%error, "the store did not answer which rights were revoked");
                }
                Err(_) => {}
                Ok(()) => {
                    if let Some(past) = outage.ends() {
                        let (failures, seconds) = (past.failures, past.lasted.as_secs());
                        tracing::info!(
                            failures,
                            seconds,
                            "the store answers which rights were revoked again"
                        );
                    }
                }
            }
            // Woken or not: both are a reason to look.
            let _ = timeout(POLL_INTERVAL, self.changed.notified()).await;
        }
    }

    /// Reads and tells the revocations after `known`; after the store went back in time, those from now on.
    async fn read_revocations(&self, known: &mut u64) -> Result<(), StoreError> {
        if self.is_rewound.swap(false, Ordering::SeqCst) {
            let newest = self.last_revocation().await;
            *known = newest.inspect_err(|_| self.is_rewound.store(true, Ordering::SeqCst))?;
        }
        self.tell_news(known).await
    }

    /// Tells what happened since `known`, and moves it along.
    async fn tell_news(&self, known: &mut u64) -> Result<(), StoreError> {
        loop {
            let news = self.accounts().revocations(*known).await?;
            for revocation in &news {
                *known = revocation.sequence;
                self.revocations.publish(revocation);
            }
            if news.len() < REVOCATIONS_PAGE {
                return Ok(());
            }
        }
    }
}

/// What people do about their accounts.
impl AuthService {
    /// Makes an account and signs in: the first, with an invitation, or where everybody may.
    ///
    /// # Errors
    /// When it is not made.
    pub async fn register(
        &self,
        asked: &NewAccount,
        brought: &Credentials,
        from: RequestSource,
    ) -> Result<SessionTokens, AuthError> {
        let (login, name) = (clean_login(&asked.login)?, clean_name(&asked.name)?);
        check_password(&asked.password)?;
        let admission = self.admission(asked.invitation.as_deref(), from).await?;
        let priority = match admission {
            Admission::First | Admission::Invited(_) => KNOWN,
            // There is no success that would clear this: an address makes so many accounts in a time.
            Admission::Open { .. } => {
                let keys = [AttemptKey::Network(network(from.address))];
                self.throttle_attempt(CallerClass::Stranger, &keys).await?
            }
        };
        let names = vec![login.clone(), name.clone()];
        let hash = self.passwords.hash(priority, asked.password.clone(), names);
        let user = AccountDraft {
            id: Subject(random_text()),
            tenant: HOME_TENANT.to_owned(),
            login,
            name,
            password: hash.await?,
        };
        let id = user.id.clone();
        match self.accounts().create_account(user, admission).await? {
            Ok(()) => self.begin_session(id, brought).await,
            Err(CreateAccountError::LoginTaken) => Err(AuthError::Unfit(
                "somebody signs in by that name already".to_owned(),
            )),
            Err(CreateAccountError::NotFirst | CreateAccountError::NotInvited) => Err(NOT_INVITED),
            Err(CreateAccountError::QuotaReached) => Err(AuthError::Full(
                "no more accounts can be made without an invitation: ask the owner for one",
            )),
        }
    }

    /// By what right an account is made. Asked before a password is hashed for it, and before anything is said of its
    /// login.
    async fn admission(
        &self,
        code: Option<&str>,
        from: RequestSource,
    ) -> Result<Admission, AuthError> {
        const NO_CODE: AuthError = AuthError::Wrong(
            "the first account is made on the server's own machine, or with the set-up code that the server's log shows",
        );
        let is_set_up = self.accounts().has_accounts().await?;
        match code {
            Some(code) if !is_set_up && hashed(code) == hashed(&self.setup_code()) => {
                Ok(Admission::First)
            }
            Some(code) if self.accounts().is_invitation_valid(hashed(code)).await? => {
                Ok(Admission::Invited(hashed(code)))
            }
            _ if !is_set_up && !from.is_own_machine => Err(NO_CODE),
            None if !is_set_up => Ok(Admission::First),
            None if self.registration() == Registration::Open => Ok(Admission::Open {
                accounts_max: self.settings.accounts_max,
            }),
            _ => Err(NOT_INVITED),
        }
    }

    /// The user who signed in last with the browser that has this cookie.
    #[must_use]
    pub fn last_user_of_device(&self, device: &str) -> Option<Subject> {
        let device = KnownDevice::open(&self.signer, Some(device));
        device.users.into_iter().next()
    }

    /// The principal that a request's cookies prove by their seals, without a look into the store: the session of an access
    /// token that has not expired, or the user who signed in last with this browser.
    ///
    /// Whether the session still lives is not known yet: this decides which pace the request counts towards, and lets
    /// nobody in.
    #[must_use]
    pub fn rate_limit_key_from_cookies(&self, brought: &Credentials) -> Option<RateLimitKey> {
        let access = brought.access.as_deref().unwrap_or_default();
        let session = match self.mode() {
            AuthMode::Accounts => self.signer.open_access(access, now_seconds()),
            AuthMode::Open | AuthMode::Tokens => None,
        };
        if let Some(SessionKey(session)) = session {
            return Some(RateLimitKey(format!("session {session}")));
        }
        let user = self.last_user_of_device(brought.device.as_deref()?)?;
        Some(RateLimitKey(format!("device of {}", user.0)))
    }

    /// The principal that another application's token proves. Verifying its signature takes a processor up to a tenth of a
    /// millisecond: the caller limits how often.
    #[must_use]
    pub fn rate_limit_key_from_token(&self, brought: &Credentials) -> Option<RateLimitKey> {
        let access = brought
            .access
            .as_deref()
            .filter(|access| !access.is_empty())?;
        let host = self
            .verifier
            .as_ref()
            .filter(|_| self.mode() == AuthMode::Tokens)?;
        let claims = host.claims(access)?;
        let tenant = claims.tenant.unwrap_or_default();
        Some(RateLimitKey(format!("user {tenant}/{}", claims.sub)))
    }

    /// The code with which the first account can be made from another machine. It is worth nothing once there is one.
    #[must_use]
    pub fn setup_code(&self) -> String {
        self.signer.setup_code()
    }

    /// Signs in.
    ///
    /// # Errors
    /// When the login and the password do not belong together, or too much is under way.
    pub async fn sign_in(
        self: &Arc<Self>,
        login: &str,
        password: &str,
        brought: &Credentials,
        from: IpAddr,
    ) -> Result<SessionTokens, AuthError> {
        const WRONG: AuthError = AuthError::Wrong("the name or the password is not right");
        let Ok(login) = clean_login(login) else {
            return Err(WRONG);
        };
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(WRONG);
        }
        let user = self.accounts().account_by_login(login.clone()).await?;
        let (class, keys) = self.sign_in_keys(&login, user.as_ref(), brought, from);
        let hash = user.as_ref().map(|user| user.password.clone());
        let stored = hash.clone().unwrap_or_default();
        if self.throttle().is_known_wrong(&keys[1], password, &stored) {
            return Err(WRONG);
        }
        let priority = self.throttle_attempt(class, &keys).await?;
        let right = self
            .passwords
            .verify(priority, password.to_owned(), hash)
            .await?;
        if !right {
            self.throttle().was_wrong(&keys[1], password, &stored);
        }
        match user {
            Some(user) if right && !user.disabled => {
                self.throttle().succeeded(&keys);
                self.begin_session(user.id, brought).await
            }
            Some(user) => {
                self.audit_later(user.id, "fail to sign in");
                Err(WRONG)
            }
            None => Err(WRONG),
        }
    }

    /// What an attempt to sign in counts towards: a device that has signed in to the account before has a count of its
    /// own, all others share that of their network. The second key is that of the account.
    fn sign_in_keys(
        &self,
        login: &str,
        user: Option<&Account>,
        brought: &Credentials,
        from: IpAddr,
    ) -> (CallerClass, [AttemptKey; 2]) {
        let device = KnownDevice::open(&self.signer, brought.device.as_deref());
        match user.filter(|user| device.knows(&user.id)) {
            Some(user) => {
                let name = user.id.0.clone();
                let keys = [
                    AttemptKey::KnownUser(name.clone()),
                    AttemptKey::Device(device.id, name),
                ];
                (CallerClass::Known, keys)
            }
            None => {
                let from = network(from);
                let keys = [
                    AttemptKey::Network(from),
                    AttemptKey::Account(from, format!("login {login}")),
                ];
                (CallerClass::Stranger, keys)
            }
        }
    }

    /// Renews a session.
    ///
    /// # Errors
    /// When the token is not the newest of a session that lives.
    pub async fn refresh(&self, token: &str) -> Result<SessionTokens, AuthError> {
        const OVER: AuthError = AuthError::Wrong("sign in again");
        let key = self.signer.open_refresh(token).ok_or(OVER)?;
        let next = self.signer.refresh(&key);
        let accounts = self.accounts();
        let renewal = accounts
            .renew_session(key.clone(), hashed(token), hashed(&next), GRACE)
            .await?;
        match renewal {
            Renewal::Renewed => Ok(self.tokens(&key, Some(next))),
            Renewal::JustRenewed => Ok(self.tokens(&key, None)),
            Renewal::Ended => Err(OVER),
            Renewal::Reused => {
                tracing::warn!("a refresh token was used twice: its session is ended");
                self.permissions_changed();
                Err(OVER)
            }
        }
    }

    /// Ends the session that these tokens belong to, if there is one.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn sign_out(
        &self,
        access: Option<&str>,
        refresh: Option<&str>,
    ) -> Result<(), StoreError> {
        let key = access
            .and_then(|token| self.signer.open_access(token, 0))
            .or_else(|| refresh.and_then(|token| self.signer.open_refresh(token)));
        if let Some(key) = key {
            self.accounts().end_session(key).await?;
            self.permissions_changed();
        }
        Ok(())
    }

    /// Ends all sessions of a user.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn sign_out_everywhere(&self, user: &Subject) -> Result<(), StoreError> {
        let accounts = self.accounts();
        accounts.end_sessions_of(user.clone(), user.clone()).await?;
        self.permissions_changed();
        Ok(())
    }

    /// Changes somebody's password. Their other sessions end.
    ///
    /// # Errors
    /// When the present password is not right or the new one will not do.
    pub async fn change_password(
        &self,
        identity: &Identity,
        present: &str,
        next: &str,
    ) -> Result<(), AuthError> {
        const WRONG: AuthError = AuthError::Wrong("the password is not right");
        check_password(next)?;
        if present.len() > PASSWORD_BYTES_MAX {
            return Err(WRONG);
        }
        let id = identity.user_id().ok_or(WRONG)?;
        let session = identity.session.clone().ok_or(WRONG)?;
        let keys = [
            AttemptKey::KnownUser(id.0.clone()),
            AttemptKey::Device(session.0, id.0.clone()),
        ];
        let priority = self.throttle_attempt(CallerClass::Known, &keys).await?;
        let user = self.accounts().account(id.clone()).await?.ok_or(WRONG)?;
        let verified = self
            .passwords
            .verify(priority, present.to_owned(), Some(user.password));
        if !verified.await? {
            return Err(WRONG);
        }
        self.throttle().succeeded(&keys);
        let names = vec![user.login, user.name];
        let hash = self
            .passwords
            .hash(priority, next.to_owned(), names)
            .await?;
        let accounts = self.accounts();
        accounts
            .set_password(user.id, hash, identity.session.clone())
            .await?;
        self.permissions_changed();
        Ok(())
    }

    /// Gives a user of the tenant a role on all of it, or takes it; `false`: there is no such user.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn set_tenant_role(
        &self,
        by: &Identity,
        login: &str,
        role: Option<Role>,
    ) -> Result<bool, AuthError> {
        let (by, user) = self.other_user(by, login).await?;
        let changed = self.accounts().set_tenant_role(user, role, by).await?;
        self.permissions_changed();
        Ok(changed)
    }

    /// Ends all sessions of another user of the tenant.
    ///
    /// # Errors
    /// When there is no such user or the store does not answer.
    pub async fn end_user_sessions(&self, by: &Identity, login: &str) -> Result<(), AuthError> {
        let (by, user) = self.other_user(by, login).await?;
        self.accounts().end_sessions_of(user, by).await?;
        self.permissions_changed();
        Ok(())
    }

    /// Closes another user's account or opens it again.
    ///
    /// # Errors
    /// When there is no such user or the store does not answer.
    pub async fn set_disabled(
        &self,
        by: &Identity,
        login: &str,
        disabled: bool,
    ) -> Result<(), AuthError> {
        let (by, user) = self.other_user(by, login).await?;
        self.accounts().set_disabled(user, disabled, by).await?;
        self.permissions_changed();
        Ok(())
    }

    /// A code that lets another user choose a new password.
    ///
    /// # Errors
    /// When there is no such user or the store does not answer.
    pub async fn allow_reset(&self, by: &Identity, login: &str) -> Result<String, AuthError> {
        let (by, user) = self.other_user(by, login).await?;
        let code = random_text();
        let reset = PasswordReset {
            code: hashed(&code),
            user,
            lasts: RESET_LASTS,
        };
        self.accounts().create_reset(reset, by).await?;
        Ok(code)
    }

    /// Chooses a new password by such a code, and signs in. All other sessions end.
    ///
    /// # Errors
    /// When the code is good for nothing or the password will not do.
    pub async fn reset_password(
        &self,
        code: &str,
        password: &str,
        brought: &Credentials,
    ) -> Result<SessionTokens, AuthError> {
        const WRONG: AuthError = AuthError::Wrong("the link is good for nothing (any more)");
        check_password(password)?;
        // A code has 128 bits: guesses at it need no throttle besides the pace of requests.
        let code = hashed(code);
        if !self.accounts().is_reset_valid(code).await? {
            return Err(WRONG);
        }
        let hash = self.passwords.hash(KNOWN, password.to_owned(), Vec::new());
        let reset = self.accounts().reset_password(code, hash.await?).await?;
        self.permissions_changed();
        self.begin_session(reset.ok_or(WRONG)?, brought).await
    }

    /// Who asks, and another user of their tenant.
    async fn other_user(
        &self,
        by: &Identity,
        login: &str,
    ) -> Result<(Subject, Subject), AuthError> {
        const NOBODY: AuthError = AuthError::Wrong("nobody else here signs in by that name");
        let me = by.user_id().ok_or(NOBODY)?;
        let tenant = by.tenant().ok_or(NOBODY)?;
        let user = if self.mode() == AuthMode::Tokens {
            // The application has the users; by whatever name it knows one, there is nobody else of that name.
            Subject(format!("{tenant}:{login}"))
        } else {
            let found = self
                .accounts()
                .account_by_login(clean_login(login)?)
                .await?;
            found.filter(|user| user.tenant == tenant).ok_or(NOBODY)?.id
        };
        if user == *me {
            return Err(NOBODY);
        }
        Ok((me.clone(), user))
    }

    /// A code that lets somebody make an account in the tenant of `by`.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn invite(&self, by: &Identity, role: Option<Role>) -> Result<String, AuthError> {
        let user = by
            .user_id()
            .ok_or(AuthError::Wrong("sign in first"))?
            .clone();
        let code = random_text();
        let invitation = NewInvitation {
            code: hashed(&code),
            id: Subject(random_text()),
            tenant: by.tenant().unwrap_or(HOME_TENANT).to_owned(),
            role,
            lasts: INVITATION_LASTS,
            invitations_max: self.settings.tenant_invitations_max,
        };
        match self.accounts().create_invitation(invitation, user).await? {
            true => Ok(code),
            false => Err(AuthError::Full(
                "the tenant has as many open invitations as it may: end some of them first",
            )),
        }
    }

    /// Makes a share link: its secret, for the address; not where `by` does not own the document.
    ///
    /// # Errors
    /// When it is not made.
    pub async fn create_link(
        &self,
        by: Principal,
        doc: &DocId,
        role: Role,
        password: Option<&str>,
        lasts: Option<Duration>,
    ) -> Result<(Subject, String), AuthError> {
        let password = match password {
            None => None,
            Some(password) => {
                check_password(password)?;
                let hash = self.passwords.hash(KNOWN, password.to_owned(), Vec::new());
                Some(hash.await?)
            }
        };
        let secret = random_text();
        let link = NewShareLink {
            id: Subject(random_text()),
            doc: doc.clone(),
            role,
            secret: hashed(&secret),
            password,
            lasts,
            links_max: self.settings.document_links_max,
        };
        let id = link.id.clone();
        match self.accounts().create_link(link, by).await? {
            Ok(()) => Ok((id, secret)),
            Err(ShareError::QuotaReached) => Err(AuthError::Full(
                "the document has as many share links as it may: end some of them first",
            )),
            Err(_) => Err(AuthError::Wrong("only the owner shares a document")),
        }
    }

    /// Opens a share link: the document, and what to bring along from now on.
    ///
    /// # Errors
    /// When there is no such link, or it wants another password: [`AuthError::Unfit`] when it wants one at all.
    pub async fn open_link(
        &self,
        secret: &str,
        password: Option<&str>,
        brought: &Credentials,
        from: IpAddr,
    ) -> Result<(ShareLink, String), AuthError> {
        const WRONG: AuthError = AuthError::Wrong("the link does not open anything (any more)");
        // A secret has 128 bits: guesses at it need no throttle besides the pace of requests.
        let found = self.accounts().link_by_secret(hashed(secret)).await?;
        let link = found.ok_or(WRONG)?;
        if let Some(hash) = &link.password {
            let Some(password) = password else {
                return Err(AuthError::Unfit("the link wants a password".to_owned()));
            };
            self.check_link_password(&link.id, hash, password, network(from))
                .await?;
        }
        // Who it was is of interest where they have an account; of a guest, that the link was opened.
        let identity = self.identify(brought).await?;
        let user = identity.as_ref().and_then(Identity::user_id);
        let actor = user.cloned().unwrap_or_else(|| link.id.clone());
        self.audit(actor, "open link", Some(&link.doc), Some(&link.id))
            .await?;
        let opened = brought.links.as_deref().unwrap_or_default();
        let mut links = self.signer.open_links(opened);
        links.retain(|known| *known != link.id);
        links.insert(0, link.id.clone());
        links.truncate(LINKS_MAX);
        let token = self.signer.links(&links);
        Ok((link, token))
    }

    async fn check_link_password(
        &self,
        link: &Subject,
        hash: &str,
        password: &str,
        from: IpAddr,
    ) -> Result<(), AuthError> {
        const WRONG: AuthError = AuthError::Wrong("the password is not right");
        let keys = [
            AttemptKey::Network(from),
            AttemptKey::Account(from, format!("link {}", link.0)),
        ];
        if password.len() > PASSWORD_BYTES_MAX
            || self.throttle().is_known_wrong(&keys[1], password, hash)
        {
            return Err(WRONG);
        }
        let priority = self.throttle_attempt(CallerClass::Link, &keys).await?;
        let verified = self
            .passwords
            .verify(priority, password.to_owned(), Some(hash.to_owned()));
        if verified.await? {
            self.throttle().succeeded(&keys);
            return Ok(());
        }
        self.throttle().was_wrong(&keys[1], password, hash);
        Err(WRONG)
    }

    /// Keeps in the audit log what somebody did, after the answer: how long that takes says nothing then. When the store
    /// is so slow that too many wait, the line goes to the server's log instead.
    fn audit_later(self: &Arc<Self>, actor: Subject, deed: &'static str) {
        let Ok(place) = self.notes.clone().try_acquire_owned() else {
            tracing::warn!(
                actor = actor.0,
                deed,
                "too many audit lines wait: this one is not kept"
            );
            return;
        };
        let door = self.clone();
        tokio::spawn(async move {
            if let Err(error) = door.accounts().audit(actor, deed, None, None).await {
                tracing::warn!(%error, deed, "an audit line is not kept");
            }
            drop(place);
        });
    }

    async fn audit(
        &self,
        actor: Subject,
        deed: &'static str,
        doc: Option<&DocId>,
        subject: Option<&Subject>,
    ) -> Result<(), StoreError> {
        let (doc, subject) = (doc.cloned(), subject.cloned());
        self.accounts().audit(actor, deed, doc, subject).await
    }

    async fn begin_session(
        &self,
        user: Subject,
        brought: &Credentials,
    ) -> Result<SessionTokens, AuthError> {
        let key = SessionKey(random_text());
        let refresh = self.signer.refresh(&key);
        let device = KnownDevice::open(&self.signer, brought.device.as_deref());
        let device = device.with(&self.signer, &user);
        let accounts = self.accounts();
        accounts
            .begin_session(
                key.clone(),
                user,
                hashed(&refresh),
                SESSION_LASTS,
                self.settings.user_sessions_max,
            )
            .await?;
        Ok(SessionTokens {
            device: Some(device),
            ..self.tokens(&key, Some(refresh))
        })
    }

    fn tokens(&self, key: &SessionKey, refresh: Option<String>) -> SessionTokens {
        SessionTokens {
            access: self
                .signer
                .access(key, now_seconds() + self.access_lasts().as_secs()),
            refresh,
            device: None,
        }
    }

    /// Counts an attempt, and waits until its password may be checked: with which priority.
    async fn throttle_attempt(
        &self,
        class: CallerClass,
        keys: &[AttemptKey],
    ) -> Result<Priority, AuthError> {
        let attempt = self.throttle().attempt(keys, self.started.elapsed());
        let admitted = attempt.map_err(AuthError::Wait)?;
        if !admitted.wait.is_zero() {
            let _place = self.delayed.try_acquire().map_err(|_| AuthError::Busy)?;
            sleep(admitted.wait).await;
        }
        let rank = admitted.rank;
        Ok(Priority { class, rank })
    }

    fn throttle(&self) -> MutexGuard<'_, LoginThrottle> {
        lock(&self.throttle)
    }
}

impl std::fmt::Debug for AuthService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthService")
            .field("mode", &self.mode())
            .finish_non_exhaustive()
    }
}

/// A login as it is kept: case and surrounding space make no difference.
pub(super) fn clean_login(login: &str) -> Result<String, AuthError> {
    let login = clean_name(login)?.to_lowercase();
    if login.contains(char::is_whitespace) {
        return Err(AuthError::Unfit(
            "a name to sign in by has no spaces".to_owned(),
        ));
    }
    Ok(login)
}

fn clean_name(name: &str) -> Result<String, AuthError> {
    let name = name.trim();
    let sound =
        (1..=NAME_CHARS_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if sound {
        return Ok(name.to_owned());
    }
    let message =
        format!("a name has 1 to {NAME_CHARS_MAX} characters, none of them control characters");
    Err(AuthError::Unfit(message))
}

fn check_password(password: &str) -> Result<(), AuthError> {
    let sound =
        password.chars().count() >= PASSWORD_CHARS_MIN && password.len() <= PASSWORD_BYTES_MAX;
    if sound {
        return Ok(());
    }
    let message = format!("a password has at least {PASSWORD_CHARS_MIN} characters");
    Err(AuthError::Unfit(message))
}

fn now_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use futures_util::{FutureExt, TryFutureExt};

    use super::*;
    use crate::auth::{AccessChange, PermissionScope};
    use crate::store::{SqliteSettings, SqliteStore};

    /// What another node does reaches this one by the store alone: nobody here is told.
    #[tokio::test]
    async fn what_another_node_takes_away_is_found_in_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let settings = SqliteSettings {
            folder: folder.path().to_owned(),
            ..SqliteSettings::default()
        };
        let store = Arc::new(SqliteStore::open(&settings).unwrap());
        let accounts: Arc<dyn AccessStore> = store.clone();
        let door = AuthService::open(AuthSettings::default(), Some(accounts), &[7; 32]).unwrap();
        let known = door.last_revocation().await.unwrap();
        let here = RequestSource {
            address: IpAddr::from([192, 0, 2, 1]),
            is_own_machine: true,
        };
        let account = NewAccount {
            login: "ann".to_owned(),
            name: "Ann".to_owned(),
            password: "a long password".to_owned(),
            invitation: None,
        };
        let brought = Credentials::default();
        let registered = door.register(&account, &brought, here);
        let brought = Credentials {
            access: Some(registered.await.unwrap().access),
            ..Credentials::default()
        };
        let identity = door.identify(&brought).await.unwrap().unwrap();
        let watch = door.subscribe_revocations(&identity, door.revocation_generation());
        let keeper = tokio::spawn({
            let door = door.clone();
            async move { door.run(known).await }
        });
        let by = identity.user_id().unwrap().clone();
        let doc = DocId::parse("notes", "plan").unwrap();
        let key = identity.session.clone().unwrap();
        let who = identity.principal.clone().unwrap();
        let changed =
            AccessChange::Permissions(PermissionScope::Documents(BTreeSet::from([doc.clone()])));
        for (what, news) in [
            (store.transfer_ownership(doc, by, who).boxed(), changed),
            (
                store.end_session(key).map_ok(Ok).boxed(),
                AccessChange::SessionEnded,
            ),
        ] {
            assert_eq!(what.await.unwrap(), Ok(()));
            let told = timeout(Duration::from_secs(5), watch.notified());
            told.await.expect("it is told in time");
            assert_eq!(watch.take(), Some(news));
        }
        assert!(door.identify(&brought).await.unwrap().is_none());
        assert_eq!(door.revalidate(&identity).await.unwrap(), None);
        keeper.abort();
    }
}
