//! Why a value could not be written or read.
//!
//! Plain data; nothing here reaches a client.

use super::MAX_DEPTH;

/// A value that cannot be written. Each is a fault of whoever built the JSON text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The text is not one JSON value, or arguments are not one array.
    #[error("not the JSON that must stand here: fault at byte {at}")]
    Json {
        /// Offset into the text.
        at: usize,
    },
    /// Arrays and objects nest deeper than [`MAX_DEPTH`].
    #[error("arguments nest deeper than {MAX_DEPTH}")]
    TooDeep,
    /// A placeholder names no attachment.
    #[error("placeholder at byte {at} names no attachment of {num_attachments}")]
    Placeholder {
        /// Offset of the placeholder into the text.
        at: usize,
        /// How many attachments there are.
        num_attachments: usize,
    },
    /// A text, an attachment or a list is longer than MessagePack can say (2³² − 1), or the JSON of all is longer than that.
    #[error("a value of {len} bytes or elements is too long for MessagePack")]
    TooLong {
        /// Its length.
        len: usize,
    },
}

/// Bytes that are no value, or none that we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a value, or claim more elements than could follow.
    #[error("truncated at byte {at}")]
    Truncated {
        /// Where the value that does not fit begins.
        at: usize,
    },
    /// `c1`, the one byte that MessagePack never uses.
    #[error("reserved marker at byte {at}")]
    Marker {
        /// Its offset.
        at: usize,
    },
    /// Bytes follow the value.
    #[error("{len} trailing bytes")]
    Trailing {
        /// How many.
        len: usize,
    },
    /// Arrays and maps nest too deep.
    #[error("nested deeper than {max}")]
    TooDeep {
        /// The limit.
        max: usize,
    },
    /// A map key that has no sensible text in JavaScript.
    #[error("map key at byte {at} is a container")]
    Key {
        /// Its offset.
        at: usize,
    },
    /// Plain data that looks like a placeholder, beside real attachments: a client could not tell them apart.
    #[error("data imitates a placeholder")]
    FalsePlaceholder,
    /// Too many binary values.
    #[error("more than {max} attachments")]
    Attachments {
        /// The limit.
        max: usize,
    },
}
