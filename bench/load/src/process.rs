//! What the kernel says of a process: processor time and memory. Linux only.

use std::{fs, io, path::Path};

/// Returns the processor time of all live threads of these processes, in nanoseconds.
///
/// From `schedstat`, which counts in nanoseconds where `stat` counts in ticks of 10 ms. A thread that has ended is not in it; the
/// servers keep theirs.
pub(crate) fn cpu_ns(pids: &[u32]) -> io::Result<u64> {
    let mut sum = 0;
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            match fs::read_to_string(task?.path().join("schedstat")) {
                Ok(text) => sum += first_number(&text),
                // The thread has just ended.
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => return Err(err),
            }
        }
    }
    Ok(sum)
}

/// Returns the memory of these processes that is in RAM, in KiB.
pub(crate) fn rss_kib(pids: &[u32]) -> io::Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let rollup = format!("/proc/{pid}/smaps_rollup");
        let (file, key) = if Path::new(&rollup).exists() {
            (rollup, "Rss:")
        } else {
            (format!("/proc/{pid}/status"), "VmRSS:")
        };
        let text = fs::read_to_string(file)?;
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        sum += first_number(line.unwrap_or_default());
    }
    Ok(sum)
}

fn first_number(text: &str) -> u64 {
    let word = text.split_whitespace().next();
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// Returns the processor time of the whole machine, idle time left out, in nanoseconds, to a tick of 10 ms for each processor.
pub(crate) fn machine_ns() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    let numbers = text.lines().next().unwrap_or_default();
    let ticks = numbers.split_whitespace().skip(1).map(first_number);
    // user, nice, system, (idle, iowait,) irq, softirq, steal; guests are in user already.
    let busy = ticks.enumerate().filter(|(i, _)| matches!(i, 0..3 | 5..8));
    Ok(busy.map(|(_, ticks)| ticks * 10_000_000).sum())
}

/// Allows as many open files as the hard limit does. Returns how many that are.
pub(crate) fn raise_open_files() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it cannot be raised, what was allowed before still is.
    _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
