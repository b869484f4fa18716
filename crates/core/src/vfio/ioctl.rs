//! The ioctls of VFIO. Their numbers are plain `_IO(';', 100 + n)`, whatever they read or write.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::abi::{DmaUnmap, argsz, vfio_device_info, vfio_group_status, vfio_iommu_type1_dma_map};

/// Returns the number of VFIO's ioctl `n`, in the C library's type.
pub(super) const fn number(n: u8) -> libc::Ioctl {
    nix::request_code_none!(b';', 100_u8.saturating_add(n))
}

/// Returns two adjacent 32-bit fields as one word of memory.
pub(super) const fn fields(first: u32, second: u32) -> u64 {
    let [a, b, c, d] = first.to_ne_bytes();
    let [e, f, g, h] = second.to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

mod raw {
    use super::super::abi::{
        DmaUnmap, vfio_device_info, vfio_group_status, vfio_iommu_type1_dma_map,
        vfio_iommu_type1_info, vfio_region_info,
    };
    use super::number;
    use nix::libc::c_char;

    nix::ioctl_none_bad!(get_api_version, number(0));
    nix::ioctl_write_int_bad!(check_extension, number(1));
    nix::ioctl_write_int_bad!(set_iommu, number(2));
    nix::ioctl_read_bad!(group_get_status, number(3), vfio_group_status);
    nix::ioctl_write_ptr_bad!(group_set_container, number(4), i32);
    nix::ioctl_none_bad!(group_unset_container, number(5));
    nix::ioctl_write_ptr_bad!(group_get_device_fd, number(6), c_char);
    nix::ioctl_readwrite_bad!(device_get_info, number(7), vfio_device_info);
    nix::ioctl_readwrite_bad!(device_get_region_info, number(8), vfio_region_info);
    nix::ioctl_none_bad!(device_reset, number(11));
    nix::ioctl_readwrite_bad!(iommu_get_info, number(12), vfio_iommu_type1_info);
    nix::ioctl_write_ptr_bad!(iommu_map_dma, number(13), vfio_iommu_type1_dma_map);
    nix::ioctl_readwrite_bad!(iommu_unmap_dma, number(14), DmaUnmap);
}

/// `VFIO_GET_API_VERSION`
pub(super) fn get_api_version(fd: BorrowedFd<'_>) -> nix::Result<i32> {
    // SAFETY: the ioctl takes no argument.
    unsafe { raw::get_api_version(fd.as_raw_fd()) }
}

/// `VFIO_CHECK_EXTENSION`
pub(super) fn check_extension(fd: BorrowedFd<'_>, extension: i32) -> nix::Result<bool> {
    // SAFETY: the ioctl takes a plain number.
    unsafe { raw::check_extension(fd.as_raw_fd(), extension) }.map(|answer| answer > 0)
}

/// `VFIO_SET_IOMMU`
pub(super) fn set_iommu(fd: BorrowedFd<'_>, kind: i32) -> nix::Result<()> {
    // SAFETY: the ioctl takes a plain number.
    unsafe { raw::set_iommu(fd.as_raw_fd(), kind) }.map(drop)
}

/// `VFIO_GROUP_GET_STATUS`: returns the flags.
pub(super) fn group_get_status(fd: BorrowedFd<'_>) -> nix::Result<u32> {
    let mut status = vfio_group_status {
        argsz: argsz::<vfio_group_status>(),
        flags: 0,
    };
    // SAFETY: the structure outlives the call and holds its own size.
    unsafe { raw::group_get_status(fd.as_raw_fd(), &raw mut status) }?;
    Ok(status.flags)
}

/// `VFIO_GROUP_SET_CONTAINER`
pub(super) fn group_set_container(
    group: BorrowedFd<'_>,
    container: BorrowedFd<'_>,
) -> nix::Result<()> {
    let number: RawFd = container.as_raw_fd();
    // SAFETY: the number outlives the call.
    unsafe { raw::group_set_container(group.as_raw_fd(), &raw const number) }.map(drop)
}

/// `VFIO_GROUP_UNSET_CONTAINER`
pub(super) fn group_unset_container(group: BorrowedFd<'_>) -> nix::Result<()> {
    #[cfg(test)]
    if let Some(answer) = crate::fake_kernel::answer(crate::fake_kernel::Call::UnsetContainer) {
        return answer.map(drop);
    }
    // SAFETY: the ioctl takes no argument.
    unsafe { raw::group_unset_container(group.as_raw_fd()) }.map(drop)
}

/// `VFIO_GROUP_GET_DEVICE_FD`
pub(super) fn group_get_device_fd(
    group: BorrowedFd<'_>,
    name: &std::ffi::CStr,
) -> nix::Result<OwnedFd> {
    // SAFETY: the name ends with NUL and outlives the call; the descriptor is new and ours.
    unsafe {
        raw::group_get_device_fd(group.as_raw_fd(), name.as_ptr())
            .map(|fd| OwnedFd::from_raw_fd(fd))
    }
}

/// `VFIO_DEVICE_GET_INFO`
pub(super) fn device_get_info(fd: BorrowedFd<'_>) -> nix::Result<vfio_device_info> {
    let mut info = vfio_device_info {
        argsz: argsz::<vfio_device_info>(),
        ..Default::default()
    };
    // SAFETY: the structure outlives the call and holds its own size.
    unsafe { raw::device_get_info(fd.as_raw_fd(), &raw mut info) }?;
    Ok(info)
}

/// `VFIO_DEVICE_GET_REGION_INFO`: returns the structure and its capabilities, as bytes.
pub(super) fn device_get_region_info(fd: BorrowedFd<'_>, index: u32) -> nix::Result<Vec<u8>> {
    variable(32, |buffer| {
        set_u32(buffer, 8, index);
        // SAFETY: the buffer is aligned, outlives the call, and holds its own size in argsz.
        unsafe { raw::device_get_region_info(fd.as_raw_fd(), buffer.as_mut_ptr().cast()) }
    })
}

/// `VFIO_DEVICE_RESET`
pub(super) fn device_reset(fd: BorrowedFd<'_>) -> nix::Result<()> {
    #[cfg(test)]
    if let Some(answer) = crate::fake_kernel::answer(crate::fake_kernel::Call::ResetDevice) {
        return answer.map(drop);
    }
    // SAFETY: the ioctl takes no argument.
    unsafe { raw::device_reset(fd.as_raw_fd()) }.map(drop)
}

/// `VFIO_IOMMU_GET_INFO`: returns the structure and its capabilities, as bytes.
pub(super) fn iommu_get_info(fd: BorrowedFd<'_>) -> nix::Result<Vec<u8>> {
    // SAFETY: the buffer is aligned, outlives the call, and holds its own size in argsz.
    variable(24, |buffer| unsafe {
        raw::iommu_get_info(fd.as_raw_fd(), buffer.as_mut_ptr().cast())
    })
}

/// `VFIO_IOMMU_MAP_DMA`
///
/// # Safety
/// `vaddr..vaddr + size` must stay mapped as it is while the IOMMU mapping exists: devices can read that memory and,
/// with the write flag, change it.
pub(super) unsafe fn iommu_map_dma(
    fd: BorrowedFd<'_>,
    map: &vfio_iommu_type1_dma_map,
) -> nix::Result<()> {
    #[cfg(test)]
    if let Some(answer) = crate::fake_kernel::answer(crate::fake_kernel::Call::MapDma) {
        return answer.map(drop);
    }
    // SAFETY: the structure outlives the call; the caller guarantees the memory.
    unsafe { raw::iommu_map_dma(fd.as_raw_fd(), &raw const *map) }.map(drop)
}

/// `VFIO_IOMMU_UNMAP_DMA`: returns the number of unmapped bytes.
pub(super) fn iommu_unmap_dma(
    fd: BorrowedFd<'_>,
    iova: u64,
    size: u64,
    flags: u32,
) -> nix::Result<u64> {
    #[cfg(test)]
    if let Some(answer) = crate::fake_kernel::answer(crate::fake_kernel::Call::UnmapDma) {
        return answer;
    }
    let mut unmap = DmaUnmap {
        argsz: argsz::<DmaUnmap>(),
        flags,
        iova,
        size,
    };
    // SAFETY: the structure outlives the call and holds its own size.
    unsafe { raw::iommu_unmap_dma(fd.as_raw_fd(), &raw mut unmap) }?;
    Ok(unmap.size)
}

/// The largest size to allocate for a result; no kernel returns as much.
const MAX_RESULT_BYTES: u32 = 1 << 20;

/// Calls an ioctl whose result may be longer than its structure of `header` bytes. The kernel then stores the
/// required size in `argsz`, the first field, and the ioctl is called again with that size.
fn variable(
    header: u32,
    mut call: impl FnMut(&mut [u64]) -> nix::Result<i32>,
) -> nix::Result<Vec<u8>> {
    let mut size = header;
    // The result can grow between two calls (another group was attached), so a few attempts are allowed.
    for _ in 0..8 {
        let words = usize::try_from(size.div_ceil(8)).unwrap_or(0);
        let mut buffer = vec![0_u64; words];
        set_u32(&mut buffer, 0, size);
        call(&mut buffer)?;
        let bytes: Vec<u8> = buffer.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let required = bytes
            .first_chunk()
            .map_or(0, |argsz: &[u8; 4]| u32::from_ne_bytes(*argsz));
        if required <= size {
            return Ok(bytes);
        }
        if required > MAX_RESULT_BYTES {
            // A result without its capabilities would be wrong: it would mean that all of a region can be mapped, or
            // that IOVAs have no limits.
            break;
        }
        size = required;
    }
    Err(Errno::E2BIG)
}

/// Stores a 32-bit field at a byte offset of a structure, in native byte order.
fn set_u32(buffer: &mut [u64], offset: usize, value: u32) {
    let Some(word) = buffer.get_mut(offset / 8) else {
        return;
    };
    let mut bytes = word.to_ne_bytes();
    for (to, from) in bytes.iter_mut().skip(offset % 8).zip(value.to_ne_bytes()) {
        *to = from;
    }
    *word = u64::from_ne_bytes(bytes);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// Calls `variable` with a kernel that requires `required` bytes at each call. Returns the result and the sizes
    /// passed.
    fn call_with_sizes(required: impl Fn(usize) -> u32) -> (nix::Result<Vec<u8>>, Vec<u32>) {
        let mut sizes = Vec::new();
        let result = variable(24, |buffer| {
            sizes.push(u32::from_ne_bytes(
                *buffer[0].to_ne_bytes().first_chunk().unwrap(),
            ));
            assert!(buffer.len() * 8 >= usize::try_from(sizes[sizes.len() - 1]).unwrap());
            set_u32(buffer, 0, required(sizes.len()));
            Ok(0)
        });
        (result, sizes)
    }

    #[test]
    fn calls_again_with_the_required_size() {
        let (answer, sizes) = call_with_sizes(|call| if call == 1 { 105 } else { 100 });
        assert_eq!((answer.unwrap().len(), sizes), (112, vec![24, 105]));
        let (answer, sizes) = call_with_sizes(|_| 0);
        assert_eq!((answer.unwrap().len(), sizes), (24, vec![24]));
    }

    #[test]
    fn fails_if_the_required_size_keeps_growing_or_is_too_large() {
        let (answer, sizes) = call_with_sizes(|call| 24 + 8 * u32::try_from(call).unwrap());
        assert_eq!((answer.unwrap_err(), sizes.len()), (Errno::E2BIG, 8));
        for huge in [MAX_RESULT_BYTES + 1, 1 << 31, u32::MAX] {
            let (answer, sizes) = call_with_sizes(|_| huge);
            assert_eq!((answer.unwrap_err(), sizes), (Errno::E2BIG, vec![24]));
        }
    }

    #[test]
    fn returns_the_errno_of_a_failed_call() {
        assert_eq!(variable(32, |_| Err(Errno::EINVAL)), Err(Errno::EINVAL));
    }

    #[test]
    fn stores_a_field_without_changing_others() {
        let mut buffer = [u64::MAX; 2];
        set_u32(&mut buffer, 8, 0x1234_5678);
        set_u32(&mut buffer, 16, 1);
        assert_eq!(buffer, [u64::MAX, 0xffff_ffff_1234_5678]);
    }
}
