//! Work that goes on after its client has left: counted, so that a stop can wait for it.
//!
//! Only counts; what the work is and how long it may take is said where it is begun.

use std::sync::Arc;

use tokio::sync::watch;

/// The count of one instance. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WorkCount(Arc<watch::Sender<usize>>);

impl Default for WorkCount {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

/// One piece of work under way; done when dropped.
#[derive(Debug)]
pub struct Work(WorkCount);

impl WorkCount {
    /// Begins a piece of work.
    pub fn begin(&self) -> Work {
        self.0.send_modify(|count| *count += 1);
        Work(self.clone())
    }

    /// Returns how much is under way, as it changes.
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.0.subscribe()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}
