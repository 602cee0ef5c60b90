//! The way through `io_uring`: entries are queued, submitted and awaited within one call.
//!
//! Its one unsafe block lends the kernel the bytes of others. That is sound for two reasons, and both are here: whoever calls has lent
//! them until [`ManySends::send_each`] returns, and that returns when the kernel has given back all that it took.

use std::{fmt, io, os::fd::AsRawFd as _};

use io_uring::{IoUring, Probe, opcode, types};

use crate::{MAX_SENDS, Send};

/// At once, or not at all; and who is gone is an error and no signal.
const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// The most that the kernel takes in one send. A longer one is sent in part, as any may be.
const MAX_LEN: u32 = i32::MAX as u32;

/// Whether there can be a way in this build, if the system allows it.
pub const IS_BUILT_IN: bool = true;

/// A way to send to many. Belongs to one thread at a time.
pub struct ManySends {
    /// None once the system has refused to go on, or a call has panicked: what stands in its queue then is never sent.
    ring: Option<Box<IoUring>>,
}

impl ManySends {
    /// Opens the way, which takes one file descriptor and some 10 KiB.
    ///
    /// # Errors
    /// - [`io::ErrorKind::Unsupported`]: the system has none (Linux before 5.6, or built without it), or hides it (a container's seccomp
    ///   profile).
    /// - [`io::ErrorKind::PermissionDenied`]: it forbids it (a seccomp profile, `kernel.io_uring_disabled`, a security module).
    /// - Any other: it has no file descriptor left (`RLIMIT_NOFILE`), or no memory (before Linux 5.12, `RLIMIT_MEMLOCK`), and may have
    ///   later.
    pub fn new() -> io::Result<Self> {
        let entries = u32::try_from(MAX_SENDS).expect("a small constant");
        let ring = IoUring::new(entries)?;
        let mut probe = Probe::new();
        let probed = ring.submitter().register_probe(&mut probe);
        // To probe is as old as to send: who has not the one (EINVAL) has not the other.
        let is_old = |err: &io::Error| err.kind() == io::ErrorKind::InvalidInput;
        match probed {
            Ok(()) if probe.is_supported(opcode::Send::CODE) => Ok(Self {
                ring: Some(Box::new(ring)),
            }),
            Err(err) if !is_old(&err) => Err(err),
            _ => Err(io::Error::from_raw_os_error(libc::ENOSYS)),
        }
    }

    /// Sends each, in order, and notes in `taken`, in the same order, how many bytes the kernel took of it: 0 as well if the socket is
    /// full or gone, and in the places for which there is no send. As many are sent as have a place in `taken`, which has at most
    /// [`MAX_SENDS`].
    ///
    /// Aborts the process if the system neither gives back what it took nor lets us wait for it, which it never should.
    ///
    /// # Errors
    /// The system refuses to go on, now and from now on; a way that is opened anew may work. Those that are not noted in `taken` were not
    /// sent.
    ///
    /// # Panics
    /// `taken` has more than [`MAX_SENDS`] places. Or `sends` panics: nothing was sent then, and nothing ever is by this way.
    pub fn send_each<'a>(
        &mut self,
        sends: impl IntoIterator<Item = Send<'a>>,
        taken: &mut [usize],
    ) -> io::Result<()> {
        assert!(taken.len() <= MAX_SENDS, "there are so many at most");
        taken.fill(0);
        // Put back when nothing stands in its queue any more.
        let mut ring = self.ring.take().ok_or(io::ErrorKind::Unsupported)?;
        let mut num_sends = 0;
        {
            let mut queue = ring.submission();
            for (Send { socket, bytes }, _) in sends.into_iter().zip(&*taken) {
                let len = u32::try_from(bytes.len()).unwrap_or(MAX_LEN).min(MAX_LEN);
                let send = opcode::Send::new(types::Fd(socket.as_raw_fd()), bytes.as_ptr(), len)
                    .flags(FLAGS)
                    .build()
                    .user_data(num_sends as u64);
                // SAFETY: the bytes and the descriptor are borrowed for `'a`, which outlasts this call, and it returns only when the
                // kernel has given back every entry that it took (see `await_all`). Before it has taken any, an entry is a number in
                // memory that goes with the ring: if this unwinds, or the system refuses, the ring is dropped.
                let pushed = unsafe { queue.push(&send) };
                pushed.expect("the queue is empty and has room for as many");
                num_sends += 1;
            }
        }
        await_all(&mut ring, num_sends, taken)?;
        self.ring = Some(ring);
        Ok(())
    }
}

/// Has the kernel take so many entries and give each back, and notes what it took of each.
///
/// # Errors
/// The system refuses to go on. What the kernel has taken it has given back; the others still stand in the queue.
fn await_all(ring: &mut IoUring, num_sends: usize, taken: &mut [usize]) -> io::Result<()> {
    let mut num_left = num_sends;
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
                eprintln!("io_uring: sends under way cannot be awaited: {err}");
                std::process::abort();
            }
            _ => {}
        }
    }
    Ok(())
}

impl fmt::Debug for ManySends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManySends").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
