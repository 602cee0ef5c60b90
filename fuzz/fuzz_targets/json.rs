//! The JSON checks against serde_json's own tree: whatever it takes must be taken, with the same first element.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, value::RawValue};
use sockhop::socket_io::json::{MAX_DEPTH, check_array, check_object, is_deeper};

fn tree_depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(tree_depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(tree_depth).max().unwrap_or(0),
        _ => 0,
    }
}

fuzz_target!(|text: &str| {
    let tree = serde_json::from_str::<Value>(text);
    let array = check_array(text);
    let object = check_object(text);
    if array.is_ok() || object.is_ok() {
        assert!(serde_json::from_str::<&RawValue>(text.trim()).is_ok());
        assert!(!is_deeper(text, MAX_DEPTH));
        assert!(array.is_err() || object.is_err());
    }
    let Ok(tree) = tree else { return };
    // Duplicate keys hide values from the tree, so it can only be shallower.
    for max in 0..tree_depth(&tree) {
        assert!(is_deeper(text, max));
    }
    if is_deeper(text, MAX_DEPTH) {
        assert!(array.is_err() && object.is_err());
        return;
    }
    match &tree {
        Value::Array(items) => {
            let first = array.expect("an array").first;
            let first = first.map(|first| serde_json::from_str::<Value>(first).expect("valid"));
            assert_eq!(first.as_ref(), items.first());
        }
        Value::Object(_) => assert_eq!(object.is_ok(), text.starts_with('{')),
        _ => assert!(array.is_err() && object.is_err()),
    }
});
