//! In whose name something is said to the log: which of the application's handlers runs, so that one that speaks too often at a line
//! that all have in common does not silence the others.
//!
//! Made of what the code spells alone, a pattern for one, and never of a name that a client chose: there are as many as handlers.

use std::{
    future::Future,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

tokio::task_local! {
    static SPEAKER: About;
}

/// What the code calls a handler, in short. The default is nobody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct About(u64);

impl About {
    /// Returns what stands within this one by the name of `word`.
    pub(crate) fn and(self, word: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (self.0, word).hash(&mut hasher);
        Self(hasher.finish())
    }

    /// Returns in whose name this thread speaks now.
    pub(super) fn current() -> Self {
        SPEAKER.try_with(|about| *about).unwrap_or_default()
    }

    /// Speaks in this one's name while `call` runs, panics included.
    pub(crate) fn during<T>(self, call: impl FnOnce() -> T) -> T {
        SPEAKER.sync_scope(self, call)
    }

    /// Speaks in this one's name whenever `future` is polled.
    pub(crate) fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        SPEAKER.scope(self, future)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn one_is_known_by_all_of_its_words_in_their_order() {
        let of = |words: &[&str]| {
            let nobody = About::default();
            words.iter().fold(nobody, |about, word| about.and(word))
        };
        let all = [
            of(&[]),
            of(&[""]),
            of(&["/a"]),
            of(&["/a", "connect"]),
            of(&["/a", "event", "connect"]),
            of(&["/a", "connect", "event"]),
            of(&["/aconnect"]),
        ];
        for (n, one) in all.iter().enumerate() {
            assert!(!all[..n].contains(one), "{n}");
        }
        assert_eq!(of(&["/a", "connect"]), all[3]);
    }

    #[test]
    fn who_speaks_is_whoever_runs_even_after_a_panic() {
        let nobody = About::default();
        let (one, other) = (nobody.and("one"), nobody.and("other"));
        let panics = || other.during(|| -> () { panic!("a test wants this") });
        one.during(|| {
            assert_eq!(About::current(), one);
            assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
            assert_eq!(About::current(), one);
        });
        assert_eq!(About::current(), nobody);
        let mut waits = Box::pin(one.scope(async {
            for _ in 0..2 {
                assert_eq!(About::current(), one);
                other
                    .scope(async { assert_eq!(About::current(), other) })
                    .await;
                assert_eq!(About::current(), one);
                tokio::task::yield_now().await;
            }
        }));
        while (&mut waits).now_or_never().is_none() {
            assert_eq!(About::current(), nobody);
        }
    }
}
