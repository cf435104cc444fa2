//! The handshake of a direct link: a plain prelude with the versions, then `Noise_NNpsk0_25519_ChaChaPoly_SHA256`.
//!
//! The pre-shared key is derived from the store's secret, so both ends prove that they use the same store. Each
//! connection has keys of its own (ephemeral Diffie-Hellman): a recorded handshake or frame is refused if it is replayed,
//! and a secret that leaks later does not open recorded traffic. The prelude is part of what the handshake authenticates.

use std::fmt;
use std::io;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use snow::{Builder, StatelessTransportState};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::id::NodeId;

/// The versions of the frames that this program reads and writes.
const VERSIONS: Versions = Versions { least: 1, most: 1 };

/// Begins every connection.
const MAGIC: [u8; 8] = *b"copydesk";

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";

/// Magic, the least and the greatest version, and room for more, which is zero.
const PRELUDE_BYTES: usize = 16;

/// An ephemeral key, a node's id, and the tag.
const REQUEST_BYTES: usize = 32 + 8 + 16;

/// An ephemeral key, the version and a node's id, and the tag; a byte before it says whether there is a version.
const ANSWER_BYTES: usize = 32 + 9 + 16;

/// Says that a common version follows.
const ACCEPTED: u8 = 1;

/// What all nodes on one store derive from its secret.
#[derive(Clone)]
pub(super) struct LinkKey([u8; 32]);

/// A range of versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Versions {
    least: u8,
    most: u8,
}

/// What a handshake leads to.
pub(super) struct SecureChannel {
    /// The node at the other end.
    pub(super) peer: NodeId,
    /// Encrypts and decrypts; each direction counts its messages.
    pub(super) cipher: StatelessTransportState,
}

/// Why a handshake failed.
#[derive(Debug, Error)]
pub(super) enum HandshakeError {
    /// The connection broke.
    #[error("{0}")]
    Broken(#[from] io::Error),
    /// The other end is not a node of Copydesk.
    #[error("the other end is not a Copydesk node")]
    Foreign,
    /// The two programs have no version of the link in common.
    #[error("no common version of the direct link")]
    Version,
    /// The other end has another key, or bytes were changed in transit.
    #[error("authentication failed: the other end does not use the same store")]
    Key,
    /// A node connected to itself or to another node than it meant to.
    #[error("node {0} answered instead")]
    Peer(NodeId),
}

impl From<snow::Error> for HandshakeError {
    fn from(_: snow::Error) -> Self {
        Self::Key
    }
}

impl LinkKey {
    /// Derives the key that all nodes of one store share from the store's secret.
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length is a key");
        mac.update(b"direct links between nodes");
        Self(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKey")
    }
}

impl fmt::Debug for SecureChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecureChannel").field(&self.peer).finish()
    }
}

impl Versions {
    /// The greatest version that both ranges have.
    fn common(self, other: Self) -> Option<u8> {
        let most = self.most.min(other.most);
        (most >= self.least.max(other.least)).then_some(most)
    }
}

/// Connects as `me` to `peer`.
///
/// # Errors
/// If the other end is another node, has another key or version, or hangs up.
pub(super) async fn initiate<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    key: &LinkKey,
    me: NodeId,
    peer: NodeId,
) -> Result<SecureChannel, HandshakeError> {
    let prelude = prelude(VERSIONS);
    let mut noise = noise(key, &prelude)?.build_initiator()?;
    let mut request = [0; PRELUDE_BYTES + REQUEST_BYTES];
    request[..PRELUDE_BYTES].copy_from_slice(&prelude);
    noise.write_message(&me.0.to_le_bytes(), &mut request[PRELUDE_BYTES..])?;
    stream.write_all(&request).await?;
    if stream.read_u8().await? != ACCEPTED {
        return Err(HandshakeError::Version);
    }
    let mut answer = [0; ANSWER_BYTES];
    stream.read_exact(&mut answer).await?;
    let mut content = [0; 9];
    noise.read_message(&answer, &mut content)?;
    let [version, id @ ..] = content;
    if !(VERSIONS.least..=VERSIONS.most).contains(&version) {
        return Err(HandshakeError::Version);
    }
    let found = NodeId(u64::from_le_bytes(id));
    if found != peer {
        return Err(HandshakeError::Peer(found));
    }
    let cipher = noise.into_stateless_transport_mode()?;
    Ok(SecureChannel { peer, cipher })
}

/// Answers a connection as `me`. The other end is known to live only when its first frame arrives: up to there, what it
/// said may be a recording.
///
/// # Errors
/// If the other end has another key or version, or hangs up.
pub(super) async fn respond<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    key: &LinkKey,
    me: NodeId,
) -> Result<SecureChannel, HandshakeError> {
    let mut prelude = [0; PRELUDE_BYTES];
    stream.read_exact(&mut prelude).await?;
    let Some(version) = versions(&prelude)?.common(VERSIONS) else {
        // What follows is not read: the connection ends either way.
        stream.write_all(&[0]).await?;
        return Err(HandshakeError::Version);
    };
    let mut request = [0; REQUEST_BYTES];
    stream.read_exact(&mut request).await?;
    let mut noise = noise(key, &prelude)?.build_responder()?;
    let mut id = [0; 8];
    noise.read_message(&request, &mut id)?;
    let peer = NodeId(u64::from_le_bytes(id));
    if peer == me {
        return Err(HandshakeError::Peer(peer));
    }
    let mut content = [0; 9];
    content[0] = version;
    content[1..].copy_from_slice(&me.0.to_le_bytes());
    let mut answer = [0; 1 + ANSWER_BYTES];
    answer[0] = ACCEPTED;
    noise.write_message(&content, &mut answer[1..])?;
    stream.write_all(&answer).await?;
    let cipher = noise.into_stateless_transport_mode()?;
    Ok(SecureChannel { peer, cipher })
}

fn noise<'a>(key: &'a LinkKey, prelude: &'a [u8]) -> Result<Builder<'a>, snow::Error> {
    let pattern = PATTERN.parse()?;
    Builder::new(pattern).psk(0, &key.0)?.prologue(prelude)
}

fn prelude(versions: Versions) -> [u8; PRELUDE_BYTES] {
    let mut prelude = [0; PRELUDE_BYTES];
    prelude[..8].copy_from_slice(&MAGIC);
    prelude[8] = versions.least;
    prelude[9] = versions.most;
    prelude
}

/// The versions that a prelude names.
fn versions(prelude: &[u8; PRELUDE_BYTES]) -> Result<Versions, HandshakeError> {
    if prelude[..8] != MAGIC {
        return Err(HandshakeError::Foreign);
    }
    Ok(Versions {
        least: prelude[8],
        most: prelude[9],
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::duplex;

    use super::*;

    const ANN: NodeId = NodeId(1);
    const BOB: NodeId = NodeId(2);

    fn key(byte: u8) -> LinkKey {
        LinkKey::new(&[byte; 32])
    }

    #[tokio::test]
    async fn both_ends_learn_each_others_id_and_understand_each_other() {
        let (mut one, mut other) = duplex(1_000);
        let (ours, theirs) = (key(1), key(1));
        let (ann, bob) = tokio::join!(
            initiate(&mut one, &ours, ANN, BOB),
            respond(&mut other, &theirs, BOB)
        );
        let (ann, bob) = (ann.unwrap(), bob.unwrap());
        assert_eq!((ann.peer, bob.peer), (BOB, ANN));
        let (mut sealed, mut opened) = ([0; 100], [0; 100]);
        let length = ann.cipher.write_message(0, b"text", &mut sealed).unwrap();
        let sealed = &sealed[..length];
        assert!(!sealed.windows(4).any(|bytes| bytes == b"text"));
        let length = bob.cipher.read_message(0, sealed, &mut opened).unwrap();
        assert_eq!(&opened[..length], b"text");
        assert!(bob.cipher.read_message(1, sealed, &mut opened).is_err());
        assert!(ann.cipher.read_message(0, sealed, &mut opened).is_err());
    }

    #[tokio::test]
    async fn another_key_is_refused_by_both_ends() {
        let (mut one, mut other) = duplex(1_000);
        let (ours, theirs) = (key(1), key(2));
        let respond = async {
            let refused = respond(&mut other, &theirs, BOB).await;
            drop(other);
            refused
        };
        let (ann, bob) = tokio::join!(initiate(&mut one, &ours, ANN, BOB), respond);
        assert!(matches!(ann, Err(HandshakeError::Broken(_))), "{ann:?}");
        assert!(matches!(bob, Err(HandshakeError::Key)), "{bob:?}");
    }

    #[tokio::test]
    async fn server_without_the_key_is_refused() {
        let (mut one, mut other) = duplex(1_000);
        let answer = async {
            let mut request = [0; PRELUDE_BYTES + REQUEST_BYTES];
            other.read_exact(&mut request).await.unwrap();
            let mut answer = [7; 1 + ANSWER_BYTES];
            answer[0] = ACCEPTED;
            other.write_all(&answer).await.unwrap();
        };
        let ours = key(1);
        let (ann, ()) = tokio::join!(initiate(&mut one, &ours, ANN, BOB), answer);
        assert!(matches!(ann, Err(HandshakeError::Key)), "{ann:?}");
    }

    #[tokio::test]
    async fn node_that_is_not_the_one_meant_is_refused() {
        let (mut one, mut other) = duplex(1_000);
        let key = key(1);
        let (ann, _) = tokio::join!(
            initiate(&mut one, &key, ANN, NodeId(9)),
            respond(&mut other, &key, BOB)
        );
        assert!(matches!(ann, Err(HandshakeError::Peer(BOB))), "{ann:?}");
        let (mut one, mut other) = duplex(1_000);
        let (ann, itself) = tokio::join!(
            async {
                let ended = initiate(&mut one, &key, ANN, ANN).await;
                drop(one);
                ended
            },
            async {
                let ended = respond(&mut other, &key, ANN).await;
                drop(other);
                ended
            }
        );
        assert!(ann.is_err() && matches!(itself, Err(HandshakeError::Peer(ANN))));
    }

    #[tokio::test]
    async fn other_versions_and_other_protocols_are_refused() {
        for (bytes, is_foreign) in [
            (prelude(Versions { least: 2, most: 3 }), false),
            (prelude(Versions { least: 0, most: 0 }), false),
            (prelude(Versions { least: 3, most: 1 }), false),
            (*b"GET / HTTP/1.1\r\n", true),
            ([0; PRELUDE_BYTES], true),
        ] {
            let (mut one, mut other) = duplex(1_000);
            one.write_all(&bytes).await.unwrap();
            let refused = respond(&mut other, &key(1), BOB).await;
            match refused {
                Err(HandshakeError::Foreign) => assert!(is_foreign, "{bytes:?}"),
                Err(HandshakeError::Version) => {
                    assert!(!is_foreign, "{bytes:?}");
                    assert_eq!(one.read_u8().await.unwrap(), 0);
                }
                other => panic!("{other:?}"),
            }
        }
        let greatest = Versions { least: 1, most: 9 }.common(VERSIONS);
        assert_eq!(greatest, Some(1), "a newer node speaks our version");
    }

    /// A changed version range would be a downgrade.
    #[tokio::test]
    async fn changed_prelude_is_refused() {
        let (mut one, mut other) = duplex(1_000);
        let key = key(1);
        let ann = initiate(&mut one, &key, ANN, BOB);
        let between = async {
            let mut request = [0; PRELUDE_BYTES + REQUEST_BYTES];
            other.read_exact(&mut request).await.unwrap();
            request[9] = 7;
            let (mut sender, mut receiver) = duplex(1_000);
            sender.write_all(&request).await.unwrap();
            let refused = respond(&mut receiver, &key, BOB).await;
            drop(other);
            refused
        };
        let (_, bob) = tokio::join!(ann, between);
        assert!(matches!(bob, Err(HandshakeError::Key)), "{bob:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_handshake(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut text = prelude(VERSIONS).to_vec();
                text.extend(&bytes);
                for bytes in [&bytes, &text] {
                    let (mut one, mut other) = duplex(1_000);
                    one.write_all(bytes).await.unwrap();
                    one.shutdown().await.unwrap();
                    assert!(respond(&mut other, &key(1), BOB).await.is_err());
                }
            });
        }
    }
}
