//! Session ids out of queries: what is taken is taken as it stands, and names its owner.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sockhop::engine_io::sid::Sid;

fuzz_target!(|text: &str| {
    if let Some(sid) = Sid::parse(text) {
        assert_eq!(sid.as_str(), text);
        assert!(text.is_ascii() && text.starts_with(sid.owner().as_str()));
        assert!(
            !format!("{sid:?}").contains(text),
            "it must not reach a log"
        );
    }
});
