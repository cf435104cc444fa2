//! Read-only documents: those with a damaged stored log, those that are larger than what is held in memory, and those in
//! quarantine.

use std::time::Duration;

use super::{Document, OwnershipState};
use crate::doc::action::Action;
use crate::doc::event::{Now, PageRequester, ReadOnly, ReadOnlyCause};
use crate::doc::forwarder::PendingOnReadOnly;
use crate::doc::peer_message::PeerMessage;
use crate::log::Revision;

/// How often a damaged document that another node may own is loaded again, in case its owner has saved it.
const RESCUE_TRIES: u32 = 4;

/// For how long a damaged document, or one in quarantine, is not loaded again. An operator may have restored or released it
/// in the meantime.
pub(super) const RELOAD_AFTER: Duration = Duration::from_secs(5);

impl Document {
    /// Only a part of the stored log can be folded, or the document is in quarantine. What can be folded is served, and every
    /// submit is rejected.
    ///
    /// If an owner holds the whole document in memory it saves a snapshot first, and the requests are tried again.
    pub(super) fn read_only(&mut self, found: ReadOnly, now: Now) {
        let is_damaged = matches!(found.cause, ReadOnlyCause::Damaged { .. });
        let is_owner_elsewhere = self.owner != self.me;
        let may_be_rescued =
            is_damaged && is_owner_elsewhere && self.timers.store_failures() < RESCUE_TRIES;
        let is_quarantined = found.cause == ReadOnlyCause::Quarantined;
        if is_quarantined {
            // Other nodes do not serve it either: there is no owner that has more of it.
            self.end_sequencer();
        } else if self.owned_epoch().is_some() || may_be_rescued {
            if is_damaged {
                self.request_rescue();
            }
            if !matches!(self.role, OwnershipState::Owning(_)) {
                self.role = OwnershipState::Following;
            }
            self.forwarder.snapshot_failed();
            return self.timers.store_failed(now);
        }
        self.role = OwnershipState::Following;
        self.timers.store_answered();
        for waiting in self.waiting_submits.take() {
            let rejection = found.rejection.clone();
            self.effects
                .reject(waiting.from, waiting.submit.id, rejection);
        }
        // An owner elsewhere answers the submits that were sent to it: it may hold the document in memory.
        let pending = match is_owner_elsewhere && is_damaged {
            true => PendingOnReadOnly::Keep,
            false => PendingOnReadOnly::Reject,
        };
        let reload_at = found.cause.may_end().then_some(now.clock + RELOAD_AFTER);
        self.forwarder
            .set_read_only(found, pending, reload_at, &mut self.effects);
    }

    /// The store refuses claims, because of damaged rows, and no readable part was loaded. Another claim would not help.
    pub(super) fn claim_damaged(&mut self, entry: Option<Revision>, now: Now) {
        let cause = ReadOnlyCause::Damaged { entry };
        let found = ReadOnly {
            readable: None,
            head: self.forwarder.head(),
            rejection: cause.rejection(None),
            cause,
        };
        self.read_only(found, now);
    }

    /// The stored log is damaged: the owner saves a snapshot of what it holds in memory.
    pub(super) fn request_rescue(&mut self) {
        match &mut self.role {
            OwnershipState::Owning(sequencer) => sequencer.rescue(&mut self.effects),
            OwnershipState::Following | OwnershipState::Claiming if self.owner != self.me => {
                self.effects.send(self.owner, PeerMessage::SaveSnapshot);
            }
            OwnershipState::Following | OwnershipState::Claiming => {}
        }
    }

    /// A requested page is damaged: what needs it is rejected, since another request would not help.
    pub(super) fn page_damaged(
        &mut self,
        requester: PageRequester,
        since: Revision,
        entry: Option<Revision>,
        now: Now,
    ) {
        self.request_rescue();
        let rejection = ReadOnlyCause::Damaged { entry }.rejection(None);
        match requester {
            PageRequester::CatchUp(session) => {
                self.forwarder
                    .catch_up_damaged(session, since, &rejection, &mut self.effects);
            }
            PageRequester::Sequencer(epoch) => {
                if let Some(sequencer) = self.role.sequencer_of(epoch) {
                    sequencer.page_failed(since, rejection, &mut self.effects);
                }
            }
            PageRequester::Gap => {
                // The owner may have the entries in memory.
                self.timers.renew_subscription(now);
                if self.timers.store_failures() >= RESCUE_TRIES {
                    self.effects.action(Action::CloseSessions);
                }
                self.timers.store_failed(now);
            }
        }
    }
}
