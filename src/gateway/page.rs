//! The web editor, embedded into the binary by a release build and read from `static/dist` by a debug build.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use actix_web::{HttpRequest, HttpResponse};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/static/dist"]
#[allow_missing = true]
struct Dist;

/// The page itself: the list of documents and the editor are one page.
pub(super) fn page(request: &HttpRequest) -> HttpResponse {
    if let Some(response) = file(request, "index.html", "no-cache") {
        return response;
    }
    HttpResponse::NotFound()
        .content_type("text/plain; charset=utf-8")
        .body("The web editor is not built: run `make static`, then start again.\n")
}

/// A file of the page. Names under `assets/` hold a hash of their content, so they never change.
pub(super) fn asset(request: &HttpRequest, path: &str) -> HttpResponse {
    let caching = if path.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    file(request, path, caching).unwrap_or_else(|| HttpResponse::NotFound().finish())
}

fn file(request: &HttpRequest, path: &str, caching: &'static str) -> Option<HttpResponse> {
    let file = Dist::get(path)?;
    let hash = &file.metadata.sha256_hash()[..16];
    let tag = hash
        .iter()
        .fold(String::from("\""), |tag, byte| format!("{tag}{byte:02x}"))
        + "\"";
    let known = request
        .headers()
        .get(IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if known {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    response
        .insert_header((CACHE_CONTROL, caching))
        .insert_header((ETAG, tag));
    if known {
        return Some(response.finish());
    }
    response.insert_header((CONTENT_TYPE, media_type(path)));
    Some(response.body(file.data.into_owned()))
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "json" | "webmanifest" => "application/json",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
