//! Sends to many sockets by one system call: Linux's `io_uring`, used for nothing else.
//!
//! A send takes the kernel a few microseconds, and a tenth to a third of that is the way in and out, with what that drives from the
//! processor's caches. Here up to [`MAX_SENDS`] share one way. They never wait: each is done when [`ManySends::send_each`] returns, as if
//! `send` had been called for each with `MSG_DONTWAIT`; nothing is in flight between calls.
//!
//! It holds all unsafe code of this project. Knows no message and no socket's state; where the system has no `io_uring`, or forbids it, as
//! containers do by default, [`ManySends::new`] says so and the caller calls `send` for each.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use io_uring::{IoUring, Probe, opcode, types};

/// Sends that one call does.
pub const MAX_SENDS: usize = 64;

/// At once, or not at all; and who is gone is an error and no signal.
const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// Bytes for one socket.
#[derive(Clone, Copy, Debug)]
pub struct Send<'a> {
    /// A stream socket.
    pub socket: BorrowedFd<'a>,
    /// What it is to send.
    pub bytes: &'a [u8],
}

/// A way to send to many. Belongs to one thread.
pub struct ManySends {
    /// None once the system has refused to go on: what stands in its queue then is never sent.
    ring: Option<IoUring>,
}

impl ManySends {
    /// Opens the way.
    ///
    /// # Errors
    /// The system has none (Linux before 5.6), forbids it (a container's seccomp profile, `kernel.io_uring_disabled`), or has no file
    /// descriptor or memory left for it.
    pub fn new() -> io::Result<Self> {
        let entries = u32::try_from(MAX_SENDS).expect("a small constant");
        let ring = IoUring::new(entries)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Send::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Self { ring: Some(ring) })
    }

    /// Sends each, in order, and notes in `taken` how many bytes the kernel took of it: 0 as well if the socket is gone. `taken` is as long
    /// as `sends`, and neither is longer than [`MAX_SENDS`].
    ///
    /// # Errors
    /// The system refuses to go on, now and from now on: those that are not noted in `taken` were not sent.
    pub fn send_each(&mut self, sends: &[Send<'_>], taken: &mut [usize]) -> io::Result<()> {
        assert!(sends.len() <= MAX_SENDS && sends.len() == taken.len());
        taken.fill(0);
        // Put back when nothing stands in its queue any more.
        let mut ring = self.ring.take().ok_or(io::ErrorKind::Unsupported)?;
        {
            let mut queue = ring.submission();
            for (number, Send { socket, bytes }) in (0..).zip(sends) {
                // A longer one is sent in part, as any may be.
                let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                let send = opcode::Send::new(types::Fd(socket.as_raw_fd()), bytes.as_ptr(), len)
                    .flags(FLAGS)
                    .build()
                    .user_data(number);
                // SAFETY: the bytes and the descriptor are borrowed until this function returns, and it returns only when the kernel
                // has given back every entry that it took (see `await_all`). Before it has taken any, an entry is a number in memory
                // that goes with the ring: if this unwinds, or the system refuses, the ring is dropped.
                let pushed = unsafe { queue.push(&send) };
                pushed.expect("the queue is empty and has room for as many");
            }
        }
        await_all(&mut ring, taken)?;
        self.ring = Some(ring);
        Ok(())
    }
}

/// Has the kernel take all entries and give each back, and notes what it took of each.
///
/// # Errors
/// The system refuses to go on. What the kernel has taken it has given back; the others still stand in the queue.
fn await_all(ring: &mut IoUring, taken: &mut [usize]) -> io::Result<()> {
    let mut num_left = taken.len();
    while num_left > 0 {
        let entered = ring.submit_and_wait(num_left);
        for done in ring.completion() {
            num_left = num_left.saturating_sub(1);
            let place = usize::try_from(done.user_data()).ok();
            if let Some(taken) = place.and_then(|place| taken.get_mut(place)) {
                *taken = usize::try_from(done.result()).unwrap_or(0);
            }
        }
        match entered {
            Err(err) if err.kind() != io::ErrorKind::Interrupted => {
                if ring.submission().len() == num_left {
                    return Err(err);
                }
                // The kernel still has some of the bytes and does not say when it has done with them: they can never be given back.
                std::process::abort();
            }
            _ => {}
        }
    }
    Ok(())
}

impl std::fmt::Debug for ManySends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManySends").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        net::Shutdown,
        os::{fd::AsFd as _, unix::net::UnixStream},
    };

    use super::*;

    /// Returns the way, or nothing where the system forbids it, which must then be for a reason that we know.
    fn way() -> Option<ManySends> {
        match ManySends::new() {
            Ok(way) => Some(way),
            Err(err) => {
                let known = [io::ErrorKind::PermissionDenied, io::ErrorKind::Unsupported];
                assert!(known.contains(&err.kind()), "{err}");
                None
            }
        }
    }

    fn pairs(num: usize) -> Vec<(UnixStream, UnixStream)> {
        (0..num)
            .map(|_| UnixStream::pair().expect("descriptors"))
            .collect()
    }

    #[test]
    fn each_socket_gets_its_bytes_in_the_order_of_calls() {
        let Some(mut way) = way() else { return };
        let mut pairs = pairs(MAX_SENDS);
        for round in 0..3 {
            let texts: Vec<_> = (0..MAX_SENDS)
                .map(|number| format!("{round}/{number};"))
                .collect();
            let sends: Vec<_> = pairs
                .iter()
                .zip(&texts)
                .map(|((near, _), text)| Send {
                    socket: near.as_fd(),
                    bytes: text.as_bytes(),
                })
                .collect();
            let mut taken = [usize::MAX; MAX_SENDS];
            way.send_each(&sends, &mut taken).expect("a send");
            let lens: Vec<_> = texts.iter().map(String::len).collect();
            assert_eq!(taken.as_slice(), lens);
        }
        for (number, (near, far)) in pairs.iter_mut().enumerate() {
            near.shutdown(Shutdown::Write).expect("it stands");
            let mut got = String::new();
            far.read_to_string(&mut got).expect("text");
            assert_eq!(got, format!("0/{number};1/{number};2/{number};"));
        }
    }

    #[test]
    fn what_is_full_or_gone_takes_nothing_and_others_are_served() {
        let Some(mut way) = way() else { return };
        let [(full, full_far), (gone, gone_far), (well, mut well_far)] =
            pairs(3).try_into().expect("three");
        full.set_nonblocking(true).expect("it stands");
        let much = vec![b'x'; 1 << 20];
        let mut num_full = 0;
        while let Ok(len @ 1..) = std::io::Write::write(&mut &full, &much) {
            num_full += len;
        }
        drop(gone_far);
        let bytes = b"here";
        let sends = [&full, &gone, &well].map(|socket| Send {
            socket: socket.as_fd(),
            bytes,
        });
        let mut taken = [usize::MAX; 3];
        way.send_each(&sends, &mut taken).expect("a send");
        assert_eq!(taken, [0, 0, bytes.len()]);
        drop((full, well));
        let mut got = Vec::new();
        well_far.read_to_end(&mut got).expect("bytes");
        assert_eq!(got, bytes);
        let mut rest = Vec::new();
        (&full_far).read_to_end(&mut rest).expect("bytes");
        assert_eq!(rest.len(), num_full);
    }

    #[test]
    fn a_part_is_told() {
        let Some(mut way) = way() else { return };
        let (near, _far) = UnixStream::pair().expect("descriptors");
        // Blocking or not, it never waits.
        let much = vec![b'x'; 8 << 20];
        let sends = [Send {
            socket: near.as_fd(),
            bytes: &much,
        }];
        let mut taken = [0];
        way.send_each(&sends, &mut taken).expect("a send");
        assert!((1..much.len()).contains(&taken[0]), "{taken:?}");
    }

    #[test]
    fn nothing_is_sent_by_nobody() {
        let Some(mut way) = way() else { return };
        way.send_each(&[], &mut []).expect("nothing to do");
    }
}
