//! The submits that wait for a claim.

use crate::doc::submit::Submit;
use crate::id::NodeId;

/// The most submits that wait for a claim. A forwarder sends again what was not taken.
pub(super) const SUBMITS_MAX: usize = 1_000;

/// Submits that are sequenced or rejected after the next claim: those of other nodes that arrived before this node became the
/// owner, and those with a base that this owner does not know.
#[derive(Debug, Default)]
pub(super) struct WaitingSubmits(Vec<WaitingSubmit>);

/// A submit that waits for a claim.
#[derive(Debug)]
pub(super) struct WaitingSubmit {
    /// The node that sent it.
    pub(super) from: NodeId,
    pub(super) submit: Submit,
    /// The fingerprint of the entry at its base that its sender has.
    pub(super) base_fingerprint: Option<u64>,
    pub(super) arrival: Arrival,
}

/// When a submit arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Before the claim was requested. The claim finds every commit that the submit's client knew of.
    BeforeClaim,
    /// While the claim was under way.
    DuringClaim,
}

impl WaitingSubmits {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of waiting submits.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds a submit unless it waits already, or too many submits wait, or `bytes_max` bytes of them.
    pub(super) fn add(
        &mut self,
        from: NodeId,
        submit: Submit,
        base_fingerprint: Option<u64>,
        bytes_max: usize,
    ) {
        let is_known =
            |waiting: &WaitingSubmit| waiting.from == from && waiting.submit.id == submit.id;
        let bytes = |waiting: &WaitingSubmit| waiting.submit.proposal.size();
        let has_room =
            self.0.len() < SUBMITS_MAX && self.0.iter().map(bytes).sum::<usize>() < bytes_max;
        if has_room && !self.0.iter().any(is_known) {
            self.0.push(WaitingSubmit {
                from,
                submit,
                base_fingerprint,
                arrival: Arrival::DuringClaim,
            });
        }
    }

    /// A claim is requested.
    pub(super) fn claim_requested(&mut self) {
        for waiting in &mut self.0 {
            waiting.arrival = Arrival::BeforeClaim;
        }
    }

    /// Takes out all submits, in the order of their arrival.
    pub(super) fn take(&mut self) -> Vec<WaitingSubmit> {
        std::mem::take(&mut self.0)
    }
}
