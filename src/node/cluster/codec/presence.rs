//! Messages about presence channels: `PresenceMessage`.

use serde::{Deserialize, Serialize};

use super::{
    MessageDecodeError, Wire, WireDoc, decode_channel, decode_client, decode_doc, decode_name,
    doc_names, invalid,
};
use crate::doc::{Position, Presence};
use crate::id::{ClientId, Name};
use crate::log::Revision;
use crate::node::cluster::message::{PresenceDigest, PresenceMessage};
use crate::ot::Kind;

type WireValue<'a> = (&'a str, &'a str, u64);

#[derive(Serialize, Deserialize)]
pub(super) struct WireDigest<'a> {
    channel: &'a str,
    #[serde(borrow)]
    values: Vec<WireValue<'a>>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct WirePresence<'a> {
    client: &'a str,
    channel: &'a str,
    id: &'a str,
    version: u64,
    value: &'a str,
    #[serde(borrow)]
    position: Option<(WireDoc<'a>, Revision, &'a str)>,
}

impl<'a> Wire<'a> {
    pub(super) fn of_presence(message: &'a PresenceMessage) -> Self {
        match message {
            PresenceMessage::Refresh {
                subscribed,
                digests,
            } => Self::Refresh(
                subscribed.iter().map(Name::as_str).collect(),
                digests.iter().map(WireDigest::of).collect(),
            ),
            PresenceMessage::Digest(node, digest) => Self::Digest(node.0, WireDigest::of(digest)),
            PresenceMessage::Value(node, client, presence) => {
                let position = presence.position.as_ref();
                let position = position.map(|it| (doc_names(&it.doc), it.revision, it.kind.uri()));
                let wire = WirePresence {
                    client: client.as_str(),
                    channel: presence.channel.as_str(),
                    id: presence.id.as_str(),
                    version: presence.version,
                    value: &presence.value,
                    position,
                };
                Self::Value(node.0, wire)
            }
            PresenceMessage::RepeatRequest(node, channel) => {
                Self::RepeatRequest(node.0, channel.as_str())
            }
        }
    }
}

impl<'a> WireDigest<'a> {
    pub(super) fn of(digest: &'a PresenceDigest) -> Self {
        let values = digest.values.iter();
        Self {
            channel: digest.channel.as_str(),
            values: values
                .map(|(client, id, version)| (client.as_str(), id.as_str(), *version))
                .collect(),
        }
    }

    pub(super) fn decode(self) -> Result<PresenceDigest, MessageDecodeError> {
        let values = self.values.into_iter();
        let values = values
            .map(|(client, id, version)| Ok((decode_client(client)?, decode_name(id)?, version)))
            .collect::<Result<_, MessageDecodeError>>()?;
        Ok(PresenceDigest {
            channel: decode_channel(self.channel)?,
            values,
        })
    }
}

impl WirePresence<'_> {
    pub(super) fn decode(self) -> Result<(ClientId, Presence), MessageDecodeError> {
        let position = self.position.map(|(doc, revision, kind)| {
            Ok::<_, MessageDecodeError>(Position {
                doc: decode_doc(doc)?,
                revision,
                kind: Kind::parse(kind).ok_or_else(|| invalid("type", kind))?,
            })
        });
        let presence = Presence {
            channel: decode_channel(self.channel)?,
            id: decode_name(self.id)?,
            version: self.version,
            value: self.value.into(),
            position: position.transpose()?,
        };
        Ok((decode_client(self.client)?, presence))
    }
}
