//! Unit tests of the outbox.

use futures_util::FutureExt;

use super::*;
use crate::gateway::ShareDbEncoder;
use crate::id::{ClientId, Name};
use crate::protocol::{CloseReason, close_frame};

fn outbox_of(bytes_max: usize) -> Outbox {
    Outbox::new(bytes_max, &ShareDbEncoder, None)
}

fn take(outbox: &Outbox) -> Poll<Option<Bytes>> {
    outbox.poll_take(&mut Context::from_waker(Waker::noop()))
}

/// A piece of memory that is shared, like the content of a snapshot.
fn shared(bytes: usize) -> [Bytes; 2] {
    let piece = Bytes::from(vec![b'x'; bytes]);
    [piece.clone(), piece]
}

#[test]
fn queued_frames_are_written_together_and_in_order() {
    let outbox = outbox_of(100);
    assert_eq!(take(&outbox), Poll::Pending);
    outbox.push(Bytes::from_static(b"a")).unwrap();
    outbox.push(Bytes::from_static(b"b")).unwrap();
    assert_eq!(take(&outbox), Poll::Ready(Some(Bytes::from_static(b"ab"))));
    assert_eq!(take(&outbox), Poll::Pending);
    outbox.close(CloseReason::Normal);
    outbox.push(Bytes::from_static(b"late")).unwrap();
    assert_eq!(
        take(&outbox),
        Poll::Ready(Some(close_frame(CloseReason::Normal)))
    );
    assert_eq!(take(&outbox), Poll::Pending);
    outbox.release();
    assert_eq!(take(&outbox), Poll::Ready(None));
}

#[test]
fn one_large_piece_does_not_count_against_later_frames() {
    let outbox = outbox_of(10);
    let large = Bytes::from(vec![b'x'; 2 * WRITE_BYTES]);
    outbox.push(large.clone()).unwrap();
    outbox.push(Bytes::from_static(b"0123456789")).unwrap();
    assert_eq!(take(&outbox), Poll::Ready(Some(large.clone())));
    let small = Bytes::from_static(b"0123456789");
    assert_eq!(take(&outbox), Poll::Ready(Some(small)));
    assert_eq!(take(&outbox), Poll::Pending);
    outbox.push(large.clone()).unwrap();
    assert_eq!(take(&outbox), Poll::Ready(Some(large)));
}

#[test]
fn a_frame_counts_until_it_is_written() {
    let outbox = outbox_of(10);
    let large = Bytes::from(vec![b'x'; 2 * WRITE_BYTES]);
    outbox.push(large.clone()).unwrap();
    assert_eq!(take(&outbox), Poll::Ready(Some(large.clone())));
    assert_eq!(
        outbox.push(large),
        Err(OutboxFull),
        "the first is being written"
    );
}

#[test]
fn a_client_that_never_reads_is_closed() {
    let outbox = outbox_of(10);
    outbox
        .push(Bytes::from_static(b"one large piece is taken whole"))
        .unwrap();
    outbox.push(Bytes::from_static(b"0123456789")).unwrap();
    assert_eq!(outbox.push(Bytes::from_static(b"x")), Err(OutboxFull));
    assert!(outbox.is_closed());
    let Poll::Ready(Some(last)) = take(&outbox) else {
        panic!("a close frame")
    };
    assert_eq!(last[2..4], 1013_u16.to_be_bytes());
    assert_eq!(take(&outbox), Poll::Pending);
}

#[test]
fn replies_do_not_close_and_delay_the_drained_state() {
    let outbox = outbox_of(10);
    let [kept, piece] = shared(3 * WRITE_BYTES);
    outbox.push_reply([Bytes::from_static(b"head"), piece]);
    outbox.push(Bytes::from_static(b"0123456789")).unwrap();
    assert!(outbox.drained().now_or_never().is_none());
    let head = Bytes::from_static(b"head");
    assert_eq!(take(&outbox), Poll::Ready(Some(head)));
    let Poll::Ready(Some(body)) = take(&outbox) else {
        panic!("the shared piece")
    };
    assert_eq!(body.as_ptr(), kept.as_ptr(), "it is not copied");
    assert!(outbox.drained().now_or_never().is_none(), "being written");
    let small = Bytes::from_static(b"0123456789");
    assert_eq!(take(&outbox), Poll::Ready(Some(small)));
    assert!(outbox.drained().now_or_never().is_some());
}

#[test]
fn only_the_newest_value_of_a_presence_is_written_behind_other_frames() {
    let outbox = outbox_of(1 << 20);
    let key = |id: &str| {
        let channel = Name::parse("ch").unwrap();
        let client = ClientId::parse("ann").unwrap();
        (channel, client, Name::parse(id).unwrap())
    };
    let value = |text: &'static str| Bytes::from_static(text.as_bytes());
    let backlog = Bytes::from(vec![b'x'; WRITE_BYTES]);
    outbox.push(backlog.clone()).unwrap();
    for text in ["[a1]", "[a2]", "[a3]"] {
        outbox.push_presence(&key("a"), &value(text));
    }
    outbox.push_presence(&key("b"), &value("[b1]"));
    outbox.push(value("commit")).unwrap();
    assert_eq!(take(&outbox), Poll::Ready(Some(backlog)));
    let rest = value("commit[a3][b1]");
    assert_eq!(take(&outbox), Poll::Ready(Some(rest)));
    // If nothing waits, every value is sent.
    assert_eq!(take(&outbox), Poll::Pending);
    outbox.push_presence(&key("a"), &value("[a4]"));
    outbox.push_presence(&key("a"), &value("[a5]"));
    assert_eq!(take(&outbox), Poll::Ready(Some(value("[a4][a5]"))));
}

#[test]
fn presence_values_never_close_a_socket() {
    let outbox = outbox_of(100_000);
    outbox.push(Bytes::from(vec![b'x'; 50_000])).unwrap();
    let frame = Bytes::from(vec![b'p'; 8_000]);
    for n in 0..1_000 {
        let client = ClientId::parse(&format!("c{n}")).unwrap();
        let name = Name::parse("n").unwrap();
        outbox.push_presence(&(name.clone(), client, name), &frame);
    }
    assert!(!outbox.is_closed());
    assert!(lock(&outbox.state).presences.bytes() <= 25_000);
}

#[test]
fn all_outboxes_share_a_budget() {
    let budget = Arc::new(OutboxBudget::new(3 * WRITE_BYTES));
    let outbox = |_| outbox_of(10 * WRITE_BYTES).with_budget(budget.clone());
    let outboxes: Vec<_> = (0..3).map(outbox).collect();
    let frames = Bytes::from(vec![b'x'; 3 * WRITE_BYTES]);
    outboxes[0].push(frames.clone()).unwrap();
    assert_eq!(outboxes[1].push(frames.clone()), Err(OutboxFull));
    // Sockets without a backlog are not closed.
    outboxes[2].push(Bytes::from_static(b"a commit")).unwrap();
    outboxes[0].close_slow();
    let other = outbox_of(10 * WRITE_BYTES).with_budget(budget.clone());
    other.push(frames).unwrap();
    drop(other);
    assert_eq!(budget.used(), 0);
}
