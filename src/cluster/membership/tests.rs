use super::*;

const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const THIRD: NodeId = NodeId(3);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const DEAD_AFTER: Duration = Duration::from_secs(3);

fn three() -> Membership {
    let mut membership = Membership::new(ME, DEAD_AFTER);
    assert!(beat(&mut membership, &[ME, OTHER, THIRD], 0));
    membership
}

/// A heartbeat: the store answers and lists these nodes.
fn beat(membership: &mut Membership, nodes: &[NodeId], at: u64) -> bool {
    membership.store_answered(ms(at)) | membership.store_listed(nodes, ms(at))
}

/// Heartbeats that list these nodes, twice a second.
fn beats(membership: &mut Membership, nodes: &[NodeId], from: u64, to: u64) {
    for at in (from..=to).step_by(500) {
        beat(membership, nodes, at);
    }
}

/// Polls every 50 ms, with or without loopback pings; returns when the ring changed first.
fn pass(membership: &mut Membership, from: u64, to: u64, transport_works: bool) -> Option<u64> {
    let mut changed = None;
    for at in (from..=to).step_by(50) {
        let due = membership.poll(ms(at));
        if due.ring_changed {
            changed.get_or_insert(at);
        }
        if transport_works && due.ping.contains(&ME) {
            membership.message_received(ME, ms(at + 1));
        }
    }
    changed
}

#[test]
fn node_that_fell_silent_with_the_transport_is_not_suspected() {
    let mut membership = three();
    membership.request_sent(OTHER, ms(1_000));
    pass(&mut membership, 1_000, 1_150, true);
    // The loopback ping arrived and the reply did not; no message passes since.
    assert_eq!(pass(&mut membership, 1_200, 1_400, false), Some(1_400));
    assert_eq!(membership.ring().nodes(), [ME, THIRD]);
    assert!(membership.transport_failed(ms(2_000)));
    assert_eq!(membership.ring().nodes(), [ME, OTHER, THIRD]);
    membership.request_sent(OTHER, ms(2_000));
    assert_eq!(pass(&mut membership, 2_000, 9_000, false), None);
}

#[test]
fn node_that_begins_to_take_no_documents_stays_a_member_for_a_grace_period() {
    let mut membership = three();
    beats(&mut membership, &[ME, OTHER, THIRD], 500, 4_500);
    for at in (5_000..=9_000).step_by(500) {
        membership.observe_idle_nodes(true, ms(at));
        beat(&mut membership, &[ME, OTHER], at);
        let is_member = membership.ring().nodes().contains(&THIRD);
        assert_eq!(is_member, at < 8_000, "{at}");
    }
    membership.observe_idle_nodes(false, ms(9_500));
    beat(&mut membership, &[ME, OTHER, THIRD], 9_500);
    membership.observe_idle_nodes(true, ms(10_000));
    beat(&mut membership, &[ME, OTHER], 10_000);
    assert_eq!(membership.ring().nodes(), [ME, OTHER, THIRD]);
}

#[test]
fn node_that_was_silent_before_the_transport_failed_stays_suspected() {
    let mut membership = three();
    membership.request_sent(OTHER, ms(1_000));
    pass(&mut membership, 1_000, 4_000, true);
    assert!(!membership.transport_failed(ms(5_000)));
    assert_eq!(membership.ring().nodes(), [ME, THIRD]);
}

#[test]
fn silent_node_is_suspected_until_a_message_arrives() {
    let mut membership = three();
    assert_eq!(
        pass(&mut membership, 0, 1_000, true),
        None,
        "no request was sent"
    );
    membership.request_sent(OTHER, ms(1_000));
    assert_eq!(pass(&mut membership, 1_000, 1_350, true), None);
    let due = membership.poll(ms(1_400));
    assert!(due.ring_changed);
    assert_eq!(due.suspected, [OTHER], "the node that did not answer");
    assert_eq!(pass(&mut membership, 1_450, 3_000, true), None, "once");
    assert_eq!(membership.ring().nodes(), [ME, THIRD]);
    assert!(
        !beat(&mut membership, &[ME, OTHER, THIRD], 3_000),
        "the store still lists it"
    );
    assert!(membership.message_received(OTHER, ms(4_000)));
    assert_eq!(membership.ring().nodes(), [ME, OTHER, THIRD]);
}

#[test]
fn node_that_answers_pings_is_not_suspected() {
    let mut membership = three();
    membership.request_sent(OTHER, ms(0));
    assert_eq!(membership.poll(ms(149)), MembershipActions::default());
    assert_eq!(membership.poll(ms(150)).ping, [OTHER, ME]);
    assert!(!membership.message_received(OTHER, ms(160)));
    assert_eq!(pass(&mut membership, 200, 3_000, true), None);
}

#[test]
fn no_node_is_suspected_while_the_transport_fails() {
    let mut membership = three();
    membership.request_sent(OTHER, ms(0));
    membership.request_sent(THIRD, ms(0));
    assert_eq!(pass(&mut membership, 0, 10_000, false), None);
    assert!(
        pass(&mut membership, 10_050, 12_000, true).is_some(),
        "the transport works again"
    );
}

#[test]
fn draining_and_unlisted_nodes_are_not_in_the_ring() {
    let mut membership = three();
    assert!(membership.peer_leaves(OTHER));
    assert!(!beat(&mut membership, &[ME, OTHER, THIRD], 0));
    assert_eq!(membership.ring().nodes(), [ME, THIRD]);
    assert!(beat(&mut membership, &[ME], 0));
    assert!(
        !beat(&mut membership, &[], 0),
        "an empty list changes nothing"
    );
    assert_eq!(membership.ring().nodes(), [ME]);
    assert!(
        beat(&mut membership, &[ME, OTHER], 0),
        "a node that is listed again has not announced a drain"
    );
}

#[test]
fn suspected_node_is_pinged_once_a_second() {
    let mut membership = three();
    membership.request_sent(OTHER, ms(0));
    pass(&mut membership, 0, 1_000, true);
    let pings = (1_050..=6_000)
        .step_by(50)
        .filter(|at| !membership.poll(ms(*at)).ping.is_empty());
    assert_eq!(pings.count(), 5);
}

#[test]
fn first_node_to_recover_keeps_the_others_for_a_grace_period() {
    // Since when the store is silent, until when the transport fails, and the end of the grace period.
    for (silent_from, unheard_until, is_lenient_until) in [
        (10_000, 0, 18_000),
        (10_000, 15_000, 18_000),
        (15_000, 15_000, 18_000),
        (14_500, 0, 0),
        (13_600, 0, 0),
        (13_400, 0, 18_000),
    ] {
        let mut membership = three();
        beats(&mut membership, &[ME, OTHER, THIRD], 500, silent_from);
        if silent_from % 500 > 0 {
            beat(&mut membership, &[ME, OTHER, THIRD], silent_from);
        }
        if unheard_until > 0 {
            membership.transport_failed(ms(unheard_until));
        }
        beats(&mut membership, &[ME, OTHER], 15_000, 17_500);
        let stays = is_lenient_until > 0;
        let case = format!("{silent_from} {unheard_until}");
        assert_eq!(membership.ring().nodes().contains(&THIRD), stays, "{case}");
        beats(&mut membership, &[ME, OTHER], 18_000, 18_000);
        assert_eq!(membership.ring().nodes(), [ME, OTHER], "{case}");
    }
}

#[test]
fn new_node_joins_at_once_during_a_grace_period() {
    let mut membership = three();
    let fourth = NodeId(4);
    assert!(beat(&mut membership, &[ME, fourth], 5_000));
    assert_eq!(membership.ring().nodes(), [ME, OTHER, THIRD, fourth]);
}

#[test]
fn isolated_node_leaves_its_own_ring_until_the_store_answers() {
    let mut membership = three();
    assert_eq!(membership.poll(ms(2_999)), MembershipActions::default());
    assert!(membership.poll(ms(3_000)).query_peers_about_store);
    assert!(
        !membership.poll(ms(3_050)).query_peers_about_store,
        "not before the interval has passed"
    );
    assert!(membership.peer_has_store(OTHER, ms(3_060)));
    assert!(membership.is_isolated());
    assert_eq!(membership.ring().nodes(), [OTHER, THIRD]);
    assert!(
        membership.poll(ms(3_500)).query_peers_about_store,
        "once an interval"
    );
    assert!(membership.store_answered(ms(4_000)));
    assert!(!membership.is_isolated());
    assert_eq!(membership.ring().nodes(), [ME, OTHER, THIRD]);
}

#[test]
fn store_is_away_after_four_heartbeats_without_an_answer() {
    let mut membership = Membership::new(ME, DEAD_AFTER);
    assert!(
        !membership.is_store_away(ms(60_000)),
        "it has never answered"
    );
    membership.store_answered(ms(500));
    assert!(!membership.is_store_away(ms(2_499)));
    assert!(membership.is_store_away(ms(2_500)));
    membership.store_answered(ms(2_600));
    assert!(!membership.is_store_away(ms(2_600)));
}

#[test]
fn incompatible_node_is_not_in_its_own_ring() {
    let mut membership = three();
    assert!(membership.set_incompatible(true));
    assert!(!membership.set_incompatible(true), "no change");
    assert!(membership.is_isolated());
    assert_eq!(membership.ring().nodes(), [OTHER, THIRD]);
    assert!(!beat(&mut membership, &[ME, OTHER, THIRD], 500));
    assert!(membership.set_incompatible(false));
    assert_eq!(membership.ring().nodes(), [ME, OTHER, THIRD]);
}

#[test]
fn no_node_is_isolated_while_the_store_answers_none() {
    let mut membership = three();
    for at in (3_000..20_000).step_by(50) {
        assert!(!membership.poll(ms(at)).ring_changed);
    }
    assert!(
        !membership.has_store(ms(20_000)),
        "the reply to other nodes says so"
    );
    assert!(membership.peer_has_store(OTHER, ms(20_000)));
    assert!(
        membership.poll(ms(23_000)).ring_changed,
        "the other node has lost the store as well"
    );
    assert_eq!(membership.ring().nodes(), [ME, OTHER, THIRD]);
}

#[test]
fn lone_node_and_answered_node_are_not_isolated() {
    let mut alone = Membership::new(ME, DEAD_AFTER);
    alone.store_answered(ms(0));
    assert_eq!(alone.poll(ms(10_000)), MembershipActions::default());
    let mut standing = three();
    assert!(!standing.peer_has_store(OTHER, ms(1_000)));
    assert!(
        standing.has_store(ms(1_499)) && !standing.has_store(ms(1_500)),
        "half of dead_after"
    );
    assert!(
        !standing.poll(ms(3_000)).ring_changed,
        "the statement is too old"
    );
}

#[test]
fn store_is_queried_about_an_unlisted_node_once_a_second() {
    let mut membership = three();
    let unlisted = NodeId(9);
    for (node, at, asks) in [
        (unlisted, 0, true),
        (unlisted, 20, false),
        (NodeId(8), 20, true),
        (unlisted, 999, false),
        (unlisted, 1_000, true),
        (OTHER, 1_000, false),
        (ME, 1_000, false),
    ] {
        assert_eq!(membership.is_unknown(node, ms(at)), asks, "{node} {at}");
    }
}
