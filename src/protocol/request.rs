//! What clients ask, parsed. Every rule of form is here; whoever is handed a [`ClientMessage`] trusts it.

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
}

#[cfg(test)]
mod tests;
