//! Sends to many sockets by one system call: Linux's `io_uring`, used for nothing else.
//!
//! A send takes the kernel a few microseconds, and a tenth to a third of that is the way in and out, with what that drives from the
//! processor's caches. Here up to [`MAX_SENDS`] share one way. They never wait: each is done when [`ManySends::send_each`] returns, as if
//! `send` had been called for each with `MSG_DONTWAIT`; nothing is in flight between calls.
//!
//! It holds all unsafe code of this project. Knows no message and no socket's state. Where the system has no `io_uring`, or forbids it, as
//! containers do by default, [`ManySends::new`] says so, and the caller calls `send` for each.

use std::os::fd::BorrowedFd;

#[cfg(not(target_os = "linux"))]
mod none;
#[cfg(target_os = "linux")]
mod ring;

#[cfg(not(target_os = "linux"))]
pub use none::ManySends;
#[cfg(target_os = "linux")]
pub use ring::ManySends;

/// Sends that one call does.
pub const MAX_SENDS: usize = 64;

/// Bytes for one socket.
#[derive(Clone, Copy, Debug)]
pub struct Send<'a> {
    /// A stream socket, blocking or not.
    pub socket: BorrowedFd<'a>,
    /// What it is to send: not nothing.
    pub bytes: &'a [u8],
}
