//! What a Redis says of itself: its answer to `HELLO`.
//!
//! Pure. What it does not say is not held against it.
//!
//! Source: Redis command reference, HELLO.

use std::collections::HashMap;

use redis::Value;

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hello {
    says: HashMap<String, String>,
}

impl Hello {
    /// Reads what RESP2 tells as a list of names, each with its value behind it; passes over what is no text.
    pub(super) fn read(answer: &Value) -> Self {
        let items: &[Value] = match answer {
            Value::Array(items) => items,
            _ => &[],
        };
        let pairs = items.as_chunks().0.iter();
        let says = pairs.filter_map(|[name, value]| Some((text(name)?, text(value)?)));
        Self {
            says: says.collect(),
        }
    }

    /// Returns its version, or nothing.
    pub(super) fn version(&self) -> &str {
        self.get("version")
    }

    /// Returns the first number of its version.
    pub(super) fn major(&self) -> Option<u32> {
        self.version().split('.').next()?.parse().ok()
    }

    /// Returns whether it is a node of a Redis Cluster.
    pub(super) fn is_of_cluster(&self) -> bool {
        self.get("mode") == "cluster"
    }

    /// Returns whether it is a Sentinel.
    pub(super) fn is_sentinel(&self) -> bool {
        self.get("mode") == "sentinel"
    }

    /// Returns whether it repeats what another Redis says.
    pub(super) fn is_replica(&self) -> bool {
        self.get("role") == "replica"
    }

    fn get(&self, name: &str) -> &str {
        self.says.get(name).map_or("", String::as_str)
    }
}

/// Returns a value that is a text, if it is one.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

/// Returns a text as Redis tells it.
#[cfg(test)]
pub(super) fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_says_what_it_is() {
        let answer = Value::Array(vec![
            bulk("server"),
            bulk("redis"),
            bulk("version"),
            bulk("7.0.15"),
            bulk("proto"),
            Value::Int(2),
            bulk("mode"),
            bulk("cluster"),
            bulk("role"),
            bulk("replica"),
            bulk("modules"),
            Value::Array(Vec::new()),
        ]);
        let hello = Hello::read(&answer);
        assert_eq!((hello.version(), hello.major()), ("7.0.15", Some(7)));
        assert!(hello.is_of_cluster() && hello.is_replica() && !hello.is_sentinel());
    }

    #[test]
    fn one_that_says_nothing_is_nothing_in_particular() {
        let odd = Value::Array(vec![bulk("mode")]);
        let not_text = Value::Array(vec![bulk("mode"), Value::BulkString(vec![0xFF])]);
        for answer in [Value::Nil, Value::Array(Vec::new()), odd, not_text] {
            assert_eq!(Hello::read(&answer), Hello::default(), "{answer:?}");
        }
        let nothing = Hello::default();
        assert_eq!((nothing.version(), nothing.major()), ("", None));
        assert!(!nothing.is_of_cluster() && !nothing.is_sentinel() && !nothing.is_replica());
    }
}
