//! Tests of the feed of changes of a store for many nodes.

use super::alone_postgres::{count, eventually, node, open_as, settings};
use super::servers::postgres::{self as server, OwnServer};
use super::*;

/// A transaction may end long after later ones: a standby does not answer, or its machine is stalled. Its number in any
/// sequence is then older than a cursor.
#[tokio::test]
async fn change_of_a_transaction_that_ends_late_is_returned() {
    let Some(url) = server::schema().await else {
        return;
    };
    let store = open_as(&settings(&url), node()).await;
    let (mut ann, _bob) = (
        Writer::claim(&store, "a").await,
        Writer::claim(&store, "b").await,
    );
    let mut cursor = store.changes(None).await.unwrap().cursor;
    let late = server::connect(&url).await;
    let change = "BEGIN;
        INSERT INTO changes (docs, heads)
        SELECT array_agg(number), array_agg(7) FROM documents WHERE id = 'b'";
    late.batch_execute(change).await.unwrap();
    for revision in 1..=5 {
        ann.write(Change::Nothing).await;
        let changes = store.changes(Some(&cursor)).await.unwrap();
        assert_eq!(changes.continuity, Continuity::Complete);
        assert_eq!(changes.appended, [(doc("a"), Revision(revision))]);
        cursor = changes.cursor;
    }
    late.batch_execute("COMMIT").await.unwrap();
    let changes = store.changes(Some(&cursor)).await.unwrap();
    assert_eq!(changes.appended, [(doc("b"), Revision(7))]);
    let changes = store.changes(Some(&changes.cursor)).await.unwrap();
    assert_eq!(
        (changes.continuity, changes.appended),
        (Continuity::Complete, vec![])
    );
}

#[tokio::test]
async fn old_changes_are_deleted_and_an_older_cursor_is_incomplete() {
    let Some(url) = server::schema().await else {
        return;
    };
    let settings = PostgresSettings {
        changes_kept_ms: 60,
        ..settings(&url)
    };
    let store = open_as(&settings, node()).await;
    let raw = server::connect(&url).await;
    let old = store.changes(None).await.unwrap().cursor;
    let mut ann = Writer::claim(&store, "a").await;
    // A transaction that is open while the rows around it are deleted.
    let late = server::connect(&url).await;
    let change = "BEGIN; INSERT INTO changes (docs, heads) VALUES ('{1}', '{1}')";
    late.batch_execute(change).await.unwrap();
    ann.write(Change::Nothing).await;
    eventually("old rows are deleted", async || {
        let left = count(&raw, "SELECT count(*) FROM changes").await;
        (left == 0).then_some(())
    })
    .await;
    let current = store.changes(Some(&old)).await.unwrap();
    assert_eq!(current.continuity, Continuity::Incomplete);
    let changes = store.changes(Some(&current.cursor)).await.unwrap();
    assert_eq!(changes.continuity, Continuity::Complete);
    late.batch_execute("COMMIT").await.unwrap();
    eventually("the late row is deleted as well", async || {
        ann.write(Change::Nothing).await;
        let late = "SELECT count(*) FROM changes WHERE heads = '{1}'";
        (count(&raw, late).await == 0).then_some(())
    })
    .await;
}

/// The tables of the feed are unlogged: a crash empties them, which must not look as if nothing had changed.
#[tokio::test]
async fn crash_of_the_server_is_reported_as_another_server() {
    let Some(mut own) = OwnServer::start(&[]) else {
        return;
    };
    let store = open_as(&settings(&own.url()), node()).await;
    let mut ann = Writer::claim(&store, "a").await;
    let before = store.changes(None).await.unwrap().cursor;
    ann.write(Change::Nothing).await;
    own.crash();
    own.go_on();
    let ask = async |cursor: &ChangeCursor| store.changes(Some(cursor)).await.ok();
    let after = eventually("an answer", async || ask(&before).await).await;
    assert_eq!(after.continuity, Continuity::OtherServer);
    let changes = store.changes(Some(&after.cursor)).await.unwrap();
    assert_eq!(changes.continuity, Continuity::Complete);
}

/// A dump that is restored on a server with fewer transactions contains rows with transaction ids of the future.
#[tokio::test]
async fn rows_from_the_future_of_another_server_are_ignored_and_deleted() {
    let Some(url) = server::schema().await else {
        return;
    };
    let settings = PostgresSettings {
        changes_kept_ms: 60,
        ..settings(&url)
    };
    let store = open_as(&settings, node()).await;
    let cursor = store.changes(None).await.unwrap().cursor;
    let raw = server::connect(&url).await;
    let foreign = "INSERT INTO changes (xid, docs, heads) VALUES ('1000000000000', '{1}', '{1}');
                   UPDATE change_feed SET trimmed = '900000000000:900000000000:'";
    raw.batch_execute(foreign).await.unwrap();
    let changes = store.changes(Some(&cursor)).await.unwrap();
    assert_eq!(changes.appended, []);
    eventually("they are deleted", async || {
        let left = count(
            &raw,
            "SELECT count(*) FROM changes WHERE xid > '900000000000'",
        )
        .await;
        (left == 0).then_some(())
    })
    .await;
    eventually("the feed goes on", async || {
        let cursor = store.changes(None).await.unwrap().cursor;
        let changes = store.changes(Some(&cursor)).await.unwrap();
        (changes.continuity == Continuity::Complete).then_some(())
    })
    .await;
}

/// A node of a version from before the table appends without adding a row.
#[tokio::test]
async fn feed_is_incomplete_while_a_live_node_does_not_record_changes() {
    let Some(url) = server::schema().await else {
        return;
    };
    let me = node();
    let store = open_as(&settings(&url), me).await;
    store.heartbeat(&beat()).await.unwrap();
    let continuity = async || {
        let cursor = store.changes(None).await.unwrap().cursor;
        store.changes(Some(&cursor)).await.unwrap().continuity
    };
    assert_eq!(continuity().await, Continuity::Complete);
    let raw = server::connect(&url).await;
    let old = "INSERT INTO nodes (id, name, takes_part, beat_at) VALUES (1, 'old', true, clock_timestamp())";
    raw.batch_execute(old).await.unwrap();
    assert_eq!(continuity().await, Continuity::Incomplete);
    let gone = "UPDATE nodes SET beat_at = beat_at - interval '1 hour' WHERE id = 1";
    raw.batch_execute(gone).await.unwrap();
    assert_eq!(continuity().await, Continuity::Complete);
}
