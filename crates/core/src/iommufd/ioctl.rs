//! The ioctls of iommufd. Their numbers are plain `_IO(';', n)`, whatever they read or write.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::abi::{
    self, Destroy, GetDirtyBitmap, HwInfo, HwptAlloc, IoasAlloc, IovaRange, IovaRanges, Map,
    MapFile, SetDirtyTracking, Unmap,
};
use crate::Range;
use crate::range::to_u64;

mod raw {
    use super::super::abi::*;

    /// Returns the number of a command of iommufd, in the C library's type.
    const fn number(command: u32) -> libc::Ioctl {
        nix::request_code_none!(IOMMUFD_TYPE, command)
    }

    nix::ioctl_write_ptr_bad!(destroy, number(IOMMUFD_CMD_DESTROY), Destroy);
    nix::ioctl_readwrite_bad!(ioas_alloc, number(IOMMUFD_CMD_IOAS_ALLOC), IoasAlloc);
    nix::ioctl_readwrite_bad!(
        ioas_iova_ranges,
        number(IOMMUFD_CMD_IOAS_IOVA_RANGES),
        IovaRanges
    );
    nix::ioctl_readwrite_bad!(ioas_map, number(IOMMUFD_CMD_IOAS_MAP), Map);
    nix::ioctl_readwrite_bad!(ioas_unmap, number(IOMMUFD_CMD_IOAS_UNMAP), Unmap);
    nix::ioctl_readwrite_bad!(hwpt_alloc, number(IOMMUFD_CMD_HWPT_ALLOC), HwptAlloc);
    nix::ioctl_readwrite_bad!(get_hw_info, number(IOMMUFD_CMD_GET_HW_INFO), HwInfo);
    nix::ioctl_write_ptr_bad!(
        hwpt_set_dirty_tracking,
        number(IOMMUFD_CMD_HWPT_SET_DIRTY_TRACKING),
        SetDirtyTracking
    );
    nix::ioctl_readwrite_bad!(
        hwpt_get_dirty_bitmap,
        number(IOMMUFD_CMD_HWPT_GET_DIRTY_BITMAP),
        GetDirtyBitmap
    );
    nix::ioctl_readwrite_bad!(ioas_map_file, number(IOMMUFD_CMD_IOAS_MAP_FILE), MapFile);
}

/// The device's access to a mapping.
#[derive(Debug, Clone, Copy)]
pub(super) struct Access {
    pub(super) read: bool,
    pub(super) write: bool,
}

impl Access {
    const fn flags(self) -> u32 {
        let mut flags = abi::MAP_FIXED_IOVA;
        if self.read {
            flags |= abi::MAP_READABLE;
        }
        if self.write {
            flags |= abi::MAP_WRITEABLE;
        }
        flags
    }
}

/// `IOMMU_DESTROY`
pub(super) fn destroy(fd: BorrowedFd<'_>, id: u32) -> nix::Result<()> {
    #[cfg(test)]
    if let Some(answer) = crate::fake_kernel::answer(crate::fake_kernel::Call::Destroy) {
        return answer.map(drop);
    }
    let destroy = Destroy {
        size: abi::size::<Destroy>(),
        id,
    };
    // SAFETY: the structure outlives the call and holds its own size.
    unsafe { raw::destroy(fd.as_raw_fd(), &raw const destroy) }.map(drop)
}

/// `IOMMU_IOAS_ALLOC`: returns the id of a new address space.
pub(super) fn ioas_alloc(fd: BorrowedFd<'_>) -> nix::Result<u32> {
    let mut alloc = IoasAlloc {
        size: abi::size::<IoasAlloc>(),
        ..Default::default()
    };
    // SAFETY: the structure outlives the call and holds its own size.
    unsafe { raw::ioas_alloc(fd.as_raw_fd(), &raw mut alloc) }?;
    Ok(alloc.out_ioas_id)
}

/// The largest number of ranges to allocate memory for; no address space has as many.
const MAX_RANGES: usize = 1 << 16;

/// `IOMMU_IOAS_IOVA_RANGES`: returns the first and last address of each range. Also returns the alignment of mappings.
pub(super) fn ioas_iova_ranges(
    fd: BorrowedFd<'_>,
    ioas: u32,
) -> nix::Result<(Vec<(u64, u64)>, u64)> {
    let mut room = 16_usize;
    // An attached device can add ranges between two calls, so a few attempts are allowed.
    for _ in 0..8 {
        let mut ranges = vec![IovaRange::default(); room];
        let mut request = IovaRanges {
            size: abi::size::<IovaRanges>(),
            ioas_id: ioas,
            num_iovas: u32::try_from(room).unwrap_or(0),
            allowed_iovas: to_u64(ranges.as_mut_ptr().expose_provenance()),
            ..Default::default()
        };
        // SAFETY: the structure outlives the call and holds its own size; the ranges outlive it too, and their number
        // is given.
        let result = unsafe { raw::ioas_iova_ranges(fd.as_raw_fd(), &raw mut request) };
        let count = usize::try_from(request.num_iovas).unwrap_or(usize::MAX);
        match result {
            Ok(_) if count <= room => {
                ranges.truncate(count);
                let pairs = ranges.iter().map(|range| (range.start, range.last));
                return Ok((pairs.collect(), request.out_iova_alignment));
            }
            Err(Errno::EMSGSIZE) if count > room && count <= MAX_RANGES => room = count,
            Ok(_) => return Err(Errno::EOVERFLOW),
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EMSGSIZE)
}

/// `IOMMU_IOAS_MAP` at a fixed IOVA.
///
/// # Safety
/// The memory from `address` on must stay mapped as it is while the IOMMU mapping exists: devices can read it and,
/// with `write`, change it.
pub(super) unsafe fn ioas_map(
    fd: BorrowedFd<'_>,
    ioas: u32,
    range: &Range,
    address: u64,
    access: Access,
) -> nix::Result<()> {
    #[cfg(test)]
    if let Some(answer) = crate::fake_kernel::answer(crate::fake_kernel::Call::IoasMap) {
        return answer.map(drop);
    }
    let mut map = Map {
        size: abi::size::<Map>(),
        flags: access.flags(),
        ioas_id: ioas,
        user_va: address,
        length: range.len(),
        iova: range.start(),
        ..Default::default()
    };
    // SAFETY: the structure outlives the call; the caller guarantees the memory.
    unsafe { raw::ioas_map(fd.as_raw_fd(), &raw mut map) }.map(drop)
}

/// `IOMMU_IOAS_MAP_FILE` at a fixed IOVA. The kernel holds the file's pages, or the dma-buf, itself.
pub(super) fn ioas_map_file(
    fd: BorrowedFd<'_>,
    ioas: u32,
    range: &Range,
    file: BorrowedFd<'_>,
    start: u64,
    access: Access,
) -> nix::Result<()> {
    #[cfg(test)]
    if let Some(answer) = crate::fake_kernel::answer(crate::fake_kernel::Call::IoasMap) {
        return answer.map(drop);
    }
    let mut map = MapFile {
        size: abi::size::<MapFile>(),
        flags: access.flags(),
        ioas_id: ioas,
        fd: file.as_raw_fd(),
        start,
        length: range.len(),
        iova: range.start(),
    };
    // SAFETY: the structure outlives the call and holds its own size.
    unsafe { raw::ioas_map_file(fd.as_raw_fd(), &raw mut map) }.map(drop)
}

/// Whether it is an iommufd: only there, 0 is the id of no object (Linux, `iommufd_get_ioas`).
pub(super) fn is_iommufd(fd: BorrowedFd<'_>) -> bool {
    ioas_iova_ranges(fd, 0) == Err(Errno::ENOENT)
}

/// Whether the kernel supports `IOMMU_IOAS_MAP_FILE`. Calls it with arguments that every kernel rejects.
pub(super) fn supports_map_file(fd: BorrowedFd<'_>) -> bool {
    let mut map = MapFile {
        size: abi::size::<MapFile>(),
        fd: -1,
        ..Default::default()
    };
    // SAFETY: the structure outlives the call and holds its own size.
    let result = unsafe { raw::ioas_map_file(fd.as_raw_fd(), &raw mut map) };
    result != Err(Errno::ENOTTY)
}

/// `IOMMU_IOAS_UNMAP`: returns the number of unmapped bytes.
pub(super) fn ioas_unmap(
    fd: BorrowedFd<'_>,
    ioas: u32,
    iova: u64,
    length: u64,
) -> nix::Result<u64> {
    #[cfg(test)]
    if let Some(answer) = crate::fake_kernel::answer(crate::fake_kernel::Call::IoasUnmap) {
        return answer;
    }
    let mut unmap = Unmap {
        size: abi::size::<Unmap>(),
        ioas_id: ioas,
        iova,
        length,
    };
    // SAFETY: the structure outlives the call and holds its own size.
    unsafe { raw::ioas_unmap(fd.as_raw_fd(), &raw mut unmap) }?;
    Ok(unmap.length)
}

/// `IOMMU_GET_HW_INFO`: returns whether the IOMMU of a device can log dirty pages.
pub(super) fn logs_dirty_pages(fd: BorrowedFd<'_>, device: u32) -> nix::Result<bool> {
    let mut info = HwInfo {
        size: abi::size::<HwInfo>(),
        dev_id: device,
        ..Default::default()
    };
    // SAFETY: the structure outlives the call and holds its own size; it has no data buffer.
    unsafe { raw::get_hw_info(fd.as_raw_fd(), &raw mut info) }?;
    Ok(info.out_capabilities & u64::from(abi::HW_CAP_DIRTY_TRACKING) != 0)
}

/// `IOMMU_HWPT_ALLOC`: returns the id of a new page table for a device, with dirty-page logging.
pub(super) fn hwpt_alloc_dirty(fd: BorrowedFd<'_>, device: u32, ioas: u32) -> nix::Result<u32> {
    let mut alloc = HwptAlloc {
        size: abi::size::<HwptAlloc>(),
        flags: abi::HWPT_DIRTY_TRACKING,
        dev_id: device,
        pt_id: ioas,
        ..Default::default()
    };
    // SAFETY: the structure outlives the call and holds its own size.
    unsafe { raw::hwpt_alloc(fd.as_raw_fd(), &raw mut alloc) }?;
    Ok(alloc.out_hwpt_id)
}

/// `IOMMU_HWPT_SET_DIRTY_TRACKING`
pub(super) fn set_dirty_tracking(fd: BorrowedFd<'_>, hwpt: u32, on: bool) -> nix::Result<()> {
    let set = SetDirtyTracking {
        size: abi::size::<SetDirtyTracking>(),
        flags: if on { abi::DIRTY_TRACKING_ENABLE } else { 0 },
        hwpt_id: hwpt,
        ..Default::default()
    };
    // SAFETY: the structure outlives the call and holds its own size.
    unsafe { raw::hwpt_set_dirty_tracking(fd.as_raw_fd(), &raw const set) }.map(drop)
}

/// `IOMMU_HWPT_GET_DIRTY_BITMAP`: sets the bits of pages written since the last call. The caller passes `words` with
/// one bit for each page.
pub(super) fn get_dirty_bitmap(
    fd: BorrowedFd<'_>,
    hwpt: u32,
    range: &Range,
    page_size: u64,
    words: &mut [u64],
) -> nix::Result<()> {
    let pages = range.len().div_ceil(page_size.max(1));
    if pages.div_ceil(64) > to_u64(words.len()) {
        return Err(Errno::EINVAL);
    }
    let mut get = GetDirtyBitmap {
        size: abi::size::<GetDirtyBitmap>(),
        hwpt_id: hwpt,
        iova: range.start(),
        length: range.len(),
        page_size,
        data: to_u64(words.as_mut_ptr().expose_provenance()),
        ..Default::default()
    };
    // SAFETY: the structure outlives the call and holds its own size; the bitmap has a bit for every page, as
    // checked.
    unsafe { raw::hwpt_get_dirty_bitmap(fd.as_raw_fd(), &raw mut get) }.map(drop)
}
