//! A real `redis-server` for a test: on a free port, without persistence, gone when dropped.
//!
//! For tests only. Waits for the server's own "Ready to accept connections", so that no test sleeps.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
};

/// A port found free may be taken before the server binds it; then another one is tried.
const MAX_TRIES: usize = 10;

/// The running server.
pub(crate) struct RedisServer {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl RedisServer {
    /// Starts a server, empty, on a free port of the loopback.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..MAX_TRIES {
            let port = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            if let Some(child) = spawn(port, &dir) {
                return Self { child, port, dir };
            }
        }
        panic!("redis-server found no free port in {MAX_TRIES} tries")
    }

    /// Returns the address to connect to.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends the server as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, empty, on the same port. Call after [`Self::kill`].
    pub(crate) fn restart(&mut self) {
        self.child = spawn(self.port, &self.dir).expect("its own port is free again");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the server once it takes connections, or `None` if it ended before.
fn spawn(port: u16, dir: &tempfile::TempDir) -> Option<Child> {
    let mut child = Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
        ])
        .arg(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-server must be installed (apt-get install redis-server)");
    let mut log = BufReader::new(child.stdout.take().unwrap());
    if !wait_until_ready(&mut log) {
        child.wait().unwrap();
        return None;
    }
    // Whoever does not read a pipe ends up blocking its writer.
    thread::spawn(move || log.lines().map_while(Result::ok).for_each(drop));
    Some(child)
}

fn wait_until_ready(log: &mut BufReader<ChildStdout>) -> bool {
    log.lines()
        .map_while(Result::ok)
        .any(|line| line.contains("Ready to accept connections"))
}
