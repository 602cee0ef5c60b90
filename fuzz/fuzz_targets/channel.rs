//! Names of Redis channels: what is published is heard through the pattern, and addresses whom it was meant for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sockhop::{
    adapter::channel::{Addressed, BroadcastChannels},
    hub::broadcast::Target,
    socket_io::ids::{Namespace, Room},
};

/// Redis' glob, as far as an escaped name with a star behind it needs it.
fn hears(pattern: &str, channel: &str) -> bool {
    let literal = pattern.strip_suffix('*').expect("a star stands last");
    let mut unescaped = String::new();
    let mut chars = literal.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => unescaped.push(chars.next().expect("something is escaped")),
            '*' | '?' | '[' => panic!("a glob character acts as one"),
            c => unescaped.push(c),
        }
    }
    channel.starts_with(&unescaped)
}

fuzz_target!(|input: (&str, Vec<&str>, &[u8])| {
    let (namespace, rooms, other) = input;
    let channels = BroadcastChannels::new("socket.io", Namespace::from(namespace));
    _ = channels.addressed(other);
    let target = Target {
        rooms: rooms.iter().map(|room| Room::from(*room)).collect(),
        except: Vec::new(),
    };
    let channel = channels.publish_to(&target);
    assert!(hears(channels.pattern(), &channel));
    let expected = match rooms.as_slice() {
        [room] if !room.is_empty() => Addressed::Room(Room::from(*room)),
        _ => Addressed::Namespace,
    };
    assert_eq!(channels.addressed(channel.as_bytes()), Some(expected));
});
