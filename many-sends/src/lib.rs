//! Sends to many sockets by one system call: Linux's `io_uring`, used for nothing else.
//!
//! A send takes the kernel a few microseconds, and a good part of that is the way in and out, with what that drives from the processor's
//! caches. Here up to [`MAX_SENDS`] share one way. They never wait: each is done when [`ManySends::send_each`] returns, as if
//! `send` had been called for each with `MSG_DONTWAIT`; nothing is in flight between calls.
//!
//! It holds all unsafe code of this project. Knows no message and no socket's state. Where the system has no `io_uring`, or forbids it, as
//! containers do by default, [`ManySends::new`] says so, and the caller calls `send` for each.

use std::os::fd::BorrowedFd;

// Where the crate io-uring can be had (Cargo.toml names the same) it is `ring`, elsewhere there is none.
#[cfg_attr(
    all(
        target_os = "linux",
        any(
            target_arch = "x86_64",
            target_arch = "aarch64",
            target_arch = "riscv64",
            target_arch = "loongarch64",
            target_arch = "powerpc64"
        )
    ),
    path = "ring/mod.rs"
)]
mod way;

pub use way::{IS_BUILT_IN, ManySends};

/// Sends that one call does.
pub const MAX_SENDS: usize = 64;

/// Bytes for one socket.
#[derive(Clone, Copy, Debug)]
pub struct Send<'a> {
    /// A stream socket, blocking or not.
    pub socket: BorrowedFd<'a>,
    /// What it is to send: at least one byte.
    pub bytes: &'a [u8],
}
