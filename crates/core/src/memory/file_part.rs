//! Handles to parts of a file, whose memory is released with their last owner.

use std::sync::Arc;

use super::discard::punch_hole;
use super::file::{Kind, MemoryFile};
use crate::Range;
use crate::dropper;

impl MemoryFile {
    /// Creates a handle to one part of the file.
    pub(super) fn part(&self, range: Range) -> Self {
        Self {
            kind: Arc::clone(&self.kind),
            part: Some(Arc::new(range)),
        }
    }

    /// The offset of the part in the file; 0 for a whole file.
    #[must_use]
    pub fn part_offset(&self) -> u64 {
        self.part.as_deref().map_or(0, Range::start)
    }

    /// Returns the handle that the record of a file mapping must own. The kernel holds the pages of a whole file
    /// itself, but the pages of a part are released with the part's last owner.
    pub(crate) fn kept_part(&self) -> Option<Self> {
        self.part.is_some().then(|| self.clone())
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        if let Some(part) = self.part.take().and_then(Arc::into_inner) {
            let kind = Arc::clone(&self.kind);
            dropper::drop_memory(part.len(), UnusedPart { kind, part });
        }
    }
}

/// Part of a file without an owner: no handle, mapping or view of it is left. Dropping this releases its memory.
struct UnusedPart {
    kind: Arc<Kind>,
    part: Range,
}

impl Drop for UnusedPart {
    fn drop(&mut self) {
        if let Kind::Memory { fd, .. } = &*self.kind {
            // A failure costs memory until the file is closed.
            let _ = punch_hole(fd, &self.part);
        }
    }
}
