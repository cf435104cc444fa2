//! The lower bound for the cost of a delivery: an actix-ws server that does nothing but send every op to every subscriber.
//!
//! It speaks just enough of the protocol for `copydesk-loadtest fanout --unchecked`: it numbers the ops of one document and
//! writes each to every subscriber's session, one after the other, as any first version of such a server does. It does not
//! transform, keep, check or log anything.
//!
//! ```text
//! cargo run --release --example bare -- 127.0.0.1:8099
//! ```

use std::sync::Arc;

use actix_web::web::{Bytes, Data, Payload};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, get};
use actix_ws::{Message, Session};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::Mutex;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The one document, or what there is of it.
#[derive(Default)]
struct Document {
    version: u64,
    created: Value,
    clients: u64,
    subscribers: Vec<Session>,
}

type Shared = Data<Mutex<Document>>;

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:8099".to_owned());
    let _ = rlimit::increase_nofile_limit(1 << 20);
    let document = Data::from(Arc::new(Mutex::new(Document::default())));
    HttpServer::new(move || App::new().app_data(document.clone()).service(socket))
        .bind(&address)?
        .run()
        .await
}

#[get("/ws")]
async fn socket(
    request: HttpRequest,
    body: Payload,
    document: Shared,
) -> actix_web::Result<HttpResponse> {
    let (response, session, mut messages) = actix_ws::handle(&request, body)?;
    actix_web::rt::spawn(async move {
        let id = {
            let mut document = document.lock().await;
            document.clients += 1;
            format!("client{}", document.clients)
        };
        while let Some(Ok(message)) = messages.next().await {
            if let Message::Text(text) = message
                && answer(&id, &text, &session, &document).await.is_none()
            {
                break;
            }
        }
        let _ = session.close(None).await;
    });
    Ok(response)
}

/// Answers a request; none when it cannot be.
async fn answer(id: &str, text: &str, session: &Session, document: &Shared) -> Option<()> {
    let request: Value = serde_json::from_str(text).ok()?;
    let mut session = session.clone();
    match request["a"].as_str()? {
        "hs" => {
            let reply = json!({"a": "hs", "protocol": 1, "protocolMinor": 2, "id": id,
                "type": "http://sharejs.org/types/JSONv0"});
            session.text(reply.to_string()).await.ok()
        }
        "s" => {
            let reply = {
                let mut document = document.lock().await;
                document.subscribers.push(session.clone());
                json!({"a": "s", "c": request["c"], "d": request["d"], "data": {"v": document.version,
                    "data": document.created["data"], "type": document.created["type"]}})
            };
            session.text(reply.to_string()).await.ok()
        }
        "op" => broadcast(id, &request, session, document).await,
        _ => None,
    }
}

async fn broadcast(
    id: &str,
    request: &Value,
    mut author: Session,
    document: &Shared,
) -> Option<()> {
    let mut op =
        json!({"a": "op", "c": request["c"], "d": request["d"], "src": id, "seq": request["seq"]});
    // Held until all have been told: the next op must not overtake this one.
    let mut document = document.lock().await;
    op["v"] = document.version.into();
    document.version += 1;
    if let Some(created) = request.get("create") {
        document.created = created.clone();
        op["create"] = created.clone();
    } else {
        op["op"] = request["op"].clone();
    }
    // One piece of memory for all; each session frames it for itself.
    let text = bytestring::ByteString::try_from(Bytes::from(op.to_string())).ok()?;
    if document.subscribers.is_empty() {
        return author.text(text).await.ok();
    }
    for subscriber in &mut document.subscribers {
        let _ = subscriber.text(text.clone()).await;
    }
    Some(())
}
