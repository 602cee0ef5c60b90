//! A [`Line`] that is cut once, right behind a text that goes to its end: whoever sent it hears no answer. Later connections stand.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use super::line::{CHUNK_BYTES, Line};

/// Where it is cut, and whether it was.
struct Cut {
    behind: &'static [u8],
    is_done: AtomicBool,
}

/// Lays one to a port of 127.0.0.1.
pub(crate) fn lay(end: u16, behind: &'static str) -> Line {
    let cut = Arc::new(Cut {
        behind: behind.as_bytes(),
        is_done: AtomicBool::new(false),
    });
    let join = move |near, far| join(near, far, Arc::clone(&cut));
    Line::lay(|| end, join).0
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
