//! The way where there is none: on systems other than Linux, and on Linux on rare processors. Everywhere else `ring` stands in its place.

use std::io;

use crate::Send;

/// Whether there can be a way in this build, if the system allows it.
pub const IS_BUILT_IN: bool = false;

/// A way to send to many, of which there is none here.
#[derive(Debug)]
pub struct ManySends(std::convert::Infallible);

impl ManySends {
    /// Says that there is none.
    ///
    /// # Errors
    /// Always [`io::ErrorKind::Unsupported`].
    pub fn new() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Cannot be called, since nobody has one.
    ///
    /// # Errors
    /// None.
    pub fn send_each<'a>(
        &mut self,
        _: impl IntoIterator<Item = Send<'a>>,
        _: &mut [usize],
    ) -> io::Result<()> {
        match self.0 {}
    }
}
