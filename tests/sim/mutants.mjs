// biome-ignore-all format: a table with one rule a line
// The ways in which `make mutants` breaks the rules: in `file`, the text `from`, which is there once, becomes `to`.
//
// `table` names the unit test that fails without the rule: `make mutants` runs it. Where the simulation cannot find the rule
// missing, `unseen` says why.

const sequencer = (rule, from, to, more) => ({ part: 'sequencer', file: 'src/doc/sequencer.rs', rule, from, to, ...more });
const forwarder = (rule, from, to, more) => ({ part: 'forwarder', file: 'src/doc/forwarder.rs', rule, from, to, ...more });
const document = (rule, from, to, more) => ({ part: 'document', file: 'src/doc/document.rs', rule, from, to, ...more });

const shell = (rule, file, from, to, table) => ({ part: 'shell', file, rule, from, to, table });

export const MUTANTS = [
  sequencer('a copy is recognised on the way from its base', 'if entry.id == self.id {', 'if false {',
    { table: 'a_late_copy_is_found_on_the_way' }),
  sequencer("a client's newest submit is remembered", 'recent.or(creator)', 'recent.filter(|_| false).or(creator)',
    { table: 'resent_submit_is_committed_once', unseen: 'honest clients never need it' }),
  sequencer('a create is known by the document that it made', 'recent.or(creator)', 'recent.or(creator.filter(|_| false))',
    { table: 'resent_create_is_known_by_the_document_it_made', unseen: 'the last 1,000 entries show it too' }),
  sequencer('a submit without a version looks for its first copy', 'at: base.unwrap_or(past),', 'at: base.unwrap_or(past.max(head.revision)),',
    { table: 'resent_create_without_a_version_is_known_though_the_document_was_deleted' }),
  sequencer('a submit without a version follows all that is there', 'on_current: base.is_none(),', 'on_current: false,',
    { table: 'resent_create_without_a_version_is_known_though_the_document_was_deleted', unseen: 'what it is refused for is not judged' }),
  sequencer('the later op goes left', 'op.transform_within(other, Side::Left, &mut self.budget)', 'op.transform_within(other, Side::Right, &mut self.budget)',
    { table: 'a_later_op_goes_left' }),
  sequencer('a submit is transformed over what is staged', 'if at >= self.head.revision {', 'if at >= self.tail.head() {'),
  sequencer('nothing is told before it is durable', `        let entries = self.under_way().cloned().collect();
`, `        let entries: Vec<_> = self.under_way().cloned().collect();
        let message = PeerMessage::Commits { head: self.head.revision, entries: entries.clone() };
        out.push_back(Action::Send { to: self.me, message });
`, { table: 'appends_gather_while_one_is_under_way' }),
  sequencer('what gathered is appended next', `        self.say_unsaid(out);
        self.append(out);`, '        self.say_unsaid(out);', { table: 'appends_gather_while_one_is_under_way' }),
  sequencer('one append is under way at a time', 'if self.appending > 0 || self.staged.is_empty() {', 'if self.staged.is_empty() {',
    { table: 'appends_gather_while_one_is_under_way' }),
  sequencer('no refusal is told before its reason is durable', `        if self.staged.is_empty() {
            reject(to, id, rejection, out);`, `        if true {
            reject(to, id, rejection, out);`, { table: 'a_refusal_waits_until_its_reason_is_durable' }),
  sequencer('a refusal is told once its reason is durable', '        self.say_unsaid(out);', '',
    { table: 'a_refusal_waits_until_its_reason_is_durable', unseen: 'whoever waits asks again, and is told then' }),
  sequencer('a busy owner does not refuse', `        if full {
            return;
        }`, `        if full {
            return reject(rebase.from, rebase.id, Rejection::busy(), out);
        }`, { table: 'no_more_is_staged_than_may_be' }),
  sequencer('what was refused stays refused', 'self.refused.iter().find(|(id, _)| *id == submit.id)', 'self.refused.iter().find(|_| false)',
    { table: 'what_was_refused_stays_refused', unseen: 'it takes a document at its limit' }),
  sequencer('an edit does not pass a deletion', 'return refused(Rejection::deleted());', '{}',
    { table: 'what_was_committed_meanwhile_decides_what_may_follow', unseen: 'there is no document then, or its creation refuses it' }),
  sequencer('an edit does not pass a creation', '(_, Change::Create(_)) => return refused(Rejection::already_exists()),', '(_, Change::Create(_)) => {}',
    { table: 'what_was_committed_meanwhile_decides_what_may_follow', unseen: 'before it there was none, or its deletion refuses it' }),
  sequencer('the time of an entry never falls', 'now.wall_ms.max(self.head.at_ms)', 'now.wall_ms',
    { table: 'time_of_an_entry_is_never_before_that_of_the_entry_before', unseen: 'its nodes have one clock' }),
  sequencer('a snapshot is of what is durable', 'if self.staged.is_empty() && (self.show_wanted || self.unsaved.due) {',
    'if self.show_wanted || self.unsaved.due {'),
  sequencer('a late submit walks on to the tail', 'NextEntry::Unread => return Some(rebase),', 'NextEntry::Unread => break,',
    { table: 'late_submits_walk_to_the_tail_page_by_page' }),
  sequencer('a late submit is looked for before it waits once more', 'find(|late| late.id == *id)', 'find(|_| false)',
    { table: 'late_submits_walk_to_the_tail_page_by_page', unseen: 'it walks twice, and the first copy is found' }),
  sequencer('the next late submit walks when one has arrived', `        self.at_work = None;
        self.ask_for_more(out);`, `        self.at_work = None;`, { table: 'late_submits_walk_to_the_tail_page_by_page' }),
  sequencer('a document at its limit does not grow', 'ContentBounds::of_new(bytes_max)', 'ContentBounds::LOGGED',
    { table: 'a_document_at_its_limit_may_only_shrink', unseen: 'its documents stay small' }),
  sequencer('no more bytes are staged than allowed', '|| self.staged_bytes >= self.settings.staged_bytes_max;', '|| false;',
    { table: 'no_more_bytes_are_staged_than_allowed', unseen: 'its edits are small' }),
  sequencer('late submits wait in few bytes', '&& bytes < self.settings.staged_bytes_max\n        {\n            self.late', '{\n            self.late',
    { table: 'late_submits_wait_in_few_bytes', unseen: 'its edits are small' }),
  sequencer('only the newest refusals are remembered', 'if self.refused.len() >= REFUSED_MAX {', 'if false {',
    { table: 'only_the_newest_refusals_are_remembered', unseen: 'its stories are short' }),
  sequencer('a snapshot is saved after so many bytes', '|| self.unsaved.bytes >= self.settings.snapshot_bytes * pieces', '',
    { table: 'a_snapshot_is_saved_after_so_many_bytes', unseen: 'its edits are small' }),

  forwarder('a gap is not passed over', 'let Some(known) = tail.head().0.checked_sub(start.0) {', 'let Some(known) = Some(tail.head().0.saturating_sub(start.0)) {',
    { table: 'a_gap_is_healed_from_the_store' }),
  forwarder('a gap is healed', `        if self.head() < self.told_head {
            self.heal(out);
        }
    }

    /// Takes in`, `    }

    /// Takes in`, { table: 'a_gap_is_healed_from_the_store' }),
  forwarder('the store is asked where nobody is told', 'Least::Shown(self.shows + 1)\n', 'Least::Known(self.head().max(self.told_head))\n',
    { table: 'who_asks_where_nobody_is_told_is_shown_what_the_store_holds' }),
  forwarder('a snapshot that was asked for before the question does not answer it', 'Least::Shown(self.shows + 1)\n', 'Least::Shown(self.shows)\n',
    { table: 'a_snapshot_that_was_read_before_the_question_does_not_answer_it' }),
  forwarder('a snapshot is no older than what was told', 'filter(|shown| shown.revision >= least)', 'filter(|_| true)',
    { table: 'a_snapshot_that_is_too_old_is_not_asked_for_without_end' }),
  forwarder('who comes back has what was told before it is done', 'Some(since) if since.max(tail.head()) < least', 'Some(since) if false && since < least',
    { table: 'who_comes_back_is_not_done_before_it_has_what_was_told' }),
  forwarder('a log that grew while its end was looked for is read on', 'if entries.is_empty() && self.told_head == healing.told {', 'if entries.is_empty() {',
    { table: 'a_log_that_has_grown_while_its_end_was_looked_for_is_read_on', unseen: 'rarer than one story in 1,500' }),
  forwarder('who has more than the log is refused', 'if has > self.told_head.max(tail.head()) {', 'if false {',
    { table: 'who_has_more_than_the_log_is_refused', unseen: 'its store loses nothing' }),
  forwarder('commits follow the snapshot of a joiner', 'if listens && !after.is_empty() {', 'if false {',
    { table: 'commits_follow_the_snapshot_that_a_subscriber_fetches' }),
  forwarder('a fetch leaves the subscription as it is', `        if live {
            // Subscribing`, `        if true {
            // Subscribing`, { table: 'a_fetch_leaves_the_subscription_as_it_is' }),
  forwarder('a walker that leaves hands the walk on', `        self.walk(session, out);
        for ticket`, '        for ticket',
    { table: 'a_read_that_ends_in_the_middle_of_its_way_does_not_stop_the_next', unseen: 'rarer than one story in 1,500' }),
  forwarder('a subscription that is ended is answered', 'ended.extend(ends.then_some(joiner.ticket));', '',
    { table: 'nothing_follows_the_end_of_a_subscription' }),
  forwarder('a walk ends with its subscription', `Then::Joined {
                ticket, live: true, ..
            } if walker.session == session => {`, `Then::Joined {
                ticket, live: true, ..
            } if false => {`,
    { table: 'nothing_follows_the_end_of_a_subscription' }),
  forwarder('who submits without a subscription is sent the way to its commit', 'if !heard {', 'if false {',
    { table: 'a_reader_is_shown_the_document_and_then_each_commit' }),
  forwarder('who is far behind walks', '} else if has >= tail.head() || tail.since(has).is_some() {', '} else if true {',
    { table: 'who_comes_back_far_behind_the_tail_walks_to_it' }),
  forwarder('a walk ends with what the tail holds', `        if !rest.is_empty() {
            out.push(deliver(session, rest));
        }`, '', { table: 'who_comes_back_is_sent_what_it_missed_and_then_each_commit' }),
  forwarder('who has walked is told what follows', `        out.push(reply(session, ticket, SessionReply::Done));
        if live {`, `        out.push(reply(session, ticket, SessionReply::Done));
        if false {`, { table: 'who_comes_back_is_sent_what_it_missed_and_then_each_commit' }),
  forwarder('what is unanswered is said again', 'out.push(Want::SubmitAgain(first.submit.clone()));', '',
    { table: 'a_follower_says_again_what_its_owner_did_not_answer' }),
  forwarder('a submit is answered on each socket that said it', 'while let Some((session, first)) = self.take_answered(&entry.id) {',
    'if let Some((session, first)) = self.take_answered(&entry.id) {',
    { table: 'what_is_said_on_two_sockets_is_answered_on_both', unseen: 'one story in 50,000 has it' }),
  forwarder("one's own text moves one's position, others' does not", 'let own = entry.id.client == *client;', 'let own = false;'),
  forwarder('who waits for a snapshot is not forgotten when it does not come', `        if !self.joiners.is_empty() {
            self.show(out);
        }
        for session in self.walking()`, '        for session in self.walking()', { table: 'while_the_store_is_away_everybody_waits_and_then_is_served' }),
  forwarder('a walk goes on when the store was away', `        for session in self.walking() {
            self.walk(session, out);
        }
        if self.healing`, '        if self.healing', { table: 'a_walk_survives_a_store_that_was_away' }),

  forwarder('a session has few submits without an answer', 'if queue.len() >= self.settings.session_submits_max {', 'if false {',
    { table: 'a_session_has_few_submits_without_an_answer', unseen: 'its clients have one under way' }),

  document("only a gap's own page says that the log ends", '(PageRequester::CatchUp(session), _) => {', `(PageRequester::CatchUp(session), _) => {
                self.forward(now, |forwarder, wants| forwarder.read_on(since, &page, wants));`,
    { table: 'what_a_walker_found_says_nothing_of_a_gap', unseen: 'one story in 65,000 shows it' }),
  document('a sequencer that falls does not take a promised snapshot along', 'if sequencer.owes_a_snapshot() {', 'if false {',
    { table: 'a_reader_is_shown_the_document_though_its_owner_falls' }),
  document('an append of unknown fate ends the sequencer', `            Err(_) => {
                self.resign(now);
                self.unanswered(now);
            }
        }
    }

    /// The ring`, `            Err(_) => sequencer.appended(&mut self.out),
        }
    }

    /// The ring`, { table: 'an_append_of_unknown_fate_is_committed_once' }),
  document('an append that is fenced ends the sequencer', 'Ok(Err(AppendError::Fenced)) => self.resign(now),', 'Ok(Err(AppendError::Fenced)) => {}',
    { table: 'a_fenced_owner_claims_anew_and_says_all_in_order', unseen: 'a heartbeat says it, later' }),
  document("an answer to another claim's append decides nothing", 'if sequencer.fence() != asked {', 'if false {',
    { table: 'the_answer_to_an_older_claims_append_decides_nothing', unseen: 'rarer than one story in 1,500' }),
  document('a sequencer that ends keeps nothing', 'self.become_other(Role::Following, now);\n        self.retry_at(now.clock + RETRY_FIRST);',
    'self.retry_at(now.clock + RETRY_FIRST);', { table: 'a_fenced_owner_claims_anew_and_says_all_in_order' }),
  document('an owner that is behind claims before it refuses', 'Verdict::Ahead(submit) => self.doubt(from, submit, now),',
    'Verdict::Ahead(submit) => self.submit_surely(from, submit, now),', { table: 'an_owner_that_is_behind_claims_before_it_refuses' }),
  document('a claim refuses only what came before it', 'if waiting.is_older {', 'if true {',
    { table: 'a_claim_refuses_only_what_came_before_it', unseen: 'rarer than one story in 1,500' }),
  document('an owner that the ring names no more ends', 'if done && self.owner != self.me {', 'if false {',
    { table: 'an_owner_that_the_ring_names_no_more_ends_when_it_is_quiet', unseen: 'its node and the others are served all the same' }),
  document('an owner ends only when nothing of it is under way', 'matches!(&self.role, Role::Owning(sequencer) if sequencer.is_quiet());\n        if done',
    'matches!(&self.role, Role::Owning(_));\n        if done', { table: 'an_owner_that_the_ring_names_no_more_ends_when_it_is_quiet', unseen: 'what was staged is said again' }),
  document('an owner that is told of more than it staged owns no more', 'Role::Owning(sequencer) if told > sequencer.head())', 'Role::Owning(_) if told.0 == u64::MAX)',
    { table: 'an_owner_that_is_told_of_more_than_it_staged_owns_no_more', unseen: 'a heartbeat says it, and its readers wait until then' }),
  document('what the store knows of and nobody told is read', `        self.compare(head, now);
        self.forward(now, |forwarder, wants| forwarder.commits(head, &[], wants));`, '        self.compare(head, now);',
    { table: 'a_snapshot_that_is_too_old_is_not_asked_for_without_end' }),
  document('an idle owner learns that it was deposed', 'if self.owned_epoch() == Some(epoch) {', 'if false && self.owned_epoch() == Some(epoch) {'),
  document('who waits asks again', 'self.ask_again.get_or_insert(now.clock + pause);', 'let _ = pause;',
    { table: 'a_follower_says_again_what_its_owner_did_not_answer' }),
  document('what waits is asked for at once when a way is open again', '*timer = timer.map(|at| at.min(now.clock));', 'let _ = timer;',
    { table: 'waiting_submit_is_sent_at_once_when_messages_pass_again', unseen: 'it is asked for again all the same, later' }),
  document('what the store did not answer is asked again', 'let pause = growing(RETRY_FIRST, self.failures, RETRY_LAST);\n        self.failures += 1;\n        self.retry_at(now.clock + pause);',
    'let _ = now;', { table: 'while_the_store_is_away_everybody_waits_and_then_is_served' }),
  document('who listens to an owner listens to the next one here', 'let listeners = std::mem::take(&mut self.listeners);', 'let listeners = Listeners::default();',
    { table: 'who_listens_is_told_what_a_later_owner_commits', unseen: 'heartbeats tell it all the same, later' }),
  document('the sequencer of this node makes it told', 'self.forwarder.set_at_home(true);', '',
    { unseen: 'the store is asked more often, and that is all' }),
  document('a node whose sequencer ended is told no more', 'self.forwarder.set_at_home(false);', '',),
  document('a forwarded submit is not forwarded again', 'let elsewhere = from == self.me && self.owner != self.me;', 'let elsewhere = self.owner != self.me;',
    { table: 'a_forwarded_submit_is_not_forwarded_again', unseen: 'rings agree in the end, and it is said again' }),
  document('few submits of other nodes wait for a claim', 'let has_room = self.waiting.len() < WAITING_MAX\n            && ', 'let has_room = ',
    { table: 'few_submits_of_other_nodes_wait_for_a_claim', unseen: 'its nodes send fewer' }),
  document('what waits for a claim waits in few bytes', '&& self.waiting.iter().map(bytes).sum::<usize>() < self.settings.staged_bytes_max;', '&& self.waiting.iter().map(bytes).sum::<usize>() < usize::MAX;',
    { table: 'what_waits_for_a_claim_waits_in_few_bytes', unseen: 'its edits are small' }),

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
        (open <= gateway`, '        (*gateway.sockets.borrow() <= gateway', 'rejected_socket_is_not_counted'),
  shell('a socket that ended is no longer counted', 'src/gateway/gateway.rs', 'self.0.sockets.send_modify(|open| *open -= 1);', '',
    'rejected_socket_is_not_counted'),
];
