//! Where a request comes from: the client's address and protocol, directly or as the proxy in front states them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use actix_web::HttpRequest;
use actix_web::http::header::{HOST, HeaderName};
use actix_web::web::Data;

use super::gateway::Gateway;
use super::socket::ConnectionHandle;
use crate::auth::{RequestSource, is_loopback};

/// Headers that proxies add to the requests that they pass on.
const PROXY_HEADERS: [&str; 4] = ["x-forwarded-for", "x-real-ip", "forwarded", "via"];

/// The gateway that serves a request.
///
/// # Panics
/// Never: [`serve`](super::http::serve) adds it to every request.
pub(super) fn gateway(request: &HttpRequest) -> &Data<Gateway> {
    request
        .app_data::<Data<Gateway>>()
        .expect("the application has a gateway")
}

/// Where a request comes from.
pub(super) fn source(request: &HttpRequest, gateway: &Gateway) -> RequestSource {
    let connection = request.conn_data::<ConnectionHandle>();
    let is_local = connection.is_some_and(ConnectionHandle::is_local);
    let is_proxied = PROXY_HEADERS
        .iter()
        .any(|name| request.headers().contains_key(*name));
    let host = header(request, HOST).unwrap_or_default();
    let is_direct = is_local && !is_proxied && !gateway.auth().is_behind_proxy();
    RequestSource {
        address: address(request, gateway),
        is_own_machine: is_direct && is_loopback(host),
    }
}

/// The client's address: as the proxy in front states it, if one is configured.
pub(super) fn address(request: &HttpRequest, gateway: &Gateway) -> IpAddr {
    let peer = request.peer_addr().map(|peer| peer.ip());
    let forwarded = || last_forwarded(request, "x-forwarded-for").and_then(forwarded_address);
    let forwarded = gateway.auth().is_behind_proxy().then(forwarded).flatten();
    forwarded
        .or(peer)
        .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// Returns true if the client uses TLS: to this server, or to the proxy in front.
pub(super) fn is_secure(request: &HttpRequest) -> bool {
    let connection = request.conn_data::<ConnectionHandle>();
    if connection.is_some_and(ConnectionHandle::is_encrypted) {
        return true;
    }
    let gateway = request.app_data::<Data<Gateway>>();
    let is_behind_proxy = gateway.is_some_and(|gateway| gateway.auth().is_behind_proxy());
    is_behind_proxy && last_forwarded(request, "x-forwarded-proto").is_some_and(is_tls)
}

/// Returns true if the protocol that a proxy states means TLS. Some proxies state the protocol of the WebSocket.
fn is_tls(protocol: &str) -> bool {
    ["https", "wss"]
        .iter()
        .any(|it| it.eq_ignore_ascii_case(protocol))
}

/// The value that the proxy in front states: each proxy on the way appends one to the list.
fn last_forwarded<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    let header = request.headers().get_all(name).last()?;
    header.to_str().ok()?.rsplit(',').next().map(str::trim)
}

/// Parses an address as proxies write it: with or without a port, IPv6 with or without brackets.
fn forwarded_address(text: &str) -> Option<IpAddr> {
    let bare = || text.strip_prefix('[')?.strip_suffix(']');
    let with_port = || text.parse().ok().map(|it: SocketAddr| it.ip());
    bare().unwrap_or(text).parse().ok().or_else(with_port)
}

/// The value of a header; an unreadable one is an empty text.
pub(super) fn header(request: &HttpRequest, name: HeaderName) -> Option<&str> {
    let value = request.headers().get(name)?;
    Some(value.to_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn forwarded_addresses_are_parsed_in_all_forms() {
        for (text, address) in [
            ("192.0.2.7", Some("192.0.2.7")),
            ("192.0.2.7:4711", Some("192.0.2.7")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:4711", Some("2001:db8::1")),
            ("unknown", None),
            ("", None),
            ("[192.0.2.7", None),
            ("192.0.2.7:port", None),
        ] {
            let expected: Option<IpAddr> = address.map(|it| it.parse().unwrap());
            assert_eq!(forwarded_address(text), expected, "{text}");
        }
    }

    #[test]
    fn last_forwarded_protocol_counts() {
        let name = "x-forwarded-proto";
        for (lines, last, secure) in [
            (&["https"][..], "https", true),
            (&["https, https"], "https", true),
            (&["http,HTTPS"], "HTTPS", true),
            (&["http", "wss"], "wss", true),
            (&["https, http"], "http", false),
            (&["https", "http"], "http", false),
        ] {
            let request = lines
                .iter()
                .fold(TestRequest::default(), |request, line| {
                    request.append_header((name, *line))
                })
                .to_http_request();
            assert_eq!(last_forwarded(&request, name), Some(last));
            assert_eq!(is_tls(last), secure, "{lines:?}");
        }
    }
}
