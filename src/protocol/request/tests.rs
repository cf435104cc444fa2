use super::presence::depth;
use super::*;

fn refused(text: &str) -> (String, &'static str, String) {
    match parse(text) {
        Err(BadRequest::Refused(echo, refusal)) => (
            echo.all().to_owned(),
            refusal.code.as_str(),
            refusal.message,
        ),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn malformed_requests_are_rejected_with_sharedbs_messages() {
    for (text, message) in [
        (r#"{"a":"f","c":5,"d":"x"}"#, "Invalid collection"),
        (
            r#"{"a":"f","c":"constructor","d":"x"}"#,
            "Invalid collection",
        ),
        (r#"{"a":"f","d":"x"}"#, "Invalid collection"),
        (r#"{"a":"f","c":"x"}"#, "Invalid id"),
        (r#"{"a":"f","c":"x","d":"__proto__"}"#, "Invalid id"),
        (r#"{"a":"f","c":"x","d":"y","v":-1}"#, "Invalid version"),
        (r#"{"a":"f","c":"x","d":"y","v":1.5}"#, "Invalid version"),
        (r#"{"a":"f","c":"x","d":"y","v":1e308}"#, "Invalid version"),
        (r#"{"a":"f","c":"x","d":"y","v":"1"}"#, "Invalid version"),
        (
            r#"{"a":"bs","c":"x","b":null}"#,
            "Invalid bulk subscribe data",
        ),
        (r#"{"a":"bs","c":"x","b":["a",1]}"#, "Invalid id"),
        (r#"{"a":"bs","c":"x","b":{"a":-1}}"#, "Invalid version"),
        (r#"{"a":"hs","protocol":{}}"#, "Invalid protocol"),
        (r#"{"a":"hs","protocol":true}"#, "Invalid protocol"),
        (r#"{"a":"zz"}"#, "Invalid or unknown message"),
        (r#"{"a":5}"#, "Invalid or unknown message"),
        (r#"{}"#, "Invalid or unknown message"),
        (r#"{"a":"f","a":"f"}"#, "Invalid or unknown message"),
        (
            r#"{"a":"p","ch":"toString","id":"x"}"#,
            "Invalid presence channel",
        ),
        (r#"{"a":"p","ch":"x","id":1}"#, "Invalid presence ID"),
        (
            r#"{"a":"p","ch":"x","id":"y","pv":-1}"#,
            "Invalid presence version",
        ),
        (
            r#"{"a":"nt","c":"x","d":"y","ts":"1"}"#,
            "Invalid timestamp",
        ),
        (
            r#"{"a":"op","c":"x","d":"y","seq":"1","op":[]}"#,
            "Invalid seq",
        ),
    ] {
        let (_, code, said) = refused(text);
        assert_eq!(
            (code, said.as_str()),
            ("ERR_MESSAGE_BADLY_FORMED", message),
            "{text}"
        );
    }
}

#[test]
fn malformed_submits_are_rejected_with_sharedbs_messages() {
    for (members, message) in [
        (r#""op":[]"#, "Both src and seq must be set together"),
        (r#""seq":1"#, "Missing op, create, or del"),
        (r#""seq":1,"del":1"#, "del value must be true"),
        (r#""seq":1,"create":5"#, "Create data must be an object"),
        (r#""seq":1,"create":{}"#, "Missing create type"),
        (r#""seq":1,"create":{"type":5}"#, "Missing create type"),
        (r#""seq":1,"src":5,"op":[]"#, "src must be a string"),
        (r#""seq":1,"src":"a b","op":[]"#, "src is not a client's id"),
    ] {
        let (echo, code, said) =
            refused(&format!(r#"{{"a":"op","c":"x","d":"y","v":1,{members}}}"#));
        assert_eq!(
            (code, said.as_str()),
            ("ERR_OT_OP_BADLY_FORMED", message),
            "{members}"
        );
        assert!(echo.starts_with(r#""a":"op","c":"x","d":"y","#), "{echo}");
    }
    let (_, code, _) =
        refused(r#"{"a":"op","c":"x","d":"y","v":1,"seq":9007199254740991,"op":[]}"#);
    assert_eq!(code, "ERR_CONNECTION_SEQ_INTEGER_OVERFLOW");
    let (_, code, _) = refused(r#"{"a":"op","c":"x","d":"y","seq":1,"create":{"type":"nope"}}"#);
    assert_eq!(code, "ERR_DOC_TYPE_NOT_RECOGNIZED");
}

#[test]
fn text_that_is_not_a_json_object_has_no_error_reply() {
    for text in [
        "",
        "null",
        "5",
        "\"x\"",
        "[]",
        "nonsense",
        "{",
        "{\"a\":\"\\ud800\"",
    ] {
        assert!(
            matches!(parse(text), Err(BadRequest::NotAnObject)),
            "{text}"
        );
    }
}

#[test]
fn counts_are_parsed_as_javascript_parses_them() {
    for (json, read) in [
        ("0", Some(0)),
        ("2.0", Some(2)),
        ("2e1", Some(20)),
        ("-0", Some(0)),
        ("1e400", None),
    ] {
        assert_eq!(count(json), read, "{json}");
    }
}

#[test]
fn presence_value_nested_deeper_than_32_is_rejected() {
    for (json, nested) in [("1", 0), (r#"{"a":[1,{}]}"#, 3), (r#"["[[[\"[",[]]"#, 2)] {
        assert_eq!(depth(json), nested, "{json}");
    }
    let said = |depth: usize| {
        let value = "[".repeat(depth) + &"]".repeat(depth);
        parse(&format!(r#"{{"a":"p","ch":"x","id":"y","p":{value}}}"#))
    };
    assert!(said(32).is_ok());
    for depth in [33, 100, 4_000] {
        assert!(said(depth).is_err(), "{depth}");
    }
}

#[test]
fn presence_has_the_name_of_its_user_or_is_marked_as_a_guests() {
    let ann = Some("Ann");
    for (user, value, signed) in [
        (
            ann,
            r#"{"name":"Bob","index":1}"#,
            r#"{"index":1,"name":"Ann"}"#,
        ),
        (ann, r#"{"name":{"first":"Bob"}}"#, r#"{"name":"Ann"}"#),
        (ann, r#"{"name":"Bob","guest":1}"#, r#"{"name":"Ann"}"#),
        (
            ann,
            r#"{"name":"Ann", "index":1}"#,
            r#"{"name":"Ann", "index":1}"#,
        ),
        (None, r#"{"name":"Ann"}"#, r#"{"guest":true,"name":"Ann"}"#),
        (
            None,
            r#"{"name":"Ann","guest":0}"#,
            r#"{"guest":true,"name":"Ann"}"#,
        ),
        (None, r#"{"guest":false}"#, r#"{"guest":false}"#),
        (ann, r#"{"index":1}"#, r#"{"index":1}"#),
        (ann, r#"["name"]"#, r#"["name"]"#),
        (ann, "null", "null"),
    ] {
        let text = format!(r#"{{"a":"p","ch":"x","id":"y","p":{value}}}"#);
        let Ok((ClientMessage::Presence(mut presence), _)) = parse(&text) else {
            panic!("{text}")
        };
        presence.sign(user);
        let value = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
        assert_eq!(value(&presence.value), value(signed), "{text}");
    }
}

#[test]
fn bulk_request_has_a_list_of_names_or_a_map_of_revisions() {
    let Ok((ClientMessage::BulkSubscribe(bulk), _)) =
        parse(r#"{"a":"bs","c":"x","b":["b","a","b"]}"#)
    else {
        panic!("a bulk subscription");
    };
    assert_eq!((bulk.docs.len(), bulk.since), (2, false));
    let Ok((ClientMessage::BulkFetch(bulk), _)) =
        parse(r#"{"a":"bf","c":"x","b":{"a":3,"b":null}}"#)
    else {
        panic!("a bulk fetch");
    };
    let since: Vec<_> = bulk.docs.values().copied().collect();
    assert_eq!((since, bulk.since), (vec![Some(Revision(3)), None], true));
}
