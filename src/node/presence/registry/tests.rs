//! Unit tests of the presence registry. Subscribers are reached by their names, and effects are compared as text.

use super::*;

const ME: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);
const THIRD: NodeId = NodeId(3);

/// A session: its id, its client and what it is reached by.
type TestSession = (SessionId, &'static str);

const ANN: TestSession = (SessionId(1), "ann");
const ANN_AGAIN: TestSession = (SessionId(2), "ann");
const BOB: TestSession = (SessionId(3), "bob");

/// One call of the registry, in the channel `ch` and with the presence `p`.
#[derive(Debug, Clone)]
enum Call {
    Subscribe(TestSession, PresenceRequester),
    Unsubscribe(TestSession),
    Publish(TestSession, u64, &'static str),
    EndSession(TestSession),
    Request(TestSession),
    RepeatDue,
    Receive(NodeId, PresenceMessage),
    /// Delivers what the call before routed.
    DeliverRouted,
    Refresh,
}

use Call::{
    DeliverRouted, EndSession, Publish, Receive, Refresh, RepeatDue, Request, Subscribe,
    Unsubscribe,
};
use PresenceRequester::{New, Returning};

fn channel() -> Name {
    Name::parse("ch").unwrap()
}

fn client(name: &str) -> ClientId {
    ClientId::parse(name).unwrap()
}

fn value(version: u64, value: &str) -> Presence {
    Presence {
        channel: channel(),
        id: Name::parse("p").unwrap(),
        version,
        value: value.into(),
        position: None,
    }
}

fn remote(node: NodeId, version: u64, text: &str) -> PresenceMessage {
    PresenceMessage::Value(node, client("ann"), value(version, text))
}

fn digest(node: NodeId, versions: &[u64]) -> PresenceMessage {
    let values = versions.iter();
    let values = values.map(|version| (client("ann"), Name::parse("p").unwrap(), *version));
    PresenceMessage::Digest(
        node,
        PresenceDigest {
            channel: channel(),
            values: values.collect(),
        },
    )
}

fn subscribed(channels: &[Name]) -> PresenceMessage {
    PresenceMessage::Refresh {
        subscribed: channels.to_vec(),
        digests: Vec::new(),
    }
}

/// A registry, the home of its channels, and what was last routed.
struct Fixture {
    registry: PresenceRegistry<SessionId>,
    home: NodeId,
    routed: Vec<PresenceUpdate>,
}

impl Fixture {
    fn new(home: NodeId) -> Self {
        Self {
            registry: PresenceRegistry::new(ME),
            home,
            routed: Vec::new(),
        }
    }

    /// Makes a call at a time in milliseconds, and returns its effects as text.
    fn call(&mut self, at_ms: u64, call: Call) -> Vec<String> {
        let (now, mut effects) = (Duration::from_millis(at_ms), Vec::new());
        let (registry, home, name) = (&mut self.registry, self.home, channel());
        let routed = std::mem::take(&mut self.routed);
        match call {
            Subscribe((session, name_of), requester) => registry.subscribe(
                (session, &client(name_of), session),
                requester,
                (&name, home),
                now,
                &mut effects,
            ),
            Unsubscribe((session, _)) => registry.unsubscribe(session, &name),
            Publish((session, name_of), version, text) => registry.publish(
                (session, &client(name_of), session),
                value(version, text),
                home,
                &mut effects,
            ),
            EndSession((session, _)) => {
                let channels = std::iter::once((&name, home));
                registry.end_session(session, channels, &mut effects);
            }
            Request((session, _)) => {
                registry.request_repeat(session, New, (&name, home), now, &mut effects);
            }
            RepeatDue => registry.repeat_due((&name, home), now, &mut effects),
            Receive(from, message) => registry.receive(from, message, now, &mut effects),
            DeliverRouted => {
                for update in routed {
                    registry.deliver(update, &mut effects);
                }
            }
            Refresh => registry.refresh(|_| home, now, &mut effects),
        }
        effects
            .into_iter()
            .map(|effect| self.describe(effect))
            .collect()
    }

    fn describe(&mut self, effect: PresenceEffect<SessionId>) -> String {
        let sessions = |to: &[SessionId]| {
            let ids: Vec<_> = to.iter().map(|it| it.0.to_string()).collect();
            ids.join(" ")
        };
        let text = |update: &PresenceUpdate| {
            let PresenceUpdate { client, presence } = update;
            format!(
                "{}={}@{}",
                client.as_str(),
                presence.value,
                presence.version
            )
        };
        match effect {
            PresenceEffect::Deliver {
                update,
                to,
                publisher,
            } => match publisher {
                Some(publisher) => {
                    let (update, to) = (text(&update), sessions(&to));
                    format!("deliver {update} to [{to}], acknowledge to {}", publisher.0)
                }
                None => format!("deliver {} to [{}]", text(&update), sessions(&to)),
            },
            PresenceEffect::RequestRepeat { to, .. } => format!("request from [{}]", sessions(&to)),
            PresenceEffect::Schedule { at, .. } => format!("schedule at {}", at.as_millis()),
            PresenceEffect::Route(update) => {
                let described = format!("route {}", text(&update));
                self.routed.push(update);
                described
            }
            PresenceEffect::Send { to, message } => match message {
                PresenceMessage::Refresh {
                    subscribed,
                    digests,
                } => {
                    let (channels, digests) = (subscribed.len(), digests.len());
                    format!("send {to}: {channels} subscribed, {digests} digests")
                }
                PresenceMessage::Digest(node, digest) => {
                    format!("send {to}: {} values of {node}", digest.values.len())
                }
                PresenceMessage::Value(node, client, presence) => {
                    let update = PresenceUpdate { client, presence };
                    format!("send {to}: {} of {node}", text(&update))
                }
                PresenceMessage::RepeatRequest(node, _) => {
                    format!("send {to}: request of {node}")
                }
            },
        }
    }
}

/// Makes calls, and compares the effects of each. Returns the registry.
fn check(home: NodeId, calls: &[(u64, Call, &[&str])]) -> PresenceRegistry<SessionId> {
    let mut fixture = Fixture::new(home);
    for (at, (at_ms, call, expected)) in calls.iter().enumerate() {
        let effects = fixture.call(*at_ms, call.clone());
        assert_eq!(effects, *expected, "call {at}: {call:?}");
    }
    fixture.registry
}

#[test]
fn value_is_delivered_to_other_clients_and_acknowledged() {
    check(
        ME,
        &[
            (0, Subscribe(ANN, New), &[]),
            (0, Subscribe(BOB, New), &["request from [1]"]),
            (
                0,
                Publish(BOB, 1, "1"),
                &["deliver bob=1@1 to [1], acknowledge to 3"],
            ),
        ],
    );
}

#[test]
fn end_of_an_old_session_does_not_end_the_value_of_a_new_one() {
    let registry = check(
        ME,
        &[
            (0, Subscribe(BOB, New), &[]),
            (
                0,
                Publish(ANN, 1, "1"),
                &["deliver ann=1@1 to [3], acknowledge to 1"],
            ),
            (
                0,
                Publish(ANN_AGAIN, 2, "2"),
                &["deliver ann=2@2 to [3], acknowledge to 2"],
            ),
            (0, EndSession(ANN), &[]),
            (0, EndSession(ANN_AGAIN), &["route ann=null@3"]),
            (0, DeliverRouted, &["deliver ann=null@3 to [3]"]),
            (0, EndSession(BOB), &[]),
        ],
    );
    assert!(registry.is_empty());
}

#[test]
fn routed_end_is_dropped_if_the_client_has_published_meanwhile() {
    check(
        ME,
        &[
            (0, Subscribe(BOB, New), &[]),
            (
                0,
                Publish(ANN, 1, "1"),
                &["deliver ann=1@1 to [3], acknowledge to 1"],
            ),
            (0, EndSession(ANN), &["route ann=null@2"]),
        ],
    );
    let mut fixture = Fixture::new(ME);
    fixture.call(0, Subscribe(BOB, New));
    fixture.call(0, Publish(ANN, 1, "1"));
    fixture.call(0, EndSession(ANN));
    let routed = std::mem::take(&mut fixture.routed);
    fixture.call(0, Publish(ANN_AGAIN, 5, "5"));
    fixture.routed = routed;
    assert!(fixture.call(0, DeliverRouted).is_empty());
}

#[test]
fn returning_client_is_asked_for_its_own_values() {
    check(
        ME,
        &[
            (0, Subscribe(ANN, New), &[]),
            (0, Subscribe(BOB, Returning), &["request from [1 3]"]),
        ],
    );
}

#[test]
fn requests_within_the_pause_are_made_once_when_it_ends() {
    check(
        ME,
        &[
            (0, Subscribe(ANN, New), &[]),
            (0, Subscribe(BOB, New), &["request from [1]"]),
            (5, Request(ANN), &["schedule at 20"]),
            (6, Request(BOB), &[]),
            (20, RepeatDue, &["request from [1 3]"]),
            (39, Request(ANN), &["schedule at 40"]),
            (40, RepeatDue, &["request from [1 3]"]),
            (60, Request(ANN), &["request from [3]"]),
        ],
    );
}

#[test]
fn node_sends_its_values_and_requests_to_the_home() {
    check(
        PEER,
        &[
            (
                0,
                Subscribe(ANN, New),
                &[
                    "send 0000000000000002: 1 subscribed, 0 digests",
                    "send 0000000000000002: request of 0000000000000001",
                ],
            ),
            (
                0,
                Publish(ANN, 1, "1"),
                &[
                    "send 0000000000000002: ann=1@1 of 0000000000000001",
                    "deliver ann=1@1 to [], acknowledge to 1",
                ],
            ),
            (
                2_000,
                Refresh,
                &[
                    "send 0000000000000002: 1 subscribed, 0 digests",
                    "send 0000000000000002: 0 subscribed, 1 digests",
                ],
            ),
            (
                2_000,
                EndSession(ANN),
                &[
                    "send 0000000000000002: ann=null@2 of 0000000000000001",
                    "route ann=null@2",
                ],
            ),
        ],
    );
}

#[test]
fn home_forwards_to_the_other_nodes_that_subscribe_until_they_expire() {
    let channels = [channel()];
    check(
        ME,
        &[
            (0, Receive(PEER, subscribed(&channels)), &[]),
            (0, Receive(THIRD, subscribed(&channels)), &[]),
            (
                0,
                Receive(PEER, remote(PEER, 1, "1")),
                &["send 0000000000000003: ann=1@1 of 0000000000000002"],
            ),
            (
                0,
                Publish(BOB, 1, "1"),
                &[
                    "send 0000000000000002: bob=1@1 of 0000000000000001",
                    "send 0000000000000003: bob=1@1 of 0000000000000001",
                    "deliver bob=1@1 to [], acknowledge to 3",
                ],
            ),
            (4_000, Receive(THIRD, subscribed(&channels)), &[]),
            (
                4_500,
                Refresh,
                &[
                    "send 0000000000000002: 1 values of 0000000000000001",
                    "send 0000000000000003: 1 values of 0000000000000001",
                ],
            ),
            // The subscription of PEER has expired.
            (
                6_000,
                Refresh,
                &["send 0000000000000003: 1 values of 0000000000000001"],
            ),
            (
                6_100,
                Receive(PEER, remote(PEER, 2, "2")),
                &["send 0000000000000003: ann=2@2 of 0000000000000002"],
            ),
            (
                6_200,
                Publish(BOB, 2, "2"),
                &[
                    "send 0000000000000003: bob=2@2 of 0000000000000001",
                    "deliver bob=2@2 to [], acknowledge to 3",
                ],
            ),
        ],
    );
}

#[test]
fn remote_values_replace_older_ones_only() {
    let subscribe: &[&str] = &[
        "send 0000000000000002: 1 subscribed, 0 digests",
        "send 0000000000000002: request of 0000000000000001",
    ];
    check(
        PEER,
        &[
            (0, Receive(PEER, remote(PEER, 1, "1")), &[]),
            (0, Subscribe(BOB, New), subscribe),
            (0, Receive(PEER, remote(PEER, 2, "2")), &["route ann=2@2"]),
            (0, DeliverRouted, &["deliver ann=2@2 to [3]"]),
            (0, Receive(PEER, remote(PEER, 1, "1")), &[]),
            // The client has moved to another node: the end of its old socket does not end its value.
            (0, Receive(PEER, remote(THIRD, 3, "3")), &["route ann=3@3"]),
            (0, Receive(PEER, remote(PEER, 4, "null")), &[]),
            (
                0,
                Receive(PEER, remote(THIRD, 5, "null")),
                &["route ann=null@5"],
            ),
            (0, Receive(PEER, remote(THIRD, 5, "null")), &[]),
        ],
    );
}

#[test]
fn digest_ends_values_that_it_does_not_list_and_finds_lost_messages() {
    let subscribe: &[&str] = &[
        "send 0000000000000002: 1 subscribed, 0 digests",
        "send 0000000000000002: request of 0000000000000001",
    ];
    let request: &[&str] = &["send 0000000000000003: request of 0000000000000001"];
    check(
        PEER,
        &[
            (0, Subscribe(BOB, New), subscribe),
            (1, Receive(PEER, digest(THIRD, &[1])), request),
            (2, Receive(PEER, remote(THIRD, 1, "1")), &["route ann=1@1"]),
            (3, Receive(PEER, digest(THIRD, &[1])), &[]),
            (4, Receive(PEER, digest(THIRD, &[2])), request),
            (5, Receive(PEER, digest(THIRD, &[])), &["route ann=null@2"]),
        ],
    );
}

#[test]
fn remote_values_that_are_not_confirmed_expire() {
    let subscribe: &[&str] = &[
        "send 0000000000000002: 1 subscribed, 0 digests",
        "send 0000000000000002: request of 0000000000000001",
    ];
    let refresh = "send 0000000000000002: 1 subscribed, 0 digests";
    check(
        PEER,
        &[
            (0, Subscribe(BOB, New), subscribe),
            (0, Receive(PEER, remote(THIRD, 1, "1")), &["route ann=1@1"]),
            (3_000, Receive(PEER, digest(THIRD, &[1])), &[]),
            (8_000, Refresh, &[refresh]),
            (8_001, Refresh, &["route ann=null@2", refresh]),
        ],
    );
}

#[test]
fn remote_values_are_dropped_with_the_last_subscriber() {
    let registry = check(
        PEER,
        &[
            (
                0,
                Subscribe(BOB, New),
                &[
                    "send 0000000000000002: 1 subscribed, 0 digests",
                    "send 0000000000000002: request of 0000000000000001",
                ],
            ),
            (0, Receive(PEER, remote(PEER, 1, "1")), &["route ann=1@1"]),
            (0, Unsubscribe(BOB), &[]),
        ],
    );
    assert!(registry.is_empty());
}
