//! Sharing of documents: roles of users, ownership, share links.

use std::net::IpAddr;
use std::time::Duration;

use super::{AuthService, KNOWN_CALLER};
use crate::access::{AuditAction, NewShareLink, Principal, Role, ShareError, ShareLink, Subject};
use crate::auth::credentials::{Credentials, check_length, check_new_password};
use crate::auth::error::{AuthError, InvalidInput, QuotaReached, RejectedCredentials};
use crate::auth::identity::Identity;
use crate::auth::login_throttle::{AttemptKey, network};
use crate::auth::priority_queue::CallerClass;
use crate::auth::token_signer::{hashed, random_text};
use crate::id::DocId;
use crate::store::StoreError;

/// How many share links one browser has open; opening another one closes the oldest.
const OPEN_LINKS_MAX: usize = 20;

impl AuthService {
    /// Gives a subject a role on a document, or removes it.
    ///
    /// # Errors
    /// The outer error if the store does not answer, the inner one if the sharing was not changed.
    pub async fn set_role(
        &self,
        doc: DocId,
        subject: Subject,
        role: Option<Role>,
        by: Principal,
    ) -> Result<Result<(), ShareError>, StoreError> {
        // The owner is not counted.
        let subjects_max = self.settings.document_people_max.saturating_add(1);
        let changed = self
            .accounts()
            .set_role(doc, subject, role, by, subjects_max);
        let changed = changed.await?;
        if changed.is_ok() {
            self.deliver_revocations_now();
        }
        Ok(changed)
    }

    /// Makes another subject the owner of a document.
    ///
    /// # Errors
    /// As [`set_role`](Self::set_role).
    pub async fn transfer_ownership(
        &self,
        doc: DocId,
        to: Subject,
        by: Principal,
    ) -> Result<Result<(), ShareError>, StoreError> {
        let changed = self.accounts().transfer_ownership(doc, to, by).await?;
        if changed.is_ok() {
            self.deliver_revocations_now();
        }
        Ok(changed)
    }

    /// Creates a share link and returns its id and its secret.
    ///
    /// # Errors
    /// If `by` does not own the document, the password is not acceptable, or the document has too many links.
    pub async fn create_link(
        &self,
        by: Principal,
        doc: &DocId,
        role: Role,
        password: Option<&str>,
        lifetime: Option<Duration>,
    ) -> Result<(Subject, String), AuthError> {
        let password = match password {
            None => None,
            Some(password) => {
                check_new_password(password)?;
                let hash = self
                    .passwords
                    .hash(KNOWN_CALLER, password.to_owned(), Vec::new());
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
            lasts: lifetime,
            links_max: self.settings.document_links_max,
        };
        let id = link.id.clone();
        match self.accounts().create_link(link, by).await? {
            Ok(()) => Ok((id, secret)),
            Err(ShareError::QuotaReached) => Err(QuotaReached::ShareLinks.into()),
            Err(_) => Err(RejectedCredentials::NotDocumentOwner.into()),
        }
    }

    /// Deletes a share link of a document.
    ///
    /// # Errors
    /// As [`set_role`](Self::set_role).
    pub async fn delete_link(
        &self,
        doc: DocId,
        link: Subject,
        by: Principal,
    ) -> Result<Result<(), ShareError>, StoreError> {
        let changed = self.accounts().delete_link(doc, link, by).await?;
        if changed.is_ok() {
            self.deliver_revocations_now();
        }
        Ok(changed)
    }

    /// Opens a share link by its secret: the link, and the signed list of open links that the browser presents from now on.
    ///
    /// # Errors
    /// If the link does not exist or the password is wrong; [`InvalidInput::LinkPasswordMissing`] if it requires one.
    pub async fn open_link(
        &self,
        secret: &str,
        password: Option<&str>,
        credentials: &Credentials,
        address: IpAddr,
    ) -> Result<(ShareLink, String), AuthError> {
        // A secret has 128 random bits: the rate limit of requests is enough against guessing.
        let link = self.accounts().link_by_secret(hashed(secret)).await?;
        let link = link.ok_or(RejectedCredentials::ShareLink)?;
        if let Some(hash) = &link.password {
            let password = password.ok_or(InvalidInput::LinkPasswordMissing)?;
            self.check_link_password(&link.id, hash, password, network(address))
                .await?;
        }
        // The audit event names the user; for a guest it names the link.
        let identity = self.identify(credentials).await?;
        let user = identity.as_ref().and_then(Identity::user_id);
        let actor = user.cloned().unwrap_or_else(|| link.id.clone());
        self.audit(
            actor,
            AuditAction::OpenLink,
            Some(&link.doc),
            Some(&link.id),
        )
        .await?;
        // The newest link comes first.
        let mut links = self
            .signer
            .verify_links(credentials.links.as_deref().unwrap_or_default());
        links.retain(|open| *open != link.id);
        links.insert(0, link.id.clone());
        links.truncate(OPEN_LINKS_MAX);
        let signed = self.signer.links(&links);
        Ok((link, signed))
    }

    async fn check_link_password(
        &self,
        link: &Subject,
        hash: &str,
        password: &str,
        network: IpAddr,
    ) -> Result<(), AuthError> {
        const REJECTED: RejectedCredentials = RejectedCredentials::Password;
        let keys = [
            AttemptKey::Network(network),
            AttemptKey::Account(network, format!("link {}", link.0)),
        ];
        check_length(password, REJECTED)?;
        if self.throttle().is_known_wrong(&keys[1], password, hash) {
            return Err(REJECTED.into());
        }
        let priority = self.throttle_attempt(CallerClass::Link, &keys).await?;
        let is_correct = self
            .passwords
            .verify(priority, password.to_owned(), Some(hash.to_owned()))
            .await?;
        if is_correct {
            self.throttle().succeeded(&keys);
            return Ok(());
        }
        self.throttle().was_wrong(&keys[1], password, hash);
        Err(REJECTED.into())
    }
}
