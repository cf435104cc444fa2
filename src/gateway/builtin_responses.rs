//! The answers that actix-http gives by itself, to what it cannot parse: they lack the headers of all other answers.

/// The statuses of such answers.
const STATUSES: [&[u8]; 4] = [b"400 ", b"408 ", b"431 ", b"500 "];

/// What they lack.
const HEADERS: &[u8] = b"cache-control: no-store\r\nx-content-type-options: nosniff\r\nreferrer-policy: same-origin\r\n\
    content-security-policy: default-src 'none'; frame-ancestors 'none'\r\n";

/// The longest such answer. It has a status line and three headers.
const BYTES_MAX: usize = 400;

/// If `bytes` end with the head of an answer that actix-http gave by itself: the bytes with the missing headers. Such an
/// answer is the last of its connection. All others say `cache-control`.
pub(super) fn complete(bytes: &[u8]) -> Option<Vec<u8>> {
    let before_end = bytes.strip_suffix(b"\r\n\r\n")?;
    let window = &before_end[before_end.len().saturating_sub(BYTES_MAX)..];
    let start = rfind(window, b"HTTP/1.1 ")?;
    let head = &window[start..];
    let status = &head[b"HTTP/1.1 ".len()..];
    let is_bare = STATUSES.iter().any(|known| status.starts_with(known))
        && rfind(head, b"cache-control:").is_none()
        && rfind(head, b"content-length: 0").is_some();
    is_bare.then(|| [before_end, b"\r\n", HEADERS, b"\r\n"].concat())
}

fn rfind(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).rposition(|it| it == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: &[u8] =
        b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\ndate: Thu\r\n\r\n";

    #[test]
    fn a_bare_answer_is_completed_and_ends_as_before() {
        for before in [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"] {
            let completed = complete(&[before, BARE].concat()).unwrap();
            assert!(completed.starts_with(before));
            let head = String::from_utf8(completed[before.len()..].to_vec()).unwrap();
            assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
            assert!(head.contains("\r\ncache-control: no-store\r\n"), "{head}");
            assert!(head.contains("date: Thu\r\n"), "{head}");
            assert_eq!(head.matches("\r\n\r\n").count(), 1, "{head}");
            assert!(head.ends_with("\r\n\r\n"));
        }
    }

    #[test]
    fn other_answers_stay_what_they_are() {
        let said = String::from_utf8(BARE.to_vec()).unwrap();
        for bytes in [
            String::new(),
            "\r\n\r\n".to_owned(),
            said.replace("date: Thu", "cache-control: no-store"),
            said.replace("400 Bad Request", "304 Not Modified"),
            said.replace("content-length: 0", "content-length: 9"),
            format!("{said}body"),
            "HTTP/1.1 100 Continue\r\n\r\n".to_owned(),
            said[..said.len() - 1].to_owned(),
        ] {
            assert_eq!(complete(bytes.as_bytes()), None, "{bytes}");
        }
    }
}
