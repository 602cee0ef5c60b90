//! Cutting the name off an event's arguments, against serde_json's tree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sockhop::socket_io::{args::Args, json::check_array};

fuzz_target!(|text: &str| {
    // What the decoder hands out.
    let Ok(array) = check_array(text) else { return };
    let rest = Args::from_parts(text.into(), Vec::new()).without_name();
    let cut = check_array(rest.json()).expect("what is left is one array");
    if array.first.is_none() {
        assert_eq!(cut.first, None);
    }
    if let (Ok(Value::Array(all)), Ok(Value::Array(left))) = (
        serde_json::from_str(text),
        serde_json::from_str(rest.json()),
    ) {
        assert_eq!(all.get(1..).unwrap_or_default(), left);
    }
});
