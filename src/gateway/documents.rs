//! The API of documents: their list, what there is to say of one, its title.

use actix_web::http::StatusCode;
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::json;

use super::accounts::{identity, permitted};
use super::gateway::Gateway;
use super::responses::{NO_STORE, failure, no_document, unavailable};
use super::store_availability::unless_unavailable;
use crate::access::Role;
use crate::id::Name;
use crate::store::{ListQuery, ListedDocument};

/// Adds the routes of documents.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/api/documents", web::get().to(list))
        .route("/api/documents/{collection}/{id}", web::get().to(describe))
        .route("/api/documents/{collection}/{id}", web::patch().to(rename));
}

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
    let identity = match identity(&request, &gateway).await {
        Ok(identity) => identity,
        Err(response) => return response,
    };
    let Some(_turn) = gateway.list_turn().await else {
        let message = "too many lists are asked for at once: try again";
        return failure(StatusCode::SERVICE_UNAVAILABLE, "busy", message);
    };
    let found = async {
        match &identity.principal {
            None => gateway.node().store().list(query).await,
            Some(who) => gateway.auth().accounts().list_for(who.clone(), query).await,
        }
    };
    match unless_unavailable(&gateway, found).await {
        Ok(found) => {
            let next = found.next.as_ref().map(cursor);
            let now_ms = gateway.node().time_ms();
            let documents: Vec<_> = found
                .documents
                .iter()
                .map(|it| listed(it, now_ms))
                .collect();
            let body = json!({ "documents": documents, "next": next });
            HttpResponse::Ok().insert_header(NO_STORE).json(body)
        }
        Err(error) => unavailable(&error),
    }
}

/// The place where the next page begins, in a form that clients hand back unread.
fn cursor((at_ms, id): &(u64, String)) -> String {
    URL_SAFE_NO_PAD.encode(format!("{at_ms}.{id}"))
}

fn parse_cursor(text: &str) -> Option<(u64, String)> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (at, id) = text.split_once('.')?;
    Some((at.parse().ok()?, id.to_owned()))
}

/// `now_ms` bounds the times: those of a log may lie in the future if a clock was wrong.
fn listed(listed: &ListedDocument, now_ms: u64) -> serde_json::Value {
    json!({
        "collection": listed.doc.collection.as_str(),
        "id": listed.doc.id.as_str(),
        "title": listed.title,
        "created_at": listed.created_at_ms.min(now_ms),
        "updated_at": listed.updated_at_ms.min(now_ms),
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
    match gateway.node().store().describe(&doc).await {
        Ok(Some(found)) => {
            let mut body = listed(&found, gateway.node().time_ms());
            body["role"] = role.as_str().into();
            HttpResponse::Ok().insert_header(NO_STORE).json(body)
        }
        Ok(None) => no_document(),
        Err(error) => unavailable(&error),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RenameDocument {
    title: String,
}

/// The longest title, in characters.
const TITLE_CHARS_MAX: usize = 200;

async fn rename(
    request: HttpRequest,
    gateway: Data<Gateway>,
    path: web::Path<(String, String)>,
    rename: web::Json<RenameDocument>,
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
    match gateway.node().store().rename(&doc, title).await {
        Ok(true) => describe(request, gateway, path).await,
        Ok(false) => no_document(),
        Err(error) => unavailable(&error),
    }
}
