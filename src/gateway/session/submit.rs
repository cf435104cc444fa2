//! Submits: their client id, whether the user may make them, and how many may be unanswered.

use std::time::{Duration, Instant};

use actix_web::rt::time::timeout;

use super::{RequestError, Session};
use crate::access::Role;
use crate::doc::{Proposal, SessionRequest, Submit};
use crate::id::{ClientId, DocId};
use crate::log::SubmitId;
use crate::node::{ByteBudget, BytePermit, ReplyTo, RequestSlot};
use crate::protocol::{Code, EchoedFields, Refusal, SubmitRequest};

/// How long an edit waits for earlier edits to be answered. The socket is not read meanwhile.
const SUBMIT_WAIT_MAX: Duration = Duration::from_secs(30);

impl Session {
    pub(super) async fn submit(
        &mut self,
        doc: DocId,
        submit: SubmitRequest,
        echo: &EchoedFields,
    ) -> Result<(), RequestError> {
        let received = Instant::now();
        if let Some(outdated) = &mut self.outdated {
            outdated.admit_submit(&doc, submit.base, &submit.proposal)?;
        }
        let client = self.submit_client(submit.client)?;
        self.require_submit(&doc, &submit.proposal).await?;
        let bytes = submit.proposal.size();
        if submit.proposal != Proposal::Delete {
            self.permissions.require_storage(&doc, bytes)?;
        }
        let (slot, permit) = self.acquire_submit(bytes).await?;
        // Permissions may have changed during the wait.
        self.require_submit(&doc, &submit.proposal).await?;
        let id = SubmitId {
            author: self.permissions.identity().author.clone(),
            client,
            seq: submit.seq,
        };
        let submit = Submit {
            id,
            base: submit.base,
            proposal: submit.proposal,
        };
        let reply = ReplyTo::Submit {
            encoder: Box::new(echo.clone()),
            permit,
            slot,
            received,
        };
        Ok(self
            .ask(&doc, SessionRequest::Submit(submit), reply)
            .await?)
    }

    /// The client id of a submit that names `src`.
    ///
    /// # Errors
    /// If `src` is the id of another client, or the op was made in another history of the log.
    fn submit_client(&self, src: Option<ClientId>) -> Result<ClientId, Refusal> {
        let Some(src) = src.filter(|src| *src != self.client) else {
            return Ok(self.client.clone());
        };
        let issuer = self.gateway.client_ids();
        // The op was made in another history, although the socket is of this one.
        if self.outdated.is_none() && issuer.is_of_another_history(&src, self.outbox.history()) {
            return Err(Refusal::history_changed());
        }
        let author = &self.permissions.identity().author;
        let client = issuer.submit_client(author, src, self.has_returned);
        client.ok_or_else(|| {
            let message = "The src belongs to another client: reconnect to get a client id";
            Refusal::new(Code::Forbidden, message)
        })
    }

    /// Checks that the user may make a change. A user that creates a document that is not registered becomes its owner,
    /// also if a role on the whole tenant would do: each document has an owner.
    async fn require_submit(&mut self, doc: &DocId, proposal: &Proposal) -> Result<(), Refusal> {
        let creates = matches!(proposal, Proposal::Create(_));
        if creates && self.permissions.claim_ownership(doc).await? {
            self.send_role(doc).await?;
            self.reveal(doc).await;
            return Ok(());
        }
        let least = match proposal {
            Proposal::Create(_) | Proposal::Edit(_) => Role::Editor,
            Proposal::Delete => Role::Owner,
        };
        self.permissions.require_role(doc, least).await
    }

    /// Waits until one more submit of `bytes` may be unanswered: of this socket, and of the node's byte budget.
    async fn acquire_submit(
        &mut self,
        bytes: usize,
    ) -> Result<(RequestSlot, BytePermit), RequestError> {
        let (gateway, submits) = (self.gateway.clone(), self.submits.clone());
        let budget = self.submit_budget.clone();
        let permits = async {
            let slot = RequestSlot::take(&submits).await?;
            let budgets = [&budget, gateway.node().submit_budget()];
            let permit = ByteBudget::acquire(budgets, bytes).await?;
            Some((slot, permit))
        };
        let permits = self.wait_for(timeout(SUBMIT_WAIT_MAX, permits)).await?;
        Ok(permits.ok().flatten().ok_or_else(Refusal::busy)?)
    }
}
