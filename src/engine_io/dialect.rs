//! How the bytes of one transport are written: which revision of Engine.IO, and whether binary travels as base64.
//!
//! Pure, small and `Copy`: the session's transports and outboxes pass it on, [`super::encoded`] and the payload codecs obey it.
//!
//! ```text
//!                           revision 4              revision 3
//! polling payload           packets between 0x1E    <length>:<packet>, or the binary form
//! binary message, base64    b<base64>               b4<base64>
//! binary WebSocket frame    the bytes               0x04 and the bytes
//! ```
//! Source: Engine.IO protocol v3 and v4; wire.md 1.3, 1.10.

/// A revision of Engine.IO, the number that clients send as `EIO`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Revision {
    /// Clients 2.x of Socket.IO and older; only where the settings allow it.
    V3,
    /// Clients 3.x and 4.x.
    #[default]
    V4,
}

/// How one transport of a session speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dialect {
    /// The revision; a session never changes it.
    pub revision: Revision,
    /// Whether the client asked for base64 in the place of binary (`b64`). Of a revision 4 client's polling it changes
    /// nothing, since that is always text.
    pub base64: bool,
}

impl Dialect {
    /// What clients 3.x and 4.x speak unless they ask for base64.
    pub const V4: Self = Self {
        revision: Revision::V4,
        base64: false,
    };
}
