//! Which pages may speak for their user: browsers send cookies along, whoever wrote the page.

/// Whether a request from a page of `origin` may act for the user: the page is ours, or named in `allowed`.
///
/// Without an origin it is no page that asks. `host` is what the request says it was sent to.
pub(super) fn may_act(origin: Option<&str>, host: &str, is_tls: bool, allowed: &[String]) -> bool {
    let Some(origin) = origin else { return true };
    if allowed.iter().any(|one| one == origin) {
        return true;
    }
    match origin.split_once("://") {
        Some(("https", name)) => name == host,
        // A proxy in front may speak TLS where we do not, but not the other way round.
        Some(("http", name)) => !is_tls && name == host,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
