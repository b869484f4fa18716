//! Maps memory in a container's IOMMU, and unmaps it.

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
    /// Makes all of the mappings or none: if one fails, unmaps those before it. The kernel pins the memory, which
    /// takes about a microsecond for each new page.
    ///
    /// # Errors
    /// `ERR_MAP_FAILED` with the IOVA range and the kernel's errno (`EEXIST`: the range overlaps a mapping; `EINVAL`:
    /// unaligned, or outside of the valid IOVA ranges; `ENOSPC`: too many mappings; `ENOMEM`: `RLIMIT_MEMLOCK`;
    /// `EFAULT`: the memory cannot be pinned, or is a disabled BAR). `ERR_OUT_OF_RANGE`, `ERR_CONTAINER_EMPTY`,
    /// `ERR_CLOSED`, `ERR_INVALID_ARGUMENT` for a file.
    pub fn map(&self, mut batch: Batch) -> Result<(), BatchError> {
        batch.fault_in()?;
        // Declared before the lock, so that leases are dropped after it is released.
        let (mut removed, mut rolled_back) = (Leases::default(), Leases::default());
        let mut state = lock(&self.inner.state);
        let result = batch.map(
            &mut *state,
            |state, request, memory| state.map(request, memory, &mut removed),
            |state, range| state.unmap(range, &mut rolled_back),
        );
        self.inner.publish_count(&state);
        drop(state);
        result
    }

    /// For each of the ranges, removes all mappings that lie wholly in it. A range can have gaps or be empty, but
    /// must not cut a mapping. Returns the ranges that failed; without `all`, stops at the first.
    ///
    /// # Errors
    /// `ERR_UNMAP_FAILED` if the kernel failed (`EINVAL`: the range cuts a mapping), or unmapped another size than
    /// recorded; the records then keep their memory. `ERR_CLOSED`.
    #[must_use]
    pub fn unmap(&self, ranges: &[Range], all: bool) -> Vec<(usize, Error)> {
        let mut removed = Leases::default();
        let mut state = lock(&self.inner.state);
        let failures = unmap_each(ranges, all, |range| {
            if state.fd.is_some() && !state.iommu_set {
                self.inner.unmap_leftovers(&mut state, range, &mut removed)
            } else {
                state.unmap(range, &mut removed)
            }
        });
        self.inner.publish_count(&state);
        drop(state);
        failures
    }
}

impl ContainerInner {
    /// Removes all mappings. If the kernel succeeds, none is left, whatever size it reports; if it fails, nothing has
    /// changed.
    pub(super) fn unmap_all(&self) -> Result<()> {
        let whole = Range::new(0, u64::MAX)?;
        let mut removed = Leases::default();
        let mut state = lock(&self.state);
        let fd = state.open()?;
        let result = if state.iommu_set {
            let answer = self.unmap_all_in_kernel(fd);
            answer
                .map(|()| removed.extend(state.mappings.take_all()))
                .map_err(|errno| unmap_refused(&whole, errno))
        } else {
            self.unmap_leftovers(&mut state, &whole, &mut removed)
        };
        self.publish_count(&state);
        drop(state);
        result
    }

    /// Makes the kernel unmap everything. The reported size carries no information: on success, no mapping is left in
    /// type1v2 (`vfio_dma_do_unmap`) or iommufd (`iopt_unmap_all`).
    pub(super) fn unmap_all_in_kernel(&self, fd: BorrowedFd<'_>) -> nix::Result<()> {
        let (length, flags) = if self.unmap_all {
            (0, VFIO_DMA_UNMAP_FLAG_ALL)
        } else {
            (!0xffff, 0) // Before Linux 5.12. The last page of the address space cannot be mapped.
        };
        ioctl::iommu_unmap_dma(fd, 0, length, flags).map(drop)
    }

    /// Unmaps from a container without a group. It has records only if the last detachment could not unmap them (see
    /// [`detach`](Self::detach)): no device reaches their memory, so all of them can be removed.
    fn unmap_leftovers(
        &self,
        state: &mut State,
        range: &Range,
        removed: &mut Leases,
    ) -> Result<()> {
        match self.unmap_leftovers_in_kernel(state) {
            Ok(()) => {
                removed.extend(state.mappings.take_all());
                Ok(())
            }
            Err(errno) => match state.mappings.next_within(range) {
                Some(first) => Err(unmap_refused(&first, errno).at(first)),
                None => Ok(()),
            },
        }
    }
}
