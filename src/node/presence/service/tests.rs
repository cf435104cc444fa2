//! Unit tests of the presence service: what sockets are sent.

use std::task::{Context, Poll, Waker};

use super::*;
use crate::gateway::ShareDbEncoder;
use crate::protocol::CloseReason;
use crate::version::NodeVersion;

struct PresenceClient {
    session: SessionId,
    client: ClientId,
    outbox: Arc<Outbox>,
}

impl PresenceClient {
    fn new(session: u64, client: &str) -> Self {
        Self {
            session: SessionId(session),
            client: ClientId::parse(client).unwrap(),
            outbox: Arc::new(Outbox::new(1 << 20, &ShareDbEncoder, None)),
        }
    }

    fn subscribe(&self, service: &Arc<PresenceService>) {
        let client = (&self.client, PresenceRequester::New);
        service.subscribe(self.session, client, &self.outbox, &channel());
    }

    fn publish(&self, service: &Arc<PresenceService>, version: u64) {
        let presence = Presence {
            channel: channel(),
            id: Name::parse("p").unwrap(),
            version,
            value: "1".into(),
            position: None,
        };
        service.publish(self.session, &self.client, &self.outbox, presence);
    }

    fn end(&self, service: &Arc<PresenceService>) {
        service.end_session(self.session, std::iter::once(&channel()));
    }

    /// The frames that were sent since the last call, as text.
    fn received(&self) -> String {
        let mut context = Context::from_waker(Waker::noop());
        match self.outbox.poll_take(&mut context) {
            Poll::Ready(Some(frames)) => String::from_utf8_lossy(&frames[2..]).into_owned(),
            _ => String::new(),
        }
    }
}

fn channel() -> Name {
    Name::parse("ch").unwrap()
}

fn service() -> Arc<PresenceService> {
    let me = (NodeId(1), NodeVersion::default());
    let peers = Arc::new(Peers::new(me, None, Duration::MAX, Arc::default()));
    let documents = Arc::new(Mailboxes::new());
    Arc::new(PresenceService::new(peers, documents, &ShareDbEncoder))
}

#[test]
fn subscribers_and_publisher_are_sent_the_same_frame() {
    let service = service();
    let (ann, bob) = (PresenceClient::new(1, "ann"), PresenceClient::new(2, "bob"));
    ann.subscribe(&service);
    bob.subscribe(&service);
    assert_eq!(ann.received(), r#"{"a":"pr","ch":"ch"}"#);
    bob.publish(&service, 1);
    let acknowledged = bob.received();
    assert!(acknowledged.contains(r#""src":"bob","id":"p","p":1,"pv":1"#));
    assert_eq!(ann.received(), acknowledged);
    bob.end(&service);
    assert!(ann.received().contains(r#""p":null,"pv":2"#));
}

#[test]
fn value_that_comes_after_its_session_ended_is_not_kept() {
    let service = service();
    let (ann, bob) = (PresenceClient::new(1, "ann"), PresenceClient::new(2, "bob"));
    bob.subscribe(&service);
    ann.outbox.close(CloseReason::Normal);
    ann.end(&service);
    ann.publish(&service, 1);
    assert_eq!(bob.received(), "");
    bob.end(&service);
    assert!(lock(&service.state).registry.is_empty());
}

#[tokio::test(start_paused = true)]
async fn many_requests_are_answered_by_one_repeat() {
    let service = service();
    let clients: Vec<_> = (0..100)
        .map(|n| PresenceClient::new(n, &format!("c{n}")))
        .collect();
    clients.iter().for_each(|client| client.subscribe(&service));
    let requests = |client: &PresenceClient| client.received().matches(r#""a":"pr""#).count();
    tokio::time::sleep(Duration::from_secs(2)).await;
    for client in &clients {
        requests(client);
    }
    // 1,000 requests: each other client is asked at once, and once more for all requests after the first.
    for _ in 0..1_000 {
        let client = &clients[0];
        service.request(client.session, PresenceRequester::New, &channel());
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(clients[1..].iter().all(|client| requests(client) == 2));
}

#[test]
fn concurrent_publishers_are_delivered_in_order_and_completely() {
    const PUBLISHERS: u64 = 4;
    const VALUES: u64 = 500;
    let service = service();
    let reader = PresenceClient::new(99, "reader");
    reader.subscribe(&service);
    std::thread::scope(|scope| {
        for n in 1..=PUBLISHERS {
            let service = service.clone();
            scope.spawn(move || {
                let publisher = PresenceClient::new(n, &format!("c{n}"));
                for version in 1..=VALUES {
                    publisher.publish(&service, version);
                }
            });
        }
    });
    let mut all = String::new();
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(frames)) = reader.outbox.poll_take(&mut context) {
        all.push_str(&String::from_utf8_lossy(&frames));
    }
    // Values that wait may be replaced by newer ones, but the newest of each client arrives last.
    for n in 1..=PUBLISHERS {
        let mark = format!(r#""src":"c{n}","id":"p","p":1,"pv":"#);
        let versions: Vec<u64> = all
            .split(&mark)
            .skip(1)
            .filter_map(|rest| rest.split('}').next()?.parse().ok())
            .collect();
        assert!(versions.is_sorted(), "{n}: {versions:?}");
        assert_eq!(versions.last(), Some(&VALUES), "{n}");
    }
    let state = lock(&service.state);
    assert!(state.effects.is_empty() && !state.is_draining);
}
