//! Mappings of this process, charged to the budget.

use super::budget;
use super::sys::Window;

/// A mapping that is charged to the budget until it is unmapped.
#[derive(Debug)]
pub(super) struct Charged {
    /// `None` only during the drop.
    window: Option<Window>,
    mappings: usize,
}

impl Charged {
    /// Takes ownership of a window that was charged as `mappings` mappings.
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
