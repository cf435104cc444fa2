//! Routes: the page, the socket, the list of documents, health.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::middleware::{Compress, DefaultHeaders, from_fn};
use actix_web::web::{self, Data};
use actix_web::{App, HttpRequest, HttpResponse, Responder, rt};
use rustls::ServerConfig;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Semaphore, watch};

use super::bearer;
use super::limits::Limits;
use super::page;
use super::patience;
use super::people;
use super::rights::Rights;
use super::server;
use super::session::Session;
use super::settings::GatewaySettings;
use super::sharing;
use super::upgrade;
use crate::auth::{Door, Mint, Mode, NONCE_BYTES, Person, network};
use crate::cluster::Health;
use crate::id::{DocId, Name};
use crate::node::{Node, Outbox};
use crate::protocol::{Refusal, Shown};
use crate::store::{ListQuery, Listed, Reach, Role, StoreError};

/// How far the server is on its way down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It serves.
    Serving,
    /// Other nodes take over its documents; it serves on, and its sockets are sent to them one after the other.
    Leaving,
    /// It accepts nothing more; what was accepted becomes durable and is told.
    Draining,
    /// Sockets close.
    Closing,
}

/// What all sockets and requests share.
#[derive(Debug)]
pub struct Gateway {
    node: Arc<Node>,
    mint: Mint,
    door: Arc<Door>,
    settings: GatewaySettings,
    limits: Limits,
    /// Taken by who looks at what documents were.
    histories: Semaphore,
    phase: watch::Sender<Phase>,
    /// How many sockets are open.
    sockets: watch::Sender<usize>,
}

impl Gateway {
    /// A gateway to a node's documents.
    #[must_use]
    pub fn new(
        node: Arc<Node>,
        mint: Mint,
        door: Arc<Door>,
        settings: GatewaySettings,
    ) -> Arc<Self> {
        let phase = watch::Sender::new(Phase::Serving);
        Arc::new(Self {
            node,
            mint,
            door,
            limits: Limits::new(&settings),
            histories: Semaphore::new(HISTORIES_AT_ONCE),
            settings,
            phase,
            sockets: watch::Sender::new(0),
        })
    }

    /// In a cluster: hands the documents over to the other nodes and sends the sockets to them, within the time that the
    /// settings give. Sockets that open meanwhile are sent on too.
    pub async fn hand_over(&self) {
        self.phase.send_replace(Phase::Leaving);
        self.node.leave_ring().await;
        let mut sockets = self.sockets.subscribe();
        let closed = sockets.wait_for(|open| *open == 0);
        let _ = rt::time::timeout(self.settings.hand_over() * 2, closed).await;
    }

    /// Sends the sockets to the other nodes when the store has answered those, and not this one, for a while; takes new
    /// sockets again when it is answered.
    pub async fn yield_while_stranded(&self) {
        let mut stranded = self.node.watch_stranded();
        while stranded.wait_for(|it| *it).await.is_ok() {
            let answered = stranded.wait_for(|it| !*it);
            if rt::time::timeout(STRANDED_PATIENCE, answered).await.is_ok() {
                continue;
            }
            self.phase.send_replace(Phase::Leaving);
            let _ = stranded.wait_for(|it| !*it).await;
            self.phase.send_replace(Phase::Serving);
        }
    }

    /// Stops accepting, waits until what was accepted is durable and told, and closes the sockets with 1012. Returns
    /// when they are closed, or after `patience`; `false`: something was not durable by then.
    pub async fn stop(&self, patience: Duration) -> bool {
        self.phase.send_replace(Phase::Draining);
        let durable = self.node.stop(patience).await;
        self.phase.send_replace(Phase::Closing);
        let mut sockets = self.sockets.subscribe();
        let closed = sockets.wait_for(|open| *open == 0);
        let _ = rt::time::timeout(self.settings.close_patience() * 2, closed).await;
        durable
    }

    /// A document as it was once. A few are looked at a time: that takes the store long, and others read from it too.
    pub(super) async fn history(&self, doc: &DocId, reach: Reach) -> Result<Shown, Refusal> {
        let turn = self.histories.acquire().await;
        let _turn = turn.map_err(|_| Refusal::busy())?;
        self.node.history(doc, reach).await
    }

    pub(super) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    pub(super) fn mint(&self) -> &Mint {
        &self.mint
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn door(&self) -> &Arc<Door> {
        &self.door
    }

    pub(super) fn settings(&self) -> &GatewaySettings {
        &self.settings
    }

    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }
}

/// How many look at what documents were at the same time. The others wait for their turn.
const HISTORIES_AT_ONCE: usize = 4;

/// Counts a socket for as long as it lives.
struct Counted(Arc<Gateway>);

impl Counted {
    fn new(gateway: &Arc<Gateway>) -> Option<Self> {
        let counted = Self(gateway.clone());
        gateway.sockets.send_modify(|open| *open += 1);
        // Looked at in a statement of its own: `counted` may be dropped below, and its drop takes the same lock.
        let open = *gateway.sockets.borrow();
        (open <= gateway.settings.sockets_max).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.sockets.send_modify(|open| *open -= 1);
    }
}

/// Serves on `listener`. The future runs until the handle stops it.
///
/// # Errors
/// When the listener cannot be used.
pub fn serve(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    tls: Option<ServerConfig>,
) -> io::Result<(
    SocketAddr,
    ServerHandle,
    impl Future<Output = io::Result<()>>,
)> {
    let address = listener.local_addr()?;
    let sockets_max = gateway.settings.sockets_max;
    let is_secure = tls.is_some();
    let app = move || {
        App::new()
            .app_data(Data::from(gateway.clone()))
            .app_data(
                web::JsonConfig::default()
                    .limit(JSON_BYTES_MAX)
                    .error_handler(|error, _| {
                        let message = error.to_string();
                        let response = failure(StatusCode::BAD_REQUEST, "bad_request", &message);
                        actix_web::error::InternalError::from_response(error, response).into()
                    }),
            )
            .route("/ws", web::get().to(open_socket))
            .route("/healthz", web::get().to(healthz))
            .route("/readyz", web::get().to(readyz))
            .service(
                web::scope("")
                    .wrap(from_fn(patience::limit))
                    .wrap(from_fn(bearer::watch_origin))
                    .wrap(from_fn(bearer::watch_pace))
                    .wrap(Compress::default())
                    .wrap(headers(is_secure))
                    .route("/", web::get().to(index))
                    .route("/d/{id}", web::get().to(index))
                    .configure(people::routes)
                    .configure(sharing::routes)
                    .route("/api/documents", web::get().to(list))
                    .route("/api/documents/{collection}/{id}", web::get().to(describe))
                    .route("/api/documents/{collection}/{id}", web::patch().to(rename))
                    .route("/api/{rest:.*}", web::route().to(no_such_api))
                    .route("/{path:.*}", web::get().to(asset)),
            )
    };
    let server = server::serve(app, listener, tls, sockets_max + HTTP_CONNECTIONS)?;
    Ok((address, server.handle(), server))
}

/// The largest body of a request.
const JSON_BYTES_MAX: usize = 16 << 10;

/// How long a node keeps its sockets while the store answers others and not this node. What they have open goes on
/// meanwhile by way of the others.
const STRANDED_PATIENCE: Duration = Duration::from_secs(5);

/// Connections a worker takes besides sockets.
const HTTP_CONNECTIONS: usize = 1_000;

fn headers(is_secure: bool) -> DefaultHeaders {
    let headers = DefaultHeaders::new()
        .add(("content-security-policy", CONTENT_SECURITY_POLICY))
        .add(("x-content-type-options", "nosniff"))
        .add(("referrer-policy", "same-origin"))
        .add((
            "permissions-policy",
            "camera=(), geolocation=(), microphone=()",
        ))
        .add(("cross-origin-opener-policy", "same-origin"))
        .add(("cross-origin-resource-policy", "same-origin"));
    if !is_secure {
        return headers;
    }
    headers.add(("strict-transport-security", "max-age=31536000"))
}

const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' https: data:; \
     style-src 'self'; style-src-attr 'unsafe-inline'; connect-src 'self'; object-src 'none'; base-uri 'none'; \
     frame-ancestors 'none'; form-action 'self'";

async fn open_socket(
    request: HttpRequest,
    payload: web::Payload,
    gateway: Data<Gateway>,
) -> actix_web::Result<HttpResponse> {
    let gateway = gateway.into_inner();
    if *gateway.phase.borrow() != Phase::Serving {
        return Ok(failure(
            StatusCode::SERVICE_UNAVAILABLE,
            "restarting",
            "The server restarts: come back",
        ));
    }
    if !bearer::may_act(&request, &gateway) {
        return Ok(bearer::foreign_page());
    }
    let address = bearer::address(&request, &gateway);
    if gateway.door.mode() != Mode::Open && !gateway.limits.may_knock(network(address)) {
        gateway.limits.hold_back().await;
        return Ok(failure(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many",
            "too many sockets are asked for from this address: try again",
        ));
    }
    let told = gateway.door.told();
    let person = match gateway.door.identify(&bearer::credentials(&request)).await {
        Ok(Some(person)) => person,
        Ok(None) => return Ok(unauthorized()),
        Err(error) => return Ok(unavailable(&error)),
    };
    let Some(counted) = Counted::new(&gateway) else {
        return Ok(failure(
            StatusCode::SERVICE_UNAVAILABLE,
            "full",
            "As many sockets are open as may be",
        ));
    };
    let Ok(places) = gateway.limits.hold_socket(&person, network(address)) else {
        return Ok(failure(
            StatusCode::TOO_MANY_REQUESTS,
            "quota",
            "as many sockets are open as this user or tenant may have",
        ));
    };
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce)
        .map_err(|_| actix_web::error::ErrorInternalServerError("no randomness"))?;
    let client = gateway.mint.mint(&person.author, nonce);
    let share = gateway.limits.share(&person, network(address));
    let rights = Rights::new(gateway.door.clone(), person, told);
    let hears_of_rights = request.query_string() == "rights";

    let bytes_max = gateway.settings.message_bytes_max;
    let bell = Some(upgrade::bell());
    let outbox = Arc::new(Outbox::new(gateway.settings.outbox_bytes_max, bell));
    let open = upgrade::open(&request, payload, bytes_max, outbox.clone());
    let (response, messages) = open.await?;
    let session = Session::new(gateway, rights, hears_of_rights, client, outbox, share);
    rt::spawn(async move {
        session.run(messages).await;
        drop((counted, places));
    });
    Ok(response)
}

async fn index(request: HttpRequest) -> actix_web::Result<HttpResponse> {
    let mut response = page::page(&request);
    if let Some(cookie) = bearer::new_guest(&request) {
        response
            .add_cookie(&cookie)
            .map_err(actix_web::error::ErrorInternalServerError)?;
    }
    Ok(response)
}

async fn asset(request: HttpRequest, path: web::Path<String>) -> HttpResponse {
    page::asset(&request, &path)
}

async fn healthz() -> impl Responder {
    "ok\n"
}

/// How long whoever asks whether the server is ready waits for the store. Balancers themselves wait no longer.
const READY_PATIENCE: Duration = Duration::from_millis(900);

/// Ready means: the store answers, the other nodes are heard, and the server is not on its way down.
async fn readyz(gateway: Data<Gateway>) -> HttpResponse {
    if *gateway.phase.borrow() != Phase::Serving {
        return HttpResponse::ServiceUnavailable().body("draining\n");
    }
    // Whether such a document exists is not the question.
    let doc = DocId::parse("readyz", "readyz").expect("both are names");
    let asked = rt::time::timeout(READY_PATIENCE, gateway.node.store().describe(&doc)).await;
    let late = |_| Err(StoreError::new("describe", "no answer in time"));
    match asked.unwrap_or_else(late) {
        Ok(_) => match gateway.node.health() {
            Health::Good => HttpResponse::Ok().body("ready\n"),
            Health::Bad(reason) => {
                let body = format!("the other nodes are not heard: {reason}\n");
                HttpResponse::ServiceUnavailable().body(body)
            }
        },
        Err(error) => {
            tracing::warn!(%error, "not ready");
            HttpResponse::ServiceUnavailable().body("the store does not answer\n")
        }
    }
}

/// What an answer about documents says to caches.
pub(super) const NO_STORE: (&str, &str) = ("cache-control", "no-store");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParams {
    #[serde(default = "default_collection")]
    collection: String,
    #[serde(default = "default_limit")]
    limit: usize,
    after: Option<String>,
    q: Option<String>,
}

fn default_collection() -> String {
    "documents".to_owned()
}

fn default_limit() -> usize {
    50
}

/// The most documents that one page of the list holds.
const LIST_MAX: usize = 200;

async fn list(
    request: HttpRequest,
    gateway: Data<Gateway>,
    params: Result<web::Query<ListParams>, actix_web::Error>,
) -> HttpResponse {
    let params = match params {
        Ok(params) => params.into_inner(),
        Err(error) => return failure(StatusCode::BAD_REQUEST, "bad_request", &error.to_string()),
    };
    let Ok(collection) = Name::parse(&params.collection) else {
        return failure(
            StatusCode::BAD_REQUEST,
            "bad_request",
            "collection is not a name",
        );
    };
    let after = match params.after.as_deref().map(parse_cursor) {
        None => None,
        Some(Some(after)) => Some(after),
        Some(None) => {
            return failure(
                StatusCode::BAD_REQUEST,
                "bad_request",
                "after is not a cursor",
            );
        }
    };
    if !(1..=LIST_MAX).contains(&params.limit) {
        let message = format!("limit is 1 to {LIST_MAX}");
        return failure(StatusCode::BAD_REQUEST, "bad_request", &message);
    }
    let query = ListQuery {
        collection,
        limit: params.limit,
        after,
        title: params.q.filter(|q| !q.is_empty()),
    };
    let person = match people::person(&request, &gateway).await {
        Ok(person) => person,
        Err(response) => return response,
    };
    let found = match &person.who {
        None => gateway.node.store().list(query).await,
        Some(who) => gateway.door.accounts().list_for(who.clone(), query).await,
    };
    match found {
        Ok(found) => {
            let full = found.len() == params.limit;
            let next = found.last().filter(|_| full).map(cursor);
            let documents: Vec<_> = found.iter().map(listed).collect();
            let body = json!({ "documents": documents, "next": next });
            HttpResponse::Ok().insert_header(NO_STORE).json(body)
        }
        Err(error) => unavailable(&error),
    }
}

fn cursor(listed: &Listed) -> String {
    format!("{}.{}", listed.updated_at_ms, listed.doc.id)
}

fn parse_cursor(text: &str) -> Option<(u64, String)> {
    let (at, id) = text.split_once('.')?;
    Some((at.parse().ok()?, id.to_owned()))
}

fn listed(listed: &Listed) -> serde_json::Value {
    json!({
        "collection": listed.doc.collection.as_str(),
        "id": listed.doc.id.as_str(),
        "title": listed.title,
        "created_at": listed.created_at_ms,
        "updated_at": listed.updated_at_ms,
        "revision": listed.revision,
    })
}

async fn describe(
    request: HttpRequest,
    gateway: Data<Gateway>,
    path: web::Path<(String, String)>,
) -> HttpResponse {
    let (doc, role) = match permitted(&request, &gateway, &path, Role::Viewer).await {
        Ok((_, doc, role)) => (doc, role),
        Err(response) => return response,
    };
    match gateway.node.store().describe(&doc).await {
        Ok(Some(found)) => {
            let mut body = listed(&found);
            body["role"] = role.as_str().into();
            HttpResponse::Ok().insert_header(NO_STORE).json(body)
        }
        Ok(None) => no_document(),
        Err(error) => unavailable(&error),
    }
}

/// The document that a path names, if whoever asks may do `least` with it. To those who may not even read it, there is
/// none.
pub(super) async fn permitted(
    request: &HttpRequest,
    gateway: &Gateway,
    path: &(String, String),
    least: Role,
) -> Result<(Person, DocId, Role), HttpResponse> {
    let person = people::person(request, gateway).await?;
    let doc = DocId::parse(&path.0, &path.1).map_err(|_| no_document())?;
    let role = gateway.door.role(&person, &doc).await;
    match role.map_err(|error| unavailable(&error))? {
        Some(role) if role >= least => Ok((person, doc, role)),
        Some(_) => Err(failure(
            StatusCode::FORBIDDEN,
            "forbidden",
            "you may not do that with this document",
        )),
        None => Err(no_document()),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rename {
    title: String,
}

/// The longest title, in characters.
const TITLE_CHARS_MAX: usize = 200;

async fn rename(
    request: HttpRequest,
    gateway: Data<Gateway>,
    path: web::Path<(String, String)>,
    rename: web::Json<Rename>,
) -> HttpResponse {
    let doc = match permitted(&request, &gateway, &path, Role::Editor).await {
        Ok((_, doc, _)) => doc,
        Err(response) => return response,
    };
    let title = rename.title.trim();
    if title.chars().count() > TITLE_CHARS_MAX || title.chars().any(char::is_control) {
        let message = format!(
            "a title has at most {TITLE_CHARS_MAX} characters, none of them control characters"
        );
        return failure(StatusCode::UNPROCESSABLE_ENTITY, "bad_title", &message);
    }
    match gateway.node.store().rename(&doc, title).await {
        Ok(true) => describe(request, gateway, path).await,
        Ok(false) => no_document(),
        Err(error) => unavailable(&error),
    }
}

async fn no_such_api() -> HttpResponse {
    failure(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is no such resource",
    )
}

pub(super) fn unauthorized() -> HttpResponse {
    failure(StatusCode::UNAUTHORIZED, "unauthorized", "sign in first")
}

pub(super) fn no_document() -> HttpResponse {
    failure(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is no such document",
    )
}

pub(super) fn unavailable(error: &StoreError) -> HttpResponse {
    tracing::warn!(%error, "request not served");
    failure(
        StatusCode::SERVICE_UNAVAILABLE,
        "store_unavailable",
        "the store does not answer: try again",
    )
}

pub(super) fn failure(status: StatusCode, code: &str, message: &str) -> HttpResponse {
    let body = json!({ "error": { "code": code, "message": message } });
    HttpResponse::build(status)
        .insert_header(NO_STORE)
        .json(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::AuthSettings;
    use crate::id::NodeId;
    use crate::node::NodeSettings;
    use crate::store::MemoryStore;

    #[tokio::test]
    async fn the_socket_too_many_is_refused_and_no_longer_counted() {
        let store = Arc::new(MemoryStore::new());
        let runtime = tokio::runtime::Handle::current();
        let node = Node::new(
            (NodeId(1), "a"),
            store,
            None,
            NodeSettings::default(),
            runtime,
        );
        let settings = GatewaySettings {
            sockets_max: 1,
            ..GatewaySettings::default()
        };
        let open = AuthSettings {
            mode: Mode::Open,
            ..AuthSettings::default()
        };
        let door = Door::open(open, None, &[7; 32]).unwrap();
        let gateway = Gateway::new(node, Mint::new(&[7; 32]), door, settings);
        let first = Counted::new(&gateway);
        assert!(first.is_some());
        assert!(Counted::new(&gateway).is_none());
        drop(first);
        assert!(Counted::new(&gateway).is_some());
    }
}
