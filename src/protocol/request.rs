//! Parses the requests of clients. All rules about their form are checked here: a [`ClientMessage`] is valid.

mod bulk;
mod echo;
mod message;
mod presence;
mod submit;

use serde::Deserialize;
use serde_json::value::RawValue;

pub use self::bulk::BulkRequest;
pub use self::echo::EchoedFields;
pub use self::message::ClientMessage;
pub use self::submit::SubmitRequest;
use super::refusal::{Code, Refusal};
use crate::id::{DocId, Name};
use crate::log::Revision;

/// The largest `seq`: JavaScript's largest safe integer, less one.
pub const SEQ_MAX: u64 = (1 << 53) - 2;

/// A request that was rejected for its form.
#[derive(Debug)]
pub enum BadRequest {
    /// The members that the error reply repeats, and the error.
    Refused(EchoedFields, Refusal),
    /// Not a JSON object: it cannot be answered, and the socket is closed.
    NotAnObject,
}

/// Parses the text of a message. Also returns the members that its reply repeats.
///
/// # Errors
/// If the form is invalid; the message is the one that ShareDB's server uses.
pub fn parse(text: &str) -> Result<(ClientMessage, EchoedFields), BadRequest> {
    if !text.trim_start().starts_with('{') {
        return Err(BadRequest::NotAnObject);
    }
    let fields: Fields<'_> = match serde_json::from_str(text) {
        Ok(fields) => fields,
        // An object with a duplicate member: the JSON is valid and the request is ambiguous.
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

/// The members that a reply repeats; `None` if `text` is not an object with an action.
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

/// The members of a request as JSON. The action `a` decides which of them are parsed. Unknown members are ignored.
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

/// The JSON of a member; `None` if it is absent.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(transparent)]
struct Raw<'a>(#[serde(borrow)] Option<&'a RawValue>);

impl<'a> Raw<'a> {
    /// The JSON of the member, unless it is absent or `null`.
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

    /// A whole number from 0 to JavaScript's largest safe integer.
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
    // For JavaScript 2.0 and 2e0 are the integer 2.
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
        // For every action: a collection or channel that is present must be valid.
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

    /// The error of a query request: queries are not implemented.
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
}

#[cfg(test)]
mod tests;
