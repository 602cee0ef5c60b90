//! A line to a port: TCP through this process, by what is given to carry the bytes.
//!
//! Knows nothing of what is carried. Gone when dropped; connections that stand go on until either end closes them.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

/// Bytes that are carried at a time.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// The line.
pub(crate) struct Line {
    port: u16,
    is_gone: Arc<AtomicBool>,
}

impl Line {
    /// Lays a line that begins at a free port of 127.0.0.1, and leads to another that `find` returns then. Both ends of each connection
    /// are given to `join`, which must not block.
    pub(crate) fn lay(
        find: impl FnOnce() -> u16,
        join: impl Fn(TcpStream, TcpStream) + Send + 'static,
    ) -> (Self, u16) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let line = Self {
            port: listener.local_addr().unwrap().port(),
            is_gone: Arc::default(),
        };
        // Not before: it could be the one that the line has.
        let end = find();
        let is_gone = Arc::clone(&line.is_gone);
        thread::spawn(move || {
            for near in listener.incoming() {
                if is_gone.load(Relaxed) {
                    break;
                }
                let Ok(near) = near else { continue };
                // Otherwise nobody listens there, and whoever called sees the end.
                if let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, end)) {
                    join(near, far);
                }
            }
        });
        (line, end)
    }

    /// Returns where it begins.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.is_gone.store(true, Relaxed);
        // Wakes whoever waits for callers.
        _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}
