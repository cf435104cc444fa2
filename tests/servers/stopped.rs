//! A Postgres client that stops in the middle of a statement, like a process that is stopped or swapped out: it has
//! sent the statement but not the message that ends it. No timeout of the server releases its locks.

use std::io::{Read, Write};
use std::net::TcpStream;

/// Closes the connection when dropped.
#[derive(Debug)]
pub struct Stopped(TcpStream);

impl Stopped {
    /// Runs `sql` up to its answer in a session with these parameters, and sends nothing more.
    pub fn within(port: u16, parameters: &[(&str, &str)], sql: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut startup = 196_608_u32.to_be_bytes().to_vec();
        for (name, value) in parameters {
            text(&mut startup, name);
            text(&mut startup, value);
        }
        startup.push(0);
        stream.write_all(&with_length(&startup)).unwrap();
        await_message(&mut stream, b'Z');
        let mut parse = vec![0];
        text(&mut parse, sql);
        parse.extend([0; 2]);
        let mut messages = Vec::new();
        // Parse, Bind, Execute and Flush, without Sync.
        for (tag, body) in [
            (b'P', &parse[..]),
            (b'B', &[0; 8]),
            (b'E', &[0; 5]),
            (b'H', &[]),
        ] {
            messages.push(tag);
            messages.extend(with_length(body));
        }
        stream.write_all(&messages).unwrap();
        await_message(&mut stream, b'C');
        Self(stream)
    }

    /// Returns true if the server has closed the connection.
    pub fn is_ended(&mut self) -> bool {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).is_ok()
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend(text.as_bytes());
    out.push(0);
}

fn with_length(body: &[u8]) -> Vec<u8> {
    let mut message = (body.len() as u32 + 4).to_be_bytes().to_vec();
    message.extend(body);
    message
}

/// Reads messages up to one of this kind.
fn await_message(stream: &mut TcpStream, kind: u8) {
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        assert_ne!(head[0], b'E', "{}", String::from_utf8_lossy(&body));
        if head[0] == kind {
            return;
        }
    }
}
