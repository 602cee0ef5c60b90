//! What is to be done if a message is dropped while it waits to be published, or is refused alone.
//!
//! What becomes of a message once it is under way it does not tell: if a connection breaks then, all that is lost by it is told together.

use std::fmt;

/// Does what it was given when it is dropped, unless the message may have gone out.
pub struct Loss(Option<Box<dyn FnOnce() + Send>>);

impl Loss {
    /// Returns what does `tell` if the message is dropped. It may be called with the queue locked: it sends, and asks for nothing.
    pub fn new(tell: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(tell)))
    }

    /// The message went out, or nobody knows whether.
    pub(super) fn settle(mut self) {
        self.0 = None;
    }
}

impl Drop for Loss {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell();
        }
    }
}

impl fmt::Debug for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loss(…)")
    }
}
