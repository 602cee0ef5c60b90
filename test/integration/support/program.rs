//! The built binary as a process of its own.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    time::Instant,
};

use super::{PATIENCE, received_by};

/// A setting of glibc's for where memory is measured: all threads allocate from one place. Else each keeps what it had at its most, and
/// when that was is chance.
pub(crate) const ONE_ARENA: (&str, &str) = ("MALLOC_ARENA_MAX", "1");

/// Puts a command together whose environment holds these settings alone.
pub(crate) fn command(dir: &Path, settings: &[(&str, &str)]) -> Command {
    command_of(Path::new(env!("CARGO_BIN_EXE_sockhop")), dir, settings)
}

fn command_of(binary: &Path, dir: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary);
    command
        .current_dir(dir)
        .env_clear()
        .env("HOST", "127.0.0.1")
        .env("PORT", "0")
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Runs a command that must end by itself; returns its status and what it said.
pub(crate) fn run(command: Command) -> (ExitStatus, String) {
    Process::spawn(command).end()
}

/// A process whose standard error is read as it comes, or it would block when the pipe is full; killed when dropped.
struct Process {
    child: Child,
    /// What it says, line by line; ends when it does.
    said: Receiver<String>,
}

impl Process {
    fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let (says, said) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).unwrap() > 0 {
                _ = says.send(std::mem::take(&mut line));
            }
        });
        Self { child, said }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(name)
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits for its end; returns its status and what it had yet to say.
    fn end(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        let mut rest = String::new();
        while let Some(line) = received_by(deadline, "the end of a process", &self.said) {
            rest.push_str(&line);
        }
        // Nobody holds the other end of the pipe any more.
        (self.child.wait().unwrap(), rest)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A running binary; killed when dropped.
pub(crate) struct Program {
    process: Process,
    pub(crate) addr: SocketAddr,
    /// What it said until it listened.
    pub(crate) log: String,
}

impl Program {
    /// Starts it and waits until it listens.
    pub(crate) fn start(dir: &Path, settings: &[(&str, &str)]) -> Self {
        Self::spawn(command(dir, settings))
    }

    /// Starts an example instead, which `cargo test` builds unless it is told to run this test binary alone.
    pub(crate) fn start_example(name: &str, dir: &Path, settings: &[(&str, &str)]) -> Self {
        let binary = Path::new(env!("CARGO_BIN_EXE_sockhop"));
        let binary = binary.with_file_name("examples").join(name);
        assert!(binary.exists(), "first: cargo build --example {name}");
        Self::spawn(command_of(&binary, dir, settings))
    }

    /// Starts a command that is put together elsewhere, and waits until it listens.
    pub(crate) fn spawn(command: Command) -> Self {
        let process = Process::spawn(command);
        let deadline = Instant::now() + PATIENCE;
        let mut log = String::new();
        let addr = loop {
            let line = received_by(deadline, "a program that listens", &process.said);
            let line = line.unwrap_or_else(|| panic!("it ended: {log}"));
            log.push_str(&line);
            if let Some((_, tail)) = line.split_once("listening on http://") {
                break tail.split(' ').next().unwrap().trim().parse().unwrap();
            }
        };
        Self { process, addr, log }
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Returns how much memory it has in use now, in MiB.
    pub(crate) fn memory_mib(&self) -> u64 {
        self.status_mib("VmRSS:")
    }

    /// Returns the most memory that it ever had in use, in MiB.
    pub(crate) fn peak_memory_mib(&self) -> u64 {
        self.status_mib("VmHWM:")
    }

    /// Returns how many files and connections it has open.
    pub(crate) fn num_open(&self) -> usize {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.process.child.id()));
        open.unwrap().count()
    }

    fn status_mib(&self, field: &str) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|value| value.trim().strip_suffix(" kB"));
        kib.unwrap().parse::<u64>().unwrap() / 1024
    }

    /// Waits for its end; returns its status and the rest of its log.
    pub(crate) fn wait(self) -> (ExitStatus, String) {
        self.process.end()
    }
}
