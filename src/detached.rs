//! Parts of what clients sent that may be kept long, without the rest.
//!
//! A slice of `Bytes` keeps the whole of it in memory. What is a small part of it is copied out, so that bytes in memory are about those
//! that are counted. And what grew as it came has up to twice the memory that it needs. Knows no packets.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

/// Bytes that a text may have spare, whatever its length.
const FREE: usize = 64;

/// What is no longer than this is no loss, whatever is kept of it.
const SMALL: usize = 512;

/// Returns a part that keeps at most twice its own size in memory, or some bytes, of the `whole_len` it was cut from.
pub(crate) fn detached(part: Bytes, whole_len: usize) -> Bytes {
    if is_small_part(part.len(), whole_len) {
        Bytes::copy_from_slice(&part)
    } else {
        part
    }
}

/// Returns part of a text, as [`detached`].
///
/// # Panics
/// `part` is no slice of `text`.
pub(crate) fn detached_text(part: &str, text: &ByteString, whole_len: usize) -> ByteString {
    if is_small_part(part.len(), whole_len) {
        ByteString::from(part)
    } else {
        text.slice_ref(part)
    }
}

/// Returns bytes that have come to their end, in not much more memory than they need.
pub(crate) fn fitted(bytes: BytesMut) -> Bytes {
    if !is_much_spare(bytes.capacity(), bytes.len()) {
        return bytes.freeze();
    }
    let mut bytes = Vec::from(bytes);
    bytes.shrink_to_fit();
    Bytes::from(bytes)
}

/// Returns a text, as [`fitted`]; most are short, and may keep some bytes.
pub(crate) fn fitted_text(mut text: String) -> String {
    if text.capacity() - text.len() > FREE && is_much_spare(text.capacity(), text.len()) {
        text.shrink_to_fit();
    }
    text
}

fn is_much_spare(capacity: usize, len: usize) -> bool {
    capacity - len > len / 4
}

fn is_small_part(len: usize, whole_len: usize) -> bool {
    whole_len > SMALL && len < whole_len / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_grew_keeps_no_more_than_it_needs() {
        for (len, capacity, most) in [
            (10, 70, 70),
            (10, 80, 74),
            (1000, 1250, 1250),
            (1000, 2000, 1250),
        ] {
            let mut grown = String::with_capacity(capacity);
            grown.push_str(&"x".repeat(len));
            let fitted = fitted_text(grown);
            assert_eq!(fitted.len(), len);
            assert!(
                fitted.capacity() <= most,
                "{len} of {capacity}: {}",
                fitted.capacity()
            );
        }
    }

    #[test]
    fn what_grew_keeps_no_more_than_it_needs() {
        for capacity in [1000, 1250, 1251, 2000, 100_000] {
            let mut grown = BytesMut::with_capacity(capacity);
            grown.extend_from_slice(&[7; 1000]);
            let fitted = fitted(grown);
            assert_eq!(fitted, [7; 1000].as_slice());
            let memory = fitted.try_into_mut().unwrap();
            assert!(
                memory.capacity() <= 1250,
                "{capacity}: {}",
                memory.capacity()
            );
        }
    }

    #[test]
    fn a_small_part_does_not_keep_the_whole() {
        for (len, whole_len, is_kept) in [
            (1, SMALL, true),
            (1, SMALL + 1, false),
            (499, 1000, false),
            (500, 1000, true),
            (1000, 1000, true),
        ] {
            let whole = ByteString::from("x".repeat(whole_len));
            let addresses = whole.as_bytes().as_ptr_range();
            let text = detached_text(&whole[whole_len - len..], &whole, whole_len);
            let bytes = whole.clone().into_bytes().slice(whole_len - len..);
            let bytes = detached(bytes, whole_len);
            for part in [text.as_bytes(), &bytes] {
                assert_eq!(part.len(), len);
                assert_eq!(
                    addresses.contains(&part.as_ptr()),
                    is_kept,
                    "{len} of {whole_len}"
                );
            }
        }
    }
}
