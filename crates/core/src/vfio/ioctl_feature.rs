//! The ioctl for device features. This crate uses two: dma-bufs of BARs, and the VF token.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::abi::{
    VFIO_DEVICE_FEATURE_DMA_BUF, VFIO_DEVICE_FEATURE_GET, VFIO_DEVICE_FEATURE_PCI_VF_TOKEN,
    VFIO_DEVICE_FEATURE_PROBE, VFIO_DEVICE_FEATURE_SET,
};
use super::ioctl::fields;
use super::token::VfToken;
use crate::Range;

mod raw {
    use super::super::ioctl::number;

    // The words of `struct vfio_device_feature`: argsz and flags, then the feature's own data.
    nix::ioctl_readwrite_bad!(device_feature, number(17), u64);
}

/// The words of argsz and flags.
const HEADER: usize = 1;
/// The words of `struct vfio_device_feature_dma_buf` with one range. They are region and open flags, flags and number
/// of ranges, offset, length.
const DMA_BUF: usize = 4;

/// Checks whether the kernel supports `VFIO_DEVICE_FEATURE_DMA_BUF`.
pub(super) fn probe_dma_buf(fd: BorrowedFd<'_>) -> nix::Result<()> {
    let flags = VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF;
    let mut words = [fields(8, flags); HEADER];
    // SAFETY: the words outlive the call and give their length in bytes in argsz, the first field.
    unsafe { raw::device_feature(fd.as_raw_fd(), words.as_mut_ptr()) }.map(drop)
}

/// `VFIO_DEVICE_FEATURE_DMA_BUF`: returns part of a region as a dma-buf. Child processes do not inherit it.
pub(super) fn export_dma_buf(
    fd: BorrowedFd<'_>,
    region: u32,
    area: &Range,
) -> nix::Result<OwnedFd> {
    let open_flags = libc::O_RDWR.cast_unsigned() | libc::O_CLOEXEC.cast_unsigned();
    let flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF;
    let mut words = [
        fields(40, flags),
        fields(region, open_flags),
        fields(0, 1),
        area.start(),
        area.len(),
    ];
    // SAFETY: the words outlive the call and give their length in bytes in argsz, the first field; the descriptor is
    // new and ours.
    unsafe {
        raw::device_feature(fd.as_raw_fd(), words.as_mut_ptr()).map(|fd| OwnedFd::from_raw_fd(fd))
    }
}

/// `VFIO_DEVICE_FEATURE_PCI_VF_TOKEN`: sets the token that virtual functions of the device require.
pub(super) fn set_vf_token(fd: BorrowedFd<'_>, token: VfToken) -> nix::Result<()> {
    let flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_PCI_VF_TOKEN;
    let ([first, second], _) = token.0.as_chunks::<8>() else {
        return Err(nix::errno::Errno::EINVAL);
    };
    let mut words = [
        fields(24, flags),
        u64::from_ne_bytes(*first),
        u64::from_ne_bytes(*second),
    ];
    // SAFETY: the words outlive the call and give their length in bytes in argsz, the first field.
    unsafe { raw::device_feature(fd.as_raw_fd(), words.as_mut_ptr()) }.map(drop)
}

const _: () = assert!(8 * (HEADER + DMA_BUF) == 40);
