//! Edits of plain-text documents over HTTP: `POST /api/documents/{collection}/{id}/text-ops`.
//!
//! The edit comes in the form of ot.js (`[5, "abc", -2]`: retain, insert, delete), made on the revision `base`. It is
//! submitted like the op of a socket, so the document's sequencer transforms it over the commits since its base, and
//! answered when it is durable, with its revision and in the form in which it was committed. Each request is a client of
//! its own: a repeated request is a second edit.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::ContentType;
use actix_web::web::{Data, Json};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::select;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::extract::{ClientAddress, DocumentAccess, InOrder, Write};
use crate::access::{Role, tenant_of};
use crate::auth::{AccessChange, NONCE_BYTES, network};
use crate::doc::{Proposal, Rejection, SessionRequest, Submit};
use crate::gateway::api_error::ApiError;
use crate::gateway::frame_encoder::ShareDbEncoder;
use crate::gateway::gateway::Gateway;
use crate::gateway::permission_cache::PermissionCache;
use crate::id::{DocId, SessionId};
use crate::log::{Change, Entry, Revision, SubmitId};
use crate::node::{AskError, ByteBudget, Outbox, ReplyTo};
use crate::ot::ot_js::Edit;
use crate::ot::{Op, TextOp};
use crate::protocol::{CloseReason, Refusal, SEQ_MAX};

/// An edit, and the revision that it was made on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TextOps {
    base: u64,
    ops: Box<RawValue>,
}

/// How long a request waits for room among the uncommitted edits of the node, and then for its commit.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Bytes of commits that may gather for a request before they are dropped. They are not read: the answer has the edit's own
/// commit only.
const OUTBOX_BYTES_MAX: usize = 1 << 20;

/// Commits an edit and answers with its revision and its committed form.
pub(super) async fn edit_text(
    InOrder(Json(body), access): InOrder<Json<TextOps>, DocumentAccess<Write>>,
    ClientAddress(address): ClientAddress,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    if !gateway.is_serving() {
        return Err(ApiError::Restarting);
    }
    let edit = parse(&body).map_err(ApiError::InvalidOps)?;
    let DocumentAccess {
        doc,
        identity,
        generation,
        ..
    } = access;
    let mut limits = gateway.limits().for_socket(&identity, network(address));
    let wait = limits.take_shared(gateway.limits(), tenant_of(&doc.collection), Some(&doc), 1);
    sleep(wait.ok_or_else(Refusal::busy)?).await;
    let permissions = PermissionCache::new(gateway.auth().clone(), identity, generation);
    let submission = Submission::new(gateway.into_inner(), doc, permissions);
    match submission.commit(Revision(body.base), &edit).await {
        Ok(entry) => Ok(committed(&entry)),
        Err(Failed::Refused(refusal)) => Err(refusal.into()),
        Err(Failed::Unknown) => Err(ApiError::OutcomeUnknown),
    }
}

/// The edit as clients of the document's type write it.
fn parse(body: &TextOps) -> Result<Arc<str>, String> {
    if body.base > SEQ_MAX {
        return Err(format!("base is a revision, at most {SEQ_MAX}"));
    }
    let edit = Edit::parse(body.ops.get()).map_err(|error| error.to_string())?;
    let op = edit.to_text_op();
    // Every type of document reads an empty op as one of its own.
    if op == TextOp::default() {
        return Err("The edit inserts and deletes nothing".to_owned());
    }
    let mut json = Vec::new();
    Op::Text(op).write_json(&mut json);
    let json = String::from_utf8(json).map_err(|error| error.to_string())?;
    Ok(json.into())
}

/// Why an edit was not answered with its commit.
#[derive(Debug)]
enum Failed {
    /// It was rejected, and is not committed.
    Refused(Refusal),
    /// It may be committed, or may become so.
    Unknown,
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// One edit on its way to its commit: a session of the node with a single request. Ends the session when it is dropped.
struct Submission {
    gateway: Arc<Gateway>,
    doc: DocId,
    permissions: PermissionCache,
    session: SessionId,
    outbox: Arc<Outbox>,
}

impl Submission {
    fn new(gateway: Arc<Gateway>, doc: DocId, permissions: PermissionCache) -> Self {
        let history = gateway.node().log_history();
        let outbox = Outbox::new(OUTBOX_BYTES_MAX, &ShareDbEncoder, None).with_history(history);
        Self {
            session: gateway.node().next_session(),
            gateway,
            doc,
            permissions,
            outbox: Arc::new(outbox),
        }
    }

    /// Submits the edit and waits until it is durable or rejected.
    async fn commit(mut self, base: Revision, edit: &Arc<str>) -> Result<Arc<Entry>, Failed> {
        let node = self.gateway.node().clone();
        self.permissions
            .require_role(&self.doc, Role::Editor)
            .await?;
        self.permissions.require_storage(&self.doc, edit.len())?;
        let own = ByteBudget::new(self.gateway.settings().submits_bytes_max);
        let room = timeout(
            WAIT_MAX,
            ByteBudget::acquire([&own, node.submit_budget()], edit.len()),
        );
        let room = room.await.ok().flatten().ok_or_else(Refusal::busy)?;

        let (sender, outcome) = oneshot::channel();
        let submit = Submit {
            id: self.submit_id()?,
            base: Some(base),
            proposal: Proposal::Edit(edit.clone()),
        };
        let asked = node.ask(
            &self.doc,
            (self.session, &self.outbox),
            SessionRequest::Submit(submit),
            ReplyTo::Commit(sender, room),
        );
        asked.await.map_err(|error| match error {
            AskError::Stopping | AskError::Full => Refusal::busy(),
        })?;
        timeout(WAIT_MAX, self.outcome(outcome))
            .await
            .unwrap_or(Err(Failed::Unknown))
    }

    /// A new client's first submit: it cannot be mistaken for another.
    fn submit_id(&self) -> Result<SubmitId, Refusal> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| Refusal::busy())?;
        let author = self.permissions.identity().author.clone();
        let history = self.outbox.history();
        let client = self.gateway.client_ids().issue(&author, nonce, history);
        Ok(SubmitId {
            author,
            client,
            seq: 1,
        })
    }

    /// Waits for the answer. If the permission to edit is lost meanwhile, the edit is withdrawn unless it is already
    /// committed.
    async fn outcome(
        &mut self,
        mut outcome: oneshot::Receiver<Result<Arc<Entry>, Rejection>>,
    ) -> Result<Arc<Entry>, Failed> {
        let outbox = self.outbox.clone();
        let mut is_revoked = false;
        loop {
            select! {
                biased;
                outcome = &mut outcome => {
                    let outcome = outcome.map_err(|_| Failed::Unknown)?;
                    return outcome.map_err(|rejection| Failed::Refused(rejection.into()));
                }
                () = outbox.closed() => return Err(Failed::Unknown),
                () = self.permissions.access_changed(), if !is_revoked => {
                    if !self.may_still_edit().await {
                        is_revoked = true;
                        let node = self.gateway.node();
                        node.revoke_write(&self.doc, self.session).await;
                    }
                }
                // Frames are taken and dropped: the document waits until a page of commits is taken before it sends more.
                _ = poll_fn(|cx| outbox.poll_take(cx)) => {}
            }
        }
    }

    async fn may_still_edit(&mut self) -> bool {
        let scope = match self.permissions.take_access_change() {
            None => return true,
            Some(AccessChange::SessionEnded) => return false,
            Some(AccessChange::Permissions(scope)) => scope,
        };
        let in_use = BTreeSet::from([self.doc.clone()]);
        let found = self.permissions.refresh(scope, in_use).await;
        found.is_ok()
            && self
                .permissions
                .require_role(&self.doc, Role::Editor)
                .await
                .is_ok()
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        self.outbox.close(CloseReason::Normal);
        self.outbox.release();
        let (gateway, doc, session) = (self.gateway.clone(), self.doc.clone(), self.session);
        actix_web::rt::spawn(async move { gateway.node().end_session(&doc, session).await });
    }
}

/// The op as it was committed, on the text before its revision. The retain of the rest of the text is left out.
fn committed(entry: &Entry) -> HttpResponse {
    let edit = match &entry.change {
        Change::Edit(Op::Text(op)) => Edit::of_shortest_text(op),
        _ => Edit::default(),
    };
    let mut body = format!("{{\"revision\":{},\"ops\":", entry.revision.0).into_bytes();
    edit.write_json(&mut body);
    body.push(b'}');
    HttpResponse::Ok()
        .content_type(ContentType::json())
        .body(body)
}
