use futures_util::FutureExt;

use super::*;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn user(name: &str) -> Identity {
    Identity::of_tenant(name, "home")
}

fn plan() -> DocId {
    DocId::parse("home:notes", "plan").unwrap()
}

/// Takes all messages that are allowed now.
fn exhaust(limits: &RateLimits, socket: &mut SocketRateLimits) {
    while socket.take_shared(limits, "home", None, 1).is_some() {}
}

#[tokio::test]
async fn rejections_are_delayed_up_to_a_maximum_number() {
    let limits = RateLimits::new(&GatewaySettings::default());
    let mut waiting: Vec<_> = (0..DELAYED_REJECTIONS_MAX)
        .map(|_| Box::pin(limits.delay_rejection()))
        .collect();
    for delayed in &mut waiting {
        assert!(delayed.as_mut().now_or_never().is_none());
    }
    let over = limits.delay_rejection().now_or_never();
    assert!(over.is_some(), "one over the maximum returns at once");
    waiting.pop();
    let next = limits.delay_rejection().now_or_never();
    assert!(next.is_none(), "a permit is free again");
}

#[test]
fn response_bytes_are_delayed_then_rejected() {
    let limits = RateLimits::new(&GatewaySettings {
        address_answer_bytes_per_second: 1_000_000,
        ..GatewaySettings::default()
    });
    assert_eq!(limits.response_delay(HERE, 1_900_000), Some(Duration::ZERO));
    let wait = limits.response_delay(HERE, 1_000_000).unwrap();
    assert!(wait > Duration::from_millis(500) && wait < Duration::from_secs(1));
    assert_eq!(limits.response_delay(HERE, 3_000_000), None);
    let there = IpAddr::from([192, 0, 2, 1]);
    let wait = limits.response_delay(there, 1_900_000);
    assert_eq!(wait, Some(Duration::ZERO));
}

#[test]
fn socket_is_delayed_by_its_own_limit() {
    let limits = RateLimits::new(&GatewaySettings {
        messages_per_second: 1,
        messages_burst: 3,
        ..GatewaySettings::default()
    });
    let mut socket = limits.for_socket(&Identity::of_link("one", "a link"), HERE);
    assert_eq!(socket.take_messages(3), Duration::ZERO);
    assert!(!socket.take_messages(1).is_zero());
}

#[test]
fn document_limit_does_not_delay_users_within_the_assured_rate() {
    let limits = RateLimits::new(&GatewaySettings {
        document_ops_per_second: 100,
        ..GatewaySettings::default()
    });
    let socket = |name| limits.for_socket(&user(name), HERE);
    let (mut eve, mut bob, mut ann) = (socket("eve"), socket("bob"), socket("ann"));
    let other = DocId::parse("home:notes", "other").unwrap();
    let take = |socket: &mut SocketRateLimits, doc: &DocId| {
        socket.take_shared(&limits, "home", Some(doc), 1)
    };
    while take(&mut eve, &plan()).is_some() {}
    assert_eq!(take(&mut ann, &plan()), Some(Duration::ZERO));
    let assured = &bob.user().assured;
    while assured
        .try_take(Instant::now(), 1, Duration::ZERO)
        .is_some()
    {}
    assert_eq!(take(&mut bob, &plan()), None, "too many wait already");
    assert_eq!(take(&mut bob, &other), Some(Duration::ZERO));
}

#[test]
fn tenant_limit_does_not_delay_users_within_the_assured_rate() {
    let limits = RateLimits::new(&GatewaySettings {
        tenant_messages_per_second: 10,
        ..GatewaySettings::default()
    });
    let mut flooding = limits.for_socket(&user("eve"), HERE);
    exhaust(&limits, &mut flooding);
    let mut typing = limits.for_socket(&user("ann"), HERE);
    for _ in 0..ASSURED_PER_SECOND {
        let wait = typing.take_shared(&limits, "home", Some(&plan()), 1);
        assert_eq!(wait, Some(Duration::ZERO));
    }
}

#[test]
fn guests_count_towards_their_address_and_the_tenant_of_the_document() {
    let limits = RateLimits::new(&GatewaySettings {
        user_messages_per_second: 100,
        tenant_ops_per_second: 1,
        ..GatewaySettings::default()
    });
    let guest = |cookie| Identity::of_link(cookie, "a link");
    let mut one = limits.for_socket(&guest("one"), HERE);
    exhaust(&limits, &mut one);
    // Another cookie from the same address shares the limit.
    let mut two = limits.for_socket(&guest("two"), HERE);
    assert_eq!(two.take_shared(&limits, "home", None, 1), None);
    let there = IpAddr::from([192, 0, 2, 1]);
    let mut far = limits.for_socket(&guest("one"), there);
    for doc in [Some(&plan()), Some(&plan()), None] {
        let wait = far.take_shared(&limits, "acme", doc, 1);
        assert_eq!(wait, Some(Duration::ZERO));
    }
    let mut ann = limits.for_socket(&Identity::of_tenant("ann", "acme"), HERE);
    let wait = ann.take_shared(&limits, "acme", Some(&plan()), 1);
    assert!(wait.is_some_and(|wait| !wait.is_zero()), "{wait:?}");
}

#[test]
fn user_and_tenant_have_a_socket_quota() {
    let limits = RateLimits::new(&GatewaySettings {
        user_sockets_max: 2,
        tenant_sockets_max: 3,
        ..GatewaySettings::default()
    });
    let reserve = |name| limits.reserve_socket(&user(name), HERE);
    let first = reserve("ann").unwrap();
    let _second = reserve("ann").unwrap();
    assert!(reserve("ann").is_err());
    let _third = reserve("bob").unwrap();
    assert!(reserve("eve").is_err());
    drop(first);
    let _again = reserve("ann").unwrap();
}

#[test]
fn principals_of_one_address_are_separate_and_the_sessions_of_a_user_share_a_limit() {
    let limits = RateLimits::new(&GatewaySettings {
        address_handshakes_per_second: 1,
        user_handshakes_per_second: 5,
        ..GatewaySettings::default()
    });
    let without_credentials = (0..10).filter(|_| limits.allow_handshake(HERE, None));
    assert_eq!(without_credentials.count(), 2);
    let session = |number: usize| Some(RateLimitKey(format!("session {number}")));
    for office in 0..100 {
        assert!(limits.allow_handshake(HERE, session(office)));
    }
    let flood = (0..100).filter(|_| limits.allow_handshake(HERE, session(0)));
    assert_eq!(flood.count(), 9, "one of its ten is taken");
    let sessions = (0..100).filter(|number| {
        limits.allow_handshake(HERE, session(1_000 + number)) && limits.allow_connect(&user("ann"))
    });
    assert_eq!(sessions.count(), 10, "a new session does not add to it");
    assert!(limits.allow_connect(&user("bob")));
    let checks = (0..10_000)
        .filter(|_| limits.allow_token_check(HERE))
        .count();
    assert!(
        (4_000..10_000).contains(&checks),
        "{checks} tokens verified"
    );
}
