//! What came of the head of a request and is not handed out yet.
//!
//! Who parses a head looks at all of it anew whenever more of it comes. So what comes in small pieces is kept back until the head is
//! whole, or as much is kept as was handed out before: of a head of n bytes fewer than 3n are looked at, however it comes. What comes
//! first is handed out at once, and refused at once if it is no head.
//!
//! Plain struct: no stream and no clock. That a head does not grow beyond its limit is for whoever reads it.

use tokio::io::ReadBuf;

/// The bytes that are kept back.
#[derive(Debug, Default)]
pub(super) struct HeldHead {
    bytes: Vec<u8>,
    /// How many bytes of the head were handed out.
    num_out: usize,
    is_due: bool,
    /// Whether what comes next is no part of it.
    is_whole: bool,
}

impl HeldHead {
    /// Takes what comes next of a head, or of the next one. Returns whether it is kept; if not, it is handed out now.
    pub(super) fn keep(&mut self, bytes: &[u8], is_whole: bool) -> bool {
        let is_due = is_whole || self.bytes.len() + bytes.len() >= self.num_out;
        if is_due && self.bytes.is_empty() {
            self.num_out = if is_whole {
                0
            } else {
                self.num_out + bytes.len()
            };
            return false;
        }
        self.bytes.extend_from_slice(bytes);
        (self.is_due, self.is_whole) = (is_due, is_whole);
        true
    }

    /// No more comes of it: all that is kept is due. Returns whether that is anything.
    pub(super) fn release(&mut self) -> bool {
        if self.bytes.is_empty() {
            self.num_out = 0;
            return false;
        }
        (self.is_due, self.is_whole) = (true, true);
        true
    }

    /// Returns whether what is kept is to be handed out.
    pub(super) fn is_due(&self) -> bool {
        self.is_due
    }

    /// Hands out what fits. Returns how many bytes that were.
    pub(super) fn hand_out(&mut self, buf: &mut ReadBuf<'_>) -> usize {
        let len = self.bytes.len().min(buf.remaining());
        buf.put_slice(self.bytes.get(..len).unwrap_or_default());
        self.bytes.drain(..len);
        self.num_out += len;
        if self.bytes.is_empty() {
            let num_out = if self.is_whole { 0 } else { self.num_out };
            // It keeps no memory beyond that.
            *self = Self {
                num_out,
                ..Self::default()
            };
        }
        len
    }

    /// Returns what is left.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the portions in which a head of such pieces is handed out, each to a buffer of so many bytes.
    fn portions(held: &mut HeldHead, pieces: &[usize], buf_bytes: usize) -> Vec<usize> {
        let (mut portions, mut num_pieces) = (Vec::new(), pieces.len());
        for len in pieces {
            num_pieces -= 1;
            if !held.keep(&vec![b'x'; *len], num_pieces == 0) {
                portions.push(*len);
            }
            while held.is_due() {
                let mut buf = vec![0; buf_bytes];
                portions.push(held.hand_out(&mut ReadBuf::new(&mut buf)));
            }
        }
        assert_eq!(portions.iter().sum::<usize>(), pieces.iter().sum::<usize>());
        portions
    }

    #[test]
    fn as_much_is_handed_out_as_was_before() {
        let mut held = HeldHead::default();
        for (pieces, expected) in [
            (&[300][..], &[300][..]),
            (&[5, 3, 3, 1], &[5, 6, 1]),
            (&[1; 20], &[1, 1, 2, 4, 8, 4]),
            (&[2, 1, 9, 100, 1], &[2, 10, 100, 1]),
        ] {
            assert_eq!(portions(&mut held, pieces, 1000), expected, "{pieces:?}");
        }
        let in_small = portions(&mut held, &[1; 20], 3);
        assert_eq!(in_small, [1, 1, 2, 3, 1, 3, 3, 2, 3, 1]);
    }

    #[test]
    fn less_than_three_times_a_head_is_looked_at() {
        for num in 2..3000 {
            let mut so_far = 0;
            let portions = portions(&mut HeldHead::default(), &vec![1; num], num);
            let looked_at = portions.into_iter().map(|len| {
                so_far += len;
                so_far
            });
            let looked_at: usize = looked_at.sum();
            assert!(looked_at < 3 * num, "{looked_at} of {num}");
        }
    }

    #[test]
    fn of_what_never_becomes_a_head_all_is_handed_out_at_the_end() {
        let mut held = HeldHead::default();
        assert!(!held.keep(b"ab", false));
        assert!(!held.release(), "what comes next is another");
        assert!(!held.keep(b"c", false));
        assert!(!held.keep(b"d", false));
        assert!(held.keep(b"e", false));
        assert!(!held.is_due());
        assert!(held.release() && held.is_due());
        let mut bytes = [0; 4];
        assert_eq!(held.hand_out(&mut ReadBuf::new(&mut bytes)), 1);
        assert!(!held.is_due());
        assert!(!held.keep(b"f", false), "another");
    }
}
