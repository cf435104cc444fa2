//! Accepts direct links from other nodes. Other programs may reach the port too, so handshakes are bounded.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::connection::{CHUNK_BYTES_ACCEPTED, read_frame};
use super::frames::FrameDecryptor;
use super::handshake::{HandshakeError, SecureChannel, respond};
use super::peer_links::{HANDSHAKE_TIMEOUT, PeerLinks};

/// How many connections may have a handshake that is not complete. One beyond is closed at once; a node tries again.
pub(super) const UNAUTHENTICATED_MAX: usize = 64;

/// The pause after a failure to accept: the limit of open files may be reached.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Accepts connections for as long as the node lives.
pub(super) async fn accept(links: Arc<PeerLinks>, listener: TcpListener) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "accept a direct link");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&links.unauthenticated).try_acquire_owned() else {
            continue;
        };
        let links = Arc::clone(&links);
        tokio::spawn(async move {
            let answered = timeout(HANDSHAKE_TIMEOUT, answer(&links, stream)).await;
            drop(permit);
            match answered {
                Ok(Ok((stream, secured, opener))) => links.serve(stream, secured, opener).await,
                Ok(Err(error)) => tracing::debug!(%error, "direct link refused"),
                Err(_) => tracing::debug!("direct link refused: the handshake took too long"),
            }
        });
    }
}

/// Performs the handshake. The other end is authenticated with its first frame, since the handshake may be a replay.
async fn answer(
    links: &PeerLinks,
    mut stream: TcpStream,
) -> Result<(TcpStream, SecureChannel, FrameDecryptor), HandshakeError> {
    stream.set_nodelay(true)?;
    let secured = respond(&mut stream, &links.key, links.me).await?;
    let mut opener = FrameDecryptor::new(CHUNK_BYTES_ACCEPTED);
    let first = read_frame(&mut stream).await?;
    opener
        .open(&secured.cipher, &first)
        .map_err(|_| HandshakeError::Key)?;
    Ok((stream, secured, opener))
}
