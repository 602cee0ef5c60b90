//! Texts that are no longer than they may be.
//!
//! Pure. What is cut off is never put together: a text that quotes a megabyte costs what is kept of it.

use std::fmt::{self, Write as _};

/// Returns what a value says, as far as it fits into `max_bytes`; a `…` behind that tells that it says more.
pub(crate) fn short(value: impl fmt::Display, max_bytes: usize) -> String {
    let mut short = Short {
        text: String::new(),
        max_bytes,
        is_cut: false,
    };
    // It fails where it is cut. One that fails by itself is told as far as it came.
    _ = write!(short, "{value}");
    if short.is_cut {
        short.text.push('…');
    }
    short.text
}

struct Short {
    text: String,
    max_bytes: usize,
    is_cut: bool,
}

impl fmt::Write for Short {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = self.max_bytes.saturating_sub(self.text.len());
        if more.len() <= room && !self.is_cut {
            self.text.push_str(more);
            return Ok(());
        }
        let mut ends = (0..=room.min(more.len())).rev();
        let end = ends.find(|&at| more.is_char_boundary(at));
        let fitting = end.and_then(|end| more.get(..end));
        if !self.is_cut {
            self.text.push_str(fitting.unwrap_or_default());
        }
        self.is_cut = true;
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_left_as_it_is_and_what_does_not_is_cut_between_two_characters() {
        for (text, max_bytes, expected) in [
            ("", 0, ""),
            ("abc", 3, "abc"),
            ("abc", 2, "ab…"),
            ("abc", 0, "…"),
            ("aéé", 3, "aé…"),
            ("aéé", 4, "aé…"),
            ("aéé", 5, "aéé"),
        ] {
            assert_eq!(short(text, max_bytes), expected, "{text} {max_bytes}");
        }
        assert_eq!(short(format_args!("{}-{}", "ab", "cd"), 4), "ab-c…");
        assert_eq!(short(format_args!("{}{}", "éé", "a"), 3), "é…");
    }

    #[test]
    fn what_is_cut_off_is_not_put_together() {
        struct Endless;
        impl fmt::Display for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    f.write_str("x")?;
                }
            }
        }
        assert_eq!(short(Endless, 2), "xx…");
    }
}
