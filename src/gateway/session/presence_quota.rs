//! The presences and presence channels that a socket uses, and how many it may use.

use std::collections::BTreeMap;

use crate::doc::Presence;
use crate::id::Name;
use crate::protocol::{Code, Refusal};

/// Counts the presences and the presence channels of one socket. Pure.
///
/// A channel counts while the socket is subscribed to it or has a presence on it. A channel on which the socket published a
/// position counts for longer: positions reach the channel through the document, possibly after the presence has ended.
#[derive(Debug)]
pub(super) struct PresenceQuota {
    channels_max: usize,
    channels: BTreeMap<Name, ChannelUse>,
    /// The number of presences on all channels.
    count: usize,
    /// The bytes of their values.
    bytes: usize,
}

/// What a socket uses a channel for.
#[derive(Debug, Default)]
struct ChannelUse {
    is_subscribed: bool,
    /// The size of each presence's value in bytes.
    presences: BTreeMap<Name, usize>,
    /// Whether a position was published.
    has_position: bool,
}

/// How many presences one socket may have. The registry holds each until its socket ends; an editor has one or two.
const PRESENCES_MAX: usize = 1_000;

/// How many bytes the values of one socket's presences may have together. The registry holds each and sends it to all
/// subscribers.
const PRESENCES_BYTES_MAX: usize = 256 << 10;

impl PresenceQuota {
    /// Nothing is used yet, and at most `channels_max` channels may be.
    pub(super) fn new(channels_max: usize) -> Self {
        Self {
            channels_max,
            channels: BTreeMap::new(),
            count: 0,
            bytes: 0,
        }
    }

    /// Whether the socket has no presences.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The channels in use.
    pub(super) fn channels(&self) -> impl Iterator<Item = &Name> + Clone {
        self.channels.keys()
    }

    /// Whether the socket has this presence.
    pub(super) fn contains(&self, channel: &Name, id: &Name) -> bool {
        let used = self.channels.get(channel);
        used.is_some_and(|used| used.presences.contains_key(id))
    }

    /// Counts a subscription. `is_published` tells whether the registry holds a presence of the socket on a channel.
    ///
    /// # Errors
    /// If the socket would use too many channels.
    pub(super) fn subscribe(
        &mut self,
        channel: &Name,
        is_published: impl Fn(&Name) -> bool,
    ) -> Result<(), Refusal> {
        self.use_channel(channel, is_published)?.is_subscribed = true;
        Ok(())
    }

    /// Ends a subscription.
    pub(super) fn unsubscribe(&mut self, channel: &Name) {
        if let Some(used) = self.channels.get_mut(channel) {
            used.is_subscribed = false;
        }
        self.remove_unused(channel);
    }

    /// Counts a presence's new value, or its end. `is_published` as for [`subscribe`](Self::subscribe).
    ///
    /// # Errors
    /// If the socket would have too many presences, too many bytes of them, or would use too many channels.
    pub(super) fn update(
        &mut self,
        presence: &Presence,
        is_published: impl Fn(&Name) -> bool,
    ) -> Result<(), Refusal> {
        let (channel, id) = (&presence.channel, &presence.id);
        if presence.is_gone() {
            self.remove(channel, id);
            return Ok(());
        }
        // Check the numbers as they would be.
        let used = self.channels.get(channel);
        let before = used.and_then(|used| used.presences.get(id)).copied();
        let bytes = presence.value.len();
        let all_bytes = self.bytes - before.unwrap_or(0) + bytes;
        if all_bytes > PRESENCES_BYTES_MAX || (before.is_none() && self.count >= PRESENCES_MAX) {
            let message = format!(
                "A connection has at most {PRESENCES_MAX} presences, of at most {PRESENCES_BYTES_MAX} bytes together"
            );
            return Err(Refusal::new(Code::TooMany, message));
        }
        // Count the presence.
        let used = self.use_channel(channel, is_published)?;
        used.presences.insert(id.clone(), bytes);
        used.has_position |= presence.position.is_some();
        self.count += usize::from(before.is_none());
        self.bytes = all_bytes;
        Ok(())
    }

    fn remove(&mut self, channel: &Name, id: &Name) {
        let used = self.channels.get_mut(channel);
        if let Some(bytes) = used.and_then(|used| used.presences.remove(id)) {
            self.count -= 1;
            self.bytes -= bytes;
        }
        self.remove_unused(channel);
    }

    fn use_channel(
        &mut self,
        channel: &Name,
        is_published: impl Fn(&Name) -> bool,
    ) -> Result<&mut ChannelUse, Refusal> {
        let channels_max = self.channels_max;
        let is_full = |channels: &BTreeMap<_, _>| {
            channels.len() >= channels_max && !channels.contains_key(channel)
        };
        if is_full(&self.channels) {
            // The last position on a channel has been published and has ended if the registry holds none.
            self.channels.retain(|name, used| {
                used.is_subscribed || !used.presences.is_empty() || is_published(name)
            });
        }
        if is_full(&self.channels) {
            let message = format!("A connection uses at most {channels_max} presence channels");
            return Err(Refusal::new(Code::TooMany, message));
        }
        Ok(self.channels.entry(channel.clone()).or_default())
    }

    fn remove_unused(&mut self, channel: &Name) {
        let is_unused = |used: &ChannelUse| {
            !used.is_subscribed && !used.has_position && used.presences.is_empty()
        };
        if self.channels.get(channel).is_some_and(is_unused) {
            self.channels.remove(channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{ClientMessage, parse};

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn presence(channel: &str, id: &str, value: &str) -> Presence {
        position(channel, id, value, "")
    }

    fn position(channel: &str, id: &str, value: &str, doc: &str) -> Presence {
        let text = format!(r#"{{"a":"p","ch":"{channel}","id":"{id}","p":{value}{doc}}}"#);
        let Ok((ClientMessage::Presence(presence), _)) = parse(&text) else {
            panic!("{text}")
        };
        presence
    }

    const IN_DOC: &str = r#","c":"c","d":"d","v":1,"t":"rich-text""#;

    #[test]
    fn channel_is_in_use_until_its_last_use_ends() {
        let mut quota = PresenceQuota::new(1);
        quota.subscribe(&name("a"), |_| false).unwrap();
        quota.update(&presence("a", "x", "1"), |_| false).unwrap();
        assert!(quota.subscribe(&name("b"), |_| false).is_err());
        quota.unsubscribe(&name("a"));
        assert!(quota.contains(&name("a"), &name("x")) && !quota.is_empty());
        assert!(quota.subscribe(&name("b"), |_| false).is_err());
        quota
            .update(&presence("a", "x", "null"), |_| false)
            .unwrap();
        assert!(quota.is_empty() && quota.channels().next().is_none());
        quota.subscribe(&name("b"), |_| false).unwrap();
    }

    #[test]
    fn channel_of_a_position_counts_until_the_registry_holds_none() {
        let mut quota = PresenceQuota::new(1);
        let value = |value| position("a", "x", value, IN_DOC);
        quota.update(&value("1"), |_| false).unwrap();
        quota.update(&value("null"), |_| false).unwrap();
        assert!(quota.is_empty());
        assert!(quota.subscribe(&name("b"), |_| true).is_err());
        quota.subscribe(&name("b"), |_| false).unwrap();
    }

    #[test]
    fn number_and_bytes_of_presences_are_limited() {
        let mut quota = PresenceQuota::new(2);
        for id in 0..PRESENCES_MAX {
            let one = presence("a", &id.to_string(), "1");
            quota.update(&one, |_| false).unwrap();
        }
        assert!(quota.update(&presence("a", "x", "1"), |_| false).is_err());
        quota.update(&presence("a", "7", "2"), |_| false).unwrap();
        quota
            .update(&presence("a", "7", "null"), |_| false)
            .unwrap();
        let half = format!("\"{}\"", "x".repeat(PRESENCES_BYTES_MAX / 2));
        quota.update(&presence("a", "x", &half), |_| false).unwrap();
        quota
            .update(&presence("a", "8", "null"), |_| false)
            .unwrap();
        assert!(quota.update(&presence("a", "y", &half), |_| false).is_err());
        // The new value of a presence replaces the old one.
        quota.update(&presence("a", "x", &half), |_| false).unwrap();
    }
}
