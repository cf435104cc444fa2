//! Whatever a client's frame holds: no panic, and what answers it is JSON that names what the client waits for.

#![no_main]

use copydesk::protocol::{BadRequest, Code, Frames, Refusal, done, error, parse};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// The JSON within one frame.
fn payload(frame: &[u8]) -> Value {
    let header = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    serde_json::from_slice(&frame[header..]).expect("what the server says is JSON")
}

fuzz_target!(|text: &str| {
    let refusal = Refusal::new(Code::Busy, "no");
    match parse(text) {
        Ok((_, echo)) => {
            // Lone surrogates are legal in a request's JSON text and repeated as they came.
            if !text.contains("\\u") {
                assert!(payload(&done(&echo)).is_object());
                assert!(payload(&error(&echo, &refusal))["error"].is_object());
            }
        }
        Err(BadRequest::Refused(echo, refusal)) => {
            if !text.contains("\\u") {
                assert!(payload(&error(&echo, &refusal))["error"]["code"].is_string());
            }
        }
        Err(BadRequest::NotAnObject) => {}
    }
    assert!(!Frames::one(text.as_bytes()).is_empty());
});
