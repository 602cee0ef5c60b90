//! Where a node of a Redis Cluster points to: pure.
//!
//! Source: Redis cluster specification, "MOVED redirection"; Redis command reference, CLUSTER SLOTS.

/// Returns the host and the port of an address as MOVED and ASK give it: `host:port`, also with an IPv6 address in brackets or without;
/// `None` if it is none. No host is that of the node which gave it.
pub fn read(address: &str) -> Option<(Option<&str>, u16)> {
    // The last colon: an IPv6 address has others.
    let (name, port) = address.rsplit_once(':')?;
    Some((host(name), port.parse().ok()?))
}

/// Returns the host that a node means by a name: none if it is its own, which it need not know.
pub fn host(name: &str) -> Option<&str> {
    match name {
        "" | "?" => None,
        name => Some(name.trim_matches(['[', ']'])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_or_means_the_nodes_own() {
        for (address, expected) in [
            ("127.0.0.1:6381", Some((Some("127.0.0.1"), 6381))),
            ("redis.local:7000", Some((Some("redis.local"), 7000))),
            ("fe80::1:7000", Some((Some("fe80::1"), 7000))),
            ("[fe80::1]:7000", Some((Some("fe80::1"), 7000))),
            (":7000", Some((None, 7000))),
            ("?:7000", Some((None, 7000))),
            ("h", None),
            ("h:", None),
            ("h:99999", None),
            ("", None),
        ] {
            assert_eq!(read(address), expected, "{address}");
        }
    }
}
