//! A line to a port on which everything arrives late in both directions, in its order: TCP through this process.
//!
//! Gone when dropped; connections that stand go on until either end closes them.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// Bytes that one chunk may hold.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that may be on their way.
const MAX_CHUNKS: usize = 1024;

/// The line.
pub(crate) struct SlowLine {
    port: u16,
    is_gone: Arc<AtomicBool>,
}

impl SlowLine {
    /// Lays a line that begins at a free port of 127.0.0.1, and leads to another that `find` returns then.
    pub(crate) fn lay(delay: Duration, find: impl FnOnce() -> u16) -> (Self, u16) {
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
                    join(&near, &far, delay);
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

impl Drop for SlowLine {
    fn drop(&mut self) {
        self.is_gone.store(true, Relaxed);
        // Wakes whoever waits for callers.
        _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

/// Carries bytes between both ends until one of them closes.
fn join(near: &TcpStream, far: &TcpStream, delay: Duration) {
    let clone = |stream: &TcpStream| stream.try_clone().unwrap();
    carry(clone(near), clone(far), delay);
    carry(clone(far), clone(near), delay);
}

fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, chunks) = mpsc::sync_channel::<(Instant, Vec<u8>)>(MAX_CHUNKS);
    thread::spawn(move || {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(len @ 1..) = from.read(&mut chunk) {
            if sender
                .send((Instant::now() + delay, chunk[..len].to_vec()))
                .is_err()
            {
                break;
            }
        }
        _ = from.shutdown(Shutdown::Both);
    });
    thread::spawn(move || {
        for (due, chunk) in chunks {
            #[allow(
                clippy::disallowed_methods,
                reason = "the line's own thread, and what makes it slow"
            )]
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&chunk).is_err() {
                break;
            }
        }
        _ = to.shutdown(Shutdown::Both);
    });
}
