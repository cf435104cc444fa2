//! The files of the web editor, compressed by the build and kept in memory once for all responses.
//!
//! A release build embeds `static/dist`; a debug build reads it at the first request.

use std::borrow::Cow;
use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use rust_embed::RustEmbed;
use sha2::{Digest, Sha256};

#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/static/dist"]
#[allow_missing = true]
struct Dist;

/// The files by their paths below `static/dist`.
static FILES: LazyLock<HashMap<String, File>> = LazyLock::new(read_files);

/// A file in all its encodings.
struct File {
    media_type: &'static str,
    caching: &'static str,
    /// The uncompressed file.
    plain: Form,
    /// The compressed forms, the smallest first.
    compressed: Vec<Form>,
}

/// A file in one encoding.
struct Form {
    /// The name of the encoding in HTTP; empty: not compressed.
    encoding: &'static str,
    bytes: Bytes,
    /// The entity tag with its quotes.
    tag: String,
}

impl Form {
    fn new(encoding: &'static str, bytes: Bytes) -> Self {
        let hash = Sha256::digest(&bytes);
        let hash = hash[..16].iter().map(|byte| format!("{byte:02x}"));
        Self {
            encoding,
            tag: format!("\"{}\"", hash.collect::<String>()),
            bytes,
        }
    }
}

/// The file endings of compressed forms and the names of their encodings, the smallest form first.
const ENCODINGS: [(&str, &str); 2] = [(".br", "br"), (".gz", "gzip")];

/// The bytes of a file that are copied at once into the write buffer of a connection.
const PIECE_BYTES: usize = 16 << 10;

/// The page: one HTML file for the list of documents and the editor.
pub(super) struct EditorPage(Option<File>);

impl EditorPage {
    /// The page with its relative URLs resolved against `base_path`, and its sockets at `socket_path` below that.
    pub(super) fn new(base_path: &str, socket_path: &str) -> Self {
        let Some(built) = FILES.get("index.html") else {
            return Self(None);
        };
        let text = String::from_utf8_lossy(&built.plain.bytes);
        let based = based(&text, base_path, socket_path);
        let page = File {
            media_type: built.media_type,
            caching: built.caching,
            plain: Form::new("", Bytes::from(based)),
            compressed: Vec::new(),
        };
        Self(Some(page))
    }

    /// The response with the page; 404 with an explanation if the web editor was not built.
    pub(super) fn answer(&self, request: &HttpRequest) -> HttpResponse {
        if let Some(file) = &self.0 {
            return file.answer(request);
        }
        HttpResponse::NotFound()
            .content_type("text/plain; charset=utf-8")
            .body("The web editor is not built: run `make static`, then start again.\n")
    }
}

/// Sets the base element of the page: replaces the present one, or inserts one at the start of the head, before any URL.
fn based(page: &str, base_path: &str, socket_path: &str) -> String {
    let socket = socket_path.trim_start_matches('/');
    let element = format!("<base href=\"{base_path}/\" data-socket=\"{socket}\" />");
    if let Some(at) = page.find("<base ")
        && let Some(length) = page[at..].find('>')
    {
        return [&page[..at], &element, &page[at + length + 1..]].concat();
    }
    page.replacen("<head>", &format!("<head>\n    {element}"), 1)
}

/// The response with a file of the page; 404 if there is none.
pub(super) fn asset(request: &HttpRequest, path: &str) -> HttpResponse {
    match FILES.get(path) {
        Some(file) => file.answer(request),
        None => HttpResponse::NotFound().finish(),
    }
}

/// Returns true if a path, with its leading slash, is that of the page or of one of its files.
pub(super) fn is_page(path: &str) -> bool {
    let Some(name) = path.strip_prefix('/') else {
        return false;
    };
    let is_document = || name.strip_prefix("d/").is_some_and(|id| !id.contains('/'));
    name.is_empty() || FILES.contains_key(name) || is_document()
}

impl File {
    fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let form = self.form(request);
        let known = header(request, IF_NONE_MATCH.as_str());
        let is_known = known.split(',').any(|tag| {
            let tag = tag.trim();
            tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == form.tag
        });
        let mut response = if is_known {
            HttpResponse::NotModified()
        } else {
            HttpResponse::Ok()
        };
        response
            .insert_header((CACHE_CONTROL, self.caching))
            .insert_header((ETAG, form.tag.as_str()));
        if !self.compressed.is_empty() {
            response.insert_header((VARY, ACCEPT_ENCODING.as_str()));
        }
        if is_known {
            return response.finish();
        }
        if !form.encoding.is_empty() {
            response.insert_header((CONTENT_ENCODING, form.encoding));
        }
        response.insert_header((CONTENT_TYPE, self.media_type));
        response.body(Pieces(form.bytes.clone()))
    }

    /// The smallest form that the client accepts.
    fn form(&self, request: &HttpRequest) -> &Form {
        let accepted = header(request, ACCEPT_ENCODING.as_str());
        self.compressed
            .iter()
            .find(|form| accepts(accepted, form.encoding))
            .unwrap_or(&self.plain)
    }
}

fn header<'a>(request: &'a HttpRequest, name: &str) -> &'a str {
    let value = request.headers().get(name);
    value.and_then(|it| it.to_str().ok()).unwrap_or_default()
}

/// Returns true if an `Accept-Encoding` header names `encoding` without excluding it (`br;q=0`).
fn accepts(header: &str, encoding: &str) -> bool {
    header.split(',').any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let is_named = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case(encoding));
        let weight = |part: &str| part.strip_prefix("q=")?.parse::<f32>().ok();
        is_named && parts.all(|part| weight(part).is_none_or(|weight| weight > 0.0))
    })
}

fn read_files() -> HashMap<String, File> {
    let is_compressed = |path: &str| ENCODINGS.iter().any(|(ending, _)| path.ends_with(ending));
    Dist::iter()
        .filter(|path| !is_compressed(path))
        .filter_map(|path| Some((path.to_string(), read_file(&path)?)))
        .collect()
}

fn read_file(path: &str) -> Option<File> {
    let compressed = ENCODINGS
        .iter()
        .filter_map(|(ending, encoding)| form(&format!("{path}{ending}"), encoding));
    // The names under `assets/` contain a hash of the content: the files never change.
    let caching = if path.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    Some(File {
        media_type: media_type(path),
        caching,
        plain: form(path, "")?,
        compressed: compressed.collect(),
    })
}

fn form(path: &str, encoding: &'static str) -> Option<Form> {
    let bytes = match Dist::get(path)?.data {
        Cow::Borrowed(embedded) => Bytes::from_static(embedded),
        Cow::Owned(read) => Bytes::from(read),
    };
    Some(Form::new(encoding, bytes))
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

/// A response body that shares the bytes of the file. HTTP copies each piece into the buffer of its connection, so a client
/// that does not read keeps a few pieces in memory and not the file.
struct Pieces(Bytes);

impl MessageBody for Pieces {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.0.len() as u64)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        if self.0.is_empty() {
            return Poll::Ready(None);
        }
        let piece = self.0.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(self.0.split_to(piece))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_is_accepted_by_name_and_weight() {
        for (header, accepted) in [
            ("br", true),
            ("gzip, deflate, br, zstd", true),
            ("gzip;q=0.5, BR;q=1.0", true),
            ("", false),
            ("gzip", false),
            ("br;q=0", false),
            ("br; q=0.000, gzip", false),
            ("brotli", false),
            ("*", false),
        ] {
            assert_eq!(accepts(header, "br"), accepted, "{header}");
        }
    }

    #[test]
    fn page_has_one_base_element_before_its_urls() {
        let page = "<head>\n<link href=\"./a\" /></head>";
        let built = based(page, "/tools/desk", "/live/socket");
        assert!(
            built.starts_with(
                "<head>\n    <base href=\"/tools/desk/\" data-socket=\"live/socket\" />"
            ),
            "{built}"
        );
        let again = based(&built, "", "/ws");
        assert!(
            again.contains("<base href=\"/\" data-socket=\"ws\" />"),
            "{again}"
        );
        assert_eq!(again.matches("<base").count(), 1);
    }

    #[test]
    fn body_is_sent_in_pieces() {
        let bytes = Bytes::from(vec![7; 2 * PIECE_BYTES + 1]);
        let mut pieces = Pieces(bytes);
        let mut sizes = Vec::new();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(Some(Ok(piece))) = Pin::new(&mut pieces).poll_next(&mut cx) {
            sizes.push(piece.len());
        }
        assert_eq!(sizes, [PIECE_BYTES, PIECE_BYTES, 1]);
    }
}
