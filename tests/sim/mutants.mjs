// biome-ignore-all format: a table with one rule a line
// The mutations of `make mutants`: in `file`, the text `from`, which occurs once, becomes `to`.
//
// `table` names the unit test that fails without the rule; `make mutants` runs it. `unseen` gives the reason where the simulation
// does not find the mutation.

const machine = (part) => (file, rule, from, to, more) => ({
  part,
  file: file ? `src/doc/${part}/${file}.rs` : `src/doc/${part}.rs`,
  rule,
  from,
  to,
  ...more,
});
const sequencer = machine('sequencer');
const forwarder = machine('forwarder');
const document = machine('document');
const timers = (rule, from, to, more) => ({ part: 'document', file: 'src/doc/retry_timers.rs', rule, from, to, ...more });

const shell = (rule, file, from, to, table) => ({ part: 'shell', file, rule, from, to, table });

export const MUTANTS = [
  sequencer('rebase', 'a copy is recognised during the rebase', 'if entry.id == self.id {', 'if false {',
    { table: 'copy_behind_the_tail_is_found_during_rebase' }),
  sequencer('', "a client's newest submit is remembered", 'self.duplicates.first_copy(id).or(creator)', 'self.duplicates.first_copy(id).filter(|_| false).or(creator)',
    { table: 'resent_submit_is_committed_once', unseen: 'correct clients do not need it' }),
  sequencer('', 'a create is recognised by the document that it made', 'self.duplicates.first_copy(id).or(creator)', 'self.duplicates.first_copy(id).or(creator.filter(|_| false))',
    { table: 'resent_create_is_recognised_by_the_document', unseen: 'the last 1,000 entries show it too' }),
  sequencer('rebase', 'a submit without a base looks for its first copy', 'at: base.unwrap_or(past),', 'at: base.unwrap_or(past.max(head.revision)),',
    { table: 'resent_create_without_a_base_is_recognised_after_a_delete' }),
  sequencer('rebase', 'a submit without a base passes every entry', 'without_base: base.is_none(),', 'without_base: false,',
    { table: 'resent_create_without_a_base_is_recognised_after_a_delete', unseen: 'the reasons of rejections are not checked' }),
  sequencer('rebase', 'the later op is the left one', 'op.transform_within(other, Side::Left, &mut self.budget)', 'op.transform_within(other, Side::Right, &mut self.budget)',
    { table: 'later_op_is_placed_left' }),
  sequencer('', 'a submit is rebased over staged entries', 'if at >= self.head.revision {', 'if at >= self.log.durable() {'),
  sequencer('', 'no entry is broadcast before it is durable', `        let fence = self.fence;
        effects.action(Action::Append { fence, entries });`, `        let fence = self.fence;
        let (head, early) = (self.head.revision, entries.clone());
        effects.send(self.me, PeerMessage::Commits { head, entries: early });
        effects.action(Action::Append { fence, entries });`, { table: 'appends_are_grouped_while_one_is_under_way' }),
  sequencer('', 'the entries staged meanwhile are appended next', `        self.send_deferred_rejections(effects);
        self.append(effects);`, '        self.send_deferred_rejections(effects);', { table: 'appends_are_grouped_while_one_is_under_way' }),
  sequencer('staged_log', 'one append is under way at a time', 'self.appending == 0 && !self.staged.is_empty()', '!self.staged.is_empty()',
    { table: 'appends_are_grouped_while_one_is_under_way' }),
  sequencer('', 'no rejection is sent before its reason is durable', `        if self.log.is_durable() {
            effects.reject(to, id, rejection);`, `        if true {
            effects.reject(to, id, rejection);`, { table: 'rejection_waits_until_its_reason_is_durable' }),
  sequencer('', 'a rejection is sent once its reason is durable', '        self.send_deferred_rejections(effects);\n', '',
    { table: 'rejection_waits_until_its_reason_is_durable', unseen: 'the submit is sent again and rejected then' }),
  sequencer('', 'a busy owner does not reject', `        if self.log.is_full(&self.settings) {
            return;
        }`, `        if self.log.is_full(&self.settings) {
            return effects.reject(rebase.from, rebase.id, Rejection::busy());
        }`, { table: 'staged_entries_are_bounded' }),
  sequencer('duplicates', 'a rejected submit stays rejected', 'rejections.find(|(rejected, _)| rejected == id)', 'rejections.find(|_| false)',
    { table: 'rejected_submit_stays_rejected', unseen: 'it takes a document at its limit' }),
  sequencer('rebase', 'an edit does not pass a deletion', 'return rejected(Rejection::deleted());', '{}',
    { table: 'each_pair_of_changes_has_its_outcome', unseen: 'there is no document then, or its creation rejects the edit' }),
  sequencer('rebase', 'an edit does not pass a creation', '(_, Change::Create(_)) => return rejected(Rejection::already_exists()),', '(_, Change::Create(_)) => {}',
    { table: 'each_pair_of_changes_has_its_outcome', unseen: 'there was no document before it, or its deletion rejects the edit' }),
  sequencer('', 'the times of entries never fall', 'now.wall_ms.max(self.head.at_ms)', 'now.wall_ms',
    { table: 'entry_times_never_fall', unseen: 'all its nodes have one clock' }),
  sequencer('', 'a snapshot shows durable entries only', 'if self.log.is_durable() && self.snapshots.is_any_owed() {',
    'if self.snapshots.is_any_owed() {'),
  sequencer('', 'a rebase continues with the next page', 'NextEntry::InStore => return Some(rebase),', 'NextEntry::InStore => break,',
    { table: 'submits_behind_the_tail_are_rebased_page_by_page' }),
  sequencer('rebase_queue', 'a copy of a queued submit is not queued', 'find(|waiting| waiting.id == *id)', 'find(|_| false)',
    { table: 'submits_behind_the_tail_are_rebased_page_by_page', unseen: 'it is rebased twice, and the first copy is found' }),
  sequencer('', 'the next queued submit is rebased after the first', `        self.in_progress = None;
        self.continue_rebase(effects);`, `        self.in_progress = None;`, { table: 'submits_behind_the_tail_are_rebased_page_by_page' }),
  sequencer('', 'a document at its limit does not grow', 'ContentBounds::of_new(bytes_max)', 'ContentBounds::LOGGED',
    { table: 'document_at_its_limit_may_only_shrink', unseen: 'its documents stay small' }),
  sequencer('staged_log', 'staged bytes are bounded', '|| self.staged_bytes >= settings.staged_bytes_max', '|| false',
    { table: 'staged_bytes_are_bounded', unseen: 'its edits are small' }),
  sequencer('rebase_queue', 'queued submits are bounded in bytes', 'bytes < settings.staged_bytes_max', 'bytes < usize::MAX',
    { table: 'queued_rebases_are_bounded_in_bytes', unseen: 'its edits are small' }),
  sequencer('duplicates', 'remembered rejections are bounded', 'if self.rejections.len() >= REJECTIONS_MAX {', 'if false {',
    { table: 'remembered_rejections_are_bounded', unseen: 'its scenarios are short' }),
  sequencer('snapshot_schedule', 'a snapshot is saved after the configured bytes', '|| self.bytes >= settings.snapshot_bytes * pieces', '',
    { table: 'snapshot_is_saved_after_the_configured_bytes', unseen: 'its edits are small' }),

  forwarder('', 'entries after a gap are not delivered', 'let Some(known) = tail.head().0.checked_sub(start.0) {', 'let Some(known) = Some(tail.head().0.saturating_sub(start.0)) {',
    { table: 'gap_is_filled_from_the_store' }),
  forwarder('', 'a gap is filled', `        if self.head() < self.known_head {
            self.request_gap(effects);
        }
    }

    /// Adds the entries`, `    }

    /// Adds the entries`, { table: 'gap_is_filled_from_the_store' }),
  forwarder('read', 'a read without a subscription asks the store', `        } else {
            self.next_snapshot()
        };`, `        } else {
            MinRevision::Known(self.head().max(self.known_head))
        };`, { table: 'read_without_a_subscription_returns_the_stored_head' }),
  forwarder('read', 'a snapshot requested before a read does not answer it', 'MinRevision::OfSnapshot(self.snapshot.requests + 1)', 'MinRevision::OfSnapshot(self.snapshot.requests)',
    { table: 'snapshot_requested_before_a_read_does_not_answer_it' }),
  forwarder('read', 'a snapshot is not older than the known head', 'filter(|snapshot| snapshot.revision >= least)', 'filter(|_| true)',
    { table: 'outdated_snapshot_is_requested_with_a_delay' }),
  forwarder('read', 'a reconnecting client waits for the known head', 'Some(since) if since.max(tail.head()) < least', 'Some(since) if false && since < least',
    { table: 'reconnecting_client_waits_for_the_known_head' }),
  forwarder('', 'a log that grows while its end is read is read again', 'if entries.is_empty() && self.known_head == gap.known_head {', 'if entries.is_empty() {',
    { table: 'log_that_grows_while_a_gap_is_read_is_read_again', unseen: 'rarer than one scenario in 1,500' }),
  forwarder('read', 'a client ahead of the log is rejected', 'if has > self.known_head.max(head) {', 'if false {',
    { table: 'client_ahead_of_the_log_is_rejected', unseen: 'its store loses nothing' }),
  forwarder('read', 'commits follow the snapshot of a subscriber', 'if listens && !after.is_empty() {', 'if false {',
    { table: 'commits_follow_a_snapshot_fetched_by_a_subscriber' }),
  forwarder('read', 'a fetch does not end the subscription', `        if mode == ReadMode::Subscribe {
            // A new subscription`, `        if true {
            // A new subscription`, { table: 'fetch_does_not_end_the_subscription' }),
  forwarder('', 'an unsubscribe during a catch-up starts the next one', `        self.catch_ups.request_page(session, effects);
        for ticket`, '        for ticket',
    { table: 'unsubscribe_during_catch_up_starts_the_next_catch_up', unseen: 'rarer than one scenario in 1,500' }),
  forwarder('read', 'a subscription that ends is answered', 'ended.extend(ends.then_some(read.ticket));', '',
    { table: 'no_commits_follow_an_unsubscribe' }),
  forwarder('catch_ups', 'a catch-up ends with its subscription', 'Some((ticket, ReadMode::Subscribe)) if catch_up.session == session => {', 'Some((ticket, ReadMode::Subscribe)) if false => {',
    { table: 'no_commits_follow_an_unsubscribe' }),
  forwarder('', 'a submit without a subscription is answered with the entries up to its commit', 'if was_delivered {', 'if true {',
    { table: 'subscriber_gets_the_document_then_each_commit' }),
  forwarder('read', 'a client behind the tail catches up', 'if has >= head || self.tail.as_ref().is_some_and(is_in_tail) {', 'if true || self.tail.as_ref().is_some_and(is_in_tail) {',
    { table: 'client_behind_the_tail_catches_up_page_by_page' }),
  forwarder('catch_up', 'a catch-up ends with the entries of the tail', `        if !rest.is_empty() {
            effects.deliver(session, rest);
        }`, '', { table: 'reconnecting_client_gets_missed_commits_then_each_commit' }),
  forwarder('catch_up', 'a subscription begins after its catch-up', `        effects.reply(session, ticket, SessionReply::Done);
        if mode == ReadMode::Subscribe {`, `        effects.reply(session, ticket, SessionReply::Done);
        if false {`, { table: 'reconnecting_client_gets_missed_commits_then_each_commit' }),
  forwarder('pending_submits', 'an unanswered submit is sent again', 'effects.submit(first.submit.clone(), Attempt::Repeated);', '',
    { table: 'unanswered_submit_is_sent_again' }),
  forwarder('', 'a submit is answered on each socket that sent it', 'while let Some((session, pending)) = self.pending_submits.take(&entry.id) {',
    'if let Some((session, pending)) = self.pending_submits.take(&entry.id) {',
    { table: 'submit_sent_on_two_sockets_is_answered_on_both', unseen: 'one scenario in 50,000 has it' }),
  forwarder('presence', "a client's own text moves its position, and the text of others does not", 'let own = entry.id.client == *client;', 'let own = false;'),
  forwarder('', 'a snapshot that did not arrive is requested again', `        if !self.pending_reads.is_empty() {
            self.snapshot.request(effects);
        }
        self.catch_ups.retry`, '        self.catch_ups.retry', { table: 'requests_during_a_store_failure_are_served_afterwards' }),
  forwarder('', 'a catch-up resumes after a failure of the store', '        self.catch_ups.retry(effects);\n', '', { table: 'catch_up_resumes_after_a_store_failure' }),
  forwarder('pending_submits', 'pending submits of a session are bounded', 'if queue.len() >= submits_max {', 'if false {',
    { table: 'pending_submits_of_a_session_are_bounded', unseen: 'its clients have one in flight' }),

  document('', 'only the page of a gap shows the end of the log', `            PageRequester::CatchUp(session) => {
                self.forwarder
                    .catch_up_page`, `            PageRequester::CatchUp(session) => {
                self.forwarder.gap_page(since, &page, &mut self.effects);
                self.forwarder
                    .catch_up_page`,
    { table: 'empty_catch_up_page_does_not_end_a_gap', unseen: 'one scenario in 65,000 shows it' }),
  document('ownership', 'a snapshot owed by a sequencer that ends is requested again', 'if sequencer.owes_snapshot() {', 'if false {',
    { table: 'snapshot_owed_by_an_ended_sequencer_is_loaded' }),
  document('ownership', 'an append with an unknown outcome ends the sequencer', `            Err(_) => {
                self.step_down(now);
                self.timers.store_failed(now);
            }`, '            Err(_) => sequencer.appended(&mut self.effects),', { table: 'append_with_unknown_outcome_is_committed_once' }),
  document('ownership', 'a fenced append ends the sequencer', 'Ok(Err(AppendError::Fenced)) => self.step_down(now),', 'Ok(Err(AppendError::Fenced)) => {}',
    { table: 'fenced_owner_claims_again_and_keeps_the_order', unseen: 'a heartbeat ends it later' }),
  document('ownership', "an answer to another claim's append is ignored", 'if sequencer.fence() != fence {', 'if false {',
    { table: 'append_answer_of_an_older_claim_is_ignored', unseen: 'rarer than one scenario in 1,500' }),
  document('ownership', 'a sequencer that ends is dropped', 'self.end_sequencer();\n        self.timers.retry_soon(now);',
    'self.timers.retry_soon(now);', { table: 'fenced_owner_claims_again_and_keeps_the_order' }),
  sequencer('', 'a submit on another entry than the one in the log is not sequenced', '(mine.fingerprint() != fingerprint?)', '(fingerprint? == 0)',
    { table: 'submit_on_another_entry_than_the_owners_is_not_sequenced', unseen: 'its store does not go back in time' }),
  document('ownership', 'an owner behind the log claims before it rejects', 'self.reclaim(from, submit, base_fingerprint, now);',
    'self.submit_or_reject(from, submit, base_fingerprint, now);', { table: 'owner_behind_the_log_claims_before_it_rejects' }),
  document('ownership', 'a claim rejects only what came before it', 'Arrival::DuringClaim => self.submit(from, submit, base_fingerprint, now),',
    'Arrival::DuringClaim => self.submit_or_reject(from, submit, base_fingerprint, now),',
    { table: 'claim_rejects_only_submits_that_came_before_it', unseen: 'rarer than one scenario in 1,500' }),
  document('ownership', 'an owner that the ring does not name ends', 'let hands_over = is_quiet && self.owner != self.me;', 'let hands_over = false && is_quiet;',
    { table: 'owner_not_named_by_the_ring_ends_when_quiet', unseen: 'its node and the others are served nevertheless' }),
  document('ownership', 'an owner ends only when nothing of it is under way', 'let hands_over = is_quiet && self.owner != self.me;', 'let hands_over = matches!(&self.role, OwnershipState::Owning(_)) && self.owner != self.me;',
    { table: 'owner_not_named_by_the_ring_ends_when_quiet', unseen: 'staged submits are sent again' }),
  document('ownership', 'an owner behind a known head steps down', 'OwnershipState::Owning(sequencer) if head > sequencer.head())', 'OwnershipState::Owning(_) if head.0 == u64::MAX)',
    { table: 'owner_behind_a_known_head_steps_down', unseen: 'a heartbeat ends it, and its readers wait until then' }),
  document('ownership', 'commits that only the store reported are read', `        self.step_down_if_behind(head, now);
        self.forwarder.commits(head, &[], &mut self.effects);`, '        self.step_down_if_behind(head, now);',
    { table: 'outdated_snapshot_is_requested_with_a_delay' }),
  document('ownership', 'an idle owner learns that it was superseded', 'if self.owned_epoch() == Some(epoch) {', 'if false && self.owned_epoch() == Some(epoch) {'),
  timers('a submit without an answer is sent again', 'self.resend.get_or_insert(now.clock + pause);', 'let _ = pause;',
    { table: 'unanswered_submit_is_sent_again' }),
  timers('a reconnect repeats what waits at once', '*timer = timer.map(|at| at.min(now.clock));', 'let _ = timer;',
    { table: 'pending_submit_is_sent_at_once_on_reconnect', unseen: 'it is repeated later nevertheless' }),
  timers('a failed request to the store is repeated', 'let pause = backoff(RETRY_FIRST, self.store_failures, RETRY_LAST);\n        self.store_failures += 1;\n        self.retry_store_at(now.clock + pause);',
    'let _ = now;', { table: 'requests_during_a_store_failure_are_served_afterwards' }),
  document('ownership', 'a peer subscription survives a change of owner', 'let subscriptions = std::mem::take(&mut self.subscriptions);', 'let subscriptions = Default::default();',
    { table: 'peer_subscription_survives_a_change_of_owner', unseen: 'heartbeats report the commits later' }),
  document('ownership', "this node's sequencer sends it the commits", 'self.forwarder.owner_started_here();', '',
    { unseen: 'the store is asked more often, without other effects' }),
  document('ownership', 'a node whose sequencer ended is not sent commits', 'self.forwarder.owner_ended_here();', '',),
  document('ownership', 'a forwarded submit is not forwarded again', 'match from == self.me && self.owner != self.me {', 'match self.owner != self.me {',
    { table: 'forwarded_submit_is_not_forwarded_again', unseen: 'rings agree in the end, and it is sent again' }),
  document('waiting_submits', 'submits of other nodes that wait for a claim are bounded', 'self.0.len() < SUBMITS_MAX && ', '',
    { table: 'submits_waiting_for_a_claim_are_bounded', unseen: 'its nodes send fewer' }),
  document('waiting_submits', 'submits that wait for a claim are bounded in bytes', 'self.0.iter().map(bytes).sum::<usize>() < bytes_max;', 'self.0.iter().map(bytes).sum::<usize>() < usize::MAX;',
    { table: 'submits_waiting_for_a_claim_are_bounded_in_bytes', unseen: 'its edits are small' }),

  shell('commits stay behind the first bulk reply that holds them', 'src/node/document/session.rs',
    'if held_by.is_none_or(|bulk| !bulk.is_incomplete()) {', 'if true || held_by.is_some() {', 'commits_stay_behind_the_first_bulk_reply_that_holds_them'),
  shell('frames behind a bulk reply are bounded by the outbox', 'src/node/delivery/reply.rs', 'outbox.close_if_over(parts.held_bytes);', '',
    'held_back_frames_are_bounded_by_the_outbox'),
  shell('clients with requests in the mailbox of an ended task are closed', 'src/node/document/task.rs',
    '            if let DocumentMessage::Request { outbox, .. } = message {\n                outbox.close', '            if let (DocumentMessage::Request { outbox, .. }, false) = (message, true) {\n                outbox.close',
    'clients_with_requests_in_the_mailbox_of_an_ended_task_are_closed'),
  shell('a position that comes after its session ended is not kept', 'src/node/presence/service.rs',
    'if !outbox.is_closed() {', 'if true {', 'value_that_comes_after_its_session_ended_is_not_kept'),
  shell('presence effects are performed by one thread at a time', 'src/node/presence/service.rs',
    'std::mem::replace(&mut state.is_draining, true)', 'std::mem::replace(&mut state.is_draining, false)', 'concurrent_publishers_are_delivered_in_order_and_completely'),
  shell("a socket's counter is not dropped under its own lock", 'src/gateway/gateway.rs', `        let open = *gateway.sockets.borrow();
        (open <= gateway`, '        (*gateway.sockets.borrow() <= gateway', 'the_socket_too_many_is_refused_and_no_longer_counted'),
  shell('a socket that ended is no longer counted', 'src/gateway/gateway.rs', 'self.0.sockets.send_modify(|open| *open -= 1);', '',
    'the_socket_too_many_is_refused_and_no_longer_counted'),
];
