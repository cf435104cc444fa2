//! Submits of ops.

use serde::Deserialize;

use super::{Fields, Raw, SEQ_MAX, op_badly_formed};
use crate::doc::Proposal;
use crate::id::ClientId;
use crate::log::Revision;
use crate::ot::{Content, Kind};
use crate::protocol::refusal::{Code, Refusal};

/// The content of an `op` request.
#[derive(Debug, Clone)]
pub struct SubmitRequest {
    /// The client id in the request, which a resend has; `None` stands for the id of the connection.
    pub client: Option<ClientId>,
    /// The number of the submit among those of the client.
    pub seq: u64,
    /// The revision that the change was made on; `None` stands for the newest one.
    pub base: Option<Revision>,
    /// The change.
    pub proposal: Proposal,
}

impl Fields<'_> {
    pub(super) fn submit(&self) -> Result<SubmitRequest, Refusal> {
        let base = self.v.revision()?;
        let seq = self.seq.count("Invalid seq");
        let client = match self.src.json() {
            None => None,
            Some(json) => {
                let text: String = serde_json::from_str(json)
                    .map_err(|_| op_badly_formed("src must be a string"))?;
                Some(
                    ClientId::parse(&text)
                        .map_err(|_| op_badly_formed("src is not a client's id"))?,
                )
            }
        };
        let Some(seq) = seq? else {
            return Err(op_badly_formed("Both src and seq must be set together"));
        };
        if seq > SEQ_MAX {
            let message = "Connection seq has exceeded the max safe integer, maybe from being open for too long";
            return Err(Refusal::new(Code::SeqOverflow, message));
        }
        Ok(SubmitRequest {
            client,
            seq,
            base,
            proposal: self.proposal()?,
        })
    }

    fn proposal(&self) -> Result<Proposal, Refusal> {
        // If a request has several of these members, the first counts, as in ShareDB.
        if let Some(op) = self.op.0 {
            return Ok(Proposal::Edit(op.get().into()));
        }
        if let Some(json) = self.create.json() {
            return Ok(Proposal::Create(created(json)?));
        }
        match self.del.json() {
            Some("true") => Ok(Proposal::Delete),
            Some(_) => Err(op_badly_formed("del value must be true")),
            None => Err(op_badly_formed("Missing op, create, or del")),
        }
    }
}

#[derive(Deserialize)]
struct Created<'a> {
    #[serde(borrow, default)]
    r#type: Raw<'a>,
    #[serde(borrow, default)]
    data: Raw<'a>,
}

fn created(json: &str) -> Result<Content, Refusal> {
    let created: Created<'_> =
        serde_json::from_str(json).map_err(|_| op_badly_formed("Create data must be an object"))?;
    let missing = || op_badly_formed("Missing create type");
    let name = created.r#type.json().ok_or_else(missing)?;
    let name: String = serde_json::from_str(name).map_err(|_| missing())?;
    let kind =
        Kind::parse(&name).ok_or_else(|| Refusal::new(Code::TypeNotRecognized, "Unknown type"))?;
    Ok(Content::create(kind, created.data.json())?)
}
