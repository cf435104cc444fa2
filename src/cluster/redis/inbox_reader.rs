//! The task that reads this node's inbox.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::interfaces::StreamsInterface;
use fred::types::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::connection::{ReconnectBackoff, RedisConnection, RedisConnector};
use super::{RedisShared, lock};
use crate::cluster::packing::unpack;
use crate::cluster::transport::{Delivery, add};
use crate::id::NodeId;

/// Field of an entry that names its writer.
pub(super) const FROM: &str = "f";

/// Field with packed messages.
pub(super) const MESSAGES: &str = "m";

/// Field of a ping: its send time in milliseconds since the transport was opened.
pub(super) const PING: &str = "p";

/// Entries per read.
const ENTRIES_MAX: u64 = 32;

/// How long a read blocks for the first entry. A reader that waits for ids of another stream notices as late.
const BLOCK: Duration = Duration::from_secs(1);

/// A position in a stream: the id of the last entry read. The default is before the first entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamPosition {
    time_ms: u64,
    number: u64,
}

impl StreamPosition {
    pub(super) fn parse(id: &str) -> Option<Self> {
        let (time_ms, number) = id.split_once('-')?;
        Some(Self {
            time_ms: time_ms.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

impl fmt::Display for StreamPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.time_ms, self.number)
    }
}

/// Reads the inbox and delivers its messages.
#[derive(Debug)]
pub(super) struct InboxReader {
    shared: Arc<RedisShared>,
    connector: RedisConnector,
    /// To the owner of the inbox. While it is full the reader waits and entries stay in Redis, up to the bound there.
    deliveries: mpsc::Sender<Delivery>,
}

/// A decoded entry.
#[derive(Debug, PartialEq, Eq)]
enum StreamEntry {
    /// Messages of this or another node.
    Messages(Delivery),
    /// A ping with its send time.
    Ping(Duration),
}

impl InboxReader {
    pub(super) fn new(
        shared: Arc<RedisShared>,
        connector: RedisConnector,
        deliveries: mpsc::Sender<Delivery>,
    ) -> Self {
        Self {
            shared,
            connector,
            deliveries,
        }
    }

    /// Connects and reads until the inbox is dropped.
    pub(super) async fn run(self) {
        let mut pause = ReconnectBackoff::default();
        while !self.deliveries.is_closed() {
            let (what, reason) = match self.connector.connect().await {
                Ok(connection) => ("read from redis", self.read(&connection, &mut pause).await),
                Err(reason) => ("connect to redis", reason),
            };
            debug!(%reason, what);
            self.shared.record_failure(what, reason);
            pause.wait().await;
        }
    }

    /// Reads until a failure; returns its reason.
    async fn read(&self, connection: &RedisConnection, pause: &mut ReconnectBackoff) -> String {
        // Start at the first entry: the server may be another one, with other ids. Every ping trims the entries that were
        // read, so few are read twice.
        *lock(&self.shared.position) = StreamPosition::default();
        let inbox = self.shared.inbox(self.shared.me);
        let limit = BLOCK + self.shared.settings.command_timeout();
        let block_ms = BLOCK.as_millis() as u64;
        while !self.deliveries.is_closed() {
            let position = lock(&self.shared.position).to_string();
            let read = connection.client.xread::<Value, _, _>(
                Some(ENTRIES_MAX),
                Some(block_ms),
                &inbox,
                position,
            );
            let answer = match timeout(limit, read).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return "no answer".to_owned(),
            };
            let Some(entries) = entries(answer) else {
                return "unexpected reply to XREAD".to_owned();
            };
            pause.reset();
            for (position, fields) in entries {
                self.deliver(fields).await;
                *lock(&self.shared.position) = position;
            }
        }
        "the inbox was dropped".to_owned()
    }

    async fn deliver(&self, fields: Vec<Value>) {
        let counters = &self.shared.counters;
        match parse(fields) {
            Some((_, StreamEntry::Messages(delivery))) => {
                // Counted first, so that the receiver sees it counted.
                add(&counters.received, delivery.messages.len());
                // If the inbox was dropped, `read` ends.
                let _ = self.deliveries.send(delivery).await;
            }
            Some((from, StreamEntry::Ping(sent))) if from == self.shared.me => {
                self.ping_returned(sent)
            }
            Some((_, StreamEntry::Ping(_))) | None => add(&counters.poison, 1),
        }
    }

    /// Takes a returned ping; an old one that is read again has no effect.
    fn ping_returned(&self, sent: Duration) {
        let Some(sent) = self.shared.started.checked_add(sent) else {
            return;
        };
        let newer = |heard: &mut Option<Instant>| {
            let news = sent <= Instant::now() && heard.is_none_or(|newest| newest < sent);
            if news {
                *heard = Some(sent);
            }
            news
        };
        self.shared.heard.send_if_modified(newer);
    }
}

/// The entries of a reply to XREAD for one stream: `[[stream, [[id, [field, value, ..]], ..]]]`, or null. Decoded by hand,
/// since fred's conversions fail on an empty reply and on a field name that is not UTF-8.
fn entries(answer: Value) -> Option<Vec<(StreamPosition, Vec<Value>)>> {
    if answer.is_null() {
        return Some(Vec::new());
    }
    let [stream] = <[Value; 1]>::try_from(list(answer)?).ok()?;
    let [_, entries] = <[Value; 2]>::try_from(list(stream)?).ok()?;
    let entry = |entry: Value| {
        let [id, fields] = <[Value; 2]>::try_from(list(entry)?).ok()?;
        Some((StreamPosition::parse(id.as_str()?.as_ref())?, list(fields)?))
    };
    list(entries)?.into_iter().map(entry).collect()
}

fn list(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

/// Decodes an entry into its writer and content; `None` if no node can have written it.
fn parse(fields: Vec<Value>) -> Option<(NodeId, StreamEntry)> {
    let [from_name, from, name, value] = <[Value; 4]>::try_from(fields).ok()?;
    if from_name.as_str()? != FROM {
        return None;
    }
    let from = NodeId(u64::from_str_radix(from.as_str()?.as_ref(), 16).ok()?);
    let entry = match name.as_str()?.as_ref() {
        MESSAGES => StreamEntry::Messages(Delivery {
            from,
            messages: unpack(value.convert::<Bytes>().ok()?)?,
        }),
        PING => StreamEntry::Ping(Duration::from_millis(value.as_str()?.parse().ok()?)),
        // Of a newer version: treated as a lost message.
        _ => return None,
    };
    Some((from, entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::packing::pack;

    fn texts(texts: &[&str]) -> Vec<Value> {
        texts.iter().map(|&text| Value::from(text)).collect()
    }

    #[test]
    fn positions_are_ordered_as_redis_orders_them() {
        let position = |id| StreamPosition::parse(id).unwrap();
        assert!(position("9-5") < position("10-0") && position("10-2") < position("10-11"));
        assert_eq!(position("1700000000000-7").to_string(), "1700000000000-7");
        assert_eq!(StreamPosition::default().to_string(), "0-0");
        for bad in ["", "1", "-", "1-", "x-1", "1-2-3"] {
            assert_eq!(StreamPosition::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn entries_of_nodes_are_decoded_and_others_are_refused() {
        let messages = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        let (chunk, _) = pack(&messages, 1_000).remove(0);
        let mut fields = texts(&["f", "00000000000000ff", "m"]);
        fields.push(Value::Bytes(chunk));
        let from = NodeId(255);
        let delivery = Delivery { from, messages };
        assert_eq!(parse(fields), Some((from, StreamEntry::Messages(delivery))));
        assert_eq!(
            parse(texts(&["f", "ff", "p", "1500"])),
            Some((from, StreamEntry::Ping(Duration::from_millis(1_500))))
        );
        for bad in [
            &[][..],
            &["f", "ff"],
            &["f", "ff", "m", "text"],
            &["f", "ff", "p", "-1"],
            &["f", "ff", "x", "1"],
            &["f", "no id", "p", "1"],
            &["g", "ff", "p", "1"],
            &["f", "ff", "p", "1", "m", "2"],
        ] {
            assert_eq!(parse(texts(bad)), None, "{bad:?}");
        }
        let bytes = Value::Bytes(Bytes::from_static(&[0xff, 0xfe]));
        assert_eq!(
            parse(vec![bytes.clone(), bytes.clone(), bytes.clone(), bytes]),
            None
        );
    }
}
