//! The state of a container, and the steps that keep it consistent with the kernel.

use nix::errno::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::abi::{
    VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE, VFIO_DMA_UNMAP_FLAG_ALL, argsz,
    vfio_iommu_type1_dma_map,
};
use super::ioctl;
use crate::batch::{MapRequest, Memory};
use crate::dropper;
use crate::mappings::Mappings;
use crate::memory::{Lease, Leases};
use crate::space::{SpaceState, check_unmapped, unmap_refused};
use crate::{Error, ErrorCode, Range, Result};

const MAP: &str = "ioctl(VFIO_IOMMU_MAP_DMA)";
const UNMAP: &str = "ioctl(VFIO_IOMMU_UNMAP_DMA)";

/// The guarded state: the descriptor, and the records of its mappings.
#[derive(Debug, Default)]
pub(super) struct ContainerState {
    // Declared before the mappings, so that the descriptor is closed first.
    pub(super) fd: Option<OwnedFd>,
    /// The kernel supports `VFIO_DMA_UNMAP_FLAG_ALL` (since Linux 5.12).
    pub(super) unmap_all: bool,
    pub(super) iommu_set: bool,
    pub(super) groups: usize,
    pub(super) mappings: Mappings<Lease>,
    /// A group was closed without a confirmed detachment: its mappings may still exist in the kernel.
    pub(super) detach_unconfirmed: bool,
}

impl ContainerState {
    /// Returns the descriptor of an open container.
    pub(super) fn open(&self) -> Result<BorrowedFd<'_>> {
        let fd = self.fd.as_ref().map(AsFd::as_fd);
        fd.ok_or_else(|| Error::new(ErrorCode::Closed, "the container is closed"))
    }

    /// Returns the descriptor of a container with an IOMMU.
    pub(super) fn ready(&self) -> Result<BorrowedFd<'_>> {
        let fd = self.open()?;
        if self.iommu_set {
            return Ok(fd);
        }
        let message = "the container has no IOMMU. Attach a group, then call setIommu";
        Err(Error::new(ErrorCode::ContainerEmpty, message))
    }

    /// Makes one mapping and records it. Adds leases to drop to `removed`.
    pub(super) fn map(
        &mut self,
        request: &MapRequest,
        memory: Memory<'_>,
        removed: &mut Leases,
    ) -> Result<()> {
        let range = request.range;
        let Memory::Leased(lease) = memory else {
            let message = format!(
                "mapping IOVA {range} to a file is not possible: type1 maps only memory of this process"
            );
            return Err(Error::new(ErrorCode::InvalidArgument, message).at(range));
        };
        let mut flags = VFIO_DMA_MAP_FLAG_READ;
        if request.writable {
            flags |= VFIO_DMA_MAP_FLAG_WRITE;
        }
        let map = vfio_iommu_type1_dma_map {
            argsz: argsz::<vfio_iommu_type1_dma_map>(),
            flags,
            vaddr: lease.host_address(),
            iova: range.start(),
            size: range.len(),
        };
        let mapped = self.ready().and_then(|fd| {
            // SAFETY: the lease keeps the memory mapped as it is. The record below owns the lease until the kernel
            // has confirmed the unmap. Devices change the memory at any time; no Rust reference points into it.
            unsafe { ioctl::iommu_map_dma(fd, &map) }.map_err(|errno| {
                let operation = format!(
                    "mapping IOVA {range} to {} of the reservation",
                    lease.range()
                );
                Error::os(ErrorCode::MapFailed, errno, MAP, operation).at(range)
            })
        });
        match mapped {
            Ok(()) => self.mappings.insert(range, lease, removed),
            Err(_) => removed.extend([lease]),
        }
        mapped
    }

    /// Makes the kernel unmap everything after the last group was detached.
    pub(super) fn unmap_leftovers_in_kernel(&self) -> nix::Result<()> {
        // Kernels that cannot unmap all at once do not have iommufd.
        if !self.unmap_all || self.mappings.len() == 0 {
            return Ok(());
        }
        let Ok(fd) = self.open() else {
            return Ok(());
        };
        match self.unmap_all_in_kernel(fd) {
            // type1 returns EINVAL; iommufd returns ENODEV if it never had a device.
            Err(Errno::EINVAL | Errno::ENODEV | Errno::ENOTTY) => Ok(()),
            answer => answer,
        }
    }

    /// Unmaps from a container without a group. It has records only if the last detachment could not unmap them (see
    /// `ContainerInner::detach`): no device reaches their memory, so all of them can be removed.
    fn unmap_leftovers(&mut self, range: &Range, removed: &mut Leases) -> Result<()> {
        match self.unmap_leftovers_in_kernel() {
            Ok(()) => {
                removed.extend(self.mappings.take_all());
                Ok(())
            }
            Err(errno) => match self.mappings.next_within(range) {
                Some(first) => Err(unmap_refused(UNMAP, &first, errno).at(first)),
                None => Ok(()),
            },
        }
    }

    /// Makes the kernel unmap everything. The reported size carries no information: on success, no mapping is left in
    /// type1v2 (`vfio_dma_do_unmap`) or iommufd (`iopt_unmap_all`).
    fn unmap_all_in_kernel(&self, fd: BorrowedFd<'_>) -> nix::Result<()> {
        let (length, flags) = if self.unmap_all {
            (0, VFIO_DMA_UNMAP_FLAG_ALL)
        } else {
            (!0xffff, 0) // The last page of the address space cannot be mapped.
        };
        ioctl::iommu_unmap_dma(fd, 0, length, flags).map(drop)
    }
}

impl SpaceState for ContainerState {
    type Owner = Lease;
    type Removed = Leases;
    type Unguarded = ();

    fn mappings(&self) -> &Mappings<Lease> {
        &self.mappings
    }

    fn check_open(&self) -> Result<()> {
        self.open().map(drop)
    }

    fn unmap(&mut self, range: &Range, removed: &mut Leases) -> Result<()> {
        if self.fd.is_some() && !self.iommu_set {
            return self.unmap_leftovers(range, removed);
        }
        let expected = self.mappings.bytes_within(range);
        let answer = ioctl::iommu_unmap_dma(self.open()?, range.start(), range.len(), 0);
        // A container of iommufd returns ENOENT also for a range that cuts a mapping.
        if answer == Err(Errno::ENOENT)
            && let Some(cut) = self.mappings.cut_by(range)
        {
            return Err(unmap_refused(UNMAP, range, Errno::ENOENT).at(cut));
        }
        check_unmapped(UNMAP, range, expected, answer)?;
        self.mappings.take_within(range, removed);
        Ok(())
    }

    fn unmap_all(&mut self, removed: &mut Leases) -> Result<()> {
        let whole = Range::new(0, u64::MAX)?;
        let fd = self.open()?;
        if !self.iommu_set {
            return self.unmap_leftovers(&whole, removed);
        }
        self.unmap_all_in_kernel(fd)
            .map_err(|errno| unmap_refused(UNMAP, &whole, errno))?;
        removed.extend(self.mappings.take_all());
        Ok(())
    }

    fn end(&mut self, (): &mut ()) {
        if self.fd.is_some() {
            dropper::drop_later(std::mem::take(self));
        }
    }
}

impl Drop for ContainerState {
    fn drop(&mut self) {
        if self.detach_unconfirmed {
            // A device may still reach this memory. Leaks it, so that nothing else is mapped there.
            self.mappings.take_all().for_each(std::mem::forget);
        }
    }
}
