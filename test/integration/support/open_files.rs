//! Files that this process may have open: of thousands of clients, and of the instances beside them.
//!
//! A shell often gives far fewer than the system allows. A binary under test takes all by itself; these are the clients'.

use std::sync::LazyLock;

/// What all tests that run side by side may have open, with room to spare.
const NUM_NEEDED: u64 = 8192;

/// Takes as many as the system allows, once.
pub(crate) fn take_all() {
    static LIMIT: LazyLock<u64> =
        LazyLock::new(|| rlimit::increase_nofile_limit(u64::MAX).unwrap());
    assert!(
        *LIMIT >= NUM_NEEDED,
        "the clients of the tests need {NUM_NEEDED} open files and the system allows {} (ulimit -Hn): raise that limit",
        *LIMIT
    );
}
