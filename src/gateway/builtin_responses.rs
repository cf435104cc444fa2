//! The responses of actix-http itself to requests that it cannot parse. They lack the headers of all other responses.

/// The statuses of such responses.
const STATUSES: [&[u8]; 4] = [b"400 ", b"408 ", b"431 ", b"500 "];

/// The headers that they lack.
const HEADERS: &[u8] = b"cache-control: no-store\r\nx-content-type-options: nosniff\r\nreferrer-policy: same-origin\r\n\
    content-security-policy: default-src 'none'; frame-ancestors 'none'\r\n";

/// The size of the longest such response: a status line and three headers.
const BYTES_MAX: usize = 400;

/// Adds the missing headers if `bytes` end with the head of a response of actix-http itself, which is the last of its
/// connection. All other responses have a `cache-control` header.
pub(super) fn add_headers(bytes: &[u8]) -> Option<Vec<u8>> {
    let before_end = bytes.strip_suffix(b"\r\n\r\n")?;
    let window = &before_end[before_end.len().saturating_sub(BYTES_MAX)..];
    let start = rfind(window, b"HTTP/1.1 ")?;
    let head = &window[start..];
    let status = &head[b"HTTP/1.1 ".len()..];
    let is_builtin = STATUSES.iter().any(|known| status.starts_with(known))
        && rfind(head, b"cache-control:").is_none()
        && rfind(head, b"content-length: 0").is_some();
    is_builtin.then(|| [before_end, b"\r\n", HEADERS, b"\r\n"].concat())
}

fn rfind(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).rposition(|it| it == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILTIN: &[u8] =
        b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\ndate: Thu\r\n\r\n";

    #[test]
    fn builtin_response_gets_headers_and_keeps_its_end() {
        for before in [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"] {
            let completed = add_headers(&[before, BUILTIN].concat()).unwrap();
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
    fn other_responses_are_unchanged() {
        let response = String::from_utf8(BUILTIN.to_vec()).unwrap();
        for bytes in [
            String::new(),
            "\r\n\r\n".to_owned(),
            response.replace("date: Thu", "cache-control: no-store"),
            response.replace("400 Bad Request", "304 Not Modified"),
            response.replace("content-length: 0", "content-length: 9"),
            format!("{response}body"),
            "HTTP/1.1 100 Continue\r\n\r\n".to_owned(),
            response[..response.len() - 1].to_owned(),
        ] {
            assert_eq!(add_headers(bytes.as_bytes()), None, "{bytes}");
        }
    }
}
