//! Which log lines are left out: those of one place in the code, once they come so fast that another tells nothing new.
//!
//! Strangers decide how often some things happen that the log is told of, and whoever floods us must not flood the log: each line is
//! written before its thread goes on. Places, not texts: there are as many as the code has, and if a text was given for one, so many count.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lines of one place in one [`SPAN`]; further ones are left out.
pub(super) const MAX_LINES: u32 = 20;
/// How long that counts.
pub(super) const SPAN: Duration = Duration::from_secs(10);

/// Places that are told apart; all further ones are taken for one.
const MAX_PLACES: usize = 1024;

/// A place in the code: its file, or another name where that is not known, and line.
pub(super) type Place<'a> = (&'a str, u32);

#[derive(Debug)]
struct Span {
    begin: Instant,
    num: u32,
}

/// How a line is to be said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it is.
    Say,
    /// After as many lines that were left out.
    SayAfter(u32),
    /// It is the last that is said in this span.
    SayAsLast,
    /// Not at all.
    LeaveOut,
}

/// How often each place has spoken.
#[derive(Debug, Default)]
pub(super) struct Repeats(Mutex<HashMap<(Box<str>, u32), Span>>);

impl Repeats {
    /// Judges a line that is about to be written.
    pub(super) fn judge(&self, (name, line): Place<'_>, now: Instant) -> Verdict {
        // Nothing panics in there; if it did, the table would still be one.
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Span { begin: now, num: 0 };
        let mut place = (Box::from(name), line);
        if places.len() >= MAX_PLACES && !places.contains_key(&place) {
            place = (Box::default(), 0);
        }
        let span = places.entry(place).or_insert(new);
        let mut num_left_out = 0;
        if now.saturating_duration_since(span.begin) >= SPAN {
            num_left_out = span.num.saturating_sub(MAX_LINES);
            *span = Span { begin: now, num: 0 };
        }
        span.num = span.num.saturating_add(1);
        match span.num {
            ..MAX_LINES if num_left_out > 0 => Verdict::SayAfter(num_left_out),
            ..MAX_LINES => Verdict::Say,
            MAX_LINES => Verdict::SayAsLast,
            _ => Verdict::LeaveOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_speaks_too_often_is_cut_short_and_others_are_not() {
        let repeats = Repeats::default();
        let start = Instant::now();
        for n in 1..=100 {
            let verdict = repeats.judge(("a.rs", 1), start);
            let expected = match n {
                ..MAX_LINES => Verdict::Say,
                MAX_LINES => Verdict::SayAsLast,
                _ => Verdict::LeaveOut,
            };
            assert_eq!(verdict, expected, "{n}");
        }
        for place in [("a.rs", 2), ("b.rs", 1)] {
            assert_eq!(repeats.judge(place, start), Verdict::Say);
        }
        let almost = start + SPAN - Duration::from_millis(1);
        assert_eq!(repeats.judge(("a.rs", 1), almost), Verdict::LeaveOut);
        let next = Verdict::SayAfter(100 + 1 - MAX_LINES);
        assert_eq!(repeats.judge(("a.rs", 1), start + SPAN), next);
        assert_eq!(repeats.judge(("a.rs", 1), start + SPAN), Verdict::Say);
    }

    #[test]
    fn only_so_many_places_are_told_apart() {
        let (repeats, now) = (Repeats::default(), Instant::now());
        for line in 1..=MAX_PLACES as u32 {
            assert_eq!(repeats.judge(("a.rs", line), now), Verdict::Say);
        }
        for line in 1..MAX_LINES {
            assert_eq!(repeats.judge(("b.rs", line), now), Verdict::Say);
        }
        assert_eq!(repeats.judge(("c.rs", 1), now), Verdict::SayAsLast);
        assert_eq!(repeats.judge(("d.rs", 1), now), Verdict::LeaveOut);
        assert_eq!(repeats.judge(("a.rs", 1), now), Verdict::Say);
        assert_eq!(repeats.0.lock().unwrap().len(), MAX_PLACES + 1);
    }
}
