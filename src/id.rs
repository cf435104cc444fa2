//! Names and ids of documents, nodes, sockets, users and clients. Each is a newtype that is checked when it is parsed.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use thiserror::Error;

/// The most bytes that a collection's or a document's name may have.
pub const NAME_BYTES_MAX: usize = 512;

/// A collection's, document's, channel's or presence's name: 1 to 512 bytes, no control characters, and no property of
/// JavaScript's `Object.prototype` (the peers keep names as keys of plain objects).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// A name is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a name is 1 to 512 bytes without control characters, and no property of Object.prototype")]
pub struct BadName;

impl Name {
    /// Parses a name.
    ///
    /// # Errors
    /// When it is empty, too long, holds a control character or is reserved.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        Self::within(NAME_BYTES_MAX, text)
    }

    /// Parses the name of a presence channel. The channel of a document's cursors is `collection.id`.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), but it may have 1,025 bytes.
    pub fn parse_channel(text: &str) -> Result<Self, BadName> {
        Self::within(2 * NAME_BYTES_MAX + 1, text)
    }

    fn within(bytes_max: usize, text: &str) -> Result<Self, BadName> {
        let sound = (1..=bytes_max).contains(&text.len())
            && !text.chars().any(char::is_control)
            && !RESERVED.contains(&text);
        sound.then(|| Self(text.into())).ok_or(BadName)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The properties of `Object.prototype`: as keys they would reach what every JavaScript object inherits.
const RESERVED: [&str; 12] = [
    "__proto__",
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
];

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A document's name: its collection and its id within it.
///
/// ```
/// let doc = copydesk::id::DocId::parse("documents", "plan")?;
/// assert_eq!(doc.to_string(), "documents/plan");
/// assert!(copydesk::id::DocId::parse("documents", "").is_err());
/// # Ok::<(), copydesk::id::BadName>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocId {
    /// The collection that holds the document.
    pub collection: Name,
    /// The document's name within its collection.
    pub id: Name,
}

impl DocId {
    /// Parses both parts.
    ///
    /// # Errors
    /// When either is no [`Name`].
    pub fn parse(collection: &str, id: &str) -> Result<Self, BadName> {
        Ok(Self {
            collection: Name::parse(collection)?,
            id: Name::parse(id)?,
        })
    }

    /// Parses both parts as they are written in the path of an address. Clients and proxies resolve the segments `.` and
    /// `..`, percent-encoded or not, so a name of that form has one `~` before it; so has a name that looks like one
    /// written this way (`~..` is written `~~..`).
    ///
    /// # Errors
    /// When either is no [`Name`].
    pub fn parse_path(collection: &str, id: &str) -> Result<Self, BadName> {
        Self::parse(unescaped_segment(collection), unescaped_segment(id))
    }
}

fn unescaped_segment(segment: &str) -> &str {
    match segment.strip_prefix('~') {
        Some(name) if matches!(name.trim_start_matches('~'), "." | "..") => name,
        _ => segment,
    }
}

impl fmt::Display for DocId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.collection, self.id)
    }
}

impl fmt::Debug for DocId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One start of a node. The id is random and new at every start, so that an inbox has only one reader.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A session of one socket on one node. Not reused until the node restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// The author of an op. All clients without an account have the id [`UserId::anyone`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Arc<str>);

impl UserId {
    /// A user by name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The user of all clients that are not signed in.
    #[must_use]
    pub fn anyone() -> Self {
        Self::new("")
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// An open editor: ShareDB's `src`. Issued by `auth::ClientIdIssuer` at every page load, and kept across reconnects.
/// `(user, client, seq)` identifies a submit for ever.
///
/// An id that another server issued is stored [with a mark](Self::as_foreign). Other clients receive it with the mark only, so
/// it cannot be confused with the same id of another user. Ids that differ in the mark alone are equal: they are the same
/// client of one user, whichever server committed its op.
#[derive(Clone)]
pub struct ClientId(Arc<str>);

/// Marks an id that another server issued. Ids of this server do not contain it.
const FOREIGN: char = '~';

/// The most bytes that a client's id may have.
pub const CLIENT_BYTES_MAX: usize = 64;

impl ClientId {
    /// Parses 1 to 64 bytes of printable ASCII. `auth::ClientIdIssuer::is_issued_to` checks that this server issued it.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let sound = (1..=CLIENT_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        sound.then(|| Self(text.into())).ok_or(BadName)
    }

    /// The id as text, with its mark.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id with the mark of another server's ids; `None` if it is too long for the mark.
    #[must_use]
    pub fn as_foreign(&self) -> Option<Self> {
        Self::parse(&format!("{}{FOREIGN}", self.0)).ok()
    }

    /// Returns true if it has the mark.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.0.ends_with(FOREIGN)
    }

    /// The id without its mark, as its own client uses it.
    #[must_use]
    pub fn unmarked(&self) -> &str {
        self.0.strip_suffix(FOREIGN).unwrap_or(&self.0)
    }
}

impl PartialEq for ClientId {
    fn eq(&self, other: &Self) -> bool {
        self.unmarked() == other.unmarked()
    }
}

impl Eq for ClientId {}

impl PartialOrd for ClientId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ClientId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.unmarked().cmp(other.unmarked())
    }
}

impl Hash for ClientId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.unmarked().hash(state);
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_names_are_read_from_a_path() {
        for (segment, name) in [
            ("~.", "."),
            ("~..", ".."),
            ("~~..", "~.."),
            ("~~~.", "~~."),
            ("..", ".."),
            ("~...", "~..."),
            ("~", "~"),
            ("~a", "~a"),
            ("a.", "a."),
        ] {
            let doc = DocId::parse_path("notes", segment).map(|doc| doc.id.as_str().to_owned());
            assert_eq!(doc.as_deref(), Ok(name), "{segment}");
        }
    }

    #[test]
    fn names_that_would_reach_a_prototype_are_refused() {
        for bad in [
            "",
            "__proto__",
            "constructor",
            "toString",
            "a\0b",
            "tab\t",
            "line\n",
            "\u{85}",
        ] {
            assert_eq!(Name::parse(bad), Err(BadName), "{bad:?}");
        }
        for good in [
            "a",
            "ä",
            "a/b",
            ".",
            "proto",
            "名前",
            &"x".repeat(NAME_BYTES_MAX),
        ] {
            assert_eq!(
                Name::parse(good).map(|name| name.as_str().to_owned()),
                Ok(good.to_owned())
            );
        }
        assert_eq!(Name::parse(&"x".repeat(NAME_BYTES_MAX + 1)), Err(BadName));
        assert!(Name::parse_channel(&"x".repeat(1_025)).is_ok());
        for name in [&*"x".repeat(1_026), "", "a\nb", "__proto__"] {
            assert_eq!(Name::parse_channel(name), Err(BadName));
        }
    }
}
