//! Dead letters: the submits that were not committed because of a fault, with their payload.

use std::sync::Arc;

use crate::id::{ClientId, DocId, NodeId, UserId};
use crate::log::{Revision, SubmitId};

/// The most bytes of [`DeadLetter::detail`].
pub const DETAIL_BYTES_MAX: usize = 1_000;

/// About how many bytes a stored dead letter takes besides its texts.
const ROW_BYTES: u64 = 300;

/// Why a submit became a dead letter.
///
/// A submit that is rejected because it is invalid is no dead letter: its client is told, and any client could send as many
/// as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadLetterReason {
    /// The state machine of its document panicked while it processed the submit.
    Panic,
    /// The store refused the entry because of its values. The same entry would be refused again.
    Refused,
    /// A reason of a newer version of the program.
    Unknown,
}

impl DeadLetterReason {
    /// The reason as it is stored and displayed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }

    /// The reason of this name.
    #[must_use]
    pub fn parse(name: &str) -> Self {
        match name {
            "panic" => Self::Panic,
            "refused" => Self::Refused,
            _ => Self::Unknown,
        }
    }
}

/// A submit that was not committed because of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why it was not committed.
    pub reason: DeadLetterReason,
    /// The message of the panic, at most [`DETAIL_BYTES_MAX`] bytes. It may quote the document.
    pub detail: String,
    /// The document.
    pub doc: DocId,
    /// The principal, the client and the client's seq.
    pub submit: SubmitId,
    /// The revision that the change was made on; `None` if the client named none.
    pub base: Option<Revision>,
    /// The newest durable revision of the document at that time, as far as the node knew.
    pub head: Revision,
    /// The node on which it happened.
    pub node: NodeId,
    /// The name of that node.
    pub node_name: Arc<str>,
    /// The time, in milliseconds since 1970.
    pub at_ms: u64,
    /// The change as JSON: `{"op":…}`, `{"create":…}` or `{"del":true}`. Cut off behind a bound, or empty if it could not be
    /// encoded; then it is shorter than `payload_bytes`.
    pub payload: String,
    /// The size of the whole payload in bytes, approximately if it was not encoded.
    pub payload_bytes: u64,
}

impl DeadLetter {
    /// Returns true if the payload is not whole.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.payload_bytes > self.payload.len() as u64
    }
}

/// A dead letter of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDeadLetter {
    /// Its number, which grows with each letter of the store.
    pub id: u64,
    /// The letter.
    pub letter: DeadLetter,
}

/// Selects dead letters. Without a condition it selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// Only the letter with this number.
    pub id: Option<u64>,
    /// Only letters of this document.
    pub doc: Option<DocId>,
    /// Only letters of this time or a later one, in milliseconds since 1970.
    pub from_ms: Option<u64>,
    /// Only letters before this time, in milliseconds since 1970.
    pub until_ms: Option<u64>,
}

impl DeadLetterFilter {
    /// Returns true if the filter selects the letter.
    pub(in crate::store) fn selects(&self, id: u64, letter: &DeadLetter) -> bool {
        self.id.is_none_or(|it| it == id)
            && self.doc.as_ref().is_none_or(|it| *it == letter.doc)
            && self.from_ms.is_none_or(|it| letter.at_ms >= it)
            && self.until_ms.is_none_or(|it| letter.at_ms < it)
    }
}

/// What the retention needs to know of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterSize {
    /// The number of the letter.
    pub id: u64,
    /// Its document.
    pub doc: DocId,
    /// Its principal.
    pub author: UserId,
    /// Its time, in milliseconds since 1970.
    pub at_ms: u64,
    /// About how many bytes it takes in the store.
    pub bytes: u64,
}

impl DeadLetterSize {
    /// The size of a letter with so many bytes of payload and detail.
    pub(in crate::store) fn new(
        id: u64,
        doc: DocId,
        author: UserId,
        at_ms: u64,
        text_bytes: u64,
    ) -> Self {
        let bytes = text_bytes + ROW_BYTES;
        Self {
            id,
            doc,
            author,
            at_ms,
            bytes,
        }
    }
}

/// The columns of a dead letter in the tables of both stores. Numbers beyond 2^63 are stored as negative ones.
pub(in crate::store) struct DeadLetterColumns {
    pub(in crate::store) id: i64,
    pub(in crate::store) reason: String,
    pub(in crate::store) detail: Vec<u8>,
    pub(in crate::store) collection: String,
    pub(in crate::store) doc: String,
    pub(in crate::store) author: Vec<u8>,
    pub(in crate::store) client: String,
    pub(in crate::store) seq: i64,
    pub(in crate::store) base: Option<i64>,
    pub(in crate::store) head: i64,
    pub(in crate::store) node: i64,
    pub(in crate::store) node_name: Vec<u8>,
    pub(in crate::store) at_ms: i64,
    pub(in crate::store) payload: Vec<u8>,
    pub(in crate::store) payload_bytes: i64,
}

impl DeadLetterColumns {
    /// The letter, or why the row is damaged.
    pub(in crate::store) fn decode(self) -> Result<StoredDeadLetter, String> {
        let id = self.id;
        let damaged = |what: &str| format!("dead letter {id}: invalid {what}");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let doc = DocId::parse(&self.collection, &self.doc).map_err(|_| damaged("document"))?;
        let client = ClientId::parse(&self.client).map_err(|_| damaged("client"))?;
        let letter = DeadLetter {
            reason: DeadLetterReason::parse(&self.reason),
            detail: text(&self.detail),
            doc,
            submit: SubmitId {
                author: UserId::new(&text(&self.author)),
                client,
                seq: self.seq.cast_unsigned(),
            },
            base: self.base.map(|base| Revision(base.cast_unsigned())),
            head: Revision(self.head.cast_unsigned()),
            node: NodeId(self.node.cast_unsigned()),
            node_name: text(&self.node_name).into(),
            at_ms: self.at_ms.cast_unsigned(),
            payload: text(&self.payload),
            payload_bytes: self.payload_bytes.cast_unsigned(),
        };
        Ok(StoredDeadLetter {
            id: id.cast_unsigned(),
            letter,
        })
    }
}
