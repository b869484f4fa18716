//! Mapping memory into a container's IOMMU, and unmapping it.

use super::abi::VFIO_DMA_UNMAP_FLAG_ALL;
use super::container::{Container, ContainerInner};
use super::container_state::{State, unmap_refused};
use super::ioctl;
use crate::batch::{Batch, BatchError, unmap_each};
use crate::locked::lock;
use crate::memory::Leases;
use crate::{Error, Range, Result};
use std::os::fd::BorrowedFd;

impl Container {
    /// Makes all of the mappings, or none: when one fails, those before it are unmapped again.
    /// Pins the memory; that takes about a microsecond per page which is new.
    ///
    /// # Errors
    /// `ERR_MAP_FAILED` naming the IOVA range, with the kernel's errno (`EEXIST`: something is
    /// mapped there; `EINVAL`: not aligned, or not in a valid IOVA range; `ENOSPC`: too many
    /// mappings; `ENOMEM`: `RLIMIT_MEMLOCK`; `EFAULT`: the memory can't be pinned, or is a BAR whose
    /// decode is off). `ERR_OUT_OF_RANGE`, `ERR_CONTAINER_EMPTY`, `ERR_CLOSED`, `ERR_INVALID_ARGUMENT` for a file.
    pub fn map(&self, mut batch: Batch) -> Result<(), BatchError> {
        batch.fault_in()?;
        // Declared before the lock, so that leases are dropped after it is released.
        let (mut gone, mut undone) = (Leases::default(), Leases::default());
        let mut state = lock(&self.inner.state);
        let result = batch.map(
            &mut *state,
            |state, request, memory| state.map(request, memory, &mut gone),
            |state, range| state.unmap(range, &mut undone),
        );
        self.inner.publish_count(&state);
        drop(state);
        result
    }

    /// Removes, for each of the ranges, all mappings that lie wholly in it. Gaps are fine, and so is nothing at all; a
    /// mapping that sticks out is not. Returns which of the ranges failed; without `all` it stops at the first.
    ///
    /// # Errors
    /// `ERR_UNMAP_FAILED`: the kernel refused (`EINVAL`: a mapping sticks out), or unmapped another
    /// size than what is on record; the records, and what they keep alive, then stay as they are. `ERR_CLOSED`.
    #[must_use]
    pub fn unmap(&self, ranges: &[Range], all: bool) -> Vec<(usize, Error)> {
        let mut gone = Leases::default();
        let mut state = lock(&self.inner.state);
        let failures = unmap_each(ranges, all, |range| {
            if state.fd.is_some() && !state.iommu_set {
                self.inner.unmap_leftovers(&mut state, range, &mut gone)
            } else {
                state.unmap(range, &mut gone)
            }
        });
        self.inner.publish_count(&state);
        drop(state);
        failures
    }
}

impl ContainerInner {
    /// Removes all mappings. When the kernel succeeds it has none left, whatever size it reports; when it refuses,
    /// nothing has changed.
    pub(super) fn unmap_all(&self) -> Result<()> {
        let whole = Range::new(0, u64::MAX)?;
        let mut gone = Leases::default();
        let mut state = lock(&self.state);
        let fd = state.open()?;
        let result = if state.iommu_set {
            let answer = self.ask_unmap_all(fd);
            answer
                .map(|()| gone.extend(state.mappings.take_all()))
                .map_err(|errno| unmap_refused(&whole, errno))
        } else {
            self.unmap_leftovers(&mut state, &whole, &mut gone)
        };
        self.publish_count(&state);
        drop(state);
        result
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
    fn unmap_leftovers(&self, state: &mut State, range: &Range, gone: &mut Leases) -> Result<()> {
        match self.ask_unmap_leftovers(state) {
            Ok(()) => {
                gone.extend(state.mappings.take_all());
                Ok(())
            }
            Err(errno) => match state.mappings.next_within(range) {
                Some(first) => Err(unmap_refused(&first, errno).at(first)),
                None => Ok(()),
            },
        }
    }
}
