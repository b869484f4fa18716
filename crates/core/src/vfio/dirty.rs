//! Dirty-page logging of a container.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::abi::{
    VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP, VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
    VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
};
use super::container::Container;
use super::ioctl::fields;
use crate::bitmap::words_of;
use crate::range::to_u64;
use crate::{Error, ErrorCode, Range, Result};

mod raw {
    use super::super::ioctl::number;

    // The words of `struct vfio_iommu_type1_dirty_bitmap`: argsz and flags, then data.
    nix::ioctl_readwrite_bad!(dirty_pages, number(17), u64);
}

const IOCTL: &str = "ioctl(VFIO_IOMMU_DIRTY_PAGES)";

impl Container {
    /// Turns logging on or off. For a device without its own page pinning, which means every PCI device that is not
    /// mediated, the kernel reports all mapped pages as written.
    ///
    /// # Errors
    /// `ERR_UNSUPPORTED` if the kernel does not support it (before Linux 5.8, or iommufd's emulation of type1),
    /// `ERR_CONTAINER_EMPTY`, `ERR_SYSTEM`, `ERR_CLOSED`.
    pub fn set_dirty_tracking(&self, on: bool) -> Result<()> {
        let flag = if on {
            VFIO_IOMMU_DIRTY_PAGES_FLAG_START
        } else {
            VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP
        };
        let state = self.inner.lock();
        let mut words = [fields(8, flag)];
        dirty_pages(state.ready()?, &mut words)
            .map_err(|errno| failed(errno, "switching dirty-page logging"))
    }

    /// Returns one bit for each page of `range`, starting at bit 0 of word 0. A bit is 1 if a device may have written
    /// the page since the last call. The bits of unmapped pages are 0.
    ///
    /// # Errors
    /// `ERR_UNALIGNED`, `ERR_INVALID_ARGUMENT` if the page size is not a power of two. `ERR_SYSTEM` (`EINVAL`: logging
    /// is off, the page size is not the IOMMU's smallest, or the range cuts a mapping). `ERR_OUT_OF_RANGE` for more
    /// pages than the kernel reports at once. `ERR_UNSUPPORTED`, `ERR_CONTAINER_EMPTY`, `ERR_CLOSED`.
    pub fn dirty_pages(&self, range: &Range, page_size: u64) -> Result<Vec<u64>> {
        let mut bitmap = vec![0_u64; words_of(range, page_size)?];
        let state = self.inner.lock();
        let mut words = [
            fields(48, VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP),
            range.start(),
            range.len(),
            page_size,
            to_u64(size_of_val(bitmap.as_slice())),
            to_u64(bitmap.as_mut_ptr().expose_provenance()),
        ];
        dirty_pages(state.ready()?, &mut words)
            .map_err(|errno| failed(errno, &format!("reading the dirty pages of {range}")))?;
        Ok(bitmap)
    }
}

fn dirty_pages(fd: BorrowedFd<'_>, words: &mut [u64]) -> nix::Result<()> {
    // SAFETY: the words outlive the call and give their length in bytes in argsz, the first field; so does the
    // bitmap, if the words contain its address and size.
    unsafe { raw::dirty_pages(fd.as_raw_fd(), words.as_mut_ptr()) }.map(drop)
}

fn failed(errno: Errno, operation: &str) -> Error {
    let code = match errno {
        Errno::ENOTTY | Errno::EOPNOTSUPP => ErrorCode::Unsupported,
        _ => ErrorCode::System,
    };
    Error::os(code, errno, IOCTL, operation)
}

#[cfg(test)]
mod tests {
    use super::super::abi::vfio_iommu_type1_dirty_bitmap_get;
    use super::*;

    #[test]
    fn words_have_the_layout_of_the_structures() {
        use core::mem::offset_of;
        assert_eq!(size_of::<vfio_iommu_type1_dirty_bitmap_get>(), 40);
        assert_eq!(offset_of!(vfio_iommu_type1_dirty_bitmap_get, iova), 0);
        assert_eq!(offset_of!(vfio_iommu_type1_dirty_bitmap_get, size), 8);
        assert_eq!(offset_of!(vfio_iommu_type1_dirty_bitmap_get, bitmap), 16);
        let [first, second] = [fields(1, 0), fields(0, 1)].map(u64::to_ne_bytes);
        assert_eq!(first.get(..4), Some(1_u32.to_ne_bytes().as_slice()));
        assert_eq!(second.get(4..), Some(1_u32.to_ne_bytes().as_slice()));
    }
}
