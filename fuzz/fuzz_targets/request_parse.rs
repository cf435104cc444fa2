//! Parses arbitrary text as a client's message: no panic, and the error reply is JSON that identifies the request.

#![no_main]

use std::collections::BTreeMap;

use copydesk::protocol::{BadRequest, Code, Frames, Refusal, done, error, parse};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;

/// The members of the JSON object within one frame, not parsed: repeated members may contain numbers like 1e400, which is
/// valid JSON and too large for a float.
fn payload(frame: &[u8]) -> BTreeMap<String, Box<RawValue>> {
    let header = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    serde_json::from_slice(&frame[header..]).expect("what the server says is a JSON object")
}

fn said_error(frame: &[u8]) -> Value {
    serde_json::from_str(payload(frame)["error"].get()).expect("what the server says itself is JSON")
}

fuzz_target!(|text: &str| {
    let refusal = Refusal::new(Code::Busy, "no");
    match parse(text) {
        Ok((_, echo)) => {
            // Lone surrogates are valid in the JSON of a request and repeated unchanged.
            if !text.contains("\\u") {
                payload(&done(&echo));
                assert!(said_error(&error(&echo, &refusal)).is_object());
            }
        }
        Err(BadRequest::Refused(echo, refusal)) => {
            if !text.contains("\\u") {
                assert!(said_error(&error(&echo, &refusal))["code"].is_string());
            }
        }
        Err(BadRequest::NotAnObject) => {}
    }
    assert!(!Frames::one(text.as_bytes()).is_empty());
});
