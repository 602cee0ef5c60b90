//! How many files, and so connections, the system lets this process have open.
//!
//! A shell or a service manager often gives a process far fewer than it may have: 1024 is common, and then the thousandth client is
//! not even accepted. So the program takes all that it may have, as Node and Go do. A library has no business doing so: only
//! `main.rs` calls it.

/// Files that are no client's: the listener, Redis, accounts, what each worker needs, and some to answer `/readyz` with.
const OWN_FILES: u64 = 128;

/// Takes as many open files as this process may have, and tells the log if those are fewer than `max_connections` needs.
pub fn take_all(max_connections: usize) {
    let num_files = match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(num_files) => num_files,
        Err(err) => return log::debug!("the limit of open files cannot be raised: {err}"),
    };
    let num_connections = num_files.saturating_sub(OWN_FILES);
    if num_connections < max_connections as u64 {
        log::info!(
            "the system allows about {num_connections} connections at a time (open files: ulimit -n), MAX_CONNECTIONS \
             {max_connections}"
        );
    }
}
