//! Which requests the admin listener answers.

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, HOST, ORIGIN};
use subtle::ConstantTimeEq;

/// Checks the requests of an admin listener.
#[derive(Debug, Clone)]
pub(super) enum AccessCheck {
    /// The listener is on a loopback address and has no token. Requests of web pages are rejected, also those that reach it
    /// under a name that was made to resolve to this machine (DNS rebinding).
    Loopback,
    /// Requests need this token.
    Token(Box<str>),
}

impl AccessCheck {
    pub(super) fn new(token: &str) -> Self {
        if token.is_empty() {
            Self::Loopback
        } else {
            Self::Token(token.into())
        }
    }

    /// # Errors
    /// With the status of the response, if the request is rejected.
    pub(super) fn check(&self, request: &HttpRequest) -> Result<(), StatusCode> {
        let header = |name| request.headers().get(name)?.to_str().ok();
        match self {
            Self::Token(token) => {
                let given = header(AUTHORIZATION).and_then(bearer);
                if given.is_some_and(|given| given.as_bytes().ct_eq(token.as_bytes()).into()) {
                    Ok(())
                } else {
                    Err(StatusCode::UNAUTHORIZED)
                }
            }
            Self::Loopback => {
                let is_page = request.headers().contains_key(ORIGIN);
                // A request without the header is HTTP/1.0, which no browser sends.
                let is_foreign_name = header(HOST).is_some_and(|host| !is_loopback_name(host));
                if is_page || is_foreign_name {
                    return Err(StatusCode::FORBIDDEN);
                }
                Ok(())
            }
        }
    }
}

/// The token of a header `Bearer TOKEN`.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Returns true if a `Host` names this machine: `localhost` or a loopback address, with or without a port.
fn is_loopback_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        // The colons of an IPv6 address without a port are inside brackets.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |address: std::net::IpAddr| address.to_canonical().is_loopback();
    name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(is_loopback)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn without_a_token_pages_and_foreign_names_are_rejected() {
        let check = AccessCheck::new("");
        for (host, is_answered) in [
            ("127.0.0.1:9464", true),
            ("127.0.0.1", true),
            ("localhost:9464", true),
            ("LOCALHOST", true),
            ("[::1]:9464", true),
            ("[::1]", true),
            ("127.9.9.9:1", true),
            ("evil.example:9464", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example:9464", false),
            ("10.0.0.1:9464", false),
            ("", false),
        ] {
            let request = TestRequest::default().insert_header((HOST, host));
            let checked = check.check(&request.to_http_request());
            assert_eq!(checked.is_ok(), is_answered, "{host:?}");
        }
        let page = TestRequest::default()
            .insert_header((HOST, "127.0.0.1:9464"))
            .insert_header((ORIGIN, "https://evil.example"));
        assert_eq!(
            check.check(&page.to_http_request()),
            Err(StatusCode::FORBIDDEN)
        );
    }

    #[test]
    fn with_a_token_only_the_token_counts() {
        let check = AccessCheck::new("0123456789abcdef");
        for (header, is_answered) in [
            (Some("Bearer 0123456789abcdef"), true),
            (Some("bearer 0123456789abcdef"), true),
            (Some("Bearer 0123456789abcdeg"), false),
            (Some("Bearer 0123456789abcde"), false),
            (Some("Bearer 0123456789abcdef0"), false),
            (Some("Bearer "), false),
            (Some("0123456789abcdef"), false),
            (Some("Basic 0123456789abcdef"), false),
            (None, false),
        ] {
            let mut request = TestRequest::default().insert_header((HOST, "metrics.example"));
            if let Some(header) = header {
                request = request.insert_header((AUTHORIZATION, header));
            }
            let checked = check.check(&request.to_http_request());
            assert_eq!(checked.is_ok(), is_answered, "{header:?}");
        }
    }
}
