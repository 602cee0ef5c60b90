//! A line to a port that is cut once, right behind a text that goes there: whoever sent it hears no answer. TCP through this process.
//!
//! Later connections stand. Gone when dropped; connections that stand go on until either end closes them.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

/// Bytes that are carried at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// The line.
pub(crate) struct CutLine {
    port: u16,
    is_gone: Arc<AtomicBool>,
}

/// Where it is cut, and whether it was.
struct Cut {
    behind: &'static [u8],
    is_done: AtomicBool,
}

impl CutLine {
    /// Lays a line to a port of 127.0.0.1, from a free one there.
    pub(crate) fn lay(end: u16, behind: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let line = Self {
            port: listener.local_addr().unwrap().port(),
            is_gone: Arc::default(),
        };
        let is_gone = Arc::clone(&line.is_gone);
        let cut = Arc::new(Cut {
            behind: behind.as_bytes(),
            is_done: AtomicBool::new(false),
        });
        thread::spawn(move || {
            for near in listener.incoming() {
                if is_gone.load(Relaxed) {
                    break;
                }
                let Ok(near) = near else { continue };
                // Otherwise nobody listens there, and whoever called sees the end.
                if let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, end)) {
                    join(near, far, Arc::clone(&cut));
                }
            }
        });
        line
    }

    /// Returns the address of the Redis at its end.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for CutLine {
    fn drop(&mut self) {
        self.is_gone.store(true, Relaxed);
        // Wakes whoever waits for callers.
        _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

/// Carries bytes between both ends until one of them closes, or the line is cut.
fn join(near: TcpStream, far: TcpStream, cut: Arc<Cut>) {
    let is_silent = Arc::new(AtomicBool::new(false));
    let (mut back, mut answers) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    let hears_nothing = Arc::clone(&is_silent);
    thread::spawn(move || {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(len @ 1..) = answers.read(&mut chunk) {
            if !hears_nothing.load(Relaxed) && back.write_all(&chunk[..len]).is_err() {
                break;
            }
        }
        _ = back.shutdown(Shutdown::Both);
    });
    thread::spawn(move || carry(near, far, &cut, &is_silent));
}

fn carry(mut near: TcpStream, mut far: TcpStream, cut: &Cut, is_silent: &AtomicBool) {
    let mut chunk = vec![0; CHUNK_BYTES];
    // The end of what came before: the text may come in two.
    let mut seen = Vec::new();
    while let Ok(len @ 1..) = near.read(&mut chunk) {
        seen.extend_from_slice(&chunk[..len]);
        let mut windows = seen.windows(cut.behind.len());
        let is_cut = windows.any(|window| window == cut.behind) && !cut.is_done.swap(true, Relaxed);
        // Before the text can be answered.
        is_silent.fetch_or(is_cut, Relaxed);
        if far.write_all(&chunk[..len]).is_err() || is_cut {
            break;
        }
        seen.drain(..seen.len().saturating_sub(cut.behind.len() - 1));
    }
    // What was written is read there before the end is seen.
    _ = far.shutdown(Shutdown::Write);
    _ = near.shutdown(Shutdown::Both);
}
