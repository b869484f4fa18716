//! Mappings of this process that the budget knows of.

use super::budget;
use super::sys::Window;

/// A mapping that counts as some of those that the process may have, until it is unmapped.
#[derive(Debug)]
pub(super) struct Charged {
    /// There until it is dropped.
    window: Option<Window>,
    mappings: usize,
}

impl Charged {
    /// Takes over a mapping that was charged for as so many.
    pub(super) const fn new(window: Window, mappings: usize) -> Self {
        Self {
            window: Some(window),
            mappings,
        }
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        drop(self.window.take());
        budget::credit(self.mappings);
    }
}
