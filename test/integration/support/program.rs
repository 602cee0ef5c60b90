//! The built binary as a process of its own.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

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
pub(crate) fn run(mut command: Command) -> (ExitStatus, String) {
    let output = command.output().unwrap();
    (output.status, String::from_utf8(output.stderr).unwrap())
}

/// A running binary; killed when dropped.
pub(crate) struct Program {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
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
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut log = String::new();
        let addr = loop {
            let from = log.len();
            assert!(stderr.read_line(&mut log).unwrap() > 0, "it ended: {log}");
            if let Some((_, tail)) = log[from..].split_once("listening on http://") {
                break tail.split(' ').next().unwrap().trim().parse().unwrap();
            }
        };
        Self {
            child,
            stderr,
            addr,
            log,
        }
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(name)
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(status.success());
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
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        open.unwrap().count()
    }

    fn status_mib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|value| value.trim().strip_suffix(" kB"));
        kib.unwrap().parse::<u64>().unwrap() / 1024
    }

    /// Waits for its end; returns its status and the rest of its log.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
