//! Encodes replies and commits, as JSON or as whole WebSocket frames.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::frame::Frames;
use super::refusal::Refusal;
use super::request::EchoedFields;
use crate::doc::{EncodedSnapshot, Presence};
use crate::id::{ClientId, DocId, Name};
use crate::log::{Change, Entry, Snapshot, write_content};

/// Encodes a snapshot as `{"v":…,"data":…,"type":…}`.
#[must_use]
pub fn encode_snapshot(snapshot: &Snapshot) -> EncodedSnapshot {
    encode(snapshot, None)
}

/// As [`encode_snapshot`], with a member `notice` that says why this may not be the newest state of the document. Clients that
/// do not know the member ignore it.
#[must_use]
pub fn encode_snapshot_with_notice(snapshot: &Snapshot, notice: &Refusal) -> EncodedSnapshot {
    encode(snapshot, Some(notice))
}

fn encode(snapshot: &Snapshot, notice: Option<&Refusal>) -> EncodedSnapshot {
    let size = snapshot
        .content
        .as_ref()
        .map_or(0, |content| content.size_bytes());
    let notice_size = notice.map_or(0, |notice| notice.message.len() + 64);
    let mut json = Vec::with_capacity(size + size / 16 + 96 + notice_size);
    json.extend_from_slice(b"{\"v\":");
    write_number(snapshot.revision.0, &mut json);
    let mut content_range = 0..0;
    match &snapshot.content {
        Some(content) => {
            json.extend_from_slice(b",\"data\":");
            content_range.start = json.len();
            content.write_json(&mut json);
            content_range.end = json.len();
            json.extend_from_slice(b",\"type\":\"");
            json.extend_from_slice(content.kind().uri().as_bytes());
            json.push(b'"');
        }
        None => json.extend_from_slice(b",\"type\":null"),
    }
    if let Some(notice) = notice {
        json.extend_from_slice(b",\"notice\":");
        write_refusal(notice, &mut json);
    }
    json.push(b'}');
    let kind = snapshot.content.as_ref().map(crate::ot::Content::kind);
    EncodedSnapshot::new(snapshot.revision, kind, json.into(), content_range)
}

/// `init` or `hs`: the id of the client and the version of the protocol.
#[must_use]
pub fn handshake(action: &str, client: &ClientId) -> Bytes {
    let client = client.as_str();
    let json = format!(
        "{{\"a\":\"{action}\",\"protocol\":1,\"protocolMinor\":2,\"id\":\"{client}\",\
         \"type\":\"http://sharejs.org/types/JSONv0\"}}"
    );
    Frames::one(json.as_bytes())
}

/// The error reply to a request.
#[must_use]
pub fn error(echo: &EchoedFields, refusal: &Refusal) -> Bytes {
    let mut json = format!("{{{}\"error\":", echo.all()).into_bytes();
    write_refusal(refusal, &mut json);
    json.push(b'}');
    Frames::one(&json)
}

fn write_refusal(refusal: &Refusal, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"code\":\"");
    out.extend_from_slice(refusal.code.as_str().as_bytes());
    out.extend_from_slice(b"\",\"message\":");
    write_string(&refusal.message, out);
    if refusal.will_pass() {
        out.extend_from_slice(b",\"retryAfterMs\":");
        write_number(RETRY_AFTER_MS, out);
    }
    out.push(b'}');
}

/// The pause before a request that failed for a temporary cause may be repeated.
const RETRY_AFTER_MS: u64 = 1_000;

/// `slowed`: the client exceeds a rate limit, and the server does not read from its socket for `wait`. An extension: sent only
/// to clients that asked for it at the handshake, because the ShareDB client logs unknown messages.
#[must_use]
pub fn slowed(wait: Duration) -> Bytes {
    let json = format!(
        "{{\"a\":\"slowed\",\"code\":\"ERR_BUSY\",\"retryAfterMs\":{}}}",
        wait.as_millis()
    );
    Frames::one(json.as_bytes())
}

/// The success of a request that returns no data.
#[must_use]
pub fn done(echo: &EchoedFields) -> Bytes {
    let members = echo.with_bulk();
    Frames::one(format!("{{{}}}", members.trim_end_matches(',')).as_bytes())
}

/// The success of a fetch or subscription, with a snapshot: one frame in pieces, which shares the snapshot's memory.
#[must_use]
pub fn snapshot_reply(echo: &EchoedFields, shown: &EncodedSnapshot) -> Vec<Bytes> {
    let head = format!("{{{}\"data\":", echo.plain());
    Frames::of_pieces([head.into(), shown.json().clone(), Bytes::from_static(b"}")])
}

/// The success of a bulk request: for each document its snapshot or an error. For a document of which the client named a
/// revision the snapshot is the empty one at revision zero: the client ignores it, because it is older than its own.
///
/// Errors are last, because the ShareDB client stops reading at the first error that its application does not handle. One
/// frame in pieces, which shares the snapshots' memory.
#[must_use]
pub fn bulk_reply(
    echo: &EchoedFields,
    shown: &BTreeMap<Name, Option<Arc<EncodedSnapshot>>>,
    refused: &BTreeMap<Name, Refusal>,
) -> Vec<Bytes> {
    let mut pieces = Vec::with_capacity(2 * shown.len() + 1);
    let mut json = format!("{{{}\"data\":{{", echo.plain()).into_bytes();
    for (name, shown) in shown {
        write_string(name.as_str(), &mut json);
        json.push(b':');
        match shown {
            Some(shown) => {
                pieces.push(Bytes::from(std::mem::take(&mut json)));
                pieces.push(shown.json().clone());
            }
            None => json.extend_from_slice(b"{\"v\":0,\"type\":null}"),
        }
        json.push(b',');
    }
    for (name, refusal) in refused {
        write_string(name.as_str(), &mut json);
        json.extend_from_slice(b":{\"error\":");
        write_refusal(refusal, &mut json);
        json.extend_from_slice(b"},");
    }
    json.pop_if(|last| *last == b',');
    json.extend_from_slice(b"}}");
    pieces.push(json.into());
    Frames::of_pieces(pieces)
}

/// The document at an earlier revision or time: the answer to `nf` and `nt`. One frame in pieces, which shares the snapshot's
/// memory.
#[must_use]
pub fn history(echo: &EchoedFields, shown: &EncodedSnapshot) -> Vec<Bytes> {
    let mut head = format!("{{{}\"v\":{},\"type\":", echo.plain(), shown.revision).into_bytes();
    match shown.kind {
        Some(kind) => {
            write_string(kind.uri(), &mut head);
            head.extend_from_slice(b",\"data\":");
        }
        None => head.extend_from_slice(b"null"),
    }
    let end = Bytes::from_static(b",\"m\":null}");
    Frames::of_pieces([head.into(), shown.content_json(), end])
}

/// Adds a commit to `frames`. Subscribers receive it as an op, and its author as the ack. `client` is the id of the author's
/// client as the recipient knows it: for the author itself without the mark of ids that another server issued.
pub fn commit(
    doc: &DocId,
    entry: &Entry,
    client: &str,
    frames: &mut Frames,
    scratch: &mut Vec<u8>,
) {
    scratch.clear();
    scratch.extend_from_slice(b"{\"a\":\"op\",\"c\":");
    write_string(doc.collection.as_str(), scratch);
    scratch.extend_from_slice(b",\"d\":");
    write_string(doc.id.as_str(), scratch);
    scratch.extend_from_slice(b",\"v\":");
    write_number(entry.revision.before().0, scratch);
    scratch.extend_from_slice(b",\"src\":\"");
    scratch.extend_from_slice(client.as_bytes());
    scratch.extend_from_slice(b"\",\"seq\":");
    write_number(entry.id.seq, scratch);
    match &entry.change {
        Change::Create(content) => {
            scratch.extend_from_slice(b",\"create\":");
            write_content(content, scratch);
        }
        Change::Edit(op) => {
            scratch.extend_from_slice(b",\"op\":");
            op.write_json(scratch);
        }
        Change::Delete => scratch.extend_from_slice(b",\"del\":true"),
        Change::Nothing => {}
    }
    scratch.push(b'}');
    frames.push(scratch);
}

/// The value of a presence. Subscribers of the channel receive it as an update, and its publisher as the ack.
#[must_use]
pub fn presence(client: &ClientId, presence: &Presence) -> Bytes {
    let mut json = b"{\"a\":\"p\",\"ch\":".to_vec();
    write_string(presence.channel.as_str(), &mut json);
    json.extend_from_slice(b",\"src\":\"");
    json.extend_from_slice(client.as_str().as_bytes());
    json.extend_from_slice(b"\",\"id\":");
    write_string(presence.id.as_str(), &mut json);
    json.extend_from_slice(b",\"p\":");
    json.extend_from_slice(presence.value.as_bytes());
    json.extend_from_slice(b",\"pv\":");
    write_number(presence.version, &mut json);
    if let Some(position) = &presence.position {
        json.extend_from_slice(b",\"c\":");
        write_string(position.doc.collection.as_str(), &mut json);
        json.extend_from_slice(b",\"d\":");
        write_string(position.doc.id.as_str(), &mut json);
        json.extend_from_slice(b",\"v\":");
        write_number(position.revision.0, &mut json);
        json.extend_from_slice(b",\"t\":\"");
        json.extend_from_slice(position.kind.uri().as_bytes());
        json.push(b'"');
    }
    json.push(b'}');
    Frames::one(&json)
}

/// The success of `ps` or `pu`.
#[must_use]
pub fn presence_subscribed(action: &str, channel: &Name, seq: u64) -> Bytes {
    let mut json = b"{\"ch\":".to_vec();
    write_string(channel.as_str(), &mut json);
    json.extend_from_slice(b",\"seq\":");
    write_number(seq, &mut json);
    json.extend_from_slice(b",\"a\":\"");
    json.extend_from_slice(action.as_bytes());
    json.extend_from_slice(b"\"}");
    Frames::one(&json)
}

/// `pr`: asks a subscriber of a channel to publish its presences again.
#[must_use]
pub fn presence_requested(channel: &Name) -> Bytes {
    let mut json = b"{\"a\":\"pr\",\"ch\":".to_vec();
    write_string(channel.as_str(), &mut json);
    json.push(b'}');
    Frames::one(&json)
}

/// `rights`: the new role of the user for a document; `null` if it was withdrawn. An extension: sent only to clients that asked
/// for it at the handshake.
#[must_use]
pub fn rights(doc: &DocId, role: Option<&str>) -> Bytes {
    let mut json = b"{\"a\":\"rights\",\"c\":".to_vec();
    write_string(doc.collection.as_str(), &mut json);
    json.extend_from_slice(b",\"d\":");
    write_string(doc.id.as_str(), &mut json);
    json.extend_from_slice(b",\"role\":");
    match role {
        Some(role) => write_string(role, &mut json),
        None => json.extend_from_slice(b"null"),
    }
    json.push(b'}');
    Frames::one(&json)
}

fn write_number(number: u64, out: &mut Vec<u8>) {
    use std::io::Write;
    write!(out, "{number}").expect("a vector takes what is written");
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(&mut *out, text).expect("a string is JSON, and a vector takes it");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{ClientMessage, parse};

    fn payload(frame: &Bytes) -> &str {
        let skip = match frame[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        std::str::from_utf8(&frame[skip..]).unwrap()
    }

    fn echo_of(text: &str) -> EchoedFields {
        parse(text).unwrap().1
    }

    #[test]
    fn replies_repeat_the_members_that_identify_the_request() {
        let echo = echo_of(r#"{"a":"s","c":"x","d":"y","v":null}"#);
        assert_eq!(payload(&done(&echo)), r#"{"a":"s","c":"x","d":"y"}"#);
        let shown = encode_snapshot(&Snapshot::default());
        let reply = snapshot_reply(&echo, &shown);
        assert_eq!(
            payload(&reply.concat().into()),
            r#"{"a":"s","c":"x","d":"y","data":{"v":0,"type":null}}"#
        );
        let refusal = Refusal::does_not_exist();
        assert_eq!(
            payload(&error(&echo, &refusal)),
            r#"{"a":"s","c":"x","d":"y","error":{"code":"ERR_DOC_DOES_NOT_EXIST","message":"Document does not exist"}}"#
        );
        let echo = echo_of(r#"{"a":"bs","c":"x","b":{"a":2}}"#);
        assert_eq!(payload(&done(&echo)), r#"{"a":"bs","c":"x","b":{"a":2}}"#);
        let echo = echo_of(r#"{"a":"nf","id":7,"c":"x","d":"y","v":1}"#);
        assert_eq!(
            payload(&history(&echo, &shown).concat().into()),
            r#"{"a":"nf","id":7,"v":0,"type":null,"m":null}"#
        );
    }

    #[test]
    fn presence_is_sent_with_the_members_that_it_was_published_with() {
        let text = r#"{"a":"p","ch":"d.1","id":"pa","p":{"index":2},"pv":1,"c":"d","d":"1","v":3,"t":"rich-text"}"#;
        let Ok((ClientMessage::Presence(said), _)) = parse(text) else {
            panic!("a presence")
        };
        let client = ClientId::parse("ann").unwrap();
        assert_eq!(
            payload(&presence(&client, &said)),
            r#"{"a":"p","ch":"d.1","src":"ann","id":"pa","p":{"index":2},"pv":1,"c":"d","d":"1","v":3,"t":"http://sharejs.org/types/rich-text/v1"}"#
        );
    }
}
