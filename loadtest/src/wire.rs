//! The protocol's JSON, as a client writes and reads it.

use std::borrow::Cow;
use std::io::Write;

use anyhow::{Context, Result, bail};
use copydesk::client::ClientRequest;
use copydesk::id::{ClientId, DocId, UserId};
use copydesk::log::{Change, Entry, Epoch, Revision, SubmitId, write_content};
use copydesk::ot::{Content, Kind, Op};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The client's first message.
pub(crate) const HANDSHAKE: &[u8] = br#"{"a":"hs","id":null,"protocol":1,"protocolMinor":2}"#;

/// A parsed frame of the server.
#[derive(Debug)]
pub(crate) enum ServerFrame<'a> {
    /// Our id.
    Handshake(ClientId),
    /// The document at a revision.
    Shown {
        /// The revision.
        revision: Revision,
        /// Whether there is a document.
        exists: bool,
        /// Its data's JSON.
        data: Option<&'a str>,
    },
    /// The commits that were asked for have been sent.
    Done,
    /// A commit.
    Commit(Entry),
    /// An op without content: an ack if it is ours, else an entry that changes nothing.
    Bare(ClientId, u64, Revision),
    /// A refusal, of our submit if it has a count.
    Refused(Option<u64>, String),
    /// A message that is not used.
    Other,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    a: Cow<'a, str>,
    v: Option<u64>,
    #[serde(borrow)]
    src: Option<Cow<'a, str>>,
    seq: Option<u64>,
    #[serde(borrow)]
    op: Option<&'a RawValue>,
    #[serde(borrow)]
    create: Option<Typed<'a>>,
    del: Option<bool>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(default)]
    v: u64,
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Reads a frame about a document of this kind.
pub(crate) fn read(kind: Kind, text: &[u8]) -> Result<ServerFrame<'_>> {
    let fields: Fields<'_> = serde_json::from_slice(text).with_context(|| {
        format!(
            "read {}",
            String::from_utf8_lossy(&text[..text.len().min(200)])
        )
    })?;
    if let Some(refusal) = &fields.error {
        let said = format!("{} {}", refusal.code, refusal.message);
        let seq = fields.seq.filter(|_| fields.a == "op");
        return Ok(ServerFrame::Refused(seq, said.trim().to_owned()));
    }
    match (&*fields.a, fields.data) {
        ("hs", _) => {
            let id: Cow<'_, str> =
                serde_json::from_str(fields.id.context("a handshake without an id")?.get())?;
            Ok(ServerFrame::Handshake(ClientId::parse(&id)?))
        }
        ("s" | "f", Some(data)) => shown(kind, data.get()),
        ("s" | "f", None) => Ok(ServerFrame::Done),
        ("op", _) => op(kind, fields),
        _ => Ok(ServerFrame::Other),
    }
}

fn shown(kind: Kind, json: &str) -> Result<ServerFrame<'_>> {
    let typed: Typed<'_> = serde_json::from_str(json).context("read a snapshot")?;
    let exists = typed.r#type.is_some() || typed.data.is_some();
    if exists {
        check_kind(kind, typed.r#type.as_deref().unwrap_or("json0"))?;
    }
    Ok(ServerFrame::Shown {
        revision: Revision(typed.v),
        exists,
        data: typed.data.map(RawValue::get),
    })
}

fn check_kind(kind: Kind, name: &str) -> Result<()> {
    if Kind::parse(name) != Some(kind) {
        bail!("the document is of type {name}, not {}", kind.name());
    }
    Ok(())
}

fn op(kind: Kind, fields: Fields<'_>) -> Result<ServerFrame<'static>> {
    let (Some(client), Some(seq), Some(v)) = (fields.src, fields.seq, fields.v) else {
        bail!("an op without src, seq or v");
    };
    let (client, revision) = (ClientId::parse(&client)?, Revision(v).next());
    let change = if let Some(op) = fields.op {
        Change::Edit(Op::parse_logged(kind, op.get()).context("read an op")?)
    } else if let Some(created) = fields.create {
        check_kind(kind, created.r#type.as_deref().unwrap_or_default())?;
        Change::Create(Content::create(kind, created.data.map(RawValue::get))?)
    } else if fields.del == Some(true) {
        Change::Delete
    } else {
        return Ok(ServerFrame::Bare(client, seq, revision));
    };
    Ok(ServerFrame::Commit(entry(client, seq, revision, change)))
}

/// An entry as far as the wire tells it.
pub(crate) fn entry(client: ClientId, seq: u64, revision: Revision, change: Change) -> Entry {
    let id = SubmitId {
        author: UserId::anyone(),
        client,
        seq,
    };
    Entry {
        revision,
        epoch: Epoch(0),
        id,
        at_ms: 0,
        change,
    }
}

/// Writes what a client asks about a document.
pub(crate) fn write(doc: &DocId, client: &ClientId, request: &ClientRequest, out: &mut Vec<u8>) {
    out.clear();
    let (action, version) = match request {
        ClientRequest::Subscribe { since } => ("s", *since),
        ClientRequest::Fetch { since } => ("f", *since),
        ClientRequest::Submit { base, .. } => ("op", Some(*base)),
    };
    // Names are ours: they hold nothing that would have to be escaped.
    let _ = write!(
        out,
        "{{\"a\":\"{action}\",\"c\":\"{}\",\"d\":\"{}\"",
        doc.collection, doc.id
    );
    match version {
        Some(version) => drop(write!(out, ",\"v\":{version}")),
        None => out.extend_from_slice(b",\"v\":null"),
    }
    if let ClientRequest::Submit {
        seq,
        change,
        is_resend,
        ..
    } = request
    {
        if *is_resend {
            let _ = write!(out, ",\"src\":\"{}\"", client.as_str());
        }
        let _ = write!(out, ",\"seq\":{seq},\"x\":{{}}");
        write_change(change, out);
    }
    out.push(b'}');
}

fn write_change(change: &Change, out: &mut Vec<u8>) {
    match change {
        Change::Create(content) => {
            out.extend_from_slice(b",\"create\":");
            write_content(content, out);
        }
        Change::Edit(op) => {
            out.extend_from_slice(b",\"op\":");
            op.write_json(out);
        }
        Change::Delete => out.extend_from_slice(b",\"del\":true"),
        Change::Nothing => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_both_servers_are_read() {
        let read = |text| read(Kind::TextUnicode, str::as_bytes(text)).unwrap();
        let ours = r#"{"a":"op","c":"d","d":"1","v":2,"src":"A","seq":3,"op":[2,"AA"]}"#;
        assert!(matches!(read(ours), ServerFrame::Commit(entry) if entry.revision == Revision(3)));
        let ack = r#"{"src":"B","seq":1,"v":3,"a":"op","c":"d","d":"1"}"#;
        assert!(matches!(read(ack), ServerFrame::Bare(_, 1, Revision(4))));
        let shown = r#"{"data":{"v":1,"data":"h\u00e9","type":"http://sharejs.org/types/text-unicode"},"a":"s","c":"d","d":"x"}"#;
        let data = Some(r#""h\u00e9""#);
        assert!(
            matches!(read(shown), ServerFrame::Shown { revision: Revision(1), exists: true, data: d } if d == data)
        );
        let nothing = r#"{"data":{"v":0,"type":null},"a":"f","c":"d","d":"x"}"#;
        assert!(matches!(
            read(nothing),
            ServerFrame::Shown { exists: false, .. }
        ));
        assert!(matches!(
            read(r#"{"a":"s","c":"d","d":"x"}"#),
            ServerFrame::Done
        ));
        let refused = r#"{"a":"op","seq":7,"v":1,"error":{"code":"E","message":"no"}}"#;
        assert!(matches!(read(refused), ServerFrame::Refused(Some(7), said) if said == "E no"));
        assert!(matches!(
            read(r#"{"a":"init","protocol":1,"id":"A"}"#),
            ServerFrame::Other
        ));
    }

    #[test]
    fn wrong_type_is_told() {
        let shown = br#"{"data":{"v":1,"data":{}},"a":"s","c":"d","d":"x"}"#;
        let error = read(Kind::RichText, shown).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the document is of type json0, not rich-text"
        );
    }

    #[test]
    fn requests_are_written_as_the_protocol_has_them() {
        let doc = DocId::parse("d", "1").unwrap();
        let client = ClientId::parse("A").unwrap();
        let change = Change::Edit(Op::parse(Kind::TextUnicode, r#"[2,"AA"]"#).unwrap());
        let request = ClientRequest::Submit {
            seq: 3,
            base: Revision(2),
            change,
            is_resend: true,
        };
        let mut out = Vec::new();
        write(&doc, &client, &request, &mut out);
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            r#"{"a":"op","c":"d","d":"1","v":2,"src":"A","seq":3,"x":{},"op":[2,"AA"]}"#
        );
    }
}
