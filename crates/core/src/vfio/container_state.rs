//! The state of a container, and the steps that keep it consistent with the kernel.

use nix::errno::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::abi::{
    VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE, argsz, vfio_iommu_type1_dma_map,
};
use super::ioctl;
use crate::batch::{MapRequest, Memory};
use crate::mappings::Mappings;
use crate::memory::{Lease, Leases};
use crate::{Error, ErrorCode, Range, Result};

const MAP: &str = "ioctl(VFIO_IOMMU_MAP_DMA)";
const UNMAP: &str = "ioctl(VFIO_IOMMU_UNMAP_DMA)";

/// The guarded state: the descriptor, and the records of its mappings.
#[derive(Debug, Default)]
pub(super) struct State {
    // Declared before the mappings, so that the descriptor is closed first.
    pub(super) fd: Option<OwnedFd>,
    pub(super) iommu_set: bool,
    pub(super) groups: usize,
    pub(super) mappings: Mappings<Lease>,
    /// A group was closed without a confirmed detachment: its mappings may still exist in the kernel.
    pub(super) detach_unconfirmed: bool,
}

impl State {
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

    /// Removes the mappings that lie wholly in a range. Adds leases to drop to `removed`.
    pub(super) fn unmap(&mut self, range: &Range, removed: &mut Leases) -> Result<()> {
        let expected = self.mappings.bytes_within(range);
        let answer = ioctl::iommu_unmap_dma(self.open()?, range.start(), range.len(), 0);
        check_unmapped(range, expected, answer)?;
        self.mappings.take_within(range, removed);
        Ok(())
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.detach_unconfirmed {
            // A device may still reach this memory. Leaks it, so that nothing else is mapped there.
            self.mappings.take_all().for_each(std::mem::forget);
        }
    }
}

/// Checks the result of an unmap: the kernel's size must match the records.
pub(super) fn check_unmapped(range: &Range, expected: u64, answer: nix::Result<u64>) -> Result<()> {
    match answer {
        Ok(size) if size == expected => Ok(()),
        Ok(size) => {
            let message = format!(
                "unmapping IOVA {range}: the kernel unmapped {size:#x} bytes, but {expected:#x} bytes were mapped there"
            );
            Err(Error::new(ErrorCode::UnmapFailed, message))
        }
        Err(errno) => Err(unmap_refused(range, errno)),
    }
}

/// The error of an unmap of `range` that the kernel refused.
pub(super) fn unmap_refused(range: &Range, errno: Errno) -> Error {
    let operation = format!("unmapping IOVA {range}");
    Error::os(ErrorCode::UnmapFailed, errno, UNMAP, operation)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_unmap_must_match_the_records() {
        let range = Range::new(0x1000, 0x3000).unwrap();
        check_unmapped(&range, 0x2000, Ok(0x2000)).unwrap();
        check_unmapped(&range, 0, Ok(0)).unwrap();
        let wrong = check_unmapped(&range, 0x2000, Ok(0x1000)).unwrap_err();
        assert_eq!(wrong.code(), ErrorCode::UnmapFailed);
        assert!(
            wrong.message().contains("0x1000 bytes") && wrong.message().contains("0x2000 bytes")
        );
        let refused = check_unmapped(&range, 0, Err(Errno::EINVAL)).unwrap_err();
        assert_eq!(
            (refused.code(), refused.errno()),
            (ErrorCode::UnmapFailed, Some(Errno::EINVAL))
        );
    }
}
