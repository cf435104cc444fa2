//! Runs the programs in `examples/`: bots edit a document on an embedded server.

#[allow(dead_code, reason = "its `main` is not used here")]
#[path = "../examples/bot.rs"]
mod bot;
#[allow(dead_code, reason = "its `main` is not used here")]
#[path = "../examples/embed.rs"]
mod embed;

use bot::append_line;
use embed::Server;

#[tokio::test(flavor = "multi_thread")]
async fn bots_edit_a_document_on_an_embedded_server_that_keeps_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), "127.0.0.1:0").await;
    let server = server.expect("the server starts");
    let url = format!("ws://{}/ws", server.address);

    // Both create the document at once: one of the two is rejected and edits it instead.
    let append = |line| append_line(&url, "documents", "note", line);
    let (one, two) = tokio::join!(append("one"), append("two"));
    let texts = [one.expect("bot one"), two.expect("bot two")];
    let longest = texts
        .iter()
        .max_by_key(|text| text.len())
        .expect("two texts");
    let mut lines: Vec<&str> = longest.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["one", "two"], "{texts:?}");
    server.stop().await.expect("the server stops");

    let server = Server::start(folder.path(), "127.0.0.1:0").await;
    let server = server.expect("the server starts again");
    let url = format!("ws://{}/ws", server.address);
    let text = append_line(&url, "documents", "note", "three").await;
    let text = text.expect("bot three");
    assert_eq!(text, format!("{longest}three\n"));
    server.stop().await.expect("the server stops again");
}
