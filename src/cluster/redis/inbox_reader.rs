//! The one task that reads: the own inbox, entry after entry.

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

/// The field of an entry that says who wrote it.
pub(super) const FROM: &str = "f";

/// The field with the messages, packed.
pub(super) const MESSAGES: &str = "m";

/// The field of a ping: when it was sent, in milliseconds since the link was opened.
pub(super) const PING: &str = "p";

/// How many entries one read may bring.
const ENTRIES_MAX: u64 = 32;

/// How long a read waits for the first entry. A reader that waits for ids that will never come finds out as late.
const BLOCK: Duration = Duration::from_secs(1);

/// A place in a stream: the id of the last entry that was read. The first place is before all of them.
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

/// Reads the inbox and delivers what is in it.
#[derive(Debug)]
pub(super) struct InboxReader {
    link: Arc<RedisShared>,
    connector: RedisConnector,
    /// To whoever holds the inbox. When it is full the reader waits, and the rest stays in Redis, up to the bound there.
    deliveries: mpsc::Sender<Delivery>,
}

/// What an entry says.
#[derive(Debug, PartialEq, Eq)]
enum StreamEntry {
    /// What this or another node sent.
    Messages(Delivery),
    /// This node's own ping.
    Ping(Duration),
}

impl InboxReader {
    pub(super) fn new(
        link: Arc<RedisShared>,
        connector: RedisConnector,
        deliveries: mpsc::Sender<Delivery>,
    ) -> Self {
        Self {
            link,
            connector,
            deliveries,
        }
    }

    /// Connects and reads, again and again, while somebody takes what comes.
    pub(super) async fn run(self) {
        let mut pause = ReconnectBackoff::default();
        while !self.deliveries.is_closed() {
            let (what, reason) = match self.connector.connect().await {
                Ok(connection) => ("read from redis", self.read(&connection, &mut pause).await),
                Err(reason) => ("connect to redis", reason),
            };
            debug!(%reason, what);
            self.link.note(what, reason);
            pause.wait().await;
        }
    }

    /// Reads until it fails; why it did.
    async fn read(&self, connection: &RedisConnection, pause: &mut ReconnectBackoff) -> String {
        // From the first entry that is there: the server may be another, with other ids. What was read is cleared away
        // with every ping, so few come twice.
        *lock(&self.link.place) = StreamPosition::default();
        let inbox = self.link.inbox(self.link.me);
        let limit = BLOCK + self.link.settings.command_timeout();
        let block_ms = BLOCK.as_millis() as u64;
        while !self.deliveries.is_closed() {
            let place = lock(&self.link.place).to_string();
            let read = connection.client.xread::<Value, _, _>(
                Some(ENTRIES_MAX),
                Some(block_ms),
                &inbox,
                place,
            );
            let answer = match timeout(limit, read).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return "no answer".to_owned(),
            };
            let Some(entries) = entries(answer) else {
                return "an answer that is none".to_owned();
            };
            pause.reset();
            for (place, fields) in entries {
                self.deliver(fields).await;
                *lock(&self.link.place) = place;
            }
        }
        "nobody takes what comes".to_owned()
    }

    async fn deliver(&self, fields: Vec<Value>) {
        let counters = &self.link.counters;
        match parse(fields) {
            Some((_, StreamEntry::Messages(delivery))) => {
                // Before: whoever receives it sees it counted.
                add(&counters.received, delivery.messages.len());
                // Where nobody takes it any more, `read` ends.
                let _ = self.deliveries.send(delivery).await;
            }
            Some((from, StreamEntry::Ping(sent))) if from == self.link.me => self.heard(sent),
            Some((_, StreamEntry::Ping(_))) | None => add(&counters.poison, 1),
        }
    }

    /// This node has heard itself. An old ping, read again, is no news.
    fn heard(&self, sent: Duration) {
        let Some(sent) = self.link.started.checked_add(sent) else {
            return;
        };
        let newer = |heard: &mut Option<Instant>| {
            let news = sent <= Instant::now() && heard.is_none_or(|newest| newest < sent);
            if news {
                *heard = Some(sent);
            }
            news
        };
        self.link.heard.send_if_modified(newer);
    }
}

/// The entries of an answer to XREAD for one stream: `[[stream, [[id, [field, value, ..]], ..]]]`, or nothing. Taken apart
/// by hand: fred's own ways fail on an empty answer, and on a field's name that is no text.
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

/// What an entry says, and who says it; `None` when no node can have written it.
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
        // A newer node's: like a message that was lost.
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
    fn places_are_ordered_as_redis_orders_them() {
        let place = |id| StreamPosition::parse(id).unwrap();
        assert!(place("9-5") < place("10-0") && place("10-2") < place("10-11"));
        assert_eq!(place("1700000000000-7").to_string(), "1700000000000-7");
        assert_eq!(StreamPosition::default().to_string(), "0-0");
        for bad in ["", "1", "-", "1-", "x-1", "1-2-3"] {
            assert_eq!(StreamPosition::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn entries_that_nodes_write_are_understood_and_others_are_poison() {
        let messages = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        let (piece, _) = pack(&messages, 1_000).remove(0);
        let mut fields = texts(&["f", "00000000000000ff", "m"]);
        fields.push(Value::Bytes(piece));
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
            &["f", "nobody", "p", "1"],
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
