use std::sync::Arc;

use super::*;
use crate::doc::{PeerMessage, Position, Presence, Proposal, Rejection, Submit};
use crate::id::UserId;
use crate::log::{Change, Entry, Epoch, SubmitId};
use crate::node::cluster::message::PresenceDigest;
use crate::ot::{Content, Kind, Op};

fn id(seq: u64) -> SubmitId {
    SubmitId {
        author: UserId::new("ann@example.org"),
        client: ClientId::parse("client").unwrap(),
        seq,
    }
}

fn all() -> Vec<NodeMessage> {
    let doc = DocId::parse("c", "名前").unwrap();
    let about_doc = |message| NodeMessage::Document(doc.clone(), message, None);
    let content = Content::create(Kind::RichText, Some(r#"[{"insert":"a\n"}]"#)).unwrap();
    let op = Op::parse(Kind::TextUnicode, r#"[1,"😀",{"d":2}]"#).unwrap();
    let submit = |proposal| {
        let submit = Submit {
            id: id(u64::MAX),
            base: Some(Revision(7)),
            proposal,
        };
        about_doc(PeerMessage::Submit(submit, None))
    };
    let edit = Submit {
        id: id(8),
        base: Some(Revision(7)),
        proposal: Proposal::Edit(r#"["x"]"#.into()),
    };
    let entries = [
        Change::Create(content.clone()),
        Change::Edit(op),
        Change::Delete,
        Change::Nothing,
    ];
    let entries = (1..).zip(entries).map(|(revision, change)| {
        Arc::new(Entry {
            revision: Revision(revision),
            epoch: Epoch(3),
            id: id(revision),
            at_ms: u64::MAX,
            change,
        })
    });
    let channel = Name::parse("c.d").unwrap();
    let presence = Presence {
        channel: channel.clone(),
        id: Name::parse("p").unwrap(),
        version: 9,
        value: r#"{"index":1}"#.into(),
        position: Some(Position {
            doc: doc.clone(),
            revision: Revision(8),
            kind: Kind::RichText,
        }),
    };
    let client = id(0).client;
    let digest = PresenceDigest {
        channel: channel.clone(),
        values: vec![(client.clone(), presence.id.clone(), 9)],
    };
    let messages = [
        PresenceMessage::Refresh {
            subscribed: vec![channel.clone()],
            digests: vec![digest.clone()],
        },
        PresenceMessage::Digest(NodeId(5), digest),
        PresenceMessage::Value(NodeId(u64::MAX), client, presence),
        PresenceMessage::RepeatRequest(NodeId(9), channel),
    ];
    let mut all = vec![
        about_doc(PeerMessage::Subscribe { since: Revision(3) }),
        submit(Proposal::Create(content)),
        submit(Proposal::Edit(r#"["x"]"#.into())),
        submit(Proposal::Delete),
        about_doc(PeerMessage::Commits {
            head: Revision(4),
            entries: entries.collect(),
        }),
        about_doc(PeerMessage::SaveSnapshot),
        about_doc(PeerMessage::Submit(edit, Some(u64::MAX))),
        about_doc(PeerMessage::Diverged {
            revision: Revision(7),
        }),
        about_doc(PeerMessage::Reject {
            id: id(1),
            rejection: Rejection::busy(),
        }),
        NodeMessage::Ping,
        NodeMessage::Pong,
        NodeMessage::Leaving,
        NodeMessage::HasStore,
        NodeMessage::StoreAnswers,
        NodeMessage::SaveProbe,
        NodeMessage::SaveConfirmed,
    ];
    all.extend(messages.map(NodeMessage::Presence));
    let marked: Vec<_> = all
        .iter()
        .filter_map(|message| match message {
            NodeMessage::Document(doc, message, None) => Some(NodeMessage::Document(
                doc.clone(),
                message.clone(),
                Some([7; 6]),
            )),
            _ => None,
        })
        .collect();
    all.extend(marked);
    all
}

#[test]
fn every_message_is_decoded_as_it_was_encoded() {
    for message in all() {
        let read = NodeMessage::decode(&message.encode()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{message:?}"));
    }
}

#[test]
fn truncated_messages_and_unknown_versions_are_rejected() {
    for message in all() {
        let bytes = message.encode();
        for length in 0..bytes.len() {
            assert!(
                NodeMessage::decode(&bytes[..length]).is_err(),
                "{message:?} {length}"
            );
        }
        let mut newer = bytes.to_vec();
        newer[0] += 1;
        assert!(matches!(
            NodeMessage::decode(&newer),
            Err(MessageDecodeError::Version(_))
        ));
    }
}
