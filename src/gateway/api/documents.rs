//! The documents: their list, their properties, their titles.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::web::{Data, Json, Query};
use actix_web::{FromRequest, HttpRequest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::extract::{DocumentAccess, InOrder, Read, SignedIn, Write};
use super::messages::{DocumentView, DocumentsQuery, DocumentsResponse, RenameRequest};
use crate::access::Role;
use crate::gateway::api_error::ApiError;
use crate::gateway::gateway::Gateway;
use crate::gateway::store_availability::unless_unavailable;
use crate::id::{DocId, Name};
use crate::store::ListQuery;

/// The most documents of one page.
const LIST_MAX: usize = 200;

/// The longest title, in characters.
const TITLE_CHARS_MAX: usize = 200;

impl FromRequest for ListQuery {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(list_query(request).map_err(Into::into))
    }
}

fn list_query(request: &HttpRequest) -> Result<ListQuery, ApiError> {
    let bad = |message: &str| ApiError::BadRequest(message.to_owned());
    let query = Query::<DocumentsQuery>::from_query(request.query_string());
    let query = query.map_err(|error| ApiError::BadRequest(error.to_string()))?;
    let collection = Name::parse(&query.collection).map_err(|_| bad("collection is not a name"))?;
    let after = match query.after.as_deref() {
        None => None,
        Some(text) => Some(parse_cursor(text).ok_or_else(|| bad("after is not a cursor"))?),
    };
    if !(1..=LIST_MAX).contains(&query.limit) {
        return Err(bad(&format!("limit is 1 to {LIST_MAX}")));
    }
    let query = query.into_inner();
    Ok(ListQuery {
        collection,
        limit: query.limit,
        after,
        title: query.q.filter(|title| !title.is_empty()),
    })
}

/// A page of the documents that the identity may read, the latest edit first.
pub(super) async fn list(
    InOrder(query, SignedIn(identity)): InOrder<ListQuery, SignedIn>,
    gateway: Data<Gateway>,
) -> Result<Json<DocumentsResponse>, ApiError> {
    let _permit = gateway.list_permit().await.ok_or(ApiError::ListsBusy)?;
    let page = async {
        match identity.principal {
            None => gateway.node().store().list(query).await,
            Some(principal) => gateway.auth().accounts().list_for(principal, query).await,
        }
    };
    let page = unless_unavailable(&gateway, page).await?;
    let now_ms = gateway.node().time_ms();
    let view = |document| DocumentView::new(document, None, now_ms);
    Ok(Json(DocumentsResponse {
        next: page.next.as_ref().map(cursor),
        documents: page.documents.into_iter().map(view).collect(),
    }))
}

/// The position at which the next page begins, in a form that clients return unread.
fn cursor((at_ms, id): &(u64, String)) -> String {
    URL_SAFE_NO_PAD.encode(format!("{at_ms}.{id}"))
}

fn parse_cursor(text: &str) -> Option<(u64, String)> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (at, id) = text.split_once('.')?;
    Some((at.parse().ok()?, id.to_owned()))
}

pub(super) async fn describe(
    access: DocumentAccess<Read>,
    gateway: Data<Gateway>,
) -> Result<Json<DocumentView>, ApiError> {
    view(&gateway, &access.doc, access.role).await
}

pub(super) async fn rename(
    InOrder(Json(body), access): InOrder<Json<RenameRequest>, DocumentAccess<Write>>,
    gateway: Data<Gateway>,
) -> Result<Json<DocumentView>, ApiError> {
    let title = body.title.trim();
    if title.chars().count() > TITLE_CHARS_MAX || title.chars().any(char::is_control) {
        return Err(ApiError::InvalidTitle(TITLE_CHARS_MAX));
    }
    let store = gateway.node().store();
    let was = body.was.as_deref().map(str::trim);
    if !store.rename(&access.doc, title, was).await? {
        let document = store.describe(&access.doc).await?;
        let document = document.ok_or(ApiError::DocumentNotFound)?;
        return Err(ApiError::TitleChanged {
            title: document.title,
        });
    }
    view(&gateway, &access.doc, access.role).await
}

async fn view(gateway: &Gateway, doc: &DocId, role: Role) -> Result<Json<DocumentView>, ApiError> {
    let document = gateway.node().store().describe(doc).await?;
    let document = document.ok_or(ApiError::DocumentNotFound)?;
    let now_ms = gateway.node().time_ms();
    Ok(Json(DocumentView::new(document, Some(role), now_ms)))
}
