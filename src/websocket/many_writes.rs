//! Writing the same, or nearly, to many WebSockets at once: by one system call where the system allows it, else by one for each.
//!
//! As [`write_now`] for each: whole frames before which nothing waits, and the reactor is not asked first whether a stream is writable. Knows
//! no socket and no message.

use std::{
    io,
    os::fd::AsFd as _,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use many_sends::{IS_BUILT_IN, MAX_SENDS, ManySends, Send};
use tokio::net::TcpStream;

use super::connection::write_now;

/// Most writes of one call.
pub const MAX_WRITES: usize = MAX_SENDS;

/// From so many on, one system call for all is cheaper.
const MIN_SHARED: usize = 4;

/// How long nothing is asked of a system that had no memory, or no file descriptor, left.
const PAUSE: Duration = Duration::from_secs(60);

/// Frames for one WebSocket.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// Where its client reads.
    pub stream: &'a TcpStream,
    /// Whole frames.
    pub frames: &'a [u8],
}

/// How the streams of one thread are written to.
#[derive(Debug)]
pub struct ManyWrites(Way);

#[derive(Debug)]
enum Way {
    /// One system call for all.
    Shared(ManySends),
    /// One for each: until then, or for good.
    Each { until: Option<Instant> },
}

impl ManyWrites {
    /// Finds out what the system allows, if `io_uring` may be used.
    pub fn open(may_share: bool) -> Self {
        // Elsewhere there is none, and nothing to tell.
        Self(match may_share && IS_BUILT_IN {
            true => Way::open(),
            false => Way::Each { until: None },
        })
    }

    /// Writes each, in order, and notes in `taken` how many bytes the kernel took of it.
    ///
    /// # Panics
    /// There are more than [`MAX_WRITES`], or `taken` is not as long.
    pub fn write_each(&mut self, writes: &[Write<'_>], taken: &mut [usize]) {
        assert!(writes.len() <= MAX_WRITES && writes.len() == taken.len());
        taken.fill(0);
        if writes.len() >= MIN_SHARED
            && let Some(way) = self.0.shared()
        {
            let sends = writes.iter().map(|Write { stream, frames }| Send {
                socket: stream.as_fd(),
                bytes: frames,
            });
            match way.send_each(sends, taken) {
                Ok(()) => return,
                Err(err) => self.0 = Way::without(&err),
            }
        }
        write_the_rest(writes, taken);
    }
}

impl Way {
    fn open() -> Self {
        match ManySends::new() {
            Ok(way) => Self::Shared(way),
            Err(err) => Self::without(&err),
        }
    }

    /// Returns the way that all share; it is looked for again when the time has come.
    fn shared(&mut self) -> Option<&mut ManySends> {
        if let Self::Each { until: Some(until) } = self
            && *until <= Instant::now()
        {
            *self = Self::open();
        }
        match self {
            Self::Shared(way) => Some(way),
            Self::Each { .. } => None,
        }
    }

    /// Goes without, and tells the log why; once of either kind, since all threads, and all attempts, meet much the same.
    fn without(err: &io::Error) -> Self {
        static IS_TOLD_FOR_GOOD: AtomicBool = AtomicBool::new(false);
        static IS_TOLD: AtomicBool = AtomicBool::new(false);
        let is_for_good = is_for_good(err);
        let (is_told, level, what_next) = match is_for_good {
            true => (
                &IS_TOLD_FOR_GOOD,
                log::Level::Info,
                "docs/io_uring.md tells how to allow it; set IO_URING=false if it is not wanted",
            ),
            false => (&IS_TOLD, log::Level::Warn, "it is tried again in a minute"),
        };
        let level = match is_told.swap(true, Relaxed) {
            true => log::Level::Debug,
            false => level,
        };
        log::log!(
            level,
            "many clients are written to by a system call for each, since io_uring is not to be had: {err}; {what_next}"
        );
        Self::Each {
            until: (!is_for_good).then(|| Instant::now() + PAUSE),
        }
    }
}

/// Returns whether the system has no such way, or forbids it, and not only lacks something at the moment.
fn is_for_good(err: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    matches!(err.kind(), InvalidInput | PermissionDenied | Unsupported)
}

/// Writes what has not gone out: what went out before the way ended is not written again.
fn write_the_rest(writes: &[Write<'_>], taken: &mut [usize]) {
    for (taken, Write { stream, frames }) in taken.iter_mut().zip(writes) {
        if *taken == 0 {
            *taken = write_now(stream, frames);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        panic::{AssertUnwindSafe, catch_unwind},
    };

    use super::*;
    use crate::websocket::testing::connected;

    /// By one system call for all, if this system allows it (many-sends' tests tell), and by one for each.
    fn both() -> [ManyWrites; 2] {
        [true, false].map(ManyWrites::open)
    }

    fn to_all<'a>(
        streams: &'a [(TcpStream, std::net::TcpStream)],
        frames: &'a [u8],
    ) -> Vec<Write<'a>> {
        let write = |(stream, _): &'a (_, _)| Write { stream, frames };
        streams.iter().map(write).collect()
    }

    /// Returns what reaches each client until its end.
    fn read_all(streams: Vec<(TcpStream, std::net::TcpStream)>) -> Vec<String> {
        let read = |(stream, mut client): (_, std::net::TcpStream)| {
            drop(stream);
            let mut got = String::new();
            client.read_to_string(&mut got).unwrap();
            got
        };
        streams.into_iter().map(read).collect()
    }

    #[actix::test]
    async fn few_and_many_get_theirs_in_order_by_either_way() {
        for mut writes in both() {
            for num in [0, 1, MIN_SHARED - 1, MIN_SHARED, MAX_WRITES] {
                let streams: Vec<_> = (0..num).map(|_| connected()).collect();
                for text in ["one,", "two,"] {
                    let mut taken = vec![usize::MAX; num];
                    writes.write_each(&to_all(&streams, text.as_bytes()), &mut taken);
                    assert_eq!(taken, vec![4; num], "{writes:?}");
                }
                assert_eq!(read_all(streams), vec!["one,two,"; num]);
            }
        }
    }

    #[actix::test]
    async fn what_the_kernel_does_not_take_is_told_by_either_way() {
        for mut writes in both() {
            let streams: Vec<_> = (0..MIN_SHARED).map(|_| connected()).collect();
            let much = vec![b'x'; 100_000];
            let all = to_all(&streams, &much);
            let mut sums = vec![0; MIN_SHARED];
            loop {
                let mut taken = vec![usize::MAX; MIN_SHARED];
                writes.write_each(&all, &mut taken);
                for (sum, taken) in sums.iter_mut().zip(&taken) {
                    *sum += taken;
                }
                if taken.iter().all(|taken| *taken == 0) {
                    break;
                }
            }
            let lens: Vec<_> = read_all(streams).iter().map(String::len).collect();
            assert_eq!(lens, sums, "{writes:?}");
        }
    }

    #[actix::test]
    async fn what_went_out_before_the_way_ended_is_not_written_again() {
        let streams: Vec<_> = (0..4).map(|_| connected()).collect();
        // All of the first, a part of the second.
        let mut taken = [4, 1, 0, 0];
        write_the_rest(&to_all(&streams, b"one,"), &mut taken);
        assert_eq!(taken, [4, 1, 4, 4]);
        assert_eq!(read_all(streams), ["", "", "one,", "one,"]);
    }

    #[actix::test]
    async fn a_system_that_lacks_something_is_asked_again_and_one_that_forbids_it_is_not() {
        use io::ErrorKind::{OutOfMemory, PermissionDenied, Unsupported, WouldBlock};
        let is_asked_again = |err: io::Error| match Way::without(&err) {
            Way::Each { until } => until.is_some(),
            Way::Shared(_) => unreachable!("it goes without"),
        };
        const EMFILE: i32 = 24;
        assert!(is_asked_again(io::Error::from_raw_os_error(EMFILE)));
        assert!(
            [OutOfMemory, WouldBlock]
                .map(Into::into)
                .into_iter()
                .all(is_asked_again)
        );
        assert!(
            ![PermissionDenied, Unsupported]
                .map(Into::into)
                .into_iter()
                .any(is_asked_again)
        );

        // When the time has come, and not before, it is as if it were opened now.
        let is_shared = |way: &mut Way| way.shared().is_some();
        let mut later = Way::without(&OutOfMemory.into());
        assert!(!is_shared(&mut later));
        let mut now = Way::Each {
            until: Some(Instant::now()),
        };
        assert_eq!(is_shared(&mut now), ManySends::new().is_ok());
    }

    #[actix::test]
    async fn it_is_shared_if_the_system_and_the_setting_allow_it() {
        let is_shared = |may_share| matches!(ManyWrites::open(may_share).0, Way::Shared(_));
        assert_eq!(is_shared(true), ManySends::new().is_ok());
        assert!(!is_shared(false));
    }

    #[actix::test]
    async fn when_the_way_ends_all_are_written_to_nevertheless() {
        let Ok(mut way) = ManySends::new() else {
            return;
        };
        // After that it refuses to go on.
        let no_sends = std::iter::from_fn(|| panic!("as it should"));
        let panicked = AssertUnwindSafe(|| way.send_each(no_sends, &mut [0]));
        assert!(catch_unwind(panicked).is_err());
        let mut writes = ManyWrites(Way::Shared(way));
        let streams: Vec<_> = (0..MIN_SHARED).map(|_| connected()).collect();
        let mut taken = [usize::MAX; MIN_SHARED];
        writes.write_each(&to_all(&streams, b"one,"), &mut taken);
        assert_eq!(taken, [4; MIN_SHARED]);
        assert!(matches!(writes.0, Way::Each { .. }));
        assert_eq!(read_all(streams), ["one,"; MIN_SHARED]);
    }
}
