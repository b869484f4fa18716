//! Maps memory in a container's IOMMU, and unmaps it.

use super::container::Container;
use super::container_state::ContainerState;
use crate::batch::{Batch, BatchError};
use crate::{Error, Range};

impl Container {
    /// Makes all of the mappings or none: if one fails, unmaps those before it. The kernel pins the memory, which
    /// takes about a microsecond for each new page.
    ///
    /// # Errors
    /// `ERR_MAP_FAILED` with the IOVA range and the kernel's errno: `EEXIST` (the range overlaps a mapping), `EINVAL`
    /// (unaligned, or outside of the valid IOVA ranges), `ENOSPC` (too many mappings), `ENOMEM` (`RLIMIT_MEMLOCK`) or
    /// `EFAULT`. `EFAULT` means that the memory cannot be pinned, or is a disabled BAR. `ERR_OUT_OF_RANGE`,
    /// `ERR_CONTAINER_EMPTY`, `ERR_CLOSED`, `ERR_INVALID_ARGUMENT` for a file.
    pub fn map(&self, mut batch: Batch) -> Result<(), BatchError> {
        batch.fault_in()?;
        self.inner.map(&mut batch, ContainerState::map)
    }

    /// For each of the ranges, removes all mappings that lie wholly in it. A range can have gaps or be empty, but
    /// must not cut a mapping. Returns the ranges that failed.
    ///
    /// # Errors
    /// `ERR_UNMAP_FAILED` if the kernel failed (`EINVAL`, `ENOENT`: the range cuts a mapping), or unmapped another size
    /// than recorded; the records then keep their memory. `ERR_CLOSED`.
    #[must_use]
    pub fn unmap(&self, ranges: &[Range], continue_after_failure: bool) -> Vec<(usize, Error)> {
        self.inner.unmap(ranges, continue_after_failure)
    }
}
