//! A client's WebSocket with as little work per frame as possible: the server under test shares the processors with us.
//! All sockets read into one buffer, and one read takes in as many frames as have come.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use url::Url;

use crate::options::Common;
use crate::server::listener_of;

/// Where the server listens, or each node of a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    endpoints: Vec<Endpoint>,
}

/// One address.
#[derive(Debug, Clone)]
struct Endpoint {
    address: SocketAddr,
    host: String,
    path: String,
    /// The header with the credentials; empty: none.
    credentials: String,
}

impl Target {
    /// Resolves one `ws://` address, or several with commas between them: connections take them in turn.
    pub(crate) async fn resolve(options: &Common) -> Result<Self> {
        let mut endpoints = Vec::new();
        for url in options.url.split(',') {
            endpoints.push(Endpoint::resolve(url, options.token.as_deref()).await?);
        }
        Ok(Self { endpoints })
    }

    /// Sends the `index`th handshake without credentials and closes the connection. Returns the status line's beginning.
    pub(crate) async fn handshake(&self, index: u64, from: Ipv4Addr) -> Result<String> {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let endpoint = Endpoint {
            credentials: String::new(),
            ..self.endpoint(index).clone()
        };
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let mut stream = socket.connect(endpoint.address).await?;
        // With linger, closed connections would soon occupy all local ports.
        stream.set_zero_linger()?;
        stream
            .write_all(request(&endpoint, &key()).as_bytes())
            .await?;
        let mut answer = [0; STATUS_BYTES];
        stream.read_exact(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Where the `index`th connection goes.
    fn endpoint(&self, index: usize) -> &Endpoint {
        &self.endpoints[index % self.endpoints.len()]
    }

    /// Number of addresses.
    pub(crate) fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// The server's processes: those that were given, else those that are found on this machine, one for each address.
    pub(crate) fn server_pids(&self, options: &Common) -> Vec<u32> {
        if !options.server_pid.is_empty() {
            return options.server_pid.clone();
        }
        let mut pids = Vec::new();
        for pid in self
            .endpoints
            .iter()
            .filter_map(|it| listener_of(it.address))
        {
            if !pids.contains(&pid) {
                pids.push(pid);
            }
        }
        pids
    }
}

impl Endpoint {
    async fn resolve(url: &str, token: Option<&str>) -> Result<Self> {
        let url = Url::parse(url).with_context(|| format!("read the address {url}"))?;
        ensure!(
            url.scheme() == "ws",
            "only ws:// is spoken here, not {}://: encryption would be measured along",
            url.scheme()
        );
        let name = url.host_str().context("read the address: no host")?;
        let port = url.port().unwrap_or(80);
        let address = tokio::net::lookup_host((name.trim_matches(['[', ']']), port))
            .await
            .with_context(|| format!("look up {name}"))?
            .next()
            .with_context(|| format!("look up {name}: no address"))?;
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        Ok(Self {
            address,
            host: format!("{name}:{port}"),
            path,
            credentials: token.map_or_else(String::new, |token| {
                format!("Authorization: Bearer {token}\r\n")
            }),
        })
    }

    /// Where the `index`th connection to a loopback address comes from, within 127.0.0.0/8. One address has too few ports for
    /// tens of thousands of connections, and the server's limits for each address are not to be measured.
    fn source(&self, index: usize) -> Option<IpAddr> {
        const CONNECTIONS_PER_ADDRESS: usize = 200;
        let IpAddr::V4(address) = self.address.ip() else {
            return None;
        };
        let block = u32::try_from(index / CONNECTIONS_PER_ADDRESS).ok()?;
        let source = u32::from(Ipv4Addr::LOCALHOST).checked_add(block)?;
        let is_spread = address.is_loopback() && block > 0;
        is_spread.then(|| Ipv4Addr::from_bits(source).into())
    }
}

/// The largest frame that is taken in.
const FRAME_BYTES_MAX: usize = 256 << 20;
/// The most bytes that may wait to be written: more means that the server does not read.
const UNSENT_BYTES_MAX: usize = 256 << 20;
const SCRATCH_BYTES: usize = 256 << 10;
const CONNECT_PATIENCE: Duration = Duration::from_secs(20);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}

/// One open WebSocket.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    /// The beginning of a frame whose end has not come.
    partial: Vec<u8>,
    /// What has been said and not been written, as frames.
    unsent: Vec<u8>,
    /// Bytes taken in since the last [`Socket::take_received`].
    received: u64,
}

impl Socket {
    /// Connects to one of the addresses and shakes hands. `index` counts the sockets: it selects the source address.
    pub(crate) async fn open(target: &Target, endpoint: usize, index: usize) -> Result<Self> {
        let endpoint = target.endpoint(endpoint);
        timeout(CONNECT_PATIENCE, Self::connect(endpoint, index))
            .await
            .with_context(|| format!("connect to {}: no answer in time", endpoint.address))?
    }

    async fn connect(endpoint: &Endpoint, index: usize) -> Result<Self> {
        let socket = match endpoint.address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if let Some(source) = endpoint.source(index) {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let mut stream = socket
            .connect(endpoint.address)
            .await
            .with_context(|| format!("connect to {}: is the server there?", endpoint.address))?;
        stream.set_nodelay(true)?;
        let partial = upgrade(&mut stream, endpoint)
            .await
            .context("upgrade to a WebSocket")?;
        Ok(Self {
            stream,
            partial,
            unsent: Vec::new(),
            received: 0,
        })
    }

    /// Queues a text frame. [`Socket::flush`] writes it.
    pub(crate) fn send(&mut self, json: &[u8]) {
        self.frame(TEXT, json);
    }

    fn frame(&mut self, opcode: u8, payload: &[u8]) {
        let out = &mut self.unsent;
        out.push(FINAL | opcode);
        match u16::try_from(payload.len()) {
            Ok(len @ 0..=125) => out.push(MASKED | len as u8),
            Ok(len) => {
                out.push(MASKED | 126);
                out.extend_from_slice(&len.to_be_bytes());
            }
            Err(_) => {
                out.push(MASKED | 127);
                out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
            }
        }
        let mask = fastrand::u32(..).to_ne_bytes();
        out.extend_from_slice(&mask);
        let start = out.len();
        out.extend_from_slice(payload);
        for (byte, mask) in out[start..].iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
    }

    /// Writes what can be written at once. [`Socket::read`] sees to the rest.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        match self.stream.try_write(&self.unsent) {
            Ok(written) => drop(self.unsent.drain(..written)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("write"),
        }
        ensure!(
            self.unsent.len() <= UNSENT_BYTES_MAX,
            "the server does not read what it is sent"
        );
        Ok(())
    }

    /// Waits for frames and hands each text that has come to `heard`, with the time at which it was read. Writes what is
    /// unsent meanwhile. Cancel-safe: a frame is handed over within one poll or is still there.
    pub(crate) async fn read(
        &mut self,
        mut heard: impl FnMut(&[u8], Instant) -> Result<()>,
    ) -> Result<()> {
        poll_fn(|task| {
            self.poll_write(task)?;
            self.poll_read(task, &mut heard)
        })
        .await
    }

    fn poll_write(&mut self, task: &mut TaskContext<'_>) -> Result<()> {
        while !self.unsent.is_empty() {
            match Pin::new(&mut self.stream).poll_write(task, &self.unsent) {
                Poll::Ready(written) => drop(self.unsent.drain(..written.context("write")?)),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    fn poll_read(
        &mut self,
        task: &mut TaskContext<'_>,
        heard: &mut impl FnMut(&[u8], Instant) -> Result<()>,
    ) -> Poll<Result<()>> {
        if !self.partial.is_empty()
            && frame_length(&self.partial)?.is_some_and(|len| len <= self.partial.len())
        {
            // What came along with the upgrade's answer.
            let taken = std::mem::take(&mut self.partial);
            return Poll::Ready(self.take_in(&taken, heard));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            let read = Pin::new(&mut self.stream);
            std::task::ready!(tokio::io::AsyncRead::poll_read(read, task, &mut buffer))
                .context("read")?;
            let filled = buffer.filled();
            if filled.is_empty() {
                return Poll::Ready(Err(anyhow::anyhow!("the server closed the connection")));
            }
            self.received += filled.len() as u64;
            if self.partial.is_empty() {
                return Poll::Ready(self.take_in(filled, heard));
            }
            let mut whole = std::mem::take(&mut self.partial);
            whole.extend_from_slice(filled);
            if frame_length(&whole)?.is_none_or(|len| whole.len() < len) {
                self.partial = whole;
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(self.take_in(&whole, heard))
        })
    }

    /// Hands over all whole frames and keeps the rest.
    fn take_in(
        &mut self,
        mut bytes: &[u8],
        heard: &mut impl FnMut(&[u8], Instant) -> Result<()>,
    ) -> Result<()> {
        let now = Instant::now();
        while let Some(len) = frame_length(bytes)?.filter(|len| *len <= bytes.len()) {
            let (frame, rest) = bytes.split_at(len);
            let payload = &frame[header_length(frame)..];
            match frame[0] {
                TEXT_FRAME => heard(payload, now)?,
                PING_FRAME => self.frame(PONG, payload),
                PONG_FRAME => {}
                CLOSE_FRAME => bail!(
                    "the server closed the connection: {}",
                    close_reason(payload)
                ),
                other => bail!("read a frame: {other:#x} is neither whole nor text"),
            }
            bytes = rest;
        }
        self.partial.extend_from_slice(bytes);
        if self.partial.capacity() < 1 << 16
            && let Some(len) = frame_length(&self.partial)?
        {
            self.partial.reserve_exact(len - self.partial.len());
        }
        Ok(())
    }

    /// Resets the connection, as if its network had failed. Its local port is free at once.
    pub(crate) fn reset(self) -> Result<()> {
        self.stream.set_zero_linger().context("reset a connection")
    }

    /// How many bytes were taken in since the last call.
    pub(crate) fn take_received(&mut self) -> u64 {
        std::mem::take(&mut self.received)
    }
}

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const TEXT: u8 = 0x1;
const PONG: u8 = 0xa;
const TEXT_FRAME: u8 = FINAL | TEXT;
const CLOSE_FRAME: u8 = FINAL | 0x8;
const PING_FRAME: u8 = FINAL | 0x9;
const PONG_FRAME: u8 = FINAL | PONG;

fn header_length(frame: &[u8]) -> usize {
    match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    }
}

/// How long the frame is that begins here, as soon as its header is whole.
fn frame_length(bytes: &[u8]) -> Result<Option<usize>> {
    let payload = match bytes {
        [] | [_] => return Ok(None),
        [_, 126, high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
        [_, 127, rest @ ..] => match rest.first_chunk() {
            Some(len) => usize::try_from(u64::from_be_bytes(*len)).unwrap_or(usize::MAX),
            None => return Ok(None),
        },
        [_, 126, ..] => return Ok(None),
        [_, len @ 0..=125, ..] => usize::from(*len),
        [_, _, ..] => bail!("read a frame: a server's frames are not masked"),
    };
    ensure!(
        payload <= FRAME_BYTES_MAX,
        "read a frame: it has {payload} bytes"
    );
    Ok(Some(payload + header_length(bytes)))
}

fn close_reason(payload: &[u8]) -> String {
    match payload.split_first_chunk() {
        Some((status, reason)) => {
            format!(
                "{} {}",
                u16::from_be_bytes(*status),
                String::from_utf8_lossy(reason)
            )
        }
        None => "without a reason".to_owned(),
    }
}

/// As much of an answer as says its status: `HTTP/1.1 101`.
const STATUS_BYTES: usize = 12;

/// A fresh key for a handshake.
fn key() -> String {
    base64::engine::general_purpose::STANDARD.encode(fastrand::u128(..).to_ne_bytes())
}

/// What asks for a WebSocket.
fn request(endpoint: &Endpoint, key: &str) -> String {
    format!(
        "GET {} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{}\r\n",
        endpoint.path,
        endpoint.credentials,
        host = endpoint.host,
    )
}

/// Asks for the WebSocket; returns what came behind the answer.
async fn upgrade(stream: &mut TcpStream, endpoint: &Endpoint) -> Result<Vec<u8>> {
    let key = key();
    stream.write_all(request(endpoint, &key).as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        ensure!(
            stream.read_buf(&mut answer).await? > 0,
            "the server hung up"
        );
        ensure!(answer.len() < 64 << 10, "the answer is no HTTP");
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(length) =
            response.parse(&answer).context("read the answer")?
        else {
            continue;
        };
        let code = response.code.unwrap_or_default();
        ensure!(
            code == 101,
            "the server answered {code} {}",
            response.reason.unwrap_or_default()
        );
        let accept = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("sec-websocket-accept"));
        ensure!(
            accept.is_some_and(|header| header.value == actix_http::ws::hash_key(key.as_bytes())),
            "the answer does not accept our key"
        );
        return Ok(answer.split_off(length));
    }
}

#[cfg(test)]
mod tests;
