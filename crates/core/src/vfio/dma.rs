//! Mapping memory into a container's IOMMU, and unmapping it.

use std::sync::Arc;

use super::abi::VFIO_DMA_UNMAP_FLAG_ALL;
use super::container::{Container, ContainerInner};
use super::container_state::check_unmapped;
use super::ioctl;
use crate::locked::lock;
use crate::memory::Lease;
use crate::{Range, Result};

/// A mapping to be made: the memory a lease holds, at an IOVA.
#[derive(Debug, Clone)]
pub struct MapRequest {
    /// Where devices see the memory.
    pub iova: u64,
    /// The memory. The mapping keeps it until it is unmapped.
    pub lease: Arc<Lease>,
    /// Devices may read it.
    pub readable: bool,
    /// Devices may write it.
    pub writable: bool,
}

impl MapRequest {
    fn range(&self) -> Result<Range> {
        Range::new(self.iova, self.lease.len())
    }
}

impl Container {
    /// Makes all of the mappings, or none: when one fails, those before it are unmapped again.
    /// Pins the memory; that takes about a microsecond per page which is new.
    ///
    /// # Errors
    /// `ERR_MAP_FAILED` naming the IOVA range, with the kernel's errno (`EEXIST`: something is
    /// mapped there; `EINVAL`: not aligned, or not in a valid IOVA range; `ENOSPC`: too many
    /// mappings; `ENOMEM`: `RLIMIT_MEMLOCK`; `EFAULT`: the memory can't be pinned, or is a BAR whose
    /// decode is off). `ERR_UNMAP_FAILED` where undoing failed too: the mappings that are still
    /// there stay on record. `ERR_OUT_OF_RANGE`, `ERR_CONTAINER_EMPTY`, `ERR_CLOSED`.
    pub fn map_dma(&self, requests: &[MapRequest]) -> Result<()> {
        let ranges = requests
            .iter()
            .map(MapRequest::range)
            .collect::<Result<Vec<Range>>>()?;
        // Declared before the lock, so that leases are dropped after it is released.
        let mut undone = Vec::new();
        let mut state = lock(&self.inner.state);
        let mut result = Ok(());
        for (index, (request, range)) in requests.iter().zip(&ranges).enumerate() {
            if let Err(error) = state.map(request, range, &mut undone) {
                let done = ranges.get(..index).unwrap_or_default();
                result = Err(state.undo(done, error, &mut undone));
                break;
            }
        }
        self.inner.publish_count(&state);
        drop(state);
        drop(undone);
        result
    }

    /// Removes all mappings that lie wholly in `length` bytes from `iova`. Gaps are fine, and so is
    /// nothing at all; a mapping that sticks out is not.
    ///
    /// # Errors
    /// `ERR_UNMAP_FAILED`: the kernel refused (`EINVAL`: a mapping sticks out), or unmapped another
    /// size than what is on record; the records, and what they keep alive, then stay as they are.
    /// `ERR_OUT_OF_RANGE`, `ERR_EMPTY_RANGE`, `ERR_CLOSED`.
    pub fn unmap_dma(&self, iova: u64, length: u64) -> Result<()> {
        self.inner.unmap_dma(iova, length)
    }

    /// Removes all mappings.
    ///
    /// # Errors
    /// `ERR_UNMAP_FAILED` as for [`unmap_dma`](Self::unmap_dma), `ERR_CLOSED`.
    pub fn unmap_all(&self) -> Result<()> {
        self.inner.unmap_all()
    }
}

impl ContainerInner {
    pub(super) fn unmap_dma(&self, iova: u64, length: u64) -> Result<()> {
        let range = Range::new(iova, length)?;
        let mut state = lock(&self.state);
        let fd = state.open()?;
        if !state.iommu_set {
            return Ok(()); // Nothing can be mapped: the kernel has no IOMMU to ask.
        }
        let expected = state.mappings.bytes_within(&range);
        check_unmapped(
            &range,
            expected,
            ioctl::iommu_unmap_dma(fd, iova, length, 0),
        )?;
        let gone = state.mappings.take_within(&range);
        self.publish_count(&state);
        drop(state);
        drop(gone);
        Ok(())
    }

    pub(super) fn unmap_all(&self) -> Result<()> {
        if !self.unmap_all {
            // Before Linux 5.12. The last page of the address space can't be mapped.
            return self.unmap_dma(0, !0xffff);
        }
        let mut state = lock(&self.state);
        let fd = state.open()?;
        if !state.iommu_set {
            return Ok(());
        }
        let whole = Range::new(0, u64::MAX)?;
        let expected = state.mappings.bytes();
        check_unmapped(
            &whole,
            expected,
            ioctl::iommu_unmap_dma(fd, 0, 0, VFIO_DMA_UNMAP_FLAG_ALL),
        )?;
        let gone = state.mappings.take_all();
        self.publish_count(&state);
        drop(state);
        drop(gone);
        Ok(())
    }
}
