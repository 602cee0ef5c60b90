//! A real `redis-server` for one test: on a free port, in a directory of its own, gone when dropped.
//!
//! Waits for events (the server's own "Ready to accept connections", the end of its process), each for so long at most. Used by the
//! integration suite and, by path, by the bridge's own tests.

#![allow(dead_code, reason = "two suites share it, and neither needs all of it")]

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::Duration,
};

use tempfile::TempDir;

/// How often another port is tried if somebody else was faster to take it.
const ATTEMPTS: usize = 20;
/// How long a start, or an answer, may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running, killed or frozen `redis-server`.
pub(crate) struct RedisServer {
    port: u16,
    args: Vec<String>,
    dir: TempDir,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts one on a free port of 127.0.0.1.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with further arguments, as on its command line.
    pub(crate) fn start_with(args: &[&str]) -> Self {
        let mut server = Self::reserve_with(args);
        for _ in 0..ATTEMPTS {
            if server.try_start() {
                return server;
            }
            server.port = free_port();
        }
        panic!("redis-server found no free port in {ATTEMPTS} attempts");
    }

    /// Chooses a free port, but starts nothing there yet; [`Self::restart_on_same_port`] does.
    pub(crate) fn reserve() -> Self {
        Self::reserve_with(&[])
    }

    /// Starts one that speaks TLS on a second port, which is returned, with `cert.pem` and `key.pem` of `dir`. With `ca.pem`
    /// there it wants certificates of its clients that this authority signed.
    pub(crate) fn start_tls(dir: &Path) -> (Self, u16) {
        Self::start_tls_with(dir, &[])
    }

    /// The same with further arguments.
    pub(crate) fn start_tls_with(dir: &Path, args: &[&str]) -> (Self, u16) {
        let file = |name: &str| dir.join(name).to_str().expect("UTF-8").to_owned();
        for _ in 0..ATTEMPTS {
            let port = free_port();
            let wants_certificates = if dir.join("ca.pem").exists() {
                "yes"
            } else {
                "no"
            };
            let ca = if wants_certificates == "yes" {
                "ca.pem"
            } else {
                "cert.pem"
            };
            let (port_text, cert, key) = (port.to_string(), file("cert.pem"), file("key.pem"));
            let authority = file(ca);
            let tls = [
                "--tls-port",
                &port_text,
                "--tls-cert-file",
                &cert,
                "--tls-key-file",
                &key,
                "--tls-ca-cert-file",
                &authority,
                "--tls-auth-clients",
                wants_certificates,
            ];
            let mut server = Self::reserve_with(&[&tls[..], args].concat());
            if server.try_start() {
                return (server, port);
            }
        }
        panic!("redis-server found no free ports in {ATTEMPTS} attempts");
    }

    /// Starts it again where it was, with further arguments, and returns at once: it may still be loading its data.
    pub(crate) fn restart_loading(&mut self, args: &[&str]) {
        self.kill();
        let child = self.spawn(args);
        let child = await_log(child, "Server initialized").expect("redis-server starts");
        self.child = Some(child);
    }

    fn reserve_with(args: &[&str]) -> Self {
        Self {
            port: free_port(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            dir: tempfile::tempdir().expect("a temporary directory"),
            child: None,
        }
    }

    /// Returns its address for `REDIS_URL`.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Returns its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Kills it as a crash would (SIGKILL), and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("redis-server can be killed");
            child.wait().expect("redis-server ends");
        }
    }

    /// Starts it again, or for the first time, where it was; it has forgotten everything.
    pub(crate) fn restart_on_same_port(&mut self) {
        self.kill();
        assert!(self.try_start(), "port {} is no longer free", self.port);
    }

    /// Stops it from running (SIGSTOP): connections stay open and nothing answers, as behind a black hole.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it run again.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Sends one command, its arguments any bytes; returns the first 64 KiB of the answer as it stands.
    pub(crate) fn command(&self, args: &[&[u8]]) -> Vec<u8> {
        let mut request = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            request.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            request.extend_from_slice(arg);
            request.extend_from_slice(b"\r\n");
        }
        self.ask(&request).expect("redis-server answers")
    }

    /// Subscribes to a channel and says nothing ever after; ends when dropped.
    pub(crate) fn subscribe(&self, channel: &str) -> TcpStream {
        self.listen("SUBSCRIBE", channel)
    }

    /// The same of a sharded channel.
    pub(crate) fn subscribe_sharded(&self, channel: &str) -> TcpStream {
        self.listen("SSUBSCRIBE", channel)
    }

    fn listen(&self, command: &str, channel: &str) -> TcpStream {
        let mut stream =
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("redis-server listens");
        let request = format!("{command} {channel}\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = [0; 64];
        let len = stream.read(&mut answer).expect("it answers");
        assert!(len > 0, "it must not close");
        stream
    }

    fn ask(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request)?;
        let mut answer = vec![0; 64 << 10];
        let len = stream.read(&mut answer)?;
        answer.truncate(len);
        Ok(answer)
    }

    /// Returns whether it runs; it does not if the port is taken.
    fn try_start(&mut self) -> bool {
        let Some(child) = await_log(self.spawn(&[]), "Ready to accept connections") else {
            return false;
        };
        self.child = Some(child);
        let answer = self.ask(b"PING\r\n").expect("redis-server answers PING");
        let is_sound = answer.starts_with(b"+PONG") || answer.starts_with(b"-NOAUTH");
        assert!(
            is_sound,
            "PING was answered by {:?}",
            String::from_utf8_lossy(&answer)
        );
        true
    }

    fn spawn(&self, args: &[&str]) -> Child {
        // Another server that speaks the same, such as Valkey's.
        let binary = std::env::var_os("TEST_REDIS_SERVER");
        Command::new(binary.unwrap_or("redis-server".into()))
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--port")
            .arg(self.port.to_string())
            .arg("--dir")
            .arg(self.dir.path())
            .args(&self.args)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed")
    }

    fn signal(&self, signal: &str) {
        let child = self.child.as_ref().expect("redis-server runs");
        let status = Command::new("kill")
            .arg(signal)
            .arg(child.id().to_string())
            .status();
        assert!(status.expect("kill can be run").success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until a server says this; `None` if it ended before.
fn await_log(mut child: Child, words: &'static str) -> Option<Child> {
    let mut log = BufReader::new(child.stdout.take().expect("its log is a pipe"));
    let (says, said) = mpsc::channel();
    // Reads on once it was said, or the server would block when the pipe is full. The thread ends with the process.
    std::thread::spawn(move || {
        let mut line = String::new();
        while log.read_line(&mut line).expect("its log can be read") > 0 {
            if line.contains(words) {
                _ = says.send(());
            }
            line.clear();
        }
    });
    match said.recv_timeout(PATIENCE) {
        Ok(()) => Some(child),
        Err(RecvTimeoutError::Disconnected) => {
            child.wait().expect("redis-server ends");
            None
        }
        Err(RecvTimeoutError::Timeout) => {
            child.kill().expect("redis-server can be killed");
            child.wait().expect("redis-server ends");
            panic!("redis-server did not say {words:?} within {PATIENCE:?}");
        }
    }
}

/// Returns a port that nobody uses at the moment.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}
