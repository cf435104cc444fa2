//! What clients ask, parsed. Every rule of form is here; whoever is handed a [`ClientMessage`] trusts it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::refusal::{Code, Refusal};
use crate::doc::{Position, Presence, Proposal};
use crate::id::{ClientId, DocId, NAME_BYTES_MAX, Name};
use crate::log::Revision;
use crate::ot::{Content, Kind};

/// One request of a client.
#[derive(Debug, Clone)]
pub enum ClientMessage {
    /// `hs`: the client says who it was, if it was somebody.
    Handshake {
        /// The id that it had on its last connection.
        client: Option<String>,
    },
    /// `pp`: answered at once.
    Ping,
    /// `f`: the document, or its commits since a revision.
    Fetch {
        /// The document.
        doc: DocId,
        /// What the client has, if it has anything.
        since: Option<Revision>,
        /// `min`: what is shown must not be older. Ours; the ShareDB client does not send it.
        min: Option<Revision>,
    },
    /// `s`: as `f`, and its commits from then on.
    Subscribe {
        /// The document.
        doc: DocId,
        /// What the client has, if it has anything.
        since: Option<Revision>,
        /// `min`: what is shown must not be older. Ours; the ShareDB client does not send it.
        min: Option<Revision>,
    },
    /// `u`: no more commits of the document.
    Unsubscribe {
        /// The document.
        doc: DocId,
    },
    /// `bf`: many fetches with one answer.
    BulkFetch(BulkRequest),
    /// `bs`: many subscriptions with one answer.
    BulkSubscribe(BulkRequest),
    /// `bu`: many unsubscriptions with one answer.
    BulkUnsubscribe(BulkRequest),
    /// `op`: a change.
    Submit {
        /// The document.
        doc: DocId,
        /// The change.
        submit: SubmitRequest,
    },
    /// `nf`: the document as it was at a revision; now, if none is given.
    HistoryAt {
        /// The document.
        doc: DocId,
        /// The revision.
        revision: Option<Revision>,
    },
    /// `nt`: the document as it was at a time; now, if none is given.
    HistoryAtTime {
        /// The document.
        doc: DocId,
        /// Milliseconds since 1970.
        at_ms: Option<u64>,
    },
    /// `p`: a presence's new value.
    Presence(Presence),
    /// `ps`: from now on the presences of a channel.
    PresenceSubscribe {
        /// The channel.
        channel: Name,
        /// The client's count of such requests: a later `pu` overtakes an earlier `ps`.
        seq: u64,
    },
    /// `pu`: no more presences of a channel.
    PresenceUnsubscribe {
        /// The channel.
        channel: Name,
        /// The client's count of such requests.
        seq: u64,
    },
    /// `pr`: ask the others to say their presences again.
    PresenceRequest {
        /// The channel.
        channel: Name,
    },
}

impl ClientMessage {
    /// The collection or the channel that it is about: it says whose that is.
    #[must_use]
    pub fn collection_or_channel(&self) -> Option<&Name> {
        match self {
            Self::Handshake { .. } | Self::Ping => None,
            Self::Fetch { doc, .. }
            | Self::Subscribe { doc, .. }
            | Self::Unsubscribe { doc }
            | Self::Submit { doc, .. }
            | Self::HistoryAt { doc, .. }
            | Self::HistoryAtTime { doc, .. } => Some(&doc.collection),
            Self::BulkFetch(bulk) | Self::BulkSubscribe(bulk) | Self::BulkUnsubscribe(bulk) => {
                Some(&bulk.collection)
            }
            Self::Presence(presence) => Some(&presence.channel),
            Self::PresenceSubscribe { channel, .. }
            | Self::PresenceUnsubscribe { channel, .. }
            | Self::PresenceRequest { channel } => Some(channel),
        }
    }

    /// Whether its answer may be large: documents, or commits.
    #[must_use]
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Self::Fetch { .. }
                | Self::Subscribe { .. }
                | Self::BulkFetch(_)
                | Self::BulkSubscribe(_)
                | Self::HistoryAt { .. }
                | Self::HistoryAtTime { .. }
        )
    }

    /// The document that it would change.
    #[must_use]
    pub fn changed_document(&self) -> Option<&DocId> {
        match self {
            Self::Submit { doc, .. } => Some(doc),
            _ => None,
        }
    }
}

/// The documents of a bulk request, all of one collection.
#[derive(Debug, Clone)]
pub struct BulkRequest {
    /// The collection.
    pub collection: Name,
    /// What the client has of each.
    pub docs: BTreeMap<Name, Option<Revision>>,
    /// Those that it names beyond the bound: each is refused by itself.
    pub beyond: Vec<Name>,
    /// Whether the request named revisions (a map): then commits are sent, and the reply repeats the map.
    pub since: bool,
}

/// A change that a client wants committed.
#[derive(Debug, Clone)]
pub struct SubmitRequest {
    /// The client that it is said to come from; none: the one of its connection.
    pub client: Option<ClientId>,
    /// The client's count of its submits.
    pub seq: u64,
    /// The revision that it was made on; none: whatever is current.
    pub base: Option<Revision>,
    /// The change.
    pub proposal: Proposal,
}

impl Presence {
    /// Makes the value true where it is an object with a member `name`, which readers take for the user's: a user's `name` is
    /// replaced by `user`, and only the value of a guest, who has none, keeps its name and has a member `guest`: `true`.
    pub fn sign(&mut self, user: Option<&str>) {
        use serde_json::{Map, Value};
        let Ok(mut members) = serde_json::from_str::<Map<String, Value>>(&self.value) else {
            return;
        };
        let Some(name) = members.get_mut("name") else {
            return;
        };
        let was_signed = user.is_some_and(|user| *name == user);
        if let Some(user) = user {
            *name = user.into();
        }
        let was_guest = match user {
            Some(_) => members.remove("guest").is_none(),
            None => members.insert("guest".to_owned(), true.into()) == Some(true.into()),
        };
        if !was_guest || (user.is_some() && !was_signed) {
            self.value = Value::Object(members).to_string().into();
        }
    }

    /// Makes it say that the presence is gone: newer than what its client said last.
    pub fn end(&mut self) {
        self.value = "null".into();
        self.version += 1;
    }
}

/// The largest `seq`: JavaScript's largest safe integer, less one.
pub const SEQ_MAX: u64 = (1 << 53) - 2;

/// The most documents that one bulk request is answered about.
const BULK_DOCS_MAX: usize = 1_000;

/// The most documents that one bulk request may name: those beyond [`BULK_DOCS_MAX`] are refused one by one, and beyond this
/// the whole request is.
const BULK_NAMES_MAX: usize = 10_000;

/// The members of a request that its reply repeats, as JSON, each with a comma behind it.
#[derive(Debug, Clone, Default)]
pub struct EchoedFields {
    members: Box<str>,
    /// Where the members end that a plain reply repeats: `a`, and `id` or else `c` and `d`.
    plain: usize,
    /// Where `b` ends, which stands behind them.
    bulk: usize,
}

impl EchoedFields {
    /// What an error repeats.
    pub(super) fn all(&self) -> &str {
        &self.members
    }

    /// What a success repeats.
    pub(super) fn plain(&self) -> &str {
        &self.members[..self.plain]
    }

    /// What a bulk success without data repeats.
    pub(super) fn with_bulk(&self) -> &str {
        &self.members[..self.bulk]
    }
}

/// A request that was refused for its form.
#[derive(Debug)]
pub enum BadRequest {
    /// It can be answered.
    Refused(EchoedFields, Refusal),
    /// It is no JSON object, so there is nothing to answer: the socket closes.
    NotAnObject,
}

/// Parses a frame's text, and keeps what its reply repeats.
///
/// # Errors
/// When it breaks a rule of form; the protocol's own sentence says which.
pub fn parse(text: &str) -> Result<(ClientMessage, EchoedFields), BadRequest> {
    if !text.trim_start().starts_with('{') {
        return Err(BadRequest::NotAnObject);
    }
    let fields: Fields<'_> = match serde_json::from_str(text) {
        Ok(fields) => fields,
        // A field named twice is an object still, but not one whose meaning is plain.
        Err(error) if error.is_data() => {
            return Err(BadRequest::Refused(
                EchoedFields::default(),
                badly_formed("Invalid or unknown message"),
            ));
        }
        Err(_) => return Err(BadRequest::NotAnObject),
    };
    match fields.message() {
        Ok(message) => Ok((message, fields.echo())),
        Err(refusal) => Err(BadRequest::Refused(fields.echo(), refusal)),
    }
}

/// What a reply to a message would repeat, from its small members alone; none: it does not say what it asks.
pub(super) fn echo_of(text: &str) -> Option<EchoedFields> {
    let fields: Fields<'_> = serde_json::from_str(text).ok()?;
    fields.a.string("").ok()??;
    Some(fields.echo())
}

fn badly_formed(message: &str) -> Refusal {
    Refusal::new(Code::MessageBadlyFormed, message)
}

fn op_badly_formed(message: &str) -> Refusal {
    Refusal::new(Code::OpBadlyFormed, message)
}

/// A request's members, each unread: which are looked at, and how, depends on `a`. Unknown members are passed over.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default)]
    a: Raw<'a>,
    #[serde(borrow, default)]
    c: Raw<'a>,
    #[serde(borrow, default)]
    d: Raw<'a>,
    #[serde(borrow, default)]
    b: Raw<'a>,
    #[serde(borrow, default)]
    v: Raw<'a>,
    #[serde(borrow, default)]
    min: Raw<'a>,
    #[serde(borrow, default)]
    id: Raw<'a>,
    #[serde(borrow, default)]
    r: Raw<'a>,
    #[serde(borrow, default)]
    ts: Raw<'a>,
    #[serde(borrow, default)]
    ch: Raw<'a>,
    #[serde(borrow, default)]
    p: Raw<'a>,
    #[serde(borrow, default)]
    pv: Raw<'a>,
    #[serde(borrow, default)]
    t: Raw<'a>,
    #[serde(borrow, default)]
    seq: Raw<'a>,
    #[serde(borrow, default)]
    src: Raw<'a>,
    #[serde(borrow, default)]
    op: Raw<'a>,
    #[serde(borrow, default)]
    create: Raw<'a>,
    #[serde(borrow, default)]
    del: Raw<'a>,
    #[serde(borrow, default)]
    protocol: Raw<'a>,
    #[serde(borrow, default, rename = "protocolMinor")]
    protocol_minor: Raw<'a>,
}

/// A member's JSON; nothing where it is absent.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(transparent)]
struct Raw<'a>(#[serde(borrow)] Option<&'a RawValue>);

impl<'a> Raw<'a> {
    /// The member's JSON, if it is there and not `null`.
    fn json(self) -> Option<&'a str> {
        self.0.map(RawValue::get).filter(|json| *json != "null")
    }

    /// A string member.
    fn string(self, message: &str) -> Result<Option<String>, Refusal> {
        let Some(json) = self.json() else {
            return Ok(None);
        };
        serde_json::from_str(json)
            .map(Some)
            .map_err(|_| badly_formed(message))
    }

    fn name(self, message: &str) -> Result<Option<Name>, Refusal> {
        let name = self.string(message)?.map(|text| Name::parse(&text));
        name.transpose().map_err(|_| badly_formed(message))
    }

    fn channel(self) -> Result<Option<Name>, Refusal> {
        let message = "Invalid presence channel";
        let name = self.string(message)?.map(|text| Name::parse_channel(&text));
        name.transpose().map_err(|_| badly_formed(message))
    }

    /// A number that is whole, not negative, and exact in JavaScript.
    fn count(self, message: &str) -> Result<Option<u64>, Refusal> {
        let Some(json) = self.json() else {
            return Ok(None);
        };
        count(json).map(Some).ok_or_else(|| badly_formed(message))
    }

    fn revision(self) -> Result<Option<Revision>, Refusal> {
        Ok(self.count("Invalid version")?.map(Revision))
    }
}

fn count(json: &str) -> Option<u64> {
    if let Ok(count) = json.parse::<u64>() {
        return (count <= SEQ_MAX + 1).then_some(count);
    }
    // JavaScript reads 2.0 and 2e0 as 2.
    let number: f64 = serde_json::from_str(json).ok()?;
    let whole = number.fract() == 0.0 && (0.0..=(SEQ_MAX + 1) as f64).contains(&number);
    whole.then_some(number as u64)
}

impl Fields<'_> {
    fn message(&self) -> Result<ClientMessage, Refusal> {
        let unknown = || badly_formed("Invalid or unknown message");
        let action = self
            .a
            .string("Invalid or unknown message")?
            .ok_or_else(unknown)?;
        // Whatever is asked, a name that is there must be one.
        self.c.name("Invalid collection")?;
        self.ch.channel()?;
        match action.as_str() {
            "hs" => self.handshake(),
            "pp" => Ok(ClientMessage::Ping),
            "f" => Ok(ClientMessage::Fetch {
                doc: self.doc()?,
                since: self.v.revision()?,
                min: self.min.revision()?,
            }),
            "s" => Ok(ClientMessage::Subscribe {
                doc: self.doc()?,
                since: self.v.revision()?,
                min: self.min.revision()?,
            }),
            "u" => Ok(ClientMessage::Unsubscribe { doc: self.doc()? }),
            "bf" => Ok(ClientMessage::BulkFetch(self.bulk()?)),
            "bs" => Ok(ClientMessage::BulkSubscribe(self.bulk()?)),
            "bu" => Ok(ClientMessage::BulkUnsubscribe(self.bulk()?)),
            "op" => Ok(ClientMessage::Submit {
                doc: self.doc()?,
                submit: self.submit()?,
            }),
            "nf" => Ok(ClientMessage::HistoryAt {
                doc: self.doc()?,
                revision: self.v.revision()?,
            }),
            "nt" => Ok(ClientMessage::HistoryAtTime {
                doc: self.doc()?,
                at_ms: self.timestamp()?,
            }),
            "p" => Ok(ClientMessage::Presence(self.presence()?)),
            "ps" => Ok(ClientMessage::PresenceSubscribe {
                channel: self.channel()?,
                seq: self.presence_seq()?,
            }),
            "pu" => Ok(ClientMessage::PresenceUnsubscribe {
                channel: self.channel()?,
                seq: self.presence_seq()?,
            }),
            "pr" => Ok(ClientMessage::PresenceRequest {
                channel: self.channel()?,
            }),
            "qf" | "qs" | "qu" => Err(self.query()),
            _ => Err(unknown()),
        }
    }

    /// What the reply repeats. A member too long to be somebody's is left out: no client waits on it.
    fn echo(&self) -> EchoedFields {
        const MEMBER_BYTES_MAX: usize = 6 * (2 * NAME_BYTES_MAX + 1) + 2;
        let mut members = String::with_capacity(96);
        let mut add = |name: &str, raw: Raw<'_>, bytes_max: usize| {
            if let Some(json) = raw
                .0
                .map(RawValue::get)
                .filter(|json| json.len() <= bytes_max)
            {
                for part in ["\"", name, "\":", json, ","] {
                    members.push_str(part);
                }
            }
            members.len()
        };
        add("a", self.a, MEMBER_BYTES_MAX);
        let mut plain = add("id", self.id, MEMBER_BYTES_MAX);
        add("c", self.c, MEMBER_BYTES_MAX);
        let named = add("d", self.d, MEMBER_BYTES_MAX);
        if self.id.json().is_none() {
            plain = named;
        }
        let bulk = add("b", self.b, BULK_BYTES_MAX);
        for (name, raw) in [
            ("ch", self.ch),
            ("seq", self.seq),
            ("src", self.src),
            ("v", self.v),
            ("pv", self.pv),
        ] {
            add(name, raw, MEMBER_BYTES_MAX);
        }
        EchoedFields {
            members: members.into(),
            plain,
            bulk,
        }
    }

    fn handshake(&self) -> Result<ClientMessage, Refusal> {
        for version in [self.protocol, self.protocol_minor] {
            let json = version.json().unwrap_or("0");
            if !json
                .starts_with(|first: char| first.is_ascii_digit() || first == '"' || first == '-')
            {
                return Err(badly_formed("Invalid protocol"));
            }
        }
        let client = self.id.string("Invalid id")?.filter(|id| !id.is_empty());
        Ok(ClientMessage::Handshake { client })
    }

    fn doc(&self) -> Result<DocId, Refusal> {
        let collection = self
            .c
            .name("Invalid collection")?
            .ok_or_else(|| badly_formed("Invalid collection"))?;
        let id = self
            .d
            .name("Invalid id")?
            .ok_or_else(|| badly_formed("Invalid id"))?;
        Ok(DocId { collection, id })
    }

    fn channel(&self) -> Result<Name, Refusal> {
        self.ch
            .channel()?
            .ok_or_else(|| badly_formed("Invalid presence channel"))
    }

    fn presence_seq(&self) -> Result<u64, Refusal> {
        Ok(self.seq.count("Invalid seq")?.unwrap_or(0))
    }

    fn bulk(&self) -> Result<BulkRequest, Refusal> {
        let invalid = || badly_formed("Invalid bulk subscribe data");
        let collection = self
            .c
            .name("Invalid collection")?
            .ok_or_else(|| badly_formed("Invalid collection"))?;
        let json = self.b.json().ok_or_else(invalid)?;
        let since = json.starts_with('{');
        let names: Vec<(String, Option<Revision>)> = if since {
            let map: BTreeMap<String, Raw<'_>> =
                serde_json::from_str(json).map_err(|_| invalid())?;
            map.into_iter()
                .map(|(name, version)| Ok((name, version.revision()?)))
                .collect::<Result<_, Refusal>>()?
        } else {
            let list: Vec<Raw<'_>> = serde_json::from_str(json).map_err(|_| invalid())?;
            list.into_iter()
                .map(|name| {
                    Ok((
                        name.string("Invalid id")?
                            .ok_or_else(|| badly_formed("Invalid id"))?,
                        None,
                    ))
                })
                .collect::<Result<_, Refusal>>()?
        };
        let mut docs = BTreeMap::new();
        for (name, version) in names {
            docs.insert(
                Name::parse(&name).map_err(|_| badly_formed("Invalid id"))?,
                version,
            );
        }
        if docs.len() > BULK_NAMES_MAX {
            return Err(Refusal::bulk_too_long(BULK_NAMES_MAX));
        }
        let first_beyond = docs.keys().nth(BULK_DOCS_MAX).cloned();
        let beyond = first_beyond.map(|first| docs.split_off(&first));
        Ok(BulkRequest {
            collection,
            docs,
            beyond: beyond.into_iter().flatten().map(|(name, _)| name).collect(),
            since,
        })
    }

    fn submit(&self) -> Result<SubmitRequest, Refusal> {
        let base = self.v.revision()?;
        let seq = self.seq.count("Invalid seq");
        let client = match self.src.json() {
            None => None,
            Some(json) => {
                let text: String = serde_json::from_str(json)
                    .map_err(|_| op_badly_formed("src must be a string"))?;
                Some(
                    ClientId::parse(&text)
                        .map_err(|_| op_badly_formed("src is not a client's id"))?,
                )
            }
        };
        let Some(seq) = seq? else {
            return Err(op_badly_formed("Both src and seq must be set together"));
        };
        if seq > SEQ_MAX {
            let message = "Connection seq has exceeded the max safe integer, maybe from being open for too long";
            return Err(Refusal::new(Code::SeqOverflow, message));
        }
        Ok(SubmitRequest {
            client,
            seq,
            base,
            proposal: self.proposal()?,
        })
    }

    fn proposal(&self) -> Result<Proposal, Refusal> {
        // A client that says several is taken at the first of these, as ShareDB does.
        if let Some(op) = self.op.0 {
            return Ok(Proposal::Edit(op.get().into()));
        }
        if let Some(json) = self.create.json() {
            return Ok(Proposal::Create(created(json)?));
        }
        match self.del.json() {
            Some("true") => Ok(Proposal::Delete),
            Some(_) => Err(op_badly_formed("del value must be true")),
            None => Err(op_badly_formed("Missing op, create, or del")),
        }
    }

    /// Why a query is not served.
    fn query(&self) -> Refusal {
        let results = self.r.json().map_or(Some(Vec::new()), |json| {
            serde_json::from_str::<Vec<(serde_json::Value, serde_json::Value)>>(json).ok()
        });
        if self
            .id
            .json()
            .is_none_or(|json| json.parse::<f64>().is_err())
        {
            badly_formed("Missing query ID")
        } else if results.is_none() {
            badly_formed("Invalid query results")
        } else {
            Refusal::new(Code::NotServed, "Queries are not served")
        }
    }

    fn timestamp(&self) -> Result<Option<u64>, Refusal> {
        let Some(json) = self.ts.json() else {
            return Ok(None);
        };
        let number: f64 =
            serde_json::from_str(json).map_err(|_| badly_formed("Invalid timestamp"))?;
        Ok(Some(number.max(0.0) as u64))
    }

    fn presence(&self) -> Result<Presence, Refusal> {
        let channel = self.channel()?;
        let id = self
            .id
            .name("Invalid presence ID")?
            .ok_or_else(|| badly_formed("Invalid presence ID"))?;
        let version = self.pv.count("Invalid presence version")?.unwrap_or(0);
        let value: Arc<str> = self.p.0.map_or("null", RawValue::get).into();
        if depth(&value) > PRESENCE_DEPTH_MAX {
            let message = format!("A presence's value is nested at most {PRESENCE_DEPTH_MAX} deep");
            return Err(badly_formed(&message));
        }
        let position = match (self.c.json(), self.d.json()) {
            (None, None) => None,
            _ => self.position()?,
        };
        Ok(Presence {
            channel,
            id,
            version,
            value,
            position,
        })
    }

    fn position(&self) -> Result<Option<Position>, Refusal> {
        let doc = self.doc()?;
        let Some(revision) = self.v.revision()? else {
            return Ok(None);
        };
        let Some(name) = self.t.string("Invalid type")? else {
            return Ok(None);
        };
        let kind = Kind::parse(&name)
            .ok_or_else(|| Refusal::new(Code::TypeNotRecognized, "Unknown type"))?;
        if kind != Kind::RichText {
            let message = format!("Type does not support presence: {name}");
            return Err(Refusal::new(Code::NoPresence, message));
        }
        Ok(Some(Position {
            doc,
            revision,
            kind,
        }))
    }
}

/// How deep a presence's value may be nested. Readers' programs walk it.
const PRESENCE_DEPTH_MAX: usize = 32;

/// How deep a JSON value is nested; 0: it holds no others.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut is_escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The longest `b` that a reply repeats: what a bulk request of the most documents with the longest names takes.
const BULK_BYTES_MAX: usize = 512 << 10;

#[derive(Deserialize)]
struct Created<'a> {
    #[serde(borrow, default)]
    r#type: Raw<'a>,
    #[serde(borrow, default)]
    data: Raw<'a>,
}

fn created(json: &str) -> Result<Content, Refusal> {
    let created: Created<'_> =
        serde_json::from_str(json).map_err(|_| op_badly_formed("Create data must be an object"))?;
    let missing = || op_badly_formed("Missing create type");
    let name = created.r#type.json().ok_or_else(missing)?;
    let name: String = serde_json::from_str(name).map_err(|_| missing())?;
    let kind =
        Kind::parse(&name).ok_or_else(|| Refusal::new(Code::TypeNotRecognized, "Unknown type"))?;
    Ok(Content::create(kind, created.data.json())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (String, &'static str, String) {
        match parse(text) {
            Err(BadRequest::Refused(echo, refusal)) => (
                echo.all().to_owned(),
                refusal.code.as_str(),
                refusal.message,
            ),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn form_is_checked_with_the_protocols_own_words() {
        for (text, message) in [
            (r#"{"a":"f","c":5,"d":"x"}"#, "Invalid collection"),
            (
                r#"{"a":"f","c":"constructor","d":"x"}"#,
                "Invalid collection",
            ),
            (r#"{"a":"f","d":"x"}"#, "Invalid collection"),
            (r#"{"a":"f","c":"x"}"#, "Invalid id"),
            (r#"{"a":"f","c":"x","d":"__proto__"}"#, "Invalid id"),
            (r#"{"a":"f","c":"x","d":"y","v":-1}"#, "Invalid version"),
            (r#"{"a":"f","c":"x","d":"y","v":1.5}"#, "Invalid version"),
            (r#"{"a":"f","c":"x","d":"y","v":1e308}"#, "Invalid version"),
            (r#"{"a":"f","c":"x","d":"y","v":"1"}"#, "Invalid version"),
            (
                r#"{"a":"bs","c":"x","b":null}"#,
                "Invalid bulk subscribe data",
            ),
            (r#"{"a":"bs","c":"x","b":["a",1]}"#, "Invalid id"),
            (r#"{"a":"bs","c":"x","b":{"a":-1}}"#, "Invalid version"),
            (r#"{"a":"hs","protocol":{}}"#, "Invalid protocol"),
            (r#"{"a":"hs","protocol":true}"#, "Invalid protocol"),
            (r#"{"a":"zz"}"#, "Invalid or unknown message"),
            (r#"{"a":5}"#, "Invalid or unknown message"),
            (r#"{}"#, "Invalid or unknown message"),
            (r#"{"a":"f","a":"f"}"#, "Invalid or unknown message"),
            (
                r#"{"a":"p","ch":"toString","id":"x"}"#,
                "Invalid presence channel",
            ),
            (r#"{"a":"p","ch":"x","id":1}"#, "Invalid presence ID"),
            (
                r#"{"a":"p","ch":"x","id":"y","pv":-1}"#,
                "Invalid presence version",
            ),
            (
                r#"{"a":"nt","c":"x","d":"y","ts":"1"}"#,
                "Invalid timestamp",
            ),
            (
                r#"{"a":"op","c":"x","d":"y","seq":"1","op":[]}"#,
                "Invalid seq",
            ),
        ] {
            let (_, code, said) = refused(text);
            assert_eq!(
                (code, said.as_str()),
                ("ERR_MESSAGE_BADLY_FORMED", message),
                "{text}"
            );
        }
    }

    #[test]
    fn submits_are_checked_with_the_protocols_own_words() {
        for (members, message) in [
            (r#""op":[]"#, "Both src and seq must be set together"),
            (r#""seq":1"#, "Missing op, create, or del"),
            (r#""seq":1,"del":1"#, "del value must be true"),
            (r#""seq":1,"create":5"#, "Create data must be an object"),
            (r#""seq":1,"create":{}"#, "Missing create type"),
            (r#""seq":1,"create":{"type":5}"#, "Missing create type"),
            (r#""seq":1,"src":5,"op":[]"#, "src must be a string"),
            (r#""seq":1,"src":"a b","op":[]"#, "src is not a client's id"),
        ] {
            let (echo, code, said) =
                refused(&format!(r#"{{"a":"op","c":"x","d":"y","v":1,{members}}}"#));
            assert_eq!(
                (code, said.as_str()),
                ("ERR_OT_OP_BADLY_FORMED", message),
                "{members}"
            );
            assert!(echo.starts_with(r#""a":"op","c":"x","d":"y","#), "{echo}");
        }
        let (_, code, _) =
            refused(r#"{"a":"op","c":"x","d":"y","v":1,"seq":9007199254740991,"op":[]}"#);
        assert_eq!(code, "ERR_CONNECTION_SEQ_INTEGER_OVERFLOW");
        let (_, code, _) =
            refused(r#"{"a":"op","c":"x","d":"y","seq":1,"create":{"type":"nope"}}"#);
        assert_eq!(code, "ERR_DOC_TYPE_NOT_RECOGNIZED");
    }

    #[test]
    fn what_is_no_object_cannot_be_answered() {
        for text in [
            "",
            "null",
            "5",
            "\"x\"",
            "[]",
            "nonsense",
            "{",
            "{\"a\":\"\\ud800\"",
        ] {
            assert!(
                matches!(parse(text), Err(BadRequest::NotAnObject)),
                "{text}"
            );
        }
    }

    #[test]
    fn numbers_are_read_as_javascript_reads_them() {
        for (json, read) in [
            ("0", Some(0)),
            ("2.0", Some(2)),
            ("2e1", Some(20)),
            ("-0", Some(0)),
            ("1e400", None),
        ] {
            assert_eq!(count(json), read, "{json}");
        }
    }

    #[test]
    fn presence_values_are_not_nested_deep() {
        for (json, nested) in [("1", 0), (r#"{"a":[1,{}]}"#, 3), (r#"["[[[\"[",[]]"#, 2)] {
            assert_eq!(depth(json), nested, "{json}");
        }
        let said = |depth: usize| {
            let value = "[".repeat(depth) + &"]".repeat(depth);
            parse(&format!(r#"{{"a":"p","ch":"x","id":"y","p":{value}}}"#))
        };
        assert!(said(32).is_ok());
        for depth in [33, 100, 4_000] {
            assert!(said(depth).is_err(), "{depth}");
        }
    }

    #[test]
    fn a_presence_gives_its_users_name_or_is_a_guests() {
        let ann = Some("Ann");
        for (user, value, signed) in [
            (
                ann,
                r#"{"name":"Bob","index":1}"#,
                r#"{"index":1,"name":"Ann"}"#,
            ),
            (ann, r#"{"name":{"first":"Bob"}}"#, r#"{"name":"Ann"}"#),
            (ann, r#"{"name":"Bob","guest":1}"#, r#"{"name":"Ann"}"#),
            (
                ann,
                r#"{"name":"Ann", "index":1}"#,
                r#"{"name":"Ann", "index":1}"#,
            ),
            (None, r#"{"name":"Ann"}"#, r#"{"guest":true,"name":"Ann"}"#),
            (
                None,
                r#"{"name":"Ann","guest":0}"#,
                r#"{"guest":true,"name":"Ann"}"#,
            ),
            (None, r#"{"guest":false}"#, r#"{"guest":false}"#),
            (ann, r#"{"index":1}"#, r#"{"index":1}"#),
            (ann, r#"["name"]"#, r#"["name"]"#),
            (ann, "null", "null"),
        ] {
            let text = format!(r#"{{"a":"p","ch":"x","id":"y","p":{value}}}"#);
            let Ok((ClientMessage::Presence(mut presence), _)) = parse(&text) else {
                panic!("{text}")
            };
            presence.sign(user);
            let value = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
            assert_eq!(value(&presence.value), value(signed), "{text}");
        }
    }

    #[test]
    fn bulk_is_a_list_of_names_or_a_map_to_revisions() {
        let Ok((ClientMessage::BulkSubscribe(bulk), _)) =
            parse(r#"{"a":"bs","c":"x","b":["b","a","b"]}"#)
        else {
            panic!("a bulk subscription");
        };
        assert_eq!((bulk.docs.len(), bulk.since), (2, false));
        let Ok((ClientMessage::BulkFetch(bulk), _)) =
            parse(r#"{"a":"bf","c":"x","b":{"a":3,"b":null}}"#)
        else {
            panic!("a bulk fetch");
        };
        let since: Vec<_> = bulk.docs.values().copied().collect();
        assert_eq!((since, bulk.since), (vec![Some(Revision(3)), None], true));
    }
}
