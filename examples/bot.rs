//! A bot: opens a plain-text document over the ShareDB protocol, appends a line to it, and prints the document.
//!
//! ```sh
//! make run ARGS=--open
//! cargo run --example bot -- ws://127.0.0.1:8080/ws documents/note "Hello from a bot"
//! ```
//!
//! `copydesk::client::Client` is the state machine of a client: it transforms, composes and repeats ops. The bot passes on
//! to it what the socket receives, and sends what it asks for.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use copydesk::client::{Client, ClientRequest, ServerMessage};
use copydesk::id::{ClientId, DocId, UserId};
use copydesk::log::{Change, Entry, Epoch, Revision, Snapshot, SubmitId};
use copydesk::ot::{Content, Kind, Op};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const KIND: Kind = Kind::TextUnicode;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, doc, line] = &arguments[..] else {
        bail!("usage: bot ws://HOST:PORT/ws COLLECTION/ID LINE");
    };
    let (collection, id) = doc.split_once('/').context("a document is COLLECTION/ID")?;
    println!("{}", append_line(url, collection, id, line).await?);
    Ok(())
}

/// Appends a line to a document, creating it if it does not exist. Returns the text after the line was acknowledged.
pub(crate) async fn append_line(
    url: &str,
    collection: &str,
    id: &str,
    line: &str,
) -> Result<String> {
    let doc = DocId::parse(collection, id)?;
    let mut socket = Socket::connect(url).await?;
    let mut client = Client::new(socket.handshake().await?);
    client.connected();
    loop {
        while let Some(request) = client.poll() {
            socket.send(&request_json(&doc, &client, &request)).await?;
        }
        let is_acknowledged = !client.acknowledged().is_empty();
        if client.is_settled() && is_acknowledged {
            break;
        }
        // Also after a rejection: another client may have created the document at the same time.
        if client.is_settled() && client.revision().is_some() {
            append(&mut client, line)?;
            continue;
        }
        if let Some(message) = server_message(&socket.receive().await?)? {
            client.received(message)?;
        }
    }
    socket.close().await?;
    Ok(client.content().map(Content::to_text).unwrap_or_default())
}

/// Changes the local document; the change is sent when the client is polled.
fn append(client: &mut Client, line: &str) -> Result<()> {
    let text = format!("{line}\n");
    let Some(content) = client.content() else {
        let data = json!(text).to_string();
        return Ok(client.create(Content::create(KIND, Some(&data))?)?);
    };
    let op = match content.len() {
        0 => json!([text]),
        length => json!([length, text]),
    };
    Ok(client.edit(Op::parse(KIND, &op.to_string())?)?)
}

/// JSON messages over a WebSocket.
struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn connect(url: &str) -> Result<Self> {
        let (socket, _) = connect_async(url).await.context("connect")?;
        Ok(Self(socket))
    }

    /// The first request of a connection; the answer has the id of the client.
    async fn handshake(&mut self) -> Result<ClientId> {
        let request = json!({"a": "hs", "id": null, "protocol": 1, "protocolMinor": 2});
        self.send(&request).await?;
        loop {
            let message = self.receive().await?;
            if message["a"] == "hs" {
                let id = message["id"]
                    .as_str()
                    .context("a handshake without an id")?;
                return Ok(ClientId::parse(id)?);
            }
        }
    }

    async fn send(&mut self, message: &Value) -> Result<()> {
        Ok(self.0.send(Message::text(message.to_string())).await?)
    }

    async fn receive(&mut self) -> Result<Value> {
        loop {
            match self.0.next().await.context("the server closed")?? {
                Message::Text(text) => return Ok(serde_json::from_str(&text)?),
                Message::Close(frame) => bail!("the server closed: {frame:?}"),
                _ => {}
            }
        }
    }

    async fn close(&mut self) -> Result<()> {
        Ok(self.0.close(None).await?)
    }
}

fn request_json(doc: &DocId, client: &Client, request: &ClientRequest) -> Value {
    let (action, version) = match request {
        ClientRequest::Subscribe { since } => ("s", *since),
        ClientRequest::Fetch { since } => ("f", *since),
        ClientRequest::Submit { base, .. } => ("op", Some(*base)),
    };
    let mut message = json!({
        "a": action,
        "c": doc.collection.to_string(),
        "d": doc.id.to_string(),
        "v": version.map(|revision| revision.0),
    });
    if let ClientRequest::Submit {
        seq,
        change,
        is_resend,
        ..
    } = request
    {
        message["seq"] = json!(seq);
        message["x"] = json!({});
        // A submit that may have been received before names its client, so that it is committed once.
        if *is_resend {
            message["src"] = json!(client.id().as_str());
        }
        match change {
            Change::Create(content) => {
                message["create"] = json!({"type": KIND.name(), "data": content.to_text()});
            }
            Change::Edit(op) => message["op"] = op_json(op),
            Change::Delete => message["del"] = json!(true),
            Change::Nothing => {}
        }
    }
    message
}

fn op_json(op: &Op) -> Value {
    let mut bytes = Vec::new();
    op.write_json(&mut bytes);
    serde_json::from_slice(&bytes).expect("an op is written as JSON")
}

/// What the state machine must be told of a message; `None` for messages of other kinds.
fn server_message(message: &Value) -> Result<Option<ServerMessage>> {
    let action = message["a"].as_str().unwrap_or_default();
    if let Some(error) = message.get("error") {
        let seq = message["seq"].as_u64().filter(|_| action == "op");
        let seq = seq.with_context(|| format!("the server answered {error}"))?;
        return Ok(Some(ServerMessage::Rejected { seq }));
    }
    Ok(match (action, message.get("data")) {
        ("s" | "f", Some(data)) => Some(ServerMessage::Snapshot(snapshot(data)?)),
        ("s" | "f", None) => Some(ServerMessage::Done),
        ("op", _) => Some(ServerMessage::Commit(Arc::new(entry(message)?))),
        _ => None,
    })
}

fn snapshot(data: &Value) -> Result<Snapshot> {
    let content = match data.get("type").and_then(Value::as_str) {
        None => None,
        Some(name) if Kind::parse(name) == Some(KIND) => {
            Some(Content::create(KIND, Some(&data["data"].to_string()))?)
        }
        Some(name) => bail!("the document is of type {name}, and the bot writes plain text"),
    };
    Ok(Snapshot {
        revision: Revision(data["v"].as_u64().context("a snapshot without a version")?),
        at_ms: 0,
        content,
        creator: None,
    })
}

fn entry(message: &Value) -> Result<Entry> {
    let version = message["v"].as_u64().context("an op without a version")?;
    let client = message["src"].as_str().context("an op without a client")?;
    let change = if let Some(op) = message.get("op") {
        Change::Edit(Op::parse_logged(KIND, &op.to_string())?)
    } else if let Some(create) = message.get("create") {
        Change::Create(Content::create(KIND, Some(&create["data"].to_string()))?)
    } else if message["del"] == true {
        Change::Delete
    } else {
        Change::Nothing
    };
    Ok(Entry {
        // On the wire the version of an op is the revision that it applies to.
        revision: Revision(version).next(),
        epoch: Epoch(0),
        id: SubmitId {
            author: UserId::anyone(),
            client: ClientId::parse(client)?,
            seq: message["seq"].as_u64().context("an op without a seq")?,
        },
        at_ms: 0,
        change,
    })
}
