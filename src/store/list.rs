//! The list of documents: queries and pages.

use crate::id::{DocId, Name};
use crate::log::Revision;

/// A query for the list of documents.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// The collection.
    pub collection: Name,
    /// The largest number of documents that are returned.
    pub limit: usize,
    /// Only the documents after this place in the list: [`ListPage::next`] of the page before.
    pub after: Option<(u64, String)>,
    /// Only the documents with a title that contains this text, regardless of case.
    pub title: Option<String>,
}

impl ListQuery {
    /// The place before the first document of the page, for the comparison with `(updated_at_ms, id)`.
    pub(super) fn start(&self) -> (i64, &str) {
        match &self.after {
            Some((at_ms, id)) => (i64::try_from(*at_ms).unwrap_or(i64::MAX), id.as_str()),
            // Greater than each id, so that the first page begins at the newest document.
            None => (i64::MAX, "\u{10ffff}"),
        }
    }

    /// The text that titles must contain, in lower case; empty if each title matches.
    pub(super) fn folded_title(&self) -> String {
        self.title.as_deref().unwrap_or_default().to_lowercase()
    }
}

/// A page of the list of documents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// The documents, newest edit first.
    pub documents: Vec<ListedDocument>,
    /// The place of the next page: time and id of the last document that was looked at; `None` if there are no more. A
    /// page may have fewer documents than the limit and still have a next one, because a page looks at a bounded number
    /// of documents.
    pub next: Option<(u64, String)>,
}

/// The list's entry of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedDocument {
    /// The document.
    pub doc: DocId,
    /// The title; empty if there is none.
    pub title: String,
    /// When the document was first created, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When the document was last edited, in milliseconds since 1970. During a series of edits it may be a minute old.
    pub updated_at_ms: u64,
    /// The revision of the last entry of its log.
    pub revision: Revision,
}

impl ListedDocument {
    /// The place in the list, which is its sort key.
    pub(super) fn place(&self) -> (u64, String) {
        (self.updated_at_ms, self.doc.id.as_str().to_owned())
    }
}
