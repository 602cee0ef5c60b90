//! Which log lines are left out: those of one place in the code, once they come so fast that another tells nothing new.
//!
//! Strangers decide how often some things happen that the log is told of, and whoever floods us must not flood the log: each line is
//! written before its thread goes on. Places, not texts: there are as many as the code has, and if a text was given for one, so many count.
//! A line that handlers have in common is a place for each of them.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::About;

/// Lines of one place in one [`SPAN`]; further ones are left out.
pub(super) const MAX_LINES: u32 = 20;
/// How long that counts.
pub(super) const SPAN: Duration = Duration::from_secs(10);

/// Places that are told apart. Those that have long been silent make room for others; all further ones are taken for one.
const MAX_PLACES: usize = 1024;

/// A place in the code: its file, or another name where that is not known, and line; and the handler that was at work.
pub(super) type Place<'a> = (&'a str, u32, About);

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
pub(super) struct Repeats(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    spans: HashMap<(Box<str>, u32, About), Span>,
    /// When there was no room last.
    crowded: Option<Instant>,
}

impl Table {
    /// Forgets those of whom nothing is to be said when they speak again.
    fn make_room(&mut self, now: Instant) {
        let is_past = |at: Instant| now.saturating_duration_since(at) >= SPAN;
        if self.crowded.is_none_or(is_past) {
            self.crowded = Some(now);
            self.spans
                .retain(|_, span| !is_past(span.begin) || span.num > MAX_LINES);
        }
    }
}

impl Repeats {
    /// Judges a line that is about to be written.
    pub(super) fn judge(&self, (name, line, about): Place<'_>, now: Instant) -> Verdict {
        // Nothing panics in there; if it did, the table would still be one.
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Span { begin: now, num: 0 };
        let mut place = (Box::from(name), line, about);
        if table.spans.len() >= MAX_PLACES && !table.spans.contains_key(&place) {
            table.make_room(now);
            if table.spans.len() >= MAX_PLACES {
                place = Default::default();
            }
        }
        let span = table.spans.entry(place).or_insert(new);
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

    fn at(file: &str, line: u32) -> Place<'_> {
        (file, line, About::default())
    }

    #[test]
    fn a_place_that_speaks_too_often_is_cut_short_and_others_are_not() {
        let repeats = Repeats::default();
        let start = Instant::now();
        for n in 1..=100 {
            let verdict = repeats.judge(at("a.rs", 1), start);
            let expected = match n {
                ..MAX_LINES => Verdict::Say,
                MAX_LINES => Verdict::SayAsLast,
                _ => Verdict::LeaveOut,
            };
            assert_eq!(verdict, expected, "{n}");
        }
        let handler = About::default().and("a");
        for place in [at("a.rs", 2), at("b.rs", 1), ("a.rs", 1, handler)] {
            assert_eq!(repeats.judge(place, start), Verdict::Say);
        }
        let almost = start + SPAN - Duration::from_millis(1);
        assert_eq!(repeats.judge(at("a.rs", 1), almost), Verdict::LeaveOut);
        let next = Verdict::SayAfter(100 + 1 - MAX_LINES);
        assert_eq!(repeats.judge(at("a.rs", 1), start + SPAN), next);
        assert_eq!(repeats.judge(at("a.rs", 1), start + SPAN), Verdict::Say);
    }

    #[test]
    fn only_so_many_places_are_told_apart() {
        let (repeats, now) = (Repeats::default(), Instant::now());
        for line in 1..=MAX_PLACES as u32 {
            assert_eq!(repeats.judge(at("a.rs", line), now), Verdict::Say);
        }
        for line in 1..MAX_LINES {
            assert_eq!(repeats.judge(at("b.rs", line), now), Verdict::Say);
        }
        assert_eq!(repeats.judge(at("c.rs", 1), now), Verdict::SayAsLast);
        assert_eq!(repeats.judge(at("d.rs", 1), now), Verdict::LeaveOut);
        assert_eq!(repeats.judge(at("a.rs", 1), now), Verdict::Say);
        assert_eq!(repeats.0.lock().unwrap().spans.len(), MAX_PLACES + 1);
    }
    /// A bug: a place that had spoken once had its room for good.
    #[test]
    fn places_that_are_silent_make_room_unless_something_is_to_be_said_of_them() {
        let (repeats, start) = (Repeats::default(), Instant::now());
        for _ in 0..=MAX_LINES {
            repeats.judge(at("loud.rs", 1), start);
        }
        for line in 1..=MAX_PLACES as u32 {
            repeats.judge(at("a.rs", line), start);
        }
        let num_known = || repeats.0.lock().unwrap().spans.len();
        assert_eq!(num_known(), MAX_PLACES + 1);
        let later = start + SPAN;
        repeats.judge(at("b.rs", 1), later);
        assert_eq!(num_known(), 2);
        assert_eq!(
            repeats.judge(at("loud.rs", 1), later),
            Verdict::SayAfter(1),
            "it is not forgotten"
        );
    }
}
