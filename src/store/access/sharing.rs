//! Operations on grants, ownership, share links and usage.

use super::audit::audit;
use super::{AccessLock, AccessTransaction, Counted, Expired, NewLinkRow, Operation};
use crate::access::{
    AuditAction, NewAuditEvent, NewRevocation, NewShareLink, Principal, Role, ShareError,
    StoredRoles, Subject, later, tenant_of,
};
use crate::id::DocId;

/// The user, if the principal owns the document. It stays so, and the sharing of the document does not change, until the
/// transaction ends.
async fn require_owner<'a, T: AccessTransaction>(
    tx: &mut T,
    principal: &'a Principal,
    doc: &DocId,
) -> Result<Result<&'a Subject, ShareError>, T::Error> {
    let tenant = tenant_of(&doc.collection);
    let Some(user) = principal.member_of(tenant) else {
        return Ok(Err(ShareError::NotOwner));
    };
    tx.lock(AccessLock::SharingOf(doc)).await?;
    let stored = StoredRoles {
        tenant_role: tx.tenant_role(user, tenant).await?,
        grant: tx.grant(doc, user).await?,
        links: Vec::new(),
    };
    let is_owner = principal.permission(doc, &stored).role == Some(Role::Owner);
    Ok(is_owner.then_some(user).ok_or(ShareError::NotOwner))
}

/// [`AccessStore::set_role`](super::AccessStore::set_role).
pub(super) struct SetRole {
    pub(super) doc: DocId,
    pub(super) subject: Subject,
    pub(super) role: Option<Role>,
    pub(super) by: Principal,
    pub(super) people_max: u64,
}

impl Operation for SetRole {
    type Output = Result<(), ShareError>;

    async fn run<T: AccessTransaction>(&self, tx: &mut T) -> Result<Self::Output, T::Error> {
        let (doc, subject) = (&self.doc, &self.subject);
        let by = match require_owner(tx, &self.by, doc).await? {
            Ok(by) => by,
            Err(error) => return Ok(Err(error)),
        };
        let is_done = match self.role {
            Some(Role::Owner) => false,
            Some(role) => {
                let grants = tx.grant_count(doc, subject).await?;
                if !grants.admits(self.people_max) {
                    return Ok(Err(ShareError::QuotaReached));
                }
                tx.put_grant(doc, subject, role).await?
            }
            None => tx.delete_grant(doc, subject).await?,
        };
        if !is_done {
            return Ok(Err(ShareError::OwnerMustTransfer));
        }
        let event = NewAuditEvent::new(by, AuditAction::SetRole).on(doc);
        audit(tx, event.about(subject).to_role(self.role)).await?;
        tx.revoke(NewRevocation::on(subject, doc));
        Ok(Ok(()))
    }

    fn commits(output: &Self::Output) -> bool {
        output.is_ok()
    }
}

/// [`AccessStore::transfer_ownership`](super::AccessStore::transfer_ownership).
pub(super) struct TransferOwnership {
    pub(super) doc: DocId,
    pub(super) to: Subject,
    pub(super) by: Principal,
}

impl Operation for TransferOwnership {
    type Output = Result<(), ShareError>;

    async fn run<T: AccessTransaction>(&self, tx: &mut T) -> Result<Self::Output, T::Error> {
        let (doc, to) = (&self.doc, &self.to);
        let by = match require_owner(tx, &self.by, doc).await? {
            Ok(by) => by,
            Err(error) => return Ok(Err(error)),
        };
        let demoted = tx.demote_owners(doc).await?;
        tx.put_grant(doc, to, Role::Owner).await?;
        let event = NewAuditEvent::new(by, AuditAction::TransferOwnership);
        audit(tx, event.on(doc).about(to)).await?;
        for subject in demoted.iter().chain([to]) {
            tx.revoke(NewRevocation::on(subject, doc));
        }
        Ok(Ok(()))
    }

    fn commits(output: &Self::Output) -> bool {
        output.is_ok()
    }
}

/// [`AccessStore::create_link`](super::AccessStore::create_link).
pub(super) struct CreateLink {
    pub(super) link: NewShareLink,
    pub(super) by: Principal,
}

impl Operation for CreateLink {
    type Output = Result<(), ShareError>;

    async fn run<T: AccessTransaction>(&self, tx: &mut T) -> Result<Self::Output, T::Error> {
        let link = &self.link;
        let by = match require_owner(tx, &self.by, &link.doc).await? {
            Ok(by) => by,
            Err(error) => return Ok(Err(error)),
        };
        tx.delete_expired(Expired::LinksOf(&link.doc)).await?;
        if tx.count(Counted::LinksOf(&link.doc)).await? >= link.links_max {
            return Ok(Err(ShareError::QuotaReached));
        }
        // A link never gives ownership.
        let role = link.role.min(Role::Editor);
        let now_ms = tx.now_ms();
        let row = NewLinkRow {
            link,
            role,
            expires_at_ms: link.lasts.map(|lasts| later(now_ms, lasts)),
        };
        tx.insert_link(row).await?;
        let event = NewAuditEvent::new(by, AuditAction::CreateLink).on(&link.doc);
        audit(tx, event.about(&link.id).to_role(Some(role))).await?;
        Ok(Ok(()))
    }

    fn commits(output: &Self::Output) -> bool {
        output.is_ok()
    }
}

/// [`AccessStore::delete_link`](super::AccessStore::delete_link).
pub(super) struct DeleteLink {
    pub(super) doc: DocId,
    pub(super) link: Subject,
    pub(super) by: Principal,
}

impl Operation for DeleteLink {
    type Output = Result<(), ShareError>;

    async fn run<T: AccessTransaction>(&self, tx: &mut T) -> Result<Self::Output, T::Error> {
        let (doc, link) = (&self.doc, &self.link);
        let by = match require_owner(tx, &self.by, doc).await? {
            Ok(by) => by,
            Err(error) => return Ok(Err(error)),
        };
        if !tx.delete_link(doc, link).await? {
            return Ok(Err(ShareError::LinkNotFound));
        }
        let event = NewAuditEvent::new(by, AuditAction::DeleteLink);
        audit(tx, event.on(doc).about(link)).await?;
        tx.revoke(NewRevocation::on(link, doc));
        Ok(Ok(()))
    }

    fn commits(output: &Self::Output) -> bool {
        output.is_ok()
    }
}
