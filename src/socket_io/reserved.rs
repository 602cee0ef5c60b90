//! Names of events that are kept from applications, in one place for all who refuse them.
//!
//! Source: wire.md 2.5.

/// Names of the events that a socket makes itself: neither side may emit them to the other.
pub(crate) const RESERVED_EVENTS: [&str; 6] = [
    "connect",
    "connect_error",
    "disconnect",
    "disconnecting",
    "newListener",
    "removeListener",
];

/// Names that no event between servers may have: what servers tell themselves, and the one that ends a Node server in which nobody
/// listens to it.
pub(crate) const RESERVED_SERVER_EVENTS: [&str; 4] =
    ["connect", "connection", "new_namespace", "error"];
