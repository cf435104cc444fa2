//! Which pages may speak for their user: browsers send cookies along, whoever wrote the page.

use std::net::IpAddr;

/// Whether a request from a page of `origin` may act for the user: the page is ours, or named in `allowed`.
///
/// Without an origin it is no page that asks. `host` is what the request says it was sent to.
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
    // A proxy in front may speak TLS where we do not, but not the other way round.
    (scheme == HTTPS || !is_tls) && !name.is_empty() && name == without_default_port(host, scheme)
}

const HTTPS: &str = "https";

/// An origin's scheme and its host with the port, in the form in which browsers write them: in lower case, without the
/// port that is the scheme's default. `None` unless the scheme is http or https.
fn split(origin: &str) -> Option<(&'static str, String)> {
    let (scheme, name) = origin.split_once("://")?;
    let scheme = [HTTPS, "http"]
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(scheme))?;
    let name = name.strip_suffix('/').unwrap_or(name);
    Some((scheme, without_default_port(name, scheme)))
}

/// A host in lower case, without the port that is the scheme's default: proxies pass on names in either form.
fn without_default_port(host: &str, scheme: &str) -> String {
    let port = if scheme == HTTPS { ":443" } else { ":80" };
    let host = host.strip_suffix(port).unwrap_or(host);
    host.to_ascii_lowercase()
}

/// Whether the page may be ours though its name is not `host`: as where a proxy in front passes on the name without its
/// port, or a word of its own for us and the page is of this machine.
pub(super) fn may_be_ours(origin: Option<&str>, host: &str) -> bool {
    let Some(("http" | "https", page)) = origin.and_then(|origin| origin.split_once("://")) else {
        return false;
    };
    let is_bare = !host.is_empty() && without_port(host) == host;
    let is_word_of_proxy = is_word(without_port(host)) && !is_loopback(host);
    let is_same = without_port(page).eq_ignore_ascii_case(host);
    (is_bare && is_same) || (is_word_of_proxy && is_loopback(page))
}

/// Whether `host` is a name that only this machine or its network has, an address, or named in `allowed`: none that
/// somebody else can point here. A name of one word is no name of the internet; proxies in front have such names for us.
pub(super) fn is_here(host: &str, allowed: &[String]) -> bool {
    let name = without_port(host).to_ascii_lowercase();
    let is_local = is_word(&name) || name.ends_with(".localhost");
    is_local || address(host).is_some() || allowed.iter().any(|one| is_page_of(one, host))
}

/// Whether `host` is this machine, whatever any directory of names says.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let named = without_port(host).eq_ignore_ascii_case("localhost");
    named || address(host).is_some_and(|address| address.is_loopback())
}

/// Whether a text is an origin: with a path or a pattern it would match none.
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
        // An address of IPv6 has colons of its own, within brackets.
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_others_can_point_here_is_not_ours() {
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
    fn an_origin_has_no_path() {
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
    fn only_our_pages_and_those_named_may_act() {
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
