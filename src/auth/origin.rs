//! Which origins may act for a user: browsers send cookies with the requests of any page.

use std::net::IpAddr;

/// Returns true if a page of `origin` may act for its user: the page is served by this server, or its origin is in `allowed`.
///
/// A request without an origin does not come from a page. `host` is the `Host` header.
pub(super) fn may_act(origin: Option<&str>, host: &str, is_tls: bool, allowed: &[String]) -> bool {
    let Some(origin) = origin else { return true };
    let Some((scheme, name)) = split(origin) else {
        return false;
    };
    if allowed
        .iter()
        .any(|one| split(one) == Some((scheme, name.clone())))
    {
        return true;
    }
    // A proxy in front may speak TLS although this server does not, but not the other way round.
    (scheme == HTTPS || !is_tls) && !name.is_empty() && name == without_default_port(host, scheme)
}

const HTTPS: &str = "https";

/// The scheme and the host of an origin as browsers write them: in lower case, without the scheme's default port. `None` if
/// the scheme is not http or https.
fn split(origin: &str) -> Option<(&'static str, String)> {
    let (scheme, name) = origin.split_once("://")?;
    let scheme = [HTTPS, "http"]
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(scheme))?;
    let name = name.strip_suffix('/').unwrap_or(name);
    Some((scheme, without_default_port(name, scheme)))
}

/// A host in lower case without the scheme's default port: proxies pass on either form.
fn without_default_port(host: &str, scheme: &str) -> String {
    let port = if scheme == HTTPS { ":443" } else { ":80" };
    let host = host.strip_suffix(port).unwrap_or(host);
    host.to_ascii_lowercase()
}

/// Returns true if the page may be served by this server although its host differs from `host`: a proxy in front passes on
/// the host without its port, or it uses a one-word name for this server and the page is on the same machine.
pub(super) fn may_be_ours(origin: Option<&str>, host: &str) -> bool {
    let Some(("http" | "https", page)) = origin.and_then(|origin| origin.split_once("://")) else {
        return false;
    };
    let is_bare = !host.is_empty() && without_port(host) == host;
    let is_word_of_proxy = is_word(without_port(host)) && !is_loopback(host);
    let is_same = without_port(page).eq_ignore_ascii_case(host);
    (is_bare && is_same) || (is_word_of_proxy && is_loopback(page))
}

/// Returns true if no third party can make `host` resolve to this server: a local name, an address, or the host of an origin
/// in `allowed`. One-word names do not exist in the public DNS; proxies in front use them.
pub(super) fn is_here(host: &str, allowed: &[String]) -> bool {
    let name = without_port(host).to_ascii_lowercase();
    let is_local = is_word(&name) || name.ends_with(".localhost");
    is_local || address(host).is_some() || allowed.iter().any(|one| is_page_of(one, host))
}

/// Returns true if `host` is the loopback interface, independent of DNS.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let named = without_port(host).eq_ignore_ascii_case("localhost");
    named || address(host).is_some_and(|address| address.is_loopback())
}

/// Returns true if the text is an origin. One with a path or a pattern would never match.
pub(super) fn is_origin(text: &str) -> bool {
    let Some((_, name)) = split(text) else {
        return false;
    };
    let is_plain = |it: char| it.is_ascii_graphic() && !"/?#@\\*".contains(it);
    !name.is_empty() && name.chars().all(is_plain)
}

fn is_word(name: &str) -> bool {
    !name.is_empty() && !name.contains(['.', '[', ']'])
}

fn is_page_of(origin: &str, host: &str) -> bool {
    split(origin).is_some_and(|(scheme, name)| name == without_default_port(host, scheme))
}

fn address(host: &str) -> Option<IpAddr> {
    let name = without_port(host);
    let long = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    long.unwrap_or(name).parse().ok()
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // An IPv6 address has colons of its own, within brackets.
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_names_are_not_local() {
        let allowed = ["https://desk.example.org".to_owned()];
        for (host, is_ours) in [
            ("127.0.0.1:8080", true),
            ("127.0.0.1", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("192.0.2.7:80", true),
            ("localhost:8080", true),
            ("Localhost", true),
            ("desk.localhost:1", true),
            ("copydesk", true),
            ("copydesk:8080", true),
            ("desk.example.org", true),
            ("evil.example:8080", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example:8080", false),
            ("evil.example:8080]", false),
            ("", false),
        ] {
            assert_eq!(is_here(host, &allowed), is_ours, "{host}");
        }
    }

    #[test]
    fn origin_with_a_path_is_rejected() {
        for (text, is_one) in [
            ("https://app.example.org", true),
            ("http://127.0.0.1:8080", true),
            ("https://[::1]:8443", true),
            ("https://app.example.org/", true),
            ("https://app.example.org/page", false),
            ("app.example.org", false),
            ("https://", false),
            ("https://*.example.org", false),
            ("wss://app.example.org", false),
            ("null", false),
        ] {
            assert_eq!(is_origin(text), is_one, "{text}");
        }
    }

    #[test]
    fn a_proxy_may_keep_the_name_to_itself() {
        for (origin, host, may) in [
            (Some("http://127.0.0.1:8088"), "127.0.0.1", true),
            (
                Some("https://desk.example.org:8443"),
                "desk.example.org",
                true,
            ),
            (Some("http://127.0.0.1:8088"), "127.0.0.1:8080", false),
            (Some("http://evil.example"), "127.0.0.1", false),
            (Some("http://[::1]:8088"), "[::1]", true),
            (Some("http://127.0.0.1:8088"), "nodes", true),
            (Some("http://evil.example"), "nodes", false),
            (Some("http://localhost:3000"), "localhost:8080", false),
            (Some("null"), "127.0.0.1", false),
            (Some("http://"), "", false),
            (None, "127.0.0.1", false),
        ] {
            assert_eq!(may_be_ours(origin, host), may, "{origin:?} at {host}");
        }
    }

    #[test]
    fn default_ports_and_case_do_not_matter() {
        let allowed = ["https://App.example.org:443/".to_owned()];
        for (origin, host, is_tls, may) in [
            (
                "https://desk.example.org",
                "desk.example.org:443",
                false,
                true,
            ),
            ("https://desk.example.org", "DESK.Example.org", false, true),
            (
                "http://desk.example.org",
                "desk.example.org:80",
                false,
                true,
            ),
            (
                "HTTP://Desk.Example.Org:80",
                "desk.example.org",
                false,
                true,
            ),
            ("http://[2001:db8::1]", "[2001:DB8::1]:80", false, true),
            ("https://app.example.org", "desk.example.org", true, true),
            (
                "https://desk.example.org",
                "desk.example.org:80",
                false,
                false,
            ),
            (
                "http://desk.example.org",
                "desk.example.org:443",
                false,
                false,
            ),
            (
                "https://desk.example.org:8443",
                "desk.example.org",
                false,
                false,
            ),
            (
                "http://desk.example.org",
                "desk.example.org:80",
                true,
                false,
            ),
            ("ftp://desk.example.org", "desk.example.org", false, false),
            ("https://", "", false, false),
            ("https://:443", ":443", false, false),
        ] {
            let found = may_act(Some(origin), host, is_tls, &allowed);
            assert_eq!(found, may, "{origin} at {host}");
        }
    }

    #[test]
    fn own_and_allowed_origins_may_act() {
        let allowed = ["https://app.example.org".to_owned()];
        for (origin, is_tls, may) in [
            (None, false, true),
            (Some("http://desk.example.org:8080"), false, true),
            (Some("https://desk.example.org:8080"), false, true),
            (Some("http://desk.example.org:8080"), true, false),
            (Some("https://app.example.org"), true, true),
            (Some("http://app.example.org"), false, false),
            (Some("https://app.example.org.evil.example"), false, false),
            (Some("https://desk.example.org"), false, false),
            (Some("https://evil.desk.example.org:8080"), false, false),
            (Some("null"), false, false),
            (Some(""), false, false),
            (Some("file://desk.example.org:8080"), false, false),
        ] {
            let found = may_act(origin, "desk.example.org:8080", is_tls, &allowed);
            assert_eq!(found, may, "{origin:?}");
        }
    }
}
