//! Access rows in memory.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::convert::Infallible;

use futures_util::FutureExt;
use futures_util::future::ready;

use super::{MemoryState, MemoryStore};
use crate::access::{
    Account, AccountDraft, AuditAction, AuditEvent, DocumentRegistration, Grant, GrantCount,
    Issuer, NewAuditEvent, NewInvitation, NewRevocation, PasswordReset, PendingInvitation,
    Permission, Principal, REVOCATIONS_KEPT, RefreshTokens, Revocation, Role, SecretHash,
    SessionKey, ShareLink, StoredInvitation, StoredReset, StoredRoles, StoredSession, Subject,
    tenant_of,
};
use crate::id::DocId;
use crate::store::access::{
    AccessBackend, AccessFuture, AccessLock, AccessQueries, AccessTransaction, AccountChange, AsOf,
    Counted, Expired, NewLinkRow, NewSessionRow, Operation, REVOCATIONS_PAGE, SessionFilter,
};
use crate::store::{ListPage, ListQuery};

/// The tables.
#[derive(Debug, Clone, Default)]
pub(super) struct AccessRows {
    accounts: BTreeMap<Subject, Account>,
    /// By the hashes of the codes.
    invitations: BTreeMap<SecretHash, InvitationRow>,
    resets: BTreeMap<Subject, ResetRow>,
    sessions: BTreeMap<SessionKey, SessionRow>,
    /// In seconds since 1970.
    ended_tokens: BTreeMap<Subject, u64>,
    grants: BTreeMap<(DocId, Subject), Role>,
    links: BTreeMap<Subject, LinkRow>,
    usage: BTreeMap<String, Usage>,
    audit: Vec<AuditRow>,
    revocations: Vec<RevocationRow>,
    last_revocation: u64,
}

#[derive(Debug, Clone)]
struct InvitationRow {
    tenant: String,
    pending: PendingInvitation,
}

#[derive(Debug, Clone)]
struct ResetRow {
    code: SecretHash,
    maker: Subject,
    expires_at_ms: u64,
}

#[derive(Debug, Clone)]
struct SessionRow {
    user: Subject,
    tokens: RefreshTokens,
}

#[derive(Debug, Clone)]
struct LinkRow {
    link: ShareLink,
    secret: SecretHash,
    created_at_ms: u64,
}

#[derive(Debug, Clone, Default)]
struct Usage {
    documents: u64,
    bytes: u64,
}

#[derive(Debug, Clone)]
struct AuditRow {
    event: AuditEvent,
    tenant: Option<String>,
}

#[derive(Debug, Clone)]
struct RevocationRow {
    at_ms: u64,
    revocation: Revocation,
}

impl AccessRows {
    fn issuer(&self, maker: &Subject) -> Option<Issuer> {
        let account = self.accounts.get(maker)?;
        Some(Issuer {
            tenant: account.tenant.clone(),
            role: account.role,
            disabled: account.disabled,
        })
    }

    fn stored_invitation(&self, code: SecretHash) -> Option<StoredInvitation> {
        let row = self.invitations.get(&code)?;
        Some(StoredInvitation {
            tenant: row.tenant.clone(),
            role: row.pending.role,
            issuer: self.issuer(&row.pending.maker)?,
            expires_at_ms: row.pending.expires_at_ms,
        })
    }

    fn stored_reset(&self, code: SecretHash) -> Option<StoredReset> {
        let (user, row) = self.resets.iter().find(|(_, row)| row.code == code)?;
        Some(StoredReset {
            user: user.clone(),
            tenant: self.accounts.get(user)?.tenant.clone(),
            issuer: self.issuer(&row.maker)?,
            expires_at_ms: row.expires_at_ms,
        })
    }

    fn stored_session(&self, key: &SessionKey) -> Option<StoredSession> {
        let row = self.sessions.get(key)?;
        Some(StoredSession {
            user: self.accounts.get(&row.user)?.clone(),
            renewed_at_ms: row.tokens.renewed_at_ms,
            expires_at_ms: row.tokens.expires_at_ms,
        })
    }

    fn tenant_role(&self, user: &Subject, tenant: &str) -> Option<Role> {
        let account = self.accounts.get(user)?;
        account.role.filter(|_| account.tenant == tenant)
    }

    fn grant(&self, doc: &DocId, subject: &Subject) -> Option<Role> {
        self.grants.get(&(doc.clone(), subject.clone())).copied()
    }

    fn stored_roles(&self, now_ms: u64, principal: &Principal, doc: &DocId) -> StoredRoles {
        let tenant = tenant_of(&doc.collection);
        let member = principal.member_of(tenant);
        let permission = |id: &Subject| {
            let link = &self.links.get(id)?.link;
            let is_live = link.doc == *doc && is_live(link, now_ms);
            is_live.then(|| Permission {
                role: Some(link.role),
                lasts: link
                    .expires_at_ms
                    .map(|at_ms| std::time::Duration::from_millis(at_ms.saturating_sub(now_ms))),
            })
        };
        StoredRoles {
            tenant_role: member.and_then(|user| self.tenant_role(user, tenant)),
            grant: member.and_then(|user| self.grant(doc, user)),
            links: principal.links.iter().filter_map(permission).collect(),
        }
    }

    fn insert_audit_event(&mut self, now_ms: u64, event: NewAuditEvent<'_>) {
        let account_tenant = |subject: &Subject| Some(self.accounts.get(subject)?.tenant.as_str());
        let tenant = event
            .document_tenant()
            .or_else(|| account_tenant(event.actor))
            .or_else(|| event.subject.and_then(account_tenant))
            .or_else(|| event.actor_tenant())
            .map(str::to_owned);
        let event = AuditEvent {
            number: self.audit.len() as u64 + 1,
            at_ms: now_ms,
            actor: event.actor.clone(),
            action: event.action.as_str().to_owned(),
            doc: event.doc.map(doc_names),
            subject: event.subject.cloned(),
            detail: event.detail.map(str::to_owned),
            times: 1,
            last_at_ms: None,
        };
        self.audit.push(AuditRow { event, tenant });
    }

    fn audit_page(
        &self,
        before: Option<u64>,
        limit: usize,
        matches: impl Fn(&AuditRow) -> bool,
    ) -> Vec<AuditEvent> {
        let rows = self.audit.iter().rev();
        let rows = rows.filter(|row| before.is_none_or(|before| row.event.number < before));
        let rows = rows.filter(|row| matches(row)).take(limit);
        rows.map(|row| row.event.clone()).collect()
    }

    fn store_revocations(&mut self, now_ms: u64, revocations: Vec<NewRevocation>) {
        if revocations.is_empty() {
            return;
        }
        let old = now_ms.saturating_sub(REVOCATIONS_KEPT.as_millis() as u64);
        self.revocations.retain(|row| row.at_ms >= old);
        for revocation in revocations {
            self.last_revocation += 1;
            let revocation = Revocation {
                sequence: self.last_revocation,
                subject: revocation.subject,
                session: revocation.session,
                ends: revocation.ends,
                doc: revocation.doc,
            };
            self.revocations.push(RevocationRow {
                at_ms: now_ms,
                revocation,
            });
        }
    }
}

fn is_live(link: &ShareLink, now_ms: u64) -> bool {
    link.expires_at_ms.is_none_or(|at_ms| at_ms > now_ms)
}

fn doc_names(doc: &DocId) -> (String, String) {
    (doc.collection.to_string(), doc.id.to_string())
}

/// A copy of the tables that replaces them at the commit.
pub(in crate::store) struct Transaction {
    rows: AccessRows,
    now_ms: u64,
    revocations: Vec<NewRevocation>,
    primitives: usize,
}

impl Transaction {
    fn rows(&mut self) -> &mut AccessRows {
        self.primitives += 1;
        &mut self.rows
    }
}

impl MemoryStore {
    /// Runs an operation. Returns its output, and how many primitives it used.
    pub(in crate::store) fn run_counted<O: Operation>(&self, operation: &O) -> (O::Output, usize) {
        let now_ms = self.now_ms();
        let mut state = self.state();
        let mut tx = Transaction {
            rows: state.access.clone(),
            now_ms,
            revocations: Vec::new(),
            primitives: 0,
        };
        let output = operation.run(&mut tx).now_or_never();
        let Ok(output) = output.expect("the primitives in memory are ready at once");
        if O::commits(&output) {
            tx.rows.store_revocations(now_ms, tx.revocations);
            state.access = tx.rows;
        }
        (output, tx.primitives)
    }

    /// Reads the state at a time.
    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&MemoryState, u64) -> T,
    ) -> AccessFuture<'_, T> {
        let now_ms = self.now_ms();
        ready(Ok(read(&self.state(), now_ms))).boxed()
    }
}

impl AccessBackend for MemoryStore {
    fn run<O: Operation>(&self, operation: O) -> AccessFuture<'_, O::Output> {
        let (output, _) = self.run_counted(&operation);
        ready(Ok(output)).boxed()
    }

    fn register_document(
        &self,
        doc: DocId,
        owner: Subject,
        documents_max: Option<u64>,
    ) -> AccessFuture<'_, DocumentRegistration> {
        let now_ms = self.now_ms();
        let mut state = self.state();
        let is_known = state.documents.contains_key(&doc)
            || state.access.grants.keys().any(|(known, _)| *known == doc);
        let rows = &mut state.access;
        let tenant = tenant_of(&doc.collection);
        let documents = rows.usage.get(tenant).map_or(0, |usage| usage.documents);
        let registration = DocumentRegistration::decide(is_known, documents, documents_max);
        if registration == DocumentRegistration::Registered {
            rows.usage.entry(tenant.to_owned()).or_default().documents += 1;
            let event = NewAuditEvent::new(&owner, AuditAction::CreateDocument);
            rows.insert_audit_event(now_ms, event.on(&doc));
            rows.grants.insert((doc, owner), Role::Owner);
        }
        ready(Ok(registration)).boxed()
    }

    fn add_usage(&self, tenant: String, bytes: u64) -> AccessFuture<'_, u64> {
        let mut state = self.state();
        let usage = state.access.usage.entry(tenant).or_default();
        usage.bytes += bytes;
        ready(Ok(usage.bytes)).boxed()
    }

    fn stored_reset(&self, code: SecretHash) -> AccessFuture<'_, Option<AsOf<StoredReset>>> {
        self.read(|state, now_ms| {
            let row = state.access.stored_reset(code)?;
            Some(AsOf { row, now_ms })
        })
    }

    fn stored_invitation(
        &self,
        code: SecretHash,
    ) -> AccessFuture<'_, Option<AsOf<StoredInvitation>>> {
        self.read(|state, now_ms| {
            let row = state.access.stored_invitation(code)?;
            Some(AsOf { row, now_ms })
        })
    }

    fn stored_session(&self, key: SessionKey) -> AccessFuture<'_, Option<AsOf<StoredSession>>> {
        self.read(|state, now_ms| {
            let row = state.access.stored_session(&key)?;
            Some(AsOf { row, now_ms })
        })
    }

    fn stored_roles(
        &self,
        principal: Principal,
        docs: Vec<DocId>,
    ) -> AccessFuture<'_, Vec<StoredRoles>> {
        self.read(|state, now_ms| {
            let stored = |doc| state.access.stored_roles(now_ms, &principal, doc);
            docs.iter().map(stored).collect()
        })
    }
}

impl AccessQueries for MemoryStore {
    fn has_accounts(&self) -> AccessFuture<'_, bool> {
        self.read(|state, _| !state.access.accounts.is_empty())
    }

    fn account_by_login(&self, login: String) -> AccessFuture<'_, Option<Account>> {
        self.read(|state, _| {
            let mut accounts = state.access.accounts.values();
            accounts.find(|account| account.login == login).cloned()
        })
    }

    fn account(&self, id: Subject) -> AccessFuture<'_, Option<Account>> {
        self.read(|state, _| state.access.accounts.get(&id).cloned())
    }

    fn accounts_of(
        &self,
        tenant: String,
        after: String,
        limit: usize,
    ) -> AccessFuture<'_, Vec<Account>> {
        self.read(|state, _| {
            let accounts = state.access.accounts.values();
            let accounts = accounts.filter(|it| it.tenant == tenant && it.login > after);
            let mut accounts: Vec<_> = accounts.cloned().collect();
            accounts.sort_by(|one, other| one.login.cmp(&other.login));
            accounts.truncate(limit);
            accounts
        })
    }

    fn invitations(&self, tenant: String) -> AccessFuture<'_, Vec<PendingInvitation>> {
        self.read(|state, now_ms| {
            let rows = state.access.invitations.values();
            let rows = rows.filter(|row| row.tenant == tenant);
            let rows = rows.filter(|row| row.pending.expires_at_ms > now_ms);
            let mut pending: Vec<_> = rows.map(|row| row.pending.clone()).collect();
            pending.sort_by_key(|it| (it.expires_at_ms, it.id.clone()));
            pending
        })
    }

    fn tokens_ended(&self, subject: Subject) -> AccessFuture<'_, Option<u64>> {
        self.read(|state, _| state.access.ended_tokens.get(&subject).copied())
    }

    fn grants(&self, doc: DocId) -> AccessFuture<'_, Vec<Grant>> {
        self.read(|state, _| {
            let rows = state.access.grants.iter();
            let rows = rows.filter(|((granted, _), _)| *granted == doc);
            let grant = |((_, subject), role): (&(DocId, Subject), &Role)| {
                let account = state.access.accounts.get(subject);
                Grant {
                    subject: subject.clone(),
                    account: account.map(|it| (it.login.clone(), it.name.clone())),
                    role: *role,
                }
            };
            let mut grants: Vec<_> = rows.map(grant).collect();
            let name = |it: &Grant| it.account.as_ref().map(|(_, name)| name.clone());
            grants.sort_by_key(|it| (Reverse(it.role), name(it), it.subject.clone()));
            grants
        })
    }

    fn list_for(&self, principal: Principal, query: ListQuery) -> AccessFuture<'_, ListPage> {
        self.read(|state, now_ms| {
            if principal.member_of(tenant_of(&query.collection)).is_none() {
                return ListPage::default();
            }
            state.list(&query, |doc| {
                let stored = state.access.stored_roles(now_ms, &principal, doc);
                principal.permission(doc, &stored).role.is_some()
            })
        })
    }

    fn links(&self, doc: DocId) -> AccessFuture<'_, Vec<ShareLink>> {
        self.read(|state, now_ms| {
            let rows = state.access.links.values();
            let rows = rows.filter(|row| row.link.doc == doc && is_live(&row.link, now_ms));
            let mut rows: Vec<_> = rows.collect();
            rows.sort_by_key(|row| (row.created_at_ms, &row.link.id));
            rows.into_iter().map(|row| row.link.clone()).collect()
        })
    }

    fn link_by_secret(&self, secret: SecretHash) -> AccessFuture<'_, Option<ShareLink>> {
        self.read(|state, now_ms| {
            let mut rows = state.access.links.values();
            let row = rows.find(|row| row.secret == secret)?;
            is_live(&row.link, now_ms).then(|| row.link.clone())
        })
    }

    fn revocations(&self, since: u64) -> AccessFuture<'_, Vec<Revocation>> {
        self.read(|state, _| {
            let all = state.access.revocations.iter().map(|row| &row.revocation);
            let newer = all.filter(|revocation| revocation.sequence > since);
            newer.take(REVOCATIONS_PAGE).cloned().collect()
        })
    }

    fn last_revocation(&self) -> AccessFuture<'_, u64> {
        self.read(|state, _| state.access.last_revocation)
    }

    fn audit_events(
        &self,
        doc: DocId,
        before: Option<u64>,
        limit: usize,
    ) -> AccessFuture<'_, Vec<AuditEvent>> {
        let names = Some(doc_names(&doc));
        self.read(|state, _| {
            let access = &state.access;
            access.audit_page(before, limit, |row| row.event.doc == names)
        })
    }

    fn audit_events_of(
        &self,
        tenant: String,
        before: Option<u64>,
        limit: usize,
    ) -> AccessFuture<'_, Vec<AuditEvent>> {
        let tenant = Some(tenant);
        self.read(|state, _| {
            let access = &state.access;
            access.audit_page(before, limit, |row| row.tenant == tenant)
        })
    }
}

impl AccessTransaction for Transaction {
    type Error = Infallible;

    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn revoke(&mut self, revocation: NewRevocation) {
        self.revocations.push(revocation);
    }

    async fn lock(&mut self, _: AccessLock<'_>) -> Result<(), Infallible> {
        self.primitives += 1;
        Ok(())
    }

    async fn count(&mut self, counted: Counted<'_>) -> Result<u64, Infallible> {
        let now_ms = self.now_ms;
        let rows = self.rows();
        let count = match counted {
            Counted::Accounts { at_most } => return Ok(at_most.min(rows.accounts.len() as u64)),
            Counted::InvitationsOf(tenant) => rows
                .invitations
                .values()
                .filter(|row| row.tenant == tenant && row.pending.expires_at_ms > now_ms)
                .count(),
            Counted::LinksOf(doc) => rows
                .links
                .values()
                .filter(|row| row.link.doc == *doc && is_live(&row.link, now_ms))
                .count(),
        };
        Ok(count as u64)
    }

    async fn delete_expired(&mut self, expired: Expired<'_>) -> Result<(), Infallible> {
        let now_ms = self.now_ms;
        let rows = self.rows();
        match expired {
            Expired::Sessions => rows
                .sessions
                .retain(|_, row| row.tokens.expires_at_ms > now_ms),
            Expired::Invitations => rows
                .invitations
                .retain(|_, row| row.pending.expires_at_ms > now_ms),
            Expired::LinksOf(doc) => rows
                .links
                .retain(|_, row| row.link.doc != *doc || is_live(&row.link, now_ms)),
        }
        Ok(())
    }

    async fn insert_account(
        &mut self,
        account: &AccountDraft,
        tenant: &str,
        role: Option<Role>,
    ) -> Result<bool, Infallible> {
        let rows = self.rows();
        if rows.accounts.values().any(|it| it.login == account.login) {
            return Ok(false);
        }
        let account = Account {
            id: account.id.clone(),
            tenant: tenant.to_owned(),
            login: account.login.clone(),
            name: account.name.clone(),
            password: account.password.clone(),
            role,
            disabled: false,
        };
        rows.accounts.insert(account.id.clone(), account);
        Ok(true)
    }

    async fn update_account(
        &mut self,
        user: &Subject,
        change: AccountChange<'_>,
    ) -> Result<bool, Infallible> {
        let Some(account) = self.rows().accounts.get_mut(user) else {
            return Ok(false);
        };
        match change {
            AccountChange::Password(password) => password.clone_into(&mut account.password),
            AccountChange::TenantRole(role) => account.role = role,
            AccountChange::Disabled(disabled) => account.disabled = disabled,
        }
        Ok(true)
    }

    async fn insert_invitation(
        &mut self,
        invitation: &NewInvitation,
        maker: &Subject,
        expires_at_ms: u64,
    ) -> Result<(), Infallible> {
        let row = InvitationRow {
            tenant: invitation.tenant.clone(),
            pending: PendingInvitation {
                id: invitation.id.clone(),
                role: invitation.role,
                maker: maker.clone(),
                expires_at_ms,
            },
        };
        let invitations = &mut self.rows().invitations;
        invitations.entry(invitation.code).or_insert(row);
        Ok(())
    }

    async fn take_invitation(
        &mut self,
        code: SecretHash,
    ) -> Result<Option<StoredInvitation>, Infallible> {
        let rows = self.rows();
        let invitation = rows.stored_invitation(code);
        if invitation.is_some() {
            rows.invitations.remove(&code);
        }
        Ok(invitation)
    }

    async fn delete_invitation(&mut self, tenant: &str, id: &Subject) -> Result<bool, Infallible> {
        let invitations = &mut self.rows().invitations;
        let before = invitations.len();
        invitations.retain(|_, row| row.tenant != tenant || row.pending.id != *id);
        Ok(invitations.len() < before)
    }

    async fn put_reset(
        &mut self,
        reset: &PasswordReset,
        maker: &Subject,
        expires_at_ms: u64,
    ) -> Result<(), Infallible> {
        let row = ResetRow {
            code: reset.code,
            maker: maker.clone(),
            expires_at_ms,
        };
        self.rows().resets.insert(reset.user.clone(), row);
        Ok(())
    }

    async fn take_reset(&mut self, code: SecretHash) -> Result<Option<StoredReset>, Infallible> {
        let rows = self.rows();
        let reset = rows.stored_reset(code);
        if let Some(reset) = &reset {
            rows.resets.remove(&reset.user);
        }
        Ok(reset)
    }

    async fn insert_session(&mut self, session: NewSessionRow<'_>) -> Result<(), Infallible> {
        let row = SessionRow {
            user: session.user.clone(),
            tokens: RefreshTokens {
                newest: session.refresh,
                previous: None,
                renewed_at_ms: self.now_ms,
                expires_at_ms: session.expires_at_ms,
            },
        };
        self.rows().sessions.insert(session.key.clone(), row);
        Ok(())
    }

    async fn refresh_tokens(
        &mut self,
        key: &SessionKey,
    ) -> Result<Option<RefreshTokens>, Infallible> {
        Ok(self.rows().sessions.get(key).map(|row| row.tokens))
    }

    async fn set_refresh_tokens(
        &mut self,
        key: &SessionKey,
        newest: SecretHash,
        previous: SecretHash,
    ) -> Result<(), Infallible> {
        let now_ms = self.now_ms;
        if let Some(row) = self.rows().sessions.get_mut(key) {
            row.tokens = RefreshTokens {
                newest,
                previous: Some(previous),
                renewed_at_ms: now_ms,
                expires_at_ms: row.tokens.expires_at_ms,
            };
        }
        Ok(())
    }

    async fn delete_session(&mut self, key: &SessionKey) -> Result<Option<Subject>, Infallible> {
        Ok(self.rows().sessions.remove(key).map(|row| row.user))
    }

    async fn delete_sessions(
        &mut self,
        user: &Subject,
        filter: SessionFilter<'_>,
    ) -> Result<Vec<SessionKey>, Infallible> {
        let sessions = &mut self.rows().sessions;
        let of_user = sessions.iter().filter(|(_, row)| row.user == *user);
        let keys: Vec<SessionKey> = match filter {
            SessionFilter::AllExcept(kept) => of_user
                .map(|(key, _)| key)
                .filter(|key| Some(*key) != kept)
                .cloned()
                .collect(),
            SessionFilter::Oldest { newest, others_max } => {
                let others = of_user.filter(|(key, _)| *key != newest);
                let mut others: Vec<_> = others
                    .map(|(key, row)| Reverse((row.tokens.renewed_at_ms, key.clone())))
                    .collect();
                others.sort();
                let kept = usize::try_from(others_max).unwrap_or(usize::MAX);
                others.into_iter().skip(kept).map(|it| it.0.1).collect()
            }
        };
        for key in &keys {
            sessions.remove(key);
        }
        Ok(keys)
    }

    async fn end_tokens(
        &mut self,
        subject: &Subject,
        issued_until_s: u64,
    ) -> Result<(), Infallible> {
        let ended = &mut self.rows().ended_tokens;
        let until = ended.entry(subject.clone()).or_default();
        *until = issued_until_s.max(*until);
        Ok(())
    }

    async fn tenant_role(
        &mut self,
        user: &Subject,
        tenant: &str,
    ) -> Result<Option<Role>, Infallible> {
        Ok(self.rows().tenant_role(user, tenant))
    }

    async fn grant(&mut self, doc: &DocId, subject: &Subject) -> Result<Option<Role>, Infallible> {
        Ok(self.rows().grant(doc, subject))
    }

    async fn grant_count(
        &mut self,
        doc: &DocId,
        subject: &Subject,
    ) -> Result<GrantCount, Infallible> {
        let rows = self.rows();
        let total = rows.grants.keys().filter(|(granted, _)| granted == doc);
        Ok(GrantCount {
            total: total.count() as u64,
            includes_subject: rows.grant(doc, subject).is_some(),
        })
    }

    async fn put_grant(
        &mut self,
        doc: &DocId,
        subject: &Subject,
        role: Role,
    ) -> Result<bool, Infallible> {
        let rows = self.rows();
        if rows.grant(doc, subject) == Some(Role::Owner) {
            return Ok(false);
        }
        rows.grants.insert((doc.clone(), subject.clone()), role);
        Ok(true)
    }

    async fn delete_grant(&mut self, doc: &DocId, subject: &Subject) -> Result<bool, Infallible> {
        let rows = self.rows();
        if rows.grant(doc, subject) == Some(Role::Owner) {
            return Ok(false);
        }
        rows.grants.remove(&(doc.clone(), subject.clone()));
        Ok(true)
    }

    async fn demote_owners(&mut self, doc: &DocId) -> Result<Vec<Subject>, Infallible> {
        let grants = self.rows().grants.iter_mut();
        let owners = grants.filter(|((granted, _), role)| granted == doc && **role == Role::Owner);
        let demote = |((_, subject), role): (&(DocId, Subject), &mut Role)| {
            *role = Role::Editor;
            subject.clone()
        };
        Ok(owners.map(demote).collect())
    }

    async fn insert_link(&mut self, row: NewLinkRow<'_>) -> Result<(), Infallible> {
        let link = ShareLink {
            id: row.link.id.clone(),
            doc: row.link.doc.clone(),
            role: row.role,
            password: row.link.password.clone(),
            expires_at_ms: row.expires_at_ms,
        };
        let created = LinkRow {
            link,
            secret: row.link.secret,
            created_at_ms: self.now_ms,
        };
        self.rows().links.insert(row.link.id.clone(), created);
        Ok(())
    }

    async fn delete_link(&mut self, doc: &DocId, link: &Subject) -> Result<bool, Infallible> {
        let links = &mut self.rows().links;
        let exists = links.get(link).is_some_and(|row| row.link.doc == *doc);
        if exists {
            links.remove(link);
        }
        Ok(exists)
    }

    async fn insert_audit_event(&mut self, event: NewAuditEvent<'_>) -> Result<(), Infallible> {
        let now_ms = self.now_ms;
        self.rows().insert_audit_event(now_ms, event);
        Ok(())
    }

    async fn count_audit_event(
        &mut self,
        event: NewAuditEvent<'_>,
        since_ms: u64,
    ) -> Result<bool, Infallible> {
        let now_ms = self.now_ms;
        let doc = event.doc.map(doc_names);
        let equals = |line: &AuditEvent| {
            line.at_ms > since_ms
                && line.actor == *event.actor
                && line.action == event.action.as_str()
                && line.doc == doc
                && line.subject.as_ref() == event.subject
        };
        let mut lines = self.rows().audit.iter_mut().map(|row| &mut row.event).rev();
        let Some(line) = lines.find(|line| equals(line)) else {
            return Ok(false);
        };
        line.times += 1;
        line.last_at_ms = Some(now_ms);
        Ok(true)
    }
}
