//! Mapping memory into a container's IOMMU, and unmapping it.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, MutexGuard};

use super::abi::VFIO_DMA_UNMAP_FLAG_ALL;
use super::container::{Container, ContainerInner};
use super::container_state::{State, check_unmapped, unmap_refused};
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
    /// decode is off). `ERR_UNMAP_FAILED` naming the IOVA range of a mapping that could not be undone:
    /// mappings that are still there stay on record. `ERR_OUT_OF_RANGE`, `ERR_CONTAINER_EMPTY`, `ERR_CLOSED`.
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

    /// Removes all mappings. When the kernel succeeds it has none left, whatever size it reports.
    ///
    /// # Errors
    /// `ERR_UNMAP_FAILED` when the kernel refuses, with nothing changed; `ERR_CLOSED`.
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
            return self.unmap_leftovers(state, &range);
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
        let whole = Range::new(0, u64::MAX)?;
        let mut state = lock(&self.state);
        let fd = state.open()?;
        if !state.iommu_set {
            return self.unmap_leftovers(state, &whole);
        }
        self.ask_unmap_all(fd)
            .map_err(|errno| unmap_refused(&whole, errno))?;
        let gone = state.mappings.take_all();
        self.publish_count(&state);
        drop(state);
        drop(gone);
        Ok(())
    }

    /// Asks the kernel to unmap everything. The size that it reports adds nothing: type1v2 fails, or has
    /// no mapping left (`vfio_dma_do_unmap`); so does iommufd (`iopt_unmap_all`).
    pub(super) fn ask_unmap_all(&self, fd: BorrowedFd<'_>) -> nix::Result<()> {
        let (length, flags) = if self.unmap_all {
            (0, VFIO_DMA_UNMAP_FLAG_ALL)
        } else {
            (!0xffff, 0) // Before Linux 5.12. The last page of the address space can't be mapped.
        };
        ioctl::iommu_unmap_dma(fd, 0, length, flags).map(drop)
    }

    /// Unmaps from a container without a group. Records are there only if the last detachment could not
    /// unmap them (see [`detach`](Self::detach)): no device reaches what they map, so all of it may go.
    fn unmap_leftovers(&self, mut state: MutexGuard<'_, State>, range: &Range) -> Result<()> {
        let mut gone = Vec::new();
        let result = match self.ask_unmap_leftovers(&state) {
            Ok(()) => {
                gone = state.mappings.take_all();
                Ok(())
            }
            Err(errno) => match state.mappings.ranges_within(range).first() {
                Some(first) => Err(unmap_refused(first, errno).at(*first)),
                None => Ok(()),
            },
        };
        self.publish_count(&state);
        drop(state);
        drop(gone);
        result
    }
}
